//! The server process: where its programs are, how it starts and how it is sure to end.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Runs the server beside a pipe from the test process. A line on it names the signal to stop with; its end means that the
/// test process is gone, by SIGKILL perhaps, and then folder and all go. `$1` is the folder, the rest is the command.
const WATCH: &str = r#"
folder=$1; shift
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
read -r signal
kill -"${signal:-QUIT}" "$server" 2>/dev/null
wait "$server"
[ -n "$signal" ] || rm -rf "$folder"
"#;

/// How the servers' folders begin.
const FOLDERS: &str = "runner-postgres-";

/// `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65534;

/// A PostgreSQL server on a free port. Ends with the last handle, or with the process.
#[derive(Debug)]
pub(super) struct Server {
    /// How it is started.
    launch: Launch,
    /// The superuser's password.
    password: String,
    /// The shell that watches over it; none while it is stopped.
    watch: Mutex<Option<Child>>,
}

#[derive(Debug)]
struct Launch {
    /// Holds data, log and socket.
    folder: TempDir,
    /// Where PostgreSQL's programs are.
    programs: PathBuf,
    /// The port of the loopback to listen on.
    port: u16,
    /// Whether commits are forced to disk.
    durable: bool,
}

impl Server {
    pub(super) fn start(durable: bool) -> Self {
        sweep();
        let folder = tempfile::Builder::new().prefix(FOLDERS).tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("cannot make a folder for PostgreSQL: {error}"));
        let password = format!("secret-{:08x}", std::process::id());
        let mut launch = Launch { folder, programs: programs(), port: 0, durable };
        launch.fill(&password);
        for _ in 0..8 {
            // Another process may take the port before the server does.
            launch.port = free_port();
            match launch.launch() {
                Ok(watch) => return Self { launch, password, watch: Mutex::new(Some(watch)) },
                Err(log) if log.contains("could not create any TCP/IP sockets") => {}
                Err(log) => panic!("PostgreSQL does not start:\n{log}"),
            }
        }
        panic!("PostgreSQL finds no free port");
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.launch.port).into()
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// Sends the signal and waits for the end. Does nothing where it is stopped already.
    pub(super) fn stop(&self, signal: &str) {
        if let Some(watch) = self.watch().take() {
            end(watch, &format!("{signal}\n"));
        }
    }

    pub(super) fn restart(&self) {
        self.stop("INT");
        let watch = self.launch.launch().unwrap_or_else(|log| panic!("PostgreSQL does not start again:\n{log}"));
        *self.watch() = Some(watch);
    }

    fn watch(&self) -> MutexGuard<'_, Option<Child>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(watch) = self.watch().take() {
            end(watch, "");
        }
    }
}

impl Launch {
    /// Makes the data. As root, everything belongs to `nobody`.
    fn fill(&self, password: &str) {
        let folder = self.folder.path();
        let file = folder.join("password");
        let written = fs::write(&file, password).and_then(|()| {
            if is_root() {
                std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))?;
                std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY))?;
            }
            Ok(())
        });
        written.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let made = self
            .command("initdb")
            .args(["--no-sync", "--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", file.display()))
            .arg("-D")
            .arg(folder.join("data"))
            .output();
        match made {
            Ok(made) if made.status.success() => {}
            Ok(made) => panic!("initdb fails:\n{}", String::from_utf8_lossy(&made.stderr)),
            Err(error) => panic!("cannot run initdb in {}: {error}", self.programs.display()),
        }
    }

    /// Starts the server and waits until it takes connections; its log if it does not.
    fn launch(&self) -> Result<Child, String> {
        let folder = self.folder.path();
        let log = folder.join("log");
        drop(fs::remove_file(&log));
        let sync = if self.durable { "on" } else { "off" };
        let mut server = self.command("postgres");
        server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).args(["-h", "127.0.0.1"]);
        server.arg("-p").arg(self.port.to_string());
        for setting in ["fsync", "full_page_writes"] {
            server.arg("-c").arg(format!("{setting}={sync}"));
        }
        // Many tests at once, each with a pool; little memory.
        server.args(["-c", "max_connections=300", "-c", "shared_buffers=16MB"]);
        let mut watch = Command::new("sh")
            .arg("-c")
            .arg(WATCH)
            .arg("watch")
            .arg(folder)
            .arg(server.get_program())
            .args(server.get_args())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run sh: {error}"))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // The eighth line of this file is the server's state.
            let state = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
                return Ok(watch);
            }
            let log = fs::read_to_string(&log).unwrap_or_default();
            // Clients that knock meanwhile are told off there, too.
            let failed = ["could not create any TCP/IP sockets", "database system is shut down"];
            if failed.iter().any(|text| log.contains(text))
                || Instant::now() > deadline
                || matches!(watch.try_wait(), Ok(Some(_)))
            {
                end(watch, "QUIT\n");
                return Err(log);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One of PostgreSQL's programs, as a user that it accepts.
    fn command(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command
                .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        // The caller's folder may be closed to that user.
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }
}

/// Removes folders of long ago: where the watch was killed together with the tests, nobody did.
fn sweep() {
    let day = Duration::from_secs(24 * 60 * 60);
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|about| about.modified()).ok().and_then(|modified| modified.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(FOLDERS) && age.is_some_and(|age| age > day) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// Tells the watch to end the server, and waits for it.
fn end(mut watch: Child, line: &str) {
    if let Some(mut pipe) = watch.stdin.take() {
        // It fails only if the watch is gone already.
        drop(pipe.write_all(line.as_bytes()));
    }
    drop(watch.wait());
}

/// The folder with `initdb` and `postgres`: the newest that distributions install, else what the PATH finds.
fn programs() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed
        .filter_map(|version| Some((version.file_name().to_str()?.parse::<u32>().ok()?, version.path().join("bin"))))
        .filter(|(_, folder)| folder.join("initdb").is_file())
        .max();
    if let Some((_, folder)) = newest {
        return folder;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A link leads to where the server's other files are.
    let found = std::env::split_paths(&path).find_map(|folder| fs::canonicalize(folder.join("initdb")).ok());
    match found.as_deref().and_then(Path::parent) {
        Some(folder) => folder.to_owned(),
        None => {
            panic!("no PostgreSQL here (initdb is neither in /usr/lib/postgresql nor in the PATH): run scripts/setup")
        }
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    socket.unwrap_or_else(|error| panic!("no free port: {error}")).port()
}

/// Who owns a file that this process makes tells who it is.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

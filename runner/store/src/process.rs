//! Which process this is, and whether another one on this machine still lives.

use std::{
    collections::HashSet,
    fs, io,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

/// The live runs of this process: a run that was dropped is dead though its process lives on.
static LIVE: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

static OWN: LazyLock<String> = LazyLock::new(|| identity().unwrap_or_default());

/// What can be seen of a run's process from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Alive,
    Dead,
    /// It is on another machine or in another container.
    Unknown,
}

/// This process in a text that no other process has: `BOOT/PIDS/PID/START`. Empty where the system does not say.
pub(crate) fn own() -> &'static str {
    &OWN
}

fn identity() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let pids = fs::read_link("/proc/self/ns/pid").ok()?;
    let pid = std::process::id();
    let (_, start) = stat(pid).ok()??;
    Some(format!("{}/{}/{pid}/{start}", boot.trim(), pids.display()))
}

/// State and start time (ticks since boot) of a process; `None` if the system tells it in another way.
fn stat(pid: u32) -> io::Result<Option<(char, u64)>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may hold anything.
    let Some((_, fields)) = text.rsplit_once(')') else { return Ok(None) };
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().and_then(|state| state.chars().next());
    let start = fields.nth(18).and_then(|start| start.parse().ok());
    Ok(state.zip(start))
}

/// Looks whether the process of a run lives.
pub(crate) fn look(process: &str, run: &str) -> Sign {
    if process.is_empty() {
        return Sign::Unknown;
    }
    if process == own() {
        return if live().contains(run) { Sign::Alive } else { Sign::Dead };
    }
    let parts = |text: &str| {
        let mut parts = text.rsplitn(3, '/').map(str::to_owned);
        let (start, pid) = (parts.next()?, parts.next()?);
        Some((parts.next()?, pid.parse::<u32>().ok()?, start.parse::<u64>().ok()?))
    };
    let (Some((there, pid, start)), Some((here, ..))) = (parts(process), parts(own())) else { return Sign::Unknown };
    if there != here {
        return Sign::Unknown;
    }
    match stat(pid) {
        // A zombie has ended; nobody has asked yet how.
        Ok(Some((state, now))) if now == start && !matches!(state, 'Z' | 'X') => Sign::Alive,
        Ok(Some(_)) => Sign::Dead,
        Ok(None) => Sign::Unknown,
        // Some systems hide the processes of others, and then the first one too.
        Err(error) if error.kind() == io::ErrorKind::NotFound && stat(1).is_ok() => Sign::Dead,
        Err(_) => Sign::Unknown,
    }
}

/// Counts a run among the live ones of this process; `false` if it is there already.
pub(crate) fn enter(run: &str) -> bool {
    live().insert(run.to_owned())
}

/// The run has ended, however.
pub(crate) fn leave(run: &str) {
    live().remove(run);
}

fn live() -> MutexGuard<'static, HashSet<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_lives_as_long_as_its_run() {
        assert!(enter("a-run") && !enter("a-run"));
        assert_eq!(look(own(), "a-run"), Sign::Alive);
        leave("a-run");
        assert_eq!(look(own(), "a-run"), Sign::Dead);
    }

    #[test]
    fn a_child_is_alive_until_it_ends_and_dead_as_a_zombie() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let (_, start) = stat(child.id()).unwrap().unwrap();
        let place = own().rsplitn(3, '/').nth(2).unwrap();
        let process = format!("{place}/{}/{start}", child.id());
        assert_eq!(look(&process, "r"), Sign::Alive);
        let reused = format!("{place}/{}/{}", child.id(), start + 1);
        assert_eq!(look(&reused, "r"), Sign::Dead, "another process has its number");
        child.kill().unwrap();
        while stat(child.id()).unwrap().unwrap().0 != 'Z' {
            std::thread::yield_now();
        }
        assert_eq!(look(&process, "r"), Sign::Dead);
        child.wait().unwrap();
        assert_eq!(look(&process, "r"), Sign::Dead);
    }

    #[test]
    fn of_another_machine_nothing_is_known() {
        for process in ["", "elsewhere/pid:[1]/1/2", "nonsense", "a/b", "//"] {
            assert_eq!(look(process, "r"), Sign::Unknown, "{process}");
        }
    }
}

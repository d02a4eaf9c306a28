//! What the testbed promises: servers that work, go when they should, and fail as they are told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use runner_testbed::{Direction, Postgres, Proxy};

#[test]
fn every_test_has_its_own_database() {
    let (a, b) = (Postgres::start(), Postgres::start());
    a.execute("CREATE TABLE t (x BIGINT); INSERT INTO t VALUES (7)");
    b.execute("CREATE TABLE t (x BIGINT)");
    assert_eq!((a.number("SELECT x FROM t"), b.number("SELECT count(*) FROM t")), (7, 0));
}

#[tokio::test]
async fn what_is_committed_outlives_a_stop_and_a_crash() {
    let postgres = Postgres::alone();
    postgres.execute("CREATE TABLE t (x BIGINT)");
    postgres.execute("INSERT INTO t VALUES (1)");
    let (began, url) = (Instant::now(), postgres.url());
    postgres.restart();
    postgres.execute("INSERT INTO t VALUES (2)");
    postgres.crash();
    postgres.restart();
    assert_eq!(postgres.number("SELECT count(*) FROM t"), 2);
    assert_eq!(postgres.url(), url);
    assert!(began.elapsed() < Duration::from_secs(20));
}

const CHILD: &str = "RUNNER_TESTBED_CHILD";

/// Run again as a process that starts a server, says where it is, and is killed.
#[test]
fn a_server_goes_with_its_process_however_that_ends() {
    if std::env::var_os(CHILD).is_some() {
        let postgres = Postgres::alone();
        println!("server {} is here", postgres.address().port());
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_server_goes_with_its_process_however_that_ends", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.into_iter().find(|line| line.contains("server ")).unwrap();
    let port: u16 = line.split("server ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(answers());
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while answers() {
        assert!(began.elapsed() < Duration::from_secs(20), "the server on port {port} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An echo behind a proxy, and a connection to it.
fn echo() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut { stream }));
        }
    });
    let stream = TcpStream::connect(proxy.address()).unwrap();
    (proxy, stream)
}

/// What comes back of `sent`; less where the connection ends.
fn answer(stream: &mut TcpStream, sent: &[u8]) -> Vec<u8> {
    let mut back = vec![0; sent.len()];
    let mut read = 0;
    if stream.write_all(sent).is_ok() {
        // To read nothing would wait for something.
        while read < back.len()
            && let Ok(more @ 1..) = stream.read(&mut back[read..])
        {
            read += more;
        }
    }
    back.truncate(read);
    back
}

#[test]
fn a_proxy_passes_everything_on_until_it_is_told_otherwise() {
    let (proxy, mut stream) = echo();
    assert_eq!(answer(&mut stream, b"hello"), b"hello");
    proxy.cut();
    assert_eq!(answer(&mut stream, b"hello"), b"");
    assert_eq!(proxy.happened(), 1);

    for (direction, back) in [(Direction::ToServer, &b"hel"[..]), (Direction::ToClient, b"hel")] {
        let (proxy, mut stream) = echo();
        proxy.cut_after(direction, 3);
        assert!(back.starts_with(&answer(&mut stream, b"hello")));
        let mut next = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(answer(&mut next, b"again"), b"again");
    }

    let (proxy, mut stream) = echo();
    proxy.lose_reply(b"COMMIT", 1);
    assert_eq!(answer(&mut stream, b"COMMIT 1"), b"COMMIT 1");
    assert_eq!(answer(&mut stream, b"COMMIT 2"), b"");
    assert_eq!(proxy.happened(), 1);

    let (proxy, mut stream) = echo();
    proxy.swallow();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(answer(&mut stream, b"hello"), b"");
    proxy.heal();
    assert_eq!(answer(&mut stream, b"hello"), b"hello");
    proxy.refuse();
    let mut next = TcpStream::connect(proxy.address()).unwrap();
    assert_eq!(answer(&mut next, b"hello"), b"");
}

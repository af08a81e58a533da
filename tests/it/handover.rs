//! A new process takes over from an old one: shared ports, passed sockets, and the accept queue.
//!
//! The clients open a new connection for every request, because a hand-over could lose connections in
//! the queue of the socket that is closed.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::support::process::{file, run};
use crate::support::{
    Client, Config, KEY_A, PATIENCE, Process, Upstream, config, envelope, envelope_request,
};

const CLIENTS: usize = 8;
const HAND_OVERS: usize = 3;

/// How many requests arrive before and after each hand-over.
const REQUESTS_BETWEEN: usize = 200;

/// Passes its standard input on, as a service manager does.
const PASS_SOCKET: &str =
    r#"exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@""#;

/// Sends requests to `address`, each over a new connection, while mirrors started by `start` replace
/// each other, and asserts that all were served.
fn hand_over_under_load(
    address: SocketAddr,
    upstream: &Upstream,
    first: Process,
    start: impl Fn() -> Process,
) {
    let is_done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || keep_asking(address, is_done)))
            .collect();
        let mut current = first;
        for round in 1..=HAND_OVERS {
            upstream.wait_for(round * REQUESTS_BETWEEN);
            let next = start();
            current.signal("TERM");
            let (status, log) = current.wait();
            assert_eq!(status.code(), Some(0), "{log:#?}");
            let totals = log.iter().find(|line| line.contains("stopped: ")).unwrap();
            assert!(totals.contains("given_up=0"), "{totals}");
            let before = upstream.received().len();
            upstream.wait_for(before + REQUESTS_BETWEEN);
            current = next;
        }
        is_done.store(true, Ordering::SeqCst);
        let sent: usize = clients
            .into_iter()
            .map(|client| client.join().expect("no request was lost"))
            .sum();
        assert_eq!(upstream.received().len(), sent);
    });
}

/// Sends requests, each over a new connection, and gives their number.
fn keep_asking(address: SocketAddr, is_done: &AtomicBool) -> usize {
    let request = envelope_request(envelope("00").as_bytes());
    let mut count = 0;
    while !is_done.load(Ordering::SeqCst) {
        let response = Client::connect(address).ask(&request);
        assert_eq!(response.status, 200, "{}", response.text());
        count += 1;
        // Otherwise the ports of the loopback run out.
        thread::sleep(Duration::from_millis(1));
    }
    count
}

fn on_port(upstream: &Upstream, address: SocketAddr) -> Config {
    Config::new([upstream.dsn(KEY_A, 11)]).set("port", address.port())
}

/// Any free port.
fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn processes_that_share_a_port_hand_over_without_losing_a_request() {
    for driver in ["auto", "epoll"] {
        let upstream = Upstream::ok();
        let start = |address| {
            on_port(&upstream, address)
                .set("reuse_port", true)
                .set("driver", driver)
                .start()
        };
        let first = start(anywhere());
        let address = first.address;
        hand_over_under_load(address, &upstream, first, || start(address));
    }
}

/// A mirror that inherits the listening socket.
fn with_passed_socket(socket: &TcpListener, config: &Config) -> Process {
    let socket = OwnedFd::from(socket.try_clone().unwrap());
    Process::start_with(&config.text(), |command| {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", PASS_SOCKET])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::from(socket));
        *command = shell;
    })
}

#[test]
fn processes_that_are_passed_one_socket_hand_over_without_losing_a_request() {
    for drivers in [["auto", "auto"], ["epoll", "epoll"], ["auto", "epoll"]] {
        let upstream = Upstream::ok();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let count = Cell::new(0);
        let next = || {
            let driver = drivers[count.replace(count.get() + 1) % drivers.len()];
            let config = on_port(&upstream, address).set("driver", driver);
            with_passed_socket(&socket, &config)
        };
        let first = next();
        assert_eq!(first.address, address);
        hand_over_under_load(address, &upstream, first, next);
    }
}

/// All processes share the mode of a socket. If it were blocking, a worker on epoll that loses the race
/// for a connection would block until the next one.
#[test]
fn accept_never_blocks_on_a_passed_socket() {
    let upstream = Upstream::ok();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut mirrors = Vec::new();
    for driver in ["epoll", "auto", "epoll"] {
        let config = on_port(&upstream, address)
            .set("driver", driver)
            .set("workers", 2);
        mirrors.push(with_passed_socket(&socket, &config));
        assert!(SockRef::from(&socket).nonblocking().unwrap(), "{driver}");
    }
    for _ in 0..200 {
        let response = Client::connect(address).ask(&envelope_request(envelope("00").as_bytes()));
        assert_eq!(response.status, 200);
    }
    for mirror in mirrors {
        mirror.signal("TERM");
        let (status, log) = mirror.wait();
        assert_eq!(status.code(), Some(0), "{log:#?}");
        let pauses = log.iter().find(|line| line.contains("accept failed"));
        assert_eq!(pauses, None);
    }
}

#[test]
fn connections_queue_in_a_passed_socket_while_no_process_runs() {
    let upstream = Upstream::ok();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = on_port(&upstream, address);
    let old = with_passed_socket(&socket, &config);
    old.signal("TERM");
    assert_eq!(old.wait().0.code(), Some(0));
    let mut waiting = Client::connect(address);
    waiting.send(&envelope_request(envelope("00").as_bytes()));
    let new = with_passed_socket(&socket, &config);
    assert_eq!(waiting.response().status, 200);
    drop(new);
}

#[test]
fn a_passed_socket_of_the_wrong_kind_is_an_error() {
    let upstream = Upstream::ok();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = on_port(&upstream, ([127, 0, 0, 1], 1).into());
    let mirror = with_passed_socket(&socket, &elsewhere);
    let line = mirror.wait_for_line("but the configuration has 127.0.0.1:1");
    assert!(line.contains("health"), "{line}");

    // The passed descriptor is the end of a pipe.
    let path = file("config.yml", &elsewhere.text());
    let ended = Command::new("bash")
        .args(["-c", PASS_SOCKET, env!("CARGO_BIN_EXE_sentry-mirror"), "-c"])
        .arg(path)
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(stderr.contains("cannot listen"), "{stderr}");
}

#[test]
fn a_port_is_shared_only_if_both_processes_ask_for_it() {
    for (holder, newcomer) in [(true, false), (false, true)] {
        let upstream = Upstream::ok();
        let config = |address, shares: bool| on_port(&upstream, address).set("reuse_port", shares);
        let mirror = config(anywhere(), holder).start();
        let path = file("config.yml", &config(mirror.address, newcomer).text());
        let ended = run(&["-c", path.to_str().unwrap()]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("cannot listen on"), "{ended:?}");
    }
}

#[test]
fn the_new_process_takes_the_admin_port_when_the_old_one_has_ended() {
    let upstream = Upstream::ok();
    let shared = |port: u16, admin: u16| {
        on_port(&upstream, ([127, 0, 0, 1], port).into())
            .set("reuse_port", true)
            .set("admin.port", admin)
            .start()
    };
    let old = shared(0, 0);
    let admin = old.admin_address();
    let new = shared(old.address.port(), admin.port());
    new.wait_for_line("the admin port waits until");
    old.signal("TERM");
    assert_eq!(old.wait().0.code(), Some(0));
    assert_eq!(new.admin_address(), admin);
    let ready = b"GET /ready HTTP/1.1\r\nHost: m\r\n\r\n";
    assert_eq!(Client::connect(admin).ask(ready).status, 200);
}

#[test]
fn connections_in_the_accept_queue_are_served_at_shutdown() {
    for driver in ["auto", "epoll"] {
        let upstream = Upstream::ok();
        let mirror = Process::start_with(
            &on_port(&upstream, anywhere())
                .with("{workers: 1, limits: {connections: 1}}")
                .set("driver", driver)
                .text(),
            |command| {
                command.arg("-v");
            },
        );
        let taken = mirror.client();
        mirror.wait_for_line("connection accepted");
        let mut waiting: Vec<_> = (0..20).map(|_| mirror.client()).collect();
        for client in &mut waiting {
            client.send(&envelope_request(envelope("00").as_bytes()));
        }
        mirror.signal("TERM");
        for client in &mut waiting {
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(mirror.wait().0.code(), Some(0));
        assert_eq!(upstream.received().len(), 20);
        drop(taken);
    }
}

#[test]
fn the_service_manager_is_notified_of_start_and_stop() {
    let upstream = Upstream::ok();
    let place = file("notify", "");
    std::fs::remove_file(&place).unwrap();
    let manager = UnixDatagram::bind(&place).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mirror = Process::start_with(&config(&[upstream.dsn(KEY_A, 11)], ""), |command| {
        command.env("NOTIFY_SOCKET", &place);
    });
    let told = || {
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert_eq!(told(), "READY=1");
    mirror.signal("TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(mirror.wait().0.code(), Some(0));
}

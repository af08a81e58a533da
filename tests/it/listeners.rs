//! More listeners: other ports, and sockets in the file system.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::process::run;
use crate::support::{
    Client, IN_KEY, KEY_A, PATIENCE, Process, Upstream, config, envelope, envelope_request,
    process::file,
};

/// A folder of a test, for its sockets.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sm-it-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("m.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sends a request that closes the connection, and returns the response.
fn ask(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).expect("the mirror listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

fn closing_request(lines: &str) -> String {
    format!(
        "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{lines}Content-Length: 2\r\n\r\n{{}}"
    )
}

#[test]
fn requests_arrive_over_every_listener_and_on_every_driver() {
    for driver in ["auto", "epoll"] {
        let folder = Folder::new("every");
        let path = folder.socket();
        let a = Upstream::ok();
        let extra = format!(
            "driver: {driver}\nworkers: 2\nlisten: [{{address: '127.0.0.1:0'}}, {{address: 'unix:{}', mode: \"0600\"}}]",
            path.display()
        );
        let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], &extra));
        let line = mirror.wait_for_lines(", too", 2).remove(0);
        let second = line.split("listening on ").nth(1).unwrap();
        let second: SocketAddr = second.split(',').next().unwrap().parse().unwrap();
        let body = envelope("9ec79c33ec9942ab8353589fcb2e04dc");
        let request = envelope_request(body.as_bytes());
        assert_eq!(mirror.client().ask(&request).status, 200);
        assert_eq!(Client::connect(second).ask(&request).status, 200);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for _ in 0..20 {
            let response = ask(&path, closing_request("").as_bytes());
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        }
        a.wait_for(22);
        mirror.signal("TERM");
        let (status, log) = mirror.wait();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(!path.exists());
    }
}

#[test]
fn a_large_body_and_several_requests_pass_a_socket_in_the_file_system() {
    let folder = Folder::new("large");
    let path = folder.socket();
    let a = Upstream::ok();
    let extra = format!("listen: [{{address: 'unix:{}'}}]", path.display());
    let _mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], &extra));
    let body = "x".repeat(3_000_000);
    let first = format!(
        "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let both = format!("{first}{}", closing_request(""));
    let response = ask(&path, both.as_bytes());
    assert_eq!(response.matches("HTTP/1.1 200 ").count(), 2, "{response}");
    let got = a.wait_for(2);
    assert!(got.iter().any(|request| request.text() == body));
}

#[test]
fn a_client_of_a_socket_in_the_file_system_is_this_host() {
    let folder = Folder::new("peer");
    let path = folder.socket();
    let a = Upstream::ok();
    let extra = format!(
        "access_log: json\nforward_client_ip: true\nclient_address: {{trusted_proxies: [127.0.0.1]}}\nlisten: [{{address: 'unix:{}'}}]",
        path.display()
    );
    let text = config(&[a.dsn(KEY_A, 11)], &extra);
    let mut mirror = Process::start_with_stdout(&text, Stdio::piped());
    let lines = crate::access_log::lines(mirror.take_stdout());
    let request = closing_request("X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\n");
    ask(&path, request.as_bytes());
    let got = a.wait_for(1).remove(0);
    assert_eq!(got.field("X-Forwarded-For"), Some("203.0.113.9"));
    let line: Value = serde_json::from_str(&crate::access_log::next(&lines)).expect("JSON");
    assert_eq!(line["peer"], "127.0.0.1:0");
    assert_eq!(line["client"], "203.0.113.9");
}

#[test]
fn a_second_mirror_takes_a_socket_over_only_if_it_may() {
    let folder = Folder::new("second");
    let path = folder.socket();
    // Left by a process that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let a = Upstream::ok();
    let listen = format!("listen: [{{address: 'unix:{}'}}]", path.display());
    let text = config(&[a.dsn(KEY_A, 11)], &listen);
    let first = Process::start(&text);
    let second = file("second.yml", &text);
    let ended = run(&["-c", second.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    let expected = format!("cannot listen on unix:{}: ", path.display());
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("does another process listen there?"),
        "{}",
        ended.stderr
    );
    first.signal("TERM");
    first.wait();

    let replacing = config(&[a.dsn(KEY_A, 11)], &format!("reuse_port: true\n{listen}"));
    let mut current = Process::start(&replacing);
    for round in 1..=3 {
        ask(&path, closing_request("").as_bytes());
        a.wait_for(round);
        // A connection of the old mirror, which it still serves.
        let mut kept = UnixStream::connect(&path).unwrap();
        kept.set_read_timeout(Some(PATIENCE)).unwrap();
        let next = Process::start(&replacing);
        current.signal("TERM");
        kept.write_all(closing_request("").as_bytes()).unwrap();
        let mut response = String::new();
        kept.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        let (status, log) = current.wait();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(path.exists());
        current = next;
        a.wait_for(round);
    }
}

#[test]
fn a_reload_does_not_change_listeners_and_says_so() {
    let folder = Folder::new("reload");
    let path = folder.socket();
    let a = Upstream::ok();
    let text = config(&[a.dsn(KEY_A, 11)], "");
    let configuration = file("reloaded.yml", &text);
    let mirror = Process::start_at(&configuration);
    let listen = format!("listen: [{{address: 'unix:{}'}}]", path.display());
    fs::write(&configuration, config(&[a.dsn(KEY_A, 11)], &listen)).unwrap();
    mirror.signal("HUP");
    let line = mirror.wait_for_line("restart");
    assert!(line.contains("listen"), "{line}");
    assert!(!path.exists());
}

/// Passes its standard input and output on, as a service manager does with two sockets.
const PASS_SOCKETS: &str =
    r#"exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec "$0" "$@""#;

#[test]
fn a_service_manager_passes_a_socket_for_each_listener() {
    let folder = Folder::new("passed");
    let path = folder.socket();
    let a = Upstream::ok();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let pass = |command: &mut Command| {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", PASS_SOCKETS])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::from(OwnedFd::from(tcp.try_clone().unwrap())));
        *command = shell;
    };
    let stdout = || Stdio::from(OwnedFd::from(unix.try_clone().unwrap()));
    let port = tcp.local_addr().unwrap().port();
    let text = |listen: &str| {
        let text = config(
            &[a.dsn(KEY_A, 11)],
            &format!("admin: off\nlisten: {listen}"),
        );
        text.replace("port: 0", &format!("port: {port}"))
    };
    let both = text(&format!("[{{address: 'unix:{}'}}]", path.display()));
    let mirror = Process::spawn(&both, pass, stdout());
    let request = envelope_request(envelope("9ec79c33ec9942ab8353589fcb2e04dc").as_bytes());
    assert_eq!(mirror.client().ask(&request).status, 200);
    assert!(ask(&path, closing_request("").as_bytes()).starts_with("HTTP/1.1 200 "));
    mirror.signal("TERM");
    mirror.wait();
    assert!(path.exists());

    // One listener, but two sockets; and another socket than the configured one.
    let elsewhere = text("[{address: unix:/nowhere/else.sock}]");
    for (text, expected) in [
        (text("[]"), "passed 2 sockets; one is expected"),
        (
            elsewhere,
            "passed another socket in the place of unix:/nowhere/else.sock",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"));
        command.arg("-c").arg(file("passed.yml", &text));
        pass(&mut command);
        let ended = command
            .stdout(stdout())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

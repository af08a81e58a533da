//! Signals while the mirror reads its configuration, and while it waits for DNS.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::process::file;
use crate::support::{KEY_A, KEY_B, PATIENCE, Process, Upstream, config, is_skipped};

/// Less than the five seconds for which the mirror waits for DNS.
const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
fn sighup_during_the_start_is_a_reload() {
    let upstream = Upstream::ok();
    let text = config(&[upstream.dsn(KEY_A, 11)], "admin: off");
    let path = file("config.yml", "");
    fs::remove_file(&path).unwrap();
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let mirror = std::thread::scope(|scope| {
        scope.spawn(|| {
            // This blocks until the mirror opens the file.
            let mut pipe = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let readers = readers(&path);
            let sent = Command::new("kill").arg("-HUP").args(readers).status();
            assert!(sent.unwrap().success());
            std::io::Write::write_all(&mut pipe, text.as_bytes()).unwrap();
        });
        Process::start_with("", |command| {
            *command = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"));
            command.arg("--config").arg(&path);
        })
    });
    // The mirror has read the pipe; the reload reads this file.
    fs::write(&path, &text).unwrap();
    mirror.wait_for_line("nothing has changed in ");
}

/// The ids of the mirrors that run with `path`.
fn readers(path: &Path) -> Vec<String> {
    let is_reader = |id: &String| {
        let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("sentry-mirror\0--config\0") && words.contains(path.to_str().unwrap())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    ids.filter(is_reader).collect()
}

/// A DNS server that never answers, for a mirror in its own mount namespace.
struct Silence {
    socket: UdpSocket,
    resolv_conf: PathBuf,
}

const ALONE: [&str; 2] = ["--mount", "--propagation=private"];
const SCRIPT: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$0" "$@""#;

impl Silence {
    fn new(address: &str) -> Option<Silence> {
        let can = Command::new("unshare").args(ALONE).arg("true").output();
        let socket = UdpSocket::bind((address, 53)).ok();
        let can_run = can.is_ok_and(|can| can.status.success()) && socket.is_some();
        if is_skipped(can_run, "root, to replace the resolver") {
            return None;
        }
        let socket = socket?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let resolv_conf = file("resolv.conf", &format!("nameserver {address}\n"));
        Some(Silence {
            socket,
            resolv_conf,
        })
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(ALONE).args(["sh", "-c", SCRIPT]);
        command.arg(env!("CARGO_BIN_EXE_sentry-mirror"));
        command.arg(&self.resolv_conf).arg("-c").arg(config);
        command.env("SENTRY_MIRROR_ADMIN", "off");
        command
    }

    /// Waits for a query.
    fn asked(&self) {
        self.socket.recv(&mut [0; 512]).expect("a question");
    }
}

/// A configuration whose second outbound has a host name.
fn with_a_name(address: SocketAddr) -> String {
    let dsns = [
        format!("http://{KEY_A}@{address}/11"),
        format!("http://{KEY_B}@silent.example.com:9/22"),
    ];
    config(&dsns, "")
}

#[test]
fn sigterm_stops_the_mirror_while_a_reload_waits_for_dns() {
    let Some(silence) = Silence::new("127.0.53.1") else {
        return;
    };
    let upstream = Upstream::ok();
    let path = file("config.yml", &config(&[upstream.dsn(KEY_A, 11)], ""));
    let mirror = Process::start_with("", |command| *command = silence.command(&path));
    fs::write(&path, with_a_name(upstream.address)).unwrap();
    mirror.signal("HUP");
    silence.asked();
    let ordered = Instant::now();
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
    assert!(ordered.elapsed() < AT_ONCE, "{:?}", ordered.elapsed());
}

/// A process that is killed at the end of the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sigterm_stops_the_mirror_while_the_start_waits_for_dns() {
    let Some(silence) = Silence::new("127.0.53.2") else {
        return;
    };
    let upstream = Upstream::ok();
    let path = file("config.yml", &with_a_name(upstream.address));
    let child = silence.command(&path).stderr(Stdio::null()).spawn();
    let mut child = Killed(child.unwrap());
    silence.asked();
    let ordered = Instant::now();
    let id = child.0.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status();
    assert!(sent.unwrap().success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    assert!(ordered.elapsed() < AT_ONCE, "{:?}", ordered.elapsed());
}

//! Errors of the operating system: the mirror names the actual cause, and no other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::support::process::{file, run};
use crate::support::{KEY_A, Process, Upstream, config, is_skipped};

/// Below the ephemeral ports, and not a well-known one.
const PRIVILEGED_PORT: u16 = 981;

/// A user without processes.
const NOBODY_ELSE: &str = "54981";

const CONFIG: &str = "ip: 127.0.0.1
port: 0
admin: off
keys:
  - inbound: http://0123456789abcdef0123456789abcdef@m/1
    outbound:
      - http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:9/2
";

/// Whether the tests run as root, which is needed to switch to another user.
fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// The mirror with `text` on its standard input, started by the command `before`.
fn behind(before: &[&str], text: &str) -> Command {
    let binary = env!("CARGO_BIN_EXE_sentry-mirror");
    let words = [before, &[binary, "-c", "-"]].concat();
    let path = file("config.yml", text);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.stdin(fs::File::open(path).unwrap());
    command
}

#[test]
fn a_privileged_port_is_not_reported_as_in_use() {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = start.unwrap().trim().parse().unwrap();
    if is_skipped(first > PRIVILEGED_PORT, "privileged ports up to 981") {
        return;
    }
    let without = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--reuid",
        NOBODY_ELSE,
    ];
    let before: &[&str] = if is_root() { &without } else { &["env"] };
    let text = CONFIG.replace("port: 0", &format!("port: {PRIVILEGED_PORT}"));
    let ended = behind(before, &text).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    for word in [
        "127.0.0.1:981: Permission denied",
        "CAP_NET_BIND_SERVICE",
        "below 1024",
    ] {
        let word = word.replace("1024", &first.to_string());
        assert!(told.contains(&word), "{word} in {told}");
    }
    assert!(!told.contains("another process"), "{told}");
}

#[test]
fn an_address_of_another_host_is_not_reported_as_in_use() {
    let text = CONFIG.replace("ip: 127.0.0.1", "ip: 192.0.2.1");
    let ended = run(&["-c", file("config.yml", &text).to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("`ip` is not an address of this host"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("another process"), "{ended:?}");
}

#[test]
fn a_process_limit_is_named_if_a_thread_cannot_start() {
    let as_other = ["setpriv", "--reuid", NOBODY_ELSE, "--clear-groups"];
    let before: &[&str] = if is_root() { &as_other } else { &[] };
    let text = CONFIG.replace("admin: off", "admin: {port: 0}\nworkers: 2");
    let mut refusals = 0;
    // Allow one thread more each time, until it starts.
    for limit in 1..100 {
        let limited = format!("--nproc={limit}:{limit}");
        let words = [before, &["prlimit", &limited]].concat();
        let mut child = behind(&words, &text)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut told, mut listens) = (String::new(), false);
        for line in lines.map_while(Result::ok) {
            listens |= line.contains("listening on");
            told += &line;
            if listens {
                child.kill().unwrap();
            }
        }
        let status = child.wait().unwrap();
        if listens {
            break;
        }
        assert_eq!(status.code(), Some(1), "{limit}: {told}");
        let meant = format!("the user is limited to {limit} processes and threads");
        let is_told = told.contains(&meant) || told.contains("the cgroup allows");
        assert!(
            is_told && told.contains("cannot start a thread"),
            "{limit}: {told}"
        );
        assert!(!told.contains("cannot listen"), "{limit}: {told}");
        assert!(!told.contains("panicked"), "{limit}: {told}");
        refusals += 1;
        if !is_root() {
            // It is unknown how many processes this user has.
            break;
        }
    }
    assert!(refusals > 0);
}

/// Starts a mirror by the command `before`, under a seccomp profile that refuses io_uring.
fn without_io_uring(before: &[&str]) -> Process {
    let upstream = Upstream::ok();
    let text = config(&[upstream.dsn(KEY_A, 11)], "");
    let before: Vec<String> = before.iter().map(|&word| word.to_owned()).collect();
    // A process inherits the profile of the thread that starts it.
    let started = thread::spawn(move || {
        let refused = BTreeMap::from([(425, Vec::new())]);
        let refuse = SeccompAction::Errno(1);
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(refused, SeccompAction::Allow, refuse, architecture);
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        apply_filter(&program).unwrap();
        Process::start_with(&text, |command| {
            if let Some((first, rest)) = before.split_first() {
                let mut other = Command::new(first);
                other
                    .args(rest)
                    .arg(command.get_program())
                    .args(command.get_args());
                *command = other;
                command.stdin(Stdio::null());
            }
        })
    });
    started.join().unwrap()
}

#[test]
fn the_log_names_what_forbids_io_uring_a_seccomp_profile_or_a_sysctl() {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let can_run = disabled.is_ok_and(|disabled| disabled.trim() == "0");
    if is_skipped(can_run, "kernel.io_uring_disabled to be 0") {
        return;
    }
    let line = without_io_uring(&[]).wait_for_line("running on epoll");
    assert!(line.contains("a seccomp profile forbids it"), "{line}");
    assert!(!line.contains("sysctl"), "{line}");

    const SCRIPT: &str = r#"mount --bind "$0" /proc/sys/kernel/io_uring_disabled && exec "$@""#;
    let sysctl = file("io_uring_disabled", "2\n");
    let mounted = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        SCRIPT,
    ];
    let mounted = [&mounted[..], &[sysctl.to_str().unwrap()]].concat();
    let can = Command::new(mounted[0])
        .args(&mounted[1..])
        .arg("true")
        .output();
    let can_run = can.is_ok_and(|can| can.status.success());
    if is_skipped(can_run, "root, to replace a sysctl") {
        return;
    }
    let line = without_io_uring(&mounted).wait_for_line("running on epoll");
    assert!(line.contains("kernel.io_uring_disabled is 2"), "{line}");
    assert!(!line.contains("seccomp"), "{line}");
}

#[test]
fn a_default_admin_port_in_use_is_a_warning_and_a_configured_one_an_error() {
    let upstream = Upstream::ok();
    // If this fails, another process has the port, which serves as well.
    let _taken = TcpListener::bind("127.0.0.1:3001");
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], "# no admin: here"));
    let line = mirror.wait_for_line("the metrics and the status page are not available");
    for word in ["WARN", "127.0.0.1:3001", "another process", "admin.port"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    for configured in ["admin: {port: 3001}", "admin: {ip: 127.0.0.1}"] {
        let text = config(&[upstream.dsn(KEY_A, 11)], configured);
        let ended = run(&["-c", file("config.yml", &text).to_str().unwrap()]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("cannot listen on 127.0.0.1:3001"),
            "{ended:?}"
        );
    }
}

#[test]
fn quotes_from_an_environment_file_are_explained() {
    let path = file("config.yml", CONFIG);
    let ended = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"))
        .args(["--check", "-c"])
        .arg(path)
        .env("SENTRY_MIRROR_PORT", "\"3000\"")
        .output()
        .unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{told}");
    for word in ["quotes", "docker run --env-file", "SENTRY_MIRROR_PORT=3000"] {
        assert!(told.contains(word), "{word} in {told}");
    }
}

//! Configurations, exit codes, signals.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::process::{file, run};
use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, Process, Reloadable, Upstream, config, envelope,
    envelope_request, is_skipped,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// A valid configuration, from which tests make invalid ones.
const GOOD: &str = "port: 0
keys:
  - inbound: http://0123456789abcdef0123456789abcdef@m/1
    outbound:
      - http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:9/2
";

#[test]
fn a_configuration_error_has_its_position_and_a_suggestion() {
    #[rustfmt::skip]
    let cases: [(String, &[&str]); 8] = [
        (GOOD.replace("port: 0", "prot: 0"), &["config.yml:1:1", "prot: unknown key", "did you mean port?"]),
        (GOOD.replace("port: 0", "port: many"), &["config.yml:1", "port", "many"]),
        (GOOD.replace("port: 0", "port: ["), &["config.yml"]),
        (GOOD.replace("http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:9/2", "htp://x"), &["config.yml:5", "keys[0].outbound[0]", "http"]),
        ("keys:\n  - inbound: http://0123456789abcdef0123456789abcdef@m/1\n    outbound: []\n".to_owned(), &["keys[0].outbound"]),
        (format!("{GOOD}  - inbound: http://0123456789abcdef0123456789abcdef@m/1\n    outbound: [http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@h/1]\n"), &["keys[1].inbound", "keys[0]"]),
        (GOOD.replace("- http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:9/2", "- {dsn: http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:9/2, sample_rate: half}"), &["sample_rate", "a number from 0 to 1"]),
        (String::new(), &["keys"]),
    ];
    for (text, expected) in cases {
        let path = file("config.yml", &text);
        for check in [true, false] {
            let mut arguments = vec!["-c", path.to_str().unwrap()];
            arguments.extend(check.then_some("--check"));
            let ended = run(&arguments);
            assert_eq!(ended.code, Some(2), "{text}\n{ended:?}");
            for word in expected {
                assert!(ended.stderr.contains(word), "{word:?} in {}", ended.stderr);
            }
            assert!(!ended.stderr.contains("panic"), "{}", ended.stderr);
            for key in keys(&text) {
                assert!(!ended.stderr.contains(key), "{key} in {}", ended.stderr);
            }
        }
    }
}

/// The public keys in `text`.
fn keys(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.len() == IN_KEY.len())
}

#[test]
fn a_missing_file_is_named_in_the_error() {
    let ended = run(&["-c", "does/not/exist.yml"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("does/not/exist.yml"), "{ended:?}");
}

#[test]
fn a_ca_file_without_a_certificate_is_a_configuration_error() {
    let pem = file("ca.pem", "nothing\n");
    let text = format!(
        "{}tls: {{ca_file: {}}}\n",
        GOOD.replace("- http://", "- https://"),
        pem.display()
    );
    let path = file("config.yml", &text);
    let ended = run(&["-c", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("tls.ca_file"), "{ended:?}");
}

#[test]
fn a_port_in_use_is_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = GOOD.replace("port: 0", &format!("ip: 127.0.0.1\nport: {port}"));
    let path = file("config.yml", &text);
    let ended = run(&["-c", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("panic"));
}

#[test]
fn check_prints_the_routes_with_keys_shortened() {
    let path = file("config.yml", GOOD);
    let ended = run(&["--config", path.to_str().unwrap(), "--check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for word in ["0123…", "aaaa…", "127.0.0.1:9/2", "primary"] {
        assert!(ended.stdout.contains(word), "{word} in {}", ended.stdout);
    }
    assert!(!ended.stdout.contains(IN_KEY));
    assert!(!ended.stdout.contains(KEY_A));
}

#[test]
fn strict_makes_warnings_errors() {
    let odd = format!("{GOOD}  - inbound: http://short@m/1\n    outbound: [http://{KEY_B}@h/1]\n");
    for (text, expected) in [(GOOD, Some(0)), (odd.as_str(), Some(2))] {
        let path = file("config.yml", text);
        let strict = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"));
            // Cargo sets this variable for tests, and the mirror has no such key.
            command.env_remove("SENTRY_MIRROR_VERSION");
            command.arg("--strict").arg("-c").arg(&path);
            command
        };
        let checked = strict().arg("--check").output().unwrap();
        assert_eq!(checked.status.code(), expected, "{checked:?}");
        if expected != Some(0) {
            let started = strict().output().unwrap();
            assert_eq!(started.status.code(), expected, "{started:?}");
            let told = String::from_utf8(started.stderr).unwrap();
            assert!(
                told.contains("config.yml:6:14: keys[1].inbound: the public key"),
                "{told}"
            );
            assert!(told.contains("--strict"), "{told}");
        }
    }
    let lenient = run(&["--check", "-c", file("config.yml", &odd).to_str().unwrap()]);
    assert_eq!(lenient.code, Some(0), "{lenient:?}");
    assert!(lenient.stderr.contains("warning: "), "{lenient:?}");
}

#[test]
fn check_always_reads_the_ca_file() {
    let pem = file("ca.pem", "nothing\n");
    for (path, told) in [
        (pem.to_str().unwrap(), "holds no certificate"),
        ("/no/such/ca.pem", "No such file"),
    ] {
        let text = format!("{GOOD}tls: {{ca_file: {path}}}\n");
        let ended = run(&["--check", "-c", file("config.yml", &text).to_str().unwrap()]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let is_told = ended.stderr.contains("tls.ca_file") && ended.stderr.contains(told);
        assert!(is_told, "{ended:?}");
    }
}

#[test]
fn a_closed_standard_output_is_not_a_failure() {
    let routes: String = (0..2_000)
        .map(|n| format!("  - inbound: http://{n:032x}@m/1\n    outbound: [http://{KEY_A}@h/2]\n"))
        .collect();
    // More than a pipe holds, so that the mirror notices the closed pipe.
    let path = file("config.yml", &format!("keys:\n{routes}"));
    let script = r#""$0" -c "$1" --check | head -1; echo "${PIPESTATUS[0]}""#;
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_sentry-mirror")])
        .arg(path)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout, "listen on 0.0.0.0:3000\n0\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panic"), "{stderr}");
}

#[test]
fn a_path_without_its_option_gets_a_hint() {
    for arguments in [&["config.yml"][..], &["--check", "config.yml"]] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.stderr.contains("did you mean -c config.yml?"),
            "{ended:?}"
        );
    }
}

/// Runs the binary with `arguments`, and `text` on its standard input.
fn run_with_input(arguments: &[&str], text: &str) -> std::process::Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_configuration_may_come_from_standard_input() {
    let good = run_with_input(&["--check", "-c", "-"], GOOD);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let bad = run_with_input(&["--check", "-c", "-"], &GOOD.replace("port", "prot"));
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
    let told = String::from_utf8(bad.stderr).unwrap();
    assert!(
        told.contains("standard input:1:1: prot: unknown key"),
        "{told}"
    );
}

#[test]
fn standard_input_is_not_read_again() {
    let upstream = Upstream::ok();
    let text = config(&[upstream.dsn(KEY_A, 11)], "admin: off");
    let path = file("config.yml", &text);
    let mirror = Process::start_with("", |command| {
        *command = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"));
        command
            .args(["-c", "-"])
            .stdin(std::fs::File::open(&path).unwrap());
        command.env("SENTRY_MIRROR_ADMIN", "off");
    });
    mirror.signal("HUP");
    let line = mirror.wait_for_line("the old one stays in force");
    assert!(line.contains("standard input"), "{line}");
    let response = mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    assert_eq!(response.status, 200);
}

#[test]
fn the_example_configuration_is_accepted() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.yml");
    let ended = run(&["-c", path, "--check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn version_and_help_are_printed() {
    let version = run(&["--version"]).stdout;
    let plain = format!("sentry-mirror {}", env!("CARGO_PKG_VERSION"));
    let rest = version.trim_end().strip_prefix(&plain).unwrap();
    let commit = rest
        .strip_prefix(" (")
        .and_then(|rest| rest.strip_suffix(')'));
    let is_commit = |commit: &str| commit.len() == 12 && u64::from_str_radix(commit, 16).is_ok();
    // Without a repository, as in a package of the sources, there is no commit to name.
    let has_repository = concat!(env!("CARGO_MANIFEST_DIR"), "/.git");
    let is_known = std::path::Path::new(has_repository).exists();
    assert!(commit.map_or(!is_known, is_commit), "{version}");
    let help = run(&["--help"]).stdout;
    for word in [
        "--config",
        "--check",
        "--verbose",
        "demo",
        "sink",
        "Exit codes",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let upstream = Upstream::ok();
    let text = config(&[upstream.dsn(KEY_A, 11)], "").replace("port: 0", "port: 1");
    let mirror = Process::start_with(&text, |command| {
        command.env("SENTRY_MIRROR_PORT", "0");
    });
    assert_eq!(
        mirror
            .client()
            .ask(&envelope_request(envelope(ID).as_bytes()))
            .status,
        200
    );
}

#[test]
fn json_log_lines_hold_no_key() {
    let upstream = Upstream::ok();
    let text = config(
        &[upstream.dsn(KEY_A, 11), upstream.dsn(KEY_B, 22)],
        "log_format: json",
    );
    let mirror = Process::start_with(&text, |command| {
        command.arg("-v");
    });
    mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    for line in &log {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(line["level"].is_string() && line["message"].is_string());
    }
    let all = log.join("\n");
    for key in [IN_KEY, KEY_A, KEY_B] {
        assert!(!all.contains(key), "{all}");
    }
}

#[test]
fn sigterm_finishes_deliveries_in_flight_and_exits_with_0() {
    for signal in ["TERM", "INT", "QUIT"] {
        let slow = || {
            Upstream::start(|_, _| {
                Action::Late(
                    std::time::Duration::from_millis(500),
                    200,
                    r#"{"id":"late"}"#,
                )
            })
        };
        let (a, b) = (slow(), slow());
        let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
        let idle = mirror.client();
        let mut client = mirror.client();
        client.send(&envelope_request(envelope(ID).as_bytes()));
        a.wait_for(1);
        mirror.signal(signal);
        let response = client.response();
        assert_eq!(response.text(), r#"{"id":"late"}"#);
        assert_eq!(response.field("Connection"), Some("close"));
        let (status, log) = mirror.wait();
        assert_eq!(status.code(), Some(0));
        let totals = log.iter().find(|line| line.contains("stopped: ")).unwrap();
        assert!(totals.contains("delivered 2xx 2"), "{totals}");
        drop(idle);
    }
}

#[test]
fn deliveries_over_the_drain_timeout_are_abandoned_and_logged() {
    let hanging = Upstream::start(|_, _| Action::Hang);
    let mirror = Process::start(&config(
        &[hanging.dsn(KEY_A, 11)],
        "reply_timeout: 50ms\ntimeouts: {drain: 200ms}",
    ));
    let response = mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    assert_eq!(response.status, 200);
    mirror.signal("TERM");
    let (status, log) = mirror.wait();
    assert_eq!(status.code(), Some(0));
    let totals = log.iter().find(|line| line.contains("stopped: ")).unwrap();
    assert!(totals.contains("given_up=1"), "{totals}");
}

#[test]
fn requests_are_served_on_epoll() {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(
        &[upstream.dsn(KEY_A, 11)],
        "driver: epoll\nworkers: 2",
    ));
    assert!(mirror.wait_for_line("listening on").contains("epoll"));
    let mut clients: Vec<_> = (0..8).map(|_| mirror.client()).collect();
    for _ in 0..20 {
        for client in &mut clients {
            let response = client.ask(&envelope_request(envelope(ID).as_bytes()));
            assert_eq!(response.status, 200);
        }
    }
    assert_eq!(upstream.received().len(), 160);
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
}

/// Runs `command` with this limit of locked memory.
fn with_locked_memory(bytes: u64, command: &mut Command) -> Command {
    let mut limited = Command::new("setpriv");
    limited
        .args(["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"])
        .args(["prlimit", &format!("--memlock={bytes}:{bytes}")])
        .arg(command.get_program())
        .args(command.get_args());
    limited
}

/// What the tests of rings that are refused need.
const LOCKED_RINGS: &str = "setpriv, and Linux 6.14, which counts the memory of rings as locked";

/// Whether the kernel refuses a ring to a process that may not lock memory.
fn refuses_rings_without_locked_memory() -> bool {
    let text = format!("admin: off\ndriver: io_uring\n{GOOD}");
    let path = file("config.yml", &text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"));
    let mut run = with_locked_memory(0, command.args(["-c", path.to_str().unwrap()]));
    let Ok(mut child) = run.stderr(Stdio::piped()).spawn() else {
        return false;
    };
    // With a ring it logs that it listens; without one it logs why not, and ends.
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    let told = lines.map(Result::unwrap).find(|line| {
        seen += line;
        line.contains("refused") || line.contains("listening on")
    });
    let told = told.unwrap_or_else(|| panic!("it ended at once: {seen}"));
    let _ = child.kill();
    let _ = child.wait();
    told.contains("io_uring refused") && told.contains("locked memory")
}

#[test]
fn without_io_uring_the_mirror_runs_on_epoll_and_explains_why() {
    if is_skipped(refuses_rings_without_locked_memory(), LOCKED_RINGS) {
        return;
    }
    let upstream = Upstream::ok();
    let mirror = Process::start_with(&config(&[upstream.dsn(KEY_A, 11)], ""), |command| {
        *command = with_locked_memory(0, command);
    });
    let line = mirror.wait_for_line("running on epoll");
    assert!(line.contains("--ulimit memlock="), "{line}");
    assert_eq!(
        mirror
            .log()
            .iter()
            .filter(|line| line.contains("io_uring refused"))
            .count(),
        1
    );
    let response = mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    assert_eq!(response.status, 200);
}

/// Enough for the ring of one worker, and too little for the smallest ring of a second.
const ONE_RING: u64 = 124 << 10;

#[test]
fn without_locked_memory_for_all_rings_every_worker_runs_on_epoll() {
    if is_skipped(refuses_rings_without_locked_memory(), LOCKED_RINGS) {
        return;
    }
    let upstream = Upstream::ok();
    let extra = "workers: 2\nadmin: {port: 0}";
    let mirror = Process::start_with(&config(&[upstream.dsn(KEY_A, 11)], extra), |command| {
        *command = with_locked_memory(ONE_RING, command);
    });
    let line = mirror.wait_for_line("running on epoll");
    assert!(
        line.contains("only 1 of 2 workers could create a ring: io_uring refused"),
        "{line}"
    );
    assert!(line.contains("--ulimit memlock="), "{line}");
    assert!(mirror.wait_for_line("listening on").contains("epoll"));
    let metrics = mirror.page("/metrics");
    assert!(
        metrics.text().contains("driver=\"epoll\""),
        "{}",
        metrics.text()
    );
    assert_eq!(mirror.rings(), 0, "the one that was built is given back");
    let mut clients: Vec<_> = (0..8).map(|_| mirror.client()).collect();
    for client in &mut clients {
        let response = client.ask(&envelope_request(envelope(ID).as_bytes()));
        assert_eq!(response.status, 200);
    }
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
}

#[test]
fn an_accepted_connection_is_served_although_sigterm_comes_first() {
    let upstream = Upstream::ok();
    let mirror = Process::start_with(&config(&[upstream.dsn(KEY_A, 11)], ""), |command| {
        command.arg("-v");
    });
    let mut newcomer = mirror.client();
    mirror.wait_for_line("connection accepted");
    mirror.signal("TERM");
    // Only from then on does the worker close connections after a reply.
    mirror.wait_for_line("worker is shutting down");
    let response = newcomer.ask(&envelope_request(envelope(ID).as_bytes()));
    assert_eq!(response.status, 200);
    assert_eq!(response.field("Connection"), Some("close"));
    assert_eq!(mirror.wait().0.code(), Some(0));
}

/// A mirror, and its configuration file, which may change while it runs.
fn running_with_file(text: &str) -> (std::path::PathBuf, Process) {
    let path = file("changing.yml", text);
    let mirror = Process::start_at(&path);
    (path, mirror)
}

#[test]
fn a_reload_swaps_the_routes_between_requests_and_loses_none() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let route = |upstream: &Upstream| config(&[upstream.dsn(KEY_A, 11)], "");
    let (path, mirror) = running_with_file(&route(&a));
    let is_done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let mirror = &mirror;
                scope.spawn(move || {
                    let mut client = mirror.client();
                    let mut count = 0;
                    while !is_done.load(Ordering::SeqCst) {
                        let response = client.ask(&envelope_request(envelope(ID).as_bytes()));
                        assert_eq!(response.status, 200);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for round in 1..=10 {
            let upstream = if round % 2 == 0 { &a } else { &b };
            std::fs::write(&path, route(upstream)).unwrap();
            let before = upstream.received().len();
            mirror.signal("HUP");
            mirror.wait_for_lines("configuration reloaded", round);
            upstream.wait_for(before + 20);
        }
        is_done.store(true, Ordering::SeqCst);
        let sent: usize = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        assert_eq!(a.received().len() + b.received().len(), sent);
    });
}

#[test]
fn a_reload_of_a_bad_file_changes_nothing_and_is_logged() {
    let a = Upstream::ok();
    let (path, mirror) = running_with_file(&config(&[a.dsn(KEY_A, 11)], ""));
    std::fs::write(&path, "keys: [nonsense]\n").unwrap();
    mirror.signal("HUP");
    let line = mirror.wait_for_line("the old one stays in force");
    assert!(line.contains("changing.yml:1:8: keys[0]"), "{line}");
    let mut client = mirror.client();
    assert_eq!(
        client
            .ask(&envelope_request(envelope(ID).as_bytes()))
            .status,
        200
    );
    // Keys that need a restart are logged, too.
    std::fs::write(&path, config(&[a.dsn(KEY_A, 11)], "workers: 7")).unwrap();
    mirror.signal("HUP");
    mirror.wait_for_line("take effect only after a restart");
    mirror.wait_for_line("configuration reloaded");
    assert_eq!(
        client
            .ask(&envelope_request(envelope(ID).as_bytes()))
            .status,
        200
    );
    // The connection to an origin that stays configured is kept.
    assert_eq!((a.received().len(), a.connections()), (2, 1));
}

#[test]
fn a_reload_logs_the_changes_and_the_keys_that_need_a_restart() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let text = |extra: &str| config(&[a.dsn(KEY_A, 11)], extra);
    let mut mirror = Reloadable::start(&text(""));
    mirror.reload(&config(
        &[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)],
        "reply_timeout: 2s\nlimits: {in_flight: 9}",
    ));
    let line = mirror.process.wait_for_line("configuration reloaded");
    for told in [
        "reply_timeout 1500ms -> 2s",
        "limits.in_flight",
        "outbound http://bbbb…@",
    ] {
        assert!(line.contains(told), "{told} in {line}");
    }
    assert!(
        !line.contains(KEY_B) && !line.contains("timeouts"),
        "{line}"
    );
    let is_about_restart = |line: &&String| line.contains("only after a restart");
    assert_eq!(mirror.process.log().iter().find(is_about_restart), None);

    mirror.reload(&text("workers: 7\nlog_format: json"));
    let line = mirror.process.wait_for_line("only after a restart");
    assert!(
        line.ends_with("only after a restart: workers, log_format"),
        "{line}"
    );
}

#[test]
fn a_reload_without_changes_is_logged_as_such() {
    let upstream = Upstream::ok();
    let (path, mirror) = running_with_file(&config(&[upstream.dsn(KEY_A, 11)], ""));
    mirror.signal("HUP");
    let line = mirror.wait_for_line("nothing has changed in ");
    assert!(line.ends_with(path.to_str().unwrap()), "{line}");
    let is_reload = |line: &String| line.contains("configuration reloaded");
    assert!(!mirror.log().iter().any(is_reload));
}

#[test]
fn a_reload_of_a_bind_mounted_file_explains_why_nothing_changed() {
    const SCRIPT: &str = r#"mount --bind "$1" "$2" && exec "$0" -c "$2""#;
    let alone = ["--mount", "--map-root-user", "--propagation=private"];
    let can = Command::new("unshare").args(alone).arg("true").output();
    let can_run = can.is_ok_and(|output| output.status.success());
    if is_skipped(can_run, "to make namespaces") {
        return;
    }
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let outside = file("outside.yml", &config(&[a.dsn(KEY_A, 11)], ""));
    let inside = file("config.yml", "");
    let mirror = Process::start_with("", |command| {
        let mut unshare = Command::new("unshare");
        unshare.args(alone).args(["sh", "-c", SCRIPT]);
        unshare.arg(env!("CARGO_BIN_EXE_sentry-mirror"));
        unshare.args([&outside, &inside]);
        *command = unshare;
        command.env("SENTRY_MIRROR_ADMIN", "off");
    });
    // As editors do: the mount still shows the old file.
    let new = file("new.yml", &config(&[b.dsn(KEY_A, 11)], ""));
    std::fs::rename(new, &outside).unwrap();
    mirror.signal("HUP");
    let line = mirror.wait_for_line("nothing has changed in ");
    for told in ["config.yml", "mounted as a single file", "mount its folder"] {
        assert!(line.contains(told), "{told} in {line}");
    }
}

#[test]
fn sigterm_stops_the_mirror_at_its_connection_limit() {
    let upstream = Upstream::ok();
    let mirror = Process::start_with(
        &config(
            &[upstream.dsn(KEY_A, 11)],
            "workers: 1\nlimits: {connections: 2}\ntimeouts: {drain: 200ms}",
        ),
        |command| {
            command.arg("-v");
        },
    );
    let mut clients = [mirror.client(), mirror.client()];
    mirror.wait_for_lines("connection accepted", 2);
    for client in &mut clients {
        client.send(b"POST /api/42/envelope/ HTTP/1.1\r\n");
    }
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for (arguments, expected) in [
        (&["completions", "bash"][..], "-o default sentry-mirror"),
        (&["completions", "zsh"], "#compdef sentry-mirror"),
        (&["completions", "fish"], "complete -c sentry-mirror"),
        (&["man"], ".TH sentry-mirror 1"),
        (&["man", "health"], ".TH sentry-mirror-health 1"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(expected), "{ended:?}");
    }
    let ended = run(&["man", "helth"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("expected one of"), "{ended:?}");
}

/// The words of `init` for two outbounds.
fn init(options: &[&str]) -> Vec<String> {
    let dsns = [
        format!("http://{IN_KEY}@mirror.example.com/1"),
        format!("https://{KEY_A}@o1.ingest.us.sentry.io/2"),
        format!("http://{KEY_B}@127.0.0.1:9000/3"),
    ];
    let words = ["init"]
        .iter()
        .chain(options)
        .map(|word| (*word).to_owned());
    words.chain(dsns).collect()
}

fn run_words(words: &[String]) -> crate::support::process::Ended {
    run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn init_writes_a_configuration_that_check_accepts() {
    let printed = run_words(&init(&[]));
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let path = file("config.yml", &printed.stdout);
    let ended = run(&["--check", "-c", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for word in ["0123…@", "aaaa…@", "bbbb…@"] {
        assert!(ended.stdout.contains(word), "{word} in {ended:?}");
    }
}

#[test]
fn init_writes_a_file_but_replaces_none() {
    let path = file("other.yml", "").with_file_name("new.yml");
    let words = init(&["-o", path.to_str().unwrap()]);
    let written = run_words(&words);
    assert_eq!(
        (written.code, written.stdout.as_str()),
        (Some(0), ""),
        "{written:?}"
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, run_words(&init(&[])).stdout);
    let again = run_words(&words);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("File exists"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn init_reports_a_bad_dsn_without_its_key() {
    let bad = format!("https://{KEY_B}@host");
    let ended = run(&["init", &format!("http://{IN_KEY}@m/1"), &bad]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("keys[0].outbound[0]"), "{ended:?}");
    assert!(
        !ended.stderr.contains(KEY_B) && ended.stdout.is_empty(),
        "{ended:?}"
    );
}

#[test]
fn the_schema_is_json_with_every_section() {
    let ended = run(&["schema"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let schema: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    for key in [
        "keys", "limits", "timeouts", "pool", "breaker", "dns", "admin",
    ] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

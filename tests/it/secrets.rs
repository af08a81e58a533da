//! Secrets come from variables and files, and no output shows one.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use crate::support::process::{Ended, file};
use crate::support::{Action, IN_KEY, Process, Upstream, envelope, envelope_request};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// A part of every secret here.
const MARK: &str = "5ec7e75ec7e75ec7e7";

/// Keys of outbounds.
const FIRST: &str = "aaaa5ec7e75ec7e75ec7e7000000000a";
const SECOND: &str = "bbbb5ec7e75ec7e75ec7e7000000000b";
const THIRD: &str = "cccc5ec7e75ec7e75ec7e7000000000c";
/// The key that the mirror reports its own errors with.
const REPORT: &str = "dddd5ec7e75ec7e75ec7e7000000000d";

#[track_caller]
fn assert_secret(text: &str, what: &str) {
    assert!(!text.contains(MARK), "{what}: {text}");
}

/// A configuration whose secrets are elsewhere, and the file of one of them.
struct Planted {
    config: String,
    key_file: std::path::PathBuf,
}

fn planted(upstreams: [&Upstream; 2]) -> Planted {
    let key_file = file("key", &format!("{}\n", upstreams[1].dsn(SECOND, 3)));
    let config = format!(
        "ip: 127.0.0.1\nport: 0\nworkers: 1\nadmin: {{port: 0}}\naccess_log: json\nlog_filter: trace\n\
         sentry_dsn: http://${{REPORT_KEY}}@127.0.0.1:9/1\nstatsd_addr: 127.0.0.1:9\n\
         keys:\n- inbound: http://${{IN_KEY}}@m/42\n  outbound:\n  - ${{FIRST_DSN}}\n  - dsn: file:{}\n    \
         headers: {{Authorization: \"Bearer ${{TOKEN}}\"}}\n\
         headers: {{X-Token: \"${{TOKEN}}\"}}\n",
        key_file.display()
    );
    Planted { config, key_file }
}

fn variables(first: &Upstream) -> [(&'static str, String); 4] {
    let dsn = first.dsn(&format!("{FIRST}:{MARK}"), 2);
    [
        ("REPORT_KEY", format!("{REPORT}:{MARK}")),
        ("IN_KEY", IN_KEY.to_owned()),
        ("FIRST_DSN", dsn),
        ("TOKEN", MARK.to_owned()),
    ]
}

fn check(config: &str, variables: &[(&str, String)]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"));
    let variables = variables.iter().map(|(name, value)| (name, value));
    let output = command
        .env_remove("SENTRY_MIRROR_VERSION")
        .envs(variables)
        .arg("--check")
        .arg("-c")
        .arg(file("config.yml", config))
        .output()
        .expect("the binary runs");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

fn event() -> Vec<u8> {
    envelope_request(envelope(ID).as_bytes())
}

#[test]
fn secrets_are_used_and_never_shown() {
    // The second is the value of a header.
    let refusal = format!("no: {MARK}{MARK}0, {MARK}");
    let refusing = Upstream::start(move |_, _| {
        let length = refusal.len();
        let head = format!("HTTP/1.1 403 X\r\nContent-Length: {length}\r\n\r\n");
        Action::Raw([head.as_bytes(), refusal.as_bytes()].concat())
    });
    let accepting = Upstream::ok();
    let Planted { config, key_file } = planted([&refusing, &accepting]);
    let variables = variables(&refusing);
    let with_variables = |command: &mut Command| {
        command.envs(variables.iter().map(|(name, value)| (name, value)));
    };
    let mut mirror = Process::spawn(&config, with_variables, Stdio::piped());
    let mut stdout = mirror.take_stdout();
    assert_eq!(mirror.client().ask(&event()).status, 200);
    let auth = |upstream: &Upstream| {
        let request = upstream.wait_for(1).remove(0);
        request.field("x-sentry-auth").expect("a field").to_owned()
    };
    assert!(auth(&refusing).contains(FIRST), "{}", auth(&refusing));
    assert!(auth(&accepting).contains(SECOND), "{}", auth(&accepting));

    let token = |upstream: &Upstream, name: &str| {
        let request = upstream.wait_for(1).remove(0);
        request.field(name).map(str::to_owned)
    };
    assert_eq!(token(&refusing, "x-token").as_deref(), Some(MARK));
    assert_eq!(token(&accepting, "x-token").as_deref(), Some(MARK));
    assert_eq!(token(&refusing, "authorization"), None);
    let bearer = format!("Bearer {MARK}");
    assert_eq!(token(&accepting, "authorization"), Some(bearer));

    // The file changes, and SIGHUP reads it again.
    fs::write(&key_file, accepting.dsn(THIRD, 3)).expect("a file");
    mirror.signal("HUP");
    mirror.wait_for_line("configuration reloaded");
    assert_eq!(mirror.client().ask(&event()).status, 200);
    let request = accepting.wait_for(2).remove(1);
    assert!(request.field("x-sentry-auth").unwrap().contains(THIRD));

    // A file that is gone changes nothing.
    fs::remove_file(&key_file).expect("a file");
    mirror.signal("HUP");
    let error = mirror.wait_for_line("the old one stays in force");
    assert!(error.contains("keys[0].outbound[1].dsn"), "{error}");
    assert_eq!(mirror.client().ask(&event()).status, 200);

    for path in ["/status", "/metrics", "/config", "/"] {
        let page = mirror.page(path);
        assert!(!page.text().is_empty(), "{path}");
        assert_secret(page.text(), path);
    }
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    assert_secret(&log.join("\n"), "the log");
    let mut access = String::new();
    stdout.read_to_string(&mut access).expect("text");
    assert_eq!(access.lines().count(), 3, "{access}");
    assert_secret(&access, "the access log");
}

#[test]
fn no_check_shows_a_secret() {
    let upstream = Upstream::ok();
    let Planted { config, key_file } = planted([&upstream, &upstream]);
    let variables = variables(&upstream);
    let checked = check(&config, &variables);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_secret(&format!("{checked:?}"), "--check");
    assert!(checked.stdout.contains("aaaa…@127.0.0.1"), "{checked:?}");
    // Values that are invalid, and one that is missing.
    fs::write(&key_file, format!("htps://{MARK}/x")).expect("a file");
    let invalid = [
        ("REPORT_KEY", format!("{MARK}{MARK}!")),
        ("TOKEN", format!("{MARK}\nX: y")),
        ("FIRST_DSN", format!("http://{MARK}:x:y@m/1")),
    ];
    let checked = check(&config, &invalid);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert_secret(&format!("{checked:?}"), "errors");
    for words in [
        "sentry_dsn: found another",
        "IN_KEY is not set",
        "headers.X-Token: found another",
        "headers.Authorization: found another",
        "outbound[0]: found another",
        "outbound[1].dsn: found another",
    ] {
        assert!(checked.stderr.contains(words), "{words}: {checked:?}");
    }
}

#[test]
fn no_output_about_a_cap_shows_a_secret() {
    let upstream = Upstream::ok();
    let config = format!(
        "ip: 127.0.0.1\nport: 0\nworkers: 1\nadmin: {{port: 0}}\naccess_log: json\nlog_filter: trace\n\
         keys:\n- inbound: http://{IN_KEY}:{MARK}@m/42\n  outbound:\n  - dsn: {}\n    \
         cap: {{error: \"${{AMOUNT}}\"}}\n    headers: {{X-Token: \"${{TOKEN}}\"}}\n",
        upstream.dsn(&format!("{FIRST}:{MARK}"), 2)
    );
    let variables = [("AMOUNT", "2/day".to_owned()), ("TOKEN", MARK.to_owned())];
    let with_variables = |command: &mut Command| {
        command.envs(variables.iter().map(|(name, value)| (name, value)));
    };
    let mut mirror = Process::spawn(&config, with_variables, Stdio::piped());
    let mut stdout = mirror.take_stdout();
    for _ in 0..3 {
        assert_eq!(mirror.client().ask(&event()).status, 200);
    }
    mirror.wait_for_line("a cap of the outbound is reached");
    assert_eq!(upstream.received().len(), 1);
    for path in ["/status", "/metrics", "/config", "/"] {
        let page = mirror.page(path);
        assert!(page.text().contains("cap"), "{path}");
        assert_secret(page.text(), path);
    }
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    assert_secret(&log.join("\n"), "the log");
    let mut access = String::new();
    stdout.read_to_string(&mut access).expect("text");
    assert!(access.contains("capped"), "{access}");
    assert_secret(&access, "the access log");

    let checked = check(&config, &variables);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("cap error 2/day"), "{checked:?}");
    assert_secret(&format!("{checked:?}"), "--check");
    // What should be an amount is another variable's value.
    for wrong in [
        MARK,
        "57317571757175",
        "3/57317571757175",
        "x/5ec7e75ec7e75ec7e7",
    ] {
        let variables = [("AMOUNT", wrong.to_owned()), ("TOKEN", MARK.to_owned())];
        let checked = check(&config, &variables);
        assert_eq!(checked.code, Some(2), "{checked:?}");
        let text = format!("{checked:?}");
        assert!(text.contains("cap.error: found another"), "{text}");
        assert!(!text.contains("5731757"), "{text}");
        assert_secret(&text, wrong);
    }
}

//! Commands that try a configuration: `--check --connect` and `test`.

use std::time::{Duration, SystemTime};

use rcgen::CertificateParams;

use crate::support::process::{Ended, file, run};
use crate::support::tls::Authority;
use crate::support::{Action, IN_KEY, KEY_A, KEY_B, Process, Upstream, config, deaf};
use crate::tls::Server;

/// Runs the binary with these words and the configuration `text`.
fn run_with(words: &[&str], text: &str) -> Ended {
    let path = file("config.yml", text);
    run(&[words, &["-c", path.to_str().unwrap()]].concat())
}

fn connect(text: &str) -> Ended {
    run_with(&["--check", "--connect"], text)
}

/// No output shows a whole key.
fn assert_shows_no_key(ended: &Ended) {
    for key in [IN_KEY, KEY_A, KEY_B] {
        assert!(!ended.stdout.contains(key), "{}", ended.stdout);
        assert!(!ended.stderr.contains(key), "{}", ended.stderr);
    }
}

#[test]
fn connect_asks_each_outbound_in_a_way_that_stores_nothing() {
    let (a, b) = (
        Upstream::ok(),
        Upstream::start(|_, _| Action::Answer(200, "{}")),
    );
    let prefixed = format!("http://{KEY_B}:secret@{}/sentry/22", b.address);
    let ended = connect(&config(&[a.dsn(KEY_A, 11), prefixed], ""));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.matches("✓").count(), 2, "{}", ended.stdout);
    assert_shows_no_key(&ended);
    for (upstream, line, auth) in [
        (
            &a,
            "POST /api/11/envelope/ HTTP/1.1",
            format!("sentry_key={KEY_A}"),
        ),
        (
            &b,
            "POST /sentry/api/22/envelope/ HTTP/1.1",
            format!("sentry_key={KEY_B}, sentry_secret=secret"),
        ),
    ] {
        // More than once: a Relay accepts everything until it has looked up the key.
        let received = upstream.wait_for(3);
        assert_eq!(received.len(), 3);
        for request in received {
            assert_eq!(request.line, line);
            assert!(request.field("X-Sentry-Auth").unwrap().ends_with(&auth));
            let items: Vec<_> = request.text().lines().skip(1).collect();
            assert!(items[0].contains("client_report"), "{items:?}");
            assert!(items[1].contains("\"discarded_events\":[]"), "{items:?}");
            assert_eq!(items.len(), 2);
        }
    }
}

#[test]
fn connect_names_what_is_wrong_with_each_outbound() {
    let https = |address| format!("https://{KEY_A}@{address}/2");
    let plain = Upstream::ok();
    let other_authority = Server::start(&Authority::new(), "127.0.0.1");
    // It accepts until it has looked up the key.
    let wrong_key = Upstream::start(|number, _| match number {
        0 => Action::Answer(200, "{}"),
        _ => Action::Answer(
            403,
            r#"{"detail":"event submission rejected with_reason: ProjectId"}"#,
        ),
    });
    let page = Upstream::start(|_, _| Action::Answer(200, "<html>welcome</html>"));
    let moved = Upstream::start(|_, _| {
        Action::Raw(
            b"HTTP/1.1 301 \r\nLocation: https://sentry.example.com/\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        )
    });
    let limited = Upstream::start(|_, _| Action::Answer(429, "{}"));
    let closing = Upstream::start(|_, _| Action::Close);
    let (_socket, refusing) = deaf();
    let cases = [
        (https(plain.address), "does it speak TLS on this port?"),
        (https(other_authority.address), "tls.ca_file"),
        (
            wrong_key.dsn(KEY_A, 3),
            "rejects the key for project 3 (403): \"event submission",
        ),
        (page.dsn(KEY_A, 4), "but not as Sentry does"),
        (
            moved.dsn(KEY_A, 5),
            "redirects (301) to https://sentry.example.com/",
        ),
        (
            limited.dsn(KEY_A, 6),
            "knows the key, but is rate limited (429)",
        ),
        (closing.dsn(KEY_A, 7), "does it expect https://"),
        (
            format!("http://{KEY_A}@{refusing}/8"),
            "refuses connections",
        ),
        (
            format!("http://{KEY_A}@no-such-host.invalid/9"),
            "cannot be resolved",
        ),
    ];
    let dsns: Vec<String> = cases.iter().map(|(dsn, _)| dsn.clone()).collect();
    let ended = connect(&config(&dsns, ""));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("9 of 9 outbounds do not accept"),
        "{ended:?}"
    );
    assert_shows_no_key(&ended);
    let lines: Vec<_> = ended
        .stdout
        .lines()
        .filter(|line| line.contains('✗'))
        .collect();
    assert_eq!(lines.len(), cases.len(), "{}", ended.stdout);
    for ((_, words), line) in cases.iter().zip(lines) {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
}

#[test]
fn connect_trusts_what_the_mirror_trusts() {
    let authority = Authority::new();
    let server = Server::start(&authority, "127.0.0.1");
    let outbound = format!("https://{KEY_A}@{}/2", server.address);
    let ended = connect(&config(&[outbound], &authority.ca_file()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn connect_says_when_the_certificate_expires() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let days = |count: u64| Duration::from_secs(count * 24 * 60 * 60);
    // And some hours, so that the test may take its time.
    params.not_after = (SystemTime::now() + days(9) + Duration::from_secs(7200)).into();
    let server = Server::with(authority.signed(&params).server_config());
    let plain = Upstream::start(|_, _| Action::Answer(200, "{}"));
    let outbounds = [
        format!("https://{KEY_A}@{}/2", server.address),
        plain.dsn(KEY_A, 3),
    ];
    let ended = connect(&config(&outbounds, &authority.ca_file()));
    let lines: Vec<_> = ended
        .stdout
        .lines()
        .filter(|line| line.contains('✓'))
        .collect();
    let [tls, http] = lines[..] else {
        panic!("{ended:?}");
    };
    assert!(
        tls.ends_with(" ms; its certificate expires in 9 days)"),
        "{tls}"
    );
    assert!(http.ends_with(" ms)"), "{http}");
}

#[test]
fn connect_needs_check_and_a_valid_configuration() {
    assert_eq!(run_with(&["--connect"], &config(&[], "")).code, Some(2));
    assert_eq!(connect("keys: []").code, Some(2));
}

/// A running mirror, and the file of a configuration with its ports.
pub(crate) struct Mirror {
    pub(crate) process: Process,
    path: String,
}

impl Mirror {
    pub(crate) fn start(text: &str) -> Mirror {
        let process = Process::start(text);
        let port = format!("port: {}", process.address.port());
        let mut known = text.replacen("port: 0", &port, 1);
        if text.contains("admin: {port: 0}") {
            let admin = process.admin_address();
            known = known.replace("{port: 0}", &format!("{{port: {}}}", admin.port()));
        }
        Mirror {
            process,
            path: file("config.yml", &known).to_str().unwrap().to_owned(),
        }
    }

    fn test(&self, words: &[&str]) -> Ended {
        self.run("test", words)
    }

    /// Runs a subcommand with the configuration.
    pub(crate) fn run(&self, subcommand: &str, words: &[&str]) -> Ended {
        run(&[&[subcommand, "-c", &self.path], words].concat())
    }
}

#[test]
fn test_sends_an_event_through_the_mirror_and_says_what_became_of_it() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let outbounds = [a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)];
    let mirror = Mirror::start(&config(&outbounds, "admin: {port: 0}"));
    let ended = mirror.test(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.matches("accepted it").count(), 2, "{ended:?}");
    assert!(
        ended.stdout.contains("the answer to the SDK: 200"),
        "{ended:?}"
    );
    assert_shows_no_key(&ended);
    let (_, rest) = ended.stdout.split_once("the error event ").unwrap();
    let id = &rest[..32];
    for upstream in [&a, &b] {
        let [received] = &upstream.wait_for(1)[..] else {
            panic!("more than one request");
        };
        assert!(received.text().contains(id), "{}", received.text());
        assert!(received.text().contains("SentryMirrorTest"));
    }
}

#[test]
fn test_tells_apart_what_became_of_the_event_at_each_outbound() {
    let good = Upstream::ok();
    let bad = Upstream::start(|_, _| Action::Answer(403, r#"{"detail":"no such key"}"#));
    let text = config(
        &[good.dsn(KEY_A, 11), bad.dsn(KEY_B, 22)],
        "admin: {port: 0}",
    ) + &format!(
        "      - {{dsn: '{}', categories: [session]}}\n",
        good.dsn(KEY_B, 33)
    );
    let mirror = Mirror::start(&text);
    let ended = mirror.test(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in [
        "accepted it",
        "key or project",
        "no such key",
        "it does not take errors",
    ] {
        assert!(
            ended.stdout.contains(words),
            "{words} is not in {}",
            ended.stdout
        );
    }
    assert!(
        ended.stderr.contains("did not arrive everywhere"),
        "{ended:?}"
    );
}

#[test]
fn test_asks_the_outbounds_directly_if_it_should() {
    let good = Upstream::ok();
    let bad = Upstream::start(|_, _| Action::Answer(403, "{}"));
    let text = config(&[good.dsn(KEY_A, 11), bad.dsn(KEY_B, 22)], "");
    let ended = run_with(&["test", "--direct"], &text);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("accepts (200"), "{ended:?}");
    assert!(
        ended.stdout.contains("rejects the key for project 22"),
        "{ended:?}"
    );
    assert_shows_no_key(&ended);
    assert_eq!(good.received().len(), 1);
}

#[test]
fn test_without_an_admin_port_tells_only_the_answer() {
    let upstream = Upstream::ok();
    let mirror = Mirror::start(&config(&[upstream.dsn(KEY_A, 11)], "admin: off"));
    let ended = mirror.test(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("`admin: off`"), "{ended:?}");
}

#[test]
fn test_says_which_routes_there_are_and_whether_a_mirror_runs() {
    let route = |key: &str| {
        format!("  - {{inbound: 'http://{key}@m/1', outbound: ['http://{key}@127.0.0.1:9/2']}}\n")
    };
    let text = format!("keys:\n{}{}", route(KEY_A), route(KEY_B));
    let ended = run_with(&["test"], &text);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("--route is missing; the routes are http://aaaa…@m/1"),
        "{ended:?}"
    );
    let (_socket, refusing) = deaf();
    let port = refusing.port();
    let text = format!("ip: 127.0.0.1\nport: {port}\nadmin: off\n{text}");
    let ended = run_with(&["test", "--route", "http://aaaa…@m/1"], &text);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("does it run?"), "{ended:?}");
}

//! The mirror reports its own errors, and nothing else, to the Sentry of `sentry_dsn`.

use crate::support::process::file;
use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, Process, Upstream, config, envelope, envelope_request,
};

/// A mirror that reports to `dsn`, and its configuration file.
fn reporting(outbound: &Upstream, dsn: &str) -> (std::path::PathBuf, Process) {
    let extra = format!("sentry_dsn: {dsn}\nsentry_env: prod");
    let text = config(&[outbound.dsn(KEY_A, 11)], &extra);
    let path = file("config.yml", &text);
    let mirror = Process::start_at(&path);
    (path, mirror)
}

#[test]
fn a_self_report_has_the_release_and_no_request_data() {
    let (outbound, own) = (Upstream::ok(), Upstream::ok());
    let (path, mirror) = reporting(&outbound, &own.dsn(KEY_B, 7));
    assert_eq!(
        mirror
            .client()
            .ask(&envelope_request(envelope("00").as_bytes()))
            .status,
        200
    );
    std::fs::write(&path, "keys: secret-word\n").unwrap();
    // One after the other, since pending signals merge.
    for count in 1..=3 {
        mirror.signal("HUP");
        mirror.wait_for_lines("is not reloaded", count);
    }
    let report = own.wait_for(1).remove(0);
    assert_eq!(report.line, "POST /api/7/envelope/ HTTP/1.1");
    let text = report.text();
    let payload = text.lines().nth(2).unwrap();
    let event: serde_json::Value = serde_json::from_str(payload).unwrap();
    assert_eq!(event["environment"], "prod");
    assert_eq!(
        event["release"],
        concat!("sentry-mirror@", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        event["message"],
        "the configuration is not reloaded, the old one stays in force"
    );
    for private in ["secret-word", IN_KEY, "division by zero", "config.yml"] {
        assert!(!text.contains(private), "{private} in {text}");
    }
    // The mirror still serves, and reports the same error only once.
    assert_eq!(
        mirror
            .client()
            .ask(&envelope_request(envelope("01").as_bytes()))
            .status,
        200
    );
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
    assert_eq!(own.received().len(), 1);
}

#[test]
fn undeliverable_self_reports_change_nothing_else() {
    let outbound = Upstream::ok();
    let refusing = Upstream::start(|_, _| Action::Close);
    let (path, mirror) = reporting(&outbound, &refusing.dsn(KEY_B, 7));
    std::fs::write(&path, "keys: []\n").unwrap();
    mirror.signal("HUP");
    mirror.wait_for_line("is not reloaded");
    refusing.wait_for(1);
    for number in 0..20 {
        let request = envelope_request(envelope(&number.to_string()).as_bytes());
        assert_eq!(mirror.client().ask(&request).status, 200);
    }
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
}

//! Configured names of routes and outbounds: where they are shown, and what a reload does with them.

use serde_json::Value;

use crate::support::process::ask;
use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, Process, Reloadable, Upstream, envelope, envelope_request,
};

fn good() -> Vec<u8> {
    envelope_request(envelope("00").as_bytes())
}

/// A route with two outbounds of these names.
fn named(route: &str, outbounds: [(&str, &str); 2]) -> String {
    let [(a, a_dsn), (b, b_dsn)] = outbounds;
    format!(
        "ip: 127.0.0.1\nport: 0\nworkers: 1\nadmin: {{port: 0}}\nkeys:\n- name: {route}\n  \
         inbound: http://{IN_KEY}@mirror.example.com/42\n  outbound:\n  \
         - {{name: {a}, dsn: '{a_dsn}'}}\n  - {{name: {b}, dsn: '{b_dsn}'}}\n"
    )
}

fn metrics(mirror: &Process) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n";
    ask(mirror.admin_address(), request).text().to_owned()
}

#[test]
fn names_are_shown_instead_of_dsns() {
    let (good_one, bad_one) = (
        Upstream::ok(),
        Upstream::start(|_, _| Action::Answer(403, "{}")),
    );
    let dsns = [good_one.dsn(KEY_A, 11), bad_one.dsn(KEY_B, 22)];
    let text = named("checkout", [("saas", &dsns[0]), ("self-hosted", &dsns[1])]);
    let mirror = Process::start(&text);
    assert_eq!(mirror.client().ask(&good()).status, 200);
    let line = mirror.wait_for_line("outbound is rejecting requests");
    assert!(
        line.contains("route=\"checkout\" outbound=\"self-hosted\""),
        "{line}"
    );
    mirror.wait_for_metrics(|metrics| metrics.sum("sentry_mirror_deliveries_total", &[]) == 2.0);
    let shown = metrics(&mirror);
    for series in [
        "sentry_mirror_requests_total{route=\"checkout\",result=\"accepted\"} 1",
        "sentry_mirror_deliveries_total{route=\"checkout\",outbound=\"saas\",outcome=\"2xx\"} 1",
        "sentry_mirror_deliveries_total{route=\"checkout\",outbound=\"self-hosted\",outcome=\"4xx\"} 1",
    ] {
        assert!(shown.contains(series), "no {series} in {shown}");
    }
    assert!(!shown.contains("mirror.example.com"), "{shown}");
    let status: Value = serde_json::from_str(mirror.page("/status").text()).unwrap();
    let route = &status["routes"][0];
    assert_eq!(route["name"], "checkout");
    assert_eq!(route["dsn"], "http://0123…@mirror.example.com/42");
    assert_eq!(route["outbounds"][1]["name"], "self-hosted");
    let shortened = dsns[1].replace(KEY_B, "bbbb…");
    assert_eq!(route["outbounds"][1]["dsn"], shortened.as_str());
}

#[test]
fn a_reload_that_changes_names_keeps_the_counters() {
    let upstream = Upstream::ok();
    let dsns = [upstream.dsn(KEY_A, 11), upstream.dsn(KEY_B, 22)];
    let mut mirror = Reloadable::start(&named("old", [("a", &dsns[0]), ("b", &dsns[1])]));
    let mut client = mirror.process.client();
    for _ in 0..3 {
        assert_eq!(client.ask(&good()).status, 200);
    }
    mirror
        .process
        .wait_for_metrics(|metrics| metrics.sum("sentry_mirror_deliveries_total", &[]) == 6.0);
    mirror.reload(&named("new", [("c", &dsns[0]), ("a", &dsns[1])]));
    let line = mirror.process.wait_for_line("configuration reloaded");
    assert!(
        line.contains("route new: was old, outbound c was a, outbound a was b"),
        "{line}"
    );
    let shown = metrics(&mirror.process);
    for series in [
        "sentry_mirror_requests_total{route=\"new\",result=\"accepted\"} 3",
        "sentry_mirror_deliveries_total{route=\"new\",outbound=\"c\",outcome=\"2xx\"} 3",
        // The name was that of the other outbound.
        "sentry_mirror_deliveries_total{route=\"new\",outbound=\"a\",outcome=\"2xx\"} 0",
    ] {
        assert!(shown.contains(series), "no {series} in {shown}");
    }
    assert!(!shown.contains("route=\"old\""), "{shown}");
}

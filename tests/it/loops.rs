//! Loops of outbound DSNs: a mirror rejects a request that it has already sent.

use crate::support::process::{file, run};
use crate::support::{
    IN_KEY, KEY_A, KEY_B, Process, Reloadable, Upstream, config, envelope, envelope_request,
    wait_until,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const OTHER_KEY: &str = "22222222222222222222222222222222";

/// How many requests `mirror` has rejected because they had passed it before.
fn loops(mirror: &Process) -> usize {
    let counted = mirror
        .metrics()
        .sum("sentry_mirror_rejections_total", &["reason=\"loop\""]);
    counted as usize
}

#[track_caller]
fn wait_for_loops(mirror: &Process, count: usize) {
    wait_until(
        || loops(mirror) == count,
        || format!("{} of {count} loops were counted", loops(mirror)),
    );
}

#[test]
fn an_event_sent_to_two_mirrors_that_name_each_other_is_delivered_once_by_each() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let text = |key: &str, outbounds: &[String]| {
        let inbound = |key| format!("inbound: http://{key}@");
        config(outbounds, "admin: {port: 0}").replace(&inbound(IN_KEY), &inbound(key))
    };
    let mut first = Reloadable::start(&text(IN_KEY, &[a.dsn(KEY_A, 11)]));
    let back = format!("http://{IN_KEY}@{}/42", first.process.address);
    let second = Process::start(&text(OTHER_KEY, &[b.dsn(KEY_B, 22), back]));
    let there = format!("http://{OTHER_KEY}@{}/42", second.address);
    first.reload(&text(IN_KEY, &[a.dsn(KEY_A, 11), there]));

    let mut client = first.process.client();
    for sent in 1..=3 {
        let response = client.ask(&envelope_request(envelope(ID).as_bytes()));
        assert_eq!(response.status, 200);
        wait_for_loops(&first.process, sent);
        assert_eq!(a.wait_for(sent).len(), sent);
        assert_eq!(b.wait_for(sent).len(), sent);
    }
    assert_eq!(loops(&second), 0);
    // A loop is an error, and is logged at most once a minute.
    let lines = first
        .process
        .wait_for_lines("has passed this mirror before", 1);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("ERROR"), "{}", lines[0]);
    let route = r#"route="http://0123…@mirror.example.com/42""#;
    assert!(lines[0].contains(route), "{}", lines[0]);
}

#[test]
fn a_mirror_that_sends_to_itself_refuses_every_kind_of_request() {
    let a = Upstream::ok();
    let text = |outbounds: &[String]| config(outbounds, "admin: {port: 0}");
    let mut mirror = Reloadable::start(&text(&[a.dsn(KEY_A, 11)]));
    let itself = format!("http://{IN_KEY}@{}/42", mirror.process.address);
    mirror.reload(&text(&[itself, a.dsn(KEY_A, 11)]));

    let event = envelope(ID);
    let auth = format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}, sentry_version=7\r\n");
    let query = format!("?sentry_key={IN_KEY}");
    let form = "--x\r\nContent-Disposition: form-data; name=\"upload_file_minidump\"; filename=\"a.dmp\"\r\n\r\nMDMP\r\n--x--\r\n";
    let multipart = "Content-Type: multipart/form-data; boundary=x\r\n";
    let already = "Via: 2.0 edge (one, two), 1.1 sentry-mirror-00000000\r\n";
    #[rustfmt::skip]
    let cases = [
        ("POST", "/api/42/envelope/".to_owned(), auth.as_str(), event.as_str()),
        ("POST", format!("/api/42/envelope/{query}"), already, &event),
        // An SDK's `tunnel`: only the body names the route.
        ("POST", "/tunnel".to_owned(), "", &event),
        ("POST", "/api/42/something/new/".to_owned(), "", &event),
        ("POST", format!("/api/42/store/{query}"), "", "{}"),
        ("POST", format!("/api/42/minidump/{query}"), multipart, form),
        ("POST", format!("/api/42/security/{query}"), "", "{}"),
        ("POST", format!("/api/42/unreal/{IN_KEY}/"), "", "x"),
        ("GET", format!("/api/42/cron/job/{IN_KEY}?status=ok"), "", ""),
        ("POST", format!("/api/42/integration/otlp/v1/traces{query}"), "", "{}"),
        ("POST", format!("/api/embed/error-page/?dsn=http://{IN_KEY}@m/42&eventId={ID}"), "", "name=Jane"),
    ];
    let mut count = 0;
    for (method, target, fields, body) in cases {
        for version in ["1.1", "1.0"] {
            let request = format!(
                "{method} {target} HTTP/{version}\r\nHost: m\r\n{fields}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let response = mirror.process.client().ask(request.as_bytes());
            assert_eq!(response.status, 200, "{method} {target}");
            count += 1;
            wait_for_loops(&mirror.process, count);
            assert_eq!(a.wait_for(count).len(), count, "{method} {target}");
        }
    }
    // The script of the dialog comes from the primary only.
    let target = format!("/api/embed/error-page/?dsn=http://{IN_KEY}@m/42&eventId={ID}");
    let response = mirror
        .process
        .client()
        .ask(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    assert_eq!(response.status, 508, "{}", response.text());
    assert!(response.text().contains("loop"), "{}", response.text());
    wait_for_loops(&mirror.process, count + 1);
    assert_eq!(a.received().len(), count);
}

#[test]
fn via_names_the_mirrors_that_a_delivery_has_passed() {
    let a = Upstream::ok();
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], ""));
    let mut number = 0;
    let mut via_of = |version: &str, fields: &str| {
        let request = format!(
            "POST /api/42/store/?sentry_key={IN_KEY} HTTP/{version}\r\nHost: m\r\n{fields}Content-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(mirror.client().ask(request.as_bytes()).status, 200);
        number += 1;
        let fields = a.wait_for(number).remove(number - 1).fields;
        let named = |name: &String| name.eq_ignore_ascii_case("via");
        let lines = fields.into_iter().filter(|(name, _)| named(name));
        lines.map(|(_, value)| value).collect::<Vec<_>>()
    };
    // The tag is a hash of the inbound key, so that all replicas of a route share it.
    let own = "1.1 sentry-mirror-26d52149";
    assert_eq!(via_of("1.1", ""), [own]);
    // RFC 9110 section 7.6.3: each hop appends itself, with the version that it received.
    assert_eq!(via_of("1.0", ""), ["1.0 sentry-mirror-26d52149"]);
    let before = ["2.0 edge, 1.1 (a comment, with a comma) x", "1.1 y:8080"];
    let lines = format!("Via: {}\r\nvia: {}\r\n", before[0], before[1]);
    assert_eq!(via_of("1.1", &lines), [before[0], before[1], own]);
    // A hop cannot hide by listing the field in `Connection`.
    assert_eq!(
        via_of("1.1", "Connection: via\r\nVia: 1.1 x\r\n"),
        ["1.1 x", own]
    );
}

#[test]
fn check_refuses_a_certain_loop_and_warns_of_a_possible_one() {
    let check = |outbound: &str| {
        let path = file("config.yml", &config(&[outbound.to_owned()], ""));
        run(&["-c", path.to_str().unwrap(), "--check"])
    };
    let back = check(&format!("http://{IN_KEY}@mirror.example.com/7"));
    assert_eq!(back.code, Some(2), "{back:?}");
    let words =
        "keys[0].outbound[0]: has the key and the host of keys[0].inbound, so that it leads back";
    assert!(back.stderr.contains(words), "{back:?}");
    let elsewhere = check(&format!("http://{IN_KEY}@sentry.example.com/7"));
    assert_eq!(elsewhere.code, Some(0), "{elsewhere:?}");
    let words = "keys[0].outbound[0]: has the key of keys[0].inbound: if it leads to this mirror";
    assert!(elsewhere.stderr.contains(words), "{elsewhere:?}");
}

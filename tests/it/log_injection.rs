//! Text of upstreams and clients in logs and on pages.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{
    Action, IN_KEY, KEY_A, Process, Upstream, config, envelope, envelope_request, wait_until,
};

const SECRET: &str = "ee0123456789abcdef0123456789abcd";

/// A body with a forged log line, control sequences for terminals, marks for the direction of text, a key
/// and a secret.
fn evil() -> String {
    let key: String = KEY_A.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!(
        "no\n2026-11-30T00:00:00Z ERROR injected\r\n\u{1b}[31mred\u{9b}0m\u{7f}\u{0}\u{202e}rtl\u{2028}\u{feff}\" {KEY_A} {SECRET} {key}"
    )
}

fn assert_harmless(text: &str, what: &str) {
    let is_unsafe = |one: char| {
        one.is_control() && one != '\n'
            || matches!(one, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let found = text.chars().find(|one| is_unsafe(*one));
    assert_eq!(found, None, "{what}: {text:?}");
    for secret in [KEY_A, SECRET, IN_KEY] {
        assert!(!text.contains(secret), "{what}: {text:?}");
    }
    assert!(!text.contains(&"%61".repeat(32)), "{what}: {text:?}");
}

#[test]
fn text_of_peers_cannot_forge_log_lines_control_a_terminal_or_show_a_key() {
    for format in ["text", "json"] {
        let body = evil();
        let upstream = Upstream::start(move |_, _| {
            let length = body.len();
            let limits = "X-Sentry-Rate-Limits: 60:\u{202e};error\u{1b};aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:key";
            let head = format!("HTTP/1.1 403 X\r\nContent-Length: {length}\r\n");
            // The mirror refuses a response with a control character in a field.
            let limits = limits.replace('\u{1b}', "");
            Action::Raw(format!("{head}{limits}\r\n\r\n{body}").into_bytes())
        });
        let dsn = upstream.dsn(&format!("{KEY_A}:{SECRET}"), 11);
        let extra = format!(
            "log_filter: debug\nlog_format: {format}\naccess_log: {format}\nadmin: {{port: 0}}"
        );
        let mut mirror = Process::start_with_stdout(&config(&[dsn], &extra), Stdio::piped());
        let mut stdout = mirror.take_stdout();
        let mut client = mirror.client();
        assert_eq!(
            client
                .ask(&envelope_request(envelope("00").as_bytes()))
                .status,
            403
        );
        let odd = format!(
            "A!#$%&'*+-.^_`|~B{IN_KEY} /api/1/store/?sentry_key={IN_KEY}&x=%0d%0aINJECTED\u{202e}\" HTTP/1.1\r\nHost: m\r\nUser-Agent: a\u{9b}31m\r\n\r\n"
        );
        assert_eq!(client.ask(odd.as_bytes()).status, 405);
        mirror.wait_for_line("outbound is rejecting requests");
        mirror.wait_for_line("outbound has rate limits");
        let status = || mirror.page("/status").text().to_owned();
        wait_until(|| status().contains("answered 403"), status);
        let parsed: Value = serde_json::from_str(&status()).expect("JSON");
        let outbound = &parsed["routes"][0]["outbounds"][0];
        assert_harmless(
            outbound["last_error"]["message"].as_str().unwrap(),
            "last_error",
        );
        for name in outbound["rate_limits"][0]["categories"].as_array().unwrap() {
            assert_harmless(name.as_str().unwrap(), "a category");
        }
        mirror.signal("TERM");
        let (_, log) = mirror.wait();
        let mut access = String::new();
        stdout.read_to_string(&mut access).expect("the access log");
        assert_eq!(access.lines().count(), 2, "{access}");
        for line in log.iter().map(String::as_str).chain(access.lines()) {
            assert_harmless(line, format);
            assert!(!line.starts_with("2026-11-30T00:00:00Z ERROR"), "{line}");
            if format == "json" {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
            } else {
                assert!(line.starts_with("20"), "an entry of two lines: {line}");
            }
        }
    }
}

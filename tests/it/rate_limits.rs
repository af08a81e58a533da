//! Which envelopes a rate-limited outbound does not get, and the reply to the SDK.
//!
//! Each row has its own route. Its upstream first sends the responses of the row, to items of an unknown
//! type, to which only a limit on everything applies. The envelope that follows is delivered, or gets 429.

use std::thread;
use std::time::{Duration, SystemTime};

use crate::support::{Action, Client, Config, KEY_A, Response, Upstream};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const TRACE: &str = "771a43a4192642f0b136d5159a501700";

/// How many seconds of a limit may have passed when the SDK gets it, on a busy machine.
const PASSED_MAX: u64 = 20;

/// The responses of an upstream: each a status and header lines.
type Answers<'a> = &'a [(u16, &'a str)];

/// What happens to the envelope.
#[derive(Clone, Copy)]
enum Becomes<'a> {
    /// It is sent.
    Sent,
    /// It is not sent, and the SDK gets these limits, with the times at the start.
    Withheld(&'a str),
}
use Becomes::{Sent, Withheld};

/// An item of an envelope.
fn item(members: &str, payload: &str) -> String {
    format!("{{{members},\"length\":{}}}\n{payload}\n", payload.len())
}

/// An envelope of one item of a type, with nothing in it.
fn one(kind: &str) -> String {
    format!("{{}}\n{}", item(&format!("\"type\":\"{kind}\""), "{}"))
}

fn check(rows: &[(Answers<'_>, String, Becomes<'_>)]) {
    let start = |(answers, ..): &(Answers<'_>, String, Becomes<'_>)| {
        let answers: Vec<Vec<u8>> = answers
            .iter()
            .map(|(status, lines)| {
                format!("HTTP/1.1 {status} Status\r\n{lines}Content-Length: 2\r\n\r\n{{}}").into()
            })
            .collect();
        Upstream::start(move |number, _| match answers.get(number) {
            Some(answer) => Action::Raw(answer.clone()),
            None => Action::ok(),
        })
    };
    let upstreams: Vec<Upstream> = rows.iter().map(start).collect();
    let mut config = Config::without_routes();
    for (number, upstream) in upstreams.iter().enumerate() {
        config = config.route(&format!("{number:032x}"), 42, [upstream.dsn(KEY_A, 11)]);
    }
    let mirror = config.start();
    let complaints: Vec<String> = thread::scope(|scope| {
        let asking: Vec<_> = rows
            .iter()
            .zip(&upstreams)
            .enumerate()
            .map(|(number, (row, upstream))| {
                let mut client = mirror.client();
                scope.spawn(move || complaint(&mut client, number, row, upstream))
            })
            .collect();
        let rows = asking.into_iter();
        rows.filter_map(|row| row.join().expect("a row ends"))
            .collect()
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A report if a row fails.
fn complaint(
    client: &mut Client,
    route: usize,
    (answers, envelope, becomes): &(Answers<'_>, String, Becomes<'_>),
    upstream: &Upstream,
) -> Option<String> {
    for _ in *answers {
        post(client, route, &one("hologram"));
    }
    let response = post(client, route, envelope);
    let is_sent = upstream.received().len() > answers.len();
    let told = response.field("X-Sentry-Rate-Limits").unwrap_or_default();
    let is_right = match becomes {
        Sent => is_sent && response.status == 200,
        Withheld(limits) => !is_sent && response.status == 429 && is_what_is_left(told, limits),
    };
    (!is_right).then(|| {
        let status = response.status;
        format!("{answers:?}, then {envelope:?}: sent: {is_sent}, told {status} and {told:?}")
    })
}

fn post(client: &mut Client, route: usize, body: &str) -> Response {
    let head = format!(
        "POST /api/42/envelope/?sentry_key={route:032x} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.ask(&[head.as_bytes(), body.as_bytes()].concat())
}

/// Whether `told` are these limits, some time later.
fn is_what_is_left(told: &str, limits: &str) -> bool {
    let quotas = |text: &str| -> Vec<(u64, String)> {
        let quotas = text.split(", ").filter_map(|quota| quota.split_once(':'));
        quotas
            .map(|(seconds, rest)| (seconds.parse().expect("seconds"), rest.to_owned()))
            .collect()
    };
    let (told, limits) = (quotas(told), quotas(limits));
    told.len() == limits.len()
        && told.iter().zip(&limits).all(|(told, limit)| {
            told.1 == limit.1 && told.0 <= limit.0 && told.0 + PASSED_MAX >= limit.0
        })
}

#[test]
fn all_lines_of_x_sentry_rate_limits_count() {
    let two = "X-Sentry-Rate-Limits: 60:error:key\r\nX-Sentry-Rate-Limits: 50:session:key\r\nRetry-After: 60\r\n";
    let told = "60:error:key, 50:session:key";
    let empty =
        "X-Sentry-Rate-Limits: \r\nX-Sentry-Rate-Limits: 50:session:key\r\nRetry-After: 60\r\n";
    let mut rows = Vec::new();
    let answers: [(Answers<'_>, Answers<'_>); 2] = [
        (&[(200, two)], &[(200, empty)]),
        (&[(429, two)], &[(429, empty)]),
    ];
    for (two, empty) in answers {
        rows.extend([
            (two, one("event"), Withheld(told)),
            (two, one("session"), Withheld(told)),
            (two, one("span"), Sent),
            (empty, one("session"), Withheld("50:session:key")),
            (empty, one("event"), Sent),
        ]);
    }
    check(&rows);
}

#[test]
fn the_longer_of_two_limits_on_a_category_holds() {
    const LONG: &str = "X-Sentry-Rate-Limits: 300:error:key\r\n";
    const SHORT: &str = "X-Sentry-Rate-Limits: 30:error:key\r\n";
    let still = Withheld("300:error:key");
    check(&[
        (&[(200, LONG), (200, SHORT)], one("event"), still),
        (&[(200, SHORT), (429, LONG)], one("event"), still),
        (
            &[(200, "X-Sentry-Rate-Limits: 300:error:key, 30:error:key\r\n")],
            one("event"),
            still,
        ),
        (
            &[(200, "X-Sentry-Rate-Limits: 30:error:key, 300:error:key\r\n")],
            one("event"),
            still,
        ),
        (
            &[(
                200,
                "X-Sentry-Rate-Limits: 30:error:key\r\nX-Sentry-Rate-Limits: 300:error:key\r\n",
            )],
            one("event"),
            still,
        ),
        (
            &[(429, "Retry-After: 300\r\n")],
            one("event"),
            Withheld("300::organization"),
        ),
    ]);
}

#[test]
fn retry_after_is_a_number_or_a_date() {
    let date = |at| format!("Retry-After: {}\r\n", httpdate::fmt_http_date(at));
    let now = SystemTime::now();
    let (soon, past, far) = (
        date(now + Duration::from_secs(600)),
        date(now - Duration::from_secs(600)),
        date(now + Duration::from_secs(600 * 24 * 3600)),
    );
    let answers: [([(u16, &str); 1], Becomes<'_>); 9] = [
        ([(429, &soon)], Withheld("600::organization")),
        ([(429, &past)], Sent),
        ([(429, &far)], Withheld("86400::organization")),
        (
            [(429, "Retry-After: 299.2\r\n")],
            Withheld("300::organization"),
        ),
        ([(429, "Retry-After: 0\r\n")], Sent),
        ([(429, "Retry-After: -60\r\n")], Sent),
        (
            [(429, "Retry-After: 99999999999\r\n")],
            Withheld("86400::organization"),
        ),
        (
            [(429, "Retry-After: later\r\n")],
            Withheld("60::organization"),
        ),
        ([(503, "Retry-After: 300\r\n")], Sent),
    ];
    let rows: Vec<(Answers<'_>, String, Becomes<'_>)> = answers
        .iter()
        .map(|(answers, becomes)| (&answers[..], one("event"), *becomes))
        .collect();
    check(&rows);
}

#[test]
fn a_limit_applies_to_the_items_of_its_category() {
    const CHUNK: &str = "\"type\":\"profile_chunk\"";
    let of = |members: &str| format!("{{}}\n{}", item(members, "{}"));
    let chunk = |platform: &str| of(&format!("{CHUNK},\"platform\":\"{platform}\""));
    let crash = |members: &str| {
        let members = format!("\"type\":\"attachment\",{members}");
        format!("{{}}\n{}", item(&members, "sntr\0\0\0\0"))
    };
    let gpu = crash("\"attachment_type\":\"event.nv_gpudmp\"");
    let switch = crash("\"filename\":\"dying_message.dat\"");
    let typed = crash("\"attachment_type\":\"nswitch.dying_message\"");
    let rows = [
        ("log_byte", one("log"), false),
        ("trace_metric_byte", one("trace_metric"), false),
        ("attachment_item", one("attachment"), false),
        ("profile_duration", chunk("python"), false),
        ("profile_duration", chunk("cocoa"), true),
        ("profile_duration_ui", chunk("cocoa"), false),
        ("profile_chunk", chunk("node"), false),
        ("profile_chunk", chunk("android"), true),
        ("profile_chunk", chunk("javascript"), true),
        ("profile_chunk", of(CHUNK), true),
        ("profile_chunk_ui", chunk("android"), false),
        ("profile_chunk_ui", chunk("node"), true),
        ("profile_chunk_ui", of(CHUNK), true),
        ("attachment", gpu.clone(), true),
        ("attachment", switch.clone(), true),
        ("attachment", typed.clone(), true),
        ("error", gpu, false),
        ("error", switch, false),
        ("error", typed, false),
        ("transaction_indexed", one("transaction"), true),
    ];
    check_limits(&rows);
}

#[test]
fn an_attachment_is_rate_limited_with_its_event_alone() {
    let attachment = item("\"type\":\"attachment\",\"filename\":\"f\"", "data");
    let meta = format!("{{\"trace_id\":\"{TRACE}\"}}");
    let of_trace = |member: &str| {
        let members = format!(
            "\"type\":\"attachment\",\"content_type\":\"application/vnd.sentry.trace-attachment\",{member}\"meta_length\":{}",
            meta.len()
        );
        item(&members, &format!("{meta}hello"))
    };
    let beside = |kind: &str, attachment: &str| {
        let other = item(&format!("\"type\":\"{kind}\""), "{}");
        format!("{{\"event_id\":\"{ID}\"}}\n{other}{attachment}")
    };
    let span = "\"span_id\":\"b0e6f15b45c36b12\",";
    check_limits(&[
        ("error", beside("event", &attachment), false),
        ("session", beside("session", &attachment), true),
        ("session;attachment", beside("session", &attachment), false),
        ("monitor", beside("check_in", &attachment), true),
        ("log_item", beside("log", &of_trace("")), true),
        ("span", beside("span", &of_trace("")), true),
        ("span", beside("span", &of_trace(span)), false),
        ("error", beside("event", &of_trace("")), true),
    ]);
}

#[test]
fn an_unreadable_body_is_withheld_only_by_a_limit_on_everything() {
    let error = one("event");
    let rest = |rest: &str| format!("{error}{rest}");
    check_limits(&[
        ("error", rest(""), false),
        (
            "error",
            rest("{\"type\":\"event\",\"length\":999}\n{}"),
            true,
        ),
        ("error", rest("{\"length\":1}\nx\n"), true),
        ("error", rest("\n"), true),
        ("", rest("\n"), false),
        // Of two members of one name the last counts.
        ("error", one("session\",\"type\":\"event"), false),
        ("session", one("session\",\"type\":\"event"), true),
    ]);
}

/// Rows of limited categories, an envelope, and whether it is sent.
fn check_limits(rows: &[(&str, String, bool)]) {
    let limits: Vec<[String; 2]> = rows
        .iter()
        .map(|(categories, ..)| {
            let limit = format!("300:{categories}:organization");
            [format!("X-Sentry-Rate-Limits: {limit}\r\n"), limit]
        })
        .collect();
    let answers: Vec<[(u16, &str); 1]> = limits.iter().map(|[line, _]| [(200, &**line)]).collect();
    let rows: Vec<_> = rows
        .iter()
        .zip(&answers)
        .zip(&limits)
        .map(|(((_, envelope, is_sent), answers), [_, limit])| {
            let becomes = match is_sent {
                true => Sent,
                false => Withheld(limit),
            };
            (&answers[..], envelope.clone(), becomes)
        })
        .collect();
    check(&rows);
}

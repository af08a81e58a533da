//! The reply to every combination of outcomes that matters, under both policies.
//!
//! A row says what each outbound does, and which reply the SDK gets. The replies are written by hand
//! from the contract, not computed. All rows go through one mirror with default settings at once. Each
//! has a route and upstreams of its own, so that neither the time-outs nor the remembered rate limits
//! of one row affect another. Every row is also checked against what SDKs require.

use std::thread;
use std::time::{Duration, Instant};

use serde_yaml::Value;
use socket2::{Domain, Socket, Type};

use crate::support::{
    Action, Client, Config, IN_KEY, KEY_A, Process, Response, Upstream, envelope, outbound,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
/// The default of `reply_timeout`.
const REPLY_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long sentry-ruby waits for an answer; sentry-php waits 5 s. Both do it in the user's request.
const RUBY_WAITS: Duration = Duration::from_secs(2);

/// What an outbound does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// Answers with this status, and with a body that names the outbound.
    Says(u16),
    /// The same, with these header lines.
    SaysWith(u16, &'static str),
    /// Answers with these bytes.
    Sends(&'static str),
    /// Reads the request and closes.
    Closes,
    /// Refuses the connection.
    Refuses,
    /// Never answers.
    Hangs,
    /// What it does, for an outbound with `reply: never`.
    Silent(&'static Does),
}
use Does::{Closes, Hangs, Refuses, Says, SaysWith, Sends, Silent};

const OK: Does = Says(200);
/// Accepts, with a rate limit on errors.
const OK_50: Does = SaysWith(
    200,
    "Retry-After: 50\r\nX-Sentry-Rate-Limits: 50:error:key\r\n",
);
/// 429 as Relay sends it.
const LIMIT_60: Does = SaysWith(
    429,
    "Retry-After: 60\r\nX-Sentry-Rate-Limits: 60:error;session:organization:quota\r\n",
);
const LIMIT_20: Does = SaysWith(
    429,
    "Retry-After: 20\r\nX-Sentry-Rate-Limits: 20:error:key\r\n",
);
const LIMIT_OTHER: Does = SaysWith(
    429,
    "Retry-After: 30\r\nX-Sentry-Rate-Limits: 30:session:key\r\n",
);
/// 429 as others send it: on everything, for 7 seconds or for the minute that SDKs assume.
const LIMIT_7: Does = SaysWith(429, "Retry-After: 7\r\n");
const LIMIT: Does = Says(429);
const EXPLAINS: Does = SaysWith(400, "X-Sentry-Error: odd\r\n");
/// Refuses with 400, and with the fields of a 429.
const SILENCES: Does = SaysWith(
    400,
    "Retry-After: 60\r\nX-Sentry-Rate-Limits: 60:error:key\r\n",
);
/// Successes as Relay never sends them here.
const EMPTY: Does = Sends("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
const NO_CONTENT: Does = Sends("HTTP/1.1 204 No Content\r\n\r\n");
const HTML: Does =
    Sends("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 11\r\n\r\n<p>fine</p>");
const TEXT: Does =
    Sends("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nok");
/// The JSON ends too early, the response does not.
const CUT: Does = Sends(
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"id\":\"9e",
);
const LIST: Does =
    Sends("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]");
/// JSON under another type.
const UNNAMED: Does =
    Sends("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n {}\n");

/// The names of bodies in the table: those of the outbounds `a`, `b` and `c`, then the mirror's own.
const BODIES: &[(&str, &str)] = &[
    ("a", r#"{"by":"a"}"#),
    ("b", r#"{"by":"b"}"#),
    ("c", r#"{"by":"c"}"#),
    ("made", r#"{"id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#),
    ("limited", r#"{"detail":"rate limited by every outbound"}"#),
    (
        "large",
        r#"{"detail":"request too large for every outbound"}"#,
    ),
    ("nobody", r#"{"detail":"no outbound accepted the request"}"#),
    ("nothing", ""),
    ("html", "<p>fine</p>"),
    ("object", " {}\n"),
    ("cut", r#"{"id":"9e"#),
    ("list", "[]"),
];

/// What the outbounds do, the reply under `first_success`, and the one under `primary`, as [`told`]
/// describes them. `late` is a reply that comes after `reply_timeout`.
type Row = (&'static [Does], &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // The primary accepted: its response at once, whatever the others do.
    (&[OK],                     "200 a", "200 a"),
    (&[OK, OK],                 "200 a", "200 a"),
    (&[OK, Says(400)],          "200 a", "200 a"),
    (&[OK, Says(403)],          "200 a", "200 a"),
    (&[OK, Says(413)],          "200 a", "200 a"),
    (&[OK, LIMIT_60],           "200 a", "200 a"),
    (&[OK, LIMIT],              "200 a", "200 a"),
    (&[OK, Says(500)],          "200 a", "200 a"),
    (&[OK, Closes],             "200 a", "200 a"),
    (&[OK, Refuses],            "200 a", "200 a"),
    (&[OK, Hangs],              "200 a", "200 a"),
    (&[OK, Hangs, Refuses],     "200 a", "200 a"),
    (&[OK, LIMIT_20, LIMIT_60], "200 a", "200 a"),

    // The Java SDK sends an event again after another 2xx, the Elixir SDK also after a body that is not JSON.
    (&[Says(201)],              "200 made", "201 a"),
    (&[Says(202)],              "200 made", "202 a"),
    (&[NO_CONTENT],             "200 made", "204 nothing"),
    (&[EMPTY],                  "200 made", "200 nothing"),
    (&[HTML],                   "200 made", "200 html"),
    (&[TEXT],                   "200 made", "200 ok"),
    (&[CUT],                    "200 made", "200 cut"),
    (&[CUT, OK],                "200 made", "200 cut"),
    (&[LIST],                   "200 made", "200 list"),
    (&[UNNAMED],                "200 object", "200 object"),
    (&[Says(202), OK],          "200 made", "202 a"),
    (&[HTML, Hangs],            "200 made", "200 html"),
    (&[Says(500), Says(201)],   "200 made", "500 a"),
    (&[Refuses, HTML],          "200 made", "200 made"),

    // The primary did not accept: the response of the first outbound that did.
    (&[Says(400), OK],            "200 b", "400 a"),
    (&[EXPLAINS, OK],             "200 b", "400 a, error odd"),
    (&[Says(403), OK],            "200 b", "403 a"),
    (&[Says(413), OK],            "200 b", "413 a"),
    (&[LIMIT_60, OK],             "200 b", "429 a, limits 60:error;session:organization:quota, retry 60"),
    (&[LIMIT_7, OK],              "200 b", "429 a, retry 7"),
    (&[LIMIT, OK],                "200 b", "429 a"),
    (&[Says(500), OK],            "200 b", "500 a"),
    (&[Says(302), OK],            "200 b", "302 a"),
    (&[Closes, OK],               "200 b", "200 b"),
    (&[Refuses, OK],              "200 b", "200 b"),
    (&[Hangs, OK],                "late 200 b", "late 200 b"),
    (&[Says(500), OK, Hangs],     "200 b", "500 a"),
    (&[Says(500), Hangs, OK],     "200 c", "500 a"),
    (&[Says(500), Says(400), OK], "200 c", "500 a"),
    (&[LIMIT_60, LIMIT_20, OK],   "200 c", "429 a, limits 60:error;session:organization:quota, retry 60"),
    (&[Closes, LIMIT_60, OK],     "200 c", "200 c"),
    (&[Refuses, Hangs, OK],       "200 c", "200 c"),
    (&[Says(403), Hangs, OK],     "200 c", "403 a"),
    (&[Hangs, OK, OK],            "late 200 b", "late 200 b"),
    (&[Hangs, Says(500), OK],     "late 200 c", "late 200 c"),
    (&[Hangs, Hangs, OK],         "late 200 c", "late 200 c"),

    // No outbound accepted in time, but one still may.
    (&[Hangs],                       "late 200 made", "late 200 made"),
    (&[Hangs, Hangs],                "late 200 made", "late 200 made"),
    (&[Hangs, Hangs, Hangs],         "late 200 made", "late 200 made"),
    (&[Hangs, Says(400)],            "late 200 made", "late 200 made"),
    (&[Hangs, LIMIT_60],             "late 200 made", "late 200 made"),
    (&[Hangs, Closes],               "late 200 made", "late 200 made"),
    (&[Closes, Hangs],               "late 200 made", "late 200 made"),
    (&[Refuses, Hangs],              "late 200 made", "late 200 made"),
    (&[Says(403), Hangs],            "late 200 made", "403 a"),
    (&[LIMIT_7, Hangs],              "late 200 made", "429 a, retry 7"),
    (&[Says(500), Hangs],            "late 200 made", "500 a"),
    (&[Says(500), Says(413), Hangs], "late 200 made", "500 a"),

    // Every live outbound is rate limited: the categories limited at all of them, for the shortest time.
    (&[LIMIT_60],              "429 limited, limits 60:error;session:organization:quota, retry 60",
                               "429 a, limits 60:error;session:organization:quota, retry 60"),
    (&[LIMIT_60, LIMIT_20],    "429 limited, limits 20:error:organization:quota, retry 20",
                               "429 a, limits 60:error;session:organization:quota, retry 60"),
    (&[LIMIT_20, LIMIT_60],    "429 limited, limits 20:error:key, retry 20",
                               "429 a, limits 20:error:key, retry 20"),
    (&[LIMIT_60, LIMIT_OTHER], "429 limited, limits 30:session:organization:quota, retry 30",
                               "429 a, limits 60:error;session:organization:quota, retry 60"),
    // Their limits have no category in common. A limit on no category keeps SDKs from looking at
    // `Retry-After`, which would stop them from sending anything.
    (&[LIMIT_20, LIMIT_OTHER], "429 limited, limits 1:none:organization, retry 20",
                               "429 a, limits 20:error:key, retry 20"),
    (&[LIMIT_20, LIMIT_7],     "429 limited, limits 7:error:key, retry 7",
                               "429 a, limits 20:error:key, retry 20"),
    (&[LIMIT_20, LIMIT],       "429 limited, limits 20:error:key, retry 20",
                               "429 a, limits 20:error:key, retry 20"),
    (&[LIMIT_7, LIMIT_7],      "429 limited, limits 7::organization, retry 7", "429 a, retry 7"),
    (&[LIMIT, LIMIT],          "429 limited, limits 60::organization, retry 60", "429 a"),
    (&[LIMIT_60, LIMIT_20, LIMIT],
                               "429 limited, limits 20:error:organization:quota, retry 20",
                               "429 a, limits 60:error;session:organization:quota, retry 60"),
    // An outbound that never accepts anything is not live.
    (&[LIMIT_20, Says(403)],   "429 limited, limits 20:error:key, retry 20",
                               "429 a, limits 20:error:key, retry 20"),
    (&[Says(403), LIMIT_20],   "429 limited, limits 20:error:key, retry 20", "403 a"),
    (&[Says(401), LIMIT_20, Says(404)],
                               "429 limited, limits 20:error:key, retry 20", "401 a"),
    // An outbound that may accept the next event is live.
    (&[LIMIT_7, Says(400)],             "503 nobody", "429 a, retry 7"),
    (&[LIMIT_7, Says(413)],             "503 nobody", "429 a, retry 7"),
    (&[LIMIT_7, Says(500)],             "503 nobody", "429 a, retry 7"),
    (&[LIMIT_7, Closes],                "503 nobody", "429 a, retry 7"),
    (&[Closes, LIMIT_7],                "503 nobody", "503 nobody"),
    (&[Says(500), LIMIT_60, LIMIT_20],  "503 nobody", "500 a"),

    // Too large for all of them.
    (&[Says(413)],                       "413 large", "413 a"),
    (&[Says(413), Says(413)],            "413 large", "413 a"),
    (&[Says(413), Says(413), Says(413)], "413 large", "413 a"),

    // Refused by all of them: the first response.
    (&[Says(400)],                       "400 a", "400 a"),
    (&[EXPLAINS],                        "400 a, error odd", "400 a, error odd"),
    // Its rate limit is passed on only if it holds for all of them.
    (&[SILENCES, Says(400)],             "400 a", "400 a, limits 60:error:key, retry 60"),
    (&[SILENCES],                        "400 a, limits 60:error:key",
                                         "400 a, limits 60:error:key, retry 60"),
    (&[Says(403)],                       "403 a", "403 a"),
    (&[Says(400), Says(403)],            "400 a", "400 a"),
    (&[Says(403), Says(400)],            "403 a", "403 a"),
    (&[Says(413), Says(400)],            "413 a", "413 a"),
    (&[Says(413), Says(403)],            "413 a", "413 a"),
    (&[Says(401), Says(403), Says(404)], "401 a", "401 a"),
    (&[Says(400), Says(413), Says(415)], "400 a", "400 a"),

    // Anything else.
    (&[Says(500)],                       "503 nobody", "500 a"),
    (&[Says(500), Says(502)],            "503 nobody", "500 a"),
    (&[Says(500), Says(400)],            "503 nobody", "500 a"),
    (&[Says(400), Says(500)],            "503 nobody", "400 a"),
    (&[Says(413), Says(500)],            "503 nobody", "413 a"),
    (&[Says(413), Closes],               "503 nobody", "413 a"),
    (&[Says(403), Refuses],              "503 nobody", "403 a"),
    (&[Says(302), Says(302)],            "503 nobody", "302 a"),
    (&[Closes],                          "503 nobody", "503 nobody"),
    (&[Refuses],                         "503 nobody", "503 nobody"),
    (&[Closes, Refuses],                 "503 nobody", "503 nobody"),
    (&[Refuses, Says(400)],              "503 nobody", "503 nobody"),
    (&[Closes, Says(413)],               "503 nobody", "503 nobody"),
    (&[Refuses, Closes, Says(500)],      "503 nobody", "503 nobody"),

    // Limits announced with a success: only what is limited at every live outbound.
    (&[OK_50],                  "200 a, limits 50:error:key", "200 a, limits 50:error:key"),
    (&[OK_50, OK],              "200 a", "200 a, limits 50:error:key"),
    (&[OK, OK_50],              "200 a", "200 a"),
    (&[Closes, OK_50],          "200 b", "200 b"),
    (&[Hangs, OK_50],           "late 200 b", "late 200 b"),
    (&[Says(500), OK_50],       "200 b", "500 a"),
    (&[Says(403), OK_50],       "200 b, limits 50:error:key", "403 a"),
    (&[Says(403), OK_50, Says(500)], "200 b", "403 a"),

    // Outbounds with `reply: never`: as if they were not there.
    (&[Silent(&OK), OK],             "200 b", "200 b"),
    (&[OK, Silent(&Says(500))],      "200 a", "200 a"),
    (&[Says(500), Silent(&OK)],      "503 nobody", "500 a"),
    (&[Silent(&OK), Says(400)],      "400 b", "400 b"),
    (&[Closes, Silent(&OK), OK],     "200 c", "200 c"),
    (&[Closes, Silent(&OK)],         "503 nobody", "503 nobody"),
    (&[Silent(&Hangs), Says(413)],   "413 large", "413 b"),
    (&[Hangs, Silent(&OK)],          "late 200 made", "late 200 made"),
    // Neither do their limits matter, nor that they have none.
    (&[LIMIT_20, Silent(&OK)],       "429 limited, limits 20:error:key, retry 20",
                                     "429 a, limits 20:error:key, retry 20"),
    (&[OK_50, Silent(&OK)],          "200 a, limits 50:error:key", "200 a, limits 50:error:key"),
    (&[Silent(&LIMIT_20), OK],       "200 b", "200 b"),
    (&[Silent(&LIMIT_20), Says(500)], "503 nobody", "500 b"),
];

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    FirstSuccess,
    Primary,
}

#[test]
fn envelopes_get_the_replies_of_the_first_success_table() {
    every_row_is_answered(Policy::FirstSuccess, "envelope");
}

#[test]
fn store_events_get_the_replies_of_the_first_success_table() {
    every_row_is_answered(Policy::FirstSuccess, "store");
}

#[test]
fn envelopes_get_the_replies_of_the_primary_table() {
    every_row_is_answered(Policy::Primary, "envelope");
}

#[test]
fn store_events_get_the_replies_of_the_primary_table() {
    every_row_is_answered(Policy::Primary, "store");
}

fn every_row_is_answered(policy: Policy, endpoint: &str) {
    let routes: Vec<Route> = ROWS.iter().map(|(does, ..)| Route::start(does)).collect();
    let mirror = serve(&routes, policy);
    let complaints: Vec<String> = thread::scope(|scope| {
        let asking: Vec<_> = ROWS
            .iter()
            .enumerate()
            .map(|(number, (does, first_success, primary))| {
                let mut client = mirror.client();
                let expected = match policy {
                    Policy::FirstSuccess => first_success,
                    Policy::Primary => primary,
                };
                scope.spawn(move || {
                    let (response, elapsed) = ask(&mut client, number, endpoint);
                    sdks_understand(&response, elapsed, does, policy);
                    let told = told(&response, elapsed);
                    (told != *expected).then(|| format!("{does:?}: {told}, not {expected}"))
                })
            })
            .collect();
        let answers = asking.into_iter();
        answers
            .filter_map(|row| row.join().expect("the rules of SDKs hold"))
            .collect()
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// What SDKs require, whatever the outbounds do.
fn sdks_understand(response: &Response, elapsed: Duration, does: &[Does], policy: Policy) {
    let status = response.status;
    if policy == Policy::Primary && does.first().is_some_and(|does| does.misleads()) {
        // The operator has asked for this response as it is.
        return;
    }
    // Without it browsers hide the response from the SDK.
    assert_eq!(response.field("Access-Control-Allow-Origin"), Some("*"));
    // The Ruby SDK gives up after this time.
    assert!(elapsed < RUBY_WAITS, "{does:?}: {elapsed:?}");
    if status < 300 {
        // The JavaScript and Rust SDKs take it for a rate limit on everything, even with a 200.
        assert_eq!(response.field("Retry-After"), None, "{does:?}");
        // The Java SDK sends an event again after another 2xx.
        assert_eq!(status, 200, "{does:?}");
    }
    // The Elixir SDK sends an event again unless the reply is 200 with JSON, under any type.
    if !does.contains(&UNNAMED) {
        assert_eq!(response.field("Content-Type"), Some("application/json"));
    }
    assert!(
        serde_json::from_slice::<serde_json::Value>(&response.body).is_ok(),
        "{does:?}: {:?}",
        response.text()
    );
    if policy == Policy::FirstSuccess {
        let accepts = |does: &Does| *does == OK || *does == OK_50 || does.misleads();
        assert!(status == 200 || !does.iter().any(accepts), "{does:?}");
        // The Cocoa SDK stops sending after a 3xx.
        assert!(!(300..400).contains(&status), "{does:?}");
    }
}

/// A response as the table describes it.
fn told(response: &Response, elapsed: Duration) -> String {
    let when = if elapsed < REPLY_TIMEOUT { "" } else { "late " };
    let body = response.text();
    let known = BODIES.iter().find(|(_, known)| *known == body);
    let mut told = format!(
        "{when}{} {}",
        response.status,
        known.map_or(body, |known| known.0)
    );
    for (word, name) in [
        ("error", "X-Sentry-Error"),
        ("limits", "X-Sentry-Rate-Limits"),
        ("retry", "Retry-After"),
    ] {
        if let Some(value) = response.field(name) {
            told.push_str(&format!(", {word} {value}"));
        }
    }
    told
}

/// The outbounds of a row: their DSNs, and their upstreams.
struct Route {
    outbounds: Vec<Value>,
    _upstreams: Vec<Upstream>,
    /// Bound, but not listening.
    _refusing: Vec<Socket>,
}

impl Route {
    fn start(does: &[Does]) -> Route {
        Route::start_with(does, |_, does| does)
    }

    /// `change` decides what an upstream does, from the number of the request and what the row says.
    fn start_with(does: &[Does], change: fn(usize, Does) -> Does) -> Route {
        let mut route = Route {
            outbounds: Vec::new(),
            _upstreams: Vec::new(),
            _refusing: Vec::new(),
        };
        for (does, (_, body)) in does.iter().copied().zip(BODIES) {
            let (does, is_silent) = match does {
                Silent(does) => (*does, true),
                does => (does, false),
            };
            let address = if does == Refuses {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
                socket.bind(&any.into()).expect("a free port");
                let address = socket.local_addr().expect("an address").as_socket();
                route._refusing.push(socket);
                address.expect("an IP address")
            } else {
                let upstream = Upstream::start(move |number, _| change(number, does).action(body));
                let address = upstream.address;
                route._upstreams.push(upstream);
                address
            };
            let dsn = format!("http://{KEY_A}@{address}/1");
            route.outbounds.push(match is_silent {
                true => outbound(&dsn, "reply: never"),
                false => dsn.into(),
            });
        }
        route
    }
}

impl Does {
    /// Whether SDKs would not take its success for one.
    fn misleads(self) -> bool {
        matches!(self, Says(201 | 202) | Sends(_)) && self != UNNAMED
    }

    fn action(self, body: &str) -> Action {
        let says = |status: u16, lines: &str| {
            Action::Raw(
                format!(
                    "HTTP/1.1 {status} Status\r\n{lines}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .into(),
            )
        };
        match self {
            Says(status) => says(status, ""),
            SaysWith(status, lines) => says(status, lines),
            Sends(bytes) => Action::Raw(bytes.into()),
            Closes | Refuses => Action::Close,
            Hangs | Silent(_) => Action::Hang,
        }
    }
}

/// A mirror of these routes; the number of a route is in its key.
fn serve(routes: &[Route], policy: Policy) -> Process {
    let policy = match policy {
        Policy::FirstSuccess => "first_success",
        Policy::Primary => "primary",
    };
    let mut config = Config::without_routes().set("reply_policy", policy);
    for (number, route) in routes.iter().enumerate() {
        config = config.route(&key(number), 42, route.outbounds.clone());
    }
    config.start()
}

fn key(number: usize) -> String {
    format!("{number:032}")
}

/// Sends an error on the route with this number, and waits for the answer.
fn ask(client: &mut Client, number: usize, endpoint: &str) -> (Response, Duration) {
    let key = key(number);
    let body = envelope(ID).replace(IN_KEY, &key);
    let request = format!(
        "POST /api/42/{endpoint}/ HTTP/1.1\r\nHost: m\r\nX-Sentry-Auth: Sentry sentry_key={key}\r\nContent-Type: application/x-sentry-envelope\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let started = Instant::now();
    let response = client.ask(request.as_bytes());
    (response, started.elapsed())
}

/// What the outbounds do with the first request, and the replies to it and to a second one, which
/// all of them would accept.
type RowOfTwo = (&'static [Does], [&'static str; 2]);

#[rustfmt::skip]
const ROWS_OF_TWO: &[RowOfTwo] = &[
    // Limited at one only: the SDK does not learn of it, and the others still get everything.
    (&[LIMIT_20, OK],           ["200 b", "200 b"]),
    (&[LIMIT, OK],              ["200 b", "200 b"]),
    (&[OK, LIMIT_20],           ["200 a", "200 a"]),
    (&[OK_50, OK],              ["200 a", "200 b"]),
    (&[LIMIT_20, OK, LIMIT_60], ["200 b", "200 b"]),
    (&[LIMIT_20, Closes],       ["503 nobody", "200 b"]),
    // Limited at all of them: repeated, without a delivery.
    (&[LIMIT_60, LIMIT_20],     ["429 limited, limits 20:error:organization:quota, retry 20"; 2]),
    (&[LIMIT, LIMIT_7],         ["429 limited, limits 7::organization, retry 7"; 2]),
    (&[LIMIT_20, LIMIT_OTHER],  ["429 limited, limits 1:none:organization, retry 20", "200 b"]),
    // Limited in other categories: this event is sent.
    (&[LIMIT_OTHER, OK],          ["200 b", "200 a"]),
    (&[LIMIT_OTHER, LIMIT_OTHER], ["429 limited, limits 30:session:key, retry 30",
                                   "200 a, limits 30:session:key"]),
];

#[test]
fn only_rate_limits_of_every_outbound_reach_the_sdk_later() {
    let after_the_first = |number, does| if number == 0 { does } else { OK };
    let routes: Vec<Route> = ROWS_OF_TWO
        .iter()
        .map(|(does, _)| Route::start_with(does, after_the_first))
        .collect();
    let mirror = serve(&routes, Policy::FirstSuccess);
    let mut client = mirror.client();
    for (number, (does, expected)) in ROWS_OF_TWO.iter().enumerate() {
        let answers = [(); 2].map(|()| {
            let (response, elapsed) = ask(&mut client, number, "envelope");
            sdks_understand(&response, elapsed, &[], Policy::FirstSuccess);
            told(&response, elapsed)
        });
        assert_eq!(answers, *expected, "{does:?}");
    }
}

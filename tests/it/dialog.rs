//! The crash-report dialog: its script comes from the primary and its reports go to everyone.

use crate::support::upstream::Received;
use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, Process, Response, Upstream, config, envelope, envelope_request,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// The shape of the script that Sentry serves.
const SCRIPT: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\nContent-Length: 112\r\n\r\n(function(){var endpoint = /**/\"http://upstream/api/embed/error-page/?dsn=x\\u0026eventId=y\";/**/post(endpoint)})";

fn upstream() -> Upstream {
    assert_eq!(SCRIPT.split_once("\r\n\r\n").unwrap().1.len(), 112);
    Upstream::start(|_, request| {
        if request.line.starts_with("GET ") {
            Action::Raw(SCRIPT.as_bytes().to_vec())
        } else {
            Action::Answer(200, "{}")
        }
    })
}

fn target() -> String {
    format!(
        "/api/embed/error-page/?dsn=http://{IN_KEY}@mirror.example.com/42&eventId={ID}&name=Jane%20Doe"
    )
}

fn script(mirror: &Process, fields: &str) -> Response {
    mirror
        .client()
        .ask(format!("GET {} HTTP/1.1\r\n{fields}\r\n", target()).as_bytes())
}

#[test]
fn the_dialog_script_posts_to_the_mirror_and_the_report_goes_to_all() {
    let (a, b) = (upstream(), upstream());
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    let response = script(
        &mirror,
        "Host: mirror.example.com\r\nX-Forwarded-Proto: https,http\r\n",
    );
    assert_eq!(response.status, 200);
    assert_eq!(response.field("Content-Type"), Some("text/javascript"));
    let posted_to = format!("https://mirror.example.com{}", target()).replace('&', "\\u0026");
    assert_eq!(
        response.text(),
        format!("(function(){{var endpoint = /**/\"{posted_to}\";/**/post(endpoint)}})")
    );
    let request = format!(
        "GET http://m{} HTTP/1.1\r\nHost: mirror.example.com\r\n\r\n",
        target()
    );
    let in_absolute_form = mirror.client().ask(request.as_bytes());
    let posted_to = posted_to.replace("https://mirror", "http://mirror");
    assert!(
        in_absolute_form
            .text()
            .contains(&format!("\"{posted_to}\"")),
        "{}",
        in_absolute_form.text()
    );
    let line = |dsn: &str, method: &str| {
        format!("{method} /api/embed/error-page/?dsn={dsn}&eventId={ID}&name=Jane%20Doe HTTP/1.1")
    };
    assert_eq!(a.wait_for(1)[0].line, line(&a.dsn(KEY_A, 11), "GET"));

    let form = "name=Jane&email=jane%40example.com&comments=broken";
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        target(),
        form.len()
    );
    assert_eq!(mirror.client().ask(request.as_bytes()).status, 200);
    let got = a.wait_for(3).remove(2);
    assert_eq!(
        (&*got.line, got.text()),
        (&*line(&a.dsn(KEY_A, 11), "POST"), form)
    );
    let got = b.wait_for(1).remove(0);
    assert_eq!(
        (&*got.line, got.text()),
        (&*line(&b.dsn(KEY_B, 22), "POST"), form)
    );
}

/// A primary that answers each request with what `say` makes of its absolute URL.
fn saying(say: impl Fn(&str) -> String + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |_, request| {
        let target = request.line.split(' ').nth(1).expect("a target");
        let host = request.field("Host").expect("a host");
        Action::Raw(say(&format!("http://{host}{target}")).into_bytes())
    })
}

/// A response with this status, content type and body.
fn answer(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn sentrys_script(url: &str) -> String {
    let url = url.replace('&', "\\u0026");
    format!("(function(){{var endpoint = /**/\"{url}\";/**/ post(endpoint)}})")
}

/// The parts of the DSN that no client may see.
fn secrets_of(upstream: &Upstream) -> [String; 3] {
    [
        KEY_A.to_owned(),
        SECRET.to_owned(),
        upstream.address.to_string(),
    ]
}

const SECRET: &str = "ee0123456789abcdef0123456789abcd";

fn assert_tells_nothing(response: &Response, upstream: &Upstream, what: &str) {
    let text = String::from_utf8_lossy(&response.body);
    for secret in secrets_of(upstream) {
        assert!(!text.contains(&secret), "{what}: {secret} in {text}");
    }
}

#[test]
fn a_url_too_long_for_the_script_is_refused_without_a_delivery() {
    let a = saying(|url| answer("200 OK", "text/javascript", &sentrys_script(url)));
    let mirror = Process::start(&config(&[with_secret(&a)], ""));
    let mut client = mirror.client();
    for filling in ["A".repeat(8200), "'".repeat(1370)] {
        let request = format!("GET {}&x={filling} HTTP/1.1\r\nHost: m\r\n\r\n", target());
        let response = client.ask(request.as_bytes());
        assert_eq!(response.status, 414, "{}", response.text());
        assert!(response.text().contains("too long"), "{}", response.text());
    }
    assert_eq!(a.received().len(), 0);
    let response = script(&mirror, "Host: m\r\n");
    assert_eq!(response.status, 200);
    assert_tells_nothing(&response, &a, "a URL that fits");
}

/// The DSN of an outbound with a secret.
fn with_secret(upstream: &Upstream) -> String {
    upstream.dsn(&format!("{KEY_A}:{SECRET}"), 11)
}

#[test]
fn a_dialog_script_never_names_an_outbound() {
    type Say = fn(&str) -> String;
    let rows: [(&str, u16, Say); 13] = [
        ("two URLs", 200, |url| {
            let script = sentrys_script(url).repeat(2);
            answer("200 OK", "text/javascript; charset=utf-8", &script)
        }),
        ("another path", 502, |url| {
            let url = url.replace("error-page", "page");
            answer("200 OK", "text/javascript", &sentrys_script(&url))
        }),
        ("a comment", 502, |url| {
            let script = format!("{}// {url}", sentrys_script(url));
            answer("200 OK", "text/javascript", &script)
        }),
        ("a host alone", 502, |url| {
            let host = url.split('/').nth(2).unwrap();
            let script = format!("{} h='//{host}'", sentrys_script(url));
            answer("200 OK", "text/javascript", &script)
        }),
        ("escaped slashes and a code", 502, |url| {
            let key = KEY_A.replace('a', "\\u0061");
            answer(
                "200 OK",
                "text/javascript",
                &format!("{}'{key}'", sentrys_script(url)),
            )
        }),
        ("percent-encoded in JSON in HTML", 502, |url| {
            let key = KEY_A.replace('a', "%2561").replace('%', "&#37;");
            answer(
                "200 OK",
                "text/javascript",
                &format!("{}'{key}'", sentrys_script(url)),
            )
        }),
        ("a status of an error", 502, |url| {
            answer("404 Not Found", "text/javascript", &sentrys_script(url))
        }),
        ("another success", 502, |url| {
            answer("203 X", "application/json", &format!("{{\"u\":\"{url}\"}}"))
        }),
        ("an error in JSON", 502, |url| {
            answer(
                "400 Bad Request",
                "application/json",
                &format!("{{\"u\":\"{url}\"}}"),
            )
        }),
        ("a page", 502, |url| {
            answer("200 OK", "text/html", &sentrys_script(url))
        }),
        ("a coding", 502, |url| {
            let response = answer("200 OK", "text/javascript", &sentrys_script(url));
            response.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n")
        }),
        ("a field", 502, |url| {
            let response = answer("403 Forbidden", "application/json", "{}");
            response.replace("\r\n\r\n", &format!("\r\nX-Sentry-Error: {url}\r\n\r\n"))
        }),
        ("a refusal", 404, |_| {
            answer("404 Not Found", "application/json", r#"{"dsn":"Missing"}"#)
        }),
    ];
    for (what, status, say) in rows {
        let a = saying(say);
        let mirror = Process::start(&config(&[with_secret(&a)], ""));
        let response = script(&mirror, "Host: mirror.example.com\r\n");
        assert_eq!(response.status, status, "{what}: {}", response.text());
        assert_tells_nothing(&response, &a, what);
        let error = response.field("X-Sentry-Error");
        assert!(error.is_none_or(|error| !error.contains(KEY_A)), "{what}");
        let own = response
            .text()
            .matches("http://mirror.example.com/api/embed")
            .count();
        assert_eq!(own, if what == "two URLs" { 2 } else { 0 }, "{what}");
        // The secret is not even sent.
        assert!(!a.wait_for(1)[0].line.contains(SECRET));
    }
}

#[test]
fn the_reply_to_a_report_names_no_outbound() {
    let a = saying(|url| {
        answer(
            "400 Bad Request",
            "application/json",
            &format!("{{\"u\":\"{url}\"}}"),
        )
    });
    let mirror = Process::start(&config(&[with_secret(&a)], ""));
    let post = format!(
        "POST {} HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n",
        target()
    );
    let response = mirror.client().ask(post.as_bytes());
    assert_eq!(response.status, 502, "{}", response.text());
    assert_tells_nothing(&response, &a, "a report");
    let errors = r#"{"errors":{"email":["Enter a valid email address."]}}"#;
    let a = saying(move |_| answer("400 Bad Request", "application/json", errors));
    let mirror = Process::start(&config(&[with_secret(&a)], ""));
    let response = mirror.client().ask(post.as_bytes());
    assert_eq!((response.status, response.text()), (400, errors));
}

#[test]
fn dialog_requests_carry_no_data_of_the_page_and_no_inbound_key() {
    let (a, b) = (upstream(), upstream());
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    // `KEY:pw` with the inbound key.
    let basic = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6cHc=";
    let fields = format!(
        "Host: m\r\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}, sentry_secret={SECRET}\r\nX-Sentry-Auth: sentry_key={IN_KEY}\r\nAuthorization: Basic {basic}\r\nAuthorization: Bearer {SECRET}\r\nCookie: session={SECRET}\r\nRange: bytes=0-9\r\nIf-None-Match: \"a\"\r\nIf-Modified-Since: Fri, 27 Nov 2026 21:00:00 GMT\r\nif-range: \"a\"\r\nReferer: https://{IN_KEY}:{SECRET}@page.example/\r\nbaggage: sentry-public_key={IN_KEY},sentry-trace_id=1\r\nOrigin: https://page.example\r\n"
    );
    let query = format!(
        "&sentry_key={IN_KEY}&sentry_secret={SECRET}&sentr%79_secret={SECRET}&x={}&dsn=http://{IN_KEY}:{SECRET}@m/1",
        IN_KEY.replace('a', "%2561")
    );
    for method in ["GET", "POST"] {
        let request = format!(
            "{method} {}{query} HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n",
            target()
        );
        let response = mirror.client().ask(request.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let mut got = a.wait_for(2);
    got.extend(b.wait_for(1));
    for request in got {
        let head = format!("{} {:?}", request.line, request.fields);
        for secret in [
            IN_KEY, SECRET, basic, "%2561", "Cookie", "Range", "range", "If-",
        ] {
            assert!(!head.contains(secret), "{secret} in {head}");
        }
        // The fields that Sentry reads stay.
        assert_eq!(request.field("Origin"), Some("https://page.example"));
        assert_eq!(
            request
                .field("Referer")
                .map(|it| it.ends_with("@page.example/")),
            Some(true)
        );
        assert!(
            request
                .line
                .contains(&format!("eventId={ID}&name=Jane%20Doe"))
        );
    }
}

#[test]
fn the_configured_url_comes_first() {
    let a = upstream();
    let mirror = Process::start(&config(
        &[a.dsn(KEY_A, 11)],
        "external_url: https://errors.example.com/",
    ));
    let response = script(&mirror, "Host: internal\r\n");
    assert!(
        response
            .text()
            .contains("\"https://errors.example.com/api/embed/error-page/?dsn="),
        "{}",
        response.text()
    );
}

#[test]
fn the_dialog_passes_on_a_failing_primary_and_refuses_unknown_dsns() {
    let a = Upstream::start(|_, _| Action::Answer(404, "{}"));
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], ""));
    assert_eq!(script(&mirror, "").status, 404);
    let mut client = mirror.client();
    for (query, status) in [
        ("", 401),
        ("?eventId=1", 401),
        ("?dsn=nonsense", 401),
        ("?dsn=http://ffffffffffffffffffffffffffffffff@m/1", 403),
    ] {
        let request = format!("GET /api/embed/error-page/{query} HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(client.ask(request.as_bytes()).status, status, "{query}");
    }
    assert_eq!(a.received().len(), 1);
    let preflight =
        client.ask(format!("OPTIONS {} HTTP/1.1\r\nHost: m\r\n\r\n", target()).as_bytes());
    assert_eq!(
        preflight.field("Access-Control-Allow-Methods"),
        Some("GET,POST")
    );
    let allowed = preflight.field("Access-Control-Allow-Headers").unwrap();
    assert!(allowed.contains("baggage") && allowed.contains("sentry-trace"));
}

#[test]
fn rate_limits_of_ingest_and_of_the_dialog_are_separate() {
    let limited = |_, request: &Received| {
        match &*request.line {
        line if line.starts_with("GET ") => Action::Raw(SCRIPT.as_bytes().to_vec()),
        line if line.contains("/error-page/") => Action::Answer(429, "{}"),
        _ => Action::Raw(
            b"HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: 60:session:key\r\nContent-Length: 2\r\n\r\n{}"
                .to_vec(),
        ),
    }
    };
    let a = Upstream::start(limited);
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], ""));
    let mut client = mirror.client();
    let form = format!(
        "POST {} HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n",
        target()
    );
    let limits = |response: &Response| response.field("X-Sentry-Rate-Limits").map(str::to_owned);
    assert_eq!(client.ask(form.as_bytes()).status, 429);
    let response = client.ask(&envelope_request(envelope(ID).as_bytes()));
    let expected = Some("60:session:key".to_owned());
    assert_eq!((response.status, limits(&response)), (200, expected));
    assert_eq!(script(&mirror, "Host: m\r\n").status, 200);
    assert_eq!(a.received().len(), 3);
}

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
fn the_script_posts_back_to_the_mirror_and_the_report_goes_to_all() {
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
fn a_failing_primary_is_passed_on_and_unknown_or_missing_dsns_are_refused() {
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
fn limits_on_ingest_do_not_hold_for_the_dialog_nor_its_own_for_ingest() {
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

//! The log of upstreams and outbounds: when an outage or a rate limit starts, when it ends, and the losses.

use std::path::Path;

use crate::support::{
    Action, Config, IN_KEY, KEY_A, KEY_B, Process, Upstream, config, envelope, envelope_request,
};

fn request() -> Vec<u8> {
    envelope_request(envelope("00").as_bytes())
}

#[test]
fn the_end_of_an_outage_is_logged_with_the_losses_of_each_route() {
    const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";
    // Each delivery has its own connection, so that none is retried.
    let upstream = Upstream::start(|number, _| match number {
        0..3 => Action::Close,
        _ => Action::ok(),
    });
    let mirror = Config::new([upstream.dsn(KEY_A, 11)])
        .route(OTHER_KEY, 43, [upstream.dsn(KEY_B, 22)])
        .set("workers", 1)
        .start();
    let other = String::from_utf8(request())
        .unwrap()
        .replace(IN_KEY, OTHER_KEY);
    for (request, status) in [
        (request(), 503),
        (request(), 503),
        (other.clone().into_bytes(), 503),
        (other.into_bytes(), 200),
    ] {
        assert_eq!(mirror.client().ask(&request).status, status);
    }
    // It is logged without another request.
    let line = mirror.wait_for_line("upstream is answering again");
    let routes =
        "routes=\"http://0123…@mirror.example.com/42: 2, http://fedc…@mirror.example.com/43: 1\"";
    assert!(
        line.contains("lost_deliveries=3") && line.contains(routes),
        "{line}"
    );
    let (_, seconds) = line.split_once("seconds=").expect("how long it was");
    let seconds: f64 = seconds.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds >= 0.0, "{line}");
}

#[test]
fn an_outbound_that_accepts_again_is_logged_at_once_with_its_losses() {
    let upstream = Upstream::start(|number, _| match number {
        0..3 => Action::Answer(403, "{}"),
        _ => Action::ok(),
    });
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], "workers: 1"));
    let mut client = mirror.client();
    for status in [403, 403, 403, 200] {
        assert_eq!(client.ask(&request()).status, status);
    }
    let line = mirror.wait_for_line("outbound accepts requests again");
    for part in [
        "route=\"http://0123…",
        "aaaa…",
        "lost_deliveries=3",
        "seconds=",
    ] {
        assert!(line.contains(part), "no {part}: {line}");
    }
}

#[test]
fn the_start_and_the_end_of_a_rate_limit_are_logged() {
    let limits = "HTTP/1.1 429 X\r\nX-Sentry-Rate-Limits: 1:error;transaction:key\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::start(move |_, _| Action::Raw(limits.as_bytes().to_vec()));
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], "workers: 2"));
    assert_eq!(mirror.client().ask(&request()).status, 429);
    let line = mirror.wait_for_line("outbound has rate limits");
    assert!(line.contains("error, transaction for 1 s"), "{line}");
    // It is logged without another request.
    let line = mirror.wait_for_line("outbound has no rate limits any more");
    for part in [
        "route=\"http://0123…",
        "aaaa…",
        "seconds=",
        "withheld_deliveries=1",
    ] {
        assert!(line.contains(part), "no {part}: {line}");
    }
}

#[test]
fn the_start_line_names_version_workers_driver_and_configuration() {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(
        &[upstream.dsn(KEY_A, 11)],
        "workers: 2\ndriver: epoll",
    ));
    let line = mirror.wait_for_line("sentry-mirror has started");
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    for part in [&version, "routes=1", "workers=2", "driver=\"epoll"] {
        assert!(line.contains(part), "no {part}: {line}");
    }
    let (_, path) = line.split_once("configuration=").expect("the file");
    let path = path.split(' ').next().unwrap();
    assert!(Path::new(path).is_file(), "{line}");
}

#[test]
fn nginx_that_wants_a_certificate_rejects_everything_and_any_other_400_one_request() {
    for (title, is_rejecting) in [
        ("400 No required SSL certificate was sent", true),
        ("400 The SSL certificate error", true),
        ("400 Bad Request", false),
    ] {
        let text = format!("<html>\r\n<head><title>{title}</title></head>\r\n");
        let upstream = Upstream::start(move |_, _| {
            let length = text.len();
            Action::Raw(
                format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n{text}")
                    .into_bytes(),
            )
        });
        let mirror = Config::new([upstream.dsn(KEY_A, 11)])
            .with_metrics()
            .start();
        assert_eq!(mirror.client().ask(&request()).status, 400);
        mirror.wait_for_metrics(|metrics| {
            metrics.sum("sentry_mirror_deliveries_total", &["outcome=\"4xx\""]) == 1.0
        });
        let line = "outbound is rejecting requests";
        if is_rejecting {
            let line = mirror.wait_for_line(line);
            assert!(line.contains(title), "{line}");
        }
        let log = mirror.log().join("\n");
        assert_eq!(log.contains(line), is_rejecting, "{log}");
        let status: serde_json::Value =
            serde_json::from_str(mirror.page("/status").text()).unwrap();
        let incidents = &status["routes"][0]["outbounds"][0]["incidents"];
        assert_eq!(
            incidents.as_array().unwrap().len(),
            usize::from(is_rejecting)
        );
    }
}

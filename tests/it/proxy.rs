//! Upstreams that are reached through a proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::http2;
use crate::support::process::{file, run};
use crate::support::proxy::{Behaviour, Proxy};
use crate::support::tls::Authority;
use crate::support::{KEY_A, Process, Upstream, config, envelope, envelope_request, wait_until};
use crate::tls::Server;

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// A name that only a proxy can resolve.
const HOST: &str = "sentry.invalid";

fn event() -> Vec<u8> {
    envelope_request(envelope(ID).as_bytes())
}

fn outbound(scheme: &str, proxy: &str) -> String {
    format!("{{dsn: '{scheme}://{KEY_A}@{HOST}:9000/p/11', proxy: '{proxy}'}}")
}

/// The deliveries of a mirror that ended so.
fn count(mirror: &Process, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    mirror
        .metrics()
        .sum("sentry_mirror_deliveries_total", &[&label])
}

#[test]
fn https_goes_through_a_tunnel_and_its_connection_is_kept() {
    let authority = Authority::new();
    let server = Server::with(authority.server_config(HOST));
    // user:p@ss
    let proxy = Proxy::start(server.address, Behaviour::Require("Basic dXNlcjpwQHNz"));
    let url = format!("http://user:p%40ss@{}", proxy.address);
    let extra = format!("workers: 1\nreply_timeout: 15s\n{}", authority.ca_file());
    let mirror = Process::start(&config(&[outbound("https", &url)], &extra));
    let mut client = mirror.client();
    for _ in 0..3 {
        assert_eq!(client.ask(&event()).status, 200);
    }
    let expected = format!(
        "CONNECT {HOST}:9000 HTTP/1.1\r\nHost: {HOST}:9000\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"
    );
    assert_eq!(proxy.heads(), [expected]);
}

#[test]
fn http_goes_as_a_whole_url_with_the_credentials() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(upstream.address, Behaviour::Require("Basic dTpw"));
    let url = format!("http://u:p@{}", proxy.address);
    let mirror = Process::start(&config(
        &[outbound("http", &url)],
        "workers: 1\nreply_timeout: 15s",
    ));
    let mut client = mirror.client();
    for _ in 0..2 {
        assert_eq!(client.ask(&event()).status, 200);
    }
    let tunnel = event();
    let tunnel = String::from_utf8(tunnel)
        .unwrap()
        .replace("/api/42/envelope/", "/t");
    let tunnel = tunnel.replace("X-Sentry-Auth: Sentry sentry_key=", "X-Other: ");
    assert_eq!(client.ask(tunnel.as_bytes()).status, 200);
    for request in upstream.wait_for(3) {
        let line = format!("POST http://{HOST}:9000/p/api/11/envelope/ HTTP/1.1");
        assert_eq!(request.line.trim_end(), line);
        assert_eq!(request.field("Host"), Some(&*format!("{HOST}:9000")));
        assert_eq!(request.field("Proxy-Authorization"), Some("Basic dTpw"));
    }
    assert_eq!(proxy.heads().len(), 1);
}

#[test]
fn what_a_proxy_does_wrong_is_told_as_its_own_and_counted() {
    let authority = Authority::new();
    let server = Server::with(authority.server_config(HOST));
    // Nothing listens on port 1.
    let refusing = SocketAddr::from(([127, 0, 0, 1], 1));
    for (scheme, behaviour, words) in [
        (
            "https",
            Some(Behaviour::Require("Basic other")),
            "answered 407: it wants other credentials",
        ),
        (
            "http",
            Some(Behaviour::Require("Basic other")),
            "answered 407: it wants other credentials",
        ),
        (
            "https",
            Some(Behaviour::Answer("HTTP/1.1 403 Forbidden\r\n\r\nno")),
            "answered 403: it does not connect",
        ),
        (
            "https",
            Some(Behaviour::Answer("HTTP/1.1 503 X\r\n\r\n")),
            "answered 503: it does not connect",
        ),
        (
            "https",
            Some(Behaviour::Answer("220 smtp\r\n")),
            "answered CONNECT with something else than HTTP",
        ),
        (
            "https",
            Some(Behaviour::Answer("")),
            "closed the connection before it answered",
        ),
        (
            "https",
            Some(Behaviour::Endless),
            "answered CONNECT with a head of more than 16 KiB",
        ),
        ("https", None, "cannot be reached: Connection refused"),
        ("http", None, "cannot be reached: Connection refused"),
    ] {
        let proxy = behaviour.map(|behaviour| Proxy::start(server.address, behaviour));
        let address = proxy.as_ref().map_or(refusing, |proxy| proxy.address);
        let url = format!("http://u:s3cr3t@{address}");
        let extra = format!(
            "workers: 1\nreply_timeout: 15s\nadmin: {{port: 0}}\n{}",
            authority.ca_file()
        );
        let mirror = Process::start(&config(&[outbound(scheme, &url)], &extra));
        assert_eq!(mirror.client().ask(&event()).status, 503, "{words}");
        let line = mirror.wait_for_line("upstream does not answer");
        let told = format!("the proxy {address} {words}");
        assert!(line.contains(&told), "{told}: {line}");
        wait_until(|| count(&mirror, "proxy") == 1.0, || words.to_owned());
        for text in [
            mirror.log().join("\n"),
            mirror.page("/status").text().to_owned(),
            mirror.page("/config").text().to_owned(),
        ] {
            assert!(!text.contains("s3cr3t"), "{text}");
        }
    }
}

#[test]
fn a_proxy_that_hangs_is_a_time_out_and_the_breaker_probes_through_it() {
    let authority = Authority::new();
    let server = Server::with(authority.server_config(HOST));
    let hanging = Proxy::start(server.address, Behaviour::Hang);
    let extra = format!(
        "workers: 1\nreply_timeout: 15s\nadmin: {{port: 0}}\ntimeouts: {{connect: 200ms}}\nbreaker: {{failures: 1, pause: 50ms}}\n{}",
        authority.ca_file()
    );
    let url = format!("http://{}", hanging.address);
    let mirror = Process::start(&config(&[outbound("https", &url)], &extra));
    assert_eq!(mirror.client().ask(&event()).status, 503);
    wait_until(
        || count(&mirror, "connect_timeout") == 1.0,
        || "no time-out".to_owned(),
    );
    // The delivery and at least one probe asked for a tunnel.
    wait_until(
        || hanging.heads().len() > 1,
        || format!("{:?}", hanging.heads()),
    );
}

#[test]
fn the_environment_names_proxies_and_none_ignores_it() {
    let upstream = Upstream::ok();
    let proxy = Proxy::start(upstream.address, Behaviour::Serve);
    let plain = format!("http://{KEY_A}@{HOST}:9000/11");
    let local = format!("http://{KEY_A}@{}/11", upstream.address);
    for (outbound, no_proxy, expected) in [
        (&*plain, "other.invalid", 1),
        // Loopback addresses are never proxied because of a variable.
        (&*local, "", 1),
        (&*format!("{{dsn: '{local}', proxy: none}}"), "", 1),
    ] {
        let mirror = Process::start_with(
            &config(&[outbound.to_owned()], "reply_timeout: 15s"),
            |command| {
                let url = format!("http://{}", proxy.address);
                command.env("http_proxy", url).env("no_proxy", no_proxy);
            },
        );
        assert_eq!(mirror.client().ask(&event()).status, 200, "{outbound}");
        assert_eq!(proxy.heads().len(), expected, "{outbound}");
    }
    let path = file(
        "config.yml",
        &config(&[outbound("https", "http://u:s3cr3t@p:3128")], ""),
    );
    let ended = run(&["--check", "-c", path.to_str().unwrap()]);
    assert!(ended.stdout.contains(" via http://…@p:3128"), "{ended:?}");
    assert!(!ended.stdout.contains("s3cr3t"), "{ended:?}");
}

#[test]
fn http_2_goes_through_a_tunnel() {
    let authority = Authority::new();
    let mut settings = authority.server_config(HOST);
    settings.alpn_protocols = vec![b"h2".to_vec()];
    let server = http2::Server::start(http2::Options {
        tls: Some(Arc::new(settings)),
        ..http2::Options::default()
    });
    let proxy = Proxy::start(server.address, Behaviour::Serve);
    let outbound = format!(
        "{{dsn: 'https://{KEY_A}@{HOST}:9000/11', http2: required, proxy: 'http://{}'}}",
        proxy.address
    );
    let extra = format!("workers: 1\nreply_timeout: 15s\n{}", authority.ca_file());
    let mirror = Process::start(&config(&[outbound], &extra));
    for _ in 0..3 {
        assert_eq!(mirror.client().ask(&event()).status, 200);
    }
    wait_until(|| server.count() == 3, || server.count().to_string());
    assert!(server.seen().iter().all(|seen| seen.is_http2));
    assert_eq!(proxy.heads().len(), 1);
}

#[test]
fn check_connect_goes_through_the_proxy_and_tells_what_that_does_wrong() {
    let authority = Authority::new();
    let (secure, plain) = (Server::with(authority.server_config(HOST)), Upstream::ok());
    let right = Behaviour::Require("Basic dTpw");
    let wrong = Behaviour::Require("Basic other");
    for (scheme, address, behaviour, expected) in [
        ("https", secure.address, right, None),
        ("http", plain.address, right, None),
        (
            "https",
            secure.address,
            wrong,
            Some("answers \"407\" to CONNECT"),
        ),
        (
            "http",
            plain.address,
            wrong,
            Some("it answers 407, so it wants other"),
        ),
    ] {
        let proxy = Proxy::start(address, behaviour);
        let outbound = outbound(scheme, &format!("http://u:p@{}", proxy.address));
        let text = config(&[outbound], &authority.ca_file());
        let path = file("config.yml", &text);
        let ended = run(&["--check", "--connect", "-c", path.to_str().unwrap()]);
        let code = if expected.is_some() { 1 } else { 0 };
        assert_eq!(ended.code, Some(code), "{scheme}: {ended:?}");
        if let Some(words) = expected {
            let told = format!("through the proxy {}: ", proxy.address);
            assert!(ended.stdout.contains(&told), "{ended:?}");
            assert!(ended.stdout.contains(words), "{ended:?}");
        }
        assert!(!proxy.heads().is_empty());
    }
}

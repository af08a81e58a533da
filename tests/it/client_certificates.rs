//! Upstreams that require a certificate of the mirror, and TLS settings of single outbounds.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustls::version::{TLS12, TLS13};

use crate::support::process::{file, run};
use crate::support::tls::Authority;
use crate::support::{
    KEY_A, KEY_B, Process, Reloadable, config, envelope, envelope_request, wait_until,
};
use crate::tls::Server;

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

fn event() -> Vec<u8> {
    envelope_request(envelope(ID).as_bytes())
}

/// The `tls` of an outbound with this certificate.
fn with_certificate((cert_file, key_file): &(impl AsRef<Path>, impl AsRef<Path>)) -> String {
    format!(
        "{{cert_file: {}, key_file: {}}}",
        cert_file.as_ref().display(),
        key_file.as_ref().display()
    )
}

fn outbound(server: &Server, key: &str, tls: &str) -> String {
    let port = server.address.port();
    format!("{{dsn: 'https://{key}@localhost:{port}/11', tls: {tls}}}")
}

#[test]
fn a_server_that_requires_a_certificate_gets_it_and_a_refusal_counts_as_tls() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let known = with_certificate(&clients.client_files());
    let unknown = with_certificate(&Authority::new().client_files());
    for version in [&TLS12, &TLS13] {
        let server = Server::with(authority.server_config_for("localhost", &clients, &[version]));
        for (tls, status, words) in [
            (&*known, 200, ""),
            (
                "{}",
                503,
                "requires a client certificate, and the mirror has none; see tls.cert_file",
            ),
            (
                &*unknown,
                503,
                "refuses the client certificate of the mirror, tls.cert_file (",
            ),
        ] {
            let extra = format!("workers: 1\nadmin: {{port: 0}}\n{}", authority.ca_file());
            let mirror = Process::start(&config(&[outbound(&server, KEY_A, tls)], &extra));
            assert_eq!(mirror.client().ask(&event()).status, status, "{tls}");
            if status == 200 {
                continue;
            }
            let line = mirror.wait_for_line("upstream does not answer");
            assert!(line.contains(words), "{words}: {line}");
            let count = |result: &str| {
                let labels = [format!("outcome=\"{result}\"")];
                mirror
                    .metrics()
                    .sum("sentry_mirror_deliveries_total", &[&*labels[0]])
            };
            wait_until(
                || count("tls") == 1.0,
                || format!("{version:?} {tls}: {line}"),
            );
        }
    }
}

#[test]
fn outbounds_with_other_settings_share_neither_connections_nor_a_breaker() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = Server::with(authority.server_config_for("localhost", &clients, &[&TLS13]));
    let known = with_certificate(&clients.client_files());
    let outbounds = [
        outbound(&server, KEY_A, "{}"),
        outbound(&server, KEY_B, &known),
    ];
    let extra = format!(
        "workers: 1\nadmin: {{port: 0}}\nbreaker: {{failures: 1}}\n{}",
        authority.ca_file()
    );
    let mirror = Process::start(&config(&outbounds, &extra));
    let mut client = mirror.client();
    for _ in 0..3 {
        assert_eq!(client.ask(&event()).status, 200);
    }
    let port = server.address.port();
    let open = |name: &str| {
        let labels = [format!("origin=\"{name}\"")];
        mirror
            .metrics()
            .sum("sentry_mirror_breakers_open", &[&*labels[0]])
    };
    assert_eq!(open(&format!("https://localhost:{port}")), 1.0);
    assert_eq!(open(&format!("https://localhost:{port}#2")), 0.0);
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
}

#[test]
fn a_renewed_certificate_is_used_after_a_reload() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = Server::with(authority.server_config_for("localhost", &clients, &[&TLS13]));
    let (cert_file, key_file) = Authority::new().client_files();
    let tls = with_certificate(&(&cert_file, &key_file));
    let extra = format!("workers: 1\n{}", authority.ca_file());
    let text = config(&[outbound(&server, KEY_A, &tls)], &extra);
    let mut mirror = Reloadable::start(&text);
    assert_eq!(mirror.process.client().ask(&event()).status, 503);
    // A bad pair changes nothing.
    let (new_cert, new_key) = clients.client_files();
    fs::copy(&new_cert, &cert_file).unwrap();
    mirror.process.signal("HUP");
    let line = mirror.process.wait_for_line("the old one stays in force");
    assert!(line.contains("is not the key of the certificate"), "{line}");
    fs::copy(&new_key, &key_file).unwrap();
    mirror.reload(&text);
    mirror.process.wait_for_line("certificates of tls");
    assert_eq!(mirror.process.client().ask(&event()).status, 200);
    // Nothing has changed, so the connection stays.
    mirror.reload(&text);
    assert_eq!(mirror.process.client().ask(&event()).status, 200);
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
}

#[test]
fn the_name_of_the_server_and_the_oldest_version_are_those_of_the_outbound() {
    let authority = Authority::new();
    for (tls, version, status, words) in [
        ("{server_name: sentry.internal}", &TLS12, 200, ""),
        (
            "{}",
            &TLS13,
            503,
            "has a certificate for sentry.internal, not for localhost",
        ),
        (
            "{server_name: sentry.internal, min_version: 1.3}",
            &TLS13,
            200,
            "",
        ),
        (
            "{server_name: sentry.internal, min_version: 1.3}",
            &TLS12,
            503,
            "speaks neither",
        ),
    ] {
        let clients = Authority::new();
        let known = with_certificate(&clients.client_files());
        let top = authority.ca_file().replace(
            "tls: {",
            &format!("tls: {{{}, ", &known[1..known.len() - 1]),
        );
        let server =
            Server::with(authority.server_config_for("sentry.internal", &clients, &[version]));
        let mirror = Process::start(&config(&[outbound(&server, KEY_A, tls)], &top));
        assert_eq!(
            mirror.client().ask(&event()).status,
            status,
            "{tls} {words}"
        );
        if status != 200 {
            let line = mirror.wait_for_line("upstream does not answer");
            assert!(line.contains(words), "{words}: {line}");
        }
    }
}

#[test]
fn check_reads_the_files_and_never_shows_a_key() {
    let (cert_file, key_file) = Authority::new().client_files();
    let (_, other_key) = Authority::new().client_files();
    let key = fs::read_to_string(&key_file).unwrap();
    let base64 = key.lines().nth(1).unwrap();
    let broken = file("broken.key", &key.replace("-----END", "END"));
    let locked = file("locked.key", &key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    let nothing = file("nothing.pem", base64);
    for (cert, key, code, words) in [
        (&cert_file, &key_file, 0, "tls.cert_file"),
        (
            &cert_file,
            &other_key,
            2,
            "is not the key of the certificate in tls.cert_file",
        ),
        (&cert_file, &broken, 2, "holds no private key"),
        (&cert_file, &locked, 2, "holds a key with a passphrase"),
        (&nothing, &key_file, 2, "holds no certificate"),
        (&key_file, &key_file, 2, "holds no certificate"),
        (
            &cert_file,
            &"/does/not/exist".into(),
            2,
            "tls.key_file /does/not/exist: No such file",
        ),
    ] {
        let tls = with_certificate(&(cert, key));
        let outbound = format!("{{dsn: 'https://{KEY_A}@localhost/1', tls: {tls}}}");
        let path = file("config.yml", &config(&[outbound], ""));
        let ended = run(&["--check", "-c", path.to_str().unwrap()]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let told = ended.stdout + &ended.stderr;
        assert!(told.contains(words), "{words}: {told}");
        assert!(!told.contains(base64), "{told}");
    }
}

//! Encodings of delivered bodies: compressed once for all outbounds, as received, or unmodified.

use super::{
    ID, KEY_A, KEY_B, Pair, Process, Upstream, config, envelope, gunzip, gzip, mapping, rewritten,
};
use crate::support::IN_KEY;

fn coded_request(path: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path}?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An envelope with an attachment of noise, so that it stays large when compressed.
fn large(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let noise = (0..bytes).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let head = format!(
        "{}{{\"type\":\"attachment\",\"length\":{bytes}}}\n",
        envelope(ID)
    );
    head.into_bytes().into_iter().chain(noise).collect()
}

fn after_first_line(body: &[u8]) -> &[u8] {
    let line = body.iter().position(|byte| *byte == b'\n').unwrap();
    &body[line..]
}

#[test]
fn a_body_is_compressed_once_for_all_outbounds() {
    let upstreams: Vec<Upstream> = (0..4).map(|_| Upstream::ok()).collect();
    let options = [
        "compression: gzip",
        "compression: gzip",
        "compression: zstd",
        "compression: none",
    ];
    let outbounds: Vec<String> = upstreams
        .iter()
        .zip(options)
        .map(|(upstream, options)| mapping(upstream, KEY_B, options))
        .collect();
    let mirror = Process::start(&config(&outbounds, ""));
    let mut client = mirror.client();
    let bodies = [
        envelope(ID).into_bytes(),
        large(3_000),
        large(100_000),
        large(150_000),
        b"{}".to_vec(),
    ];
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(
            client
                .ask(&coded_request("/api/42/envelope/", "gzip", &gzip(body)))
                .status,
            200
        );
        for (upstream, options) in upstreams.iter().zip(options) {
            let got = upstream.wait_for(number + 1).remove(number);
            let text = match got.field("Content-Encoding") {
                Some("gzip") => gunzip(&got.body),
                Some("zstd") => zstd::decode_all(&got.body[..]).unwrap(),
                Some(other) => panic!("{other}"),
                None => got.body.clone(),
            };
            let coding = got.field("Content-Encoding").unwrap_or("none");
            assert_eq!(options, format!("compression: {coding}"));
            if body.len() > 2 {
                assert!(
                    after_first_line(&text) == after_first_line(body),
                    "{options} {number}"
                );
                let line = String::from_utf8_lossy(&text)
                    .lines()
                    .next()
                    .unwrap()
                    .to_owned();
                assert!(line.contains(&upstream.dsn(KEY_B, 22)) && !line.contains(IN_KEY));
            } else {
                assert_eq!(&text, body);
            }
        }
    }
}

#[test]
fn bodies_other_than_envelopes_are_compressed() {
    let pair = Pair::start("compression: gzip");
    let mut client = pair.mirror.client();
    let body =
        b"{\"dsn\":\"http://0123456789abcdef0123456789abcdef@mirror.example.com/42\"}".repeat(100);
    let zstd = zstd::encode_all(&body[..], 3).unwrap();
    assert_eq!(
        client
            .ask(&coded_request("/api/42/store/", "zstd", &zstd))
            .status,
        200
    );
    let got = pair.some.wait_for(1).remove(0);
    assert_eq!(got.field("Content-Encoding"), Some("gzip"));
    assert_eq!(gunzip(&got.body), body);
    // An empty body stays empty.
    let get = format!("GET /api/42/cron/x/{IN_KEY}/?status=ok HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(client.ask(get.as_bytes()).status, 200);
    let got = pair.some.wait_for(2).remove(1);
    assert_eq!(got.field("Content-Encoding"), None);
    assert_eq!(got.field("Content-Length"), None);
}

#[test]
fn preserve_forwards_the_original_bytes_if_nothing_changes() {
    let plain = b"{}\n{\"type\":\"session\"}\n{}\n";
    let mut brotli = Vec::new();
    brotli::BrotliCompress(&mut &plain[..], &mut brotli, &Default::default()).unwrap();
    // Beside an outbound that needs the decoded body, and alone.
    for all in ["compression: none", "compression: preserve"] {
        let (one, other) = (Upstream::ok(), Upstream::ok());
        let outbounds = [
            mapping(&one, KEY_A, all),
            mapping(&other, KEY_B, "compression: preserve"),
        ];
        let mirror = Process::start(&config(&outbounds, ""));
        let mut client = mirror.client();
        let mut count = 0;
        let mut check = |path: &str, coding: &str, body: &[u8], expected: Option<&str>| {
            assert_eq!(
                client.ask(&coded_request(path, coding, body)).status,
                200,
                "{coding}"
            );
            count += 1;
            one.wait_for(count);
            let got = other.wait_for(count).remove(count - 1);
            assert_eq!(got.field("Content-Encoding"), expected, "{path} {coding}");
            got.body
        };
        for (coding, body) in [
            ("gzip", gzip(plain)),
            ("br", brotli.clone()),
            ("zstd", zstd::encode_all(&plain[..], 3).unwrap()),
        ] {
            for path in ["/api/42/envelope/", "/api/42/store/"] {
                assert_eq!(check(path, coding, &body, Some(coding)), body);
            }
        }
        assert_eq!(check("/api/42/envelope/", "", plain, None), plain);

        // If the header names the DSN, the body is encoded again.
        let named = envelope(ID);
        let expected = rewritten(&named, &other);
        let got = check(
            "/api/42/envelope/",
            "gzip",
            &gzip(named.as_bytes()),
            Some("gzip"),
        );
        assert_eq!(gunzip(&got), expected.as_bytes());
        let body = zstd::encode_all(named.as_bytes(), 3).unwrap();
        let got = check("/api/42/envelope/", "zstd", &body, Some("zstd"));
        assert_eq!(zstd::decode_all(&got[..]).unwrap(), expected.as_bytes());
        let got = check("/api/42/envelope/", "", named.as_bytes(), None);
        assert_eq!(got, expected.as_bytes());
    }
}

/// The mirror does not read beyond the first slice: the rest is missing.
#[test]
fn an_envelope_without_edits_is_decoded_only_as_far_as_needed() {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(
        &[mapping(&upstream, KEY_A, "compression: preserve")],
        "",
    ));
    let mut client = mirror.client();
    let begun = |text: &[u8]| {
        let mut body = gzip(text);
        body.truncate(20 * 1024);
        coded_request("/api/42/envelope/", "gzip", &body)
    };
    let request = begun(&[b"{}\n{\"type\":\"session\"}\n", &large(200_000)[..]].concat());
    assert_eq!(client.ask(&request).status, 200);
    assert!(request.ends_with(&upstream.wait_for(1).remove(0).body));
    // With an edit it has to be decoded.
    assert_eq!(client.ask(&begun(&large(200_000))).status, 400);
    // A body that does not begin like an envelope is rejected.
    assert_eq!(
        client
            .ask(&coded_request("/api/42/envelope/", "gzip", &gzip(b"[]")))
            .status,
        400
    );
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn an_outbound_does_not_wait_for_the_transform_of_another() {
    let (plain, compressed) = (Upstream::ok(), Upstream::ok());
    let outbounds = [
        plain.dsn(KEY_A, 11),
        mapping(&compressed, KEY_B, "compression: gzip"),
    ];
    let mirror = Process::start(&config(&outbounds, "workers: 1"));
    let body = large(500_000);
    let mut client = mirror.client();
    let response = client.ask(&coded_request("/api/42/envelope/", "identity", &body));
    assert_eq!(response.status, 200);
    assert!(response.text().contains("from-upstream"));
    assert!(compressed.received().is_empty(), "it came before the reply");
    let got = compressed.wait_for(1).remove(0);
    assert_eq!(
        gunzip(&got.body).len(),
        plain.wait_for(1).remove(0).body.len()
    );
}

/// It is decoded in steps that do not divide the limit.
#[test]
fn an_encoded_envelope_header_is_decoded_up_to_its_limit() {
    let sdk = "integration,".repeat(30_000);
    let plain = format!("{{\"sdk\":\"{sdk}\"}}\n{{\"type\":\"session\"}}\n{{}}");
    let request = coded_request("/api/42/envelope/", "gzip", &gzip(plain.as_bytes()));
    for (bound, status) in [("400KiB", 200), ("351KiB", 400), ("300KiB", 400)] {
        let upstream = Upstream::ok();
        let mirror = Process::start(&config(
            &[mapping(&upstream, KEY_A, "compression: preserve")],
            &format!("limits: {{envelope_header_bytes: {bound}}}"),
        ));
        let response = mirror.client().ask(&request);
        assert_eq!(response.status, status, "{bound}: {}", response.text());
        if status == 400 {
            assert!(response.text().contains("too long"), "{}", response.text());
        }
    }
}

#[test]
fn an_envelope_header_longer_than_a_slice_is_read_to_its_end() {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(
        &[mapping(&upstream, KEY_A, "compression: preserve")],
        "limits: {envelope_header_bytes: 1MiB}",
    ));
    let mut client = mirror.client();
    let sdk = "integration,".repeat(30_000);
    let plain = format!("{{\"sdk\":\"{sdk}\"}}\n{{\"type\":\"session\"}}\n{{}}");
    let body = gzip(plain.as_bytes());
    assert_eq!(
        client
            .ask(&coded_request("/api/42/envelope/", "gzip", &body))
            .status,
        200
    );
    assert_eq!(upstream.wait_for(1).remove(0).body, body);
    let named =
        format!("{{\"sdk\":\"{sdk}\",\"dsn\":\"http://{IN_KEY}@mirror.example.com/42\"}}\n");
    let body = gzip(named.as_bytes());
    assert_eq!(
        client
            .ask(&coded_request("/api/42/envelope/", "gzip", &body))
            .status,
        200
    );
    let got = upstream.wait_for(2).remove(1);
    assert!(gunzip(&got.body).ends_with(format!("\"{}\"}}\n", upstream.dsn(KEY_A, 22)).as_bytes()));
}

#[test]
fn without_modification_only_the_head_is_rewritten() {
    let (all, some) = (Upstream::ok(), Upstream::ok());
    let outbounds = [
        all.dsn(KEY_A, 11),
        mapping(&some, KEY_B, "categories: [error]"),
    ];
    for outbounds in [&outbounds[..1], &outbounds] {
        let before = all.received().len();
        let mirror = Process::start(&config(outbounds, "modify_envelope: false"));
        let mut client = mirror.client();
        let named = envelope(ID);
        let body = gzip(named.as_bytes());
        assert_eq!(
            client
                .ask(&coded_request("/api/42/envelope/", "gzip", &body))
                .status,
            200
        );
        let got = all.wait_for(before + 1).remove(before);
        assert_eq!(
            got.line,
            format!("POST /api/11/envelope/?sentry_key={KEY_A} HTTP/1.1")
        );
        assert_eq!(got.field("Content-Encoding"), Some("gzip"));
        assert_eq!(got.body, body);
        assert_eq!(
            client
                .ask(&coded_request("/api/42/envelope/", "", named.as_bytes()))
                .status,
            200
        );
        let got = all.wait_for(before + 2).remove(before + 1);
        assert_eq!(got.text(), named);
    }
    // In the order of arrival, which may differ from that of the requests.
    for received in some.wait_for(2) {
        let body = match received.field("Content-Encoding") {
            Some("gzip") => gunzip(&received.body),
            _ => received.body,
        };
        assert_eq!(body, envelope(ID).into_bytes());
    }
}

/// In any encoding, and for every outbound.
#[test]
fn an_unmodified_body_may_be_anything() {
    let (all, some) = (Upstream::ok(), Upstream::ok());
    let outbounds = [
        all.dsn(KEY_A, 11),
        mapping(&some, KEY_B, "categories: [error], compression: none"),
    ];
    let broken = b"{\"dsn\":\n{\"type\":\"event\"}\n{}\n";
    let coded = [("", broken.to_vec()), ("gzip", gzip(broken))];
    for outbounds in [&outbounds[..1], &outbounds] {
        let mirror = Process::start(&config(outbounds, "modify_envelope: false"));
        let mut client = mirror.client();
        for (coding, body) in &coded {
            let before = all.received().len();
            let request = coded_request("/api/42/envelope/", coding, body);
            assert_eq!(client.ask(&request).status, 200, "{coding}");
            let got = all.wait_for(before + 1).remove(before);
            assert_eq!(got.field("Content-Encoding").unwrap_or(""), *coding);
            assert_eq!(&got.body, body);
            // If it holds the key, it has to be parsed.
            let head = format!(
                "POST /tunnel HTTP/1.1\r\nHost: m\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let refused = client.ask(&[head.as_bytes(), body].concat());
            assert_eq!(refused.status, 401, "{coding}");
        }
    }
    let mirror = Process::start(&config(&outbounds, ""));
    let mut client = mirror.client();
    for (coding, body) in &coded {
        let request = coded_request("/api/42/envelope/", coding, body);
        assert_eq!(client.ask(&request).status, 400, "{coding}");
    }
    assert_eq!((all.received().len(), some.received().len()), (4, 0));
}

/// The memory budget allows the body and one more of its size, but not two.
#[test]
fn outbounds_with_different_options_share_a_compressed_body() {
    let upstreams: Vec<Upstream> = (0..3).map(|_| Upstream::ok()).collect();
    let options = [
        "",
        ", categories: [error]",
        ", multiplier: 1, sample_rate: {span: 0.5}",
    ];
    let outbounds: Vec<String> = upstreams
        .iter()
        .zip(options)
        .map(|(upstream, more)| mapping(upstream, KEY_B, &format!("compression: gzip{more}")))
        .collect();
    let mirror = Process::start(&config(
        &outbounds,
        "limits: {memory_bytes: 3MB, body_bytes: 1MiB, decoded_bytes: 1MiB}",
    ));
    let body = large(1_000_000);
    let response = mirror
        .client()
        .ask(&coded_request("/api/42/envelope/", "", &body));
    assert_eq!(response.status, 200);
    mirror.signal("TERM");
    let totals = mirror.wait_for_line(", requests ");
    mirror.wait();
    assert!(totals.contains("delivered 2xx 3"), "{totals}");
    for upstream in &upstreams {
        let text = gunzip(&upstream.wait_for(1).remove(0).body);
        assert!(after_first_line(&text) == after_first_line(&body));
    }
}

/// The memory budget allows the body but not a second one; the delivery without a transform succeeds.
#[test]
fn a_body_without_memory_for_its_transform_is_dropped_without_harm_to_others() {
    let pair = Pair::start_with(
        "multiplier: 50",
        "limits: {memory_bytes: 4MiB, body_bytes: 2MiB, decoded_bytes: 2MiB}",
    );
    let body = large(1_000_000);
    let mut client = pair.mirror.client();
    assert_eq!(
        client
            .ask(&coded_request("/api/42/envelope/", "", &body))
            .status,
        200
    );
    pair.all.wait_for(1);
    pair.some.wait_for(1);
    let (got, totals) = pair.finish();
    assert!((1..5).contains(&got.len()), "{}", got.len());
    let dropped = 50 - got.len();
    assert!(
        totals.contains(&format!("delivered overloaded {dropped}")),
        "{totals}"
    );
}

use proptest::prelude::*;

use super::*;

/// Parses a target inside a larger head and returns it with its edits applied for the outbound
/// prefix `/out` and the project `7`.
fn read(target: &str) -> (Target, String, Span) {
    let head = format!("POST {target} HTTP/1.1");
    let span = Span::new(5, 5 + target.len());
    let mut edits = Vec::new();
    let parsed = parse_target(head.as_bytes(), span, &mut edits);
    let mut out = Vec::new();
    let mut at = span.start;
    for edit in edits {
        assert!(at <= edit.span.start, "out of order");
        assert!(edit.span.end <= span.end, "outside of the target");
        out.extend_from_slice(&head.as_bytes()[at..edit.span.start]);
        out.extend_from_slice(match edit.replacement {
            Replacement::PathPrefix => b"/out",
            Replacement::Project => b"7",
            Replacement::EnvelopePath => b"/out/api/7/envelope/",
            Replacement::Nothing => b"",
            other => panic!("unexpected {other:?}"),
        });
        at = edit.span.end;
    }
    out.extend_from_slice(&head.as_bytes()[at..span.end]);
    (parsed, String::from_utf8(out).unwrap(), span)
}

#[test]
fn every_endpoint_is_recognised_with_and_without_a_final_slash() {
    for (path, endpoint, path_key) in [
        ("envelope", Endpoint::Envelope, None),
        ("store", Endpoint::Store, None),
        ("security", Endpoint::Security, None),
        ("csp-report", Endpoint::Security, None),
        ("nel", Endpoint::Nel, None),
        ("minidump", Endpoint::Minidump, None),
        ("unreal/KEY", Endpoint::Unreal, Some("KEY")),
        ("unreal", Endpoint::Generic, None),
        ("unreal/KEY/x", Endpoint::Generic, None),
        ("events/abc/attachments", Endpoint::Attachments, None),
        ("events/abc", Endpoint::Generic, None),
        ("cron", Endpoint::Generic, None),
        ("cron/nightly", Endpoint::Cron, None),
        ("cron/nightly/KEY", Endpoint::Cron, Some("KEY")),
        ("cron/nightly/KEY/x", Endpoint::Generic, None),
        ("integration/otlp/v1/traces", Endpoint::OtlpTraces, None),
        ("integration/otlp/v1/logs", Endpoint::OtlpLogs, None),
        ("integration/otlp/v1/logs/x", Endpoint::Generic, None),
        ("integration/otlp/v1/metrics", Endpoint::Generic, None),
        ("otlp/v1/traces", Endpoint::Generic, None),
        ("integration/vercel/logs", Endpoint::VercelLogs, None),
        ("playstation", Endpoint::Playstation, None),
        ("upload", Endpoint::Upload, None),
        ("upload/some-id", Endpoint::Upload, None),
        ("Envelope", Endpoint::Generic, None),
        ("envelope/x", Endpoint::Generic, None),
    ] {
        for end in ["", "/"] {
            let target = format!("/api/42/{path}{end}");
            let (parsed, rewritten, _) = read(&target);
            assert_eq!(parsed.endpoint, endpoint, "{target}");
            assert_eq!(parsed.query, None);
            assert_eq!(rewritten, format!("/out/api/7/{path}{end}"));
            let head = format!("POST {target}");
            let key = parsed.path_key.map(|span| span.slice(head.as_bytes()));
            assert_eq!(key, path_key.map(str::as_bytes), "{target}");
        }
    }
}

/// With anything in front of the `/api/` that counts.
#[test]
fn a_path_names_a_monitor_or_an_event() {
    for (path, subject) in [
        ("cron/nightly", Some("nightly")),
        ("cron/cron/KEY", Some("cron")),
        ("events/abc/attachments", Some("abc")),
        ("events/events/attachments", Some("events")),
        ("envelope", None),
        ("unreal/KEY", None),
        ("cron/nightly/KEY/x", None),
    ] {
        for prefix in ["", "/cron/api/42", "/events/api/42", "//cron//x"] {
            let target = format!("{prefix}/api//42//{path}/?cron/a/events/b");
            let head = format!("POST {target}");
            let found = read(&target)
                .0
                .subject
                .map(|span| span.slice(head.as_bytes()));
            assert_eq!(found, subject.map(str::as_bytes), "{target}");
        }
    }
}

#[test]
fn paths_are_rewritten() {
    for (target, rewritten, endpoint) in [
        ("/api/42", "/out/api/7", Endpoint::Generic),
        ("/api/042/nel/", "/out/api/7/nel/", Endpoint::Nel),
        ("/api/+42/nel/", "/out/api/7/nel/", Endpoint::Nel),
        ("/api/%34%32/nel/", "/out/api/7/nel/", Endpoint::Nel),
        ("/api/+%342/new", "/out/api/7/new", Endpoint::Generic),
        (
            "/api/18446744073709551615/nel/",
            "/out/api/7/nel/",
            Endpoint::Nel,
        ),
        ("/api/store/", "/out/api/store/", Endpoint::Store),
        ("/p/api//store//", "/out/api/store/", Endpoint::Store),
        (
            "/a/b/api/42/envelope/",
            "/out/api/7/envelope/",
            Endpoint::Envelope,
        ),
        (
            "//api/42//envelope///",
            "/out/api/7/envelope/",
            Endpoint::Envelope,
        ),
        (
            "///a//b///api//42/envelope",
            "/out/api/7/envelope",
            Endpoint::Envelope,
        ),
        (
            "/api/1/api/42/envelope/",
            "/out/api/7/envelope/",
            Endpoint::Envelope,
        ),
        (
            "/api/v2/api/42/store/",
            "/out/api/7/store/",
            Endpoint::Store,
        ),
        (
            "/api/42/events/42/attachments/",
            "/out/api/7/events/42/attachments/",
            Endpoint::Attachments,
        ),
        ("/api/42/cron/api/", "/out/api/7/cron/api/", Endpoint::Cron),
        (
            "/api/42/replays/api/store",
            "/out/api/store",
            Endpoint::Store,
        ),
        (
            "/api/embed/error-page/",
            "/out/api/embed/error-page/",
            Endpoint::ErrorPage,
        ),
        (
            "/p//api/embed/error-page/",
            "/out/api/embed/error-page/",
            Endpoint::ErrorPage,
        ),
        (
            "http://mirror:80/api/42/envelope/",
            "/out/api/7/envelope/",
            Endpoint::Envelope,
        ),
        (
            "https://api/42/api/42/nel/",
            "/out/api/7/nel/",
            Endpoint::Nel,
        ),
        (
            "http://mirror/a//api/42//nel/",
            "/out/api/7/nel/",
            Endpoint::Nel,
        ),
    ] {
        let (parsed, out, _) = read(target);
        assert_eq!((parsed.endpoint, &*out), (endpoint, rewritten), "{target}");
    }
}

#[test]
fn other_paths_are_tunnels() {
    for target in [
        "/",
        "/tunnel",
        "/monitoring/?p=42",
        "/tunnel?x=/api/42/envelope/",
        "/api",
        "/api/",
        "/api/embed/",
        "/api/embed/other",
        "/api/abc",
        "/api/-1/new/thing",
        "/API/42/envelope/",
        "/xapi/42/envelope/",
        "api/42/envelope",
        "http://mirror",
        "http://mirror?/api/42/",
        "http://api/42/envelope/",
        "*",
        "mirror:443",
        "",
    ] {
        let (parsed, rewritten, _) = read(target);
        let expected = Target {
            endpoint: Endpoint::Tunnel,
            query: None,
            path_key: None,
            subject: None,
            lacks_project: false,
            names_key: false,
        };
        assert_eq!(parsed, expected, "{target}");
        assert_eq!(rewritten, "/out/api/7/envelope/", "{target}");
    }
}

#[test]
fn a_tunnel_that_resembles_an_endpoint_is_recognised() {
    for (target, lacks_project, names_key) in [
        ("/tunnel?o=1&sentry_key=x", false, true),
        ("/API/42/store/?sentry_version=7", false, true),
        ("/API/42/unreal/KEY/", false, false),
        ("/api/abc/store/", true, false),
        ("/api/abc/envelope/?a=b", true, false),
        ("/p//api//-1//store/?sentry_key=x", true, true),
        ("/api/+/store/", true, false),
        ("/api/++1/store/", true, false),
        ("/api/%+1/store/", true, false),
        ("/api/18446744073709551616/store/", true, false),
        ("/api/x/unreal/KEY/", true, true),
        ("/api/x/cron/nightly/KEY?status=ok", true, true),
        ("/api/x/cron/nightly", true, false),
        ("/api/x/api/y/nel/", true, false),
    ] {
        let (parsed, rewritten, _) = read(target);
        let expected = Target {
            endpoint: Endpoint::Tunnel,
            query: None,
            path_key: None,
            subject: None,
            lacks_project,
            names_key,
        };
        assert_eq!(parsed, expected, "{target}");
        assert_eq!(rewritten, "/out/api/7/envelope/", "{target}");
    }
}

#[test]
fn a_query_is_found_and_not_edited() {
    for (target, query, rewritten) in [
        ("/api/42/envelope/?", "", "/out/api/7/envelope/?"),
        (
            "/api/42/envelope/?a=1&b=//c?d",
            "a=1&b=//c?d",
            "/out/api/7/envelope/?a=1&b=//c?d",
        ),
        (
            "http://m/api/42//nel?x=/api/1/nel",
            "x=/api/1/nel",
            "/out/api/7/nel?x=/api/1/nel",
        ),
    ] {
        let (parsed, out, span) = read(target);
        let end = span.end;
        assert_eq!(parsed.query, Some(Span::new(end - query.len(), end)));
        assert_eq!(out, rewritten);
    }
}

#[test]
fn each_endpoint_accepts_the_methods_of_relay() {
    for (endpoint, method, allowed) in [
        (Endpoint::Envelope, "POST", true),
        (Endpoint::Envelope, "post", false),
        (Endpoint::Envelope, "GET", false),
        (Endpoint::Envelope, "", false),
        (Endpoint::Store, "GET", true),
        (Endpoint::Cron, "HEAD", true),
        (Endpoint::Cron, "PUT", false),
        (Endpoint::Upload, "PATCH", true),
        (Endpoint::ErrorPage, "GET", true),
        (Endpoint::Generic, "PUT", true),
        (Endpoint::Generic, "CONNECT", false),
    ] {
        assert_eq!(
            endpoint.allows(method.as_bytes()),
            allowed,
            "{endpoint:?} {method}"
        );
    }
    assert_eq!(Endpoint::Cron.allow_header(), "GET,HEAD,POST");
}

/// Decodes the whole path and compares each segment.
fn naive_dot_segment(target: &str) -> bool {
    let path = target.split('?').next().unwrap().to_lowercase();
    let decoded = |path: String| {
        let path = path.replace("%2e", ".").replace("%2f", "/");
        path.replace("%5c", "\\").replace("%25", "%")
    };
    decoded(decoded(path))
        .split(['/', '\\'])
        .any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

/// Does the same with strings: splits, looks from the end, joins.
fn naive(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (target, String::new()),
    };
    let mut parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let counts = |parts: &[&str]| match parts {
        ["api", "store", ..] | ["api", "embed", "error-page", ..] => true,
        ["api", project, ..] => project.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    let Some(api) = (0..parts.len()).rfind(|at| counts(&parts[*at..])) else {
        return "/out/api/7/envelope/".to_owned();
    };
    if parts[api + 1] != "store" && parts[api + 1] != "embed" {
        parts[api + 1] = "7";
    }
    let end = if path.ends_with('/') { "/" } else { "" };
    format!("/out/{}{end}{query}", parts[api..].join("/"))
}

proptest! {
    #[test]
    fn targets_are_rewritten_as_by_a_naive_implementation(
        target in "(/{1,2}(api|api|api|store|embed/error-page|42|1|x)){0,6}/{0,2}(\\?[a-z/=]{0,5})?"
    ) {
        let target = if target.starts_with('/') { target } else { format!("/{target}") };
        prop_assert_eq!(read(&target).1, naive(&target), "{}", target);
    }

    #[test]
    fn dot_segments_are_those_that_decode_to_dots(target in "([/\\\\?a]|\\.|%2e|%2E|%2){0,8}") {
        let head = format!("GET {target}");
        let span = Span::new(4, head.len());
        prop_assert_eq!(has_dot_segment(head.as_bytes(), span), naive_dot_segment(&target));
    }

    #[test]
    fn any_bytes_are_parsed(head: Vec<u8>, from: u8, to: u8) {
        let [start, end] = [from.min(to), from.max(to)].map(usize::from);
        let mut edits = Vec::new();
        parse_target(&head, Span::new(start, end), &mut edits);
        prop_assert!(!edits.is_empty());
    }
}

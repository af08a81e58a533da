//! Tests of the configuration as a whole: text in, values or messages out.

use std::path::Path;
use std::time::Duration;

use serde_yaml::Value;

use super::{
    AddressPolicy, Compression, Config, DriverChoice, LogFormat, Outbound, ReplyPolicy, Workers,
};
use crate::limits::{BreakerLimits, HeadLimits, Limits, PoolLimits, Timeouts};
use crate::sentry::dsn::{Dsn, shorten_key};

const EXAMPLE: &str = include_str!("../../config.example.yml");
const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const C: &str = "cccccccccccccccccccccccccccccccc";

/// A file with one route in lines 1 to 3, followed by `rest`.
fn with(rest: &str) -> String {
    format!("keys:\n- inbound: http://{A}@m/1\n  outbound: [https://{B}@o/2]\n{rest}")
}

/// A file with one route, whose `outbounds` begin in line 4.
fn to(outbounds: &str) -> String {
    format!("keys:\n- inbound: http://{A}@m/1\n  outbound:\n{outbounds}")
}

fn parse(text: &str) -> Config {
    Config::parse(text, "c.yml", std::iter::empty()).unwrap()
}

fn errors(text: &str) -> String {
    errors_in(text, &[])
}

fn errors_in(text: &str, env: &[(&str, &str)]) -> String {
    let errors = Config::parse(text, "c.yml", variables(env)).unwrap_err();
    errors.to_string()
}

fn variables(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    env.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
}

fn dsn(text: &str) -> Dsn {
    text.parse().ok().unwrap()
}

#[test]
fn only_keys_are_required() {
    let config = parse(&with(""));
    assert_eq!(config.ip.to_string(), "0.0.0.0");
    assert_eq!(config.port, 3000);
    assert_eq!(config.workers, Workers::Auto);
    assert_eq!(config.driver, DriverChoice::Auto);
    assert_eq!(config.reply_policy, ReplyPolicy::FirstSuccess);
    assert_eq!(config.reply_timeout, Duration::from_millis(1500));
    assert_eq!(config.client_address.default, AddressPolicy::Hide);
    assert_eq!(config.external_url, None);
    assert_eq!(config.tls.ca_file, None);
    assert!(config.tls.system_roots);
    assert_eq!(config.log.filter, "info");
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.warnings, Vec::<String>::new());
    let [route] = &config.routes[..] else {
        panic!("expected one route");
    };
    assert_eq!(route.inbound, dsn(&format!("http://{A}@m/1")));
    assert_eq!(route.outbounds.len(), 1);
    assert_eq!(route.outbounds[0].dsn, dsn(&format!("https://{B}@o/2")));
}

#[test]
fn the_example_file_shows_the_defaults() {
    let example = parse(EXAMPLE);
    let keys = EXAMPLE.split("\nkeys:").nth(1).unwrap();
    let keys = keys.split("\n# Threads").next().unwrap();
    let defaults = parse(&format!("keys:{keys}"));
    // An explicit `admin` differs from the default if its port is in use.
    let expected = Config {
        admin_is_default: false,
        ..defaults
    };
    assert_eq!(example, expected);
    assert_eq!(example.routes[0].outbounds.len(), 2);
    assert_eq!(example.limits, Limits::default());
    assert_eq!(example.warnings, Vec::<String>::new());
}

/// The message about an unknown key without a suggestion lists all known keys: the schema.
#[test]
fn the_example_file_has_every_key() {
    let sections = [
        "", "tls", "limits", "timeouts", "pool", "breaker", "dns", "admin",
    ];
    for section in sections {
        let indent = if section.is_empty() { "" } else { "  " };
        let head = if section.is_empty() {
            String::new()
        } else {
            format!("{section}:\n")
        };
        assert_has_all(
            &with(&format!("{head}{indent}xxxxxxxxxxxx: 1\n")),
            |example| {
                if section.is_empty() {
                    example.clone()
                } else {
                    example[section].clone()
                }
            },
        );
    }
    assert_has_all(
        &format!(
            "keys:\n- xxxxxxxxxxxx: 1\n  inbound: http://{A}@m/1\n  outbound: [https://{B}@o/2]\n"
        ),
        |example| example["keys"][0].clone(),
    );
    assert_has_all(
        &to(&format!("  - dsn: https://{B}@o/2\n    xxxxxxxxxxxx: 1\n")),
        |example| example["keys"][0]["outbound"][1].clone(),
    );
}

fn assert_has_all(text: &str, part: impl Fn(&Value) -> Value) {
    let errors = errors(text);
    let known = errors
        .split_once("unknown key, expected one of ")
        .unwrap()
        .1;
    let example = part(&serde_yaml::from_str(EXAMPLE).unwrap());
    let mut written: Vec<&str> = example
        .as_mapping()
        .unwrap()
        .keys()
        .map(|key| key.as_str().unwrap())
        .collect();
    if known.contains("modify_envelope_header") {
        assert!(EXAMPLE.contains(" modify_envelope_header,"));
        written.push("modify_envelope_header");
    }
    let mut known: Vec<&str> = known.split(", ").collect();
    known.sort_unstable();
    written.sort_unstable();
    assert_eq!(known, written);
}

#[test]
fn every_key_is_read() {
    let config = parse(&with(
        "ip: '::1'\nport: 0\nworkers: 3\ndriver: io_uring\nreply_policy: primary\n\
         reply_timeout: 2s\nforward_client_ip: true\nexternal_url: https://m.example/p/\ntls: {ca_file: /a/b.pem, system_roots: false}\n\
         log_filter: warn,sentry_mirror=trace\nlog_format: json\n\
         limits: {head_bytes: 1KiB, header_count: 2, body_bytes: 3KiB, decoded_bytes: 4KiB, decoded_ratio: 13, \
         envelope_header_bytes: 2KiB, response_bytes: 5000, connections: 6, connections_per_peer: 5, tls_handshakes: 9, memory_bytes: 7MB, in_flight: 8}\n\
         timeouts: {head: 1s, body: 2s, idle: 3s, write: 4s, connect: 5s, exchange: 6s, drain: 7s}\n\
         pool: {idle_connections: 9, idle_timeout: 8s, max_age: 9s}\ndns: {refresh: 10s}\n\
         breaker: {failures: 4, pause: 11s, pause_max: 12s}\n",
    ));
    let seconds = Duration::from_secs;
    assert_eq!(config.ip.to_string(), "::1");
    assert_eq!(config.port, 0);
    assert_eq!(config.workers, Workers::Count(3.try_into().unwrap()));
    assert_eq!(config.driver, DriverChoice::IoUring);
    assert_eq!(config.reply_policy, ReplyPolicy::Primary);
    assert_eq!(config.reply_timeout, seconds(2));
    assert_eq!(config.client_address.default, AddressPolicy::Send);
    assert_eq!(config.external_url.as_deref(), Some("https://m.example/p"));
    assert_eq!(config.tls.ca_file.as_deref(), Some(Path::new("/a/b.pem")));
    assert!(!config.tls.system_roots);
    assert_eq!(config.log.filter, "warn,sentry_mirror=trace");
    assert_eq!(config.log.format, LogFormat::Json);
    let limits = Limits {
        head: HeadLimits {
            bytes: 1024,
            headers: 2,
        },
        body_bytes: 3072,
        decoded_bytes: 4096,
        envelope_header_bytes: 2048,
        decoded_ratio: 13,
        response_bytes: 5000,
        connections: 6,
        connections_per_peer: Some(5),
        tls_handshakes: 9,
        memory_bytes: 7_000_000,
        in_flight: 8,
        timeouts: Timeouts {
            head: seconds(1),
            body: seconds(2),
            idle: seconds(3),
            write: seconds(4),
            connect: seconds(5),
            exchange: seconds(6),
            drain: seconds(7),
        },
        pool: PoolLimits {
            idle_connections: 9,
            idle_timeout: seconds(8),
            max_age: seconds(9),
        },
        breaker: BreakerLimits {
            failures: 4,
            pause: seconds(11),
            pause_max: seconds(12),
        },
        dns_refresh: seconds(10),
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn verbose_overrides_log_filter() {
    let config = parse(&with("verbose: true\nlog_filter: warn\n"));
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn files_of_getsentry_sentry_mirror_load() {
    let plain = "---\nip: 0.0.0.0\nport: 3000\nkeys:\n  - inbound: http://public-key@mirror.acme.org/1847101\n    \
                 outbound:\n      - https://public-key-red@o123.ingest.de.sentry.io/123456\n      \
                 - https://public-key-blue@o456.ingest.us.sentry.io/654321\n";
    let config = parse(plain);
    assert_eq!(config.routes[0].inbound.key(), "public-key");
    assert_eq!(config.routes[0].outbounds[1].dsn.project(), "654321");
    let warning = "the public key does not have the 32 characters that Sentry requires";
    assert_eq!(
        config.warnings,
        [
            format!("c.yml:5:14: keys[0].inbound: {warning}"),
            format!("c.yml:7:9: keys[0].outbound[0]: {warning}"),
            format!("c.yml:8:9: keys[0].outbound[1]: {warning}"),
        ]
    );
    for neutral in [
        "categories: []",
        "categories:",
        "multiplier: 1",
        "sample_rate: 1",
        "sample_rate: 1.0",
        "compression: none",
    ] {
        let config = parse(&to(&format!("  - dsn: https://{B}@o/2\n    {neutral}\n")));
        assert_eq!(
            config.routes[0].outbounds[0].dsn,
            dsn(&format!("https://{B}@o/2"))
        );
        assert_eq!(config.warnings, Vec::<String>::new(), "{neutral}");
        let outbound = &config.routes[0].outbounds[0];
        assert_eq!(outbound.selection, None, "{neutral}");
        assert_eq!(outbound.copies, 1, "{neutral}");
        assert_eq!(outbound.compression, Compression::None, "{neutral}");
    }
    for neutral in ["modify_envelope: true", "modify_envelope_header: true"] {
        assert_eq!(parse(&with(neutral)), parse(&with("")), "{neutral}");
    }
    for off in ["modify_envelope: false", "modify_envelope_header: false"] {
        let config = parse(&with(off));
        assert!(!config.modify_envelope);
        let compression = config.routes[0].outbounds[0].compression;
        assert_eq!(compression, Compression::Preserve, "{off}");
    }
}

/// Parses an outbound with these lines in its mapping. Returns it with the warnings.
fn selected(lines: &str) -> (Outbound, Vec<String>) {
    let lines = lines.replace('\n', "\n    ");
    let config = parse(&to(&format!("  - dsn: https://{B}@o/2\n    {lines}\n")));
    (config.routes[0].outbounds[0].clone(), config.warnings)
}

fn selection(outbound: &Outbound) -> String {
    outbound
        .selection
        .map(|selection| selection.to_string())
        .unwrap_or_default()
}

#[test]
fn an_outbound_selects_categories_and_a_share() {
    for (lines, expected) in [
        (
            "categories: [error, transaction, profile]",
            "categories error,profile,transaction",
        ),
        (
            "categories: [errors, transactions, replays, metrics, profiling, minidumps, check_in]",
            "categories error,metric_bucket,monitor,profile,profile_chunk,profile_chunk_ui,replay,trace_metric,transaction",
        ),
        ("categories: [Error]", "categories error"),
        (
            "categories: [log_items, replay_events, user_reports, securities]",
            "categories feedback,log_item,replay,security",
        ),
        ("sample_rate: 0.5", "sample_rate 0.5"),
        ("sample_rate: '.5'", "sample_rate 0.5"),
        ("sample_rate: 0", "sample_rate 0"),
        ("sample_rate:\n  span: 0.05", "sample_rate span:0.05"),
        (
            "sample_rate: {error: 0.0, transaction: 1.0}",
            "sample_rate error:0",
        ),
        (
            "sample_rate: {metrics: 0.5}",
            "sample_rate metric_bucket:0.5 trace_metric:0.5",
        ),
        ("sample_rate: {span: 1}", ""),
        ("sample_rate: {}", ""),
        (
            "categories: [log]\nsample_rate: 0.1",
            "categories log_item sample_rate 0.1",
        ),
    ] {
        let (outbound, warnings) = selected(lines);
        assert_eq!(
            (selection(&outbound).as_str(), warnings),
            (expected, vec![]),
            "{lines}"
        );
    }
}

#[test]
fn a_rate_outside_its_range_is_an_error() {
    for (lines, expected) in [
        (
            "sample_rate: 50",
            "5:18: keys[0].outbound[0].sample_rate: found 50, expected a number from 0 to 1; 50 percent would be 0.5",
        ),
        (
            "sample_rate: 101",
            "5:18: keys[0].outbound[0].sample_rate: found 101, expected a number from 0 to 1",
        ),
        (
            "sample_rate: -0.5",
            "5:18: keys[0].outbound[0].sample_rate: found -0.5, expected a number from 0 to 1",
        ),
        (
            "sample_rate: .nan",
            "5:18: keys[0].outbound[0].sample_rate: found .nan, expected a number from 0 to 1",
        ),
        (
            "sample_rate: NaN",
            r#"5:18: keys[0].outbound[0].sample_rate: found "NaN", expected a number from 0 to 1"#,
        ),
        (
            "sample_rate: {span: .inf}",
            "5:25: keys[0].outbound[0].sample_rate.span: found .inf, expected a number from 0 to 1",
        ),
        (
            "sample_rate: {span: 7, error: 0.5}",
            "5:25: keys[0].outbound[0].sample_rate.span: found 7, expected a number from 0 to 1; 7 percent would be 0.07",
        ),
    ] {
        let text = to(&format!("  - dsn: https://{B}@o/2\n    {lines}\n"));
        assert_eq!(errors(&text), format!("c.yml:{expected}"), "{lines}");
    }
}

#[test]
fn multiplier_with_sample_rate_is_a_warning() {
    let (outbound, warnings) = selected("sample_rate: 0.5\nmultiplier: 5");
    assert_eq!(
        (outbound.copies, selection(&outbound).as_str()),
        (1, "sample_rate 0.5")
    );
    assert_eq!(
        warnings,
        [
            "c.yml:6:17: keys[0].outbound[0].multiplier: is ignored because sample_rate is set; an outbound can have only one of the two"
        ]
    );
    let (outbound, warnings) = selected("sample_rate: 1\nmultiplier: 5\ncategories: [error]");
    assert_eq!((outbound.copies, warnings), (5, vec![]));
}

#[test]
fn more_copies_than_allowed_are_a_warning() {
    assert_eq!(selected("multiplier: 100").1, Vec::<String>::new());
    for number in ["101", "18446744073709551615"] {
        let (outbound, warnings) = selected(&format!("multiplier: {number}"));
        assert_eq!(outbound.copies, 100);
        assert_eq!(
            warnings,
            ["c.yml:5:17: keys[0].outbound[0].multiplier: is more than 100; using 100"]
        );
    }
    let (outbound, warnings) = selected("sample_rate: 0.5\nmultiplier: 101");
    assert_eq!((outbound.copies, warnings.len()), (1, 1));
    assert!(warnings[0].contains("is ignored"), "{warnings:?}");
}

/// The examples in the documentation of getsentry/sentry-mirror.
#[test]
fn documented_examples_of_getsentry_sentry_mirror_keep_their_meaning() {
    let with_outbounds = |outbounds: &str| {
        format!(
            "ip: 0.0.0.0\nport: 3000\nkeys:\n  - inbound: http://public-key@sentry-mirror.acme.org/1847101\n    outbound:\n      - https://public-key-red@o123.ingest.de.sentry.io/123456\n{outbounds}"
        )
    };
    let blue = "      - dsn: https://public-key-blue@o456.ingest.us.sentry.io/654321\n        ";
    let mut expected_copies = 1;
    for (outbounds, expected) in [
        (
            format!("{blue}categories: [error, transaction, profile]\n"),
            vec!["categories error,profile,transaction"],
        ),
        (
            format!("{blue}categories: [error, transaction, profile]\n        multiplier: 5\n"),
            vec!["categories error,profile,transaction"],
        ),
        (
            format!("{blue}sample_rate: 0.5\n{blue}sample_rate:\n            span: 0.05\n"),
            vec!["sample_rate 0.5", "sample_rate span:0.05"],
        ),
    ] {
        let config = parse(&with_outbounds(&outbounds));
        let found: Vec<String> = config.routes[0].outbounds[1..]
            .iter()
            .map(selection)
            .collect();
        assert_eq!(found, expected);
        assert_eq!(config.routes[0].outbounds[0].selection, None);
        if outbounds.contains("multiplier") {
            expected_copies = config.routes[0].outbounds[1].copies;
        }
    }
    assert_eq!(expected_copies, 5);
}

#[test]
fn telemetry_keys_of_getsentry_sentry_mirror_are_accepted() {
    let config = parse(&with(
        "statsd_addr: '[::1]:8125'\ndefault_metrics_tags: {a: b, c: 1}",
    ));
    let statsd = config.statsd.unwrap();
    assert_eq!(statsd.server.to_string(), "[::1]:8125");
    let unix = parse(&with("statsd_addr: unix:/run/statsd.sock"));
    assert_eq!(
        unix.statsd.unwrap().server.to_string(),
        "unix:/run/statsd.sock"
    );
    let tags: Vec<_> = statsd.tags.iter().collect();
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [tag("a", "b"), tag("c", "1")];
    assert_eq!(
        tags,
        expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );
    let config = parse(&with("sentry_dsn: https://k@h/1\nsentry_env: prod"));
    let report = config.self_report.unwrap();
    assert_eq!(report.dsn.to_string(), "https://k@h/1");
    assert_eq!(report.environment.as_deref(), Some("prod"));
    assert_eq!(config.warnings, Vec::<String>::new());
    let config = parse(&with("traces_sample_rate: 0.5"));
    assert_eq!(
        config.warnings,
        [
            "c.yml:4:21: traces_sample_rate: has no effect: the mirror reports only errors to sentry_dsn, no traces"
        ]
    );
}

#[test]
fn admin_pages_are_only_for_this_host_by_default() {
    let admin = |text: &str| parse(&with(text)).admin.map(|address| address.to_string());
    assert_eq!(admin("").as_deref(), Some("127.0.0.1:3001"));
    assert_eq!(admin("admin: off"), None);
    assert_eq!(admin("admin: 'off'"), None);
    assert_eq!(admin("admin: false"), None);
    assert_eq!(admin("admin: {port: 9}").as_deref(), Some("127.0.0.1:9"));
    assert_eq!(admin("admin: {ip: '::'}").as_deref(), Some("[::]:3001"));
    for (text, expected) in [
        (
            "admin: on",
            r#"4:8: admin: found "on", expected off, or a mapping with ip and port"#,
        ),
        (
            "admin: {prot: 1}",
            "4:9: admin.prot: unknown key, did you mean port?",
        ),
        (
            "admin: {port: 3000}",
            "4:15: admin.port: is the same as port, where SDKs connect; expected another port, or admin: off",
        ),
        (
            "access_log: yes",
            r#"4:13: access_log: found "yes", expected off, text or json"#,
        ),
    ] {
        assert_eq!(errors(&with(text)), format!("c.yml:{expected}"), "{text}");
    }
    let variables = variables(&[("SENTRY_MIRROR_ADMIN", "off")]);
    let config = Config::parse(&with("admin: {port: 1}"), "c.yml", variables).unwrap();
    assert_eq!(config.admin, None);
}

/// getsentry/sentry-mirror has no `admin`, and its own tests listen on 3001.
#[test]
fn port_may_be_the_default_port_of_admin() {
    let config = parse(&with("port: 3001"));
    assert_eq!((config.port, config.admin), (3001, None));
    assert_eq!(
        config.warnings,
        [
            "c.yml:4:7: port: is the default of admin.port, so that metrics and the status page are off; set admin.port to another port to serve them"
        ]
    );
    let elsewhere = parse(&with("ip: 10.0.0.1\nport: 3001"));
    assert_eq!(elsewhere.admin.map(|address| address.port()), Some(3001));
    assert!(errors(&with("port: 3001\nadmin: {ip: 127.0.0.1}")).contains("expected another port"));
}

#[test]
fn a_sentry_dsn_that_leads_back_is_an_error() {
    for dsn in [
        format!("https://{A}@elsewhere/1"),
        "http://k@127.0.0.1:3000/1".to_owned(),
        "http://k@localhost:3000/1".to_owned(),
    ] {
        let found = errors(&with(&format!("sentry_dsn: {dsn}")));
        let expected = "c.yml:4:13: sentry_dsn: leads back to this mirror, expected a DSN that does not depend on it";
        assert_eq!(found, expected, "{dsn}");
    }
    for dsn in ["http://k@127.0.0.1:3001/1", "https://k@m/1"] {
        let config = parse(&with(&format!("sentry_dsn: {dsn}")));
        assert!(config.self_report.is_some(), "{dsn}");
    }
}

#[test]
fn json_is_yaml() {
    let json = format!(
        r#"{{"port": 1, "keys": [{{"inbound": "http:\/\/{A}@m/1", "outbound": ["https://{B}@o/2"]}}]}}"#
    );
    let config = parse(&json);
    assert_eq!(config.port, 1);
    assert_eq!(config.routes, parse(&with("")).routes);
}

#[test]
fn anchors_are_followed() {
    let config = parse(&format!(
        "keys:\n- inbound: http://{A}@m/1\n  outbound: &all [https://{B}@o/2]\n\
         - inbound: http://{C}@m/1\n  outbound: *all\n"
    ));
    assert_eq!(config.routes[0].outbounds, config.routes[1].outbounds);
}

#[test]
fn an_invalid_value_is_an_error_with_its_position() {
    let size = "such as 4096, 64KiB or 10MB";
    let time = "such as 1.5s, 250ms or 2m";
    for (line, expected) in [
        ("ip: localhost", r#"4:5: ip: found "localhost", expected an IP address such as 0.0.0.0 or ::"#.to_owned()),
        ("port: 65536", "4:7: port: found 65536, expected a number from 0 to 65535".to_owned()),
        ("port: http", r#"4:7: port: found "http", expected a number from 0 to 65535"#.to_owned()),
        ("port: [1]", "4:7: port: found a list, expected a number from 0 to 65535".to_owned()),
        ("port: !x 1", "4:7: port: found a value with the tag !x, expected a number from 0 to 65535".to_owned()),
        ("workers: 0", "4:10: workers: found 0, expected auto or a number from 1 to 1024".to_owned()),
        ("driver: uring", r#"4:9: driver: found "uring", expected auto, io_uring or epoll"#.to_owned()),
        ("reply_policy: 1", "4:15: reply_policy: found 1, expected first_success or primary".to_owned()),
        ("reply_timeout: 0", format!("4:16: reply_timeout: found 0, expected a duration from 1ms to 1h {time}")),
        ("reply_timeout: -1s", format!(r#"4:16: reply_timeout: found "-1s", expected a duration from 1ms to 1h {time}"#)),
        ("external_url: 'https://u:p@m.example'", r#"4:15: external_url: found "https://u…@m.example", expected a URL of the form https://HOST, without user, query or fragment"#.to_owned()),
        ("external_url: m.example", r#"4:15: external_url: found "m.example", expected a URL of the form https://HOST, without user, query or fragment"#.to_owned()),
        ("forward_client_ip: yes", r#"4:20: forward_client_ip: found "yes", expected true or false"#.to_owned()),
        ("tls: none", r#"4:6: tls: found "none", expected a mapping"#.to_owned()),
        ("tls: {ca_file: [a]}", "4:16: tls.ca_file: found a list, expected text".to_owned()),
        ("log_filter: ''", r#"4:13: log_filter: found "", expected log directives such as info or warn,sentry_mirror=debug"#.to_owned()),
        ("log_filter: 'a=b=c'", r#"4:13: log_filter: found "a=b=c", expected log directives such as info or warn,sentry_mirror=debug (invalid filter directive: too many '=' in filter directive, expected 0 or 1)"#.to_owned()),
        ("log_format: xml", r#"4:13: log_format: found "xml", expected text or json"#.to_owned()),
        ("limits: {connections_per_peer: 0}", "4:32: limits.connections_per_peer: found 0, expected off or a number from 1 to 1000000".to_owned()),
        ("limits: {header_count: 257}", "4:24: limits.header_count: found 257, expected a number from 1 to 256".to_owned()),
        ("limits: {head_bytes: 1}", format!("4:22: limits.head_bytes: found 1, expected a number of bytes from 1KiB to 1MiB {size}")),
        ("timeouts: {head: 2h}", format!(r#"4:18: timeouts.head: found "2h", expected a duration from 1ms to 1h {time}"#)),
        ("pool: {idle_connections: 0}", "4:26: pool.idle_connections: found 0, expected auto or a number from 1 to 65536".to_owned()),
        ("dns: {refresh: 1ms}", format!(r#"4:16: dns.refresh: found "1ms", expected a duration from 1s to 1d {time}"#)),
        ("modify_envelope: never", r#"4:18: modify_envelope: found "never", expected true or false"#.to_owned()),
        ("traces_sample_rate: 2", "4:21: traces_sample_rate: found 2, expected a number from 0 to 1".to_owned()),
        ("statsd_addr: unix:a.sock", r#"4:14: statsd_addr: found "unix:a.sock", expected an absolute path after unix:"#.to_owned()),
        ("statsd_addr: localhost", r#"4:14: statsd_addr: found "localhost", expected an address of the form HOST:PORT"#.to_owned()),
        ("default_metrics_tags: {a: [1]}", "4:23: default_metrics_tags: found a mapping, expected a mapping from tag names to text".to_owned()),
        ("prot: 1", "4:1: prot: unknown key, did you mean port?".to_owned()),
        ("tls: {ca_fiel: x}", "4:7: tls.ca_fiel: unknown key, did you mean ca_file?".to_owned()),
        ("dns: {server: x}", "4:7: dns.server: unknown key, expected one of refresh".to_owned()),
        ("dns: {\"a.b\\n\": x}", r#"4:7: dns."a.b\n": unknown key, expected one of refresh"#.to_owned()),
    ] {
        assert_eq!(errors(&with(line)), format!("c.yml:{expected}"), "{line}");
    }
}

#[test]
fn an_invalid_route_is_an_error_with_its_position() {
    let some = "expected a list of at least one route with inbound and outbound";
    let form = "a DSN of the form https://KEY@HOST/PROJECT";
    let error = |text: &str| text.parse::<Dsn>().unwrap_err();
    for (text, expected) in [
        ("port: 1\n".to_owned(), format!("1:1: keys: found nothing, {some}")),
        ("keys:\n".to_owned(), format!("1:1: keys: found nothing, {some}")),
        ("keys: []\n".to_owned(), format!("1:7: keys: found an empty list, {some}")),
        ("keys: {a: b}\n".to_owned(), format!("1:7: keys: found a mapping, {some}")),
        ("keys: [a]\n".to_owned(), r#"1:8: keys[0]: found "a", expected a mapping with inbound and outbound"#.to_owned()),
        ("keys: [null]\n".to_owned(), "1:8: keys[0]: found nothing, expected a mapping with inbound and outbound".to_owned()),
        (format!("keys:\n- outbound: [https://{B}@o/2]\n"), format!("2:3: keys[0].inbound: found nothing, expected {form} ({})", "")),
        (format!("keys:\n- inbound: http://{A}@m/1\n"), "2:3: keys[0].outbound: found nothing, expected a list of at least one DSN".to_owned()),
        (to("    []\n"), "4:5: keys[0].outbound: found an empty list, expected a list of at least one DSN".to_owned()),
        (to("    https://o/1\n"), r#"4:5: keys[0].outbound: found "https://o/1", expected a list of at least one DSN"#.to_owned()),
        (to("  -\n"), format!("4:4: keys[0].outbound[0]: found nothing, expected {form} ({})", "")),
        (to("  - 5\n"), format!("4:5: keys[0].outbound[0]: found 5, expected {form} ({})", "")),
        (to("  - https://o/2\n"), format!(r#"4:5: keys[0].outbound[0]: found "https://o/2", expected {form} ({})"#, error("https://o/2"))),
        (to(&format!("  - ftp://{B}:{C}@o/2\n")), format!(r#"4:5: keys[0].outbound[0]: found "ftp://{}@o/2", expected {form} ({})"#, shorten_key(B), error(&format!("ftp://{B}:{C}@o/2")))),
        (to("  - categories: []\n"), format!("4:5: keys[0].outbound[0].dsn: found nothing, expected {form} ({})", "")),
        (to(&format!("  - dsn: https://{B}@o/2\n    categories: error\n")), r#"5:17: keys[0].outbound[0].categories: found "error", expected a list of categories such as [error, transaction]"#.to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    categories: [session, erorr]\n")), r#"5:27: keys[0].outbound[0].categories[1]: found "erorr", expected a category, did you mean error?"#.to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    categories: [everything]\n")), r#"5:18: keys[0].outbound[0].categories[0]: found "everything", expected a category, one of attachment, client_report, error, feedback, log_item, metric_bucket, monitor, profile, profile_chunk, profile_chunk_ui, replay, security, session, span, trace_metric, transaction"#.to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    sample_rate: half\n")), r#"5:18: keys[0].outbound[0].sample_rate: found "half", expected a number from 0 to 1, or a mapping from categories to such numbers"#.to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    sample_rate:\n      spam: 0.5\n")), r#"6:13: keys[0].outbound[0].sample_rate.spam: found "spam", expected a category, did you mean span?"#.to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    sample_rate: {{log: 0.5, logs: 1}}\n")), "5:35: keys[0].outbound[0].sample_rate.logs: duplicate rate for log_item".to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    multiplier: 0\n")), "5:17: keys[0].outbound[0].multiplier: found 0, expected a number from 1 to 100".to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    compression: br\n")), r#"5:18: keys[0].outbound[0].compression: found "br", expected none, preserve, gzip or zstd"#.to_owned()),
        (to(&format!("  - dns: https://{B}@o/2\n    dsn: https://{B}@o/2\n")), "4:5: keys[0].outbound[0].dns: unknown key, did you mean dsn?".to_owned()),
        (to(&format!("  - dsn: https://{B}@o/2\n    name: a/b\n")), r#"5:11: keys[0].outbound[0].name: found "a/b", expected a name of at most 64 letters, digits, -, _ and ."#.to_owned()),
        (to(&format!("  - {{name: a, dsn: 'https://{B}@o/2'}}\n  - {{name: a, dsn: 'https://{C}@o/2'}}\n")), "5:12: keys[0].outbound[1].name: is the same as keys[0].outbound[0].name, expected a different one".to_owned()),
        (with(&format!("- {{name: a, inbound: 'https://{B}@other/9', outbound: [https://{C}@o/2]}}\n- {{name: a, inbound: 'https://{C}@other/9', outbound: [https://{B}@p/2]}}\n")), "5:10: keys[2].name: is the same as keys[1].name, expected a different one".to_owned()),
        (with(&format!("- {{name: {B}, inbound: 'https://{B}@other/9', outbound: [https://{C}@o/2]}}\n")), "4:10: keys[1].name: found a public key, expected a name, which is shown in full".to_owned()),
        (with(&format!("- inbound: https://{A}@other/9\n  outbound: [https://{C}@o/2]\n")), "4:12: keys[1].inbound: has the public key of keys[0].inbound, expected a different one".to_owned()),
    ] {
        let expected = expected.replace(" ()", "");
        assert_eq!(errors(&text), format!("c.yml:{expected}"), "{text}");
    }
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = "prot: 1\nkeys:\n- inbond: x\n  outbound: [1]\nip: y\nport: z\n";
    let errors = Config::parse(
        text,
        "c.yml",
        variables(&[
            ("SENTRY_MIRROR_DRIVER", "kqueue"),
            ("SENTRY_MIRROR_IP", "q"),
        ]),
    )
    .unwrap_err();
    let places: Vec<&str> = errors
        .messages()
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "c.yml:1:1",
            "c.yml:3:3",
            "c.yml:3:3",
            "c.yml:4:14",
            "c.yml:6:7",
            "SENTRY_MIRROR_DRIVER",
            "SENTRY_MIRROR_IP"
        ]
    );
}

#[test]
fn the_error_about_a_missing_unit_suggests_durations() {
    for (line, expected) in [
        (
            "reply_timeout: 1500",
            "4:16: reply_timeout: found 1500, expected a duration with a unit: 1500ms or 1500s",
        ),
        (
            "reply_timeout: '1.5'",
            r#"4:16: reply_timeout: found "1.5", expected a duration with a unit: 1.5ms or 1.5s"#,
        ),
        (
            "timeouts: {exchange: 30000}",
            "4:22: timeouts.exchange: found 30000, expected a duration with a unit: 30000ms",
        ),
        (
            "dns: {refresh: 30}",
            "4:16: dns.refresh: found 30, expected a duration with a unit: 30s",
        ),
    ] {
        assert_eq!(errors(&with(line)), format!("c.yml:{expected}"), "{line}");
    }
    let env = [("SENTRY_MIRROR_TIMEOUTS_DRAIN", "20")];
    let expected =
        r#"SENTRY_MIRROR_TIMEOUTS_DRAIN: found "20", expected a duration with a unit: 20ms or 20s"#;
    assert_eq!(errors_in(&with(""), &env), expected);
}

#[test]
fn a_reply_timeout_longer_than_an_exchange_is_an_error() {
    let expected = "reply_timeout: is longer than timeouts.exchange, which ends each delivery; expected at most that";
    assert_eq!(
        errors(&with("reply_timeout: 31s")),
        format!("c.yml:4:16: {expected}")
    );
    let both = "timeouts: {exchange: 1s}\nreply_timeout: 1001ms";
    assert_eq!(errors(&with(both)), format!("c.yml:5:16: {expected}"));
    // Only an explicit reply_timeout is compared.
    for fine in [
        "timeouts: {exchange: 1s}",
        "timeouts: {exchange: 1s}\nreply_timeout: 1s",
    ] {
        assert_eq!(parse(&with(fine)).warnings, Vec::<String>::new());
    }
}

#[test]
fn a_limit_that_another_one_overrides_is_a_warning() {
    for (line, expected) in [
        (
            "timeouts: {connect: 9s, exchange: 5s}",
            "4:21: timeouts.connect: is longer than exchange, which ends the delivery first",
        ),
        (
            "breaker: {pause: 1m}",
            "4:18: breaker.pause: is longer than pause_max, which is used instead",
        ),
    ] {
        assert_eq!(parse(&with(line)).warnings, [format!("c.yml:{expected}")]);
    }
    assert_eq!(
        parse(&with("timeouts: {exchange: 1s}")).warnings,
        Vec::<String>::new()
    );
}

#[test]
fn text_is_kept_as_it_is_written() {
    let text = "statsd_addr: h:1\ndefault_metrics_tags: {version: 1.10, on: true, 007: 1_000, none: ~, hex: 0x1F, quoted: '1.10'}\nsentry_dsn: https://k@h/1\nsentry_env: 1.10";
    let config = parse(&with(text));
    let tags = config.statsd.unwrap().tags;
    let tags: Vec<_> = tags
        .iter()
        .map(|(name, tag)| format!("{name}={tag}"))
        .collect();
    assert_eq!(
        tags,
        [
            "007=1_000",
            "hex=0x1F",
            "none=~",
            "on=true",
            "quoted=1.10",
            "version=1.10"
        ]
    );
    let environment = config.self_report.unwrap().environment;
    assert_eq!(environment.as_deref(), Some("1.10"));
    let variable = [("SENTRY_MIRROR_SENTRY_ENV", "e")];
    let config = Config::parse(&with(text), "c.yml", variables(&variable)).unwrap();
    assert_eq!(
        config.self_report.unwrap().environment.as_deref(),
        Some("e")
    );
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let text = format!("\u{feff}port: 7\n{}", with("prot: 1"));
    assert_eq!(
        errors(&text),
        "c.yml:5:1: prot: unknown key, did you mean port?"
    );
    assert_eq!(parse(&text.replace("prot: 1", "")).port, 7);
    let json = format!(
        "\u{feff}{{\"keys\": [{{\"inbound\": \"http://{A}@m/1\", \"outbound\": [\"https://{B}@o/2\"]}}]}}"
    );
    assert_eq!(parse(&json).routes, parse(&with("")).routes);
}

#[test]
fn the_error_about_a_tab_in_the_indentation_says_so() {
    let expected = "found a tab, expected spaces: YAML does not allow tabs in indentation";
    for (text, place) in [
        ("keys:\n\t- inbound: x\n", "2:1"),
        ("keys:\n  - inbound: x\n\t  outbound: []\n", "3:1"),
        ("limits:\n  in_flight: 1\n  \tconnections: 2\n", "3:3"),
        ("limits:\n\tin_flight: 1\n", "2:1"),
        (
            "limits:\n  in_flight: 1\n\tconnections: 2\nport: 1\n",
            "3:1",
        ),
    ] {
        assert_eq!(errors(text), format!("c.yml:{place}: {expected}"), "{text}");
    }
    let elsewhere = errors("a: |\n  x\n  \tb\nc: 1\nd: [\n");
    assert!(!elsewhere.contains("a tab"), "{elsewhere}");
}

#[test]
fn a_document_that_is_not_a_mapping_is_an_error() {
    let expected = "expected a mapping with at least the key `keys`";
    for (text, found) in [
        ("", "nothing"),
        ("# only a comment\n", "nothing"),
        ("- a\n", "a list"),
        ("keys\n", r#""keys""#),
    ] {
        assert_eq!(
            errors(text),
            format!("c.yml: found {found}, {expected}"),
            "{text}"
        );
    }
}

#[test]
fn invalid_yaml_is_an_error_with_its_position() {
    for (text, expected) in [
        (
            "keys: [1\nip: 2\n",
            "2:3: invalid YAML: did not find expected ',' or ']' at line 2 column 3, while parsing a flow sequence at line 1 column 7",
        ),
        (
            "\tkeys: 1\n",
            "1:1: found a tab, expected spaces: YAML does not allow tabs in indentation",
        ),
        (
            "a: [@]\n",
            "1:5: invalid YAML: found character that cannot start any token at line 1 column 5, while scanning for the next token",
        ),
        (
            "a: *x\n",
            "1:4: invalid YAML: unknown anchor at line 1 column 4",
        ),
        (
            "a: 1\n---\nb: 1\n",
            " invalid YAML: deserializing from YAML containing more than one document is not supported",
        ),
        (
            "port: 1\nlimits:\n  in_flight: 2\n  in_flight: 3\nport: 2\n",
            "4:3: limits.in_flight: duplicate key (first at 3:3)\nc.yml:5:1: port: duplicate key (first at 1:1)",
        ),
    ] {
        assert_eq!(errors(text), format!("c.yml:{expected}"), "{text}");
    }
}

#[test]
fn variables_override_the_file() {
    let env = [
        ("SENTRY_MIRROR_IP", "::1"),
        ("SENTRY_MIRROR_PORT", "8080"),
        ("SENTRY_MIRROR_LOG_FILTER", "warn,sentry_mirror=debug"),
        ("SENTRY_MIRROR_LOG_FORMAT", "json"),
        ("SENTRY_MIRROR_WORKERS", "2"),
        ("SENTRY_MIRROR_FORWARD_CLIENT_IP", "true"),
        ("SENTRY_MIRROR_REPLY_TIMEOUT", "250ms"),
        ("SENTRY_MIRROR_REPLY_POLICY", ""),
        ("SENTRY_MIRROR_LIMITS_BODY_BYTES", "1MiB"),
        ("SENTRY_MIRROR_TIMEOUTS_HEAD", "1s"),
        ("SENTRY_MIRROR_TLS_SYSTEM_ROOTS", "false"),
        ("SENTRY_MIRROR_POOL_MAX_AGE", "1m"),
        ("SENTRY_MIRROR_BREAKER_FAILURES", "3"),
        ("SENTRY_MIRROR_DNS_REFRESH", "5s"),
        ("SENTRY_MIRROR_MODIFY_ENVELOPE", "false"),
        ("OTHER_PORT", "1"),
    ];
    let text = with("port: 1\nreply_policy: primary\nworkers: wrong\n");
    let config = Config::parse(&text, "c.yml", variables(&env)).unwrap();
    assert_eq!(config.ip.to_string(), "::1");
    assert_eq!(config.port, 8080);
    assert_eq!(config.log.filter, "warn,sentry_mirror=debug");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.workers, Workers::Count(2.try_into().unwrap()));
    assert_eq!(config.client_address.default, AddressPolicy::Send);
    assert_eq!(config.reply_timeout, Duration::from_millis(250));
    assert_eq!(
        config.reply_policy,
        ReplyPolicy::Primary,
        "an empty variable counts as not set"
    );
    assert_eq!(config.limits.body_bytes, 1 << 20);
    assert_eq!(config.limits.timeouts.head, Duration::from_secs(1));
    assert_eq!(config.limits.pool.max_age, Duration::from_secs(60));
    assert_eq!(config.limits.breaker.failures, 3);
    assert_eq!(config.limits.dns_refresh, Duration::from_secs(5));
    assert!(!config.tls.system_roots);
    assert!(!config.modify_envelope);
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// Every key of the example with a scalar value, in any section.
#[test]
fn every_scalar_key_has_a_variable() {
    let document: serde_yaml::Mapping = serde_yaml::from_str(EXAMPLE).unwrap();
    let mut names = Vec::new();
    for (key, value) in &document {
        let key = key.as_str().unwrap();
        match value {
            serde_yaml::Value::Mapping(section) => {
                names.extend(
                    section
                        .keys()
                        .map(|name| format!("{key}.{}", name.as_str().unwrap())),
                );
            }
            serde_yaml::Value::Sequence(_) => {}
            _ if key == "default_metrics_tags" => {}
            _ => names.push(key.to_owned()),
        }
    }
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let variable = format!("SENTRY_MIRROR_{}", name.replace('.', "_").to_uppercase());
        // This is invalid for every key, so the message shows that the variable reached its key.
        let env = [(variable.as_str(), "\u{0}")];
        let parsed = Config::parse(&with(""), "c.yml", variables(&env));
        let is_text = matches!(
            name.as_str(),
            "sentry_env" | "tls.ca_file" | "state_file" | "log_filter"
        );
        match parsed {
            Err(errors) => assert!(errors.to_string().starts_with(&variable), "{name}"),
            Ok(config) => assert!(
                is_text && !config.warnings.iter().any(|w| w.contains("unknown")),
                "{name}"
            ),
        }
    }
}

#[test]
fn a_message_names_the_variable() {
    let nested = [("SENTRY_MIRROR_LIMITS_BODY_BYTES", "much")];
    assert!(
        errors_in(&with("limits: {head_bytes: 4096}\n"), &nested).starts_with(
            "SENTRY_MIRROR_LIMITS_BODY_BYTES: found \"much\", expected a number of bytes"
        )
    );
    assert!(
        errors_in(&with("limits: no\n"), &nested)
            .contains("limits: found \"no\", expected a mapping")
    );

    let port = [("SENTRY_MIRROR_PORT", "x")];
    assert_eq!(
        errors_in(&with("port: 1\n"), &port),
        r#"SENTRY_MIRROR_PORT: found "x", expected a number from 0 to 65535"#
    );
    let tls = [("SENTRY_MIRROR_TLS", "on")];
    assert_eq!(
        errors_in(&with(""), &tls),
        r#"SENTRY_MIRROR_TLS: found "on", expected a mapping"#
    );
    let stray = [
        ("SENTRY_MIRROR_PROT", "1"),
        ("SENTRY_MIRROR_STATSD_ADDR", "h:1"),
    ];
    let config = Config::parse(&with(""), "c.yml", variables(&stray)).unwrap();
    assert_eq!(
        config.warnings,
        ["SENTRY_MIRROR_PROT: unknown key, did you mean port?"]
    );
}

#[test]
fn a_quoted_variable_is_an_error() {
    let message = |value: &str| errors_in(&with(""), &[("SENTRY_MIRROR_PORT", value)]);
    let kept = "with quotes in the value, which `docker run --env-file` does not remove; expected SENTRY_MIRROR_PORT=3000";
    for value in ["\"3000\"", "'3000'"] {
        assert_eq!(
            message(value),
            format!("SENTRY_MIRROR_PORT: found {value:?} {kept}")
        );
    }
    // Also for text, for which the quotes would be valid.
    let env = [("SENTRY_MIRROR_SENTRY_ENV", "\"prod\"")];
    assert!(errors_in(&with(""), &env).contains("expected SENTRY_MIRROR_SENTRY_ENV=prod"));
    let secret = format!("\"https://{A}@o/1\"");
    let env = [("SENTRY_MIRROR_SENTRY_DSN", secret.as_str())];
    let message = errors_in(&with(""), &env);
    assert!(
        !message.contains(A) && message.contains("SENTRY_MIRROR_SENTRY_DSN=https://aaaa"),
        "{message}"
    );
}

#[test]
fn a_variable_does_not_enable_a_section_that_is_off() {
    let port = ("SENTRY_MIRROR_ADMIN_PORT", "9");
    let off = ("SENTRY_MIRROR_ADMIN", "off");
    for (rest, env) in [
        ("admin: off\n", vec![port]),
        ("admin: {port: 1}\n", vec![port, off]),
        ("", vec![off, port]),
    ] {
        let config = Config::parse(&with(rest), "c.yml", variables(&env)).unwrap();
        assert_eq!(config.admin, None, "{rest}");
        assert_eq!(
            config.warnings,
            ["SENTRY_MIRROR_ADMIN_PORT: has no effect: admin is off"]
        );
    }
    let config = Config::parse(&with("admin: {port: 1}\n"), "c.yml", variables(&[port])).unwrap();
    assert_eq!(config.admin.map(|address| address.port()), Some(9));
}

#[test]
fn variables_of_kubernetes_services_are_ignored() {
    let env = [
        ("SENTRY_MIRROR_SERVICE_HOST", "10.0.0.1"),
        ("SENTRY_MIRROR_SERVICE_PORT", "3000"),
        ("SENTRY_MIRROR_PORT", "tcp://10.0.0.1:3000"),
        ("SENTRY_MIRROR_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
    ];
    let config = Config::parse(&with(""), "c.yml", variables(&env)).unwrap();
    assert_eq!(config, parse(&with("")));
}

#[test]
fn an_outbound_that_leads_back_is_an_error() {
    // Without a port in the DSN, the default port of the scheme counts.
    let back = format!("  - http://{A}@m/7\n  - http://{A}@m:80/1\n");
    let expected = "has the key and the host of keys[0].inbound, so that it leads back to this mirror; expected the DSN of another server. If SDKs reach the mirror by the name of that server (a tunnel), write another host in keys[0].inbound: the mirror uses only its key";
    assert_eq!(
        errors(&to(&back)),
        format!(
            "c.yml:4:5: keys[0].outbound[0]: {expected}\nc.yml:5:5: keys[0].outbound[1]: {expected}"
        )
    );
    // An outbound can also lead back through another route.
    let two = format!(
        "keys:\n- inbound: http://{A}@m/1\n  outbound: [http://{B}@n/1]\n- inbound: http://{B}@n/1\n  outbound: [https://{C}@o/1]\n"
    );
    assert!(errors(&two).contains("has the key and the host of keys[1].inbound"));
    for (ip, port, host) in [
        ("0.0.0.0", 3000, "127.0.0.1:3000"),
        ("'::'", 80, "localhost"),
        ("127.0.0.1", 3000, "[::1]:3000"),
        ("10.0.0.1", 3000, "10.0.0.1:3000"),
    ] {
        let text = format!("ip: {ip}\nport: {port}\n");
        let message = errors(&(to(&format!("  - http://{A}@{host}/1\n")) + &text));
        let expected = "so that it leads back to this mirror; expected the DSN of another server";
        assert!(
            message.contains("the address of this mirror ("),
            "{host}: {message}"
        );
        assert!(message.contains(expected), "{host}: {message}");
        // With an unknown key, the mirror rejects the request.
        let other = parse(&(to(&format!("  - http://{B}@{host}/1\n")) + &text));
        assert_eq!(other.warnings, [""; 0], "{host}");
    }
}

#[test]
fn a_suspicious_outbound_is_a_warning() {
    let same_key = format!("  - http://{B}@m/7\n  - https://{A}@m/1\n  - http://{A}@o/1\n");
    let warning = "has the key of keys[0].inbound: if it leads to this mirror, or to another one with that key, its requests are rejected as a loop (508)";
    assert_eq!(
        parse(&to(&same_key)).warnings,
        [
            format!("c.yml:5:5: keys[0].outbound[1]: {warning}"),
            format!("c.yml:6:5: keys[0].outbound[2]: {warning}"),
        ]
    );
    let twice = format!("  - http://{B}@o/1\n  - http://{B}@o/2\n  - dsn: http://{B}@o/1\n");
    assert_eq!(
        parse(&to(&twice)).warnings,
        [
            "c.yml:6:10: keys[0].outbound[2].dsn: is the same DSN as keys[0].outbound[0]: it receives twice what both of them select"
        ]
    );
    let memory = with("limits: {memory_bytes: 100MiB}\n");
    assert_eq!(
        parse(&memory).warnings,
        [
            "c.yml:4:24: limits.memory_bytes: is less than body_bytes or decoded_bytes: the largest bodies are always rejected (503)"
        ]
    );
}

#[test]
fn the_error_about_an_unreadable_file_names_it() {
    let load = |path: &Path| {
        Config::load(path, std::iter::empty())
            .unwrap_err()
            .to_string()
    };
    let missing = Path::new("no/such/config.yml");
    let message = load(missing);
    assert!(message.starts_with("no/such/config.yml: cannot be read: No such file"));
    for word in ["-c FILE", "--help", "sentry-mirror demo"] {
        assert!(message.contains(word), "{word} in {message}");
    }
    let directory = std::env::temp_dir();
    assert!(load(&directory).contains(": cannot be read: Is a directory"));
    let file = directory.join(format!("sentry-mirror-config-{}.yml", std::process::id()));
    std::fs::write(&file, b"port: \xff\n").unwrap();
    let not_text = load(&file);
    std::fs::write(&file, EXAMPLE).unwrap();
    let example = Config::load(&file, std::iter::empty());
    std::fs::remove_file(&file).unwrap();
    let expected = "found invalid UTF-8 at byte 7, expected YAML in UTF-8";
    assert_eq!(not_text, format!("{}: {expected}", file.display()));
    assert_eq!(example, Ok(parse(EXAMPLE)));
}

#[test]
fn a_description_shows_no_key() {
    let config = parse(&format!(
        "ip: '::1'\nkeys:\n- inbound: http://{A}@m/1\n  outbound: [https://{B}@o/2, http://{C}@p/3]\n"
    ));
    let description = config.describe();
    let expected = format!(
        "listen on [::1]:3000\n{}\n  -> {} (primary)\n  -> {}\n",
        config.routes[0].inbound.shortened(),
        config.routes[0].outbounds[0].dsn.shortened(),
        config.routes[0].outbounds[1].dsn.shortened(),
    );
    assert_eq!(description, expected);
    for key in [A, B, C] {
        assert!(!description.contains(key));
    }
}

#[test]
fn a_description_shows_names() {
    let config = parse(&format!(
        "keys:\n- name: checkout\n  inbound: http://{A}@m/1\n  outbound:\n  \
         - {{name: saas, dsn: 'https://{B}@o/2', multiplier: 2}}\n  - http://{C}@p/3\n\
         - {{inbound: 'http://{B}@m/1', outbound: [{{name: saas, dsn: 'https://{C}@o/2'}}]}}\n"
    ));
    let expected = "listen on 0.0.0.0:3000\ncheckout: http://aaaa…@m/1\n  \
                    -> saas: https://bbbb…@o/2 (primary) multiplier 2\n  -> http://cccc…@p/3\n\
                    http://bbbb…@m/1\n  -> saas: https://cccc…@o/2 (primary)\n";
    assert_eq!(config.describe(), expected);
    let effective = config.effective();
    assert!(
        effective.contains("- name: checkout\n  inbound: http://aaaa…@m/1\n"),
        "{effective}"
    );
    assert!(
        effective.contains("  - name: saas\n    dsn: https://bbbb…@o/2\n"),
        "{effective}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(?s)[\\[\\]{}:,#&*!|>'\"%@`a-z0-9 \n\t\\\\-]{0,60}") {
        let _ = Config::parse(&text, "c.yml", std::iter::empty());
    }
}

#[test]
fn as_many_connections_are_kept_as_deliveries_may_be_in_flight() {
    let limits = |extra: &str| {
        let limits = parse(&with(extra)).limits;
        (limits.in_flight, limits.pool.idle_connections)
    };
    assert_eq!(limits(""), (8192, 8192));
    assert_eq!(limits("limits: {in_flight: 9}"), (9, 9));
    assert_eq!(
        limits("limits: {in_flight: auto}\npool: {idle_connections: 7}"),
        (8192, 7)
    );
    assert_eq!(
        limits("limits: {in_flight: 70000}\npool: {idle_connections: auto}"),
        (70_000, 65_536)
    );
}

#[test]
fn references_are_replaced_in_every_kind_of_value() {
    let text = format!(
        "ip: ${{IP:-::1}}\nport: ${{PORT}}\nworkers: ${{W:-auto}}\naccess_log: ${{LOG}}\n\
         limits: {{body_bytes: \"${{SIZE:-1}}MiB\"}}\nsentry_env: a${{LOG}}$$ $x\n\
         keys:\n- inbound: http://${{KEY}}@m/1\n  outbound: [{{dsn: \"${{DSN}}\", sample_rate: \"${{RATE:-0.5}}\"}}]\n\
         sentry_dsn: https://{C}@h/1\nstatsd_addr: h:1\ndefault_metrics_tags: {{a: \"${{LOG}}\", b: \"$LOG\"}}\n"
    );
    let dsn_text = format!("https://{B}@o/2");
    let env = [
        ("PORT", "8000"),
        ("LOG", "json"),
        ("KEY", A),
        ("DSN", &dsn_text),
        ("SENTRY_MIRROR_REPLY_TIMEOUT", "${T:-3s}"),
    ];
    let config = Config::parse(&text, "c.yml", variables(&env)).unwrap();
    assert_eq!(config.ip.to_string(), "::1");
    assert_eq!(config.port, 8000);
    assert_eq!(config.workers, Workers::Auto);
    assert_eq!(config.access_log, Some(LogFormat::Json));
    assert_eq!(config.limits.body_bytes, 1 << 20);
    assert_eq!(config.reply_timeout, Duration::from_secs(3));
    assert_eq!(config.routes[0].inbound, dsn(&format!("http://{A}@m/1")));
    assert_eq!(config.routes[0].outbounds[0].dsn, dsn(&dsn_text));
    assert!(config.routes[0].outbounds[0].selection.is_some());
    let report = config.self_report.unwrap();
    assert_eq!(report.environment.as_deref(), Some("ajson$$ $x"));
    let tags = config.statsd.unwrap().tags;
    assert_eq!(tags["a"], "json");
    assert_eq!(tags["b"], "$LOG");
}

#[test]
fn a_reference_without_a_value_is_an_error_with_its_place() {
    let text = "port: ${PORT}\nlimits: ${L}\nkeys:\n- inbound: http://${KEY}@m/1\n  \
                outbound: [\"file:/does/not/exist\", \"file:x\", \"${A B}\"]\n";
    let expected = "\
c.yml:1:7: port: the environment variable PORT is not set or empty; expected a value, or ${PORT:-DEFAULT}
c.yml:2:9: limits: the environment variable L is not set or empty; expected a value, or ${L:-DEFAULT}
c.yml:4:12: keys[0].inbound: the environment variable KEY is not set or empty; expected a value, or ${KEY:-DEFAULT}
c.yml:5:14: keys[0].outbound[0]: \"file:/does/not/exist\": the file cannot be read: No such file or directory (os error 2)
c.yml:5:38: keys[0].outbound[1]: found \"file:x\", expected an absolute path, such as file:/run/secrets/sentry_dsn
c.yml:5:48: keys[0].outbound[2]: found ${ without the name of a variable and }, expected ${NAME} or ${NAME:-DEFAULT}, or $${ for the text ${";
    assert_eq!(errors_in(text, &[("PORT", "")]), expected);
    let variable = [("SENTRY_MIRROR_PORT", "${X}")];
    assert!(errors_in(&with(""), &variable).starts_with("SENTRY_MIRROR_PORT: the environment"));
}

/// getsentry/sentry-mirror takes any text there.
#[test]
fn a_reference_without_a_value_stays_where_any_text_was_valid() {
    let config = parse(&with(&format!(
        "sentry_dsn: https://{C}@h/1\nsentry_env: ${{X}}\nstatsd_addr: h:1\n\
         default_metrics_tags: {{a: '${{', b: file:x}}\n"
    )));
    let report = config.self_report.unwrap();
    assert_eq!(report.environment.as_deref(), Some("${X}"));
    let tags = config.statsd.unwrap().tags;
    assert_eq!(tags["a"], "${");
    assert_eq!(tags["b"], "file:x");
    let warnings = config.warnings.join("\n");
    assert_eq!(config.warnings.len(), 3, "{warnings}");
    assert!(warnings.contains("c.yml:5:13: sentry_env: the environment variable X is not set"));
}

#[test]
fn the_value_of_a_reference_is_never_shown() {
    const SECRET: &str = "s3cr3t";
    let values = [
        ("port", "a number from 0 to 65535"),
        ("workers", "auto or a number"),
        ("log_filter", "log directives"),
        ("reply_timeout", "a duration from"),
        ("reply_policy", "first_success or primary"),
        ("external_url", "a URL"),
        ("limits.body_bytes", "a number of bytes"),
        ("keys[0].inbound", "a DSN"),
        ("keys[0].outbound[0].categories[0]", "a category, one of"),
        ("keys[0].outbound[0].sample_rate", "a number from 0 to 1"),
        ("tls", "a mapping"),
        ("statsd_addr", "an address"),
    ];
    let text = "port: ${S}\nworkers: ${S}\nlog_filter: a=${S}\nreply_timeout: ${S}\nreply_policy: ${S}\n\
                external_url: ${S}\nlimits: {body_bytes: \"${S}\"}\nkeys:\n- inbound: ${S}\n  \
                outbound: [{dsn: \"http://${S}:hidden@m/x\", categories: [\"${S}\"], sample_rate: \"${S}\"}]\n\
                tls: ${S}\nstatsd_addr: ${S}\n";
    for value in [SECRET, "1s3cr3t/x", "-7777777"] {
        let errors = errors_in(text, &[("S", value)]);
        for (key, expected) in values {
            let line = errors.lines().find(|line| line.contains(key));
            let line = line.unwrap_or_else(|| panic!("{key} in {errors}"));
            assert!(line.contains("found another value from"), "{line}");
            assert!(line.contains(expected), "{line}");
        }
        for secret in [SECRET, "7777", "hidden"] {
            assert!(!errors.contains(secret), "{errors}");
        }
    }
}

#[test]
fn an_outbound_may_never_reply_unless_no_other_does() {
    let config = parse(&to(&format!(
        "  - {{dsn: https://{B}@o/2, reply: never}}\n  - {{dsn: https://{C}@p/3, reply: auto}}\n"
    )));
    assert_eq!(
        config.describe().lines().skip(2).collect::<Vec<_>>(),
        [
            "  -> https://bbbb…@o/2 reply never",
            "  -> https://cccc…@p/3 (primary)"
        ]
    );
    let all = format!("  - {{dsn: https://{B}@o/2, reply: never}}\n");
    assert_eq!(
        errors(&to(&all)),
        "c.yml:4:5: keys[0].outbound: found reply: never in all of them, expected one that SDKs get a reply from"
    );
    let other = errors(&to(&all.replace("never", "no")));
    assert!(
        other.ends_with("outbound[0].reply: found \"no\", expected auto or never"),
        "{other}"
    );
}

//! Which address each outbound gets, by peer, trusted proxies, received fields and settings.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{IN_KEY, KEY_A, KEY_B, Process, Upstream, config};

/// Fields with a forged address each, besides the one that counts.
const FORGED: &str = "CF-Connecting-IP: 198.51.100.1\r\nTrue-Client-IP: 198.51.100.2\r\nX-Sentry-Forwarded-For: 198.51.100.3\r\nX-Vercel-Forwarded-For: 198.51.100.4\r\n";

/// What two outbounds get of addresses, from a peer at 127.0.0.1 that sends these lines.
struct Case {
    /// The settings of the outbounds, empty for none.
    outbounds: [&'static str; 2],
    extra: &'static str,
    lines: &'static str,
    expected: [&'static [&'static str]; 2],
    /// What the access log says.
    client: &'static str,
}

const SEND_HIDE: [&str; 2] = ["send", "hide"];
const TRUSTED: &str = "client_address: {trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]}";
const LOGGED: &str = "access_log: json";

/// The names of the fields that tell an address.
const NAMES: [&str; 7] = [
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
    "x-sentry-forwarded-for",
    "x-vercel-forwarded-for",
];

const CASES: &[Case] = &[
    // By default nothing is told.
    Case {
        outbounds: ["", ""],
        extra: "",
        lines: "X-Forwarded-For: 203.0.113.9\r\n",
        expected: [&[], &[]],
        client: "127.0.0.1",
    },
    // Nobody is trusted: the peer is the client, whatever it claims.
    Case {
        outbounds: SEND_HIDE,
        extra: "client_address: {trusted_proxies: []}",
        lines: "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.8\r\n",
        expected: [&["X-Forwarded-For: 127.0.0.1"], &[]],
        client: "127.0.0.1",
    },
    // The peer is not among those trusted.
    Case {
        outbounds: SEND_HIDE,
        extra: "client_address: {trusted_proxies: [10.0.0.0/8]}",
        lines: "X-Forwarded-For: 203.0.113.9\r\n",
        expected: [&["X-Forwarded-For: 127.0.0.1"], &[]],
        client: "127.0.0.1",
    },
    // A trusted peer names its client, which has forged another address.
    Case {
        outbounds: SEND_HIDE,
        extra: TRUSTED,
        lines: "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 203.0.113.9\r\n",
        expected: [&["X-Forwarded-For: 203.0.113.9"], &[]],
        client: "203.0.113.9",
    },
    Case {
        outbounds: SEND_HIDE,
        extra: TRUSTED,
        lines: "X-Forwarded-For: 10.0.0.9, [2001:db8::9]:443, 10.0.0.3\r\n",
        expected: [&["X-Forwarded-For: 2001:db8::9"], &[]],
        client: "2001:db8::9",
    },
    Case {
        outbounds: SEND_HIDE,
        extra: TRUSTED,
        lines: "",
        expected: [&["X-Forwarded-For: 127.0.0.1"], &[]],
        client: "127.0.0.1",
    },
    // Another field. The proxy does not write X-Forwarded-For, so a client has.
    Case {
        outbounds: ["hide", "send"],
        extra: "client_address: {trusted_proxies: [127.0.0.1], field: Forwarded}",
        lines: "X-Forwarded-For: 198.51.100.9\r\nForwarded: for=_x, for=\"[2001:db8::9]\";proto=https\r\n",
        expected: [&[], &["X-Forwarded-For: 2001:db8::9"]],
        client: "2001:db8::9",
    },
    // The peer is in a network of IPv4-mapped addresses.
    Case {
        outbounds: SEND_HIDE,
        extra: "client_address: {trusted_proxies: ['::ffff:127.0.0.0/104']}",
        lines: "X-Forwarded-For: 203.0.113.9\r\n",
        expected: [&["X-Forwarded-For: 203.0.113.9"], &[]],
        client: "203.0.113.9",
    },
    // The synonym for all outbounds, and an exception.
    Case {
        outbounds: ["", "hide"],
        extra: "forward_client_ip: true\nclient_address: {trusted_proxies: [127.0.0.1]}",
        lines: "X-Forwarded-For: 203.0.113.9\r\n",
        expected: [&["X-Forwarded-For: 203.0.113.9"], &[]],
        client: "203.0.113.9",
    },
    // Without trusted proxies all of it goes on as it came.
    Case {
        outbounds: ["", "send"],
        extra: "forward_client_ip: true",
        lines: "X-Forwarded-For: 198.51.100.9, 203.0.113.9\r\nForwarded: for=_x\r\n",
        expected: [
            &[
                "X-Forwarded-For: 198.51.100.9, 203.0.113.9",
                "Forwarded: for=_x",
                "CF-Connecting-IP: 198.51.100.1",
                "True-Client-IP: 198.51.100.2",
                "X-Sentry-Forwarded-For: 198.51.100.3",
                "X-Vercel-Forwarded-For: 198.51.100.4",
                "X-Forwarded-For: 127.0.0.1",
            ],
            &[
                "X-Forwarded-For: 198.51.100.9, 203.0.113.9",
                "Forwarded: for=_x",
                "CF-Connecting-IP: 198.51.100.1",
                "True-Client-IP: 198.51.100.2",
                "X-Sentry-Forwarded-For: 198.51.100.3",
                "X-Vercel-Forwarded-For: 198.51.100.4",
                "X-Forwarded-For: 127.0.0.1",
            ],
        ],
        client: "127.0.0.1",
    },
];

#[test]
fn each_outbound_gets_the_address_that_its_setting_and_the_proxies_allow() {
    for case in CASES {
        let upstreams = [Upstream::ok(), Upstream::ok()];
        let keys = [KEY_A, KEY_B];
        let outbounds: Vec<String> = (0..2)
            .map(|at| {
                let dsn = upstreams[at].dsn(keys[at], 11);
                match case.outbounds[at] {
                    "" => dsn,
                    setting => format!("{{dsn: '{dsn}', client_address: {setting}}}"),
                }
            })
            .collect();
        let text = config(&outbounds, &format!("{}\n{LOGGED}", case.extra));
        let mut mirror = Process::start_with_stdout(&text, Stdio::piped());
        let lines = crate::access_log::lines(mirror.take_stdout());
        let request = format!(
            "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n{}{FORGED}Content-Length: 2\r\n\r\n{{}}",
            case.lines
        );
        assert_eq!(mirror.client().ask(request.as_bytes()).status, 200);
        for (upstream, expected) in upstreams.iter().zip(case.expected) {
            let got = upstream.wait_for(1).remove(0);
            let is_address = |name: &str| NAMES.contains(&name.to_ascii_lowercase().as_str());
            let fields = got.fields.iter().filter(|(name, _)| is_address(name));
            let fields: Vec<String> = fields
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            assert_eq!(fields, expected, "{:?} {}", case.outbounds, case.extra);
        }
        let line: Value = serde_json::from_str(&crate::access_log::next(&lines)).expect("JSON");
        assert_eq!(line["client"], case.client, "{}", case.extra);
    }
}

/// The fields in which proxies write addresses, as they spell them.
const OF_PROXIES: [&str; 24] = [
    "X-Forwarded-For",
    "Forwarded",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
    "X-Sentry-Forwarded-For",
    "X-Vercel-Forwarded-For",
    "CF-Connecting-IPv6",
    "CF-Pseudo-IPv4",
    "CloudFront-Viewer-Address",
    "DO-Connecting-IP",
    "Fastly-Client-IP",
    "Fly-Client-IP",
    "Forwarded-For",
    "X-Appengine-User-IP",
    "X-Azure-ClientIP",
    "X-Azure-SocketIP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Envoy-External-Address",
    "X-Forwarded",
    "X-Nf-Client-Connection-Ip",
    "X-Original-Forwarded-For",
    "X-ProxyUser-Ip",
];

#[test]
fn no_field_of_a_proxy_tells_an_address_that_is_hidden() {
    let sent: String = OF_PROXIES
        .map(|name| format!("{name}: 203.0.113.9\r\n"))
        .concat();
    let request = format!(
        "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n{sent}Content-Length: 2\r\n\r\n{{}}"
    );
    for (extra, expected) in [
        ("", Vec::new()),
        (TRUSTED, Vec::new()),
        ("forward_client_ip: true", OF_PROXIES.to_vec()),
    ] {
        let a = Upstream::ok();
        let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], extra));
        assert_eq!(mirror.client().ask(request.as_bytes()).status, 200);
        let got = a.wait_for(1).remove(0);
        let fields = got.fields.iter();
        let with_address = fields.filter(|(_, value)| value == "203.0.113.9");
        let names: Vec<&str> = with_address.map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, expected, "{extra}");
    }
}

#[test]
fn connections_of_a_trusted_proxy_have_no_limit_per_peer() {
    let a = Upstream::ok();
    let start = |extra: &str| {
        let limit = "limits: {connections_per_peer: 1}\nworkers: 1\nlog_filter: debug";
        Process::start(&config(&[a.dsn(KEY_A, 11)], &format!("{limit}\n{extra}")))
    };
    let health = b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n";
    let mirror = start("client_address: {trusted_proxies: [127.0.0.1]}");
    let mut clients = [mirror.client(), mirror.client(), mirror.client()];
    for client in &mut clients {
        assert_eq!(client.ask(health).status, 200);
    }
    let mirror = start("client_address: {trusted_proxies: [10.0.0.1]}");
    let mut first = mirror.client();
    assert_eq!(first.ask(health).status, 200);
    let _second = mirror.client();
    mirror.wait_for_line("connection closed: limits.connections_per_peer");
}

#[test]
fn a_browser_whose_address_is_lost_causes_one_warning() {
    const WARNING: &str = "no outbound gets their addresses";
    let a = Upstream::ok();
    let request = |user_agent: &str| {
        format!(
            "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nuser-agent: {user_agent}\r\nContent-Length: 2\r\n\r\n{{}}"
        )
    };
    let browser = request("Mozilla/5.0 (X11; Linux x86_64)");
    for (extra, is_warned) in [("", true), ("forward_client_ip: false", false)] {
        let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], extra));
        for text in [&request("sentry.python/2.75.0"), &browser, &browser] {
            assert_eq!(mirror.client().ask(text.as_bytes()).status, 200);
        }
        mirror.signal("TERM");
        let (_, log) = mirror.wait();
        let warnings = log.iter().filter(|line| line.contains(WARNING)).count();
        assert_eq!(warnings, usize::from(is_warned), "{extra} {log:?}");
    }
}

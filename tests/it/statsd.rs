//! What a statsd server receives.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::thread;

use crate::support::process::file;
use crate::support::{
    Config, IN_KEY, KEY_A, KEY_B, PATIENCE, Process, Upstream, config, envelope, envelope_request,
};

/// All lines up to one that `is_last`.
fn received(socket: &UdpSocket, is_last: impl Fn(&str) -> bool) -> Vec<String> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines: Vec<String> = Vec::new();
    let mut room = [0; 65_536];
    while !lines.iter().any(|line| is_last(line)) {
        let count = socket.recv(&mut room).expect("another datagram in time");
        assert!(count <= 1400, "{count}");
        let text = std::str::from_utf8(&room[..count]).expect("text");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn legacy_and_new_metrics_arrive_with_the_counts() {
    let (upstream, server) = (Upstream::ok(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let extra = format!(
        "statsd_addr: {}\ndefault_metrics_tags: {{region: eu, tier: '1'}}",
        server.local_addr().unwrap()
    );
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], &extra));
    let mut client = mirror.client();
    for _ in 0..3 {
        let response = client.ask(&envelope_request(envelope("00").as_bytes()));
        assert_eq!(response.status, 200);
    }
    client.ask(b"POST /api/42/store/ HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n");
    // The last push follows the last delivery.
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
    let lines = received(&server, |line| {
        line.starts_with("sentrymirror.handle_proxy.send_request.duration:")
    });
    let tags = "region:eu,tier:1";
    let route = "route:http://0123@mirror.example.com/42";
    let outbound = format!("outbound:http://aaaa@{}/11", upstream.address);
    for expected in [
        format!("sentrymirror.requests:3|c|#{tags},{route},result:accepted"),
        format!("sentrymirror.deliveries:3|c|#{tags},{route},{outbound},outcome:2xx"),
        format!("sentrymirror.rejections:1|c|#{tags},reason:no_key"),
        format!("sentrymirror.ready:0|g|#{tags}"),
        format!("sentrymirror.handle_request.request:4|c|#{tags}"),
        format!("sentrymirror.handle_proxy.no_dsn:1|c|#{tags}"),
        format!(
            "sentrymirror.handle_proxy.response:3|c|#{tags},inbound_key:http://0123@mirror.example.com/42"
        ),
        format!(
            "sentrymirror.handle_proxy.outbound_request.start:3|c|#{tags},outbound_host:{}",
            upstream.address
        ),
        format!(
            "sentrymirror.handle_proxy.outbound_request.success:3|c|#{tags},outbound_host:{}",
            upstream.address
        ),
    ] {
        assert!(lines.contains(&expected), "no {expected} in {lines:#?}");
    }
    // Each request is counted in one of the lines of its duration.
    for name in [
        "handle_proxy.duration",
        "request_duration",
        "delivery_duration",
    ] {
        let of_name = lines
            .iter()
            .filter(|line| line.starts_with(&format!("sentrymirror.{name}:")));
        let counts = of_name.map(|line| {
            let (_, rest) = line.split_once("|d|@").unwrap();
            let rate: f64 = rest.split('|').next().unwrap().parse().unwrap();
            (1.0 / rate).round()
        });
        assert_eq!(counts.sum::<f64>(), 3.0, "{name}");
    }
    assert!(
        lines
            .iter()
            .all(|line| line.is_ascii() && !line.contains(IN_KEY))
    );
}

#[test]
fn metrics_arrive_at_a_socket_in_the_file_system_and_its_absence_is_logged() {
    let path = std::env::temp_dir().join(format!("sm-statsd-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let upstream = Upstream::ok();
    let extra = format!("statsd_addr: unix:{}", path.display());
    let text = config(&[upstream.dsn(KEY_A, 11)], &extra);
    for is_there in [true, false] {
        let server = is_there.then(|| UnixDatagram::bind(&path).unwrap());
        let reader = server.map(|server| {
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || {
                let (mut lines, mut room) = (Vec::<String>::new(), [0; 65_536]);
                while !lines.iter().any(|line| is_end(line)) {
                    let count = server.recv(&mut room).expect("another datagram in time");
                    let text = std::str::from_utf8(&room[..count]).expect("text");
                    lines.extend(text.lines().map(str::to_owned));
                }
                lines
            })
        });
        let mirror = Process::start(&text);
        let request = envelope_request(envelope("00").as_bytes());
        assert_eq!(mirror.client().ask(&request).status, 200);
        mirror.signal("TERM");
        let (status, log) = mirror.wait();
        assert_eq!(status.code(), Some(0));
        let what = format!(
            "cannot send metrics to statsd_addr; they are lost until this works again server=unix:{}",
            path.display()
        );
        let is_logged = log.iter().any(|line| line.contains(&what));
        assert_eq!(is_logged, !is_there, "{log:?}");
        if let Some(reader) = reader {
            let lines = reader.join().unwrap();
            let is_request = |line: &String| line.starts_with("sentrymirror.requests:1|c|");
            assert!(lines.iter().any(is_request), "{lines:?}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}

/// The names in the first column of the document's table, without the prefix.
fn promised() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coming-from-getsentry.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, section) = document.split_once("## Names of metrics").unwrap();
    let section = section.split("\n##").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned())
        .collect()
}

/// What comes last in a push, where something was delivered.
fn is_end(line: &str) -> bool {
    line.starts_with("sentrymirror.handle_proxy.send_request.duration:")
}

#[test]
fn the_documented_legacy_metrics_are_sent() {
    let (upstream, server) = (Upstream::ok(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let outbounds = [
        upstream.dsn(KEY_A, 11),
        format!("http://{KEY_B}@nowhere.invalid/22"),
        format!("{{dsn: {}, sample_rate: 0}}", upstream.dsn(KEY_B, 33)),
    ];
    let extra = format!("statsd_addr: {}", server.local_addr().unwrap());
    let mirror = Process::start(&config(&outbounds, &extra));
    let post = |target: &str, fields: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: 2\r\n\r\n{{}}")
    };
    let of_key = |key: &str| format!("/api/42/envelope/?sentry_key={key}");
    for (request, status) in [
        (post("/api/42/store/", ""), 401),
        (post(&of_key(KEY_A), ""), 403),
        (post(&of_key(IN_KEY), "Content-Encoding: gzip\r\n"), 400),
        (
            format!("PUT {} HTTP/1.1\r\nHost: m\r\n\r\n", of_key(IN_KEY)),
            405,
        ),
    ] {
        assert_eq!(mirror.client().ask(request.as_bytes()).status, status);
    }
    let good = envelope_request(envelope("00").as_bytes());
    assert_eq!(mirror.client().ask(&good).status, 200);
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
    let lines = received(&server, is_end);
    let names = lines.iter().map(|line| {
        let (name, _) = line.split_once(':').unwrap();
        name.strip_prefix("sentrymirror.").unwrap()
    });
    let old = names.filter(|name| name.starts_with("handle_"));
    assert_eq!(promised(), old.map(str::to_owned).collect());
}

#[test]
fn increments_are_pushed_every_ten_seconds_and_a_reload_adds_none() {
    let (upstream, server) = (Upstream::ok(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let statsd = server.local_addr().unwrap().to_string();
    let one = |project| {
        Config::without_routes().set("statsd_addr", &*statsd).route(
            IN_KEY,
            project,
            [upstream.dsn(KEY_A, 11)],
        )
    };
    let both = one(42).route(KEY_B, 7, [upstream.dsn(KEY_B, 22)]);
    let path = file("config.yml", &both.text());
    let mirror = Process::start_at(&path);
    let mut client = mirror.client();
    let good = String::from_utf8(envelope_request(envelope("00").as_bytes())).unwrap();
    let to_other = good.replace(IN_KEY, KEY_B);
    for request in [&good, &good, &good, &to_other, &to_other] {
        assert_eq!(client.ask(request.as_bytes()).status, 200);
    }
    let counted = |lines: &[String], name: &str| -> u64 {
        let lines = lines.iter();
        let of_name = lines.filter_map(|line| {
            let rest = line.strip_prefix("sentrymirror.")?.strip_prefix(name)?;
            let (count, _) = rest.strip_prefix(':')?.split_once("|c")?;
            Some(count.parse::<u64>().unwrap())
        });
        of_name.sum()
    };
    let names = [
        "requests",
        "deliveries",
        "handle_request.request",
        "handle_proxy.response",
        "handle_proxy.outbound_request.start",
        "handle_proxy.outbound_request.success",
    ];
    let first = received(&server, is_end);
    assert!(
        first
            .iter()
            .any(|line| line.starts_with("sentrymirror.ready:1|g"))
    );
    for name in names {
        assert_eq!(counted(&first, name), 5, "{name} in {first:#?}");
    }
    // One route is removed, and the other renamed.
    std::fs::write(&path, one(43).text()).unwrap();
    mirror.signal("HUP");
    mirror.wait_for_line("configuration reloaded");
    assert_eq!(client.ask(good.as_bytes()).status, 200);
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
    // The rest of the first push may come before it: durations that did not fit into the datagram that was its last.
    let is_count = |line: &str| line.starts_with("sentrymirror.requests:");
    let mut second = received(&server, is_count);
    let counts = second.iter().position(|line| is_count(line)).unwrap();
    if !second[counts..].iter().any(|line| is_end(line)) {
        second.extend(received(&server, is_end));
    }
    for name in names {
        assert_eq!(counted(&second, name), 1, "{name} in {second:#?}");
    }
    for line in second.iter().filter(|line| line.contains("|d|@")) {
        assert!(line.contains("|d|@1|") || line.ends_with("|d|@1"), "{line}");
    }
}

#[test]
fn a_missing_statsd_server_is_logged_once_and_changes_nothing() {
    let upstream = Upstream::ok();
    let extra = "statsd_addr: nowhere.invalid:8125";
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], extra));
    assert_eq!(
        mirror
            .client()
            .ask(&envelope_request(envelope("00").as_bytes()))
            .status,
        200
    );
    mirror.signal("TERM");
    let (status, log) = mirror.wait();
    assert_eq!(status.code(), Some(0));
    let told = log
        .iter()
        .filter(|line| line.contains("cannot send metrics to statsd_addr"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

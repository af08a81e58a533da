//! Small requests that cause a lot of work for outbounds with options: memory stays within the documented
//! bound, and other clients are served meanwhile.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_yaml::Value;

use crate::support::documented_limits::*;
use crate::support::{
    Config, IN_KEY, KEY_A, KEY_B, Process, Upstream, config, outbound, wait_until,
};

/// The limits of this test.
const MEMORY_BYTES: usize = 48 * MIB;
const CONNECTIONS: usize = 40;
const IN_FLIGHT: usize = 32;

const BOUND_BYTES: usize = PROCESS_BYTES
    + WORKER_BYTES
    + MEMORY_BYTES
    + CONNECTIONS * CONNECTION_BYTES
    + 2 * IN_FLIGHT * UPSTREAM_BYTES;

/// The longest that the mirror may work on something else while another connection waits for a reply:
/// several times the work on the worst payload. It is CPU time of the mirror, since other tests run at the
/// same time. A debug build is much slower than a release build.
const WORK_MAX: Duration = match cfg!(debug_assertions) {
    true => Duration::from_millis(1_200),
    false => Duration::from_millis(100),
};

/// The number of items of an envelope, each nearly as long as the longest that the mirror parses.
const ITEMS: usize = 3;

fn item(kind: &str, payload: &str) -> String {
    format!(
        "{{\"type\":\"{kind}\",\"length\":{}}}\n{payload}\n",
        payload.len()
    )
}

/// `text`, repeated as often as fits.
fn full(start: &str, text: &str, end: &str) -> String {
    [start, &text.repeat(2 * (MIB - KIB) / text.len()), end].concat()
}

/// The items of envelopes that ask for much work or memory.
fn attacks() -> Vec<String> {
    let numbers = full("{\"items\":[", "1,", "1]}");
    let objects = full("{\"items\":[{\"a\":[", "{},", "1]}]}");
    let strings = full("{\"trace_ids\":[", "\"\",", "1]}");
    let ids = full(
        "{\"trace_ids\":[",
        "\"771a43a4192642f0b136d5159a501700\",",
        "1]}",
    );
    let traces: Vec<String> = (0..9_000)
        .map(|number| format!("{{\"trace_id\":\"{number:032x}\"}}"))
        .collect();
    let traces = format!("{{\"items\":[{}]}}", traces.join(","));
    let header = format!(
        "{{\"type\":\"log\",\"x\":[{}1]}}\n{{}}\n",
        "1,".repeat(2 * MIB)
    );
    let laborious = [
        item("log", &numbers).repeat(ITEMS),
        item("span", &objects).repeat(ITEMS),
        item("event", &strings).repeat(ITEMS),
        item("transaction", &ids).repeat(ITEMS),
        item("log", &traces) + &item("trace_metric", &traces),
        item("attachment", &numbers).repeat(ITEMS) + &item("log", &traces),
        "{\"type\":\"log\"}\n{\"items\":[1]}\n".repeat(500),
        "{}\n\n".repeat(MIB),
        header,
    ];
    // Enough cheap ones that sampling drops some.
    let easy = std::iter::repeat_n(item("event", "{}"), 40);
    laborious.into_iter().chain(easy).collect()
}

fn request(items: &str) -> Vec<u8> {
    let mut body = GzEncoder::new(Vec::new(), Compression::fast());
    body.write_all(b"{}\n").expect("memory");
    body.write_all(items.as_bytes()).expect("memory");
    let body = body.finish().expect("memory");
    let head = format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// The CPU time of a process.
fn worked(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(10 * ticks)
}

#[test]
fn work_on_a_small_request_is_bounded_and_leaves_time_for_others() {
    let upstreams = [(); 4].map(|()| Upstream::ok());
    let [all, sampled, copied, logged] = &upstreams;
    let sampling = "{sample_rate: 0.5, compression: gzip}";
    let mirror = Config::new::<Value>([
        all.dsn(KEY_A, 11).into(),
        outbound(&sampled.dsn(KEY_B, 22), sampling),
        outbound(&copied.dsn(KEY_B, 33), "multiplier: 2"),
        outbound(&logged.dsn(KEY_B, 44), "sample_rate: {log: 0.3}"),
    ])
    .with_metrics()
    .set("limits.memory_bytes", format!("{MEMORY_BYTES}B"))
    .set("limits.connections", CONNECTIONS)
    .set("limits.in_flight", IN_FLIGHT)
    .start();
    let is_over = Arc::new(AtomicBool::new(false));
    let watch = {
        let (is_over, mut client, id) = (Arc::clone(&is_over), mirror.client(), mirror.id());
        thread::spawn(move || {
            let mut works = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let before = worked(id);
                let response = client.ask(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n");
                assert_eq!(response.status, 200);
                works.push(worked(id) - before);
            }
            works
        })
    };
    let mut client = mirror.client();
    let attacks = attacks();
    for (number, attack) in attacks.iter().enumerate() {
        let request = request(attack);
        assert!(request.len() < 2 * MIB, "{number}: {}", request.len());
        assert_eq!(client.ask(&request).status, 200, "{number}");
        // One for each outbound, and one copy.
        let expected = 5.0 * (number + 1) as f64;
        let ended = || mirror.metrics().sum("sentry_mirror_deliveries_total", &[]);
        wait_until(|| ended() >= expected, || format!("{number}: {}", ended()));
    }
    is_over.store(true, Ordering::Relaxed);
    let works = watch.join().expect("it is answered");
    let longest = works.iter().max().expect("some");
    let peak = mirror.peak_bytes();
    println!(
        "{} answers, {longest:?} of work before one at most; {peak} of {BOUND_BYTES} bytes",
        works.len()
    );
    assert!(*longest < WORK_MAX, "{longest:?}");
    assert!(peak < BOUND_BYTES, "{peak} of {BOUND_BYTES}");

    // Every delivery that did not happen is counted.
    let metrics = mirror.metrics();
    let deliveries = |outcome: &str| {
        metrics.sum(
            "sentry_mirror_deliveries_total",
            &[&format!("outcome=\"{outcome}\"")],
        )
    };
    let got: usize = upstreams
        .iter()
        .map(|upstream| upstream.received().len())
        .sum();
    assert_eq!(deliveries("2xx"), got as f64);
    assert!(deliveries("sampled") > 0.0);
    let total = 5.0 * attacks.len() as f64;
    assert_eq!(
        deliveries("2xx") + deliveries("sampled") + deliveries("overloaded"),
        total
    );
}

#[test]
fn a_body_with_an_extreme_compression_ratio_is_refused() {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], "workers: 1\n"));
    let member = |payload: &[u8]| {
        let mut writer = GzEncoder::new(Vec::new(), Compression::best());
        writer.write_all(payload).expect("memory");
        writer.finish().expect("memory")
    };
    let front = member(b"{}\n{\"type\":\"attachment\"}\n");
    let zeros = |mebibytes| member(&[0; MIB]).repeat(mebibytes);
    let send = |body: &[u8]| {
        let head = format!(
            "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        mirror.client().ask(&[head.as_bytes(), body].concat())
    };
    let small = [front.clone(), zeros(15)].concat();
    assert!(15 * MIB / small.len() > 200, "{}", small.len());
    assert_eq!(send(&small).status, 200, "up to 16 MiB any ratio will do");
    let bomb = [front.clone(), zeros(17)].concat();
    assert_eq!(send(&bomb).status, 413);
    // With noise in between the ratio is that of an honest body.
    let mut number = 1_u32;
    let noise = std::iter::repeat_with(|| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number.to_be_bytes()[0]
    });
    let noise = member(&noise.take(MIB / 8).collect::<Vec<u8>>());
    let honest = [front, noise, zeros(17)].concat();
    assert_eq!(send(&honest).status, 200);
    assert_eq!(upstream.wait_for(2).len(), 2);
}

#[test]
fn a_body_whose_header_names_no_route_is_refused_before_the_rest_is_decoded() {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(
        &[upstream.dsn(KEY_A, 11)],
        "workers: 1\nadmin: {port: 0}\n",
    ));
    let unknown = "7".repeat(32);
    let send = |header: &str, rest: &[u8], is_broken: bool| {
        let mut body = GzEncoder::new(Vec::new(), Compression::best());
        body.write_all(header.as_bytes()).expect("memory");
        body.write_all(b"\n{\"type\":\"attachment\"}\n")
            .expect("memory");
        body.write_all(rest).expect("memory");
        let mut body = body.finish().expect("memory");
        if is_broken {
            body.truncate(body.len() - 16);
        }
        let head = format!(
            "POST /tunnel HTTP/1.1\r\nHost: m\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        mirror
            .client()
            .ask(&[head.as_bytes(), &body].concat())
            .status
    };
    let dsn = |key: &str| format!("{{\"dsn\":\"https://{key}@mirror.example/42\"}}");
    let mut number = 1_u32;
    let noise = std::iter::repeat_with(|| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(MIB / 4).collect();
    let bomb = vec![0; 17 * MIB];
    for (header, whole, broken, bombed) in [
        (dsn(IN_KEY), 200, 400, 413),
        (dsn(&unknown), 403, 403, 403),
        (dsn("x"), 400, 400, 400),
        ("{}".to_owned(), 401, 401, 401),
    ] {
        assert_eq!(send(&header, &noise, false), whole, "{header}");
        assert_eq!(send(&header, &noise, true), broken, "{header}");
        assert_eq!(send(&header, &bomb, false), bombed, "{header}");
    }
    assert_eq!(upstream.wait_for(1).len(), 1);
    let metrics = mirror.metrics();
    let rejections = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        metrics.sum("sentry_mirror_rejections_total", &[&label])
    };
    assert_eq!(rejections("unknown_key"), 3.0);
    assert_eq!(rejections("no_envelope_key"), 3.0);
    assert_eq!(rejections("decode"), 1.0);
    assert_eq!(rejections("decoded_too_large"), 1.0);
}

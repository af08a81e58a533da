//! Three requests as SDKs send them, byte for byte in shape: an error, a transaction, a replay.
//!
//! They differ in all that makes mirroring more than a copy: where the key is (a header, the query,
//! only the envelope), how the body comes (gzip, chunks, as it is), which key sites the envelope has
//! (`trace.public_key`, `dsn`) and what follows them (JSON, binary). Header names, their order and
//! the envelope headers are those of sentry-python 2.75, @sentry/node 10.78 and @sentry/browser 11.12
//! with the option `tunnel`. The contents are made up.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use crate::sentry::dsn::Dsn;

/// The ids of the three events, which are also what the SDKs get as answers.
const ERROR_ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const TRANSACTION_ID: &str = "4c79f60c11214eb38604f4ae0781bfb2";
const REPLAY_ID: &str = "7b6f2c1de85a4c0f9a3d2e1f00c4b5a6";

const TRACE_ID: &str = "771a43a4192642f0b136d5159a501700";

/// A request, ready to be sent.
pub(super) struct Sending {
    /// What it is.
    pub(super) title: &'static str,
    /// What is special about it.
    pub(super) remark: &'static str,
    /// The event that the answer has to name.
    pub(super) event_id: &'static str,
    /// The request.
    pub(super) bytes: Vec<u8>,
}

/// The requests of three SDKs that have `dsn`.
pub(super) fn sendings(dsn: &Dsn) -> io::Result<[Sending; 3]> {
    Ok([error(dsn)?, transaction(dsn), replay(dsn)?])
}

/// gzip, a Content-Length and `X-Sentry-Auth`.
fn error(dsn: &Dsn) -> io::Result<Sending> {
    let key = dsn.key();
    let event = error_event().to_string();
    let length = event.len();
    let envelope = format!(
        "{{\"event_id\":\"{ERROR_ID}\",\"sent_at\":\"2026-11-23T15:32:05.903898Z\",\"trace\":{{\"trace_id\":\"{TRACE_ID}\",\"environment\":\"production\",\"release\":\"shop@1.2.3\",\"public_key\":\"{key}\",\"sample_rate\":\"1.0\"}}}}\n{{\"type\":\"event\",\"content_type\":\"application/json\",\"length\":{length}}}\n{event}\n"
    );
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(envelope.as_bytes())?;
    let body = gzip.finish()?;
    let head = format!(
        "POST /api/{project}/envelope/ HTTP/1.1\r\n\
         Host: {host}\r\n\
         Accept-Encoding: identity\r\n\
         Content-Length: {length}\r\n\
         Content-Type: application/x-sentry-envelope\r\n\
         Content-Encoding: gzip\r\n\
         User-Agent: sentry.python/2.75.0\r\n\
         X-Sentry-Auth: Sentry sentry_key={key}, sentry_version=7, sentry_client=sentry.python/2.75.0\r\n\r\n",
        project = dsn.project(),
        host = dsn.origin().authority(),
        length = body.len(),
    );
    Ok(Sending {
        title: "an error, as sentry-python sends it",
        remark: "compressed, the key in a header and in the trace",
        event_id: ERROR_ID,
        bytes: [head.as_bytes(), &body].concat(),
    })
}

/// One chunk and the key in the query; the item has no length and ends with the body.
fn transaction(dsn: &Dsn) -> Sending {
    let key = dsn.key();
    let envelope = format!(
        "{{\"event_id\":\"{TRANSACTION_ID}\",\"sent_at\":\"2026-11-23T15:32:06.114Z\",\"sdk\":{{\"name\":\"sentry.javascript.node\",\"version\":\"10.78.0\"}},\"trace\":{{\"environment\":\"production\",\"release\":\"shop@1.2.3\",\"public_key\":\"{key}\",\"trace_id\":\"{TRACE_ID}\",\"transaction\":\"POST /checkout\",\"sampled\":\"true\",\"sample_rand\":\"0.2431\",\"sample_rate\":\"0.5\"}}}}\n{{\"type\":\"transaction\"}}\n{}",
        transaction_event()
    );
    let request = format!(
        "POST /api/{project}/envelope/?sentry_version=7&sentry_key={key}&sentry_client=sentry.javascript.node%2F10.78.0 HTTP/1.1\r\n\
         user-agent: sentry.javascript.node/10.78.0\r\n\
         Host: {host}\r\n\
         Connection: keep-alive\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         {length:x}\r\n{envelope}\r\n0\r\n\r\n",
        project = dsn.project(),
        host = dsn.origin().authority(),
        length = envelope.len(),
    );
    Sending {
        title: "a transaction, as @sentry/node sends it",
        remark: "chunked, the key in the query and in the trace",
        event_id: TRANSACTION_ID,
        bytes: request.into_bytes(),
    }
}

/// Through the option `tunnel`: any path, and the key only in the `dsn` of the envelope's header.
fn replay(dsn: &Dsn) -> io::Result<Sending> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(recording().as_bytes())?;
    let recording = [&b"{\"segment_id\":0}\n"[..], &zlib.finish()?].concat();
    let envelope = format!(
        "{{\"event_id\":\"{REPLAY_ID}\",\"sent_at\":\"2026-11-23T15:32:07.482Z\",\"sdk\":{{\"name\":\"sentry.javascript.browser\",\"version\":\"11.12.0\"}},\"dsn\":\"{dsn}\"}}\n{{\"type\":\"replay_event\"}}\n{}\n{{\"type\":\"replay_recording\",\"length\":{}}}\n",
        replay_event(),
        recording.len(),
    );
    let head = format!(
        "POST /tunnel HTTP/1.1\r\n\
         host: {host}\r\n\
         content-length: {length}\r\n\
         accept: */*\r\n\
         origin: https://shop.example.com\r\n\
         referer: https://shop.example.com/\r\n\
         user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n\
         accept-language: en-US,en;q=0.5\r\n\
         accept-encoding: gzip, deflate, br, zstd\r\n\
         sec-fetch-mode: cors\r\n\
         sec-fetch-site: cross-site\r\n\
         sec-fetch-dest: empty\r\n\r\n",
        host = dsn.origin().authority(),
        length = envelope.len() + recording.len(),
    );
    Ok(Sending {
        title: "a replay, as @sentry/browser sends it through a tunnel",
        remark: "plain, the key only in the dsn of the envelope, a binary item",
        event_id: REPLAY_ID,
        bytes: [head.as_bytes(), envelope.as_bytes(), &recording].concat(),
    })
}

fn error_event() -> Value {
    json!({
        "event_id": ERROR_ID,
        "timestamp": "2026-11-23T15:32:05.897031Z",
        "platform": "python",
        "environment": "production",
        "release": "shop@1.2.3",
        "transaction": "/checkout",
        "exception": { "values": [{
            "type": "ZeroDivisionError",
            "value": "division by zero",
            "stacktrace": { "frames": [{
                "filename": "shop/basket.py", "function": "split", "lineno": 47,
                "context_line": "    return amount / len(self.payers)", "in_app": true,
            }] },
        }] },
        "contexts": { "trace": { "trace_id": TRACE_ID, "span_id": "9e2a1c5b7d3f4e60" } },
        "sdk": { "name": "sentry.python.django", "version": "2.75.0" },
    })
}

fn transaction_event() -> Value {
    json!({
        "event_id": TRANSACTION_ID,
        "type": "transaction",
        "transaction": "POST /checkout",
        "platform": "node",
        "release": "shop@1.2.3",
        "start_timestamp": 1_795_447_925.871,
        "timestamp": 1_795_447_926.102,
        "contexts": { "trace": { "trace_id": TRACE_ID, "span_id": "b0e6f15b45c36b12" } },
        "spans": [{
            "span_id": "c3d4e5f60718293a", "parent_span_id": "b0e6f15b45c36b12",
            "trace_id": TRACE_ID, "op": "db",
            "description": "INSERT INTO orders VALUES ($1, $2, $3)",
            "start_timestamp": 1_795_447_926.060, "timestamp": 1_795_447_926.071,
        }],
        "sdk": { "name": "sentry.javascript.node", "version": "10.78.0" },
    })
}

fn replay_event() -> Value {
    json!({
        "type": "replay_event",
        "replay_id": REPLAY_ID,
        "event_id": REPLAY_ID,
        "segment_id": 0,
        "timestamp": 1_795_447_927.480,
        "urls": ["https://shop.example.com/basket"],
        "error_ids": [ERROR_ID],
        "platform": "javascript",
    })
}

/// What a pointer does in seven seconds, as rrweb records it.
fn recording() -> String {
    let move_to = |step: u64| {
        // Irregular enough for the compressed form to look like the real thing.
        let (x, y) = (step * step * 31 % 1280, step * step * 17 % 800);
        json!({ "type": 3, "data": { "source": 1, "positions": [{ "x": x, "y": y }] },
            "timestamp": 1_795_447_920_118 + step * 18 })
    };
    (1..400).map(move_to).collect::<Value>().to_string()
}

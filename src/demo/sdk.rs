//! Three requests as SDKs send them: an error, a transaction, a replay.
//!
//! They differ in where the key is (a header, the query, only the envelope), how the body is sent (gzip,
//! chunks, plain), which key sites the envelope has (`trace.public_key`, `dsn`) and what follows them (JSON,
//! binary). Header names, their order and the envelope headers are those of sentry-python 2.75,
//! @sentry/node 10.78 and @sentry/browser 11.12 with the option `tunnel`. The contents are made up.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;

use crate::sentry::dsn::Dsn;

const ERROR_ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const TRANSACTION_ID: &str = "4c79f60c11214eb38604f4ae0781bfb2";
const REPLAY_ID: &str = "7b6f2c1de85a4c0f9a3d2e1f00c4b5a6";
const TRACE_ID: &str = "771a43a4192642f0b136d5159a501700";

pub(super) struct SdkRequest {
    pub(super) title: &'static str,
    /// The id that the response has to name.
    pub(super) event_id: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// The requests of three SDKs that are configured with `dsn`.
pub(super) fn requests(dsn: &Dsn) -> io::Result<[SdkRequest; 3]> {
    Ok([error(dsn)?, transaction(dsn), replay(dsn)?])
}

/// gzip with Content-Length; the key in `X-Sentry-Auth` and in the trace.
fn error(dsn: &Dsn) -> io::Result<SdkRequest> {
    let (key, project, host) = (dsn.key(), dsn.project(), dsn.origin().authority());
    let event = json!({
        "event_id": ERROR_ID,
        "timestamp": "2026-11-23T15:32:05.897031Z",
        "platform": "python",
        "release": "shop@1.2.3",
        "exception": { "values": [{ "type": "ZeroDivisionError", "value": "division by zero" }] },
        "contexts": { "trace": { "trace_id": TRACE_ID, "span_id": "9e2a1c5b7d3f4e60" } },
        "sdk": { "name": "sentry.python.django", "version": "2.75.0" },
    })
    .to_string();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    write!(
        gzip,
        "{{\"event_id\":\"{ERROR_ID}\",\"sent_at\":\"2026-11-23T15:32:05.903898Z\",\"trace\":{{\"trace_id\":\"{TRACE_ID}\",\"environment\":\"production\",\"release\":\"shop@1.2.3\",\"public_key\":\"{key}\",\"sample_rate\":\"1.0\"}}}}\n{{\"type\":\"event\",\"content_type\":\"application/json\",\"length\":{}}}\n{event}\n",
        event.len()
    )?;
    let body = gzip.finish()?;
    let head = format!(
        "POST /api/{project}/envelope/ HTTP/1.1\r\n\
         Host: {host}\r\n\
         Accept-Encoding: identity\r\n\
         Content-Length: {}\r\n\
         Content-Type: application/x-sentry-envelope\r\n\
         Content-Encoding: gzip\r\n\
         User-Agent: sentry.python/2.75.0\r\n\
         X-Sentry-Auth: Sentry sentry_key={key}, sentry_version=7, sentry_client=sentry.python/2.75.0\r\n\r\n",
        body.len()
    );
    Ok(SdkRequest {
        title: "an error from sentry-python: gzip, the key in a header and in the trace",
        event_id: ERROR_ID,
        bytes: [head.as_bytes(), &body].concat(),
    })
}

/// One chunk; the key in the query and in the trace. The item has no length and ends with the body.
fn transaction(dsn: &Dsn) -> SdkRequest {
    let (key, project, host) = (dsn.key(), dsn.project(), dsn.origin().authority());
    let event = json!({
        "event_id": TRANSACTION_ID,
        "type": "transaction",
        "transaction": "POST /checkout",
        "platform": "node",
        "start_timestamp": 1_795_447_925.871,
        "timestamp": 1_795_447_926.102,
        "contexts": { "trace": { "trace_id": TRACE_ID, "span_id": "b0e6f15b45c36b12" } },
        "spans": [{ "op": "db", "description": "INSERT INTO orders VALUES ($1, $2, $3)" }],
    });
    let envelope = format!(
        "{{\"event_id\":\"{TRANSACTION_ID}\",\"sent_at\":\"2026-11-23T15:32:06.114Z\",\"sdk\":{{\"name\":\"sentry.javascript.node\",\"version\":\"10.78.0\"}},\"trace\":{{\"environment\":\"production\",\"release\":\"shop@1.2.3\",\"public_key\":\"{key}\",\"trace_id\":\"{TRACE_ID}\",\"transaction\":\"POST /checkout\",\"sampled\":\"true\",\"sample_rand\":\"0.2431\",\"sample_rate\":\"0.5\"}}}}\n{{\"type\":\"transaction\"}}\n{event}"
    );
    let request = format!(
        "POST /api/{project}/envelope/?sentry_version=7&sentry_key={key}&sentry_client=sentry.javascript.node%2F10.78.0 HTTP/1.1\r\n\
         user-agent: sentry.javascript.node/10.78.0\r\n\
         Host: {host}\r\n\
         Connection: keep-alive\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{envelope}\r\n0\r\n\r\n",
        envelope.len()
    );
    SdkRequest {
        title: "a transaction from @sentry/node: chunked, the key in the query and in the trace",
        event_id: TRANSACTION_ID,
        bytes: request.into_bytes(),
    }
}

/// Through the option `tunnel`: any path, and the key only in the `dsn` of the envelope header.
fn replay(dsn: &Dsn) -> io::Result<SdkRequest> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    for step in 0..400 {
        let (x, y) = (step * step * 31 % 1280, step * step * 17 % 800);
        write!(zlib, "{{\"type\":3,\"data\":{{\"x\":{x},\"y\":{y}}}}},")?;
    }
    let recording = [&b"{\"segment_id\":0}\n"[..], &zlib.finish()?].concat();
    let event = json!({
        "type": "replay_event",
        "replay_id": REPLAY_ID,
        "segment_id": 0,
        "urls": ["https://shop.example.com/basket"],
        "error_ids": [ERROR_ID],
    });
    let envelope = format!(
        "{{\"event_id\":\"{REPLAY_ID}\",\"sent_at\":\"2026-11-23T15:32:07.482Z\",\"sdk\":{{\"name\":\"sentry.javascript.browser\",\"version\":\"11.12.0\"}},\"dsn\":\"{dsn}\"}}\n{{\"type\":\"replay_event\"}}\n{event}\n{{\"type\":\"replay_recording\",\"length\":{}}}\n",
        recording.len(),
    );
    let head = format!(
        "POST /tunnel HTTP/1.1\r\n\
         host: {}\r\n\
         content-length: {}\r\n\
         accept: */*\r\n\
         origin: https://shop.example.com\r\n\
         user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n\
         accept-encoding: gzip, deflate, br, zstd\r\n\
         sec-fetch-mode: cors\r\n\r\n",
        dsn.origin().authority(),
        envelope.len() + recording.len(),
    );
    Ok(SdkRequest {
        title: "a replay from @sentry/browser through a tunnel: binary, the key only in the envelope",
        event_id: REPLAY_ID,
        bytes: [head.as_bytes(), envelope.as_bytes(), &recording].concat(),
    })
}

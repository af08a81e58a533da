//! The cost of each pure stage of a request, in the order of the request path.
//!
//! One bench is one call that the data path makes once per request, or once per outbound for rewriting, on
//! input as SDKs send it; memory is reused as in a worker. Every bench checks its result before it is timed,
//! so that no number belongs to a stage that refused its input. Each row also has the number of allocations.
//! Sockets, TLS and scheduling are not measured.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod counting;
mod fixtures;

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use sentry_mirror::internals::http::chunked::{Chunked, Progress};
use sentry_mirror::internals::http::compress::{Codec, Compressor, Compressors};
use sentry_mirror::internals::http::encoding::{Decoder, Decompressors, Encoding, Step};
use sentry_mirror::internals::http::head::{HeadLimits, HeaderName, Parsed, RequestHead};
use sentry_mirror::internals::http::response::ResponseHead;
use sentry_mirror::internals::limits::Limits;
use sentry_mirror::internals::mirror::filter;
use sentry_mirror::internals::mirror::head_edits::{self, ForwardedHeaders};
use sentry_mirror::internals::mirror::render::{OutboundBody, render};
use sentry_mirror::internals::mirror::request::{Body, Request as InboundRequest};
use sentry_mirror::internals::mirror::routes::{Outbound, Routes};
use sentry_mirror::internals::sentry::auth::{self, AuthHeader, FoundKey, Source};
use sentry_mirror::internals::sentry::edit::Edit;
use sentry_mirror::internals::sentry::endpoint::{self, Endpoint, Target};
use sentry_mirror::internals::sentry::envelope;
use sentry_mirror::internals::sentry::envelope_index::EnvelopeIndex;
use sentry_mirror::internals::sentry::sampling::Chance;

use fixtures::routes::{INBOUND_KEY, routes};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const KB: usize = 1000;

/// What a worker decodes before it yields to other connections.
const DECODE_SLICE_BYTES: usize = 512 * 1024;

criterion_group! {
    name = stages;
    // Short runs, since the stages take microseconds: all of them fit into a minute.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .sample_size(50);
    targets = request_head, target, key_search, chunked, decode, envelope_header, rewrite_head,
        response_head, selection, compress
}
criterion_main!(stages);

/// From the first byte to the spans of a request head.
fn request_head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request head");
    for (name, text, field_count) in [
        ("python", fixtures::python_head(), 7),
        ("node", fixtures::node_head(), 4),
        ("browser", fixtures::browser_head(), 20),
    ] {
        let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
        let parsed = head.parse(text.as_bytes(), limits);
        assert_eq!(parsed, Ok(Parsed::Complete), "{name}");
        assert_eq!(head.headers.len(), field_count, "{name}");
        bench(&mut group, name, text.len(), || {
            head.parse(black_box(text.as_bytes()), limits)
        });
    }
}

/// The endpoint of a target, and the position of its project id.
fn target(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("target");
    for (name, text, endpoint) in [
        ("python", fixtures::python_head(), Endpoint::Envelope),
        ("node", fixtures::node_head(), Endpoint::Envelope),
        ("unreal", fixtures::unreal_head(), Endpoint::Unreal),
    ] {
        let mut request = Request::parse(text);
        assert_eq!(request.read_target().endpoint, endpoint, "{name}");
        bench(&mut group, name, request.0.parsed.target.len(), || {
            black_box(&mut request).read_target()
        });
    }
}

/// The key and all its key sites, for each source.
fn key_search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key search");
    for (name, text, source) in [
        ("header", fixtures::python_head(), Source::XSentryAuth),
        ("query", fixtures::browser_head(), Source::Query),
        ("path", fixtures::unreal_head(), Source::Path),
    ] {
        let mut request = Request::parse(text);
        let target = request.read_target();
        let found = request.find_key(target).expect("there is a key");
        assert_eq!(found.source, source, "{name}");
        assert_eq!(found.bytes(&request.0.head), INBOUND_KEY.as_bytes());
        bench(&mut group, name, request.0.head.len(), || {
            request.0.head_edits.clear();
            black_box(&mut request).find_key(target)
        });
    }
}

/// A chunked body, completely in the buffer: one chunk, as Node sends it, and small chunks, whose data
/// has to be moved together.
fn chunked(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked");
    let data = fixtures::python_envelope(8 * KB);
    for (name, chunk_bytes) in [("one chunk", data.len()), ("chunks of 100 bytes", 100)] {
        let input = BytesMut::from(fixtures::chunked(&data, chunk_bytes).as_slice());
        let mut buffer = input.clone();
        let body = dechunk(&mut buffer);
        assert_eq!(buffer.get(body), Some(data.as_slice()), "{name}");
        group.throughput(Throughput::Bytes(data.len() as u64));
        let mut buffer = input.clone();
        tell_allocations(name, || dechunk(&mut buffer));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(|| input.clone(), dechunk, BatchSize::SmallInput);
        });
    }
}

fn dechunk(buffer: &mut BytesMut) -> std::ops::Range<usize> {
    match Chunked::new(Limits::default().body_bytes).decode(buffer) {
        Ok(Progress::Done { body, .. }) => body.start..body.end,
        other => panic!("not decoded in one go: {other:?}"),
    }
}

/// A compressed body; the throughput is that of the decoded bytes.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, encoding, plain_bytes) in [
        ("gzip 8 KB", Encoding::Gzip, 8 * KB),
        ("gzip 40 KB", Encoding::Gzip, 40 * KB),
        ("deflate 8 KB", Encoding::Deflate, 8 * KB),
        ("br 8 KB", Encoding::Brotli, 8 * KB),
        ("zstd 8 KB", Encoding::Zstd, 8 * KB),
    ] {
        let plain = fixtures::python_envelope(plain_bytes);
        let input = Bytes::from(fixtures::encoded(encoding, &plain));
        let mut pool = Decompressors::default();
        assert_eq!(decoded(encoding, &input, &mut pool), plain, "{name}");
        bench(&mut group, name, plain.len(), || {
            decoded(encoding, black_box(&input), &mut pool)
        });
    }
}

fn decoded(encoding: Encoding, input: &Bytes, pool: &mut Decompressors) -> Bytes {
    let limit = Limits::default().decoded_bytes;
    let mut decoder = Decoder::new(encoding, input.clone(), limit, pool);
    while decoder.step(DECODE_SLICE_BYTES).expect("it is valid") == Step::More {}
    decoder.finish(pool)
}

/// The header of an envelope: finding its edits, and rendering it in front of a shared body. Neither may
/// depend on the size of the body, so the throughput counts only the header, and the rows of one SDK must be
/// equal.
fn envelope_header(criterion: &mut Criterion) {
    let (routes, mut edits) = (routes(), Vec::new());
    let outbound = primary(&routes);
    for (name, body, edit_count) in [
        ("python, 5 KB", fixtures::python_envelope(5 * KB), 1),
        ("python, 300 KB", fixtures::python_envelope(300 * KB), 1),
        ("tunnel, 5 KB", fixtures::tunnel_envelope(5 * KB), 2),
        ("tunnel, 300 KB", fixtures::tunnel_envelope(300 * KB), 2),
    ] {
        let body = Bytes::from(body);
        let header = envelope::scan(&body, &mut edits).expect("it has a header");
        assert_eq!(edits.len(), edit_count, "{name}");
        let mut group = criterion.benchmark_group("envelope scan");
        bench(&mut group, name, header.end, || {
            edits.clear();
            envelope::scan(black_box(&body), &mut edits)
        });
        drop(group);

        let request = InboundRequest {
            body: Body::plain(body.clone()),
            body_edits: edits.clone(),
            ..InboundRequest::default()
        };
        let sent = render(&request, outbound, &OutboundBody::Whole, Vec::new());
        let mut front = sent.head;
        assert!(contains(&front, &outbound.key), "{name}");
        assert!(!contains(&front, INBOUND_KEY), "{name}");
        assert!(body.ends_with(&sent.body), "{name}");
        let mut group = criterion.benchmark_group("envelope splice");
        bench(&mut group, name, header.end, || {
            front.clear();
            let memory = std::mem::take(&mut front);
            let whole = &OutboundBody::Whole;
            let sent = render(black_box(&request), outbound, whole, memory);
            front = sent.head;
            sent.body
        });
        drop(group);
        edits.clear();
    }
}

/// The head for one outbound, after the edits of key and target are known.
fn rewrite_head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite head");
    let routes = routes();
    let outbound = primary(&routes);
    for (name, text) in [
        ("python", fixtures::python_head()),
        ("node", fixtures::node_head()),
        ("browser", fixtures::browser_head()),
    ] {
        let mut request = Request::parse(text);
        let target = request.read_target();
        request.find_key(target).expect("there is a key");
        let found = request.0.head_edits.clone();
        let mut rewritten = request.rewritten(&found, outbound, Vec::new());
        assert!(contains(&rewritten, &outbound.key), "{name}");
        assert!(!contains(&rewritten, INBOUND_KEY), "{name}");
        bench(&mut group, name, request.0.head.len(), || {
            let mut memory = std::mem::take(&mut rewritten);
            memory.clear();
            rewritten = black_box(&mut request).rewritten(&found, outbound, memory);
        });
    }
}

/// From the first byte to the spans of a response head.
fn response_head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("response head");
    let response_bytes = Limits::default().response_bytes;
    let text = fixtures::response_head();
    let later = text.replace("15:32:05", "15:32:06");
    let slower = text.replace("service-time: 1", "service-time: 10");
    for (name, next) in [("same", &text), ("other date", &later), ("other", &slower)] {
        let mut head = ResponseHead::default();
        let mut turn = [&text, next].into_iter().cycle();
        bench(&mut group, name, text.len(), || {
            let text = turn.next().expect("a cycle has no end");
            let parsed = head.parse(black_box(text.as_bytes()), response_bytes);
            assert_eq!((parsed, head.status), (Ok(Parsed::Complete), 200));
        });
    }
}

/// Filtering an envelope: indexing its items, and collecting the spans that stay. Outbounds without a
/// selection do not pay for this.
fn selection(criterion: &mut Criterion) {
    let session = b"{\"type\":\"session\"}\n{\"sid\":\"771a43a4192642f0b136d5159a501700\"}\n";
    let entry = br#"{"timestamp":1.5,"trace_id":"771a43a4192642f0b136d5159a501700","body":"a line of a log"}"#;
    let python = [&fixtures::python_envelope(5 * KB)[..], b"\n", session].concat();
    let entries = vec![&entry[..]; 50].join(&b","[..]);
    let logs = [
        b"{}\n{\"type\":\"log\",\"item_count\":50}\n{\"items\":[",
        &entries[..],
        b"]}",
    ]
    .concat();
    let mut group = criterion.benchmark_group("selection");
    for (name, options, body) in [
        ("filter, python 5 KB", "categories: [error]", &python),
        ("sample, python 5 KB", "sample_rate: {session: 0}", &python),
        ("sample, 50 logs", "sample_rate: {log: 0.999}", &logs),
    ] {
        let selection = fixtures::selection(options);
        let sampling = selection.samples().then(|| Chance::new(7));
        let mut edits = Vec::new();
        let header = envelope::scan(body, &mut edits).expect("it has a header");
        let take = || {
            let index = EnvelopeIndex::build(body, header.end, sampling);
            let index = index.expect("it is well-formed");
            filter::filter_envelope(&selection, None, &index, body, &edits)
        };
        let taken = take().expect("something is taken");
        assert_eq!(taken.is_some(), body.ends_with(session), "{name}");
        bench(&mut group, name, body.len(), take);
    }
}

/// The rest of a body, compressed once for all outbounds that want it compressed.
fn compress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compress");
    let mut pool = Compressors::default();
    for (name, bytes) in [("5 KB", 5 * KB), ("300 KB", 300 * KB)] {
        let body = Bytes::from(fixtures::python_envelope(bytes));
        for target in [Codec::Gzip, Codec::Zstd] {
            let mut compress = || {
                let mut compressor = Compressor::new(target, body.clone(), &mut pool);
                while !compressor.step(64 * KB).expect("there is memory") {}
                compressor.finish(&mut pool)
            };
            assert!(compress().bytes.len() < bytes / 2);
            let name = format!("{}, {name}", target.name());
            bench(&mut group, &name, bytes, compress);
        }
    }
}

/// Benches `operation`, which works on `bytes` bytes.
fn bench<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    bytes: usize,
    mut operation: impl FnMut() -> T,
) {
    group.throughput(Throughput::Bytes(bytes as u64));
    // Buffers that the first call allocates are reused by the following.
    black_box(operation());
    tell_allocations(name, &mut operation);
    group.bench_function(name, |bencher| bencher.iter(&mut operation));
}

/// Runs `operation` once, and prints its allocations.
fn tell_allocations<T>(name: &str, operation: impl FnOnce() -> T) {
    let before = counting::allocated();
    black_box(operation());
    let counting::Allocated { count, bytes } = before.since();
    println!("{name}: {count} allocations, {bytes} bytes per operation");
}

fn primary(routes: &Routes) -> &Outbound {
    let route = routes.find(INBOUND_KEY.as_bytes());
    let primary = route.and_then(|route| route.outbounds.first());
    primary.expect("the fixture has the route")
}

fn contains(text: &[u8], part: &str) -> bool {
    memchr::memmem::find(text, part.as_bytes()).is_some()
}

/// A request of which only the head matters.
struct Request(InboundRequest);

impl Request {
    fn parse(text: String) -> Request {
        let mut request = InboundRequest {
            head: Bytes::from(text.into_bytes()),
            ..InboundRequest::default()
        };
        let parsed = request.parsed.parse(&request.head, HeadLimits::default());
        assert_eq!(parsed, Ok(Parsed::Complete));
        Request(request)
    }

    fn read_target(&mut self) -> Target {
        let request = &mut self.0;
        request.head_edits.clear();
        let target = request.parsed.target;
        endpoint::parse_target(&request.head, target, &mut request.head_edits)
    }

    fn find_key(&mut self, target: Target) -> Option<FoundKey> {
        let request = &mut self.0;
        let headers = request.parsed.headers.iter().filter_map(|header| {
            let source = match header.name {
                HeaderName::XSentryAuth => AuthHeader::XSentryAuth,
                HeaderName::Authorization => AuthHeader::Authorization,
                _ => return None,
            };
            Some((source, header.value))
        });
        let (query, path_key) = (target.query, target.path_key);
        let edits = &mut request.head_edits;
        auth::find(&request.head, headers, query, path_key, edits).expect("the key can be read")
    }

    fn rewritten(&mut self, found: &[Edit], outbound: &Outbound, memory: Vec<u8>) -> Vec<u8> {
        let request = &mut self.0;
        request.head_edits.clear();
        request.head_edits.extend_from_slice(found);
        let forwarded = ForwardedHeaders {
            client_address: false,
            credentials: true,
            conditions: true,
        };
        let edits = &mut request.head_edits;
        head_edits::edit_head(&request.parsed, &request.head, forwarded, edits);
        render(request, outbound, &OutboundBody::Whole, memory).head
    }
}

//! Filtering, sampling, copying and compressing envelopes. The result is what a naive reader selects and copies,
//! byte for byte, after an independent decoder has undone the compression. If that reader cannot read the
//! envelope, the result is at least an envelope of the same items in the same order.
//!
//! The first two bytes of an input select the sampling key and the size of a slice, the rest is the envelope.
//! Each byte from 0x80 on stands for one of the texts below.

#![no_main]

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::config::Config;
use sentry_mirror::internals::http::compress::{Codec, Compressor, Compressors};
use sentry_mirror::internals::http::encoding::Encoding;
use sentry_mirror::internals::http::head::{HeadLimits, RequestHead};
use sentry_mirror::internals::mirror::copies::{self, Template};
use sentry_mirror::internals::mirror::filter::{self, PartialBody};
use sentry_mirror::internals::mirror::render::{OutboundBody, render};
use sentry_mirror::internals::mirror::request::{Body, Request as InboundRequest};
use sentry_mirror::internals::mirror::routes::{Outbound, Routes};
use sentry_mirror::internals::mirror::transform::{BodyEncoding, Transform};
use sentry_mirror::internals::sentry::edit::Edit;
use sentry_mirror::internals::sentry::envelope;
use sentry_mirror::internals::sentry::envelope_index::EnvelopeIndex;
use sentry_mirror::internals::sentry::items::items;
use sentry_mirror::internals::sentry::sampling::Chance;
use sentry_mirror::internals::sentry::selection::Unwanted;
use sentry_mirror_fuzz::naive::envelope::{self as naive, Nothing, Own, Wanted};
use sentry_mirror_fuzz::naive::http::{self, Bounds, End};
use sentry_mirror_fuzz::{check_edits, expand};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Pieces of envelopes.
const TEXTS: &[&str] = &[
    "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"dsn\":\"http://0123456789abcdef0123456789abcdef@m/1\",\"trace\":{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"sample_rate\":\"0.3\",\"public_key\":\"0123456789abcdef0123456789abcdef\"}}\n",
    "{\"trace\":{\"sample_rate\":1,\"replay_id\":\"0123456789abcdef0123456789abcdef\"}}\n",
    "{\"dsn\":\"http:\\/\\/0123456789abcdef0123456789abcdef@m\\/1\",\"event_id\":null}\n",
    "{}\n",
    "{\"type\":\"event\"}\n",
    "{\"type\":\"transaction\"}\n",
    "{\"type\":\"session\"}\n",
    "{\"type\":\"log\",\"item_count\":2}\n",
    "{\"type\":\"trace_metric\"}\n",
    "{\"type\":\"span\"}\n",
    "{\"type\":\"check_in\"}\n",
    "{\"type\":\"profile\"}\n",
    "{\"type\":\"profile_chunk\",\"platform\":\"cocoa\"}\n",
    "{\"type\":\"replay_event\"}\n",
    "{\"type\":\"replay_recording\",\"length\":7}\n{}\nabcd\n",
    "{\"type\":\"client_report\"}\n",
    "{\"type\":\"feedback\"}\n",
    "{\"type\":\"security\"}\n",
    "{\"type\":\"statsd\"}\nx:1|c\n",
    "{\"type\":\"form_data\"}\n[]\n",
    "{\"type\":\"unheard_of\"}\n",
    "{\"type\":\"attachment\",\"length\":9}\na\n{\"x\":1}\n\n",
    "{\"type\":\"attachment\",\"attachment_type\":\"event.minidump\",\"length\":4}\nMDMP\n",
    "{\"type\":\"attachment\",\"filename\":\"dying_message.dat\"}\nsntr\n",
    "{\"type\":\"attachment\",\"content_type\":\"application/vnd.sentry.trace-attachment\",\"span_id\":null,\"meta_length\":47,\"length\":49}\n{\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}ab\n",
    "{\"type\":\"log\",\"item_count\":2,\"length\":113}\n{\"items\":[{\"trace_id\":\"771a43a4192642f0b136d5159a501700\"},{\"trace_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"b\":1}]}\n",
    "{\"message\":\"hello\"}\n",
    "{\"items\":[",
    "]}\n",
    "{\"trace_id\":\"771a43a4192642f0b136d5159a501700\"},",
    "{\"trace_id\":\"9ec79c33-ec99-42ab-8353-589fcb2e04dc\"}",
    "{\"attributes\":{\"sentry.replay_id\":{\"value\":\"fedcba98765432100123456789abcdef\"}}},",
    "{\"links\":[{\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}],\"timestamp\":1.5}",
    "\"771a43a4192642f0b136d5159a501700\"",
    "\"9EC79C33EC9942AB8353589FCB2E04DC\"",
    "\"00000000000000000000000000000000\"",
    "\"9ec79c33-ec99-42ab-8353-589fcb2e04dc\"",
    "\"urn:uuid:9ec79c33-ec99-42ab-8353-589fcb2e04dc\"",
    "{\"event_id\":",
    "{\"contexts\":{\"trace\":{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"data\":{\"profiler_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}},\"replay\":{\"replay_id\":\"fedcba98765432100123456789abcdef\"}}}\n",
    "{\"spans\":[{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"data\":{\"sentry.replay_id\":\"fedcba98765432100123456789abcdef\"}}]}\n",
    "{\"sid\":\"9ec79c33-ec99-42ab-8353-589fcb2e04dc\",\"did\":\"user\"}\n",
    "{\"check_in_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"monitor_slug\":\"My Monitor_1\"}\n",
    "{\"profiler_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"chunk_id\":\"771a43a4192642f0b136d5159a501700\"}\n",
    "{\"replay_id\":\"fedcba98765432100123456789abcdef\",\"trace_ids\":[\"771a43a4192642f0b136d5159a501700\"],\"error_ids\":[\"9ec79c33ec9942ab8353589fcb2e04dc\"]}\n",
    "{\"breadcrumbs\":{\"values\":[{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}]},\"tags\":{\"replayId\":\"fedcba98765432100123456789abcdef\"}}\n",
    "{\"transaction\":{\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"trace_id\":\"771a43a4192642f0b136d5159a501700\"},\"profile_id\":7}\n",
    "\"length\":",
    "\"item_count\":null,",
    "\\u0031",
];

/// An outbound: what it is in a configuration, and what that means.
struct Spec {
    yaml: &'static str,
    wanted: Wanted,
    copies: u32,
}

const ALL: Wanted = Wanted {
    categories: None,
    rates: &[],
};

const SPECS: &[Spec] = &[
    Spec {
        yaml: "categories: [error]",
        wanted: Wanted {
            categories: Some(&["error"]),
            ..ALL
        },
        copies: 1,
    },
    Spec {
        yaml: "categories: [log_item, session, client_report, attachment], compression: gzip",
        wanted: Wanted {
            categories: Some(&["log_item", "session", "client_report", "attachment"]),
            ..ALL
        },
        copies: 1,
    },
    Spec {
        yaml: "sample_rate: 0.5, compression: zstd",
        wanted: Wanted {
            rates: &[("*", 0.5)],
            ..ALL
        },
        copies: 1,
    },
    Spec {
        yaml: "sample_rate: {log_item: 0.5, transaction: 0.1, span: 0.3, session: 0}, multiplier: 2",
        wanted: Wanted {
            rates: &[
                ("log_item", 0.5),
                ("transaction", 0.1),
                ("span", 0.3),
                ("session", 0.0),
            ],
            ..ALL
        },
        copies: 2,
    },
    Spec {
        yaml: "categories: [span, transaction, replay, monitor], sample_rate: 0.26, multiplier: 2, compression: gzip",
        wanted: Wanted {
            categories: Some(&["span", "transaction", "replay", "monitor"]),
            rates: &[("*", 0.26)],
        },
        copies: 2,
    },
    Spec {
        yaml: "multiplier: 3, compression: zstd",
        wanted: ALL,
        copies: 3,
    },
    Spec {
        yaml: "compression: preserve, sample_rate: {error: 0.7, trace_metric: 0.4, profile_chunk_ui: 0.5}",
        wanted: Wanted {
            rates: &[
                ("error", 0.7),
                ("trace_metric", 0.4),
                ("profile_chunk_ui", 0.5),
            ],
            ..ALL
        },
        copies: 1,
    },
    Spec {
        yaml: "sample_rate: 0",
        wanted: Wanted {
            rates: &[("*", 0.0)],
            ..ALL
        },
        copies: 1,
    },
];

thread_local! {
    static POOL: RefCell<Compressors> = RefCell::default();
}

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let mut text = format!("keys:\n- inbound: http://{KEY}@m/42\n  outbound:\n");
    for (index, Spec { yaml, .. }) in SPECS.iter().enumerate() {
        text += &format!(
            "  - {{dsn: 'https://{:032x}@o{index}/{index}', {yaml}}}\n",
            index + 10
        );
    }
    let config = Config::parse(&text, "fuzz", std::iter::empty()).expect("it is valid");
    Routes::new(1, &config, None)
});

fuzz_target!(|data: &[u8]| {
    let [chance, slice, data @ ..] = data else {
        return;
    };
    let data = expand(data, [TEXTS]);
    let mut edits = Vec::new();
    let Ok(header) = envelope::scan(&data, &mut edits) else {
        return;
    };
    let found: Result<Vec<_>, _> = items(&data, header.end).collect();
    if let Some(expected) = naive::read(&data) {
        let found = found
            .as_ref()
            .expect("what the naive reader accepts is accepted");
        let found = found
            .iter()
            .map(|item| (&*item.kind, item.payload.start, item.payload.end));
        let expected = expected.items.iter();
        assert!(found.eq(expected.map(|it| (
            it.kind.as_bytes(),
            it.payload.start,
            it.payload.end
        ))));
    }
    let index = EnvelopeIndex::build(&data, header.end, Some(Chance::new((*chance).into())));
    assert_eq!(index.is_ok(), found.is_ok());
    let Ok(index) = index else {
        return;
    };
    let request = Request {
        body: Bytes::from(data),
        edits,
        index,
        chance: (*chance).into(),
        slice_bytes: 1 + 64 * usize::from(*slice),
    };
    let route = ROUTES.find(KEY.as_bytes()).expect("it is configured");
    for (spec, outbound) in SPECS.iter().zip(&route.outbounds) {
        let transform = &route.transforms[outbound.transform.expect("each has one")];
        request.check(spec, outbound, transform);
    }
});

/// An envelope that was read.
struct Request {
    body: Bytes,
    edits: Vec<Edit>,
    index: EnvelopeIndex,
    chance: u128,
    slice_bytes: usize,
}

impl Request {
    /// Asserts that an outbound gets the right items.
    fn check(&self, spec: &Spec, outbound: &Outbound, transform: &Transform) {
        let expected = naive::select(&self.body, spec.wanted, self.chance);
        let taken = match self.take(transform) {
            Ok(partial) => partial,
            Err(refused) => {
                let expected = expected.and_then(Result::err);
                assert!(expected.is_none_or(|nothing| nothing == nothing_of(refused)));
                return;
            }
        };
        let selected = [taken.front.clone(), taken.rest.clone()].concat();
        if let Some(expected) = expected {
            let expected = expected.expect("nothing, but something was taken");
            assert_eq!(text(&selected), text(&expected));
        }
        let own = Own {
            dsn: &outbound.dsn,
            key: &outbound.key,
        };
        for number in 1..=spec.copies {
            let partial = match number {
                1 => taken.clone(),
                _ => copy(&taken, &selected, number),
            };
            let sent = self.sent(partial, outbound, transform);
            if let Some(expected) = naive::copy(&selected, number, own) {
                assert_eq!(text(&sent), text(&expected), "copy {number}");
            }
        }
    }

    /// What a selection takes, as `mirror::transform::transformer` asks for it.
    fn take(&self, transform: &Transform) -> Result<PartialBody, Unwanted> {
        let (body, edits) = (&self.body, &self.edits);
        if let Some(selection) = &transform.selection
            && let Some(cut) = filter::filter_envelope(selection, None, &self.index, body, edits)?
        {
            check_edits(&cut.edits, 0..cut.front.len());
            let rest: Vec<u8> = cut.segments.slices(body).flatten().copied().collect();
            assert_eq!(rest.len(), cut.segments.len());
            let whole = [&cut.front[..], &rest].concat();
            self.check_items(&whole, cut.categories.len());
            let left_count = cut.categories.len() + cut.left_out.len();
            assert_eq!(left_count, self.index.items.len());
            return Ok(PartialBody {
                front: Bytes::from(cut.front),
                edits: cut.edits,
                rest: Bytes::from(rest),
            });
        }
        let front_bytes = edits.last().map_or(0, |edit| edit.span.end);
        Ok(PartialBody {
            front: body.slice(..front_bytes),
            edits: edits.clone(),
            rest: body.slice(front_bytes..),
        })
    }

    /// Asserts that `whole` is an envelope of `count` of the original items, in the same order, each whole
    /// unless entries were removed.
    fn check_items(&self, whole: &[u8], count: usize) {
        let header = envelope::scan(whole, &mut Vec::new()).expect("still an envelope");
        let left: Result<Vec<_>, _> = items(whole, header.end).collect();
        let left = left.expect("still well-formed");
        assert_eq!(left.len(), count);
        let mut before = self.index.items.iter();
        for item in &left {
            assert!(before.any(
                |part| item.payload.slice(whole) == part.payload.slice(&self.body)
                    || item.payload.len() < part.payload.len()
            ));
        }
    }

    /// The decoded body of what goes out with a partial.
    fn sent(&self, partial: PartialBody, outbound: &Outbound, transform: &Transform) -> Vec<u8> {
        const HEAD: &[u8] = b"POST /api/42/envelope/ HTTP/1.1\r\nHost: m\r\n\r\n";
        let mut parsed = RequestHead::default();
        let _ = parsed.parse(HEAD, HeadLimits::default());
        let inbound = InboundRequest {
            head: Bytes::from_static(HEAD),
            parsed,
            body: Body::plain(self.body.clone()),
            body_edits: self.edits.clone(),
            ..InboundRequest::default()
        };
        let codec = match transform.body_encoding(Encoding::Identity) {
            BodyEncoding::Compressed(codec) => Some(codec),
            BodyEncoding::Plain | BodyEncoding::AsReceived(_) => None,
        };
        let made = match codec {
            None => OutboundBody::Plain(partial),
            Some(codec) => {
                let compressed = POOL.with_borrow_mut(|pool| {
                    let mut compressor = Compressor::new(codec, partial.rest.clone(), pool);
                    while !compressor
                        .step(self.slice_bytes)
                        .expect("it can be compressed")
                    {}
                    compressor.finish(pool)
                });
                OutboundBody::Compressed(partial, Rc::new(compressed))
            }
        };
        let request = render(&inbound, outbound, &made, Vec::new());
        let bytes = [&request.head[..], &request.body, &request.tail].concat();
        let (messages, end) = http::read_all(&bytes, Bounds::NONE);
        let [message] = messages.as_slice() else {
            panic!("{} requests", messages.len());
        };
        assert_eq!(end, End::Clean);
        let codings = message.values("content-encoding");
        assert_eq!(
            codings,
            codec.map(|codec| codec.name().as_bytes()).as_slice()
        );
        match codec {
            None => message.body.clone(),
            Some(codec) => decoded(codec, &message.body),
        }
    }
}

/// Decodes a body with an independent decoder.
fn decoded(codec: Codec, body: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => {
            let mut text = Vec::new();
            let mut decoder = flate2::bufread::GzDecoder::new(body);
            decoder.read_to_end(&mut text).expect("it is gzip");
            assert!(decoder.into_inner().is_empty(), "one member");
            text
        }
        Codec::Zstd => zstd::decode_all(body).expect("it is zstd"),
    }
}

/// A copy, as `mirror::transform::transformer` makes it.
fn copy(taken: &PartialBody, text: &[u8], number: u32) -> PartialBody {
    let ids = copies::ids(text, true).map(|ids| ids.spans).collect();
    let template = Template::new(taken, Bytes::copy_from_slice(text), ids);
    let mut copied = template.text().to_vec();
    template
        .ids()
        .for_each(|ids| copies::rename(&mut copied, ids, number));
    for (old, new) in text.iter().zip(&copied) {
        assert!(old == new || (old.is_ascii_hexdigit() && new.is_ascii_hexdigit()));
    }
    let copy = template.partial(copied);
    assert_eq!(copy.front.len(), taken.front.len());
    copy
}

fn nothing_of(refused: Unwanted) -> Nothing {
    match refused {
        Unwanted::Filtered => Nothing::Filtered,
        Unwanted::Sampled => Nothing::Sampled,
        Unwanted::Capped => unreachable!("no caps are asked"),
    }
}

/// A readable form for failed assertions.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

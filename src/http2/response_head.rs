//! The head of a response: its status and the fields that the mirror acts on.
//!
//! A field that HTTP/2 does not allow makes the response malformed (RFC 9113 §8.1.1), which ends its stream only.

use super::hpack::decoder::{DecodeError, Decoder, Field};
use super::known_block::{KEPT_BYTES_MAX, KnownBlock};
use crate::http::head::HeaderName;
use crate::span::Span;

/// The longest header list, by the count of RFC 9113 §6.5.2. It is announced, so a server knows it.
pub(crate) const LIST_BYTES_MAX: usize = 64 * 1024;

/// A block that is kept for comparison is never too long: its indices of one byte stand for 60 bytes of a list at most,
/// and literals for less in proportion.
const _: () = assert!(KEPT_BYTES_MAX * 60 <= LIST_BYTES_MAX);

/// A final or interim head. It is reused for its memory, and because most heads of a connection are alike.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: u16,
    pub content_length: Option<usize>,
    fields: Vec<(HeaderName, Span)>,
    text: Vec<u8>,
    /// The length of its header block.
    pub(super) block_bytes: usize,
    known: KnownBlock,
}

/// What a field means here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Some,
    None,
}

/// Why a header block is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The block is not HPACK.
    Compression,
    /// It is longer than [`LIST_BYTES_MAX`].
    TooLarge,
    /// It breaks this rule.
    Malformed(&'static str),
}

impl From<DecodeError> for HeadError {
    fn from(error: DecodeError) -> HeadError {
        match error {
            DecodeError::Malformed => HeadError::Compression,
            DecodeError::TooLarge => HeadError::TooLarge,
        }
    }
}

impl ResponseHead {
    /// The fields that have a meaning here, in order.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, &[u8])> {
        let fields = self.fields.iter();
        fields.map(|(name, value)| (*name, value.slice(&self.text)))
    }

    /// Reads a head from its header block.
    pub(super) fn read(&mut self, block: &[u8], decoder: &mut Decoder) -> Result<(), HeadError> {
        if self.known.recurs_in(block, decoder, is_value) {
            self.block_bytes = block.len();
            return Ok(());
        }
        self.clear(block.len());
        let mut known = std::mem::take(&mut self.known);
        let read = self.read_fields(block, decoder, |field, may_vary| known.add(field, may_vary));
        match read {
            // What refers to the dynamic table may mean something else the next time.
            Ok(()) if !decoder.has_used_table() => known.keep(block),
            Ok(()) | Err(_) => known.forget(),
        }
        self.known = known;
        read
    }

    fn read_fields(
        &mut self,
        block: &[u8],
        decoder: &mut Decoder,
        mut on_field: impl FnMut(&Field<'_>, bool),
    ) -> Result<(), HeadError> {
        let mut status = None;
        let mut wrong = None;
        let mut has_field = false;
        decoder.decode(block, LIST_BYTES_MAX, |field| {
            let Field { name, value, .. } = field;
            let read = match name {
                b":status" if status.is_some() => Err("a second :status"),
                b":status" if has_field => Err(":status after a field"),
                b":status" => {
                    status = parse_status(value);
                    status.map(|_| Meaning::Some).ok_or("an invalid :status")
                }
                _ => {
                    has_field = true;
                    self.add(name, value)
                }
            };
            on_field(&field, read == Ok(Meaning::None));
            wrong = wrong.or(read.err());
        })?;
        if let Some(rule) = wrong {
            return Err(HeadError::Malformed(rule));
        }
        self.status = status.ok_or(HeadError::Malformed("no :status"))?;
        Ok(())
    }

    /// Checks the fields after a body. They have no meaning here.
    pub(super) fn read_trailers(
        &mut self,
        block: &[u8],
        decoder: &mut Decoder,
    ) -> Result<(), HeadError> {
        self.clear(block.len());
        let mut wrong = None;
        decoder.decode(block, LIST_BYTES_MAX, |field| {
            wrong = wrong.or(self.add(field.name, field.value).err());
        })?;
        wrong.map_or(Ok(()), |rule| Err(HeadError::Malformed(rule)))
    }

    /// Reads a block that nobody needs, but which may change the dynamic table.
    pub(super) fn skip(&mut self, block: &[u8], decoder: &mut Decoder) -> Result<(), HeadError> {
        self.known.forget();
        match decoder.decode(block, LIST_BYTES_MAX, |_| {}) {
            Ok(()) | Err(DecodeError::TooLarge) => Ok(()),
            Err(error @ DecodeError::Malformed) => Err(error.into()),
        }
    }

    fn clear(&mut self, block_bytes: usize) {
        self.status = 0;
        self.content_length = None;
        self.fields.clear();
        self.text.clear();
        self.block_bytes = block_bytes;
        self.known.forget();
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<Meaning, &'static str> {
        if name.is_empty() || !name.iter().all(|byte| is_name_byte(*byte)) {
            return Err("an invalid field name");
        }
        if !is_value(value) {
            return Err("an invalid field value");
        }
        let value = value.trim_ascii();
        let name = HeaderName::parse(name);
        match name {
            HeaderName::Connection
            | HeaderName::KeepAlive
            | HeaderName::ProxyConnection
            | HeaderName::TransferEncoding
            | HeaderName::Upgrade => return Err("a field of HTTP/1.1 connections"),
            HeaderName::ContentLength if self.content_length.is_some() => {
                return Err("a second content-length");
            }
            HeaderName::ContentLength => {
                self.content_length = Some(parse_length(value).ok_or("an invalid content-length")?);
            }
            HeaderName::ContentType
            | HeaderName::ContentEncoding
            | HeaderName::XSentryRateLimits
            | HeaderName::RetryAfter
            | HeaderName::XSentryError => {
                let start = self.text.len();
                self.text.extend_from_slice(value);
                self.fields.push((name, Span::new(start, self.text.len())));
            }
            _ => return Ok(Meaning::None),
        }
        Ok(Meaning::Some)
    }
}

/// Whether a value has none of the bytes that none may have (RFC 9113 §8.2.1).
fn is_value(value: &[u8]) -> bool {
    // All bytes, so that the compiler can compare many at a time: invalid values are rare.
    value.iter().fold(true, |valid, byte| {
        valid & !matches!(byte, 0 | b'\r' | b'\n')
    })
}

/// Whether a name may have this byte: those of a token (RFC 9110 §5.6.2) without upper case (RFC 9113 §8.2.1).
fn is_name_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'
    )
}

fn parse_status(value: &[u8]) -> Option<u16> {
    let digits = str::from_utf8(value)
        .ok()
        .filter(|digits| digits.len() == 3)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let status = digits.parse().ok().filter(|_| is_number)?;
    (status >= 100).then_some(status)
}

fn parse_length(value: &[u8]) -> Option<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let digits = str::from_utf8(value).ok().filter(|_| is_number)?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http2::hpack::encoder::{self, Secrecy};

    fn read(fields: &[(&str, &str)]) -> Result<ResponseHead, HeadError> {
        let mut head = ResponseHead::default();
        head.read(&block(fields), &mut Decoder::default())
            .map(|()| head)
    }

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            // The encoder makes names lower-case, so they are written as they are.
            block.push(0);
            block.push(name.len() as u8);
            block.extend_from_slice(name.as_bytes());
            let mut literal = Vec::new();
            encoder::append(&mut literal, b"x", value.as_bytes(), Secrecy::Plain);
            block.extend_from_slice(&literal[3..]);
        }
        block
    }

    #[test]
    fn the_fields_that_have_a_meaning_are_kept() {
        let head = read(&[
            (":status", "429"),
            ("content-type", " application/json\t"),
            ("server", "x"),
            ("x-sentry-rate-limits", "60:error:key"),
            ("content-length", "017"),
            ("x-sentry-rate-limits", "1::"),
        ]);
        let head = head.unwrap();
        assert_eq!((head.status, head.content_length), (429, Some(17)));
        let fields: Vec<_> = head.fields().collect();
        let expected = [
            (HeaderName::ContentType, &b"application/json"[..]),
            (HeaderName::XSentryRateLimits, b"60:error:key"),
            (HeaderName::XSentryRateLimits, b"1::"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_http_2_does_not_allow_is_malformed() {
        let status = (":status", "200");
        for fields in [
            &[][..],
            &[("a", "b")],
            &[(":status", "20")],
            &[(":status", "2000")],
            &[(":status", "+20")],
            &[(":status", "099")],
            &[status, status],
            &[("a", "b"), status],
            &[status, (":path", "/")],
            &[status, ("Upper", "b")],
            &[status, ("", "b")],
            &[status, ("a b", "b")],
            &[status, ("a", "b\r\nc")],
            &[status, ("a", "b\0")],
            &[status, ("connection", "close")],
            &[status, ("transfer-encoding", "chunked")],
            &[status, ("content-length", "+1")],
            &[status, ("content-length", "")],
            &[status, ("content-length", "99999999999999999999999")],
            &[status, ("content-length", "1"), ("content-length", "1")],
        ] {
            let error = read(fields).err();
            assert!(
                matches!(error, Some(HeadError::Malformed(_))),
                "{fields:?}: {error:?}"
            );
        }
    }

    type Described = (u16, Option<usize>, usize, Vec<String>);

    /// Reads `blocks` one after the other, as a connection does.
    fn read_all(blocks: &[Vec<u8>]) -> Vec<Result<Described, HeadError>> {
        let (mut head, mut decoder) = (ResponseHead::default(), Decoder::default());
        blocks
            .iter()
            .map(|block| head.read(block, &mut decoder).map(|()| describe(&head)))
            .collect()
    }

    fn describe(head: &ResponseHead) -> Described {
        let fields = head.fields();
        let fields = fields.map(|(name, value)| format!("{name:?}: {}", value.escape_ascii()));
        let fields = fields.collect();
        (head.status, head.content_length, head.block_bytes, fields)
    }

    /// Huffman codes values, as most servers do.
    fn coded_block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut encoder = fluke_hpack::Encoder::new();
        encoder.set_max_table_size(0);
        encoder.encode(
            fields
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    }

    #[test]
    fn a_recurring_head_is_read_as_if_it_were_the_first() {
        let head =
            |date: &'static str, time: &'static str, kind: &'static str, length: &'static str| {
                [
                    (":status", "200"),
                    ("date", date),
                    ("content-type", kind),
                    ("content-length", length),
                    ("x-envoy-upstream-service-time", time),
                    ("via", "1.1 google"),
                ]
            };
        let heads = [
            head(
                "Fri, 27 Nov 2026 21:00:00 GMT",
                "1",
                "application/json",
                "41",
            ),
            head(
                "Fri, 27 Nov 2026 21:00:00 GMT",
                "1",
                "application/json",
                "41",
            ),
            head(
                "Fri, 27 Nov 2026 21:00:01 GMT",
                "1",
                "application/json",
                "41",
            ),
            head(
                "Fri, 27 Nov 2026 21:00:02 GMT",
                "1234",
                "application/json",
                "41",
            ),
            head(
                "Fri, 27 Nov 2026 21:00:02 GMT",
                "",
                "application/json",
                "41",
            ),
            head(
                "Fri, 27 Nov 2026 21:00:03 GMT",
                "12",
                "application/json",
                "7",
            ),
            head("Fri, 27 Nov 2026 21:00:03 GMT", "12", "text/plain", "7"),
            head("Fri, 27 Nov 2026 21:00:04\r\n", "12", "text/plain", "7"),
            head(
                "Fri, 27 Nov 2026 21:00:05 GMT",
                "1",
                "application/json",
                "+1",
            ),
            head(
                "Fri, 27 Nov 2026 21:00:05 GMT",
                "1",
                "application/json",
                "41",
            ),
        ];
        for code in [block, coded_block] {
            let blocks: Vec<_> = heads.iter().map(|head| code(head)).collect();
            let alone: Vec<_> = blocks
                .iter()
                .flat_map(|block| read_all(std::slice::from_ref(block)))
                .collect();
            assert_eq!(read_all(&blocks), alone);
            assert_eq!(alone.iter().filter(|read| read.is_err()).count(), 2);
        }
    }

    #[test]
    fn trailers_are_no_head_to_compare_with() {
        let (mut head, mut decoder) = (ResponseHead::default(), Decoder::default());
        let first = block(&[(":status", "200"), ("content-type", "a/b")]);
        let read = |head: &mut ResponseHead, decoder: &mut Decoder| {
            head.read(&first, decoder).map(|()| describe(head))
        };
        let expected = read(&mut head, &mut decoder);
        let trailers = block(&[("a", "b")]);
        assert_eq!(head.read_trailers(&trailers, &mut decoder), Ok(()));
        assert_eq!(read(&mut head, &mut decoder), expected);
        assert!(head.read(&trailers, &mut decoder).is_err());
    }

    #[test]
    fn a_block_that_is_skipped_may_change_what_the_same_one_does() {
        let (mut head, mut decoder) = (ResponseHead::default(), Decoder::default());
        let content_type = |value: &str| vec![format!("ContentType: {value}")];
        // Without a dynamic table, its literal is added to none.
        let adding = b"\x88\x5f\x01a";
        for block in [&b"\x20\x88\x5f\x01a"[..], adding, adding] {
            assert_eq!(head.read(block, &mut decoder), Ok(()));
        }
        // A size of 4,096 bytes.
        assert_eq!(head.skip(b"\x3f\xe1\x1f", &mut decoder), Ok(()));
        assert_eq!(head.read(adding, &mut decoder), Ok(()));
        assert_eq!(head.read(b"\x88\xbe", &mut decoder), Ok(()));
        assert_eq!(describe(&head).3, content_type("a"));
        assert_eq!(head.read(b"\x88\x5f\x01b", &mut decoder), Ok(()));
        // The same block, and another meaning.
        assert_eq!(head.read(b"\x88\xbe", &mut decoder), Ok(()));
        assert_eq!(describe(&head).3, content_type("b"));
    }

    const NAMES: [&str; 8] = [
        ":status",
        "date",
        "x-a",
        "content-length",
        "content-type",
        "retry-after",
        "server",
        "connection",
    ];
    const VALUES: [&str; 9] = [
        "200",
        "429",
        "7",
        "",
        "a/b",
        "1",
        "Fri, 27 Nov 2026 21:00:00 GMT",
        "a\0",
        "nginx/1.22.1",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_was_read_before_changes_nothing(
            heads in prop::collection::vec(
                (prop::collection::vec((0..NAMES.len(), 0..VALUES.len()), 0..4), any::<bool>(), any::<bool>()),
                1..6,
            ),
            changes in prop::collection::vec((0..6_usize, 0..3_usize, 0..VALUES.len()), 1..12),
        ) {
            // Each head changes into others in one value, so that most are alike.
            let mut blocks = Vec::new();
            for (fields, has_status, is_coded) in &heads {
                let mut fields: Vec<_> = fields.iter().map(|(name, value)| (NAMES[*name], VALUES[*value])).collect();
                if *has_status {
                    fields.insert(0, (":status", "200"));
                }
                for (repeat, place, value) in &changes {
                    if let Some(field) = fields.get_mut(*place) {
                        field.1 = VALUES[*value];
                    }
                    let block = if *is_coded { coded_block(&fields) } else { block(&fields) };
                    blocks.extend(std::iter::repeat_n(block, *repeat));
                }
            }
            let alone: Vec<_> = blocks.iter().flat_map(|block| read_all(std::slice::from_ref(block))).collect();
            prop_assert_eq!(read_all(&blocks), alone);
        }

        #[test]
        fn any_bytes_after_a_head_are_read_as_if_they_were_the_first(
            at in 0..60_usize, byte in any::<u8>(), is_coded in any::<bool>(), cut in 0..60_usize,
        ) {
            let fields = [(":status", "200"), ("date", "Fri, 27 Nov 2026"), ("content-type", "a/b"), ("x-a", "1234")];
            let first = if is_coded { coded_block(&fields) } else { block(&fields) };
            let mut other = first.clone();
            if let Some(place) = other.get_mut(at) {
                *place = byte;
            }
            other.truncate(other.len() - cut % 3);
            let blocks = [first.clone(), other.clone(), first.clone(), other.clone(), other];
            let alone: Vec<_> = blocks.iter().flat_map(|block| read_all(std::slice::from_ref(block))).collect();
            prop_assert_eq!(read_all(&blocks), alone);
        }
    }

    #[test]
    fn trailers_have_no_status() {
        let trailers = |fields: &[(&str, &str)]| {
            ResponseHead::default().read_trailers(&block(fields), &mut Decoder::default())
        };
        assert_eq!(trailers(&[("a", "b")]), Ok(()));
        assert!(trailers(&[(":status", "200")]).is_err());
    }
}

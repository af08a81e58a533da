//! The header of an envelope, with its DSN and the public key of its trace.
//!
//! An envelope begins with a JSON object. Relay finds its end with a JSON parser, not by the first line feed, so white
//! space before the object and line feeds in it are allowed. [`scan`] walks over the object, notes the spans of a few
//! strings, and stops at the closing brace. It checks only the structure, members and brackets, which decides what
//! member a string belongs to. Whether numbers and escapes are valid, and what follows the header, is left to the
//! upstreams.
//!
//! Only the two members that Relay reads count: the top-level `dsn`, and `public_key` in the top-level `trace`. Deeper
//! inside or in later lines, the same names are the user's own data.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};

use super::edit::{Edit, Replacement};
use super::parameters::hex_digit;
use crate::span::Span;

/// The maximum number of edits in a header. Relay rejects a second `dsn`. Without a bound, each of many short ones
/// would grow to the length of the outbound's DSN, for each outbound.
const EDITS_MAX: usize = 16;

/// A parsed envelope header. Spans are those of the contents of strings, between the quotes and still escaped. The
/// last of several members with one name counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// The position after the closing brace.
    pub end: usize,
    /// The `dsn`, if it is a string.
    pub dsn: Option<Span>,
    /// The `public_key` of the `trace`, if both are there and it is a string.
    pub trace_key: Option<Span>,
    /// The `event_id`, if it is a string.
    pub event_id: Option<Span>,
}

/// Why an envelope, or JSON in it, is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    Empty,
    UnexpectedEnd,
    /// It begins with something else, such as a byte order mark.
    NotAnObject,
    Malformed,
    /// Arrays and objects are nested too deeply.
    TooDeep,
    /// Too many members to edit, items, or entries.
    TooMany,
    /// A header is longer than allowed.
    TooLong,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EnvelopeError::Empty => "empty request body",
            EnvelopeError::UnexpectedEnd => "unexpected end of file",
            EnvelopeError::NotAnObject => "invalid envelope header: expected a JSON object",
            EnvelopeError::Malformed => "invalid envelope header: malformed JSON",
            EnvelopeError::TooDeep => "invalid envelope header: recursion limit exceeded",
            EnvelopeError::TooMany => "invalid envelope header: duplicate field",
            EnvelopeError::TooLong => "invalid envelope header: too long",
        })
    }
}

impl std::error::Error for EnvelopeError {}

/// Parses the header at the start of `body`, and pushes a [`Replacement::Dsn`] for every `dsn` and a
/// [`Replacement::TraceKey`] for every `public_key` of a `trace`, in the order of their positions.
///
/// Values other than strings are not edited: `null` means none, and servers reject anything else. On an error,
/// nothing is pushed.
pub fn scan(body: &[u8], edits: &mut Vec<Edit>) -> Result<EnvelopeHeader, EnvelopeError> {
    scan_within(body, usize::MAX, edits)
}

/// The same for a header of at most `header_bytes_max`, since a walk over it keeps the core from everything else.
pub(crate) fn scan_within(
    body: &[u8],
    header_bytes_max: usize,
    edits: &mut Vec<Edit>,
) -> Result<EnvelopeHeader, EnvelopeError> {
    if body.is_empty() {
        return Err(EnvelopeError::Empty);
    }
    let edits_before = edits.len();
    // A header that is too long has no end in the part that is read.
    let (start, is_cut) = match body.get(..header_bytes_max) {
        Some(start) if start.len() < body.len() => (start, true),
        Some(_) | None => (body, false),
    };
    let scanned = scan_header(start, edits).map_err(|error| match error {
        EnvelopeError::UnexpectedEnd if is_cut => EnvelopeError::TooLong,
        error => error,
    });
    if scanned.is_err() {
        edits.truncate(edits_before);
    }
    scanned
}

/// Unescapes the content of a JSON string.
///
/// Never fails: an unknown escape stands for its character, a lone surrogate for U+FFFD.
pub fn unescape(json_string_content: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', json_string_content).is_none() {
        return Cow::Borrowed(json_string_content);
    }
    let mut rest = json_string_content;
    let mut text = Vec::with_capacity(rest.len());
    while let Some((plain, escape)) =
        memchr(b'\\', rest).and_then(|backslash| rest.split_at_checked(backslash))
    {
        text.extend_from_slice(plain);
        rest = unescape_one(escape, &mut text);
    }
    text.extend_from_slice(rest);
    Cow::Owned(text)
}

/// Appends the character of the escape at the start of `escape`, and returns the rest.
fn unescape_one<'b>(escape: &'b [u8], text: &mut Vec<u8>) -> &'b [u8] {
    let (byte, rest) = match escape {
        [b'\\', b'u', rest @ ..] => return unescape_unicode(rest, text),
        [b'\\', b'b', rest @ ..] => (b'\x08', rest),
        [b'\\', b'f', rest @ ..] => (b'\x0c', rest),
        [b'\\', b'n', rest @ ..] => (b'\n', rest),
        [b'\\', b'r', rest @ ..] => (b'\r', rest),
        [b'\\', b't', rest @ ..] => (b'\t', rest),
        [b'\\', other, rest @ ..] => (*other, rest),
        // A lone backslash at the end, which is impossible in a string.
        other => (b'\\', other.get(1..).unwrap_or_default()),
    };
    text.push(byte);
    rest
}

/// The same for the digits after `\u`. Characters beyond U+FFFF are two such escapes.
fn unescape_unicode<'b>(digits: &'b [u8], text: &mut Vec<u8>) -> &'b [u8] {
    let (character, rest) = match code_unit(digits) {
        Some((high @ 0xd800..=0xdbff, rest)) => rest
            .strip_prefix(b"\\u")
            .and_then(code_unit)
            .and_then(|(low, rest)| {
                let character = char::decode_utf16([high, low]).next()?.ok()?;
                Some((character, rest))
            })
            .unwrap_or((char::REPLACEMENT_CHARACTER, rest)),
        Some((unit, rest)) => {
            let character = char::from_u32(unit.into());
            (character.unwrap_or(char::REPLACEMENT_CHARACTER), rest)
        }
        None => (char::REPLACEMENT_CHARACTER, digits),
    };
    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

fn code_unit(digits: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = digits.split_first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit: u16, digit| {
        Some(unit << 4 | u16::from(hex_digit(*digit)?))
    })?;
    Some((unit, rest))
}

fn scan_header(body: &[u8], edits: &mut Vec<Edit>) -> Result<EnvelopeHeader, EnvelopeError> {
    let mut header = EnvelopeHeader::default();
    let mut scanner = Scanner { body, at: 0 };
    scanner.object(|scanner, name| {
        let value = scanner.next_token()?;
        match (name, value) {
            (b"dsn", b'"') => header.dsn = Some(scanner.string_to_edit(Replacement::Dsn, edits)?),
            (b"event_id", b'"') => header.event_id = Some(scanner.string()?),
            (b"trace", b'{') => scanner.members(|scanner, name| {
                let value = scanner.next_token()?;
                match (name, value) {
                    (b"public_key", b'"') => {
                        header.trace_key =
                            Some(scanner.string_to_edit(Replacement::TraceKey, edits)?);
                        Ok(())
                    }
                    _ => scanner.skip_value(Scanner::NESTING_MAX - 2),
                }
            })?,
            _ => scanner.skip_value(Scanner::NESTING_MAX - 1)?,
        }
        Ok(())
    })?;
    header.end = scanner.at;
    Ok(header)
}

/// Walks over JSON text from position `at`.
pub(super) struct Scanner<'b> {
    pub(super) body: &'b [u8],
    pub(super) at: usize,
}

impl<'b> Scanner<'b> {
    /// How deeply arrays and objects may be nested, including the outermost. Relay's JSON parser has the same limit.
    pub(super) const NESTING_MAX: u32 = 128;

    /// Walks over an object after optional white space; see [`Scanner::members`].
    pub(super) fn object(
        &mut self,
        member: impl FnMut(&mut Self, &[u8]) -> Result<(), EnvelopeError>,
    ) -> Result<(), EnvelopeError> {
        if self.next_token()? != b'{' {
            return Err(EnvelopeError::NotAnObject);
        }
        self.members(member)
    }

    /// Skips white space, and returns the byte at the new position.
    pub(super) fn next_token(&mut self) -> Result<u8, EnvelopeError> {
        loop {
            match self.body.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(EnvelopeError::UnexpectedEnd),
            }
        }
    }

    /// Walks over an object from its opening brace. `member` gets the name of each member and has to walk over its
    /// value, after optional white space.
    pub(super) fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result<(), EnvelopeError>,
    ) -> Result<(), EnvelopeError> {
        self.at += 1;
        if self.next_token()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.expect(b'"')?;
            let (name, is_plain) = self.content()?;
            self.expect(b':')?;
            self.at += 1;
            let name = name.slice(self.body);
            if is_plain {
                member(self, name)?;
            } else {
                member(self, &unescape(name))?;
            }
            let after = self.next_token()?;
            self.at += 1;
            match after {
                b',' => {}
                b'}' => return Ok(()),
                _ => return Err(EnvelopeError::Malformed),
            }
        }
    }

    /// Walks over an array from its opening bracket. `element` is called at the start of each element and has to
    /// walk over it.
    pub(super) fn elements(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), EnvelopeError>,
    ) -> Result<(), EnvelopeError> {
        self.at += 1;
        if self.next_token()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.next_token()?;
            element(self)?;
            let after = self.next_token()?;
            self.at += 1;
            match after {
                b',' => {}
                b']' => return Ok(()),
                _ => return Err(EnvelopeError::Malformed),
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), EnvelopeError> {
        if self.next_token()? == byte {
            Ok(())
        } else {
            Err(EnvelopeError::Malformed)
        }
    }

    /// Walks over a string from its opening quote and returns its content.
    pub(super) fn string(&mut self) -> Result<Span, EnvelopeError> {
        let (content, _) = self.content()?;
        Ok(content)
    }

    /// The same, and whether the content is plain, without escapes.
    fn content(&mut self) -> Result<(Span, bool), EnvelopeError> {
        let start = self.at + 1;
        let mut from = start;
        loop {
            let rest = self.body.get(from..).unwrap_or_default();
            let found = memchr2(b'"', b'\\', rest).ok_or(EnvelopeError::UnexpectedEnd)?;
            let at = from + found;
            if rest.get(found) == Some(&b'"') {
                self.at = at + 1;
                return Ok((Span::new(start, at), from == start));
            }
            // The byte after a backslash may be a quote, but does not end the string.
            from = at + 2;
        }
    }

    fn string_to_edit(
        &mut self,
        replacement: Replacement,
        edits: &mut Vec<Edit>,
    ) -> Result<Span, EnvelopeError> {
        if edits.len() >= EDITS_MAX {
            return Err(EnvelopeError::TooMany);
        }
        let span = self.string()?;
        edits.push(Edit { span, replacement });
        Ok(span)
    }

    /// Walks over a value; arrays and objects may be nested `nesting_max` deep.
    pub(super) fn skip_value(&mut self, nesting_max: u32) -> Result<(), EnvelopeError> {
        match self.next_token()? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.skip_nested(nesting_max),
            _ => self.skip_scalar(),
        }
    }

    /// Walks over an array or an object from its opening bracket.
    fn skip_nested(&mut self, nesting_max: u32) -> Result<(), EnvelopeError> {
        // One bit for each open bracket, with the innermost as the lowest: whether it is a brace.
        const { assert!(Scanner::NESTING_MAX <= u128::BITS) };
        let mut braces: u128 = 0;
        let mut depth = 0;
        loop {
            let token = self.next_token()?;
            match token {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    if depth == nesting_max {
                        return Err(EnvelopeError::TooDeep);
                    }
                    depth += 1;
                    braces = braces << 1 | u128::from(token == b'{');
                    self.at += 1;
                }
                b'}' | b']' => {
                    if (braces & 1 == 1) != (token == b'}') {
                        return Err(EnvelopeError::Malformed);
                    }
                    depth -= 1;
                    braces >>= 1;
                    self.at += 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => self.skip_between()?,
            }
        }
    }

    /// Walks over everything between strings and brackets in a value.
    fn skip_between(&mut self) -> Result<(), EnvelopeError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        // A single loop, since a long array of numbers takes some time.
        let is_between = |byte: &u8| {
            matches!(
                byte,
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'+' | b'-' | b'.' | b',' | b':'
                    | b' ' | b'\t' | b'\r' | b'\n'
            )
        };
        let length = rest
            .iter()
            .position(|byte| !is_between(byte))
            .unwrap_or(rest.len());
        self.at += length;
        match length {
            0 => Err(EnvelopeError::Malformed),
            _ => Ok(()),
        }
    }

    /// Walks over a number without sign, fraction or exponent, and returns its span and its value.
    pub(super) fn digits(&mut self) -> Result<(Span, usize), EnvelopeError> {
        let start = self.at;
        self.skip_scalar()?;
        let span = Span::new(start, self.at);
        let digits = str::from_utf8(span.slice(self.body));
        let number = digits.ok().and_then(|digits| digits.parse().ok());
        let number = number.ok_or(EnvelopeError::Malformed)?;
        Ok((span, number))
    }

    /// Walks over a number, `true`, `false` or `null`.
    pub(super) fn skip_scalar(&mut self) -> Result<(), EnvelopeError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte))
            .unwrap_or(rest.len());
        self.at += length;
        if length == 0 {
            return Err(EnvelopeError::Malformed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

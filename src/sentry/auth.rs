//! The key sites in the head of a request.
//!
//! The rules are those of Relay 26.9 (`extractors/request_meta.rs`): the key is in `X-Sentry-Auth`, in
//! `Authorization: Sentry …`, in `Authorization: Basic …`, in the query or in the path, and in exactly one of them.
//! There is no precedence, so no key is ever added to a request. Every key site is rewritten in place, including those
//! that Relay ignores, such as a second `X-Sentry-Auth` line: no inbound key or secret may leave with a request. A
//! header line that could hide a key elsewhere is emptied, and a parameter that names one in a spelling which Relay
//! does not accept is left out.
//!
//! Whether a key is known is not decided here. Without any of these sources, the `dsn` of the envelope header counts;
//! see [`envelope`](super::envelope).

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use memchr::{memchr, memchr_iter, memmem};

use super::dsn;
use super::edit::{EDITS_MAX, Edit, Replacement};
use super::parameters::{Parameter, Syntax, decimal, form_decode, parameters};
use super::spelling::{Credential, names_credential};
use crate::span::Span;

/// The newest protocol version that Relay accepts.
const PROTOCOL_VERSION: u16 = 7;

/// Base64 by the most lenient rules.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// A header that can carry a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthHeader {
    XSentryAuth,
    Authorization,
}

/// Where a key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `X-Sentry-Auth: Sentry sentry_key=…`.
    XSentryAuth,
    /// `Authorization: Sentry sentry_key=…`.
    Authorization,
    /// `Authorization: Basic …`, with the key as the user.
    Basic,
    /// `sentry_key` in the query, or `dsn` in the query of the crash-report dialog.
    Query,
    /// A segment of the path: `/unreal/{key}/` or `/cron/{slug}/{key}`.
    Path,
}

/// The key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundKey {
    pub source: Source,
    text: KeyText,
}

impl FoundKey {
    /// The key, decoded and without its `.flag`. `head` is the buffer it was found in.
    pub fn bytes<'a>(&'a self, head: &'a [u8]) -> &'a [u8] {
        match &self.text {
            KeyText::Written(span) => span.slice(head),
            KeyText::Decoded(key) => key,
        }
    }
}

/// Why the key of a request is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// Several sources, even if they agree. Relay answers 401.
    Multiple,
    /// A source without a key, or with a version that is not a number. Relay answers 401.
    Unparsable,
    /// A version above 7. Relay answers 400.
    BadVersion,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthError::Multiple => "multiple authorization payloads detected",
            AuthError::Unparsable => "bad x-sentry-auth header",
            AuthError::BadVersion => "unsupported protocol version",
        })
    }
}

impl std::error::Error for AuthError {}

/// Finds the key in the head of a request and pushes an edit for every key site.
///
/// `headers` are the auth headers in their order, each with the span of its value; `query` is the query without `?`;
/// `path_key` is the path segment with the key. `Ok(None)` means that there is no source. The edits are ordered by
/// source, not by position. After an error they must not be used.
pub fn find(
    head: &[u8],
    headers: impl Iterator<Item = (AuthHeader, Span)>,
    query: Option<Span>,
    path_key: Option<Span>,
    edits: &mut Vec<Edit>,
) -> Result<Option<FoundKey>, AuthError> {
    let mut found = None;
    let (mut x_sentry_auth_seen, mut authorization_seen) = (false, false);
    for (header, value) in headers {
        let (seen, source) = match header {
            AuthHeader::XSentryAuth => (&mut x_sentry_auth_seen, Source::XSentryAuth),
            AuthHeader::Authorization => (&mut authorization_seen, Source::Authorization),
        };
        check_count(edits)?;
        // The first line of a name counts, even if it is empty.
        let counts = !std::mem::replace(seen, true);
        if let Some(list) = after_scheme(head, value, b"sentry ") {
            if counts && is_visible(value.slice(head)) {
                let text = read_list(head, list, Syntax::Header, edits);
                claim(&mut found, source, text?)?;
            } else {
                edit_unread_list(head, value, list, edits);
            }
        } else if header == AuthHeader::XSentryAuth || names_credential(value.slice(head)) {
            // Relay ignores it. If it were left out, a second line would become the first.
            edits.push(emptied(value));
        } else if let Some(text) = read_basic(head, value, edits)
            && counts
        {
            claim(&mut found, Source::Basic, text)?;
        }
    }
    check_count(edits)?;
    if let Some(query) = query {
        if is_source(query.slice(head)) {
            let text = read_list(head, query, Syntax::Query, edits);
            // As in Relay, it counts as a source even without a key.
            if found.is_some() {
                return Err(AuthError::Multiple);
            }
            claim(&mut found, Source::Query, text?)?;
        } else if names_credential(query.slice(head)) {
            edit_unread_query(head, query, edits)?;
        }
    }
    if let Some(segment) = path_key {
        let text = read_key(head, segment, Syntax::Query, edits);
        claim(&mut found, Source::Path, text)?;
    }
    Ok(found)
}

/// Whether Relay takes a query for a source: if it contains this text.
pub(crate) fn is_source(query: &[u8]) -> bool {
    memmem::find(query, b"sentry_").is_some()
}

/// Records a source, which must be the only one.
fn claim(found: &mut Option<FoundKey>, source: Source, text: KeyText) -> Result<(), AuthError> {
    match found.replace(FoundKey { source, text }) {
        None => Ok(()),
        Some(_) => Err(AuthError::Multiple),
    }
}

/// Finds the key in a request for the crash-report dialog, whose query has a whole `dsn`.
///
/// The last `dsn` counts, as in Django; all are edited. The new value is not encoded, as in the browser SDK, and has no
/// secret, since the response repeats it in the script. Other parameters with a key or a secret are left out: they have
/// no effect there.
pub fn find_in_dsn_parameter(head: &[u8], query: Span, edits: &mut Vec<Edit>) -> Option<FoundKey> {
    let mut found = None;
    let mut is_first_kept = false;
    for parameter in parameters(head, query, Syntax::Query) {
        let Parameter { name, value, .. } = parameter;
        check_count(edits).ok()?;
        if !parameter.is_bare && *form_decode(name.slice(head)) == *b"dsn" {
            edits.push(Edit {
                span: value,
                replacement: Replacement::PublicDsn,
            });
            found = dsn::key_in_text(&form_decode(value.slice(head))).map(|key| FoundKey {
                source: Source::Query,
                text: KeyText::Decoded(key.to_owned()),
            });
        } else if names_credential(parameter.whole.slice(head)) {
            edits.push(Edit {
                span: removal(parameter, head, query, is_first_kept),
                replacement: Replacement::Nothing,
            });
            continue;
        }
        is_first_kept = true;
    }
    found
}

/// Pushes the edits of auth headers at an endpoint where Sentry ignores them, as at the crash-report dialog. Their keys
/// are replaced by the outbound's too.
pub fn edit_unread_headers(
    head: &[u8],
    headers: impl Iterator<Item = (AuthHeader, Span)>,
    edits: &mut Vec<Edit>,
) -> Result<(), AuthError> {
    for (header, value) in headers {
        check_count(edits)?;
        if let Some(list) = after_scheme(head, value, b"sentry ") {
            edit_unread_list(head, value, list, edits);
        } else if header == AuthHeader::XSentryAuth || names_credential(value.slice(head)) {
            edits.push(emptied(value));
        }
    }
    Ok(())
}

/// Whether Relay accepts these bytes as a key. It answers 400 `bad sentry DSN public key` to others, instead of 403 to
/// an unknown key.
pub(crate) fn is_well_formed(key: &[u8]) -> bool {
    key.len() == 32 && key.is_ascii()
}

/// The text of a key. Only an encoded one has to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyText {
    Written(Span),
    Decoded(Vec<u8>),
}

/// Rejects a head with more key sites than [`EDITS_MAX`]: a list that is only partly edited must not be forwarded.
fn check_count(edits: &[Edit]) -> Result<(), AuthError> {
    match edits.len() {
        ..EDITS_MAX => Ok(()),
        EDITS_MAX.. => Err(AuthError::Multiple),
    }
}

/// Parses a list of parameters. The last of several keys counts; all of them are edited.
fn read_list(
    head: &[u8],
    list: Span,
    syntax: Syntax,
    edits: &mut Vec<Edit>,
) -> Result<KeyText, AuthError> {
    let mut key = None;
    let mut version = Some(PROTOCOL_VERSION);
    let mut is_first_kept = false;
    for parameter in parameters(head, list, syntax) {
        check_count(edits)?;
        let name = syntax.decode(parameter.name.slice(head));
        match &*name {
            b"sentry_secret" if !parameter.is_bare => {
                let span = removal(parameter, head, list, is_first_kept);
                let value = parameter.value;
                let replacement = Replacement::SecretParameter { value };
                edits.push(Edit { span, replacement });
                continue;
            }
            b"sentry_key" if !parameter.is_bare => {
                key = Some(read_key(head, parameter.value, syntax, edits))
                    .filter(|_| !parameter.value.is_empty());
                spell_out(head, parameter, edits);
            }
            name if hides_credential(head, parameter, name) => {
                edits.push(Edit {
                    span: removal(parameter, head, list, is_first_kept),
                    replacement: Replacement::Nothing,
                });
                continue;
            }
            _ if parameter.is_bare => continue,
            b"sentry_version" => {
                let read = read_version(&syntax.decode(parameter.value.slice(head)));
                version = version.and(read);
            }
            _ => {}
        }
        is_first_kept = true;
    }
    match (key, version) {
        (Some(key), Some(..=PROTOCOL_VERSION)) => Ok(key),
        (Some(_), Some(_)) => Err(AuthError::BadVersion),
        (None, _) | (_, None) => Err(AuthError::Unparsable),
    }
}

/// The bytes to remove with a parameter: it and the separator before it, or the separator after it as long as no
/// parameter was kept. So the edits of neighbours never overlap.
fn removal(parameter: Parameter, head: &[u8], list: Span, is_first_kept: bool) -> Span {
    match is_first_kept {
        true => parameter.with_separator_before(),
        false => parameter.with_separator_after(head, list),
    }
}

/// Whether a parameter `name`, which to Relay is neither key nor secret, contains the name of one. A server that splits
/// or decodes lists differently might use it.
fn hides_credential(head: &[u8], parameter: Parameter, name: &[u8]) -> bool {
    let text = match name {
        // Nearly all other parameters.
        b"sentry_version" | b"sentry_client" | b"sentry_timestamp" => parameter.value,
        _ => parameter.whole,
    };
    names_credential(text.slice(head))
}

/// Removes parameters with the name of a key or a secret from a query that Relay ignores.
fn edit_unread_query(head: &[u8], query: Span, edits: &mut Vec<Edit>) -> Result<(), AuthError> {
    let mut is_first_kept = false;
    for parameter in parameters(head, query, Syntax::Query) {
        if !names_credential(parameter.whole.slice(head)) {
            is_first_kept = true;
            continue;
        }
        check_count(edits)?;
        edits.push(Edit {
            span: removal(parameter, head, query, is_first_kept),
            replacement: Replacement::Nothing,
        });
    }
    Ok(())
}

/// Edits the list of a header line that Relay ignores: replaces the keys by the outbound's and keeps the rest. If that
/// could leave a key in the line, or make it one that Relay accepts as a source, the line is emptied.
fn edit_unread_list(head: &[u8], value: Span, list: Span, edits: &mut Vec<Edit>) {
    let before = edits.len();
    // An error does not matter, since the line is no source.
    let _ = read_list(head, list, Syntax::Header, edits);
    let own = edits.get(before..).unwrap_or_default();
    let starts = std::iter::once(value.start).chain(own.iter().map(|edit| edit.span.end));
    let ends = own.iter().map(|edit| edit.span.start);
    let kept = starts.zip(ends.chain(std::iter::once(value.end)));
    let mut kept = kept.map(|(start, end)| Span::new(start, end).slice(head));
    let becomes_readable = !is_visible(value.slice(head)) && kept.all(is_visible);
    let count = |name| memmem::find_iter(list.slice(head), name).count();
    let named = count(b"sentry_key".as_slice()) + count(b"sentry_secret".as_slice());
    let hides = own
        .iter()
        .any(|edit| edit.replacement == Replacement::Nothing);
    if becomes_readable || hides || named != own.len() {
        edits.truncate(before);
        edits.push(emptied(value));
    }
}

/// The edit that empties a value.
fn emptied(value: Span) -> Edit {
    Edit {
        span: value,
        replacement: Replacement::Nothing,
    }
}

/// Replaces a percent-encoded name `sentry_key` by the plain one. Relay looks for the text `sentry_` before it
/// decodes a query, and the removed secret may have been the only parameter with it.
fn spell_out(head: &[u8], parameter: Parameter, edits: &mut [Edit]) {
    if parameter.name.slice(head) == b"sentry_key" {
        return;
    }
    if let Some(edit) = edits.last_mut() {
        edit.span.start = parameter.name.start;
        edit.replacement = Replacement::KeyParameter;
    }
}

/// Reads a key and pushes its edit. A suffix such as `.no-cache` is a flag for Relay and stays.
fn read_key(head: &[u8], value: Span, syntax: Syntax, edits: &mut Vec<Edit>) -> KeyText {
    let written = value.slice(head);
    let dot = memchr(b'.', written);
    let encoded_dot = || {
        memchr_iter(b'%', written).find(|percent| {
            let encoded = written.get(*percent..*percent + 3);
            encoded.is_some_and(|encoded| encoded.eq_ignore_ascii_case(b"%2e"))
        })
    };
    let length = match syntax {
        Syntax::Header => dot,
        Syntax::Query => dot.into_iter().chain(encoded_dot()).min(),
    };
    let span = Span::new(value.start, value.start + length.unwrap_or(written.len()));
    let suffix = Span::new(span.end, value.end).slice(head);
    edits.push(Edit {
        span: match names_credential(suffix) {
            true => value,
            false => span,
        },
        replacement: Replacement::Key,
    });
    match syntax.decode(span.slice(head)) {
        Cow::Borrowed(_) => KeyText::Written(span),
        Cow::Owned(key) => KeyText::Decoded(key),
    }
}

/// The number before the first dot. It may begin with a plus.
fn read_version(value: &[u8]) -> Option<u16> {
    let number = value.split(|byte| *byte == b'.').next()?;
    let digits = number.strip_prefix(b"+").unwrap_or(number);
    decimal(digits)?.try_into().ok()
}

/// Reads `Basic base64(key:password)`. Credentials that do not decode, or have no user, are not Sentry's.
fn read_basic(head: &[u8], value: Span, edits: &mut Vec<Edit>) -> Option<KeyText> {
    let span = after_scheme(head, value, b"basic ")?;
    let mut credentials = STANDARD.decode(span.slice(head)).ok()?;
    str::from_utf8(&credentials).ok()?;
    let colon = memchr(b':', &credentials).filter(|colon| *colon > 0)?;
    let with_secret = colon + 1 < credentials.len();
    let replacement = Replacement::BasicCredentials { with_secret };
    edits.push(Edit { span, replacement });
    credentials.truncate(colon);
    if let Some(dot) = memchr(b'.', &credentials) {
        credentials.truncate(dot);
    }
    Some(KeyText::Decoded(credentials))
}

/// Whether the value of an `Authorization` header contains `credential` in base64 that servers other than Relay may
/// decode: in the URL-safe alphabet, without padding, after several spaces or in a parameter.
pub(crate) fn encodes(value: &[u8], credential: &Credential) -> bool {
    let is_coded = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let mut words = value.split(|byte| !is_coded(byte));
    words.any(|word| {
        let standard = word.iter().map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        });
        let mut text: Vec<u8> = standard.collect();
        // A single remaining character does not make a byte.
        if text.len() % 4 == 1 {
            text.pop();
        }
        let decoded = LENIENT.decode(text);
        decoded.is_ok_and(|text| credential.is_in(&text))
    })
}

/// Whether the value of an `Authorization` header has the scheme `Sentry`.
pub(crate) fn has_sentry_scheme(value: &[u8]) -> bool {
    after_scheme(value, Span::new(0, value.len()), b"sentry ").is_some()
}

/// The rest of a value after `scheme` with its one space, ignoring case.
fn after_scheme(head: &[u8], value: Span, scheme: &[u8]) -> Option<Span> {
    let (start, _) = value.slice(head).split_at_checked(scheme.len())?;
    start
        .eq_ignore_ascii_case(scheme)
        .then(|| Span::new(value.start + scheme.len(), value.end))
}

/// Whether Relay accepts a header value. It treats one with other bytes as absent.
fn is_visible(value: &[u8]) -> bool {
    // No early exit, since nearly every value is visible: so the loop is vectorised.
    value.iter().fold(true, |is_visible, byte| {
        is_visible & matches!(byte, b' '..=b'~' | b'\t')
    })
}

#[cfg(test)]
mod tests;

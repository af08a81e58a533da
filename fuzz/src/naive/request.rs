//! The head of a request that an outbound must get.
//!
//! A head is split into its parts. Each part with a key that Relay reads is put together again with the values
//! of the outbound, and everything else stays. A part with a key or a secret that Relay does not read has no
//! single right form: it may be emptied, replaced or left out, and is only checked for leaks.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::http::Message;

/// The values of the inbound DSN, which must not leak.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'i> {
    pub key: &'i str,
    pub secret: &'i str,
}

/// The values of the outbound.
#[derive(Clone, Copy, Debug)]
pub struct Own<'o> {
    pub key: &'o str,
    pub secret: Option<&'o str>,
    /// Its DSN without the secret.
    pub public_dsn: &'o str,
    pub project: &'o str,
    pub path_prefix: &'o str,
    pub host: &'o str,
    /// The configured headers.
    pub headers: &'o [(&'o str, &'o str)],
}

/// A part of a request as it must be forwarded.
#[derive(Clone, Debug)]
pub enum Part {
    /// These bytes.
    Exactly(Vec<u8>),
    /// The same, except for separators and white space around removed parts.
    Loosely(Vec<u8>),
    /// Anything that leaks nothing.
    Anything,
}

impl Part {
    /// Whether `text` matches.
    pub fn allows(&self, text: &[u8]) -> bool {
        match self {
            Part::Exactly(expected) => text == expected,
            Part::Loosely(expected) => words(text).eq(words(expected)),
            Part::Anything => true,
        }
    }

    /// With a text before and after it.
    fn within(self, before: &[u8], after: &[u8]) -> Part {
        let whole = |text: Vec<u8>| [before, &text, after].concat();
        match self {
            Part::Exactly(text) => Part::Exactly(whole(text)),
            Part::Loosely(text) => Part::Loosely(whole(text)),
            Part::Anything => Part::Anything,
        }
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| b"&, \t".contains(byte))
        .filter(|word| !word.is_empty())
}

/// `text`, unless something in it names a key.
fn unless_it_leaks(text: &[u8], inbound: Inbound<'_>) -> Part {
    match leaks(text, inbound) {
        true => Part::Anything,
        false => Part::Exactly(text.to_vec()),
    }
}

/// The head of a request as it must be forwarded.
#[derive(Debug)]
pub struct Head {
    pub target: Part,
    /// The header lines that are forwarded unchanged.
    pub lines: Vec<Part>,
}

/// The kind of a request, by its path and its key site.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The path is outside of the API.
    pub is_tunnel: bool,
    /// It is for the crash-report dialog.
    pub is_dialog: bool,
    /// The head may have credentials of the site: the key is only in the envelope, or the request is for the
    /// crash-report dialog.
    pub is_sites: bool,
}

/// What must happen to the head of a request.
pub fn rewritten(came: &Message, kind: Kind, inbound: Inbound<'_>, own: Own<'_>) -> Head {
    let target = match kind.is_tunnel {
        true => {
            let path = format!("{}/api/{}/envelope/", own.path_prefix, own.project);
            Part::Exactly(path.into_bytes())
        }
        false => target(&came.target, kind, inbound, own),
    };
    let listed = listed(came);
    let is_listed = |name: &str| {
        listed
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(name))
    };
    let mut lines = Vec::new();
    let (mut has_x_sentry_auth, mut has_authorization) = (false, false);
    for ((name, value), line) in came.fields.iter().zip(&came.lines) {
        let lower = name.to_ascii_lowercase();
        let is_first = match lower.as_str() {
            "x-sentry-auth" => !std::mem::replace(&mut has_x_sentry_auth, true),
            "authorization" => !std::mem::replace(&mut has_authorization, true),
            _ => false,
        };
        let is_sites = match lower.as_str() {
            "cookie" => kind.is_sites,
            "range" => kind.is_dialog,
            _ if lower.starts_with("if-") => kind.is_dialog,
            "authorization" => kind.is_sites && !has_scheme(value, "sentry "),
            _ => false,
        };
        let is_own = matches!(lower.as_str(), "host" | "via");
        let mut replaced = own.headers.iter();
        if replaced.any(|(name, _)| name.to_ascii_lowercase() == lower) {
            continue;
        }
        if DROPPED.contains(&lower.as_str()) || is_sites || (is_listed(name) && !is_own) {
            continue;
        }
        let new = match lower.as_str() {
            "host" => Part::Exactly(own.host.as_bytes().to_vec()),
            "x-sentry-auth" | "authorization" => {
                auth_value(&lower, value, is_first && !kind.is_dialog, inbound, own)
            }
            _ => unless_it_leaks(value, inbound),
        };
        let (before, after) = around(line, value);
        lines.push(new.within(before, after));
    }
    Head { target, lines }
}

/// The fields of the connection, of the framing of the body, and of the client's address.
const DROPPED: &[&str] = &[
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept-encoding",
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-sentry-forwarded-for",
    "x-vercel-forwarded-for",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "cloudfront-viewer-address",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded-for",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-nf-client-connection-ip",
    "x-original-forwarded-for",
    "x-proxyuser-ip",
];

/// The first 32 names that `Connection` lists.
fn listed(came: &Message) -> Vec<String> {
    let lists = came.values("connection");
    let names = lists
        .iter()
        .flat_map(|list| list.split(|byte| *byte == b','));
    let names = names.map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned());
    let is_option = |name: &String| {
        ["", "close", "keep-alive"]
            .iter()
            .any(|option| option.eq_ignore_ascii_case(name))
    };
    names.filter(|name| !is_option(name)).take(32).collect()
}

/// The parts of a line before and after its value.
fn around<'l>(line: &'l [u8], value: &[u8]) -> (&'l [u8], &'l [u8]) {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .map_or(0, |colon| colon + 1);
    let padding = line[colon..]
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'));
    let start = colon + padding.count();
    (&line[..start], &line[start + value.len()..])
}

fn target(target: &str, kind: Kind, inbound: Inbound<'_>, own: Own<'_>) -> Part {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let path = match path.split_once("://") {
        Some((_, rest)) if !path.starts_with('/') => rest.find('/').map_or("", |at| &rest[at..]),
        _ => path,
    };
    let Some(path) = rewritten_path(path, inbound, own) else {
        return Part::Anything;
    };
    let path = format!("{}{path}", own.path_prefix);
    match query {
        None => Part::Exactly(path.into_bytes()),
        Some(query) => {
            let query = match kind.is_dialog {
                true => dialog_query(query, inbound, own),
                false => list(query.as_bytes(), Syntax::Query, inbound, own),
            };
            query.within(format!("{path}?").as_bytes(), b"")
        }
    }
}

/// A query with another `dsn`, which a browser may show.
fn dialog_query(query: &str, inbound: Inbound<'_>, own: Own<'_>) -> Part {
    let mut pieces = Vec::new();
    for piece in query.split('&') {
        match piece.split_once('=') {
            Some((name, _)) if percent_decoded(name.as_bytes()) == b"dsn" => {
                pieces.push(format!("{name}={}", own.public_dsn));
            }
            _ if leaks(piece.as_bytes(), inbound) => return Part::Anything,
            _ => pieces.push(piece.to_owned()),
        }
    }
    Part::Exactly(pieces.join("&").into_bytes())
}

/// A path from `/api/` on, with another project and key; `None` if there are several keys.
fn rewritten_path(path: &str, inbound: Inbound<'_>, own: Own<'_>) -> Option<String> {
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let is_api = |at: &usize| {
        let next = |more: usize| segments.get(at + more).copied();
        segments[*at] == "api"
            && (next(1).is_some_and(|next| is_project(next) || next == "store")
                || (next(1), next(2)) == (Some("embed"), Some("error-page")))
    };
    let api = (0..segments.len()).rev().find(is_api)?;
    let mut segments: Vec<String> = segments[api..].iter().map(|it| (*it).to_owned()).collect();
    if is_project(&segments[1]) {
        segments[1] = own.project.to_owned();
    }
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let key_at = match words.as_slice() {
        [_, _, "unreal", _] => Some(3),
        [_, _, "cron", _, _] => Some(4),
        _ => None,
    };
    if let Some(at) = key_at {
        segments[at] = String::from_utf8(key(segments[at].as_bytes(), Syntax::Query, own)).ok()?;
    }
    let mut out = format!("/{}", segments.join("/"));
    if path.ends_with('/') {
        out.push('/');
    }
    (!leaks(out.as_bytes(), inbound)).then_some(out)
}

fn is_project(segment: &str) -> bool {
    let is_number = |text: &str| {
        let digits = text.strip_prefix('+').unwrap_or(text);
        digits.bytes().all(|digit| digit.is_ascii_digit()) && digits.parse::<u64>().is_ok()
    };
    let plain = segment.strip_prefix('+').unwrap_or(segment);
    let decoded = percent_decoded(plain.replace('+', " ").as_bytes());
    is_number(segment)
        || str::from_utf8(&decoded)
            .is_ok_and(|decoded| !decoded.starts_with('+') && is_number(decoded))
}

#[derive(Clone, Copy, PartialEq)]
enum Syntax {
    Header,
    Query,
}

/// A list of parameters with other keys and secrets.
fn list(text: &[u8], syntax: Syntax, inbound: Inbound<'_>, own: Own<'_>) -> Part {
    let separator = match syntax {
        Syntax::Header => b',',
        Syntax::Query => b'&',
    };
    // Relay looks for this before it decodes anything.
    let is_read = syntax == Syntax::Header || contains(text, b"sentry_");
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut has_secret = false;
    for piece in text.split(|byte| *byte == separator) {
        let equals = piece.iter().position(|byte| *byte == b'=');
        let (written, value) = piece.split_at(equals.unwrap_or(piece.len()));
        let name = match syntax {
            Syntax::Header => written.trim_ascii().to_vec(),
            Syntax::Query => percent_decoded(written.trim_ascii()),
        };
        let is_read = is_read && equals.is_some();
        let put = |written: &[u8], new: &[u8]| {
            let padding = value.len() - value[1..].trim_ascii_start().len();
            let rest = &value[padding + value[1..].trim_ascii().len()..];
            [written, &value[..padding], new, rest].concat()
        };
        match name.as_slice() {
            b"sentry_key" if is_read => {
                let is_plain = written.trim_ascii() == b"sentry_key";
                let written = if is_plain { written } else { b"sentry_key" };
                let key = key(value[1..].trim_ascii(), syntax, own);
                if leaks(&key, inbound) {
                    return Part::Anything;
                }
                pieces.push(put(written, &key));
            }
            b"sentry_secret" if is_read => {
                has_secret = true;
                pieces.extend(own.secret.map(|secret| put(written, secret.as_bytes())));
            }
            _ if leaks(piece, inbound) => return Part::Anything,
            _ => pieces.push(piece.to_vec()),
        }
    }
    let text = pieces.join(&separator);
    match has_secret {
        true => Part::Loosely(text),
        false => Part::Exactly(text),
    }
}

/// The outbound's key with the flags after the inbound's.
fn key(written: &[u8], syntax: Syntax, own: Own<'_>) -> Vec<u8> {
    let text = String::from_utf8_lossy(written).to_lowercase();
    let dots = match syntax {
        Syntax::Header => vec!["."],
        Syntax::Query => vec![".", "%2e"],
    };
    let dot = dots.iter().filter_map(|dot| text.find(dot)).min();
    let flags = dot.and_then(|dot| written.get(dot..)).unwrap_or_default();
    [own.key.as_bytes(), flags].concat()
}

fn auth_value(
    name: &str,
    value: &[u8],
    is_first: bool,
    inbound: Inbound<'_>,
    own: Own<'_>,
) -> Part {
    let is_visible = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if has_scheme(value, "sentry ") {
        let (scheme, rest) = value.split_at("sentry ".len());
        return match is_first && is_visible {
            true => list(rest, Syntax::Header, inbound, own).within(scheme, b""),
            // Relay does not read it.
            false => unless_it_leaks(value, inbound),
        };
    }
    if name == "x-sentry-auth" {
        return Part::Exactly(Vec::new());
    }
    if has_scheme(value, "basic ") {
        let (scheme, rest) = value.split_at("basic ".len());
        let credentials = STANDARD.decode(rest).ok();
        let credentials = credentials.and_then(|text| String::from_utf8(text).ok());
        if let Some((user, password)) = credentials.as_deref().and_then(|it| it.split_once(':'))
            && !user.is_empty()
        {
            let password = if password.is_empty() {
                ""
            } else {
                own.secret.unwrap_or_default()
            };
            let credentials = STANDARD.encode(format!("{}:{password}", own.key));
            return Part::Exactly([scheme, credentials.as_bytes()].concat());
        }
    }
    unless_it_leaks(value, inbound)
}

fn has_scheme(value: &[u8], scheme: &str) -> bool {
    let start = value.get(..scheme.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// Whether a text names a key or a secret, or is one, in any spelling that a server may read.
fn leaks(text: &[u8], inbound: Inbound<'_>) -> bool {
    let spellings = spellings(text, true);
    let names = |spelling: &Vec<u8>| {
        let lower = spelling.to_ascii_lowercase();
        contains(&lower, b"sentry_key") || contains(&lower, b"sentry_secret")
    };
    spellings.iter().any(names) || shows(text, true, inbound)
}

/// Whether a forwarded text contains the inbound key or secret in any spelling. Base64 counts only in
/// credentials.
pub fn shows(text: &[u8], is_auth: bool, inbound: Inbound<'_>) -> bool {
    spellings(text, is_auth).iter().any(|spelling| {
        contains(spelling, inbound.key.as_bytes()) || contains(spelling, inbound.secret.as_bytes())
    })
}

/// A text, and its decodings, once or twice: from percent-encoding, or from Base64.
fn spellings(text: &[u8], has_base64: bool) -> Vec<Vec<u8>> {
    let mut spellings = vec![text.to_vec()];
    let mut last = spellings.clone();
    for _ in 0..2 {
        let mut next = Vec::new();
        for spelling in &last {
            next.push(percent_decoded(spelling));
            let is_coded = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
            let words = spelling.split(|byte| !is_coded(byte));
            next.extend(words.filter(|_| has_base64).filter_map(from_base64));
        }
        spellings.extend(next.iter().cloned());
        last = next;
    }
    spellings
}

/// Decodes words of 16 letters or more from Base64, in either alphabet, with or without padding.
fn from_base64(word: &[u8]) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => *byte,
    };
    let mut word: Vec<u8> = word.iter().map(standard).collect();
    if word.len() % 4 == 1 {
        // One letter alone is no byte.
        word.pop();
    }
    let word = (word.len() >= 16).then_some(word)?;
    LENIENT.decode(word).ok()
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| text[at] == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let code = digits.and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(text[at]);
                at += 1;
            }
        }
    }
    decoded
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

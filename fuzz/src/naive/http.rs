//! HTTP/1.1 requests by RFC 9112, read from complete bytes.
//!
//! Anything that two readers could read in two ways is refused. This reader is lenient only if no length
//! depends on it: empty lines before a request, lines that end in a bare LF outside of a chunked body, targets
//! with any UTF-8.

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub head_bytes: usize,
    pub fields: usize,
    pub body_bytes: usize,
}

impl Bounds {
    pub const NONE: Bounds = Bounds {
        head_bytes: usize::MAX,
        fields: usize::MAX,
        body_bytes: usize::MAX,
    };
}

/// The longest extensions and trailers of one chunked body, together.
const IGNORED_BYTES_MAX: usize = 16 * 1024;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub version: String,
    /// Names as they are written, values without the white space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Their lines, without line ends.
    pub lines: Vec<Vec<u8>>,
    /// All bytes of the head, including empty lines before it.
    pub head: Vec<u8>,
    /// The body without its chunks.
    pub body: Vec<u8>,
}

impl Message {
    /// The values of all lines called `name`.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = |field: &&(String, Vec<u8>)| field.0.eq_ignore_ascii_case(name);
        let values = self.fields.iter().filter(named);
        values.map(|(_, value)| value.as_slice()).collect()
    }
}

/// What follows the last whole request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// Nothing.
    Clean,
    /// The beginning of a request, which may be invalid.
    Incomplete,
    /// An invalid request, with the reason.
    Refused(&'static str),
}

/// The requests in `text`.
pub fn read_all(text: &[u8], bounds: Bounds) -> (Vec<Message>, End) {
    let mut messages = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        match read(rest, bounds) {
            Ok((message, read_bytes)) => {
                messages.push(message);
                rest = &rest[read_bytes..];
            }
            Err(end) => return (messages, end),
        }
    }
    (messages, End::Clean)
}

/// The request at the start of `text`, and its length with the body.
fn read(text: &[u8], bounds: Bounds) -> Result<(Message, usize), End> {
    let head = head_of(text)?;
    if head.len() > bounds.head_bytes {
        return Err(End::Refused("the head is too long"));
    }
    let mut message = parse_head(head).map_err(End::Refused)?;
    if message.fields.len() > bounds.fields {
        return Err(End::Refused("too many header lines"));
    }
    let rest = &text[head.len()..];
    let lengths = message.values("content-length");
    let codings = message.values("transfer-encoding");
    let (body, body_bytes) = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => (Vec::new(), 0),
        ([length], []) => {
            let digits = String::from_utf8_lossy(length);
            if digits.is_empty() || !digits.chars().all(|digit| digit.is_ascii_digit()) {
                return Err(End::Refused("Content-Length is not a number"));
            }
            let significant = digits.trim_start_matches('0');
            let length = match significant {
                "" => 0,
                significant => significant.parse::<u64>().unwrap_or(u64::MAX),
            };
            if length > bounds.body_bytes as u64 {
                return Err(End::Refused("the body is too long"));
            }
            let body = rest.get(..length as usize).ok_or(End::Incomplete)?;
            (body.to_vec(), body.len())
        }
        ([], [coding]) => {
            if message.version != "HTTP/1.1" {
                return Err(End::Refused("HTTP/1.0 has no Transfer-Encoding"));
            }
            if !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(End::Refused("Transfer-Encoding is not chunked"));
            }
            unchunk(rest, bounds.body_bytes)?
        }
        _ => return Err(End::Refused("the length of the body is said twice")),
    };
    message.body = body;
    Ok((message, head.len() + body_bytes))
}

/// The head up to its blank line, including empty lines before it.
fn head_of(text: &[u8]) -> Result<&[u8], End> {
    let mut at = 0;
    let mut has_begun = false;
    loop {
        let line_end = text[at..].iter().position(|byte| *byte == b'\n');
        let line_end = at + line_end.ok_or(End::Incomplete)?;
        let line = without_cr(&text[at..line_end]);
        at = line_end + 1;
        has_begun |= !line.is_empty();
        if has_begun && line.is_empty() {
            return Ok(&text[..at]);
        }
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The request with this head, without a body.
pub fn parse_head(head: &[u8]) -> Result<Message, &'static str> {
    let lines = head.split(|byte| *byte == b'\n').map(without_cr);
    let mut lines = lines.skip_while(|line| line.is_empty());
    let request_line = lines.next().unwrap_or_default();
    let request_line = str::from_utf8(request_line).map_err(|_| "the request line is no text")?;
    let words: Vec<&str> = request_line.split(' ').collect();
    let [method, target, version] = words.as_slice() else {
        return Err("a request line has three words");
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err("the method is no token");
    }
    if !matches!(*version, "HTTP/1.0" | "HTTP/1.1") {
        return Err("neither HTTP/1.0 nor HTTP/1.1");
    }
    check_target(method, target)?;
    let lines: Vec<&[u8]> = lines.take_while(|line| !line.is_empty()).collect();
    let fields: Result<Vec<_>, _> = lines.iter().map(|line| parse_field(line)).collect();
    let message = Message {
        method: (*method).to_owned(),
        target: (*target).to_owned(),
        version: (*version).to_owned(),
        fields: fields?,
        lines: lines.into_iter().map(<[u8]>::to_vec).collect(),
        head: head.to_vec(),
        body: Vec::new(),
    };
    if message.values("host").len() > 1 {
        return Err("more than one Host");
    }
    Ok(message)
}

/// RFC 9112 section 3.2: origin form, absolute form of HTTP, asterisk form.
fn check_target(method: &str, target: &str) -> Result<(), &'static str> {
    if target
        .chars()
        .any(|character| character <= ' ' || character == '\u{7f}')
    {
        return Err("a control byte in the target");
    }
    if target.contains('#') {
        return Err("a fragment in the target");
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    let (scheme, rest) = target
        .split_once("://")
        .ok_or("the target is no path and no URL")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let has_host = !(rest.is_empty() || rest.starts_with(['/', '?', ':']));
    match is_http && has_host {
        true => Ok(()),
        false => Err("the target is no URL of HTTP"),
    }
}

fn parse_field(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or("a header line without a colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("the name of a header is no token");
    }
    if value
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err("a control byte in a header");
    }
    let name = String::from_utf8_lossy(name).into_owned();
    Ok((name, trim(value).to_vec()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The data of a chunked body, and its length with all chunks and trailers (RFC 9112 section 7.1).
fn unchunk(text: &[u8], body_bytes_max: usize) -> Result<(Vec<u8>, usize), End> {
    let mut body = Vec::new();
    let mut at = 0;
    let mut ignored_bytes = 0;
    loop {
        let line = crlf_line(&text[at..])?;
        at += line.len() + 2;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (digits, extensions) = line.split_at(digits.count());
        if digits.is_empty() || digits.len() > 16 {
            return Err(End::Refused("a chunk has no size"));
        }
        let is_text = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
        let is_extension = extensions.starts_with(b";") && extensions.iter().all(is_text);
        if !(extensions.is_empty() || is_extension) {
            return Err(End::Refused(
                "something else than an extension behind a size",
            ));
        }
        ignored_bytes += extensions.len();
        if ignored_bytes > IGNORED_BYTES_MAX {
            return Err(End::Refused("too much that is no data"));
        }
        let size = digits.iter().fold(0_u128, |size, digit| {
            size * 16 + u128::from(char::from(*digit).to_digit(16).unwrap_or(0))
        });
        if body.len() as u128 + size > body_bytes_max as u128 {
            return Err(End::Refused("the body is too long"));
        }
        if size == 0 {
            break;
        }
        let data = text.get(at..at + size as usize).ok_or(End::Incomplete)?;
        body.extend_from_slice(data);
        at += data.len();
        match text.get(at..at + 2) {
            None => return Err(End::Incomplete),
            Some(b"\r\n") => at += 2,
            Some(_) => return Err(End::Refused("a chunk is longer than its size")),
        }
    }
    loop {
        let line = crlf_line(&text[at..])?;
        at += line.len() + 2;
        if line.is_empty() {
            return Ok((body, at));
        }
        parse_field(line).map_err(End::Refused)?;
        ignored_bytes += line.len();
        if ignored_bytes > IGNORED_BYTES_MAX {
            return Err(End::Refused("too much that is no data"));
        }
    }
}

/// The first line of `text`, which must end in CRLF.
fn crlf_line(text: &[u8]) -> Result<&[u8], End> {
    let end = text.iter().position(|byte| *byte == b'\n');
    let line = &text[..end.ok_or(End::Incomplete)?];
    let line = line.strip_suffix(b"\r");
    line.ok_or(End::Refused("a bare LF in a chunked body"))
}

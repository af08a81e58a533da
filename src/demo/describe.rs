//! A request as text that a person reads at a glance.
//!
//! [`describe`] makes rows with a label: request line, host, where the key was, how the body came, and
//! its content; [`subject`] says in three words what it was for. Keys are cut short and secrets left out,
//! in all places where the mirror's own scanners find them, for what is printed here ends up in
//! terminals, logs and screenshots. The rows of two requests of one kind follow the same order, so that
//! they can be compared row by row. Bytes that would control a terminal are never printed.

use super::items::items;
use super::wire::Request;
use crate::http::encoding::Encoding;
use crate::http::framing::Framing;
use crate::http::head::FieldName;
use crate::sentry::auth::{self, AuthField, FoundKey, Source};
use crate::sentry::dsn::shorten_key;
use crate::sentry::edit::{Edit, Put};
use crate::sentry::endpoint::{self, Endpoint, Target};
use crate::sentry::envelope;
use crate::span::Span;

/// How much is shown of a body that is not an envelope.
const EXCERPT_BYTES: usize = 200;

/// One line of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// What it is about.
    pub(super) label: &'static str,
    /// What there is to say.
    pub(super) text: String,
}

fn row(label: &'static str, text: String) -> Row {
    Row { label, text }
}

/// What the request is for: its endpoint and the project.
pub(super) fn subject(request: &Request) -> String {
    let (head, parsed) = (&*request.head.bytes, &request.head.parsed);
    let mut edits = Vec::new();
    let endpoint = endpoint::parse_target(head, parsed.target, &mut edits).endpoint;
    let project = edits.iter().find(|edit| edit.put == Put::Project);
    project.map_or_else(
        || endpoint.label().to_owned(),
        |project| {
            let project = printable(project.span.of(head));
            format!("{}, project {project}", endpoint.label())
        },
    )
}

/// The request in rows.
pub(super) fn describe(request: &Request) -> Vec<Row> {
    let (head, parsed) = (&*request.head.bytes, &request.head.parsed);
    // What changes in the path hides nothing: a key in there is found again as a key.
    let target = endpoint::parse_target(head, parsed.target, &mut Vec::new());
    let mut edits = Vec::new();
    let found = find_key(request, &target, &mut edits);
    edits.sort_by_key(|edit| edit.span.start);

    let request_line = Span::new(parsed.method_span.start, parsed.version_span.end);
    let mut rows = vec![row("request", masked(head, request_line, &edits))];
    for host in parsed.values(FieldName::Host, head) {
        rows.push(row("host", printable(host)));
    }
    rows.push(row("auth", auth_text(request, found, &edits)));
    rows.push(row("body", body_text(request)));
    rows.extend(content(request, target.endpoint));
    rows
}

/// Text that is safe to print: what is not UTF-8 or would control the terminal is replaced.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let safe = |character: char| {
        if character.is_control() {
            '·'
        } else {
            character
        }
    };
    text.chars().map(safe).collect()
}

fn find_key(
    request: &Request,
    target: &Target,
    edits: &mut Vec<Edit>,
) -> Result<Option<FoundKey>, auth::AuthError> {
    let fields = request.head.parsed.fields.iter().filter_map(|field| {
        let source = match field.name {
            FieldName::XSentryAuth => AuthField::XSentryAuth,
            FieldName::Authorization => AuthField::Authorization,
            _ => return None,
        };
        Some((source, field.value))
    });
    auth::find(
        &request.head.bytes,
        fields,
        target.query,
        target.path_key,
        edits,
    )
}

/// Where the key was and what stood there.
fn auth_text(
    request: &Request,
    found: Result<Option<FoundKey>, auth::AuthError>,
    edits: &[Edit],
) -> String {
    let head = &*request.head.bytes;
    let line = |name: FieldName| {
        let mut fields = request.head.parsed.fields.iter();
        let field = fields.find(|field| field.name == name);
        field.map_or_else(String::new, |field| {
            let name = printable(field.name_span.of(head));
            format!("{name}: {}", masked(head, field.value, edits))
        })
    };
    let found = match found {
        Ok(Some(found)) => found,
        Ok(None) => return dsn_text(request),
        Err(error) => return format!("unusable: {error}"),
    };
    let key = shorten_key(&printable(found.bytes(head)));
    match found.source {
        Source::XSentryAuth => line(FieldName::XSentryAuth),
        Source::Authorization => line(FieldName::Authorization),
        Source::Basic => format!("Authorization: Basic, with the key {key}"),
        Source::Query => format!("in the query: sentry_key={key}"),
        Source::Path => format!("in the path: {key}"),
    }
}

/// The last place where a key may be.
fn dsn_text(request: &Request) -> String {
    let header = envelope::scan(&request.body, &mut Vec::new()).ok();
    match header.and_then(|header| header.dsn) {
        Some(dsn) => format!("dsn of the envelope: {}", masked_dsn(dsn.of(&request.body))),
        None => "none".to_owned(),
    }
}

fn body_text(request: &Request) -> String {
    let framing = match request.framing {
        Framing::Empty => return "none".to_owned(),
        Framing::Length(_) => "with Content-Length",
        Framing::Chunked => "in chunks",
        Framing::UntilClose => "until the connection closes",
    };
    let encoding = match request.encoding {
        Encoding::Identity => None,
        Encoding::Gzip => Some("gzip"),
        Encoding::Deflate => Some("deflate"),
        Encoding::Brotli => Some("br"),
        Encoding::Zstd => Some("zstd"),
    };
    let form = encoding.map_or_else(
        || "plain".to_owned(),
        |encoding| format!("as {} bytes of {encoding}", request.encoded_bytes),
    );
    format!("{} bytes, sent {form}, {framing}", request.body.len())
}

/// The header and the items of an envelope, or the start of what is not one.
fn content(request: &Request, endpoint: Endpoint) -> Vec<Row> {
    let body = &*request.body;
    let mut edits = Vec::new();
    let scanned = match endpoint {
        Endpoint::Envelope | Endpoint::Tunnel => envelope::scan(body, &mut edits).ok(),
        _ => None,
    };
    let Some(header) = scanned else {
        return excerpt(request);
    };
    let text = masked(body, Span::new(0, header.end), &edits);
    let mut rows = vec![row("header", text)];
    let (items, rest_bytes) = items(body, header.end);
    for item in items {
        let hint = item
            .hint()
            .map_or_else(String::new, |hint| format!(": {hint}"));
        let text = format!("{}, {} bytes{hint}", item.kind, item.payload.len());
        rows.push(row("item", text));
    }
    if rest_bytes > 0 {
        rows.push(row(
            "rest",
            format!("{rest_bytes} bytes that are not an item"),
        ));
    }
    rows
}

fn excerpt(request: &Request) -> Vec<Row> {
    let mut rows = Vec::new();
    let head = &request.head;
    for content_type in head.parsed.values(FieldName::ContentType, &head.bytes) {
        rows.push(row("type", printable(content_type)));
    }
    let start = request.body.get(..EXCERPT_BYTES).unwrap_or(&request.body);
    if !start.is_empty() {
        let more = if start.len() < request.body.len() {
            "…"
        } else {
            ""
        };
        rows.push(row("content", printable(start) + more));
    }
    rows
}

/// The bytes of `within` as text, with everything secret in it cut short. `edits` are in order.
fn masked(buffer: &[u8], within: Span, edits: &[Edit]) -> String {
    let mut text = String::new();
    let mut at = within.start;
    for edit in edits {
        let Some((span, mask)) = mask(buffer, *edit) else {
            continue;
        };
        if span.start >= at && span.end <= within.end {
            text += &printable(Span::new(at, span.start).of(buffer));
            text += &mask;
            at = span.end;
        }
    }
    text + &printable(Span::new(at, within.end).of(buffer))
}

/// What is shown in the place of an edit.
fn mask(buffer: &[u8], edit: Edit) -> Option<(Span, String)> {
    let written = edit.span.of(buffer);
    match edit.put {
        Put::Key | Put::TraceKey => Some((edit.span, shorten_key(&printable(written)))),
        Put::Dsn | Put::PublicDsn => Some((edit.span, masked_dsn(written))),
        Put::SecretParameter { value } => Some((value, "…".to_owned())),
        Put::BasicCredentials { .. } | Put::KeyParameter => Some((edit.span, "…".to_owned())),
        Put::Nothing
        | Put::Project
        | Put::PathPrefix
        | Put::EnvelopePath
        | Put::Host
        | Put::Version
        | Put::LineEnd => None,
    }
}

/// A DSN with its key cut short and its secret left out, however its slashes are escaped.
fn masked_dsn(dsn: &[u8]) -> String {
    let dsn = printable(dsn);
    let Some((before, host)) = dsn.split_once('@') else {
        return "…".to_owned();
    };
    let user = before.rfind('/').map_or(0, |slash| slash + 1);
    let (scheme, user) = before.split_at_checked(user).unwrap_or_default();
    let key = user.split(':').next().unwrap_or_default();
    format!("{scheme}{}@{host}", shorten_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::wire::Wire;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

    /// The description of a request, as one text.
    fn described(target: &str, lines: &str, body: &str) -> String {
        let length = body.len();
        let text = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        );
        let mut wire = Wire::new(text.as_bytes());
        let head = wire.request_head().unwrap().unwrap();
        let request = wire.request(head).unwrap();
        let mut rows = vec![row("subject", subject(&request))];
        rows.extend(describe(&request));
        let line = |row: Row| format!("{} {}\n", row.label, row.text);
        let text: String = rows.into_iter().map(line).collect();
        assert!(!text.contains(KEY) && !text.contains(SECRET), "{text}");
        text
    }

    #[test]
    fn an_envelope_is_told_with_its_header_and_its_items() {
        let body = format!(
            "{{\"dsn\":\"https:\\/\\/{KEY}:{SECRET}@h\\/42\",\"trace\":{{\"public_key\":\"{KEY}\"}}}}\n{{\"type\":\"event\"}}\n{{\"message\":\"hi\"}}\n"
        );
        let auth = format!(
            "X-Sentry-Auth: Sentry sentry_key={KEY}, sentry_secret={SECRET}, sentry_version=7\r\n"
        );
        assert_eq!(
            described("/api/42/envelope/", &auth, &body),
            format!(
                "subject envelope, project 42\n\
             request POST /api/42/envelope/ HTTP/1.1\n\
             host localhost\n\
             auth X-Sentry-Auth: Sentry sentry_key=0123…, sentry_secret=…, sentry_version=7\n\
             body {} bytes, sent plain, with Content-Length\n\
             header {{\"dsn\":\"https:\\/\\/0123…@h\\/42\",\"trace\":{{\"public_key\":\"0123…\"}}}}\n\
             item event, 16 bytes: hi\n",
                body.len()
            )
        );
    }

    #[test]
    fn the_place_of_the_key_is_named_wherever_it_is() {
        let basic = "Authorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6\r\n";
        let dsn = format!("{{\"dsn\":\"https://{KEY}@h/42\"}}");
        let twice = format!("X-Sentry-Auth: Sentry sentry_key={KEY}\r\n");
        let in_query = format!("/api/1/envelope/?sentry_key={KEY}");
        for (target, lines, body, auth) in [
            (&*in_query, "", "{}", "in the query: sentry_key=0123…"),
            (
                &*format!("/api/1/cron/job/{KEY}/"),
                "",
                "",
                "in the path: 0123…",
            ),
            (
                "/api/1/envelope/",
                basic,
                "{}",
                "Authorization: Basic, with the key 0123…",
            ),
            (
                "/tunnel",
                "",
                &*dsn,
                "dsn of the envelope: https://0123…@h/42",
            ),
            ("/api/1/envelope/", "", "{}", "none"),
            (
                &*in_query,
                &*twice,
                "{}",
                "unusable: multiple authorization payloads detected",
            ),
        ] {
            let text = described(target, lines, body);
            assert!(text.contains(&format!("\nauth {auth}\n")), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_envelope_is_shown_by_its_start() {
        let text = described(
            "/api/1/store/",
            "Content-Type: text/plain\r\n",
            "a\x1b[31mb",
        );
        assert!(
            text.ends_with("type text/plain\ncontent a·[31mb\n"),
            "{text}"
        );
        let text = described("/api/1/envelope/", "", "no envelope");
        assert!(
            text.ends_with("body 11 bytes, sent plain, with Content-Length\ncontent no envelope\n"),
            "{text}"
        );
        let text = described("/api/1/store/", "", &"x".repeat(EXCERPT_BYTES + 1));
        assert!(text.ends_with("x…\n"), "{text}");
        assert!(
            described("/api/1/store/", "", "")
                .ends_with("body 0 bytes, sent plain, with Content-Length\n")
        );
    }
}

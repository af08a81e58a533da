//! The path of a request: which endpoint it is for, and what in it is the project's.
//!
//! An ingest path is `{prefix}/api/{project}/{endpoint}`. The prefix is whatever stands in front of
//! the `/api/` that counts, which is the last one followed by a project id, by `store` or by
//! `embed/error-page`: SDKs put the prefix of their DSN there, and so do load balancers. A path
//! without such a part is taken for a tunnel, which the user may have put at any path. Repeated
//! slashes are folded, as Relay folds them; whether a path ends in a slash is left alone, since to
//! Relay these are different routes and some exist in one form only.
//!
//! Project ids are not compared with anything: the key alone says which route a request takes. But what
//! is none for Relay is none here: the path of an endpoint with something else in its place is refused,
//! unless it is a tunnel that happens to be there.

mod answer;

pub(crate) use answer::CannedResponse;
pub(super) use answer::is_json;
use memchr::{memchr, memchr3, memmem};

use super::auth::is_source;
use super::edit::{EDITS_MAX, Edit, Replacement};
use super::parameters::{decimal, form_decode, percent_decode};
use crate::span::Span;

/// What a request path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/api/{project}/envelope/`, the one that today's SDKs use.
    Envelope,
    /// `/api/{project}/store/` and `/api/store/`, of SDKs before 2020.
    Store,
    /// `/api/{project}/security/` and `/csp-report/`, to which browsers report.
    Security,
    /// `/api/{project}/nel/`: network error logging of browsers.
    Nel,
    /// `/api/{project}/minidump/`, of Crashpad and Breakpad.
    Minidump,
    /// `/api/{project}/unreal/{key}/`, of the crash reporter of Unreal Engine.
    Unreal,
    /// `/api/{project}/events/{event}/attachments/`.
    Attachments,
    /// `/api/{project}/cron/{slug}[/{key}]`, for check-ins with `curl`.
    Cron,
    /// `/api/{project}/integration/otlp/v1/traces`.
    OtlpTraces,
    /// `/api/{project}/integration/otlp/v1/logs`.
    OtlpLogs,
    /// `/api/{project}/integration/vercel/logs`.
    VercelLogs,
    /// `/api/{project}/playstation/`.
    Playstation,
    /// `/api/{project}/upload/`: large attachments in parts. The location a server gives out is
    /// signed by that server, so it means nothing to the others; clients know 404 as "not offered".
    Upload,
    /// `/api/embed/error-page/`: the crash-report dialog. Its key is in the query's `dsn`.
    ErrorPage,
    /// Any other `/api/{project}/…`.
    Generic,
    /// Any other path: an envelope sent through the SDK option `tunnel`. So is one to a path that would
    /// be `Generic`, if it has no other key than the one in its header.
    Tunnel,
}

impl Endpoint {
    /// Whether it takes requests with this method. `OPTIONS` is answered for every path alike and
    /// is not counted here.
    pub fn allows(self, method: &[u8]) -> bool {
        self.allow_header()
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|allowed| allowed == method)
    }

    /// The methods it takes, as the value of an `Allow` header.
    pub const fn allow_header(self) -> &'static str {
        match self {
            Endpoint::Envelope
            | Endpoint::Tunnel
            | Endpoint::Security
            | Endpoint::Nel
            | Endpoint::Minidump
            | Endpoint::Unreal
            | Endpoint::Attachments
            | Endpoint::OtlpTraces
            | Endpoint::OtlpLogs
            | Endpoint::VercelLogs
            | Endpoint::Playstation => "POST",
            Endpoint::Store | Endpoint::Cron => "GET,HEAD,POST",
            Endpoint::ErrorPage => "GET,POST",
            Endpoint::Upload => "PATCH,POST",
            Endpoint::Generic => "DELETE,GET,HEAD,PATCH,POST,PUT",
        }
    }

    /// Its name in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Endpoint::Envelope => "envelope",
            Endpoint::Store => "store",
            Endpoint::Security => "security",
            Endpoint::Nel => "nel",
            Endpoint::Minidump => "minidump",
            Endpoint::Unreal => "unreal",
            Endpoint::Attachments => "attachments",
            Endpoint::Cron => "cron",
            Endpoint::OtlpTraces => "otlp_traces",
            Endpoint::OtlpLogs => "otlp_logs",
            Endpoint::VercelLogs => "vercel_logs",
            Endpoint::Playstation => "playstation",
            Endpoint::Upload => "upload",
            Endpoint::ErrorPage => "error_page",
            Endpoint::Generic => "generic",
            Endpoint::Tunnel => "tunnel",
        }
    }
}

/// What a request target says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it asks for.
    pub endpoint: Endpoint,
    /// The query without `?`. A tunnel has none: its query is dropped with its path.
    pub query: Option<Span>,
    /// The segment of the path that is a key; [`find`](super::auth::find) edits it.
    pub path_key: Option<Span>,
    /// The segment of the path that says what it is about: the monitor of a check-in, or the event that
    /// attachments are for.
    pub subject: Option<Span>,
    /// Whether it is a tunnel only for want of a project id: the path is that of an endpoint, but for
    /// what stands in the id's place.
    pub lacks_project: bool,
    /// Whether the target of a tunnel has a key in it all the same, so that it was not meant for one.
    pub names_key: bool,
}

/// Reads a request target, in origin form or absolute form (RFC 9112 section 3.2), and pushes the
/// edits of its path.
///
/// These are, in order: [`Replacement::PathPrefix`] over all that stands before the `/api/` that counts,
/// [`Replacement::Project`] over the project id, and [`Replacement::Nothing`] over repeated slashes in between; for
/// a tunnel it is [`Replacement::EnvelopePath`] over the whole target. They end with the last that [`EDITS_MAX`]
/// allows.
pub fn parse_target(head: &[u8], target: Span, edits: &mut Vec<Edit>) -> Target {
    let path = path(head, target);
    let has_query = path.end < target.end;
    let query = has_query.then(|| Span::new(path.end + 1, target.end));
    let Some(api) = find_api(head, path) else {
        edit_tunnel(target, edits);
        let meant = find_endpoint_without_project(head, path);
        let has_path_key = meant.is_some_and(|meant| meant.path_key.is_some());
        return Target {
            endpoint: Endpoint::Tunnel,
            query: None,
            path_key: None,
            subject: None,
            lacks_project: meant.is_some(),
            names_key: has_path_key || query.is_some_and(|query| is_source(query.slice(head))),
        };
    };
    let tail = edit_path(api, target, path.end, edits);
    Target {
        query,
        ..classify(head, tail)
    }
}

/// Pushes the edit that makes a target the envelope endpoint's.
pub fn edit_tunnel(target: Span, edits: &mut Vec<Edit>) {
    edits.push(Edit {
        span: target,
        replacement: Replacement::EnvelopePath,
    });
}

/// Whether a path has a segment `.` or `..` for some server: percent-encoded once or twice, as may be the
/// slashes or backslashes around it, and with parameters behind it. A server that resolves such segments
/// would serve another path than the one that was looked at here.
pub fn has_dot_segment(head: &[u8], target: Span) -> bool {
    let target = target.slice(head);
    // Such a segment has a dot in it or a percent sign, and the paths of SDKs have neither.
    let first = memchr3(b'.', b'%', b'?', target).and_then(|at| target.get(at));
    if matches!(first, None | Some(b'?')) {
        return false;
    }
    let path = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    let once = percent_decode(path);
    let twice = percent_decode(&once);
    let mut segments = twice.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| {
        let name = segment.split(|byte| *byte == b';').next();
        matches!(name, Some(b"." | b".."))
    })
}

/// The path of a target in any form, without the query. In absolute form it may be empty.
pub(crate) fn path(head: &[u8], target: Span) -> Span {
    let question = memchr(b'?', target.slice(head)).map(|at| target.start + at);
    let end = question.unwrap_or(target.end);
    Span::new(path_start(head, target).min(end), end)
}

/// Where the path begins: at the start of the target or, in absolute form, after the authority.
fn path_start(head: &[u8], target: Span) -> usize {
    let text = target.slice(head);
    if text.starts_with(b"/") {
        return target.start;
    }
    let authority = memmem::find(text, b"://").map_or(0, |at| at + 3);
    let slash = text.get(authority..).and_then(|rest| memchr(b'/', rest));
    slash.map_or(target.end, |at| target.start + authority + at)
}

/// The `api` segment that counts, and what follows it.
struct Api<Rest> {
    span: Span,
    /// The next segment, if it is a project id.
    project: Option<Span>,
    rest: Rest,
}

/// The segments after `api`, as many as it takes to tell what a path asks for: one more than the longest
/// known path has. Where there are fewer, the last ones stay empty.
type Tail = [Span; 6];

fn find_api(head: &[u8], path: Span) -> Option<Api<impl Iterator<Item = Span>>> {
    let mut rest = segments(head, path);
    let mut found = None;
    while let Some(segment) = rest.next() {
        if segment.slice(head) != b"api" {
            continue;
        }
        let mut next = rest.clone();
        let Some(first) = next.next() else {
            break;
        };
        let (counts, project) = match first.slice(head) {
            b"store" => (true, None),
            b"embed" => {
                let second = next.next().map(|segment| segment.slice(head));
                (second == Some(b"error-page"), None)
            }
            segment => {
                let is_project = is_project(segment);
                (is_project, is_project.then_some(first))
            }
        };
        if counts {
            found = Some(Api {
                span: segment,
                project,
                rest: rest.clone(),
            });
        }
    }
    found
}

/// What the path would say with a project id, if it were that of an endpoint then.
fn find_endpoint_without_project(head: &[u8], path: Span) -> Option<Target> {
    let mut rest = segments(head, path);
    let mut found = None;
    while let Some(segment) = rest.next() {
        if segment.slice(head) == b"api" {
            let mut tail = Tail::default();
            tail.iter_mut()
                .zip(rest.clone())
                .for_each(|(slot, segment)| *slot = segment);
            let meant = classify(head, tail);
            found = Some(meant)
                .filter(|meant| meant.endpoint != Endpoint::Generic)
                .or(found);
        }
    }
    found
}

/// The segments of a path that are not empty. Each has a slash right before it.
fn segments(head: &[u8], path: Span) -> impl Iterator<Item = Span> + Clone {
    let mut start = path.start;
    path.slice(head)
        .split(|byte| *byte == b'/')
        .map(move |segment| {
            let span = Span::new(start, start + segment.len());
            start = span.end + 1;
            span
        })
        .filter(|segment| !segment.is_empty())
}

/// Whether a segment is a number of 64 bits as Relay reads it: with zeros or a plus in front of it, and
/// percent-encoded, if need be.
fn is_project(segment: &[u8]) -> bool {
    let digits = segment.strip_prefix(b"+").unwrap_or(segment);
    decimal(digits).is_some() || decimal(&form_decode(digits)).is_some()
}

/// Pushes the edits of a path, and returns what follows `api` in it.
fn edit_path(
    api: Api<impl Iterator<Item = Span>>,
    target: Span,
    path_end: usize,
    edits: &mut Vec<Edit>,
) -> Tail {
    edits.push(Edit {
        span: Span::new(target.start, api.span.start.saturating_sub(1)),
        replacement: Replacement::PathPrefix,
    });
    let fold_slashes = |edits: &mut Vec<Edit>, from: usize, to: usize| {
        if to > from + 1 && edits.len() < EDITS_MAX {
            edits.push(Edit {
                span: Span::new(from + 1, to),
                replacement: Replacement::Nothing,
            });
        }
    };
    let mut tail = Tail::default();
    let mut end = api.span.end;
    for (index, segment) in api.rest.enumerate() {
        fold_slashes(edits, end, segment.start);
        if api.project == Some(segment) {
            edits.push(Edit {
                span: segment,
                replacement: Replacement::Project,
            });
        }
        if let Some(slot) = tail.get_mut(index) {
            *slot = segment;
        }
        end = segment.end;
    }
    fold_slashes(edits, end, path_end);
    tail
}

/// What the segments after `api` say.
fn classify(head: &[u8], tail: Tail) -> Target {
    let [_, _, second, third, ..] = tail;
    let (mut path_key, mut subject) = (None, None);
    let endpoint = match tail.map(|span| span.slice(head)) {
        [b"store", b"", ..] | [_, b"store", b"", ..] => Endpoint::Store,
        [b"embed", b"error-page", b"", ..] => Endpoint::ErrorPage,
        [_, b"envelope", b"", ..] => Endpoint::Envelope,
        [_, b"security" | b"csp-report", b"", ..] => Endpoint::Security,
        [_, b"nel", b"", ..] => Endpoint::Nel,
        [_, b"minidump", b"", ..] => Endpoint::Minidump,
        [_, b"unreal", [_, ..], b"", ..] => {
            path_key = Some(second);
            Endpoint::Unreal
        }
        [_, b"events", _, b"attachments", b"", _] => {
            subject = Some(second);
            Endpoint::Attachments
        }
        [_, b"cron", [_, ..], b"", ..] => {
            subject = Some(second);
            Endpoint::Cron
        }
        [_, b"cron", _, [_, ..], b"", _] => {
            (path_key, subject) = (Some(third), Some(second));
            Endpoint::Cron
        }
        [_, b"integration", b"otlp", b"v1", b"traces", b""] => Endpoint::OtlpTraces,
        [_, b"integration", b"otlp", b"v1", b"logs", b""] => Endpoint::OtlpLogs,
        [_, b"integration", b"vercel", b"logs", b"", _] => Endpoint::VercelLogs,
        [_, b"playstation", b"", ..] => Endpoint::Playstation,
        [_, b"upload", _, b"", ..] => Endpoint::Upload,
        _ => Endpoint::Generic,
    };
    Target {
        endpoint,
        query: None,
        path_key,
        subject,
        lacks_project: false,
        names_key: false,
    }
}

#[cfg(test)]
mod tests;

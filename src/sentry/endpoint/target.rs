//! Parses the path of a request: its endpoint, and the parts that belong to the project.
//!
//! An ingest path is `{prefix}/api/{project}/{endpoint}`. The prefix is everything before the `/api/` that
//! counts: the last one that is followed by a project id, by `store` or by `embed/error-page`. SDKs put the
//! prefix of their DSN there, and so do load balancers. A path without such an `/api/` is a tunnel, which users
//! may place at any path. Repeated slashes are folded, as in Relay. A slash at the end is kept or absent as sent,
//! since to Relay these are different routes, and some exist in one form only.
//!
//! Project ids are not compared with configuration: the key alone selects the route. But they have to be valid
//! for Relay. The path of an endpoint with something else in place of the id is rejected, unless a tunnel happens
//! to be there.

use memchr::{memchr, memchr3, memmem};

use super::kind::Endpoint;
use crate::sentry::auth::is_source;
use crate::sentry::edit::{EDITS_MAX, Edit, Replacement};
use crate::sentry::parameters::{decimal, form_decode, percent_decode};
use crate::span::Span;

/// A parsed request target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub endpoint: Endpoint,
    /// The query without `?`. `None` for a tunnel, whose query is dropped with its path.
    pub query: Option<Span>,
    /// The segment of the path that is a key; [`find`](crate::sentry::auth::find) edits it.
    pub path_key: Option<Span>,
    /// The segment of the path that names the monitor of a check-in, or the event of attachments.
    pub subject: Option<Span>,
    /// Whether only the project id is wrong: with a valid one, this would be the path of an endpoint instead of a
    /// tunnel.
    pub lacks_project: bool,
    /// Whether the target of a tunnel has a key in its path or query. A tunnel needs none there, so the request was
    /// meant for an endpoint.
    pub names_key: bool,
}

/// Parses a request target, in origin form or absolute form (RFC 9112 §3.2), and pushes the edits of its path.
///
/// These are, in order: [`Replacement::PathPrefix`] over everything before the `/api/` that counts,
/// [`Replacement::Project`] over the project id, and [`Replacement::Nothing`] over repeated slashes in between.
/// For a tunnel, the edit is [`Replacement::EnvelopePath`] over the whole target. No more than [`EDITS_MAX`] are
/// pushed.
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

/// Pushes the edit that replaces a target by the path of the envelope endpoint.
pub fn edit_tunnel(target: Span, edits: &mut Vec<Edit>) {
    edits.push(Edit {
        span: target,
        replacement: Replacement::EnvelopePath,
    });
}

/// Whether some server may see a segment `.` or `..` in the path: percent-encoded up to twice, between slashes or
/// backslashes that may be encoded too, or followed by parameters. A server that resolves such segments would
/// serve another path than the one parsed here.
pub fn has_dot_segment(head: &[u8], target: Span) -> bool {
    let target = target.slice(head);
    // Such a segment contains a dot or a percent sign. Paths of SDKs contain neither.
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

/// The path of a target, without the query. It may be empty in absolute form.
pub(crate) fn path(head: &[u8], target: Span) -> Span {
    let question = memchr(b'?', target.slice(head)).map(|at| target.start + at);
    let end = question.unwrap_or(target.end);
    Span::new(path_start(head, target).min(end), end)
}

/// Where the path begins: at the start of the target, or after the authority in absolute form.
fn path_start(head: &[u8], target: Span) -> usize {
    let text = target.slice(head);
    if text.starts_with(b"/") {
        return target.start;
    }
    let authority = memmem::find(text, b"://").map_or(0, |at| at + 3);
    let slash = text.get(authority..).and_then(|rest| memchr(b'/', rest));
    slash.map_or(target.end, |at| target.start + authority + at)
}

/// The `api` segment that counts, and the segments after it.
struct Api<Rest> {
    span: Span,
    /// The next segment, if it is a project id.
    project: Option<Span>,
    rest: Rest,
}

/// The first segments after `api`: one more than the longest known path has. Missing ones are empty.
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

/// The target that the path would be with a valid project id, if that is the path of an endpoint.
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

/// The segments of a path, except empty ones.
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

/// Whether a segment is a number of 64 bits by Relay's rules: leading zeros, a plus and percent-encoding are
/// valid.
fn is_project(segment: &[u8]) -> bool {
    let digits = segment.strip_prefix(b"+").unwrap_or(segment);
    decimal(digits).is_some() || decimal(&form_decode(digits)).is_some()
}

/// Pushes the edits of a path, and returns the segments after `api`.
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

/// Recognises the endpoint by the segments after `api`.
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

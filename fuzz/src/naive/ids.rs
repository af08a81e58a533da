//! The ids in the JSON of an envelope, and their draws for sampling.

use super::json::{Node, Value};
use super::sampling;

/// A value with a meaning.
pub struct Found<'n> {
    pub meaning: &'static str,
    pub node: &'n Node,
}

/// The draw of the first value with this meaning that is an id.
pub fn draw_of(found: &[Found<'_>], meaning: &str) -> Option<f64> {
    let with_meaning = found.iter().filter(|found| found.meaning == meaning);
    with_meaning
        .filter_map(|found| match &found.node.value {
            Value::Text(id) | Value::Number(id) if meaning == "monitor" => {
                match slug(id).as_str() {
                    "" if id.is_empty() => None,
                    "" => Some(sampling::draw(id)),
                    slug => Some(sampling::draw(slug)),
                }
            }
            Value::Text(id) | Value::Number(id) => {
                (!id.is_empty() && !sampling::is_nil(id)).then(|| sampling::draw(id))
            }
            _ => None,
        })
        .next()
}

/// The name of a monitor as Sentry writes it.
fn slug(name: &str) -> String {
    let spaced: String = name
        .chars()
        .filter(|letter| {
            letter.is_ascii_alphanumeric() || letter.is_whitespace() || "-_".contains(*letter)
        })
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter.to_ascii_lowercase()
            } else {
                ' '
            }
        })
        .collect();
    let mut slug = spaced.split_whitespace().collect::<Vec<_>>().join("-");
    slug.truncate(50);
    slug.trim_end_matches('-').to_owned()
}

/// Meanings and paths; `*` stands for each element of an array.
pub type Paths = &'static [(&'static str, &'static str)];

/// In the header of an envelope.
pub const HEADER_PATHS: Paths = &[
    ("event", "event_id"),
    ("trace", "trace/trace_id"),
    ("replay", "trace/replay_id"),
];

/// Before the file of a trace attachment.
pub const META_PATHS: Paths = &[
    ("trace", "trace_id"),
    ("other", "attachment_id"),
    ("replay", "attributes/replay_id/value"),
    ("replay", "attributes/sentry.replay_id/value"),
    ("other", "attributes/profile_id/value"),
    ("other", "attributes/sentry.profile_id/value"),
    ("other", "attributes/profiler_id/value"),
    ("other", "attributes/sentry.profiler_id/value"),
];

/// In a log, a metric or a span of many.
pub const ENTRY_PATHS: Paths = &[
    ("part_trace", "trace_id"),
    ("other", "links/*/trace_id"),
    ("replay", "attributes/replay_id/value"),
    ("replay", "attributes/sentry.replay_id/value"),
    ("other", "attributes/profile_id/value"),
    ("other", "attributes/sentry.profile_id/value"),
    ("other", "attributes/profiler_id/value"),
    ("other", "attributes/sentry.profiler_id/value"),
];

/// In the payload of any other item.
pub const PAYLOAD_PATHS: Paths = &[
    ("event", "event_id"),
    ("trace", "trace_id"),
    ("replay", "replay_id"),
    ("other", "profile_id"),
    ("profiler", "profiler_id"),
    ("other", "chunk_id"),
    ("other", "check_in_id"),
    ("monitor", "monitor_slug"),
    ("session", "sid"),
    ("user", "did"),
    ("part_trace", "trace_ids/*"),
    ("other", "error_ids/*"),
    ("trace", "contexts/trace/trace_id"),
    ("replay", "contexts/trace/data/replay_id"),
    ("replay", "contexts/trace/data/sentry.replay_id"),
    ("replay", "contexts/trace/data/sentry.replay.id"),
    ("other", "contexts/trace/data/profile_id"),
    ("other", "contexts/trace/data/sentry.profile_id"),
    ("other", "contexts/trace/data/profiler_id"),
    ("other", "contexts/trace/data/sentry.profiler_id"),
    ("other", "contexts/trace/links/*/trace_id"),
    ("replay", "contexts/replay/replay_id"),
    ("other", "contexts/profile/profile_id"),
    ("other", "contexts/profile/profiler_id"),
    ("replay", "contexts/feedback/replay_id"),
    ("other", "contexts/feedback/associated_event_id"),
    ("replay", "tags/replayId"),
    ("other", "breadcrumbs/*/event_id"),
    ("other", "breadcrumbs/values/*/event_id"),
    ("part_trace", "spans/*/trace_id"),
    ("other", "spans/*/profile_id"),
    ("replay", "spans/*/data/replay_id"),
    ("replay", "spans/*/data/sentry.replay_id"),
    ("replay", "spans/*/data/sentry.replay.id"),
    ("other", "spans/*/data/profile_id"),
    ("other", "spans/*/data/sentry.profile_id"),
    ("other", "spans/*/data/profiler_id"),
    ("other", "spans/*/data/sentry.profiler_id"),
    ("other", "spans/*/links/*/trace_id"),
    ("replay", "data/replay_id"),
    ("replay", "data/sentry.replay_id"),
    ("replay", "data/sentry.replay.id"),
    ("other", "data/profile_id"),
    ("other", "data/sentry.profile_id"),
    ("other", "data/profiler_id"),
    ("other", "data/sentry.profiler_id"),
    ("other", "links/*/trace_id"),
    ("other", "transaction/id"),
    ("trace", "transaction/trace_id"),
    ("other", "transactions/*/id"),
    ("trace", "transactions/*/trace_id"),
    ("other", "transaction_id"),
    ("part_trace", "items/*/trace_id"),
    ("other", "items/*/links/*/trace_id"),
    ("replay", "items/*/attributes/replay_id/value"),
    ("replay", "items/*/attributes/sentry.replay_id/value"),
    ("other", "items/*/attributes/profile_id/value"),
    ("other", "items/*/attributes/sentry.profile_id/value"),
    ("other", "items/*/attributes/profiler_id/value"),
    ("other", "items/*/attributes/sentry.profiler_id/value"),
];

/// The strings and numbers at `paths`, in order of position.
pub fn found<'n>(root: &'n Node, paths: Paths) -> Vec<Found<'n>> {
    let mut found = Vec::new();
    walk(root, &mut Vec::new(), paths, &mut found);
    found
}

fn walk<'n>(node: &'n Node, steps: &mut Vec<&'n str>, paths: Paths, found: &mut Vec<Found<'n>>) {
    match &node.value {
        Value::Object(members) => {
            for (name, member) in members {
                // Sentry has no such member.
                let step = if name == "*" { "\0" } else { name };
                steps.push(step);
                walk(member, steps, paths, found);
                steps.pop();
            }
        }
        Value::Array(elements) => {
            for element in elements {
                steps.push("*");
                walk(element, steps, paths, found);
                steps.pop();
            }
        }
        Value::Number(digits) if digits.starts_with('-') => {}
        Value::Text(_) | Value::Number(_) => {
            let is_here = |(_, path): &&(&str, &str)| path.split('/').eq(steps.iter().copied());
            if let Some((meaning, _)) = paths.iter().find(is_here) {
                found.push(Found { meaning, node });
            }
        }
        Value::True | Value::False | Value::Null => {}
    }
}

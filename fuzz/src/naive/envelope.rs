//! The part of an envelope that an outbound must get.
//!
//! Every step makes a new text: the envelope is split into lines and payloads, items are filtered out, counts
//! and lengths are updated, ids are replaced. If serde_json cannot read what a decision depends on, there is no
//! result: the program may read more than serde_json, and no specification says what.

use std::ops::Range;

use super::ids::{ENTRY_PATHS, Found, HEADER_PATHS, META_PATHS, PAYLOAD_PATHS, draw_of, found};
use super::json::{self, Node, Value};
use super::sampling;

/// The options of an outbound, as in a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// `None` for all.
    pub categories: Option<&'static [&'static str]>,
    /// The sample rates other than 1; that of `*` holds for all other categories, even unknown ones.
    pub rates: &'static [(&'static str, f64)],
}

/// The values of an outbound for the header of an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Own<'o> {
    pub dsn: &'o str,
    pub key: &'o str,
}

/// Why an outbound gets nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nothing {
    Filtered,
    Sampled,
}

/// An envelope.
pub struct Envelope {
    pub header: Node,
    pub items: Vec<Item>,
    /// The position of the first item, or the end.
    pub items_start: usize,
}

/// One of its items.
pub struct Item {
    pub header: Node,
    pub kind: String,
    pub payload: Range<usize>,
    /// All of it, with its line ends.
    pub whole: Range<usize>,
}

/// A text and its edits.
type Changes = Vec<(Range<usize>, String)>;

/// Reads an envelope if serde_json can read the headers.
pub fn read(text: &[u8]) -> Option<Envelope> {
    let header = json::read(text, 0)?;
    if !matches!(header.value, Value::Object(_)) {
        return None;
    }
    let mut at = after_line(text, header.place.end)?;
    let mut envelope = Envelope {
        header,
        items: Vec::new(),
        items_start: at,
    };
    while at < text.len() {
        let header = json::read(text, at)?;
        let kind = header.member("type")?.as_text()?.to_owned();
        let length = number(&header, "length")?;
        number(&header, "item_count")?;
        // Far beyond what SDKs send, the program refuses it or stops parsing.
        let is_long = header.place.end - at > 8 * 1024;
        let start = after_line(text, header.place.end)?;
        let rest = &text[start..];
        let line_end = rest.iter().position(|byte| *byte == b'\n');
        let length = length.unwrap_or(line_end.unwrap_or(rest.len()));
        if length > rest.len() || envelope.items.len() == 500 || is_long {
            return None;
        }
        let payload = start..start + length;
        let end = after_line(text, payload.end)?;
        envelope.items.push(Item {
            header,
            kind,
            payload,
            whole: at..end,
        });
        at = end;
    }
    Some(envelope)
}

/// The number in the last member `name`; `Some(None)` if it is missing or `null`.
fn number(header: &Node, name: &str) -> Option<Option<usize>> {
    match header.member(name).map(|member| &member.value) {
        None | Some(Value::Null) => Some(None),
        Some(Value::Number(digits)) => digits.parse::<u32>().ok().map(|it| Some(it as usize)),
        Some(_) => None,
    }
}

/// The position after the line feed at `at`; the end of the text counts as one.
fn after_line(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at) {
        Some(b'\n') => Some(at + 1),
        Some(_) => None,
        None => Some(text.len()),
    }
}

/// The part of the envelope `text` that is `wanted`; `None` if that cannot be decided. Items without an id are
/// sampled by this number.
pub fn select(text: &[u8], wanted: Wanted, chance: u128) -> Option<Result<Vec<u8>, Nothing>> {
    let envelope = read(text)?;
    let Envelope {
        header,
        items,
        items_start,
    } = &envelope;
    if items.is_empty() {
        return Some(match wanted.categories {
            None => Ok(text.to_vec()),
            Some(_) => Err(Nothing::Filtered),
        });
    }
    let decisions = decisions(text, &envelope, wanted, chance);
    let (mut rest, mut kept_categories, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    for (item, Decision { category, draw }) in items.iter().zip(&decisions) {
        match taken_of_item(text, item, wanted, category.as_deref(), draw)? {
            Ok(bytes) => {
                rest.extend(bytes);
                kept_categories.push(category.clone());
            }
            Err(reason) => reasons.push(reason),
        }
    }
    if kept_categories.is_empty() {
        let is_sampled = reasons.contains(&Nothing::Sampled);
        return Some(Err(if is_sampled {
            Nothing::Sampled
        } else {
            Nothing::Filtered
        }));
    }
    let is_trace =
        |category: &&Option<String>| matches!(category.as_deref(), Some("transaction" | "span"));
    let decisive = kept_categories
        .iter()
        .find(is_trace)
        .unwrap_or(&kept_categories[0]);
    let mut front = text[..*items_start].to_vec();
    if let Some(changes) = multiplied_rate(text, header, wanted.rate(decisive.as_deref())) {
        front = changed(&front, changes);
    }
    front.extend(rest);
    Some(Ok(front))
}

impl Wanted {
    fn rate(&self, category: Option<&str>) -> f64 {
        let rate_of = |name: &str| {
            let mut rates = self.rates.iter();
            rates
                .find(|(known, _)| *known == name)
                .map(|(_, rate)| *rate)
        };
        category
            .and_then(rate_of)
            .or_else(|| rate_of("*"))
            .unwrap_or(1.0)
    }

    fn take(&self, category: Option<&str>, draw: f64) -> Result<(), Nothing> {
        let is_wanted = match (self.categories, category) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wanted), Some(category)) => wanted.contains(&category),
        };
        match is_wanted {
            false => Err(Nothing::Filtered),
            true if draw < self.rate(category) => Ok(()),
            true => Err(Nothing::Sampled),
        }
    }

    fn draws(&self) -> bool {
        !self.rates.is_empty()
    }
}

/// The category of an item, and its draw for sampling.
#[derive(Clone)]
struct Decision {
    category: Option<String>,
    draw: Draws,
}

#[derive(Clone)]
enum Draws {
    /// Unknown, since serde_json cannot read the payload.
    Unknown,
    Item(f64),
    /// For each entry, with its position.
    Entries(Vec<(Range<usize>, f64)>),
}

fn decisions(text: &[u8], envelope: &Envelope, wanted: Wanted, chance: u128) -> Vec<Decision> {
    let header_ids = found(&envelope.header, HEADER_PATHS);
    let mut decisions: Vec<Decision> = envelope
        .items
        .iter()
        .map(|item| {
            let category = category(text, item);
            let draw = match wanted.draws() {
                true => draws(text, item, category.as_deref(), &header_ids, chance),
                false => Draws::Item(0.0),
            };
            Decision { category, draw }
        })
        .collect();
    let kinds = || envelope.items.iter().map(|item| item.kind.as_str());
    let events = [
        "event",
        "transaction",
        "security",
        "raw_security",
        "unreal_report",
        "feedback",
    ];
    let event = kinds().position(|kind| events.contains(&kind));
    let crash = envelope
        .items
        .iter()
        .position(|item| becomes_event(text, item));
    if let Some(leader) = event.or(crash) {
        let leader = decisions[leader].clone();
        for (item, decision) in envelope.items.iter().zip(&mut decisions) {
            let is_file = item.kind == "attachment" && !is_trace_attachment(item);
            if is_file || item.kind == "form_data" {
                *decision = leader.clone();
            }
        }
    }
    decisions
}

/// The bytes of an item that are kept; `None` if that cannot be decided.
fn taken_of_item(
    text: &[u8],
    item: &Item,
    wanted: Wanted,
    category: Option<&str>,
    draw: &Draws,
) -> Option<Result<Vec<u8>, Nothing>> {
    let whole = || text[item.whole.clone()].to_vec();
    let entries = match draw {
        // Not sampled.
        Draws::Unknown if wanted.rate(category) >= 1.0 || wanted.take(category, 0.0).is_err() => {
            return Some(wanted.take(category, 0.0).map(|()| whole()));
        }
        Draws::Unknown => return None,
        Draws::Item(draw) => return Some(wanted.take(category, *draw).map(|()| whole())),
        Draws::Entries(entries) => entries,
    };
    let kept: Vec<&Range<usize>> = entries
        .iter()
        .filter(|(_, draw)| wanted.take(category, *draw).is_ok())
        .map(|(place, _)| place)
        .collect();
    if kept.is_empty() {
        // All entries have one category.
        return Some(wanted.take(category, 1.0).map(|()| Vec::new()));
    }
    if kept.len() == entries.len() {
        return Some(Ok(whole()));
    }
    let (first, last) = (&entries.first()?.0, &entries.last()?.0);
    let kept_texts: Vec<&[u8]> = kept.iter().map(|place| &text[(*place).clone()]).collect();
    let payload = [
        &text[item.payload.start..first.start],
        &kept_texts.join(&b","[..]),
        &text[last.end..item.payload.end],
    ]
    .concat();
    let mut changes = Changes::new();
    for (name, number) in [("length", payload.len()), ("item_count", kept.len())] {
        if let Some(member) = item.header.member(name)
            && matches!(member.value, Value::Number(_))
        {
            changes.push((shifted(&member.place, item.whole.start), number.to_string()));
        }
    }
    let header = changed(&text[item.whole.start..item.payload.start], changes);
    let end = &text[item.payload.end..item.whole.end];
    Some(Ok([&header, &payload, end].concat()))
}

fn shifted(place: &Range<usize>, start: usize) -> Range<usize> {
    place.start - start..place.end - start
}

/// The sample rate of the trace times `factor`, if that is less than 1.
fn multiplied_rate(text: &[u8], header: &Node, factor: f64) -> Option<Changes> {
    let rates = found(header, &[("rate", "trace/sample_rate")]);
    let place = rates.first()?.node.content();
    let rate: f64 = str::from_utf8(&text[place.clone()]).ok()?.parse().ok()?;
    if !(0.0..=1.0).contains(&rate) || factor >= 1.0 {
        return None;
    }
    let product: f64 = format!("{:.11e}", rate * factor).parse().ok()?;
    Some(vec![(place, product.to_string())])
}

/// The category of an item by itself.
fn category(text: &[u8], item: &Item) -> Option<String> {
    let text_of = |name| item.header.member(name).and_then(Node::as_text);
    let name = match item.kind.as_str() {
        "attachment" if is_trace_attachment(item) => match item.header.member("span_id") {
            Some(_) => "span",
            None => "attachment",
        },
        "attachment" if becomes_event(text, item) => "error",
        "profile_chunk" | "profile_chunk_ui" => match text_of("platform")? {
            "android" | "cocoa" | "javascript" => "profile_chunk_ui",
            _ => "profile_chunk",
        },
        "attachment" => "attachment",
        "client_report" => "client_report",
        "event" | "unreal_report" => "error",
        "feedback" | "user_report" => "feedback",
        "log" | "otel_log" | "otel_logs_data" | "nel" => "log_item",
        "statsd" | "metric_buckets" | "metric_meta" => "metric_bucket",
        "check_in" => "monitor",
        "profile" => "profile",
        "replay_event" | "replay_recording" | "replay_video" => "replay",
        "security" | "raw_security" => "security",
        "session" | "sessions" => "session",
        "span" | "otel_span" | "otel_traces_data" => "span",
        "trace_metric" => "trace_metric",
        "transaction" => "transaction",
        _ => return None,
    };
    Some(name.to_owned())
}

fn is_trace_attachment(item: &Item) -> bool {
    let content_type = item.header.member("content_type").and_then(Node::as_text);
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    item.kind == "attachment" && content_type.starts_with("application/vnd.sentry.trace-attachment")
}

fn becomes_event(text: &[u8], item: &Item) -> bool {
    let text_of = |name| item.header.member(name).and_then(Node::as_text);
    let events = [
        "event.minidump",
        "event.applecrashreport",
        "event.payload",
        "event.breadcrumbs",
        "event.nv_gpudmp",
        "nswitch.dying_message",
        "playstation.prosperodump",
    ];
    let is_crash = text_of("attachment_type").is_some_and(|kind| events.contains(&kind))
        || (text_of("filename") == Some("dying_message.dat")
            && text[item.payload.clone()].starts_with(b"sntr"));
    item.kind == "attachment" && !is_trace_attachment(item) && is_crash
}

/// The draw of an item, or of each of its entries.
fn draws(
    text: &[u8],
    item: &Item,
    category: Option<&str>,
    header: &[Found<'_>],
    chance: u128,
) -> Draws {
    let payload = match ids_root(text, item) {
        Ok(payload) => payload,
        Err(Unreadable) => return Draws::Unknown,
    };
    let paths = match item.kind.as_str() {
        "attachment" => META_PATHS,
        _ => PAYLOAD_PATHS,
    };
    let has_entries = matches!(category, Some("log_item" | "trace_metric" | "span"));
    if has_entries
        && item.kind != "attachment"
        && let Some(payload) = &payload
    {
        let lists: Vec<&[Node]> = payload
            .members("items")
            .filter_map(|list| match &list.value {
                Value::Array(entries) => Some(entries.as_slice()),
                _ => None,
            })
            .collect();
        match lists.as_slice() {
            [] | [[]] => {}
            [entries] => {
                let draw = |entry: &Node| {
                    let own = found(entry, ENTRY_PATHS);
                    let draw = draw_of(&own, "part_trace")
                        .or_else(|| draw_of(header, "trace"))
                        .or_else(|| draw_of(header, "replay"))
                        .or_else(|| draw_of(&own, "replay"))
                        .or_else(|| draw_of(header, "event"));
                    let by_chance = || sampling::draw_by_chance(chance, entry.place.start);
                    (entry.place.clone(), draw.unwrap_or_else(by_chance))
                };
                return Draws::Entries(entries.iter().map(draw).collect());
            }
            // Sentry refuses two lists with one name.
            _ => return Draws::Unknown,
        }
    }
    let own = payload
        .as_ref()
        .map(|payload| found(payload, paths))
        .unwrap_or_default();
    let own = |meaning| draw_of(&own, meaning);
    let by_chance = || sampling::draw_by_chance(chance, item.payload.start);
    let special = match (category, item.kind.as_str()) {
        (Some("session"), _) => own("user")
            .or_else(|| own("session"))
            .or_else(|| Some(by_chance())),
        (Some("monitor"), _) => own("monitor"),
        (Some("replay"), _) => draw_of(header, "event").or_else(|| own("replay")),
        (Some("client_report" | "metric_bucket"), _) => Some(by_chance()),
        (_, "profile_chunk" | "profile_chunk_ui") => own("profiler"),
        (_, "attachment") if is_trace_attachment(item) => own("trace"),
        _ => None,
    };
    let draw = special
        .or_else(|| draw_of(header, "trace"))
        .or_else(|| own("trace"))
        .or_else(|| draw_of(header, "replay"))
        .or_else(|| own("replay"))
        .or_else(|| draw_of(header, "event"))
        .or_else(|| own("event"))
        .unwrap_or_else(by_chance);
    Draws::Item(draw)
}

/// The payload may have JSON that serde_json cannot read.
struct Unreadable;

/// The object in an item that may hold ids, if there is one.
fn ids_root(text: &[u8], item: &Item) -> Result<Option<Node>, Unreadable> {
    let end = match item.kind.as_str() {
        "attachment" if is_trace_attachment(item) => {
            match item
                .header
                .member("meta_length")
                .map(|length| &length.value)
            {
                Some(Value::Number(digits)) => {
                    let length = digits.parse::<usize>().unwrap_or(0);
                    match length <= item.payload.len() {
                        true => item.payload.start + length,
                        false => return Ok(None),
                    }
                }
                _ => return Ok(None),
            }
        }
        "attachment" => return Ok(None),
        _ => item.payload.end,
    };
    let text = &text[..end];
    let first = text[item.payload.start..].trim_ascii_start().first();
    match first {
        Some(b'{') => {}
        _ => return Ok(None),
    }
    match json::read(text, item.payload.start) {
        Some(root) => Ok(Some(root)),
        None => Err(Unreadable),
    }
}

/// The envelope `text` for one outbound; `None` if serde_json cannot read its header.
pub fn rewritten(text: &[u8], own: Own<'_>) -> Option<Vec<u8>> {
    let header = json::read(text, 0)?;
    let is_object = matches!(header.value, Value::Object(_));
    is_object.then(|| changed(text, key_sites(&header, own)))
}

/// The values of the strings at the key sites of an envelope.
pub fn credentials(text: &[u8]) -> Vec<String> {
    let header = json::read(text, 0);
    let header = header.iter();
    let sites = header.flat_map(|header| {
        let keys = header
            .members("trace")
            .flat_map(|trace| trace.members("public_key"));
        header.members("dsn").chain(keys)
    });
    sites
        .filter_map(|site| site.as_text().map(str::to_owned))
        .collect()
}

/// Copy number `copy` of the envelope `text` for one outbound; `None` if serde_json cannot read it.
pub fn copy(text: &[u8], copy: u32, own: Own<'_>) -> Option<Vec<u8>> {
    let envelope = read(text)?;
    let mut changes = key_sites(&envelope.header, own);
    if copy > 1 {
        let mut ids = found(&envelope.header, HEADER_PATHS);
        let mut roots = Vec::new();
        for item in &envelope.items {
            if item.kind == "replay_video" {
                // The JSON in it is packed.
                return None;
            }
            let root = ids_root(text, item).ok()?;
            roots.extend(root.map(|root| (item.kind == "attachment", root)));
        }
        for (is_file, root) in &roots {
            ids.extend(found(
                root,
                if *is_file { META_PATHS } else { PAYLOAD_PATHS },
            ));
        }
        for Found { meaning, node } in ids {
            // As written: an id with escapes cannot be replaced in place.
            let id = str::from_utf8(&text[node.content()]).ok()?;
            let is_name = matches!(meaning, "user" | "monitor");
            if !is_name && sampling::is_id(id) && !sampling::is_nil(id) {
                changes.push((node.content(), sampling::id_of_copy(id, copy)));
            }
        }
    }
    Some(changed(text, changes))
}

/// The edits of the header of an envelope for an outbound.
fn key_sites(header: &Node, own: Own<'_>) -> Changes {
    let dsns = header.members("dsn").map(|dsn| (dsn, own.dsn));
    let traces = header.members("trace");
    let keys = traces.flat_map(|trace| trace.members("public_key"));
    let sites = dsns.chain(keys.map(|key| (key, own.key)));
    let sites = sites.filter(|(site, _)| site.as_text().is_some());
    sites
        .map(|(site, text)| (site.content(), text.to_owned()))
        .collect()
}

/// `text` with all edits applied, the last one first.
fn changed(text: &[u8], mut changes: Changes) -> Vec<u8> {
    changes.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut text = text.to_vec();
    for (place, new) in changes {
        text.splice(place, new.bytes());
    }
    text
}

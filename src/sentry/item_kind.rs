//! What an item of an envelope is, by its header alone.

use super::category::Category;
use super::envelope::unescape;
use super::items::Item;
use crate::span::Span;

/// The category of an item by itself.
pub(super) fn category(body: &[u8], item: &Item<'_>) -> Option<Category> {
    match &*item.kind {
        b"attachment" if item.is_trace_attachment(body) => Some(match item.has_span_id {
            true => Category::Span,
            false => Category::Attachment,
        }),
        b"attachment" if becomes_event(body, item) => Some(Category::Error),
        kind if is_profile_chunk(kind) => {
            let platform = item.platform.map(|platform| unescape(platform.slice(body)));
            Category::from_profile_platform(platform.as_deref())
        }
        kind => Category::from_item_type(kind),
    }
}

/// Whether an item of this type is a profile chunk. Some versions of the Android SDK send the name of a category.
pub(super) fn is_profile_chunk(kind: &[u8]) -> bool {
    matches!(kind, b"profile_chunk" | b"profile_chunk_ui")
}

/// Whether an item belongs to the event in its envelope.
pub(super) fn belongs_to_event(body: &[u8], item: &Item<'_>) -> bool {
    match &*item.kind {
        b"attachment" => !item.is_trace_attachment(body),
        kind => kind == b"form_data",
    }
}

/// Whether an item of this type is an event. A `user_report` is not: its event was sent before.
pub(super) fn is_event(kind: &[u8]) -> bool {
    let events: [&[u8]; 6] = [
        b"event",
        b"transaction",
        b"security",
        b"raw_security",
        b"unreal_report",
        b"feedback",
    ];
    events.contains(&kind)
}

/// Whether Relay makes an event of an attachment if there is none: by its type or, for a Nintendo Switch, by its name
/// and its first bytes (Relay 26.9, `Item::creates_event` and `errors/nswitch.rs`).
pub(super) fn becomes_event(body: &[u8], item: &Item<'_>) -> bool {
    if *item.kind != *b"attachment" || item.is_trace_attachment(body) {
        return false;
    }
    let is = |member: Option<Span>, names: &[&[u8]]| {
        member.is_some_and(|text| names.contains(&&*unescape(text.slice(body))))
    };
    let events: [&[u8]; 7] = [
        b"event.minidump",
        b"event.applecrashreport",
        b"event.payload",
        b"event.breadcrumbs",
        b"event.nv_gpudmp",
        b"nswitch.dying_message",
        b"playstation.prosperodump",
    ];
    is(item.attachment_type, &events)
        || (is(item.filename, &[b"dying_message.dat"])
            && item.payload.slice(body).starts_with(b"sntr"))
}

//! What a refused request was about: its event id and its items, never their payloads.
//!
//! It is read from the request that the outbound refused. A compressed body stays compressed: then only what is known
//! of the endpoint is said.

use memchr::{memchr, memmem};

use crate::mirror::reporting::item_counters::ItemCategory;
use crate::mirror::request::event_id::id_text;
use crate::sentry::category::Category;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope::{scan_within, unescape};
use crate::sentry::items::items;
use crate::sentry::quantity::Quantity;
use crate::upstream::exchange::OutboundRequest;

/// How many items are listed.
const ITEMS_LISTED_MAX: usize = 20;

/// The longest envelope header that is read for the event id.
const HEADER_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestSummary {
    pub(crate) event_id: Option<String>,
    /// The first items, each with the length of its payload.
    pub(crate) items: Vec<(ItemCategory, usize)>,
    /// How many more there are.
    pub(crate) items_left_out: usize,
}

impl RequestSummary {
    pub(crate) fn of(request: &OutboundRequest, endpoint: Endpoint) -> RequestSummary {
        let head_end = memmem::find(&request.head, b"\r\n\r\n").map_or(0, |at| at + 4);
        let (head, front) = request.head.split_at_checked(head_end).unwrap_or_default();
        let is_envelope = matches!(endpoint, Endpoint::Envelope | Endpoint::Tunnel);
        let is_compressed = memmem::find(head, b"\r\nContent-Encoding: ").is_some();
        let bytes = front.len() + request.body.len() + request.tail.len();
        if !is_envelope || is_compressed {
            let category = ItemCategory(Category::from_endpoint(endpoint));
            return RequestSummary {
                event_id: None,
                items: vec![(category, bytes)],
                items_left_out: 0,
            };
        }
        if request.body.is_empty() {
            return RequestSummary::of_envelope(front, front);
        }
        // The edited beginning of the header line, and the rest of the line.
        let rest_of_line = memchr(b'\n', &request.body).unwrap_or(request.body.len());
        let rest_of_line = request.body.get(..rest_of_line).unwrap_or_default();
        let is_short = front.len() + rest_of_line.len() <= HEADER_BYTES_MAX;
        let line = match is_short {
            true => [front, rest_of_line].concat(),
            false => Vec::new(),
        };
        let after_front = request.body.get(rest_of_line.len()..).unwrap_or_default();
        RequestSummary::of_envelope(&line, after_front)
    }

    /// The summary of an envelope that begins with `header`. Its items begin after the header, which is the
    /// beginning of `body` or ends where it begins.
    fn of_envelope(header: &[u8], body: &[u8]) -> RequestSummary {
        let scanned = scan_within(header, HEADER_BYTES_MAX, &mut Vec::new()).unwrap_or_default();
        let event_id = scanned.event_id.map(|id| id.slice(header));
        let event_id = event_id.and_then(|id| id_text(&unescape(id)));
        let header_end = match std::ptr::eq(header, body) {
            true => scanned.end,
            false => 0,
        };
        let (mut listed, mut items_left_out) = (Vec::new(), 0);
        for item in items(body, header_end) {
            let Ok(item) = item else {
                // What cannot be read is one more.
                items_left_out += 1;
                break;
            };
            match listed.len() < ITEMS_LISTED_MAX {
                true => {
                    let category = ItemCategory(Quantity::of_item(body, &item).category);
                    listed.push((category, item.payload.len()));
                }
                false => items_left_out += 1,
            }
        }
        RequestSummary {
            event_id,
            items: listed,
            items_left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::head::Method;
    use crate::telemetry::label::Label;

    const ID: &str = "fc6d8c0c43fc4630ad850ee518f1b9d0";

    fn summary(head: &str, front: &str, rest: &str, endpoint: Endpoint) -> String {
        let request = OutboundRequest {
            method: Method::Post,
            head: format!("{head}\r\n\r\n{front}").into_bytes(),
            body: Bytes::copy_from_slice(rest.as_bytes()),
            tail: Vec::new(),
        };
        let summary = RequestSummary::of(&request, endpoint);
        let items = summary.items.iter();
        let items: Vec<String> = items
            .map(|(category, bytes)| format!("{}:{bytes}", category.word()))
            .collect();
        let id = summary.event_id.unwrap_or_default();
        format!("{id} {} +{}", items.join(","), summary.items_left_out)
    }

    #[test]
    fn an_envelope_is_summarized_wherever_it_is_split() {
        let header = format!("{{\"event_id\":\"{ID}\",\"dsn\":\"http://k@h/1\"}}");
        let body = format!(
            "{header}\n{{\"type\":\"event\",\"length\":5}}\n{{\n\n\n}}\n{{\"type\":\"attachment\",\"length\":3}}\nabc\n"
        );
        let expected = format!("{ID} error:5,attachment:3 +0");
        // The front ends somewhere in the header line.
        for end in 0..header.len() {
            let (front, rest) = body.split_at(end);
            let found = summary("POST / HTTP/1.1", front, rest, Endpoint::Envelope);
            assert_eq!(found, expected, "{end}");
        }
        let found = summary("POST / HTTP/1.1", &body, "", Endpoint::Tunnel);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let items = "{\"type\":\"session\"}\n{}\n".repeat(30);
        let line = "POST / HTTP/1.1";
        let coded = "POST / HTTP/1.1\r\nContent-Encoding: zstd";
        for (head, body, endpoint, expected) in [
            (
                line,
                format!("{{\"event_id\":\"{ID}\"}}\n{{\"type\":\"event\"}}\n{{}}\nnonsense"),
                Endpoint::Envelope,
                format!("{ID} error:2 +1"),
            ),
            (
                line,
                format!("{{\"event_id\":\"<b>\"}}\n{items}"),
                Endpoint::Envelope,
                format!(" {} +10", ["session:2"; 20].join(",")),
            ),
            (line, String::new(), Endpoint::Envelope, "  +0".to_owned()),
            (
                coded,
                "abcd".to_owned(),
                Endpoint::Envelope,
                " other:4 +0".to_owned(),
            ),
            (
                line,
                "{}".to_owned(),
                Endpoint::Store,
                " error:2 +0".to_owned(),
            ),
        ] {
            let found = summary(head, &body, "", endpoint);
            assert_eq!(found, expected, "{body}");
            if endpoint == Endpoint::Store {
                assert_eq!(summary(head, "", &body, endpoint), expected);
            }
        }
    }
}

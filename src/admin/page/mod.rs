//! The status page: a single document that loads nothing but the status.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::mirror::outbound::incidents::IncidentKind;
use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{OutcomeKind, RequestResult};
use crate::mirror::reporting::item_counters::{ItemCategory, ItemOutcome};
use crate::telemetry::label::Label;

const STYLE: &str = concat!("\n", include_str!("style.css"));

/// The files share one scope, and each uses only those before it.
const SCRIPT: &str = concat!(
    include_str!("format.js"),
    include_str!("judge.js"),
    include_str!("picture.js"),
    include_str!("detail.js"),
    include_str!("table.js"),
    include_str!("main.js"),
);

pub(super) static STATUS_PAGE: LazyLock<Page> = LazyLock::new(Page::new);

pub(super) struct Page {
    pub(super) html: String,
    /// The `Content-Security-Policy`: a browser runs the page's own script and style and nothing else, and connects to
    /// nothing but the admin port.
    pub(super) policy: String,
}

impl Page {
    fn new() -> Page {
        let script = format!(
            "\n\"use strict\";\n\nconst MEANINGS = {};\n\n{SCRIPT}",
            meanings()
        );
        // CSP Level 3, section 2.3.1: the hash of what stands between the tags, byte by byte.
        let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'",
            hash(STYLE),
            hash(&script)
        );
        let html = [
            include_str!("head.html"),
            "<style>",
            STYLE,
            "</style>\n",
            include_str!("body.html"),
            "<script>",
            &script,
            "</script>\n</body>\n</html>\n",
        ];
        Page {
            html: html.concat(),
            policy,
        }
    }
}

/// The words of the status that the page explains where they stand, with the meanings that `docs/metrics.md` has.
fn meanings() -> Value {
    json!({
        "answers": of::<RequestResult>(),
        "categories": of::<ItemCategory>(),
        "incidents": of::<IncidentKind>(),
        "items": of::<ItemOutcome>(),
        "outcomes": of::<OutcomeKind>(),
        "rejections": of::<Reason>(),
    })
}

fn of<L: Label>() -> Map<String, Value> {
    let labels = L::ALL.iter();
    labels
        .map(|label| (label.word().to_owned(), label.meaning().into()))
        .collect()
}

//! The items of an envelope: the walk finds what a JSON library finds, and what is cut or copied is an
//! envelope again, of the same items with the same bytes.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sentry_mirror::config::Config;
use sentry_mirror::mirror::copies::{self, Template};
use sentry_mirror::mirror::portion::{Portion, cut};
use sentry_mirror::sentry::envelope;
use sentry_mirror::sentry::inventory::Inventory;
use sentry_mirror::sentry::items::items;
use sentry_mirror::sentry::sampling::Chance;
use sentry_mirror::sentry::selection::Selection;
use sentry_mirror_fuzz::check_edits;

#[path = "../../src/sentry/items/twin.rs"]
mod twin;

const CONFIG: &str = "
keys:
  - inbound: http://0123456789abcdef0123456789abcdef@mirror.example.com/42
    outbound:
      - {dsn: 'https://a@o/1', categories: [error]}
      - {dsn: 'https://a@o/2', categories: [log, session, client_report]}
      - {dsn: 'https://a@o/3', sample_rate: 0.5}
      - {dsn: 'https://a@o/4', sample_rate: {log: 0.5, transaction: 0.1}}
";

static SELECTIONS: LazyLock<Vec<Selection>> = LazyLock::new(|| {
    let config = Config::parse(CONFIG, "fuzz", std::iter::empty()).expect("it is valid");
    let outbounds = config.routes.iter().flat_map(|route| &route.outbounds);
    outbounds.filter_map(|outbound| outbound.selection).collect()
});

fuzz_target!(|data: &[u8]| {
    let mut edits = Vec::new();
    let Ok(header) = envelope::scan(data, &mut edits) else {
        return;
    };
    let found: Result<Vec<_>, _> = items(data, header.end).collect();
    if let Some(expected) = twin::items(data, header.end) {
        let found = found.as_ref().expect("what the twin accepts is accepted");
        let found: Vec<_> = found
            .iter()
            .map(|item| (item.kind.to_vec(), item.payload.start..item.payload.end))
            .collect();
        assert_eq!(found, expected);
    }
    let inventory = Inventory::of(data, header.end, Some(Chance::new(7)));
    assert_eq!(inventory.is_ok(), found.is_ok());
    let (Ok(inventory), Ok(found)) = (inventory, found) else {
        return;
    };
    for selection in SELECTIONS.iter() {
        let Ok(Some(cut)) = cut(selection, &inventory, data, &edits) else {
            continue;
        };
        check_edits(&cut.edits, 0..cut.front.len());
        let rest: Vec<u8> = cut.pieces.slices(data).flatten().copied().collect();
        assert_eq!(rest.len(), cut.pieces.len());
        let whole = [cut.front.clone(), rest.clone()].concat();
        let header = envelope::scan(&whole, &mut Vec::new()).expect("still an envelope");
        let left: Result<Vec<_>, _> = items(&whole, header.end).collect();
        let left = left.expect("still well-formed");
        assert_eq!(left.len(), cut.categories.len());
        assert_eq!(left.len() + cut.left_out.len(), found.len());
        let mut before = found.iter();
        for item in &left {
            // In the same order, and whole unless some entries were taken out.
            assert!(before.any(|known| known.kind == item.kind
                && (item.payload.of(&whole) == known.payload.of(data)
                    || item.payload.len() < known.payload.len())));
        }
    }
    let portion = Portion {
        front: Bytes::copy_from_slice(&data[..header.end]),
        edits,
        rest: Bytes::copy_from_slice(&data[header.end..]),
    };
    let ids = copies::ids(data, true).map(|ids| ids.spans).collect();
    let template = Template::new(&portion, Bytes::copy_from_slice(data), ids);
    let mut text = template.text().to_vec();
    template.ids().for_each(|ids| copies::rename(&mut text, ids, 2));
    let copy = template.portion(text);
    assert_eq!((copy.front.len(), copy.rest.len()), (portion.front.len(), portion.rest.len()));
    let copy = [copy.front, copy.rest].concat();
    for (old, new) in data.iter().zip(&copy) {
        assert!(old == new || (old.is_ascii_hexdigit() && new.is_ascii_hexdigit()));
    }
});

//! One entry of `outbound`: where to deliver to, and what of it.
//!
//! A DSN alone gets everything, uncompressed. As a mapping it may ask for some categories, for a share,
//! for copies, and for a compression. What the prior art only warns of is only warned of here too: copies of
//! what is sampled. So are more copies than there can be, for which it has no bound. A rate outside of its
//! range, which it takes for the nearest, is an error: 50 for 50 percent would deliver everything.

use serde_yaml::Value;

use super::nearest::nearest;
use super::node::Node;
use super::value::{Read, choice, number, parse};
use super::{Compression, Outbound};
use crate::sentry::category::{Category, CategorySet};
use crate::sentry::dsn::Dsn;
use crate::sentry::selection::{Rates, Selection};

/// How many copies an outbound can get. Each holds memory of its own.
const COPIES_MAX: u32 = 100;

/// An outbound and where its DSN stands.
pub(super) struct LocatedOutbound<'a> {
    pub(super) node: Node<'a>,
    pub(super) outbound: Outbound,
}

/// Reads an outbound. Bodies are compressed in the way `usual` where it does not say how.
pub(super) fn outbound(
    node: Node<'_>,
    usual: Compression,
    dsn: impl Fn(&Node<'_>) -> Option<Dsn>,
) -> Option<LocatedOutbound<'_>> {
    if !node.is_mapping() {
        let dsn = dsn(&node)?;
        let outbound = Outbound {
            dsn,
            selection: None,
            copies: 1,
            compression: usual,
        };
        return Some(LocatedOutbound { node, outbound });
    }
    let mut section = node.section();
    let node = section.take("dsn");
    let categories = categories(&section.take("categories"));
    let rates = rates(&section.take("sample_rate"));
    let copies = copies(&section.take("multiplier"), rates);
    let compressions = choice([
        ("none", Compression::None),
        ("preserve", Compression::Preserve),
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
    ]);
    let compression = section.value("compression", compressions, usual);
    section.finish();
    let outbound = Outbound {
        dsn: dsn(&node)?,
        selection: Selection::new(categories, rates),
        copies,
        compression,
    };
    Some(LocatedOutbound { node, outbound })
}

/// The categories of a list; `None` for all of them.
fn categories(node: &Node<'_>) -> Option<CategorySet> {
    let names = node.list("a list of categories such as [error, transaction]");
    let sets = names.iter().filter_map(|name| name.required(category));
    sets.reduce(CategorySet::and)
}

fn category(value: &Value) -> Read<CategorySet> {
    let name: String = parse(value).unwrap_or_default();
    CategorySet::named(&name.to_ascii_lowercase()).ok_or_else(|| what_is_meant(&name))
}

/// What an operator who wrote `name` for a category is told to write.
fn what_is_meant(name: &str) -> String {
    let known: Vec<&str> = CategorySet::names().collect();
    match nearest(name, &known) {
        Some(nearest) => format!("a category, did you mean {nearest}?"),
        None => {
            let names = Category::ALL.map(Category::name);
            format!("a category, one of {}", names.join(", "))
        }
    }
}

/// One rate for all categories, or one each for some of them.
fn rates(node: &Node<'_>) -> Rates {
    if !node.is_mapping() {
        return rate(node).map_or(Rates::FULL, Rates::uniform);
    }
    let mut rates = Rates::FULL;
    let mut seen: Vec<Category> = Vec::new();
    for (name, node) in node.members() {
        let Some(set) = CategorySet::named(&name.to_ascii_lowercase()) else {
            node.error(format!("found {name:?}, expected {}", what_is_meant(&name)));
            continue;
        };
        if let Some(again) = set.iter().find(|category| seen.contains(category)) {
            node.error(format!("is another rate for {}", again.name()));
        }
        seen.extend(set.iter());
        if let Some(rate) = rate(&node) {
            rates.set(set, rate);
        }
    }
    rates
}

/// How many copies of what is not sampled.
fn copies(node: &Node<'_>, rates: Rates) -> u32 {
    let expected = |_| format!("a number from 1 to {COPIES_MAX}");
    let asked = node.optional(|value| number(1..=u64::MAX)(value).map_err(expected));
    let asked = asked.unwrap_or(1);
    if asked > 1 && rates != Rates::FULL {
        node.warn("is ignored, because sample_rate is set too: an outbound has either of the two");
        return 1;
    }
    u32::try_from(asked)
        .ok()
        .filter(|copies| *copies <= COPIES_MAX)
        .unwrap_or_else(|| {
            node.warn(format!(
                "is more than {COPIES_MAX}; {COPIES_MAX} is used instead"
            ));
            COPIES_MAX
        })
}

/// A rate from 0 to 1.
fn rate(node: &Node<'_>) -> Option<f64> {
    node.optional(|value| {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            other => parse(other),
        };
        match number {
            Some(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
            Some(rate) if rate > 1.0 && rate <= 100.0 => Err(format!(
                "a number from 0 to 1; {rate} percent would be {}",
                rate / 100.0
            )),
            Some(_) => Err("a number from 0 to 1".to_owned()),
            None => Err("a number from 0 to 1, or a mapping of categories to such".to_owned()),
        }
    })
}

//! One entry of `outbound`: a DSN, or a mapping with options.
//!
//! getsentry/sentry-mirror warns about `multiplier` together with `sample_rate`, and so does this mirror.
//! It also warns about more copies than it allows, because the original has no maximum. A sample rate
//! outside its range, which the original clamps, is an error: 50 for 50 percent would deliver everything.

use serde_yaml::Value;

use super::cap::caps;
use super::cap_settings::Cap;
use super::category_name::expected_category;
use super::header_list::Headers;
use super::headers::headers;
use super::http2;
use super::model::{ClientAddress, Compression, Outbound, REPLIES};
use super::name::Names;
use super::node::Node;
use super::proxy::ProxyDefault;
use super::sentry_api::sentry_api;
use super::tls::tls;
use super::tls_settings::Tls;
use super::value::{Parsed, choice, number, parse_scalar};
use crate::http2::mode::Http2Mode;
use crate::sentry::category::{Category, CategorySet};
use crate::sentry::dsn::{Dsn, Scheme};
use crate::sentry::selection::{Rates, Selection};

/// The most copies of a request for one outbound. Each copy uses memory.
const COPIES_MAX: u32 = 100;

/// What an outbound without an option of its own has.
pub(super) struct Defaults<'e> {
    pub(super) compression: Compression,
    pub(super) headers: Headers,
    pub(super) tls: Tls,
    pub(super) proxy: ProxyDefault<'e>,
    pub(super) client_address: ClientAddress,
    pub(super) http2: Http2Mode,
    pub(super) caps: Vec<Cap>,
}

/// A value and the node of its DSN.
pub(super) struct Located<'a, T> {
    pub(super) node: Node<'a>,
    pub(super) value: T,
}

/// `names` are those of the outbounds before it in the same route.
pub(super) fn outbound<'a>(
    node: Node<'a>,
    defaults: &Defaults<'_>,
    names: &mut Names,
    dsn: impl Fn(&Node<'_>) -> Option<Dsn>,
) -> Option<Located<'a, Outbound>> {
    if !node.is_mapping() {
        let dsn = dsn(&node)?;
        let proxy = defaults.proxy.of_outbound(&dsn, &node.without_value());
        let value = Outbound {
            name: None,
            dsn,
            selection: None,
            copies: 1,
            compression: defaults.compression,
            replies: true,
            headers: defaults.headers.clone(),
            tls: defaults.tls.clone(),
            proxy,
            client_address: None,
            http2: None,
            caps: defaults.caps.clone(),
            sentry_api: None,
        };
        return Some(Located { node, value });
    }
    let mut section = node.section();
    let name = names.read(&section.take("name"));
    let node = section.take("dsn");
    let dsn = dsn(&node);
    let sentry_api = sentry_api(section.take("sentry_api"), dsn.as_ref());
    let categories = categories(&section.take("categories"));
    let rates = rates(&section.take("sample_rate"));
    let copies = copies(&section.take("multiplier"), rates);
    let compression = section.value(
        "compression",
        choice(Compression::NAMES),
        defaults.compression,
    );
    let replies = section.value("reply", choice(REPLIES), true);
    let headers = headers(&section.take("headers"), &defaults.headers);
    let own_tls = section.take("tls");
    let own_proxy = section.take("proxy");
    let client_address = section.take("client_address");
    let client_address = defaults.client_address.of_outbound(&client_address);
    let http2 = http2::of_outbound(&section.take("http2"), &node, dsn.as_ref());
    let caps = caps(&section.take("cap"), &defaults.caps);
    section.finish();
    let dsn = dsn?;
    if !own_tls.is_absent() && dsn.origin().scheme == Scheme::Http {
        own_tls.warn("has no effect: the DSN begins with http://");
    }
    let proxy = defaults.proxy.of_outbound(&dsn, &own_proxy);
    if proxy.is_some() && http2 == Some(Http2Mode::H2c) {
        own_proxy.error("cannot be used with http2: h2c, expected proxy: none or http2: off");
    }
    let value = Outbound {
        name,
        dsn,
        selection: Selection::new(categories, rates),
        copies,
        compression,
        replies,
        headers,
        tls: tls(own_tls, &defaults.tls),
        proxy,
        client_address,
        http2,
        caps,
        sentry_api,
    };
    Some(Located { node, value })
}

/// The categories in a list; `None` for an empty list, which selects all.
fn categories(node: &Node<'_>) -> Option<CategorySet> {
    let names = node.optional_list("a list of categories such as [error, transaction]");
    let sets = names.iter().filter_map(|name| name.required(category));
    sets.reduce(CategorySet::union)
}

fn category(value: &Value) -> Parsed<CategorySet> {
    let name: String = parse_scalar(value).unwrap_or_default();
    CategorySet::parse(&name.to_ascii_lowercase()).ok_or_else(|| expected_category(&name))
}

/// One rate for all categories, or a mapping from categories to rates.
fn rates(node: &Node<'_>) -> Rates {
    if !node.is_mapping() {
        return rate(node).map_or(Rates::FULL, Rates::uniform);
    }
    let mut rates = Rates::FULL;
    let mut seen: Vec<Category> = Vec::new();
    for (name, node) in node.members() {
        let Some(set) = CategorySet::parse(&name.to_ascii_lowercase()) else {
            node.error(format!(
                "found {name:?}, expected {}",
                expected_category(&name)
            ));
            continue;
        };
        if let Some(duplicate) = set.iter().find(|category| seen.contains(category)) {
            node.error(format!("duplicate rate for {}", duplicate.name()));
        }
        seen.extend(set.iter());
        if let Some(rate) = rate(&node) {
            rates.set(set, rate);
        }
    }
    rates
}

fn copies(node: &Node<'_>, rates: Rates) -> u32 {
    let expected = |_| format!("a number from 1 to {COPIES_MAX}");
    let copies = node.optional(|value| number(1..=u64::MAX)(value).map_err(expected));
    let copies = copies.unwrap_or(1);
    if copies > 1 && rates != Rates::FULL {
        node.warn(
            "is ignored because sample_rate is set; an outbound can have only one of the two",
        );
        return 1;
    }
    u32::try_from(copies)
        .ok()
        .filter(|copies| *copies <= COPIES_MAX)
        .unwrap_or_else(|| {
            node.warn(format!("is more than {COPIES_MAX}; using {COPIES_MAX}"));
            COPIES_MAX
        })
}

fn rate(node: &Node<'_>) -> Option<f64> {
    node.optional(|value| {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            other => parse_scalar(other),
        };
        match number {
            Some(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
            Some(rate) if rate > 1.0 && rate <= 100.0 => Err(format!(
                "a number from 0 to 1; {rate} percent would be {}",
                rate / 100.0
            )),
            Some(_) => Err("a number from 0 to 1".to_owned()),
            None => {
                Err("a number from 0 to 1, or a mapping from categories to such numbers".to_owned())
            }
        }
    })
}

//! `keys`: from the list of the file to routes.
//!
//! Every entry is read by itself first; what must hold between entries is checked afterwards, over
//! all that could be read. A target that seems to lead back to this mirror is a warning and not an
//! error: where SDKs use a tunnel, or a host name that resolves differently inside, the inbound DSN
//! rightly is the DSN of the primary, and only the operator knows which it is.

use std::collections::HashMap;

use super::node::Node;
use super::outbound::{LocatedOutbound, outbound};
use super::value::dsn;
use super::{Compression, Route};
use crate::sentry::dsn::{Dsn, Origin};

/// The routes that `keys` describes. Where something is wrong with them that is reported, and the
/// result lacks them. Bodies are compressed in the way `usual` for an outbound that does not say how.
pub(super) fn routes(keys: &Node<'_>, usual: Compression) -> Vec<Route> {
    let entries = keys.entries("a list of at least one route with inbound and outbound");
    let entry = |node| entry(node, usual);
    let entries: Vec<Entry<'_>> = entries.into_iter().filter_map(entry).collect();
    refuse_shared_keys(&entries);
    warn_of_loops(&entries);
    entries.iter().for_each(warn_of_repetition);
    entries.into_iter().filter_map(Entry::route).collect()
}

/// One entry of `keys`, as far as it could be read.
struct Entry<'a> {
    inbound: Option<Located<'a>>,
    outbounds: Vec<LocatedOutbound<'a>>,
}

/// A DSN and where it stands.
struct Located<'a> {
    node: Node<'a>,
    dsn: Dsn,
}

impl Entry<'_> {
    fn route(self) -> Option<Route> {
        let outbounds = self.outbounds.into_iter();
        Some(Route {
            inbound: self.inbound?.dsn,
            outbounds: outbounds.map(|located| located.outbound).collect(),
        })
    }
}

fn entry(node: Node<'_>, usual: Compression) -> Option<Entry<'_>> {
    if !node.is_mapping() {
        node.refuse("a mapping with inbound and outbound");
        return None;
    }
    let mut section = node.section();
    let inbound = section.take("inbound");
    let inbound = usual_dsn(&inbound).map(|dsn| Located { node: inbound, dsn });
    let outbounds = section.take("outbound");
    let outbounds = outbounds.entries("a list of at least one DSN");
    section.finish();
    Some(Entry {
        inbound,
        outbounds: outbounds
            .into_iter()
            .filter_map(|node| outbound(node, usual, usual_dsn))
            .collect(),
    })
}

fn usual_dsn(node: &Node<'_>) -> Option<Dsn> {
    let dsn = node.required(dsn)?;
    if !dsn.has_usual_key() {
        node.warn("the public key has not the 32 characters that Sentry requires");
    }
    Some(dsn)
}

/// The key alone selects the route, so that two routes cannot share one.
fn refuse_shared_keys(entries: &[Entry<'_>]) {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for inbound in entries.iter().filter_map(|entry| entry.inbound.as_ref()) {
        let key = inbound.dsn.key();
        let owner = *owners.entry(key).or_insert(&inbound.node.path);
        if owner != inbound.node.path {
            inbound.node.error(format!(
                "found the public key of {owner} again, expected a key of its own"
            ));
        }
    }
}

fn warn_of_loops(entries: &[Entry<'_>]) {
    let inbounds: HashMap<(&str, &Origin), &str> = entries
        .iter()
        .filter_map(|entry| entry.inbound.as_ref())
        .map(|inbound| {
            let who = (inbound.dsn.key(), inbound.dsn.origin());
            (who, inbound.node.path.as_str())
        })
        .collect();
    for outbound in entries.iter().flat_map(|entry| &entry.outbounds) {
        let dsn = &outbound.outbound.dsn;
        if let Some(inbound) = inbounds.get(&(dsn.key(), dsn.origin())) {
            outbound.node.warn(format!(
                "has the key and the host of {inbound}: it leads back to this mirror, unless SDKs \
                 reach the mirror under another name (a tunnel)"
            ));
        }
    }
}

fn warn_of_repetition(entry: &Entry<'_>) {
    let mut first_paths: HashMap<String, &str> = HashMap::new();
    for outbound in &entry.outbounds {
        let (path, dsn) = (&outbound.node.path, outbound.outbound.dsn.to_string());
        let first = *first_paths.entry(dsn).or_insert(path);
        if first != path {
            let text = format!("is {first} again: what both take it gets twice");
            outbound.node.warn(text);
        }
    }
}

//! `keys`: from the list of the file to routes.
//!
//! Every entry is read by itself first; what must hold between entries is checked afterwards, over
//! all that could be read. A target that leads back to this mirror is an error. Where SDKs use a tunnel,
//! or a host name that resolves differently inside, the inbound DSN could be that of the primary: there
//! another host has to be written into it, of which the mirror makes no use.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::node::Node;
use super::outbound::{LocatedOutbound, outbound};
use super::telemetry::is_own_address;
use super::value::dsn;
use super::{Compression, Route};
use crate::sentry::dsn::Dsn;

/// The routes that `keys` describes. Where something is wrong with them that is reported, and the
/// result lacks them. Bodies are compressed in the way `usual` for an outbound that does not say how.
/// `own` is where the mirror listens.
pub(super) fn routes(keys: &Node<'_>, usual: Compression, own: SocketAddr) -> Vec<Route> {
    let entries = keys.entries("a list of at least one route with inbound and outbound");
    let entry = |node| entry(node, usual);
    let entries: Vec<Entry<'_>> = entries.into_iter().filter_map(entry).collect();
    refuse_shared_keys(&entries);
    refuse_loops(&entries, own);
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

/// Refuses what surely leads back to this mirror, and warns of what may.
fn refuse_loops(entries: &[Entry<'_>], own: SocketAddr) {
    let inbounds: HashMap<&str, &Located<'_>> = entries
        .iter()
        .filter_map(|entry| entry.inbound.as_ref())
        .map(|inbound| (inbound.dsn.key(), inbound))
        .collect();
    for outbound in entries.iter().flat_map(|entry| &entry.outbounds) {
        let (node, dsn) = (&outbound.node, &outbound.outbound.dsn);
        let Some(inbound) = inbounds.get(dsn.key()) else {
            continue;
        };
        let path = &inbound.node.path;
        if is_own_address(dsn.origin(), own) {
            node.error(format!(
                "found the key of {path} at the address {own}, on which this mirror listens: it leads \
                 back to this mirror, expected the DSN of another server"
            ));
        } else if dsn.origin() == inbound.dsn.origin() {
            node.error(format!(
                "found the key and the host of {path}: it leads back to this mirror, expected the DSN \
                 of another server; where SDKs reach the mirror under the name of that server (a \
                 tunnel), write another host in {path}, of which only the key counts"
            ));
        } else {
            node.warn(format!(
                "has the key of {path}: if it leads to this mirror, or to another one with that key, \
                 what is sent there is refused as a loop (508)"
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

//! `keys`: the routes.
//!
//! Each entry is parsed by itself; rules between entries are then checked over all valid ones. An
//! outbound that leads back to this mirror is an error. If SDKs use a tunnel, or a host name that resolves
//! differently inside the network, the inbound DSN may look like that of the primary. The operator then
//! has to write another host in the inbound DSN, whose host the mirror does not use.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::http2;
use super::model::{Outbound, Route};
use super::name::Names;
use super::node::Node;
use super::outbound::{Defaults, Located, outbound};
use super::value;
use crate::sentry::dsn::{Dsn, Origin};

/// Parses `keys`. Invalid routes are reported and left out. `listen` is where the mirror listens.
pub(super) fn routes(
    keys: &Node<'_>,
    defaults: &Defaults<'_>,
    listen: &[SocketAddr],
) -> Vec<Route> {
    let entries = keys.required_list("a list of at least one route with inbound and outbound");
    let mut names = Names::default();
    let entry = |node| entry(node, defaults, &mut names);
    let entries: Vec<Entry<'_>> = entries.into_iter().filter_map(entry).collect();
    reject_shared_keys(&entries);
    reject_loops(&entries, listen);
    entries.iter().for_each(warn_about_duplicates);
    let outbounds = entries.iter().flat_map(|entry| &entry.outbounds);
    let outbounds = outbounds.map(|outbound| (&outbound.node, &outbound.value));
    http2::reject_mixed(outbounds, defaults.http2);
    entries.into_iter().filter_map(Entry::route).collect()
}

/// The valid parts of one entry of `keys`.
struct Entry<'a> {
    name: Option<String>,
    inbound: Option<Located<'a, Dsn>>,
    outbounds: Vec<Located<'a, Outbound>>,
}

impl Entry<'_> {
    fn route(self) -> Option<Route> {
        let outbounds = self.outbounds.into_iter();
        Some(Route {
            name: self.name,
            inbound: self.inbound?.value,
            outbounds: outbounds.map(|located| located.value).collect(),
        })
    }
}

/// `names` are those of the routes before it.
fn entry<'a>(node: Node<'a>, defaults: &Defaults<'_>, names: &mut Names) -> Option<Entry<'a>> {
    if !node.is_mapping() {
        node.reject("a mapping with inbound and outbound");
        return None;
    }
    let mut section = node.section();
    let name = names.read(&section.take("name"));
    let node = section.take("inbound");
    let inbound = dsn(&node).map(|value| Located { node, value });
    let list = section.take("outbound");
    let outbounds = list.required_list("a list of at least one DSN");
    section.finish();
    let mut names = Names::default();
    let outbound = |node| outbound(node, defaults, &mut names, dsn);
    let outbounds: Vec<_> = outbounds.into_iter().filter_map(outbound).collect();
    if !outbounds.is_empty() && outbounds.iter().all(|outbound| !outbound.value.replies) {
        list.error("found reply: never in all of them, expected one that SDKs get a reply from");
    }
    Some(Entry {
        name,
        inbound,
        outbounds,
    })
}

fn dsn(node: &Node<'_>) -> Option<Dsn> {
    let dsn = node.required(value::dsn)?;
    if !dsn.has_usual_key() {
        node.warn("the public key does not have the 32 characters that Sentry requires");
    }
    Some(dsn)
}

/// The key alone selects the route.
fn reject_shared_keys(entries: &[Entry<'_>]) {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for inbound in entries.iter().filter_map(|entry| entry.inbound.as_ref()) {
        let key = inbound.value.key();
        let owner = *owners.entry(key).or_insert(&inbound.node.path);
        if owner != inbound.node.path {
            inbound.node.error(format!(
                "has the public key of {owner}, expected a different one"
            ));
        }
    }
}

/// An outbound that certainly leads back to this mirror is an error, one that may do so a warning.
fn reject_loops(entries: &[Entry<'_>], listen: &[SocketAddr]) {
    let inbounds: HashMap<&str, &Located<'_, Dsn>> = entries
        .iter()
        .filter_map(|entry| entry.inbound.as_ref())
        .map(|inbound| (inbound.value.key(), inbound))
        .collect();
    for outbound in entries.iter().flat_map(|entry| &entry.outbounds) {
        let (node, dsn) = (&outbound.node, &outbound.value.dsn);
        let Some(inbound) = inbounds.get(dsn.key()) else {
            continue;
        };
        let path = &inbound.node.path;
        if let Some(listen) = own_address(dsn.origin(), listen) {
            node.error(format!(
                "has the key of {path} and the address of this mirror ({listen}), so that it leads back \
                 to this mirror; expected the DSN of another server"
            ));
        } else if dsn.origin() == inbound.value.origin() {
            node.error(format!(
                "has the key and the host of {path}, so that it leads back to this mirror; expected the \
                 DSN of another server. If SDKs reach the mirror by the name of that server (a tunnel), \
                 write another host in {path}: the mirror uses only its key"
            ));
        } else {
            node.warn(format!(
                "has the key of {path}: if it leads to this mirror, or to another one with that key, \
                 its requests are rejected as a loop (508)"
            ));
        }
    }
}

/// The one of the addresses `listen` at which this mirror certainly answers to `origin`.
pub(super) fn own_address<'l>(origin: &Origin, listen: &'l [SocketAddr]) -> Option<&'l SocketAddr> {
    let host: Option<IpAddr> = origin.host.parse().ok();
    let is_loopback = origin.host == "localhost" || host.is_some_and(|host| host.is_loopback());
    listen.iter().find(|listen| {
        let is_same_ip = host.is_some_and(|host| host == listen.ip());
        let accepts_loopback = listen.ip().is_unspecified() || listen.ip().is_loopback();
        origin.port == listen.port() && (is_same_ip || (is_loopback && accepts_loopback))
    })
}

fn warn_about_duplicates(entry: &Entry<'_>) {
    let mut first_paths: HashMap<String, &str> = HashMap::new();
    for outbound in &entry.outbounds {
        let (path, dsn) = (&outbound.node.path, outbound.value.dsn.to_string());
        let first = *first_paths.entry(dsn).or_insert(path);
        if first != path {
            let text =
                format!("is the same DSN as {first}: it receives twice what both of them select");
            outbound.node.warn(text);
        }
    }
}

//! The upstreams of a table: what workers share about each of them.
//!
//! An upstream that is also in the previous table keeps its state. One whose certificates or TLS settings have
//! changed keeps what was counted about it, but none of its connections.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::Upstream;
use crate::net::tls_clients::TlsClients;
use crate::upstream::origin::SharedOrigin;

/// Those of the previous table, in the same order as their states.
#[derive(Clone, Copy)]
pub(super) struct Known<'p> {
    pub(super) upstreams: &'p [Upstream],
    pub(super) shared: &'p [Arc<SharedOrigin>],
}

/// What is shared about each of `upstreams`, in the same order.
///
/// # Errors
/// A host is no name that TLS can verify.
pub(super) fn share(
    upstreams: &[Upstream],
    clients: &TlsClients,
    workers: usize,
    known: Known<'_>,
) -> Result<Vec<Arc<SharedOrigin>>, String> {
    let known: HashMap<&Upstream, &Arc<SharedOrigin>> =
        known.upstreams.iter().zip(known.shared).collect();
    let staying: HashSet<&Upstream> = upstreams.iter().collect();
    let mut names: HashSet<String> = HashSet::new();
    for (upstream, shared) in &known {
        if staying.contains(upstream) {
            names.insert(shared.name.clone());
        }
    }
    let mut replaced: HashMap<_, Vec<&Arc<SharedOrigin>>> = HashMap::new();
    for (upstream, shared) in &known {
        if !staying.contains(upstream) {
            let way = (&upstream.origin, &upstream.proxy);
            replaced.entry(way).or_default().push(shared);
        }
    }
    let mut all = Vec::new();
    for upstream in upstreams {
        let tls = upstream.tls.as_ref();
        let identity = tls.map(|tls| clients.identity(tls, &upstream.origin.host));
        let identity = identity.transpose()?;
        let shared = match (known.get(upstream), identity) {
            (Some(known), None) => Arc::clone(known),
            (Some(known), Some(identity)) if known.trusts_as(&identity) => Arc::clone(known),
            // Connections opened with other certificates are not reused.
            (Some(known), Some(identity)) => Arc::new(known.with_tls(identity)),
            (None, identity) => {
                let predecessor = replaced
                    .get_mut(&(&upstream.origin, &upstream.proxy))
                    .and_then(Vec::pop);
                let name = unused_name(&upstream.origin.to_string(), &mut names);
                Arc::new(match (predecessor, identity) {
                    (Some(known), Some(identity)) => known.with_tls(identity).named(name),
                    (_, identity) => SharedOrigin::new(workers, upstream.origin.clone(), identity)
                        .through(upstream.proxy.clone())
                        .named(name),
                })
            }
        };
        all.push(shared);
    }
    Ok(all)
}

/// `name`, with a number if another upstream has it: two at one origin may be reached in different ways.
fn unused_name(name: &str, used: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}#{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    let unused = names.find(|name| used.insert(name.clone()));
    unused.unwrap_or_default()
}

//! Counts the open connections of each client, for `limits.connections_per_peer`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// The open connections of one worker by client address. An IPv6 client can use any number of addresses, but
/// usually only one /64 network, so a /64 network counts as one client.
#[derive(Default)]
pub(super) struct Peers(RefCell<HashMap<IpAddr, usize>>);

/// One counted connection. Dropping it decrements the count.
pub(super) struct PeerSlot {
    peers: Rc<Peers>,
    client: IpAddr,
}

impl Peers {
    /// Counts a connection from `ip`. Returns `None` if the client already has `limit` connections.
    pub(super) fn acquire(self: &Rc<Peers>, ip: IpAddr, limit: usize) -> Option<PeerSlot> {
        let client = client(ip);
        let mut peers = self.0.borrow_mut();
        let open = peers.get(&client).copied().unwrap_or(0);
        if open >= limit {
            return None;
        }
        peers.insert(client, open + 1);
        Some(PeerSlot {
            peers: Rc::clone(self),
            client,
        })
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut peers = self.peers.0.borrow_mut();
        if let Entry::Occupied(mut open) = peers.entry(self.client) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

fn client(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_up_to_the_limit_of_connections_and_closed_ones_do_not_count() {
        let peers = Rc::<Peers>::default();
        let acquire = |ip: &str| peers.acquire(ip.parse().unwrap(), 2);
        let (first, second) = (acquire("192.0.2.1"), acquire("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(acquire("192.0.2.1").is_none());
        let other = acquire("192.0.2.2");
        assert!(other.is_some());
        drop(first);
        assert!(acquire("192.0.2.1").is_some());
        drop((second, other));
        assert!(peers.0.borrow().is_empty());
    }

    #[test]
    fn the_addresses_of_a_64_bit_network_count_as_one_client() {
        let peers = Rc::<Peers>::default();
        let acquire = |ip: &str| peers.acquire(ip.parse().unwrap(), 1);
        let first = acquire("2001:db8:0:1::1");
        assert!(first.is_some());
        assert!(acquire("2001:db8:0:1:ffff::2").is_none());
        assert!(acquire("2001:db8:0:2::1").is_some());
    }
}

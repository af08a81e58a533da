//! How many connections each client has open, where that is bounded.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// The clients of one worker, by address. A client of IPv6 has as many addresses as it likes, but mostly one
/// network of 64 bits: that counts as one.
#[derive(Default)]
pub(super) struct Peers(RefCell<HashMap<IpAddr, usize>>);

/// A place among the connections of a client; counts itself out when dropped.
pub(super) struct Place {
    peers: Rc<Peers>,
    client: IpAddr,
}

impl Peers {
    /// A place for a connection from `ip`; `None` where the client has `limit` already.
    pub(super) fn enter(self: &Rc<Peers>, ip: IpAddr, limit: usize) -> Option<Place> {
        let client = client(ip);
        let mut peers = self.0.borrow_mut();
        let open = peers.get(&client).copied().unwrap_or(0);
        if open >= limit {
            return None;
        }
        peers.insert(client, open + 1);
        Some(Place {
            peers: Rc::clone(self),
            client,
        })
    }
}

impl Drop for Place {
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
    fn a_client_has_as_many_places_as_the_limit_says_and_those_that_left_make_room() {
        let peers = Rc::<Peers>::default();
        let enter = |ip: &str| peers.enter(ip.parse().unwrap(), 2);
        let (first, second) = (enter("192.0.2.1"), enter("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("192.0.2.1").is_none());
        let other = enter("192.0.2.2");
        assert!(other.is_some());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        drop((second, other));
        assert!(peers.0.borrow().is_empty());
    }

    #[test]
    fn the_addresses_of_a_network_of_64_bits_are_one_client() {
        let peers = Rc::<Peers>::default();
        let enter = |ip: &str| peers.enter(ip.parse().unwrap(), 1);
        let first = enter("2001:db8:0:1::1");
        assert!(first.is_some());
        assert!(enter("2001:db8:0:1:ffff::2").is_none());
        assert!(enter("2001:db8:0:2::1").is_some());
    }
}

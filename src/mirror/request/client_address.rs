//! The address of the client that a request comes from.
//!
//! A client can write anything into the fields with addresses. Each proxy appends the address of its own peer, so the
//! fields are read from the end: as long as an address is that of a trusted proxy, the entry before it is that
//! proxy's word. The first address that is not trusted is the client's, and what stands before it counts for nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;

use crate::config::{AddressPolicy, ClientAddress};
use crate::http::forwarded::AddressField;
use crate::http::head::RequestHead;

/// What a configuration says about client addresses.
pub struct ClientAddresses {
    /// `None` if it is not configured which proxies are trusted.
    proxies: Option<TrustedProxies>,
    /// Whether the fields with addresses go to all outbounds as they came.
    pub passes_fields: bool,
    /// Whether some outbound gets the client's address.
    pub is_sent: bool,
    /// Whether the lack of the address may be an oversight: nothing is configured.
    is_by_default: bool,
    /// Whether the log has said that outbounds do not get the address. A reload keeps it.
    is_told: Arc<AtomicBool>,
}

struct TrustedProxies {
    networks: Vec<IpNet>,
    field: AddressField,
}

impl ClientAddresses {
    pub fn new(
        config: &ClientAddress,
        is_sent: bool,
        previous: Option<&ClientAddresses>,
    ) -> ClientAddresses {
        let proxies = config.trusted_proxies.as_ref();
        let proxies = proxies.map(|networks| TrustedProxies {
            networks: networks.clone(),
            field: config.field,
        });
        ClientAddresses {
            passes_fields: proxies.is_none() && config.default == AddressPolicy::Send,
            proxies,
            is_sent,
            is_by_default: !config.is_configured,
            is_told: previous.map_or_else(Arc::default, |known| Arc::clone(&known.is_told)),
        }
    }

    /// The address of the client whose request has this head, on a connection from `peer`.
    pub fn client(&self, peer: IpAddr, head: &RequestHead, buffer: &[u8]) -> IpAddr {
        match &self.proxies {
            None => peer,
            Some(proxies) => proxies.client(peer, proxies.field.entries_backwards(head, buffer)),
        }
    }

    /// Whether connections from this address carry requests of many clients.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        let proxies = self.proxies.as_ref();
        proxies.is_some_and(|proxies| proxies.trust(peer))
    }

    /// Whether to warn that a user's address is lost. `true` once.
    pub fn should_warn(&self) -> bool {
        self.is_by_default && !self.is_told.swap(true, Ordering::Relaxed)
    }
}

impl TrustedProxies {
    /// `entries` are those of the field, the last one first. One that is no address ends the search: then the
    /// trusted proxy that wrote it counts as the client. So does the first proxy if all are trusted.
    fn client(&self, peer: IpAddr, entries: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        let mut entries = entries;
        while self.trust(client) {
            match entries.next().flatten() {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }

    fn trust(&self, address: IpAddr) -> bool {
        let mut networks = self.networks.iter();
        networks.any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::http::head::{HeadLimits, Parsed};

    fn addresses(extra: &str) -> ClientAddresses {
        let text = format!(
            "keys:\n- inbound: http://{0}@m/1\n  outbound: ['http://{0}@o/2']\n{extra}",
            "a".repeat(32)
        );
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        ClientAddresses::new(&config.client_address, false, None)
    }

    fn client(addresses: &ClientAddresses, peer: &str, lines: &str) -> String {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
        let mut head = RequestHead::default();
        let parsed = head.parse(text.as_bytes(), HeadLimits::default());
        assert_eq!(parsed, Ok(Parsed::Complete), "{text}");
        let client = addresses.client(peer.parse().unwrap(), &head, text.as_bytes());
        client.to_string()
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_clients() {
        let addresses = addresses(
            "client_address: {trusted_proxies: [10.0.0.0/8, 192.0.2.7, 2001:db8:1::/48]}",
        );
        for (peer, values, expected) in [
            // The peer is not trusted, whatever it claims.
            ("203.0.113.9", &[][..], "203.0.113.9"),
            ("203.0.113.9", &["10.0.0.1"], "203.0.113.9"),
            ("2001:db8:2::1", &["198.51.100.1"], "2001:db8:2::1"),
            // A trusted peer without a field, or with an empty one.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            // A trusted peer's word counts, what the client wrote does not.
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1",
                &["unknown, <script>, 203.0.113.9"],
                "203.0.113.9",
            ),
            ("192.0.2.7", &["203.0.113.9"], "203.0.113.9"),
            ("192.0.2.8", &["203.0.113.9"], "192.0.2.8"),
            ("2001:db8:1::5", &["[2001:db8:2::9]:443"], "2001:db8:2::9"),
            (
                "2001:db8:1::5",
                &["::ffff:10.1.1.1, ::ffff:10.0.0.9"],
                "10.1.1.1",
            ),
            // A chain of trusted proxies. The client claims to be one of them.
            (
                "10.0.0.1",
                &["10.9.9.9, 203.0.113.9, 10.0.0.3, 2001:db8:1::2"],
                "203.0.113.9",
            ),
            // All are trusted: the request is from inside.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // A trusted proxy does not know its peer.
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, junk, 10.0.0.2"], "10.0.0.2"),
        ] {
            let lines: Vec<String> = values
                .iter()
                .map(|value| format!("X-Forwarded-For: {value}\r\n"))
                .collect();
            let lines = format!(
                "Forwarded: for=198.51.100.7\r\n{}X-Real-IP: 198.51.100.8",
                lines.concat()
            );
            assert_eq!(
                client(&addresses, peer, &lines),
                expected,
                "{peer} {values:?}"
            );
        }
    }

    #[test]
    fn only_the_configured_field_counts() {
        let lines =
            "X-Forwarded-For: 203.0.113.1\r\nForwarded: for=203.0.113.2\r\nX-Real-IP: 203.0.113.3";
        for (extra, expected) in [
            ("", "10.0.0.1"),
            ("forward_client_ip: true", "10.0.0.1"),
            ("client_address: {trusted_proxies: []}", "10.0.0.1"),
            (
                "client_address: {trusted_proxies: [10.0.0.1]}",
                "203.0.113.1",
            ),
            (
                "client_address: {trusted_proxies: [10.0.0.1], field: Forwarded}",
                "203.0.113.2",
            ),
            (
                "client_address: {trusted_proxies: [10.0.0.1], field: X-Real-IP}",
                "203.0.113.3",
            ),
            (
                "client_address: {trusted_proxies: [10.0.0.1], field: True-Client-IP}",
                "10.0.0.1",
            ),
            (
                "client_address: {trusted_proxies: [0.0.0.0/0]}",
                "203.0.113.1",
            ),
            ("client_address: {trusted_proxies: ['::/0']}", "10.0.0.1"),
        ] {
            assert_eq!(
                client(&addresses(extra), "10.0.0.1", lines),
                expected,
                "{extra}"
            );
        }
    }

    #[test]
    fn the_warning_comes_once_and_only_if_nothing_is_configured() {
        let first = addresses("");
        assert!(first.should_warn() && !first.should_warn());
        let config = Config::parse(
            &format!(
                "keys:\n- inbound: http://{0}@m/1\n  outbound: ['http://{0}@o/2']\n",
                "a".repeat(32)
            ),
            "test",
            std::iter::empty(),
        );
        let reloaded = ClientAddresses::new(&config.unwrap().client_address, false, Some(&first));
        assert!(!reloaded.should_warn());
        for extra in [
            "forward_client_ip: false",
            "client_address: {trusted_proxies: []}",
        ] {
            assert!(!addresses(extra).should_warn(), "{extra}");
        }
    }
}

//! `client_address`: whose word counts for the address of a client, and which outbounds are told it.
//!
//! Without `trusted_proxies` the mirror cannot tell which addresses in a header are forged. It then passes all of
//! them on or none, so outbounds of one configuration cannot differ.

use ipnet::{IpNet, Ipv4Net};
use serde_yaml::Value;

use super::model::{AddressPolicy, ClientAddress};
use super::node::{Node, Section};
use super::value::{Parsed, choice, parse_scalar};
use crate::http::forwarded::AddressField;

/// `client_address` and `forward_client_ip`.
pub(super) fn client_address(root: &mut Section<'_>) -> ClientAddress {
    let is_configured = root.has("client_address") || root.has("forward_client_ip");
    let forwards = root.value("forward_client_ip", super::value::boolean, false);
    let mut section = root.take("client_address").section();
    let is_set = section.has("trusted_proxies");
    let networks = section.take("trusted_proxies");
    let networks = networks.optional_list("a list of networks such as [10.0.0.0/8, 2001:db8::/32]");
    let trusted_proxies = networks.iter().filter_map(|node| node.required(network));
    let trusted_proxies: Vec<IpNet> = trusted_proxies.collect();
    let field = section.value(
        "field",
        choice(AddressField::NAMES),
        AddressField::XForwardedFor,
    );
    if field != AddressField::XForwardedFor && !is_set {
        section.warn(
            "field",
            "has no effect without client_address.trusted_proxies",
        );
    }
    section.finish();
    ClientAddress {
        trusted_proxies: is_set.then_some(trusted_proxies),
        field,
        default: match forwards {
            true => AddressPolicy::Send,
            false => AddressPolicy::Hide,
        },
        is_configured,
    }
}

impl ClientAddress {
    /// The setting of one outbound, if it has one.
    pub(super) fn of_outbound(&self, node: &Node<'_>) -> Option<AddressPolicy> {
        let policy = node.optional(choice(AddressPolicy::NAMES))?;
        if policy != self.default && self.trusted_proxies.is_none() {
            node.error(
                "needs client_address.trusted_proxies: expected the networks of the proxies in front of the mirror \
                 there, or [] if SDKs connect directly",
            );
        }
        Some(policy)
    }
}

/// A network such as `10.0.0.0/8`, or a single address.
pub(super) fn network(value: &Value) -> Parsed<IpNet> {
    const FORM: &str = "a network such as 10.0.0.0/8 or 2001:db8::/32, or an IP address";
    let text: String = parse_scalar(value).ok_or(FORM)?;
    if let Ok(address) = text.parse() {
        return Ok(IpNet::from(std::net::IpAddr::to_canonical(&address)));
    }
    let network = canonical(text.parse().map_err(|_| FORM)?);
    match network == network.trunc() {
        true => Ok(network),
        false => Err(format!("{FORM} ({} holds it)", network.trunc())),
    }
}

/// The IPv4 network of IPv4-mapped addresses (RFC 4291 section 2.5.5.2): peers are compared as IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(mapped) = network else {
        return network;
    };
    let address = mapped.addr().to_ipv4_mapped();
    let prefix = mapped.prefix_len().checked_sub(MAPPED_PREFIX);
    let ipv4 = address.zip(prefix);
    let ipv4 = ipv4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    ipv4.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use crate::config::{AddressPolicy, Config};

    const KEY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn parse(outbound: &str, rest: &str) -> Result<Config, String> {
        let text = format!("keys:\n- inbound: http://{KEY}@m/1\n  outbound: [{outbound}]\n{rest}");
        let config = Config::parse(&text, "c.yml", std::iter::empty());
        config.map_err(|errors| errors.to_string())
    }

    fn outbound(policy: &str) -> String {
        format!("{{dsn: 'http://{KEY}@o/2', client_address: {policy}}}")
    }

    #[test]
    fn networks_and_addresses_are_trusted() {
        let rest = "client_address: {trusted_proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7, '::ffff:192.0.2.8'], field: forwarded}";
        let errors = parse(&outbound("hide"), rest).unwrap_err();
        assert!(
            errors.contains(
                "client_address.field: found \"forwarded\", expected X-Forwarded-For, Forwarded, "
            ),
            "{errors}"
        );
        let config = parse(&outbound("hide"), &rest.replace("forwarded", "Forwarded")).unwrap();
        let text = config.effective();
        for network in [
            "10.0.0.0/8",
            "2001:db8::/32",
            "192.0.2.7/32",
            "192.0.2.8/32",
        ] {
            assert!(
                text.contains(&format!("  - {network}\n")),
                "{network} {text}"
            );
        }
        let plan = config.describe();
        assert!(
            plan.contains("client addresses: from Forwarded of 10.0.0.0/8, 2001:db8::/32, "),
            "{plan}"
        );
        assert!(
            plan.contains("@o/2 (primary) client_address hide\n"),
            "{plan}"
        );
    }

    #[test]
    fn an_ipv4_mapped_network_is_the_ipv4_network() {
        for (network, expected) in [
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:c000:207/128", "192.0.2.7/32"),
            ("::/0", "::/0"),
            ("::/96", "::/96"),
            ("64:ff9b::/96", "64:ff9b::/96"),
        ] {
            let parsed = super::network(&network.into()).unwrap();
            assert_eq!(parsed.to_string(), expected, "{network}");
        }
        for (network, holder) in [
            ("::ffff:10.1.2.3/104", "(10.0.0.0/8 holds it)"),
            ("::ffff:0:0/95", "(::fffe:0:0/95 holds it)"),
        ] {
            let error = super::network(&network.into()).unwrap_err();
            assert!(error.to_string().ends_with(holder), "{network} {error}");
        }
    }

    #[test]
    fn a_network_that_is_none_is_an_error() {
        for (network, expected) in [
            (
                "proxy.internal",
                "found \"proxy.internal\", expected a network such as 10.0.0.0/8 or 2001:db8::/32, or an IP address",
            ),
            (
                "10.0.0.0/33",
                "found \"10.0.0.0/33\", expected a network such as",
            ),
            ("10.1.2.3/8", "or an IP address (10.0.0.0/8 holds it)"),
            ("[]", "found a list, expected a network"),
        ] {
            let rest = format!("client_address: {{trusted_proxies: [{network}]}}");
            let errors = parse(&outbound("send"), &rest).unwrap_err();
            assert!(
                errors.contains("c.yml:4:36: client_address.trusted_proxies[0]: "),
                "{errors}"
            );
            assert!(errors.contains(expected), "{errors}");
        }
    }

    #[test]
    fn outbounds_differ_only_where_forged_addresses_are_known() {
        let both = format!("{}, 'http://{KEY}@o/3'", outbound("send"));
        for (outbounds, rest, is_valid) in [
            (both.as_str(), "", false),
            (both.as_str(), "forward_client_ip: false", false),
            (both.as_str(), "forward_client_ip: true", true),
            (both.as_str(), "client_address: {trusted_proxies: []}", true),
            (&outbound("hide"), "", true),
            (&outbound("hide"), "forward_client_ip: true", false),
            (
                &outbound("hide"),
                "forward_client_ip: true\nclient_address: {trusted_proxies: []}",
                true,
            ),
        ] {
            match parse(outbounds, rest) {
                Ok(_) => assert!(is_valid, "{outbounds} {rest}"),
                Err(errors) => {
                    assert!(!is_valid, "{errors}");
                    assert!(errors.contains("keys[0].outbound[0].client_address: needs client_address.trusted_proxies"), "{errors}");
                }
            }
        }
    }

    #[test]
    fn settings_are_recognized_as_such() {
        let plain = format!("'http://{KEY}@o/2'");
        for (outbounds, rest, expected) in [
            (&plain, "", false),
            (&plain, "forward_client_ip: false", true),
            (&plain, "client_address: {trusted_proxies: []}", true),
            (&outbound("hide"), "", true),
        ] {
            let config = parse(outbounds, rest).unwrap();
            assert_eq!(config.client_address.is_configured, expected, "{rest}");
            assert_eq!(config.client_address.default, AddressPolicy::Hide);
        }
        let config = parse(&plain, "client_address: {field: X-Real-IP}").unwrap();
        let warning = "c.yml:4:25: client_address.field: has no effect without client_address.trusted_proxies";
        assert_eq!(config.warnings.last().unwrap(), warning);
    }
}

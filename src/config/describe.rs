//! The routes of a configuration in plain text, for `--check`.

use std::fmt::Write;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::cap;
use super::cap_settings::Cap;
use super::http2;
use super::listen_tls;
use super::model::{AddressPolicy, Compression, Config, ListenAddress, Outbound};
use super::tls;
use super::tls_settings::Tls;
use super::value::name;
use crate::http::forwarded::AddressField;

impl Config {
    /// The listen address and the routes, on several lines. Keys are shortened, so that the text can be
    /// pasted into an issue.
    pub fn describe(&self) -> String {
        let mut text = format!("listen on {}\n", SocketAddr::new(self.ip, self.port));
        for listener in &self.listen {
            // Writing to a String cannot fail.
            let _ = write!(text, "listen on {}", listener.address);
            if let ListenAddress::Unix { mode, .. } = listener.address {
                let _ = write!(text, " (mode {mode:04o})");
            }
            if !listener.proxy_protocol.is_empty() {
                let networks = joined(&listener.proxy_protocol);
                let _ = write!(text, " with the PROXY protocol from {networks}");
            }
            if let Some(tls) = &listener.tls {
                let _ = write!(text, " {}", listen_tls::describe(tls));
            }
            text.push('\n');
        }
        if let Some(networks) = &self.client_address.trusted_proxies {
            let field = name(self.client_address.field, AddressField::NAMES);
            let of = match networks.is_empty() {
                true => "client addresses: of the connections; no proxy is trusted".to_owned(),
                false => format!("client addresses: from {field} of {}", joined(networks)),
            };
            let _ = writeln!(text, "{of}");
        }
        for route in &self.routes {
            // Writing to a String cannot fail.
            let inbound = route.inbound.shortened();
            let _ = writeln!(text, "{}{inbound}", prefix(route.name.as_deref()));
            let primary = route.outbounds.iter().find(|outbound| outbound.replies);
            for outbound in &route.outbounds {
                let is_primary = primary.is_some_and(|primary| std::ptr::eq(primary, outbound));
                let role = if is_primary { " (primary)" } else { "" };
                let _ = writeln!(
                    text,
                    "  -> {}{}{role}{}",
                    prefix(outbound.name.as_deref()),
                    outbound.dsn.shortened(),
                    options(outbound, &self.tls, &self.caps)
                );
            }
        }
        text
    }
}

/// A name in front of its DSN.
fn prefix(name: Option<&str>) -> String {
    name.map(|name| format!("{name}: ")).unwrap_or_default()
}

fn joined(networks: &[IpNet]) -> String {
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    networks.join(", ")
}

/// The options that are not at their defaults.
fn options(outbound: &Outbound, default_tls: &Tls, default_caps: &[Cap]) -> String {
    let mut text = String::new();
    if let Some(selection) = &outbound.selection {
        let _ = write!(text, " {selection}");
    }
    if outbound.copies > 1 {
        let _ = write!(text, " multiplier {}", outbound.copies);
    }
    if !outbound.caps.is_empty() || outbound.caps != default_caps {
        let _ = write!(text, " cap {}", cap::describe(&outbound.caps));
    }
    if !outbound.replies {
        text.push_str(" reply never");
    }
    if let Some(proxy) = &outbound.proxy {
        let _ = write!(text, " via {proxy}");
    }
    if outbound.tls != *default_tls {
        let _ = write!(text, " {}", tls::describe(&outbound.tls, default_tls));
    }
    if !outbound.headers.is_empty() {
        let names: Vec<&str> = outbound.headers.names().collect();
        let _ = write!(text, " headers {}", names.join(", "));
    }
    if outbound.compression != Compression::None {
        let _ = write!(
            text,
            " compression {}",
            name(outbound.compression, Compression::NAMES)
        );
    }
    if let Some(policy) = outbound.client_address {
        let policy = name(policy, AddressPolicy::NAMES);
        let _ = write!(text, " client_address {policy}");
    }
    if let Some(mode) = outbound.http2 {
        let _ = write!(text, " http2 {}", name(mode, http2::NAMES));
    }
    text
}

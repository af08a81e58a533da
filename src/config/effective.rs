//! The effective configuration: every key with its value, for the admin pages.
//!
//! It is YAML with the keys of the file, but the keys in DSNs are shortened.

use std::time::Duration;

use ipnet::IpNet;
use serde_yaml::{Mapping, Value};

use super::cap;
use super::header_list::Headers;
use super::http2;
use super::listen_tls;
use super::model::{
    AddressPolicy, Compression, Config, DriverChoice, ListenAddress, Listener, LogFormat, Outbound,
    REPLIES, ReplyPolicy, Route, Workers,
};
use super::organization::SentryApi;
use super::proxy_settings::ProxyChoice;
use super::tls;
use super::units::HumanDuration;
use super::value::name;
use crate::http::forwarded::AddressField;
use crate::limits::{BreakerLimits, Limits, PoolLimits, Timeouts};
use crate::sentry::category::CategorySet;
use crate::sentry::selection::Selection;

impl Config {
    /// Every key with its effective value, as YAML.
    pub fn effective(&self) -> String {
        // Plain values can always be serialized.
        serde_yaml::to_string(&self.document()).unwrap_or_default()
    }

    pub(super) fn document(&self) -> Mapping {
        let report = self.self_report.as_ref();
        entries([
            ("ip", self.ip.to_string().into()),
            ("port", self.port.into()),
            ("listen", self.listen_value()),
            ("reuse_port", self.reuse_port.into()),
            ("keys", Value::Sequence(self.keys())),
            ("workers", self.workers_value()),
            ("driver", name(self.driver, DriverChoice::NAMES).into()),
            (
                "reply_policy",
                name(self.reply_policy, ReplyPolicy::NAMES).into(),
            ),
            ("reply_timeout", duration(self.reply_timeout)),
            (
                "forward_client_ip",
                (self.client_address.default == AddressPolicy::Send).into(),
            ),
            ("client_address", self.client_address_value()),
            ("external_url", optional(self.external_url.clone())),
            ("modify_envelope", self.modify_envelope.into()),
            ("headers", headers(&self.headers)),
            ("tls", Value::Mapping(tls::effective(&self.tls))),
            ("http2", name(self.http2, http2::NAMES).into()),
            ("cap", cap::effective(&self.caps)),
            ("proxy", self.proxy_value()),
            ("admin", self.admin_value()),
            (
                "access_log",
                self.access_log.map_or("off", log_format).into(),
            ),
            ("log_filter", self.log.filter.clone().into()),
            ("log_format", log_format(self.log.format).into()),
            ("limits", limits(&self.limits)),
            ("timeouts", timeouts(&self.limits.timeouts)),
            ("pool", pool(&self.limits.pool)),
            ("breaker", breaker(&self.limits.breaker)),
            (
                "dns",
                mapping([("refresh", duration(self.limits.dns_refresh))]),
            ),
            (
                "state_file",
                optional(
                    self.state_file
                        .as_ref()
                        .map(|path| path.display().to_string()),
                ),
            ),
            (
                "sentry_dsn",
                optional(report.map(|report| report.dsn.shortened())),
            ),
            (
                "sentry_env",
                optional(report.and_then(|report| report.environment.clone())),
            ),
            ("statsd_addr", self.statsd_address()),
            ("default_metrics_tags", self.tags()),
            ("item_metrics", self.item_metrics.into()),
        ])
    }

    fn keys(&self) -> Vec<Value> {
        let route = |route: &Route| {
            let outbounds = route.outbounds.iter();
            let outbounds = outbounds.map(|one| outbound(one, self));
            mapping([
                ("name", optional(route.name.clone())),
                ("inbound", route.inbound.shortened().into()),
                ("outbound", Value::Sequence(outbounds.collect())),
            ])
        };
        self.routes.iter().map(route).collect()
    }

    fn workers_value(&self) -> Value {
        match self.workers {
            Workers::Auto => "auto".into(),
            Workers::Count(count) => count.get().into(),
        }
    }

    fn listen_value(&self) -> Value {
        let listener = |listener: &Listener| {
            let address = Value::from(listener.address.to_string());
            let mut members = entries([("address", address)]);
            if let ListenAddress::Unix { mode, .. } = listener.address {
                members.insert("mode".into(), format!("{mode:04o}").into());
            }
            if !listener.proxy_protocol.is_empty() {
                let networks = networks(&listener.proxy_protocol);
                members.insert("proxy_protocol".into(), networks);
            }
            if let Some(tls) = &listener.tls {
                members.insert("tls".into(), listen_tls::effective(tls).into());
            }
            Value::Mapping(members)
        };
        Value::Sequence(self.listen.iter().map(listener).collect())
    }

    fn client_address_value(&self) -> Value {
        let proxies = self.client_address.trusted_proxies.as_ref();
        let proxies = proxies.map_or(Value::Null, |proxies| networks(proxies));
        mapping([
            ("trusted_proxies", proxies),
            (
                "field",
                name(self.client_address.field, AddressField::NAMES).into(),
            ),
        ])
    }

    fn proxy_value(&self) -> Value {
        match &self.proxy {
            ProxyChoice::Environment => Value::Null,
            ProxyChoice::None => "none".into(),
            ProxyChoice::Proxy(proxy) => proxy.to_string().into(),
        }
    }

    fn admin_value(&self) -> Value {
        match self.admin {
            None => "off".into(),
            Some(address) => mapping([
                ("ip", address.ip().to_string().into()),
                ("port", address.port().into()),
            ]),
        }
    }

    fn statsd_address(&self) -> Value {
        let target = self.statsd.as_ref();
        optional(target.map(|target| target.server.to_string()))
    }

    fn tags(&self) -> Value {
        let tags = self.statsd.iter().flat_map(|target| &target.tags);
        let tags = tags.map(|(name, tag)| (Value::from(name.as_str()), Value::from(tag.as_str())));
        Value::Mapping(tags.collect())
    }
}

fn networks(networks: &[IpNet]) -> Value {
    let networks = networks.iter().map(|network| network.to_string().into());
    Value::Sequence(networks.collect())
}

/// A DSN, or a mapping if an option is not at its default.
fn outbound(outbound: &Outbound, config: &Config) -> Value {
    let dsn = Value::from(outbound.dsn.shortened());
    let is_whole = outbound.selection.is_none() && outbound.copies == 1;
    let is_plain = is_whole
        && outbound.replies
        && outbound.name.is_none()
        && outbound.headers == config.headers
        && outbound.tls == config.tls
        && outbound.proxy.as_ref() == config.proxy.as_proxy()
        && outbound.client_address.is_none()
        && outbound.sentry_api.is_none()
        && outbound.caps == config.caps
        && outbound.http2.is_none();
    if is_plain && outbound.compression == Compression::None {
        return dsn;
    }
    let policy = outbound.client_address;
    let selection = outbound.selection.as_ref();
    let categories = selection.and_then(Selection::categories);
    let names = categories.into_iter().flat_map(CategorySet::iter);
    let names = names.map(|category| category.name().into()).collect();
    let rate = match selection.map(|selection| (selection, selection.uniform_rate())) {
        None => 1.into(),
        Some((_, Some(rate))) => rate.into(),
        Some((selection, None)) => {
            let rates = selection.sampled();
            let rates = rates.map(|(category, rate)| (category.name().into(), rate.into()));
            Value::Mapping(rates.collect())
        }
    };
    mapping([
        ("name", optional(outbound.name.clone())),
        ("dsn", dsn),
        ("categories", Value::Sequence(names)),
        ("sample_rate", rate),
        ("multiplier", outbound.copies.into()),
        (
            "compression",
            name(outbound.compression, Compression::NAMES).into(),
        ),
        ("reply", name(outbound.replies, REPLIES).into()),
        ("headers", headers(&outbound.headers)),
        ("tls", Value::Mapping(tls::effective(&outbound.tls))),
        (
            "proxy",
            outbound
                .proxy
                .as_ref()
                .map_or("none".into(), |proxy| proxy.to_string().into()),
        ),
        (
            "client_address",
            optional(policy.map(|policy| name(policy, AddressPolicy::NAMES).to_owned())),
        ),
        (
            "http2",
            optional(
                outbound
                    .http2
                    .map(|mode| name(mode, http2::NAMES).to_owned()),
            ),
        ),
        ("cap", cap::effective(&outbound.caps)),
        ("sentry_api", sentry_api(outbound.sentry_api.as_ref())),
    ])
}

/// Without the token, which is secret.
fn sentry_api(api: Option<&SentryApi>) -> Value {
    api.map_or(Value::Null, |api| {
        mapping([
            ("organization", api.organization.clone().into()),
            ("url", api.url().into()),
        ])
    })
}

/// The values may be secret.
fn headers(headers: &Headers) -> Value {
    let names = headers.names();
    Value::Mapping(names.map(|name| (name.into(), "…".into())).collect())
}

fn limits(limits: &Limits) -> Value {
    mapping([
        ("head_bytes", limits.head.bytes.into()),
        ("header_count", limits.head.headers.into()),
        ("body_bytes", limits.body_bytes.into()),
        ("decoded_bytes", limits.decoded_bytes.into()),
        ("envelope_header_bytes", limits.envelope_header_bytes.into()),
        ("decoded_ratio", limits.decoded_ratio.into()),
        ("response_bytes", limits.response_bytes.into()),
        ("connections", limits.connections.into()),
        (
            "connections_per_peer",
            limits
                .connections_per_peer
                .map_or("off".into(), Value::from),
        ),
        ("tls_handshakes", limits.tls_handshakes.into()),
        ("memory_bytes", limits.memory_bytes.into()),
        ("in_flight", limits.in_flight.into()),
    ])
}

fn timeouts(timeouts: &Timeouts) -> Value {
    mapping([
        ("head", duration(timeouts.head)),
        ("body", duration(timeouts.body)),
        ("idle", duration(timeouts.idle)),
        ("write", duration(timeouts.write)),
        ("connect", duration(timeouts.connect)),
        ("exchange", duration(timeouts.exchange)),
        ("drain", duration(timeouts.drain)),
    ])
}

fn pool(pool: &PoolLimits) -> Value {
    mapping([
        ("idle_connections", pool.idle_connections.into()),
        ("idle_timeout", duration(pool.idle_timeout)),
        ("max_age", duration(pool.max_age)),
    ])
}

fn breaker(breaker: &BreakerLimits) -> Value {
    mapping([
        ("failures", breaker.failures.into()),
        ("pause", duration(breaker.pause)),
        ("pause_max", duration(breaker.pause_max)),
    ])
}

fn log_format(format: LogFormat) -> &'static str {
    name(format, LogFormat::NAMES)
}

fn duration(duration: Duration) -> Value {
    HumanDuration(duration).to_string().into()
}

fn optional(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::String)
}

fn mapping<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Mapping(entries(members))
}

fn entries<const N: usize>(members: [(&str, Value); N]) -> Mapping {
    let members = members.into_iter();
    members
        .map(|(key, value)| (Value::from(key), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An alias of another key, and a key without effect.
    const NOT_SHOWN: [&str; 2] = ["verbose", "traces_sample_rate"];

    fn keys(value: &Value, prefix: &str, found: &mut Vec<String>) {
        for (key, value) in value.as_mapping().unwrap() {
            let path = format!("{prefix}{}", key.as_str().unwrap());
            if value.is_mapping() {
                keys(value, &format!("{path}."), found);
            }
            found.push(path);
        }
    }

    #[test]
    fn every_key_is_shown_but_no_key_of_a_dsn() {
        let example = include_str!("../../config.example.yml");
        let config = Config::parse(example, "example", std::iter::empty()).unwrap();
        let text = config.effective();
        let (mut expected, mut shown) = (Vec::new(), Vec::new());
        keys(&serde_yaml::from_str(example).unwrap(), "", &mut expected);
        keys(&serde_yaml::from_str(&text).unwrap(), "", &mut shown);
        expected.retain(|key| !NOT_SHOWN.contains(&key.as_str()));
        expected.sort();
        shown.sort();
        assert_eq!(shown, expected);
        assert!(text.contains("1111…@mirror.example.com"), "{text}");
        assert!(!text.contains("11111"), "{text}");
    }

    #[test]
    fn the_effective_configuration_parses_to_the_same_values() {
        let example = include_str!("../../config.example.yml");
        let config = Config::parse(example, "example", std::iter::empty()).unwrap();
        let mut document: Value = serde_yaml::from_str(&config.effective()).unwrap();
        let original: Value = serde_yaml::from_str(example).unwrap();
        document["keys"] = original["keys"].clone();
        let text = serde_yaml::to_string(&document).unwrap();
        // The effective memory budget is a number, even if it was derived.
        let expected = Config {
            is_memory_configured: true,
            ..config
        };
        assert_eq!(
            Config::parse(&text, "effective", std::iter::empty()).unwrap(),
            expected
        );
    }

    #[test]
    fn an_outbound_without_the_default_headers_is_no_plain_dsn() {
        let (inbound, outbound) = ("http://aa@m/1", "https://bb@a/2");
        let shown = |headers: &str| {
            let text = format!(
                "headers: {{X-Mark: mirror}}\nport: 1\nkeys: [{{inbound: '{inbound}', \
                 outbound: [{{dsn: '{outbound}'{headers}}}]}}]"
            );
            let config = Config::parse(&text, "config", std::iter::empty()).unwrap();
            let shown: Value = serde_yaml::from_str(&config.effective()).unwrap();
            shown["keys"][0]["outbound"][0].clone()
        };
        assert!(shown("").is_string());
        let without = shown(", headers: {X-Mark: null}");
        assert_eq!(without["headers"], Value::Mapping(Mapping::new()));
    }
}

//! The keys for the mirror's own telemetry: `admin`, `access_log`, StatsD, and error reports.
//!
//! A `sentry_dsn` that leads back to this mirror is an error: each report that cannot be delivered could
//! cause another. The configuration does not show every way back, such as another name of this host.
//! These are harmless without an inbound key, because the mirror accepts nothing without one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_yaml::Value;

use super::model::{LogFormat, Route, SelfReport, StatsdServer, StatsdTarget};
use super::node::Section;
use super::routes::own_address;
use super::value::{Parsed, choice, dsn, ip_address, number, parse_scalar, text};

/// By default the admin pages are served only to this host, because they show details of other systems.
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);

/// `admin`: `off` or an address. `listen` are the addresses for SDKs; if one has the default port of `admin`
/// and `admin` is not set, there are no admin pages.
pub(super) fn admin(root: &mut Section<'_>, listen: &[SocketAddr]) -> Option<SocketAddr> {
    let node = root.take("admin");
    if node.is("off") || node.is("false") {
        return None;
    }
    if !node.is_absent() && !node.is_mapping() {
        node.reject("off, or a mapping with ip and port");
        return None;
    }
    let is_default = node.is_absent();
    let mut section = node.section();
    let address = SocketAddr::new(
        section.value("ip", ip_address, ADMIN_DEFAULT.ip()),
        section.value("port", number(0..=u16::MAX), ADMIN_DEFAULT.port()),
    );
    let taken_by = listen.iter().position(|listen| {
        let is_same_ip = address.ip() == listen.ip()
            || address.ip().is_unspecified()
            || listen.ip().is_unspecified();
        address.port() == listen.port() && address.port() != 0 && is_same_ip
    });
    if let Some(listener) = taken_by.filter(|_| is_default) {
        root.warn(
            if listener == 0 { "port" } else { "listen" },
            "is the default of admin.port, so that metrics and the status page are off; set admin.port to another port to serve them",
        );
        return None;
    }
    if let Some(listener) = taken_by {
        let key = if listener == 0 {
            "port"
        } else {
            "that of a listener"
        };
        let text = format!(
            "is the same as {key}, where SDKs connect; expected another port, or admin: off"
        );
        section.error("port", &text);
    }
    section.finish();
    Some(address)
}

pub(super) fn access_log(root: &mut Section<'_>) -> Option<LogFormat> {
    let [text, json] = LogFormat::NAMES.map(|(name, format)| (name, Some(format)));
    root.value("access_log", choice([("off", None), text, json]), None)
}

/// `statsd_addr` and `default_metrics_tags`.
pub(super) fn statsd(root: &mut Section<'_>) -> Option<StatsdTarget> {
    let address = root.take("statsd_addr").optional(statsd_addr);
    let tags = root.value("default_metrics_tags", metrics_tags, BTreeMap::new());
    Some(StatsdTarget {
        server: address?,
        tags,
    })
}

/// `sentry_dsn` and `sentry_env`.
pub(super) fn self_report(
    root: &mut Section<'_>,
    routes: &[Route],
    listen: &[SocketAddr],
) -> Option<SelfReport> {
    let environment = root.take("sentry_env").optional(text);
    let node = root.take("sentry_dsn");
    let dsn = node.optional(dsn)?;
    let is_inbound_key = routes.iter().any(|route| route.inbound.key() == dsn.key());
    if is_inbound_key || own_address(dsn.origin(), listen).is_some() {
        node.error("leads back to this mirror, expected a DSN that does not depend on it");
    }
    Some(SelfReport { dsn, environment })
}

/// The keys of getsentry/sentry-mirror that have no effect here.
pub(super) fn ignored_keys(root: &mut Section<'_>) {
    let node = root.take("traces_sample_rate");
    if node.optional(number(0.0..=1.0)).is_some() {
        node.warn("has no effect: the mirror reports only errors to sentry_dsn, no traces");
    }
}

/// `HOST:PORT`, with an IPv6 address in brackets, or `unix:` and an absolute path.
fn statsd_addr(value: &Value) -> Parsed<StatsdServer> {
    let text = value.as_str().unwrap_or_default();
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        return match path.is_absolute() {
            true => Ok(StatsdServer::Unix(path)),
            false => Err("an absolute path after unix:".to_owned()),
        };
    }
    let read = text.rsplit_once(':').and_then(|(host, port)| {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        let port = port.parse().ok()?;
        (!host.is_empty()).then_some(StatsdServer::Udp { host, port })
    });
    read.ok_or_else(|| "an address of the form HOST:PORT".to_owned())
}

fn metrics_tags(value: &Value) -> Parsed<BTreeMap<String, String>> {
    let read = value.as_mapping().and_then(|tags| {
        let tag = |(name, tag)| Some((parse_scalar::<String>(name)?, parse_scalar::<String>(tag)?));
        tags.iter().map(tag).collect()
    });
    read.ok_or_else(|| "a mapping from tag names to text".to_owned())
}

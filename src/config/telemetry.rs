//! The keys about what the mirror tells of itself: `admin`, `access_log`, `statsd_addr` and its tags, and
//! `sentry_dsn`.
//!
//! A DSN for reports that leads back into this mirror is refused: each report that fails to be delivered
//! could make another. What cannot be known from the configuration alone, such as another name of this
//! host, is harmless without one of the inbound keys, since the mirror takes nothing without.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_yaml::Value;

use super::node::Section;
use super::schema::ip;
use super::value::{Read, choice, dsn, number, parse, text};
use super::{Config, LogFormat, SelfReport, StatsdTarget};
use crate::sentry::dsn::{Dsn, Origin};

/// Where the admin pages are served. They tell about other people's systems, so by default only to this
/// host.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);

/// `admin`: `off`, or where to listen besides `public`. A configuration that has `port` on our default,
/// and never heard of `admin`, goes without.
pub(super) fn admin(root: &mut Section<'_>, public: SocketAddr) -> Option<SocketAddr> {
    let node = root.take("admin");
    if node.is("off") || node.is("false") {
        return None;
    }
    if !node.is_absent() && !node.is_mapping() {
        node.refuse("off, or a mapping with ip and port");
        return None;
    }
    let is_default = node.is_absent();
    let mut section = node.section();
    let address = SocketAddr::new(
        section.value("ip", ip, ADMIN.ip()),
        section.value("port", number(0..=u16::MAX), ADMIN.port()),
    );
    let is_same_ip = address.ip() == public.ip()
        || address.ip().is_unspecified()
        || public.ip().is_unspecified();
    let is_taken = address.port() == public.port() && address.port() != 0 && is_same_ip;
    if is_taken && is_default {
        root.warn(
            "port",
            "is where metrics and the status page are by default; there are none, unless admin.port is another",
        );
        return None;
    }
    if is_taken {
        section.error(
            "port",
            "is the value of port, where SDKs are received; expected another, or admin: off",
        );
    }
    section.finish();
    Some(address)
}

/// `access_log`: `off`, or the form of a line.
pub(super) fn access_log(root: &mut Section<'_>) -> Option<LogFormat> {
    let forms = choice([
        ("off", None),
        ("text", Some(LogFormat::Text)),
        ("json", Some(LogFormat::Json)),
    ]);
    root.value("access_log", forms, None)
}

/// `statsd_addr` and `default_metrics_tags`.
pub(super) fn statsd(root: &mut Section<'_>) -> Option<StatsdTarget> {
    let address = root.take("statsd_addr").optional(statsd_addr);
    let tags = root.value("default_metrics_tags", metrics_tags, BTreeMap::new());
    let (host, port) = address?;
    Some(StatsdTarget { host, port, tags })
}

/// `sentry_dsn` and `sentry_env`; `config` says what this mirror is.
pub(super) fn self_report(root: &mut Section<'_>, config: &Config) -> Option<SelfReport> {
    let environment = root.take("sentry_env").optional(text);
    let node = root.take("sentry_dsn");
    let dsn = node.optional(dsn)?;
    if leads_back(&dsn, config) {
        node.error(
            "leads back to this mirror, expected the DSN of a project that does not depend on it",
        );
    }
    Some(SelfReport { dsn, environment })
}

/// The keys of the prior art that mean nothing here.
pub(super) fn without_effect(root: &mut Section<'_>) {
    let node = root.take("traces_sample_rate");
    if node.optional(number(0.0..=1.0)).is_some() {
        node.warn("has no effect: the mirror reports its errors to sentry_dsn, and no traces");
    }
}

fn leads_back(dsn: &Dsn, config: &Config) -> bool {
    let mut inbounds = config.routes.iter().map(|route| &route.inbound);
    inbounds.any(|inbound| inbound.key() == dsn.key())
        || is_own_address(dsn.origin(), SocketAddr::new(config.ip, config.port))
}

/// Whether `origin` is surely where a mirror listens that listens on `own`.
pub(super) fn is_own_address(origin: &Origin, own: SocketAddr) -> bool {
    let host: Option<IpAddr> = origin.host.parse().ok();
    let is_own_ip = host.is_some_and(|host| host == own.ip());
    let is_loopback = origin.host == "localhost" || host.is_some_and(|host| host.is_loopback());
    let hears_loopback = own.ip().is_unspecified() || own.ip().is_loopback();
    origin.port == own.port() && (is_own_ip || (is_loopback && hears_loopback))
}

/// A host and a port; an IPv6 address stands in brackets.
fn statsd_addr(value: &Value) -> Read<(String, u16)> {
    let address = value.as_str().and_then(|text| text.rsplit_once(':'));
    let read = address.and_then(|(host, port)| {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let port = port.parse().ok()?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    });
    read.ok_or_else(|| "an address of the form HOST:PORT".to_owned())
}

fn metrics_tags(value: &Value) -> Read<BTreeMap<String, String>> {
    let read = value.as_mapping().and_then(|tags| {
        let tag = |(name, tag)| Some((parse::<String>(name)?, parse::<String>(tag)?));
        tags.iter().map(tag).collect()
    });
    read.ok_or_else(|| "a mapping of tag names to texts".to_owned())
}

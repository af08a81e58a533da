//! The top-level keys: their types, ranges and defaults.
//!
//! An invalid value is reported and replaced by its default, so that parsing continues. A key of
//! getsentry/sentry-mirror that has no effect here is accepted with a warning.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::Value;
use tracing_subscriber::filter::Targets;

use super::cap::caps;
use super::client_address::client_address;
use super::diagnostics::Diagnostics;
use super::header_list::Headers;
use super::headers::headers;
use super::http2;
use super::limits::{HOUR, MILLISECOND, limits};
use super::listen::listeners;
use super::model::{
    Compression, Config, DriverChoice, ListenAddress, Listener, Log, LogFormat, ReplyPolicy,
    Workers,
};
use super::node::{Node, Section};
use super::outbound::Defaults;
use super::proxy::{EnvironmentProxies, ProxyDefault, proxy};
use super::proxy_settings::ProxyChoice;
use super::routes::routes;
use super::telemetry;
use super::tls::tls;
use super::tls_settings::Tls;
use super::value::{Parsed, boolean, choice, duration, ip_address, number, text};

/// The configuration in `document`. Valid only if `diagnostics` gets no error.
pub(super) fn config(
    document: &Value,
    environment: &EnvironmentProxies,
    diagnostics: &Diagnostics,
) -> Config {
    let driver = choice(DriverChoice::NAMES);
    let reply_policy = choice(ReplyPolicy::NAMES);
    let reply_timeout = duration(MILLISECOND..=HOUR);
    let mut root = Node::root(document, diagnostics).section();
    let modify_envelope = modify_envelope(&mut root);
    // A body that is not modified need not be decoded.
    let compression = match modify_envelope {
        true => Compression::None,
        false => Compression::Preserve,
    };
    let mut defaults = Defaults {
        compression,
        headers: headers(&root.take("headers"), &Headers::default()),
        tls: tls(root.take("tls"), &Tls::default()),
        proxy: ProxyDefault {
            choice: proxy(&root.take("proxy"), &ProxyChoice::Environment),
            environment,
        },
        client_address: client_address(&mut root),
        http2: http2::default(&mut root),
        caps: caps(&root.take("cap"), &[]),
    };
    let listen = listen_address(&mut root);
    let extra = listeners(&root.take("listen"), listen);
    let own = own_addresses(listen, &extra);
    let (limits, is_memory_configured) = limits(&mut root);
    let routes = routes(&root.take("keys"), &defaults, &own);
    let mut outbounds = routes.iter().flat_map(|route| &route.outbounds);
    let is_set_for_some = outbounds.any(|outbound| outbound.client_address.is_some());
    defaults.client_address.is_configured |= is_set_for_some;
    let config = Config {
        ip: listen.ip(),
        port: listen.port(),
        listen: extra,
        reuse_port: root.value("reuse_port", boolean, false),
        workers: root.value("workers", workers, Workers::Auto),
        driver: root.value("driver", driver, DriverChoice::Auto),
        reply_policy: root.value("reply_policy", reply_policy, ReplyPolicy::FirstSuccess),
        reply_timeout: root.value("reply_timeout", reply_timeout, Duration::from_millis(1500)),
        modify_envelope,
        client_address: defaults.client_address,
        external_url: root.take("external_url").optional(external_url),
        headers: defaults.headers,
        tls: defaults.tls,
        http2: defaults.http2,
        caps: defaults.caps,
        proxy: defaults.proxy.choice,
        log: log(&mut root),
        limits,
        is_memory_configured,
        admin: telemetry::admin(&mut root, &own),
        admin_is_default: !root.has("admin"),
        access_log: telemetry::access_log(&mut root),
        statsd: telemetry::statsd(&mut root),
        item_metrics: root.value("item_metrics", boolean, true),
        state_file: root.take("state_file").optional(text).map(PathBuf::from),
        self_report: telemetry::self_report(&mut root, &routes, &own),
        routes,
        warnings: Vec::new(),
    };
    if root.has("reply_timeout") && config.reply_timeout > config.limits.timeouts.exchange {
        root.error(
            "reply_timeout",
            "is longer than timeouts.exchange, which ends each delivery; expected at most that",
        );
    }
    if config.state_file.is_some() && (config.admin.is_none() || !config.item_metrics) {
        let text = "has no effect without admin and item_metrics, whose counts it keeps";
        root.warn("state_file", text);
    }
    telemetry::ignored_keys(&mut root);
    root.finish();
    config
}

/// The addresses with a port: the first of `ip` and `port`, the others of `listen`.
fn own_addresses(first: SocketAddr, others: &[Listener]) -> Vec<SocketAddr> {
    let others = others.iter().filter_map(|listener| match listener.address {
        ListenAddress::Inet(address) => Some(address),
        ListenAddress::Unix { .. } => None,
    });
    std::iter::once(first).chain(others).collect()
}

/// `ip` and `port`.
pub(super) fn listen_address(root: &mut Section<'_>) -> SocketAddr {
    SocketAddr::new(
        root.value("ip", ip_address, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        root.value("port", number(0..=u16::MAX), 3000),
    )
}

/// Scheme, host and optional path. Paths are appended to it, so a slash at the end is removed.
fn external_url(value: &Value) -> Parsed<String> {
    const FORM: &str = "a URL of the form https://HOST, without user, query or fragment";
    let url = text(value).map_err(|_| FORM)?;
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    // A password would be of no use, and stand in the log and in replies.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !br#""'<>?#@\"#.contains(&byte);
    match rest {
        Some(rest) if !rest.starts_with('/') && !rest.is_empty() && rest.bytes().all(is_plain) => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        Some(_) | None => Err(FORM.to_owned()),
    }
}

fn workers(value: &Value) -> Parsed<Workers> {
    if value == "auto" {
        return Ok(Workers::Auto);
    }
    let count = number(1..=1024)(value).map_err(|expected| format!("auto or {expected}"))?;
    Ok(NonZeroUsize::new(count).map_or(Workers::Auto, Workers::Count))
}

/// `verbose` means the filter `debug` and overrides `log_filter`, as on the command line.
fn log(root: &mut Section<'_>) -> Log {
    let filter = root.value("log_filter", log_filter, "info".to_owned());
    let verbose = root.value("verbose", boolean, false);
    Log {
        filter: if verbose { "debug".to_owned() } else { filter },
        format: root.value("log_format", choice(LogFormat::NAMES), LogFormat::Text),
    }
}

/// A log filter, parsed here so that setting up the log cannot fail.
fn log_filter(value: &Value) -> Parsed<String> {
    const FORM: &str = "log directives such as info or warn,sentry_mirror=debug";
    let filter = text(value).map_err(|_| FORM)?;
    match filter.parse::<Targets>() {
        Ok(_) => Ok(filter),
        Err(error) => Err(format!("{FORM} ({error})")),
    }
}

/// A key of getsentry/sentry-mirror, and its old name there.
fn modify_envelope(root: &mut Section<'_>) -> bool {
    let by_name = root.value("modify_envelope", boolean, true);
    let by_old_name = root.value("modify_envelope_header", boolean, true);
    by_name && by_old_name
}

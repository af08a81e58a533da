//! The differences between two configurations, in words for the log.

use std::collections::HashMap;
use std::fmt::Write;

use serde_yaml::{Mapping, Value};

use super::header_list::Headers;
use super::key_path;
use super::model::{Config, Outbound, Route};
use super::tls_settings::Tls;

/// The keys that take effect only after a restart.
const NEEDS_RESTART: [&str; 15] = [
    "ip",
    "port",
    "listen",
    "reuse_port",
    "workers",
    "driver",
    "admin",
    "access_log",
    "log_filter",
    "log_format",
    "statsd_addr",
    "default_metrics_tags",
    "state_file",
    "sentry_dsn",
    "sentry_env",
];

impl Config {
    /// The configuration after a reload: the values of [`NEEDS_RESTART`] stay, all others come from `new`.
    pub(crate) fn after_reload(&self, new: &Config) -> Config {
        let own = self.clone();
        Config {
            ip: own.ip,
            port: own.port,
            listen: own.listen,
            reuse_port: own.reuse_port,
            workers: own.workers,
            driver: own.driver,
            admin: own.admin,
            access_log: own.access_log,
            log: own.log,
            statsd: own.statsd,
            state_file: own.state_file,
            self_report: own.self_report,
            ..new.clone()
        }
    }
}

/// How many changes are listed; the rest are counted.
const LISTED_MAX: usize = 20;

/// The differences between the running configuration and a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a reload applies, one entry per route, and per key with both values.
    pub applied: Vec<String>,
    /// The changed keys that take effect only after a restart.
    pub needs_restart: Vec<String>,
}

impl Changes {
    /// Keys in DSNs are shortened.
    pub fn between(old: &Config, new: &Config) -> Changes {
        let mut changes = Changes::default();
        let (mut old_routes, mut new_routes) = (own_options(old), own_options(new));
        if old.proxy != new.proxy {
            leave_out_default_proxy(&mut old_routes, old);
            leave_out_default_proxy(&mut new_routes, new);
        }
        diff_routes(&old_routes, &new_routes, &mut changes.applied);
        // The texts show no values and may be equal.
        if old.headers != new.headers {
            changes.applied.push("headers changed".to_owned());
        }
        let (before, after) = (settings(old), settings(new));
        if old.proxy != new.proxy && before.get("proxy") == after.get("proxy") {
            changes
                .applied
                .push("the credentials of proxy changed".to_owned());
        }
        for (key, new_value) in &after {
            let name = key.as_str().unwrap_or_default();
            let old_value = before.get(key).unwrap_or(&Value::Null);
            if NEEDS_RESTART.contains(&name) {
                // The texts show a shortened key and may be equal although the DSNs differ.
                let is_other_dsn = name == "sentry_dsn"
                    && old.self_report.as_ref().map(|report| &report.dsn)
                        != new.self_report.as_ref().map(|report| &report.dsn);
                if old_value != new_value || is_other_dsn {
                    changes.needs_restart.push(name.to_owned());
                }
            } else if name != "headers" {
                diff_values(name, old_value, new_value, &mut changes.applied);
            }
        }
        changes
    }

    /// The applied changes in one line.
    pub fn summary(&self) -> String {
        let mut text = self
            .applied
            .iter()
            .take(LISTED_MAX)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ");
        let more = self.applied.len().saturating_sub(LISTED_MAX);
        if more > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; and {more} more changes");
        }
        text
    }
}

/// The routes, of which outbounds that have the defaults of the top do not change with these.
fn own_options(config: &Config) -> Vec<Route> {
    let mut routes = config.routes.clone();
    for outbound in routes.iter_mut().flat_map(|route| &mut route.outbounds) {
        if outbound.tls == config.tls {
            outbound.tls = Tls::default();
        }
        if outbound.headers == config.headers {
            outbound.headers = Headers::default();
        }
        if outbound.caps == config.caps {
            outbound.caps.clear();
        }
    }
    routes
}

/// Outbounds that have the proxy of the top do not change with it.
fn leave_out_default_proxy(routes: &mut [Route], config: &Config) {
    for outbound in routes.iter_mut().flat_map(|route| &mut route.outbounds) {
        if outbound.proxy.as_ref() == config.proxy.as_proxy() {
            outbound.proxy = None;
        }
    }
}

/// All keys but `keys`.
fn settings(config: &Config) -> Mapping {
    let mut settings = config.document();
    settings.remove("keys");
    settings
}

/// Adds the differences between two values at `path`.
fn diff_values(path: &str, before: &Value, after: &Value, changes: &mut Vec<String>) {
    if let (Value::Mapping(before), Value::Mapping(after)) = (before, after) {
        for (key, after) in after {
            let before = before.get(key).unwrap_or(&Value::Null);
            let path = key_path::member(path, key.as_str().unwrap_or_default());
            diff_values(&path, before, after, changes);
        }
    } else if before != after {
        changes.push(format!(
            "{path} {} -> {}",
            describe(before),
            describe(after)
        ));
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Sequence(values) => {
            let values: Vec<String> = values.iter().map(describe).collect();
            format!("[{}]", values.join(", "))
        }
        other => serde_yaml::to_string(other)
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
    }
}

/// Adds the routes that were added, changed or removed.
fn diff_routes(before: &[Route], after: &[Route], changes: &mut Vec<String>) {
    let by_key = |routes: &'_ [Route]| -> HashMap<String, usize> {
        let keys = routes.iter().map(|route| route.inbound.key().to_owned());
        keys.zip(0..).collect()
    };
    let (old_keys, new_keys) = (by_key(before), by_key(after));
    let count = changes.len();
    for route in after {
        let name = route.display_name();
        match old_keys
            .get(route.inbound.key())
            .and_then(|i| before.get(*i))
        {
            None => changes.push(format!("route {name} added")),
            Some(old) if old != route => {
                changes.push(format!("route {name}: {}", diff_route(old, route)))
            }
            Some(_) => {}
        }
    }
    let removed = before
        .iter()
        .filter(|route| !new_keys.contains_key(route.inbound.key()));
    changes.extend(removed.map(|route| format!("route {} removed", route.display_name())));
    if changes.len() == count && before != after {
        changes.push("order of routes changed".to_owned());
    }
}

/// Describes how a route differs.
fn diff_route(old: &Route, new: &Route) -> String {
    let mut parts = Vec::new();
    if old.name != new.name {
        parts.push(format!("was {}", old.display_name()));
    }
    for outbound in &new.outbounds {
        let name = outbound.display_name();
        let same = old.outbounds.iter().find(|old| old.dsn == outbound.dsn);
        match same {
            None => parts.push(format!("outbound {name} added")),
            Some(_) if old.outbounds.contains(outbound) => {}
            Some(old) => {
                if old.name != outbound.name {
                    parts.push(format!("outbound {name} was {}", old.display_name()));
                }
                if !has_equal_options(old, outbound) {
                    parts.push(format!("options of outbound {name} changed"));
                }
            }
        }
    }
    for outbound in &old.outbounds {
        if !new.outbounds.iter().any(|new| new.dsn == outbound.dsn) {
            parts.push(format!("outbound {} removed", outbound.display_name()));
        }
    }
    if parts.is_empty() && old.outbounds != new.outbounds {
        parts.push("order of outbounds changed".to_owned());
    }
    if parts.is_empty() {
        parts.push("inbound DSN changed".to_owned());
    }
    parts.join(", ")
}

/// Whether two outbounds differ at most in their names.
fn has_equal_options(old: &Outbound, new: &Outbound) -> bool {
    let renamed = Outbound {
        name: new.name.clone(),
        ..old.clone()
    };
    renamed == *new
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccc";

    fn config(outbounds: &str, rest: &str) -> Config {
        let text = format!("keys:\n- inbound: http://{A}@m/1\n  outbound: [{outbounds}]\n{rest}");
        Config::parse(&text, "c.yml", std::iter::empty()).unwrap()
    }

    fn between(old: (&str, &str), new: (&str, &str)) -> (String, String) {
        let changes = Changes::between(&config(old.0, old.1), &config(new.0, new.1));
        (changes.summary(), changes.needs_restart.join(", "))
    }

    #[test]
    fn a_changed_setting_is_listed_with_both_values() {
        let one = format!("http://{B}@o/2");
        for (old, new, applied, restart) in [
            ("", "", "", ""),
            ("", "reply_timeout: 2s", "reply_timeout 1500ms -> 2s", ""),
            (
                "timeouts: {head: 5s}\ntls: {system_roots: false}",
                "timeouts: {idle: 9s}",
                "tls.system_roots false -> true; timeouts.head 5s -> 10s; timeouts.idle 650s -> 9s",
                "",
            ),
            (
                "",
                "external_url: https://m",
                "external_url not set -> https://m",
                "",
            ),
            (
                "",
                "workers: 7\nadmin: off\nverbose: true",
                "",
                "workers, admin, log_filter",
            ),
            (
                "statsd_addr: h:1",
                "statsd_addr: h:1\ndefault_metrics_tags: {a: b}",
                "",
                "default_metrics_tags",
            ),
            (
                "sentry_dsn: http://cccc1@h/1",
                "sentry_dsn: http://cccc2@h/1\nmodify_envelope: false",
                "modify_envelope true -> false",
                "sentry_dsn",
            ),
        ] {
            // `modify_envelope: false` would change the default compression.
            let outbound = format!("{{dsn: '{one}', compression: none}}");
            let found = between((&outbound, old), (&outbound, new));
            assert_eq!(
                found,
                (applied.to_owned(), restart.to_owned()),
                "{old} {new}"
            );
        }
    }

    #[test]
    fn a_reload_keeps_what_needs_a_restart_and_applies_the_rest() {
        let parse = |text: &str| Config::parse(text, "test", std::iter::empty()).unwrap();
        let keys = format!("keys: [{{inbound: http://{A}@m/1, outbound: [http://{B}@o/2]}}]");
        let old = parse(&keys);
        let new = parse(&format!(
            "{keys}\nip: 127.0.0.2\nport: 1\nlisten: [{{address: 127.0.0.3:1}}]\nreuse_port: true\nworkers: 7\n\
             driver: epoll\nadmin: off\naccess_log: json\nlog_filter: warn\nlog_format: json\n\
             statsd_addr: h:1\ndefault_metrics_tags: {{a: b}}\nstate_file: /tmp/state\n\
             sentry_dsn: http://{B}@o/3\nsentry_env: test\nreply_timeout: 2s",
        ));
        let reloaded = old.after_reload(&new);
        let still_missing = Changes::between(&reloaded, &new);
        assert_eq!(still_missing.applied, [""; 0]);
        let mut needs_restart = still_missing.needs_restart;
        needs_restart.sort();
        let mut expected = NEEDS_RESTART.map(str::to_owned);
        expected.sort();
        assert_eq!(needs_restart, expected);
        let applied = Changes::between(&old, &reloaded);
        assert_eq!(applied.applied, ["reply_timeout 1500ms -> 2s"]);
        assert_eq!(applied.needs_restart, [""; 0]);
    }

    #[test]
    fn a_changed_header_is_listed_without_its_value() {
        let one = format!("http://{B}@o/2");
        let (old, new) = ("headers: {A: secret}", "headers: {A: other}");
        let found = between((&one, old), (&one, new));
        assert_eq!(found, ("headers changed".to_owned(), String::new()));
        let own = format!("{{dsn: '{one}', headers: {{A: b}}}}");
        let found = between((&own, old), (&own, new));
        assert_eq!(found.0, "headers changed");
        let found = between((&one, new), (&own, new));
        let expected = "route http://aaaa…@m/1: options of outbound http://bbbb…@o/2 changed";
        assert_eq!(found.0, expected);
    }

    #[test]
    fn a_changed_proxy_is_listed_without_its_credentials() {
        let one = format!("http://{B}@o/2");
        let own = |proxy| format!("{{dsn: '{one}', proxy: '{proxy}'}}");
        let (top, other) = ("proxy: http://u:secret@p:1", "proxy: http://u:other@p:1");
        let route = "route http://aaaa…@m/1: options of outbound http://bbbb…@o/2 changed";
        for (old, new, expected) in [
            ((&*one, ""), (&*one, top), "proxy not set -> http://…@p:1"),
            (
                (&one, top),
                (&one, other),
                "the credentials of proxy changed",
            ),
            ((&one, top), (&own("none"), top), route),
            (
                (&own("http://u:a@p:1"), ""),
                (&own("http://u:b@p:1"), ""),
                route,
            ),
        ] {
            let found = between(old, new);
            assert_eq!(found, (expected.to_owned(), String::new()));
        }
    }

    #[test]
    fn a_changed_route_is_listed_with_its_key_shortened() {
        let (b, c) = (format!("http://{B}@o/2"), format!("http://{C}@o/3"));
        let route = "route http://aaaa…@m/1";
        for (old, new, rest, expected) in [
            (
                &b,
                format!("{b}, {c}"),
                String::new(),
                format!("{route}: outbound http://cccc…@o/3 added"),
            ),
            (
                &b,
                c.clone(),
                String::new(),
                format!(
                    "{route}: outbound http://cccc…@o/3 added, outbound http://bbbb…@o/2 removed"
                ),
            ),
            (
                &b,
                format!("{{dsn: '{b}', sample_rate: 0.5}}"),
                String::new(),
                format!("{route}: options of outbound http://bbbb…@o/2 changed"),
            ),
            (
                &format!("{b}, {c}"),
                format!("{c}, {b}"),
                String::new(),
                format!("{route}: order of outbounds changed"),
            ),
            (
                &b,
                b.clone(),
                format!("- inbound: http://{C}@m/2\n  outbound: [{b}]\n"),
                "route http://cccc…@m/2 added".to_owned(),
            ),
            (
                &b,
                format!("{{name: a, dsn: '{b}', sample_rate: 0.5}}"),
                String::new(),
                format!("{route}: outbound a was http://bbbb…@o/2, options of outbound a changed"),
            ),
            (
                &format!("{{name: a, dsn: '{b}'}}"),
                format!("{{name: c, dsn: '{b}'}}"),
                String::new(),
                format!("{route}: outbound c was a"),
            ),
            // The key differs only at its end, which is not shown.
            (
                &b,
                b.replace("bbb@", "bbc@"),
                String::new(),
                format!(
                    "{route}: outbound http://bbbb…@o/2 added, outbound http://bbbb…@o/2 removed"
                ),
            ),
        ] {
            let (old, new) = (config(old, ""), config(&new, &rest));
            assert_eq!(Changes::between(&old, &new).summary(), expected);
            assert!(Changes::between(&new, &new).summary().is_empty());
        }
        let rest = format!("- inbound: http://{C}@m/2\n  outbound: [{b}]\n");
        let two = config(&b, &rest);
        let summary = Changes::between(&two, &config(&b, "")).summary();
        assert_eq!(summary, "route http://cccc…@m/2 removed");
        let mut reversed = two.clone();
        reversed.routes.reverse();
        assert_eq!(
            Changes::between(&two, &reversed).summary(),
            "order of routes changed"
        );
    }

    #[test]
    fn a_changed_name_of_a_route_is_listed() {
        let named = |name: &str| {
            let outbound = format!("http://{B}@o/2");
            let mut config = config(&outbound, "");
            config.routes[0].name = (!name.is_empty()).then(|| name.to_owned());
            config
        };
        for (old, new, expected) in [
            ("", "a", "route a: was http://aaaa…@m/1"),
            ("a", "b", "route b: was a"),
            ("a", "", "route http://aaaa…@m/1: was a"),
        ] {
            let changes = Changes::between(&named(old), &named(new));
            assert_eq!(changes.summary(), expected);
        }
        let mut other = named("a");
        other.routes.clear();
        let removed = Changes::between(&named("a"), &other);
        assert_eq!(removed.summary(), "route a removed");
    }

    #[test]
    fn only_the_first_changes_are_listed() {
        let outbound = format!("http://{B}@o/2");
        let old = config(&outbound, "");
        let mut new = old.clone();
        for number in 0..25 {
            let mut route = old.routes[0].clone();
            route.inbound = format!("http://{number:032x}@m/1").parse().unwrap();
            new.routes.push(route);
        }
        let summary = Changes::between(&old, &new).summary();
        assert_eq!(summary.matches(" added").count(), 20);
        assert!(summary.ends_with("; and 5 more changes"), "{summary}");
    }
}

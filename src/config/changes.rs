//! What differs between two configurations, in words for the log.

use std::collections::HashMap;
use std::fmt::Write;

use serde_yaml::{Mapping, Value};

use super::node::key_path;
use super::{Config, Route};

/// The keys whose values only a new process takes over.
const NEEDS_RESTART: [&str; 13] = [
    "ip",
    "port",
    "reuse_port",
    "workers",
    "driver",
    "admin",
    "access_log",
    "log_filter",
    "log_format",
    "statsd_addr",
    "default_metrics_tags",
    "sentry_dsn",
    "sentry_env",
];

/// How many changes are told one by one.
const TOLD_MAX: usize = 20;

/// What differs between the configuration in force and another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a reload puts in force, one entry each: a key with both values, or a route.
    pub applied: Vec<String>,
    /// The keys that change only with a restart.
    pub needs_restart: Vec<String>,
}

impl Changes {
    /// Those from the configuration `old` to `new`. Keys of DSNs are shortened.
    pub fn between(old: &Config, new: &Config) -> Changes {
        let mut changes = Changes::default();
        routes(&old.routes, &new.routes, &mut changes.applied);
        let (before, after) = (settings(old), settings(new));
        for (key, then) in &after {
            let name = key.as_str().unwrap_or_default();
            let now = before.get(key).unwrap_or(&Value::Null);
            if NEEDS_RESTART.contains(&name) {
                // A report's key is shortened, so that the text alone does not tell.
                let is_other = name == "sentry_dsn"
                    && old.self_report.as_ref().map(|report| &report.dsn)
                        != new.self_report.as_ref().map(|report| &report.dsn);
                if now != then || is_other {
                    changes.needs_restart.push(name.to_owned());
                }
            } else {
                values(name, now, then, &mut changes.applied);
            }
        }
        changes
    }

    /// What is in force now, in one line.
    pub fn summary(&self) -> String {
        let mut text = self
            .applied
            .iter()
            .take(TOLD_MAX)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ");
        let more = self.applied.len().saturating_sub(TOLD_MAX);
        if more > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; and {more} more changes");
        }
        text
    }
}

/// Everything but the routes.
fn settings(config: &Config) -> Mapping {
    let mut settings = config.document();
    settings.remove("keys");
    settings
}

/// Notes where two values at `path` differ, and how.
fn values(path: &str, before: &Value, after: &Value, changes: &mut Vec<String>) {
    if let (Value::Mapping(before), Value::Mapping(after)) = (before, after) {
        for (key, after) in after {
            let before = before.get(key).unwrap_or(&Value::Null);
            let path = key_path(path, key.as_str().unwrap_or_default());
            values(&path, before, after, changes);
        }
    } else if before != after {
        changes.push(format!("{path} {} -> {}", shown(before), shown(after)));
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        Value::Mapping(_) => "a mapping".to_owned(),
        other => serde_yaml::to_string(other)
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
    }
}

/// Notes which routes are new, gone or other ones.
fn routes(before: &[Route], after: &[Route], changes: &mut Vec<String>) {
    let by_key = |routes: &'_ [Route]| -> HashMap<String, usize> {
        let keys = routes.iter().map(|route| route.inbound.key().to_owned());
        keys.zip(0..).collect()
    };
    let (known, kept) = (by_key(before), by_key(after));
    let count = changes.len();
    for route in after {
        let name = route.inbound.shortened();
        match known.get(route.inbound.key()).and_then(|i| before.get(*i)) {
            None => changes.push(format!("route {name} added")),
            Some(old) if old != route => {
                changes.push(format!("route {name}: {}", other(old, route)))
            }
            Some(_) => {}
        }
    }
    let gone = before
        .iter()
        .filter(|route| !kept.contains_key(route.inbound.key()));
    changes.extend(gone.map(|route| format!("route {} removed", route.inbound.shortened())));
    if changes.len() == count && before != after {
        changes.push("the order of the routes".to_owned());
    }
}

/// How a route differs from what it was.
fn other(old: &Route, new: &Route) -> String {
    let mut parts = Vec::new();
    for outbound in &new.outbounds {
        let name = outbound.dsn.shortened();
        let same = old.outbounds.iter().find(|old| old.dsn == outbound.dsn);
        match same {
            None => parts.push(format!("outbound {name} added")),
            Some(_) if old.outbounds.contains(outbound) => {}
            Some(_) => parts.push(format!("other options of outbound {name}")),
        }
    }
    for outbound in &old.outbounds {
        if !new.outbounds.iter().any(|new| new.dsn == outbound.dsn) {
            parts.push(format!("outbound {} removed", outbound.dsn.shortened()));
        }
    }
    if parts.is_empty() && old.outbounds != new.outbounds {
        parts.push("other outbounds first".to_owned());
    }
    if parts.is_empty() {
        parts.push("another inbound DSN".to_owned());
    }
    parts.join(", ")
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
    fn settings_are_told_with_both_values() {
        let one = format!("http://{B}@o/2");
        for (old, new, told, restart) in [
            ("", "", "", ""),
            ("", "reply_timeout: 2s", "reply_timeout 1500ms -> 2s", ""),
            (
                "timeouts: {head: 5s}\ntls: {system_roots: false}",
                "timeouts: {idle: 9s}",
                "tls.system_roots false -> true; timeouts.head 5s -> 10s; timeouts.idle 75s -> 9s",
                "",
            ),
            (
                "",
                "external_url: https://m",
                "external_url nothing -> https://m",
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
            // With envelopes that are not modified bodies keep their coding.
            let outbound = format!("{{dsn: '{one}', compression: none}}");
            let found = between((&outbound, old), (&outbound, new));
            assert_eq!(found, (told.to_owned(), restart.to_owned()), "{old} {new}");
        }
    }

    #[test]
    fn routes_are_told_with_keys_shortened() {
        let (b, c) = (format!("http://{B}@o/2"), format!("http://{C}@o/3"));
        let route = "route http://aaaa…@m/1";
        for (old, new, rest, told) in [
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
                format!("{route}: other options of outbound http://bbbb…@o/2"),
            ),
            (
                &format!("{b}, {c}"),
                format!("{c}, {b}"),
                String::new(),
                format!("{route}: other outbounds first"),
            ),
            (
                &b,
                b.clone(),
                format!("- inbound: http://{C}@m/2\n  outbound: [{b}]\n"),
                "route http://cccc…@m/2 added".to_owned(),
            ),
            // The end of a key is not shown, and counts.
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
            assert_eq!(Changes::between(&old, &new).summary(), told);
            assert!(Changes::between(&new, &new).summary().is_empty());
        }
        let rest = format!("- inbound: http://{C}@m/2\n  outbound: [{b}]\n");
        let two = config(&b, &rest);
        let told = Changes::between(&two, &config(&b, "")).summary();
        assert_eq!(told, "route http://cccc…@m/2 removed");
        let mut turned = two.clone();
        turned.routes.reverse();
        assert_eq!(
            Changes::between(&two, &turned).summary(),
            "the order of the routes"
        );
    }

    #[test]
    fn many_changes_are_counted() {
        let outbound = format!("http://{B}@o/2");
        let old = config(&outbound, "");
        let mut new = old.clone();
        for number in 0..25 {
            let mut route = old.routes[0].clone();
            route.inbound = format!("http://{number:032x}@m/1").parse().unwrap();
            new.routes.push(route);
        }
        let told = Changes::between(&old, &new).summary();
        assert_eq!(told.matches(" added").count(), 20);
        assert!(told.ends_with("; and 5 more changes"), "{told}");
    }
}

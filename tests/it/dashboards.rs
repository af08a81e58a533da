//! The dashboard and the alerts in `deploy/` are well formed, and use only metrics and labels that exist.

use std::collections::BTreeSet;
use std::fs;

use crate::support::tls::Authority;
use crate::support::{KEY_A, Process, Upstream, config, envelope, envelope_request};

fn text(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).expect("it is there")
}

/// All expressions of the dashboard, including those of its variables.
fn dashboard_expressions() -> Vec<String> {
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("deploy/grafana-dashboard.json")).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    found
}

fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&name.as_str()) => {
                        found.push(text.to_owned());
                    }
                    Some(_) | None => collect(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn alert_expressions() -> Vec<String> {
    let alerts: serde_yaml::Value =
        serde_yaml::from_str(&text("deploy/prometheus-alerts.yml")).unwrap();
    let rules = alerts["groups"][0]["rules"].as_sequence().unwrap();
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].is_string(),
                "{name} has no {annotation}"
            );
        }
        assert!(rule["labels"]["severity"].is_string(), "{name}");
    }
    let expressions = rules.iter().map(|rule| rule["expr"].as_str().unwrap());
    expressions.map(str::to_owned).collect()
}

#[test]
fn each_alert_has_a_case_in_which_it_fires() {
    let cases = text("tests/deploy/alerts.test.yml");
    let alerts: serde_yaml::Value =
        serde_yaml::from_str(&text("deploy/prometheus-alerts.yml")).unwrap();
    for rule in alerts["groups"][0]["rules"].as_sequence().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        let expected = format!("alertname=\"{name}\"");
        assert!(cases.contains(&expected), "{name} fires in no case");
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Each metric in an expression, with its matchers.
fn metrics(expression: &str) -> Vec<(&str, &str)> {
    let starts = expression.match_indices("sentry_mirror_");
    let parts = starts.map(|(at, _)| {
        let rest = &expression[at..];
        let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let matchers = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next());
        (name, matchers.unwrap_or(""))
    });
    parts.collect()
}

#[test]
fn the_dashboard_and_the_alerts_use_only_metrics_that_exist() {
    let upstream = Upstream::ok();
    // A host name, so that there are metrics of its resolution.
    let outbounds = [
        upstream.dsn(KEY_A, 11),
        format!("http://{KEY_A}@localhost:9/1"),
    ];
    let (cert_file, key_file) = Authority::new().server_files(&["localhost"]);
    let extra = format!(
        "admin: {{port: 0}}\nlisten: [{{address: '127.0.0.1:0', tls: {{cert_file: {}, key_file: {}}}}}]",
        cert_file.display(),
        key_file.display()
    );
    let extra = format!("{extra}\ncap: {{error: 1000000/s}}");
    let mirror = Process::start(&config(&outbounds, &extra));
    // A histogram appears after its first observation.
    let request = envelope_request(envelope("00").as_bytes());
    assert_eq!(mirror.client().ask(&request).status, 200);
    // The duration of a request is observed after its last delivery.
    mirror.wait_for_metrics(|metrics| {
        let name = "sentry_mirror_request_duration_seconds_count";
        let observed = metrics.all(name, &[]);
        observed.iter().map(|(_, count)| count).sum::<f64>() == 1.0
    });
    let page = mirror.page("/metrics");
    let samples: Vec<&str> = page
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let of_name = |name: &str| -> Vec<&str> {
        let is_meant = |sample: &&&str| sample.split(['{', ' ']).next() == Some(name);
        samples.iter().filter(is_meant).copied().collect()
    };
    let (panels, alerts) = (dashboard_expressions(), alert_expressions());
    assert!(panels.len() > 20 && alerts.len() > 5);
    let mut used = BTreeSet::new();
    for expression in panels.iter().chain(&alerts) {
        for (name, matchers) in metrics(expression) {
            let samples = of_name(name);
            assert!(!samples.is_empty(), "there is no {name}: {expression}");
            used.insert(name.to_owned());
            check_matchers(&samples, matchers, expression);
        }
        check_groups(expression, &of_name);
    }
    // Every family is on the dashboard, or is listed here.
    let not_drawn = [
        "build_info",
        "workers",
        "access_log_dropped",
        "log_dropped",
        "sdk_connections",
        "sdk_connections_closed",
        "sdk_tls_handshakes",
        "listener_certificate_reloads",
        "accept_pauses",
        "upstream_connections_reused",
        "upstream_connections_dropped",
        "upstream_addresses",
        "dns_failures",
    ];
    for line in page
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
    {
        let name = line.split(' ').next().unwrap();
        let is_used = used
            .iter()
            .any(|used| used == name || used.strip_suffix("_bucket") == Some(name));
        let is_excused = not_drawn.iter().any(|excused| {
            let bare = name.strip_suffix("_total").unwrap_or(name);
            bare.strip_prefix("sentry_mirror_") == Some(*excused)
        });
        assert!(is_used || is_excused, "no panel shows {name}");
    }
}

/// Matched labels must exist, and so must their values if these are a closed set.
fn check_matchers(samples: &[&str], matchers: &str, expression: &str) {
    for matcher in matchers.split(", ").filter(|matcher| !matcher.is_empty()) {
        let (label, rest) = matcher.split_at(matcher.find(|c| !is_name(c)).unwrap());
        if label == "instance" {
            continue;
        }
        let has_label = samples
            .iter()
            .any(|sample| sample.contains(&format!("{label}=\"")));
        assert!(has_label, "no label {label}: {expression}");
        let values = rest.split('"').nth(1).unwrap();
        for value in values.split('|').filter(|value| !value.starts_with('$')) {
            let pair = format!("{label}=\"{value}\"");
            let has_value = samples.iter().any(|sample| sample.contains(&pair));
            assert!(has_value, "no {pair}: {expression}");
        }
    }
}

/// The labels of a `by` clause must exist.
fn check_groups<'s>(expression: &str, of_name: &impl Fn(&str) -> Vec<&'s str>) {
    for (at, _) in expression.match_indices(" by (") {
        let rest = &expression[at + " by (".len()..];
        let (labels, rest) = rest.split_once(')').unwrap();
        let (name, _) = *metrics(rest).first().expect("something is summed");
        for label in labels.split(", ").filter(|label| *label != "instance") {
            let has_label = of_name(name)
                .iter()
                .any(|sample| sample.contains(&format!("{label}=\"")));
            assert!(has_label, "{name} has no label {label}: {expression}");
        }
    }
}

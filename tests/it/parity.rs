//! `sentry-mirror parity`, against a stand-in for the web API of Sentry.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::process::{Ended, file};
use crate::support::{Action, IN_KEY, KEY_A, KEY_B, Upstream, envelope, envelope_request};
use crate::trial::Mirror;

const HOUR: u64 = 3600;

/// Sums by category, outcome and reason.
type Groups = &'static [(&'static str, &'static str, &'static str, u64)];

/// A stand-in that answers with these sums, in the form of Sentry's answer, for the period that it is asked for.
fn sentry(groups: Groups) -> Upstream {
    Upstream::start(move |number, request| {
        assert!(
            request.line.starts_with("GET /api/0/organizations/"),
            "{}",
            request.line
        );
        // It does not like to be asked at once.
        if number == 0 {
            return Action::Raw(
                b"HTTP/1.1 429 \r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_vec(),
            );
        }
        let query = |name: &str| {
            let (_, rest) = request.line.split_once(&format!("&{name}=")).unwrap();
            rest.split(['&', ' ']).next().unwrap().to_owned()
        };
        let group = |(category, outcome, reason, sum): &(&str, &str, &str, u64)| {
            json!({
                "by": { "category": category, "outcome": outcome, "reason": reason },
                "totals": { "sum(quantity)": sum },
                "series": { "sum(quantity)": [sum] },
            })
        };
        let (start, end) = (query("start"), query("end"));
        let body = json!({
            "start": start,
            "end": end,
            "intervals": [start],
            "groups": groups.iter().map(group).collect::<Vec<_>>(),
        })
        .to_string();
        let length = body.len();
        Action::Raw(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes(),
        )
    })
}

/// A state file in which each of these was counted in the last whole hour.
fn state(counts: &[(&str, &str, &str, u64)]) -> PathBuf {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let last_hour = now - now % HOUR - HOUR;
    let series = counts
        .iter()
        .map(|(outbound, category, outcome, _)| json!(["shop", outbound, category, outcome]));
    let pairs = counts
        .iter()
        .enumerate()
        .map(|(index, (_, _, _, count))| json!([index, count]));
    let document = json!({
        "version": 1,
        "complete_since": last_hour - 30 * HOUR,
        "series": series.collect::<Vec<_>>(),
        "hours": [{ "start": last_hour, "counts": pairs.collect::<Vec<_>>() }],
    });
    file("state.json", &document.to_string())
}

/// A configuration with the route `shop` to two sides.
fn config(sides: [(&str, &Upstream); 2], outbound: &Upstream, state: &Path) -> String {
    let outbounds = sides.iter().zip([KEY_A, KEY_B]).map(|((name, sentry), key)| {
        format!(
            "      - name: {name}\n        dsn: {}\n        sentry_api: {{organization: acme-{name}, token: token-of-{name}, url: 'http://{}'}}\n",
            outbound.dsn(key, 11),
            sentry.address
        )
    });
    format!(
        "ip: 127.0.0.1\nport: 0\nadmin: {{port: 0}}\nstate_file: {}\nkeys:\n  - name: shop\n    inbound: http://{IN_KEY}@mirror.example.com/42\n    outbound:\n{}",
        state.display(),
        outbounds.collect::<String>()
    )
}

fn assert_no_token(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains("token-of"), "{text}");
    }
}

#[test]
fn each_difference_between_both_sides_is_explained() {
    let upstream = Upstream::ok();
    let old = sentry(&[
        ("error", "accepted", "none", 1000),
        ("transaction", "accepted", "none", 900),
        ("transaction", "filtered", "web-crawlers", 100),
        ("log_item", "accepted", "none", 1000),
        ("log_byte", "accepted", "none", 123_456),
        ("monitor", "accepted", "none", 1000),
        ("error", "client_discard", "ratelimit_backoff", 7),
    ]);
    let new = sentry(&[
        ("error", "accepted", "none", 50),
        ("transaction", "accepted", "none", 1000),
        ("log_item", "accepted", "none", 300),
        ("log_item", "rate_limited", "key_quota", 100),
        // Of the 100 that had no answer, 30 had arrived.
        ("monitor", "accepted", "none", 930),
    ]);
    let state = state(&[
        ("old", "error", "delivered", 1000),
        ("old", "transaction", "delivered", 1000),
        ("old", "log_item", "delivered", 1000),
        ("old", "monitor", "delivered", 1000),
        ("new", "error", "delivered", 50),
        ("new", "error", "sampled", 950),
        ("new", "transaction", "delivered", 1000),
        ("new", "log_item", "delivered", 300),
        ("new", "log_item", "too_many_requests", 100),
        ("new", "log_item", "withheld", 600),
        ("new", "monitor", "delivered", 900),
        ("new", "monitor", "lost", 100),
    ]);
    let mirror = Mirror::start(&config([("old", &old), ("new", &new)], &upstream, &state));
    let ended = mirror.run("parity", &["--tolerance", "0%"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_no_token(&ended);
    for words in [
        "24 whole hours, ",
        "950 sampled by the mirror (sample_rate)",
        "100 filtered by Sentry (100 web-crawlers)",
        "600 withheld by the mirror (rate limits of the outbound); 100 rate limited by Sentry (100 key_quota)",
        "70 lost on the way (outage, timeout, 5xx)",
        "every difference over 0 % is explained",
    ] {
        assert!(
            ended.stdout.contains(words),
            "{words} is not in {}",
            ended.stdout
        );
    }
    assert!(!ended.stdout.contains("unexplained"), "{}", ended.stdout);
    for (side, name) in [(&old, "old"), (&new, "new")] {
        for request in side.received() {
            let organization = format!("/api/0/organizations/acme-{name}/stats_v2/?");
            assert!(request.line.contains(&organization), "{}", request.line);
            assert!(request.line.contains("&project=11&"), "{}", request.line);
            let token = format!("Bearer token-of-{name}");
            assert_eq!(request.field("Authorization"), Some(&*token));
        }
    }
}

/// The counts of an earlier hour, as if this one had passed.
fn an_hour_earlier(state: &str) -> String {
    let mut document: Value = serde_json::from_str(state).unwrap();
    let earlier =
        |time: &mut Value, hours: u64| *time = json!(time.as_u64().unwrap() - hours * HOUR);
    earlier(&mut document["complete_since"], 30);
    for hour in document["hours"].as_array_mut().unwrap() {
        earlier(&mut hour["start"], 1);
    }
    document.to_string()
}

/// Ten minutes of an hour, at a request a minute. What was lost in them is the whole difference.
#[test]
fn an_outage_of_ten_minutes_adds_up_to_nothing_unexplained() {
    let old = Upstream::ok();
    let new = Upstream::start(|number, _| match number {
        20..30 => Action::Answer(503, "{}"),
        _ => Action::ok(),
    });
    let at_old = sentry(&[("error", "accepted", "none", 60)]);
    let at_new = sentry(&[("error", "accepted", "none", 50)]);
    let state = file("state.json", "").with_file_name("counts.json");
    let text = config([("old", &at_old), ("new", &at_new)], &old, &state);
    let text = text.replacen(&new_dsn(&old), &new_dsn(&new), 1);
    let mirror = Mirror::start(&text);
    let mut client = mirror.process.client();
    for minute in 0..60 {
        let request = envelope_request(envelope(&format!("{minute:02}")).as_bytes());
        assert_eq!(client.ask(&request).status, 200);
        // The counts of the stand-ins do not depend on which delivery ends first.
        new.wait_for(minute + 1);
    }
    drop(client);
    mirror.process.signal("TERM");
    assert!(mirror.process.wait().0.success());
    let counted = fs::read_to_string(&state).unwrap();
    fs::write(&state, an_hour_earlier(&counted)).unwrap();
    let mirror = Mirror::start(&text);
    let ended = mirror.run("parity", &["--tolerance", "0%", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    let rows = document["groups"][0]["rows"].as_array().unwrap();
    let [old, new] = &rows[..] else {
        panic!("{rows:?}");
    };
    for row in [old, new] {
        assert_eq!(row["unexplained"], 0, "{row}");
    }
    assert_eq!(
        (&old["difference"], &new["difference"]),
        (&json!(0), &json!(10))
    );
    let ended = mirror.run("parity", &["--tolerance", "0%"]);
    assert!(
        ended
            .stdout
            .contains("10 lost on the way (outage, timeout, 5xx)"),
        "{ended:?}"
    );
}

/// The DSN that [`config`] gives the second outbound.
fn new_dsn(upstream: &Upstream) -> String {
    upstream.dsn(KEY_B, 11)
}

#[test]
fn what_is_not_explained_is_exit_code_1() {
    let upstream = Upstream::ok();
    let old = sentry(&[("error", "accepted", "none", 900)]);
    let new = sentry(&[("error", "accepted", "none", 1000)]);
    let state = state(&[
        ("old", "error", "delivered", 1000),
        ("new", "error", "delivered", 1000),
    ]);
    let mirror = Mirror::start(&config([("old", &old), ("new", &new)], &upstream, &state));
    let ended = mirror.run("parity", &["--since", "2h", "--json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    let row = |index: usize| &document["groups"][0]["rows"][index];
    assert_eq!(row(0)["project"], "acme-old/11");
    assert_eq!(
        (&row(0)["unexplained"], &row(0)["over_tolerance"]),
        (&json!(100), &json!(true))
    );
    assert_eq!(
        (&row(1)["unexplained"], &row(1)["over_tolerance"]),
        (&json!(0), &json!(false))
    );
    let ended = mirror.run("parity", &["--tolerance", "10%"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn what_keeps_an_organization_from_being_asked_is_named() {
    let upstream = Upstream::ok();
    let good = sentry(&[]);
    let bad =
        Upstream::start(|_, _| Action::Answer(403, r#"{"detail":"You do not have permission"}"#));
    let state = state(&[]);
    let text = config([("old", &good), ("new", &bad)], &upstream, &state);
    let mirror = Mirror::start(&text);
    let ended = mirror.run("parity", &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("may not read acme-new; it needs the scope org:read"),
        "{ended:?}"
    );
    assert_no_token(&ended);
    let none = text.replace("sentry_api: {organization: acme-", "#");
    let ended = Mirror::start(&none).run("parity", &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("no outbound has sentry_api"),
        "{ended:?}"
    );
}

#[test]
fn a_mirror_counts_items_by_hour_and_remembers_them() {
    let upstream = Upstream::ok();
    let sentry = sentry(&[]);
    let state = file("state.json", "").with_file_name("new.json");
    let mirror = Mirror::start(&config(
        [("old", &sentry), ("new", &sentry)],
        &upstream,
        &state,
    ));
    for id in ["01", "02", "03"] {
        let request = envelope_request(envelope(id).as_bytes());
        assert_eq!(mirror.process.client().ask(&request).status, 200);
    }
    upstream.wait_for(6);
    let ended = mirror.run("parity", &[]);
    // Not even one whole hour.
    assert!(ended.stderr.contains("no whole hour yet"), "{ended:?}");
    mirror.process.signal("TERM");
    assert!(mirror.process.wait().0.success());
    let text = fs::read_to_string(&state).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let series = document["series"].as_array().unwrap();
    let mut counted: Vec<(String, u64)> = Vec::new();
    for pair in document["hours"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|hour| hour["counts"].as_array().unwrap())
    {
        let index = usize::try_from(pair[0].as_u64().unwrap()).unwrap();
        counted.push((series[index].to_string(), pair[1].as_u64().unwrap()));
    }
    let sum = |outbound: &str| -> u64 {
        let name = format!("[\"shop\",\"{outbound}\",\"error\",\"delivered\"]");
        counted
            .iter()
            .filter(|(series, _)| *series == name)
            .map(|(_, count)| count)
            .sum()
    };
    assert_eq!((sum("old"), sum("new")), (3, 3), "{text}");
}

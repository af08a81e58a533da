//! `sentry-mirror test`: sends one real error event, and says what became of it at each outbound.
//!
//! The event goes through the running mirror as that of an SDK. What became of it is read from the counters on the
//! admin port: what ended at each outbound between the request and now. So it needs nothing in the way of requests,
//! and nobody without access to the admin port learns what outbounds answer. On a busy route other deliveries end
//! meanwhile, too; unless all of them ended alike, the answer is that it cannot be told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::blocking::client::Server;
use crate::blocking::concurrently::concurrently;
use crate::mirror::reporting::counters::OutcomeKind;
use crate::mirror::routing::routes::Route;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::sentry::dsn::Dsn;
use crate::telemetry::label::Label;
use crate::telemetry::words;
use crate::trial::envelope;
use crate::trial::mirror_status::{self, OutboundStatus};
use crate::trial::target::Target;
use crate::trial::verdict::{Verdict, verdict};

/// How long to wait for the reply, and again for the deliveries.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// How often to ask the admin port.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The most routes that an error lists.
const NAMED_MAX: usize = 10;

/// The maximum length of a part of a reply that is shown.
const SHOWN_BYTES_MAX: usize = 200;

/// Where the running mirror is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningMirror {
    /// The address that SDKs connect to.
    pub(crate) address: SocketAddr,
    /// `None` if it has no admin port.
    pub(crate) admin: Option<SocketAddr>,
}

/// What became of the event, as text.
pub(crate) struct Report {
    pub(crate) text: String,
    /// Whether every outbound that takes errors accepted it.
    pub(crate) is_good: bool,
}

impl Report {
    fn new(mut text: String, verdicts: &[(String, Verdict)]) -> Report {
        for (label, verdict) in verdicts {
            text += &verdict.line(label);
        }
        Report {
            text,
            is_good: verdicts.iter().all(|(_, verdict)| verdict.is_good),
        }
    }
}

/// The index of the route with this name; without a name, of the only route.
///
/// # Errors
/// There is no such route, or several; the error lists the names.
pub(crate) fn find_route(table: &RoutingTable, name: Option<&str>) -> Result<usize, String> {
    let routes = table.routes.all();
    let names = || {
        let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>();
        let more = match names.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", shown.join(", "))
    };
    match (name, routes) {
        (None, [_]) => Ok(0),
        (None, _) => Err(format!("--route is missing; the routes are {}", names())),
        (Some(name), _) => {
            let position = routes.iter().position(|route| route.name == name);
            position.ok_or_else(|| format!("there is no route {name}; the routes are {}", names()))
        }
    }
}

/// Sends an event straight to each outbound of `route`.
pub(crate) fn direct(table: &RoutingTable, route: &Route) -> Report {
    let id = envelope::event_id();
    let body = envelope::error(&id, SystemTime::now());
    let targets = Target::of_route(table, route);
    let deadline = Instant::now() + TIME_LIMIT;
    let verdicts = concurrently(targets.clone(), deadline, move |target: &Target| {
        verdict(target, &target.send(&body, deadline))
    });
    let late = || Verdict::bad(format!("no answer within {TIME_LIMIT:?}"));
    let verdicts: Vec<_> = targets
        .into_iter()
        .zip(verdicts)
        .map(|(target, verdict)| (target.label, verdict.unwrap_or_else(late)))
        .collect();
    let text = format!(
        "sent the error event {id} straight to the outbounds of {}\n",
        route.name
    );
    Report::new(text, &verdicts)
}

/// Sends an event through the running mirror, as an SDK with the DSN `inbound`.
///
/// # Errors
/// The mirror does not answer on its port for SDKs, or on its admin port.
pub(crate) fn through(
    mirror: RunningMirror,
    inbound: &Dsn,
    route: &Route,
) -> Result<Report, String> {
    let deadline = Instant::now() + TIME_LIMIT;
    let status = |deadline| {
        let asked = mirror
            .admin
            .map(|admin| mirror_status::outbounds_of(admin, &route.name, deadline));
        asked.transpose()
    };
    let before = status(deadline)?;
    let id = envelope::event_id();
    let mut text = format!(
        "sent the error event {id} through the mirror at {}, route {}\n",
        mirror.address, route.name
    );
    let reply = reply(mirror.address, inbound, &id, deadline)?;
    text += &reply.line("the answer to the SDK");
    let Some(before) = before else {
        text += "  the configuration has `admin: off`, so what the outbounds answered is not known; --direct asks them\n";
        return Ok(Report {
            text,
            is_good: reply.is_good,
        });
    };
    let deadline = Instant::now() + TIME_LIMIT;
    let after = loop {
        let now = status(deadline)?.unwrap_or_default();
        let has_ended = all_have_ended(&before, &now);
        if has_ended || Instant::now() >= deadline {
            break now;
        }
        thread::sleep(POLL_INTERVAL);
    };
    let verdicts: Vec<_> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| (after.name.clone(), became(after, before)))
        .collect();
    let report = Report::new(text, &verdicts);
    Ok(Report {
        is_good: report.is_good && reply.is_good,
        ..report
    })
}

/// Sends the event, and puts the reply into words.
fn reply(
    address: SocketAddr,
    inbound: &Dsn,
    id: &str,
    deadline: Instant,
) -> Result<Verdict, String> {
    let server = Server {
        host: address.ip().to_string(),
        port: address.port(),
        tls: None,
        connect: None,
    };
    let path = format!("{}/api/{}/envelope/", inbound.prefix(), inbound.project());
    let auth = format!("sentry_key={}", inbound.key());
    let body = envelope::error(id, SystemTime::now());
    let host = inbound.origin().authority();
    let request = envelope::request(&path, &host, &auth, "", &body);
    let answer = server
        .ask(&request, deadline)
        .map_err(|failure| format!("the mirror does not answer: {failure}; does it run?"))?;
    let status = answer.status();
    let took = answer.elapsed.as_millis();
    let body = words::sanitized(&answer.message.body, SHOWN_BYTES_MAX, &[inbound.key()]);
    let text = format!("{status} in {took} ms: {body}");
    Ok(match status {
        200..=299 => Verdict::good(text),
        _ => Verdict::bad(text),
    })
}

/// Whether a delivery has ended at each outbound since `before`.
fn all_have_ended(before: &[OutboundStatus], now: &[OutboundStatus]) -> bool {
    let mut pairs = now.iter().zip(before);
    pairs.all(|(now, before)| !now.ended_since(before).is_empty())
}

/// What became of the event at an outbound.
fn became(after: &OutboundStatus, before: &OutboundStatus) -> Verdict {
    let ended = after.ended_since(before);
    let mut outcomes = ended.keys();
    let (Some(only), None) = (outcomes.next(), outcomes.next()) else {
        return match ended.is_empty() {
            true => Verdict::bad(format!("no delivery has ended within {TIME_LIMIT:?}")),
            false => Verdict::bad(mixed(&ended)),
        };
    };
    let kind = OutcomeKind::ALL.iter().find(|kind| kind.word() == only);
    let words = kind.map_or(only.as_str(), |kind| in_words(*kind));
    let error = after
        .error_since(before)
        .map(|error| format!("; the last error is {:?}", error.message));
    let text = format!("{words}{}", error.unwrap_or_default());
    match kind {
        Some(
            OutcomeKind::Success
            | OutcomeKind::Filtered
            | OutcomeKind::Sampled
            | OutcomeKind::Capped,
        ) => Verdict::good(text),
        _ => Verdict::bad(text),
    }
}

/// Deliveries that ended in several ways, of which one is that of the event.
fn mixed(ended: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> = ended
        .iter()
        .map(|(outcome, count)| format!("{count} × {outcome}"))
        .collect();
    format!(
        "cannot be told, because deliveries of other requests ended in other ways meanwhile ({}); try again, or with --direct",
        counts.join(", ")
    )
}

fn in_words(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Success => "accepted it",
        OutcomeKind::TooManyRequests => "answered 429: it is rate limited",
        OutcomeKind::ClientError => {
            "rejected it with a 4xx: most likely its key or project is wrong"
        }
        OutcomeKind::ServerError => "failed with a 5xx",
        OutcomeKind::OtherStatus => {
            "answered with a status that Sentry never sends, such as a redirect: most likely its scheme or host is wrong"
        }
        OutcomeKind::Dns => "lost it: the host name cannot be resolved",
        OutcomeKind::Connect => "lost it: the connection could not be opened",
        OutcomeKind::ConnectTimeout => "lost it: the connection was not open in time",
        OutcomeKind::Tls => "lost it: the TLS handshake failed",
        OutcomeKind::Proxy => "lost it: its proxy failed or refused",
        OutcomeKind::Send => "lost it: the request could not be sent in full",
        OutcomeKind::Receive | OutcomeKind::Closed | OutcomeKind::Reset => {
            "lost it, or not: the connection or the stream ended without an answer"
        }
        OutcomeKind::Malformed | OutcomeKind::TooLarge => {
            "answered something that is no answer of Sentry"
        }
        OutcomeKind::Timeout | OutcomeKind::TooSlow => "did not answer in time",
        OutcomeKind::Overloaded => "lost it: too much is in flight to this outbound already",
        OutcomeKind::Paused => {
            "lost it: the upstream did not answer before, so its circuit breaker is open"
        }
        OutcomeKind::RateLimited => "was not sent it: a rate limit of the outbound is active",
        OutcomeKind::Filtered => {
            "was not sent it, as configured: it does not take errors (categories)"
        }
        OutcomeKind::Sampled => {
            "was not sent it, as configured: the event is not in its share (sample_rate)"
        }
        OutcomeKind::Capped => "was not sent it, as configured: its cap is reached",
        OutcomeKind::Panicked => "lost it in an internal error of the mirror; the log has it",
        OutcomeKind::GivenUp => "lost it: the mirror was stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn outbound(outcomes: &[(&str, u64)]) -> OutboundStatus {
        let outcomes = outcomes.iter();
        OutboundStatus {
            outcomes: outcomes
                .map(|(outcome, count)| ((*outcome).to_owned(), *count))
                .collect(),
            ..OutboundStatus::default()
        }
    }

    #[test]
    fn what_became_of_the_event_is_told_only_if_all_deliveries_ended_alike() {
        let before = outbound(&[("2xx", 9), ("connect", 1)]);
        for (after, is_good, words) in [
            (&[("2xx", 10), ("connect", 1)][..], true, "accepted it"),
            (&[("2xx", 12), ("connect", 1)], true, "accepted it"),
            (
                &[("2xx", 9), ("connect", 1), ("filtered", 1)],
                true,
                "as configured",
            ),
            (&[("2xx", 9), ("connect", 2)], false, "could not be opened"),
            (
                &[("2xx", 9), ("connect", 1), ("4xx", 1)],
                false,
                "key or project",
            ),
            (
                &[("2xx", 10), ("connect", 2)],
                false,
                "1 × 2xx, 1 × connect",
            ),
            (
                &[("2xx", 9), ("connect", 1)],
                false,
                "no delivery has ended",
            ),
        ] {
            let became = became(&outbound(after), &before);
            assert_eq!(became.is_good, is_good, "{became:?}");
            assert!(became.text.contains(words), "{became:?}");
        }
    }

    #[test]
    fn a_route_is_found_by_its_name_or_because_it_is_the_only_one() {
        let table = |keys: &[char]| {
            let route = |key: &char| {
                let key = key.to_string().repeat(32);
                format!(
                    "- {{inbound: 'http://{key}@m/1', outbound: ['http://{key}@127.0.0.1:9/2']}}\n"
                )
            };
            let text = format!("keys:\n{}", keys.iter().map(route).collect::<String>());
            let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
            RoutingTable::new(&config, 1, None).unwrap()
        };
        let (one, two) = (table(&['a']), table(&['a', 'b']));
        assert_eq!(find_route(&one, None), Ok(0));
        assert_eq!(find_route(&two, Some("http://bbbb…@m/1")), Ok(1));
        let names = "http://aaaa…@m/1, http://bbbb…@m/1";
        for error in [find_route(&two, None), find_route(&two, Some("c"))] {
            assert!(error.clone().unwrap_err().ends_with(names), "{error:?}");
        }
    }
}

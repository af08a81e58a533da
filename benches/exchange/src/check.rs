//! What happens to the *next* request after an exchange fails.
//!
//! Three things that every upstream does now and then, each followed by two ordinary requests, one after the
//! other. A sound client gives each request its own response or none. The behaviour of the pinned versions of
//! the others is asserted as well: if a newer version does better, the check fails, and the decision not to use
//! it should be reconsidered.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::sink;
use crate::ways::client::HttpClient;
use crate::ways::codec::Codec;
use crate::ways::ours::Ours;
use crate::ways::{Answer, Message, Way};

/// The deadline of an exchange: long for a sink that answers at once, short for a test that waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The first event, and the expected result of each way.
struct Scenario {
    path: &'static str,
    what: &'static str,
    ours: Verdict,
    codec: Verdict,
    client: Verdict,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        path: sink::SLOW,
        what: "the upstream answers after the deadline",
        ours: Verdict::Sound,
        codec: Verdict::Sound,
        client: Verdict::Mixed,
    },
    Scenario {
        path: sink::LAST,
        what: "the upstream closes the connection while it is idle",
        ours: Verdict::Sound,
        codec: Verdict::Recovered,
        client: Verdict::Stuck,
    },
    Scenario {
        path: sink::INTERIM,
        what: "the upstream sends 100 Continue before its answer",
        ours: Verdict::Sound,
        codec: Verdict::Mixed,
        client: Verdict::Mixed,
    },
];

/// The result of a way in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every request got its own response.
    Sound,
    /// A later request failed; the last one did not.
    Recovered,
    /// The last request failed: so will all others.
    Stuck,
    /// A request got the response of another.
    Mixed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Sound => "sound",
            Verdict::Recovered => "loses a request, then recovers",
            Verdict::Stuck => "fails from then on",
            Verdict::Mixed => "WRONG ANSWERS",
        })
    }
}

/// One way in one scenario.
pub struct Finding {
    pub scenario: &'static str,
    pub way: &'static str,
    pub verdict: Verdict,
    pub expected: Verdict,
    /// Each request with its response.
    exchanges: Vec<(&'static str, Result<Answer, String>)>,
}

/// Runs all scenarios.
pub async fn check(upstream: SocketAddr) -> Vec<Finding> {
    let mut findings = Vec::new();
    for scenario in &SCENARIOS {
        let ours = Ours::new(upstream, PATIENCE);
        findings.push(observe(scenario, scenario.ours, &ours, upstream).await);
        let codec = Codec::new(upstream, PATIENCE);
        findings.push(observe(scenario, scenario.codec, &codec, upstream).await);
        let client = HttpClient::new(PATIENCE);
        findings.push(observe(scenario, scenario.client, &client, upstream).await);
    }
    findings
}

async fn observe<W: Way>(
    scenario: &Scenario,
    expected: Verdict,
    way: &W,
    upstream: SocketAddr,
) -> Finding {
    let mut exchanges = Vec::new();
    for path in [scenario.path, "/a", "/b"] {
        let request = way.prepare(&Message {
            authority: upstream.to_string(),
            path,
            body: Bytes::from_static(b"{}\n"),
        });
        exchanges.push((path, way.exchange(&request).await));
    }
    Finding {
        scenario: scenario.what,
        way: W::NAME,
        verdict: judge(&exchanges),
        expected,
        exchanges,
    }
}

fn judge(exchanges: &[(&str, Result<Answer, String>)]) -> Verdict {
    let is_own = |path: &str, answer: &Answer| {
        answer.status == 200 && answer.body == sink::body(path).as_bytes()
    };
    let is_mixed = |(path, result): &(&str, Result<Answer, String>)| {
        result.as_ref().is_ok_and(|answer| !is_own(path, answer))
    };
    let mut later = exchanges.iter().skip(1).map(|(_, result)| result);
    if exchanges.iter().any(is_mixed) {
        Verdict::Mixed
    } else if exchanges.last().is_some_and(|(_, last)| last.is_err()) {
        Verdict::Stuck
    } else if later.any(|result| result.is_err()) {
        Verdict::Recovered
    } else {
        Verdict::Sound
    }
}

impl Finding {
    /// Whether the result is the documented one.
    pub fn is_expected(&self) -> bool {
        self.verdict == self.expected
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}: {}", self.way, self.verdict)?;
        for (path, result) in &self.exchanges {
            match result {
                Ok(answer) => {
                    let body = String::from_utf8_lossy(&answer.body);
                    writeln!(f, "    {path:<9} {} {body:?}", answer.status)?;
                }
                Err(error) => writeln!(f, "    {path:<9} failed: {error}")?,
            }
        }
        if !self.is_expected() {
            writeln!(f, "    NOT AS EXPECTED: {}", self.expected)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_its_cause() {
        let own = |path| {
            Ok(Answer {
                status: 200,
                body: sink::body(path).into(),
            })
        };
        let failed = || Err("timeout".to_owned());
        for (results, verdict) in [
            ([own("/slow"), own("/a"), own("/b")], Verdict::Sound),
            ([failed(), own("/a"), own("/b")], Verdict::Sound),
            ([own("/slow"), failed(), own("/b")], Verdict::Recovered),
            ([failed(), failed(), failed()], Verdict::Stuck),
            ([failed(), own("/slow"), own("/a")], Verdict::Mixed),
            ([failed(), own("/slow"), failed()], Verdict::Mixed),
        ] {
            let exchanges: Vec<_> = ["/slow", "/a", "/b"].into_iter().zip(results).collect();
            assert_eq!(judge(&exchanges), verdict, "{exchanges:?}");
        }
    }
}

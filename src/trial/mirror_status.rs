//! What a running mirror has counted for the outbounds of a route, from `/status` on its admin port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use serde::Deserialize;

use crate::blocking::client::Server;

/// The part of the status that is needed here.
#[derive(Deserialize)]
struct Status {
    routes: Vec<RouteStatus>,
}

#[derive(Deserialize)]
struct RouteStatus {
    name: String,
    outbounds: Vec<OutboundStatus>,
}

/// The counts of an outbound since the start of the mirror.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(super) struct OutboundStatus {
    pub(super) name: String,
    /// How many deliveries have ended, by outcome.
    #[serde(default)]
    pub(super) outcomes: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) last_error: Option<LastError>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct LastError {
    at: String,
    pub(super) message: String,
}

impl OutboundStatus {
    /// What has ended since `earlier`, by outcome.
    pub(super) fn ended_since(&self, earlier: &OutboundStatus) -> BTreeMap<String, u64> {
        let before = |outcome: &str| earlier.outcomes.get(outcome).copied().unwrap_or(0);
        let increases = self
            .outcomes
            .iter()
            .map(|(outcome, count)| (outcome.clone(), count.saturating_sub(before(outcome))));
        increases.filter(|(_, count)| *count > 0).collect()
    }

    /// The last error, if it is not that of `earlier`.
    pub(super) fn error_since(&self, earlier: &OutboundStatus) -> Option<&LastError> {
        let is_new = self.last_error != earlier.last_error;
        self.last_error.as_ref().filter(|_| is_new)
    }
}

/// Asks the admin port for the outbounds of a route.
///
/// # Errors
/// Why it gives none, for the operator.
pub(super) fn outbounds_of(
    admin: SocketAddr,
    route: &str,
    deadline: Instant,
) -> Result<Vec<OutboundStatus>, String> {
    let server = Server {
        host: admin.ip().to_string(),
        port: admin.port(),
        tls: None,
        connect: None,
    };
    let request = format!("GET /status HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let answer = server.ask(request.as_bytes(), deadline);
    let answer = answer.map_err(|failure| failure.to_string())?;
    if answer.status() != 200 {
        return Err(format!("{admin} answers {}", answer.status()));
    }
    find(&answer.message.body, route).ok_or_else(|| {
        format!(
            "the mirror at {admin} has no route {route}; does it run with this configuration, and was it reloaded?"
        )
    })
}

fn find(body: &[u8], route: &str) -> Option<Vec<OutboundStatus>> {
    let status: Status = serde_json::from_slice(body).ok()?;
    let mut routes = status.routes.into_iter();
    Some(routes.find(|known| known.name == route)?.outbounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_since_is_the_difference_of_two_answers() {
        let status = |outcomes: &str, error: &str| {
            let body = format!(
                "{{\"stage\":\"ready\",\"routes\":[{{\"name\":\"other\",\"outbounds\":[]}},{{\"name\":\"shop\",\"outbounds\":[{{\"name\":\"eu\",\"delivered\":7,\"outcomes\":{outcomes},\"last_error\":{error}}}]}}]}}"
            );
            find(body.as_bytes(), "shop").unwrap().remove(0)
        };
        let error = "{\"at\":\"1\",\"message\":\"no\"}";
        let before = status("{\"2xx\":5}", "null");
        let after = status("{\"2xx\":7,\"connect\":1}", error);
        let ended: Vec<_> = after.ended_since(&before).into_iter().collect();
        assert_eq!(ended, [("2xx".to_owned(), 2), ("connect".to_owned(), 1)]);
        assert_eq!(after.error_since(&before).unwrap().message, "no");
        assert_eq!(after.error_since(&after), None);
        assert!(after.ended_since(&after).is_empty());
        assert_eq!(find(b"{\"routes\":[]}", "shop"), None);
        assert_eq!(find(b"starting", "shop"), None);
    }
}

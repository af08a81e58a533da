//! Asks running mirrors and the web API of Sentry.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use crate::blocking::client::{Answer, Server};
use crate::config::SentryApi;
use crate::net::tls_client::{TlsClient, TlsIdentity};
use crate::parity::counts::{Counts, Period};
use crate::parity::stats::{self, Stats};
use crate::sentry::dsn::Scheme;
use crate::telemetry::words;

/// How often to ask again where Sentry limits how often it may be asked.
const ATTEMPTS: usize = 4;

/// How long to wait before that, if Sentry does not say.
const PAUSE_DEFAULT: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The maximum length of the part of an answer that is shown.
const SHOWN_BYTES_MAX: usize = 200;

/// What the mirror with this admin port has counted by hour.
///
/// # Errors
/// Why it is not known, for the operator.
pub(super) fn counts(admin: SocketAddr, deadline: Instant) -> Result<Counts, String> {
    let server = Server {
        host: admin.ip().to_string(),
        port: admin.port(),
        tls: None,
        connect: None,
    };
    let request = format!("GET /hours HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let answer = server
        .ask(request.as_bytes(), deadline)
        .map_err(|failure| format!("the mirror does not answer on its admin port: {failure}"))?;
    match answer.status() {
        200 => Counts::from_json(&answer.message.body)
            .map_err(|error| format!("the answer of {admin} cannot be read: {error}")),
        status => Err(format!("{admin} answers {status} to /hours")),
    }
}

/// What Sentry has counted for `project`.
///
/// # Errors
/// Why it is not known, for the operator.
pub(super) fn stats(
    api: &SentryApi,
    tls: Option<&TlsClient>,
    project: &str,
    period: Period,
    deadline: Instant,
) -> Result<Stats, String> {
    let server = server(api, tls)?;
    let target = stats::target(&api.prefix, &api.organization, project, period);
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nUser-Agent: sentry-mirror/{}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        api.origin.authority(),
        env!("CARGO_PKG_VERSION"),
        api.token.as_str()
    );
    let mut attempt = 1;
    loop {
        let answer = server
            .ask(request.as_bytes(), deadline)
            .map_err(|failure| failure.to_string())?;
        match answer.status() {
            200 => return stats::parse(&answer.message.body, period),
            429 if attempt < ATTEMPTS => thread::sleep(pause(&answer)),
            status => return Err(refusal(api, status, &answer.message.body)),
        }
        attempt += 1;
    }
}

fn server(api: &SentryApi, tls: Option<&TlsClient>) -> Result<Server, String> {
    let origin = &api.origin;
    let identity = match (origin.scheme, tls) {
        (Scheme::Https, Some(client)) => Some(TlsIdentity {
            config: client.config.clone(),
            server_name: ServerName::try_from(origin.host.clone())
                .map_err(|error| format!("{origin}: {error}"))?,
        }),
        _ => None,
    };
    Ok(Server {
        host: origin.host.clone(),
        port: origin.port,
        tls: identity,
        connect: None,
    })
}

/// How long to wait after a 429.
fn pause(answer: &Answer) -> Duration {
    let seconds = answer.message.field("retry-after");
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    seconds
        .map_or(PAUSE_DEFAULT, Duration::from_secs)
        .min(PAUSE_MAX)
}

fn refusal(api: &SentryApi, status: u16, body: &[u8]) -> String {
    let organization = &api.organization;
    let advice = match status {
        401 => "the token is not valid".to_owned(),
        403 => format!("the token may not read {organization}; it needs the scope org:read"),
        404 => format!(
            "there is no organization {organization} there; is its slug right, and sentry_api.url?"
        ),
        429 => "Sentry limits how often it may be asked; try again later".to_owned(),
        _ => String::new(),
    };
    let said = words::sanitized(body, SHOWN_BYTES_MAX, &[api.token.as_str()]);
    match advice.is_empty() {
        true => format!("{} answers {status}: {said:?}", api.origin),
        false => format!("{} answers {status}: {advice} ({said:?})", api.origin),
    }
}

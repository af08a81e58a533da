//! The access log: one line for each request, once all that belongs to it has ended.
//!
//! An entry is shared by the connection that brought the request and by its deliveries. Each adds what it
//! knows; whoever lets go of it last writes the line, to standard output through a thread of its own.
//! Where the log is off there is no entry, and none of this costs anything.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tracing::{info, warn};

use crate::config::LogFormat;
use crate::mirror::counters::{OutcomeKind, RequestResult};
use crate::mirror::rejection::Reason;
use crate::mirror::routes::Route;
use crate::telemetry::label::Label;
use crate::telemetry::lines::{DropReason, Lines, LinesGuard};
use crate::telemetry::timestamp::rfc3339;

/// The longest method that is replied in full; those of HTTP are shorter.
const METHOD_BYTES_MAX: usize = 16;

/// The bytes of lines that may wait to be written. A reader that stops for some seconds loses nothing.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where the lines go.
#[derive(Clone)]
pub struct AccessLog {
    lines: Lines,
    format: LogFormat,
}

impl AccessLog {
    /// A log to standard output. The guard keeps it alive; dropping that writes what is still queued.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn to_stdout(format: LogFormat) -> io::Result<(AccessLog, LinesGuard)> {
        let tell = |result: Result<(), &io::Error>| match result {
            Ok(()) => info!("the access log can be written again"),
            Err(error) => {
                warn!(%error, "the access log cannot be written to standard output; its lines are lost until it can");
            }
        };
        let (lines, guard) = Lines::start("access-log", QUEUE_BYTES_MAX, io::stdout(), tell)?;
        Ok((AccessLog { lines, format }, guard))
    }

    /// How many lines were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.lines.dropped(reason)
    }

    /// The entry of a request that began at `started`.
    pub fn entry(&self, peer: SocketAddr, started: Instant) -> Rc<AccessLogEntry> {
        Rc::new(AccessLogEntry {
            log: self.clone(),
            peer,
            at: SystemTime::now(),
            started,
            known: RefCell::default(),
        })
    }
}

/// What is known of one request so far.
pub struct AccessLogEntry {
    log: AccessLog,
    peer: SocketAddr,
    at: SystemTime,
    started: Instant,
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    request: Option<Request>,
    reply: Option<ReplySummary>,
    deliveries: Vec<(usize, OutcomeKind, Duration)>,
}

struct Request {
    method: String,
    endpoint: &'static str,
    route: Option<Arc<Route>>,
    received_bytes: usize,
}

/// What the SDK was replied.
pub struct ReplySummary {
    /// In a word.
    pub answered: RequestResult,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// The status; `None` where nobody was there to be replied.
    pub status: Option<u16>,
    /// The bytes of the reply's body.
    pub body_bytes: usize,
}

impl AccessLogEntry {
    /// Adds what the request was.
    pub fn request(
        &self,
        method: &[u8],
        endpoint: &'static str,
        route: Option<&Arc<Route>>,
        received_bytes: usize,
    ) {
        let method = method.get(..METHOD_BYTES_MAX).unwrap_or(method);
        self.known.borrow_mut().request = Some(Request {
            method: String::from_utf8_lossy(method).into_owned(),
            endpoint,
            route: route.map(Arc::clone),
            received_bytes,
        });
    }

    /// Adds what the SDK was replied.
    pub fn replied(&self, replied: ReplySummary) {
        self.known.borrow_mut().reply = Some(replied);
    }

    /// Adds how the delivery to the outbound with this index ended.
    pub fn delivered(&self, index: usize, outcome: OutcomeKind, after: Duration) {
        let mut known = self.known.borrow_mut();
        known.deliveries.push((index, outcome, after));
    }

    fn line(&self) -> String {
        let mut known = self.known.borrow_mut();
        known.deliveries.sort_by_key(|(index, _, _)| *index);
        let line = Line {
            entry: self,
            known: &known,
        };
        match self.log.format {
            LogFormat::Json => line.json(),
            LogFormat::Text => line.text(),
        }
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let mut line = self.line();
        line.push('\n');
        self.log.lines.push(line.as_bytes());
    }
}

struct Line<'e> {
    entry: &'e AccessLogEntry,
    known: &'e Known,
}

impl Line<'_> {
    fn route(&self) -> Option<&Route> {
        self.known.request.as_ref()?.route.as_deref()
    }

    fn deliveries(&self) -> impl Iterator<Item = (&str, &'static str, f64)> {
        let outbounds = self.route().map_or(&[][..], |route| &route.outbounds);
        let deliveries = self.known.deliveries.iter();
        deliveries.filter_map(|(index, outcome, after)| {
            let name = outbounds.get(*index)?.name.as_str();
            Some((name, outcome.word(), millis(*after)))
        })
    }

    fn json(&self) -> String {
        let Known { request, reply, .. } = self.known;
        let request = request.as_ref();
        let reply = reply.as_ref();
        let deliveries: Vec<_> = self
            .deliveries()
            .map(|(outbound, outcome, ms)| json!({"outbound": outbound, "outcome": outcome, "ms": ms}))
            .collect();
        let line = json!({
            "at": rfc3339(self.entry.at),
            "peer": self.entry.peer.to_string(),
            "method": request.map(|request| request.method.as_str()),
            "endpoint": request.map(|request| request.endpoint),
            "route": self.route().map(|route| route.name.as_str()),
            "received_bytes": request.map(|request| request.received_bytes),
            "answer": reply.map(|reply| reply.answered.word()),
            "reason": reply.and_then(|reply| reply.reason).map(Label::word),
            "status": reply.and_then(|reply| reply.status),
            "reply_bytes": reply.map(|reply| reply.body_bytes),
            "ms": millis(self.entry.started.elapsed()),
            "deliveries": deliveries,
        });
        line.to_string()
    }

    fn text(&self) -> String {
        let Known { request, reply, .. } = self.known;
        let mut line = format!("{} peer={}", rfc3339(self.entry.at), self.entry.peer);
        // Writing to a String cannot fail.
        if let Some(request) = request {
            let method = quoted(&request.method);
            let _ = write!(line, " method={method} endpoint={}", request.endpoint);
            if let Some(route) = self.route() {
                let _ = write!(line, " route={}", quoted(&route.name));
            }
            let _ = write!(line, " received_bytes={}", request.received_bytes);
        }
        if let Some(reply) = reply {
            let _ = write!(line, " answer={}", reply.answered.word());
            if let Some(reason) = reply.reason {
                let _ = write!(line, " reason={}", reason.word());
            }
            if let Some(status) = reply.status {
                let _ = write!(line, " status={status} reply_bytes={}", reply.body_bytes);
            }
        }
        let _ = write!(line, " ms={}", millis(self.entry.started.elapsed()));
        for (outbound, outcome, ms) in self.deliveries() {
            let _ = write!(line, " delivery=\"{outbound} {outcome} {ms}ms\"");
        }
        line
    }
}

/// With quotes around it where it would not be one word. What a client sent has no control characters
/// and no quotes here: a method is a token.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains(' ') {
        format!("\"{text}\"").into()
    } else {
        text.into()
    }
}

/// Milliseconds with one decimal place.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

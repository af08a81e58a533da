//! The access log: one line per request, written when its reply and all its deliveries have ended.
//!
//! The SDK's connection and the deliveries share an entry, and each adds its fields. Dropping the last
//! reference ends the line. Each worker collects its lines, and queues them as a block once it has some
//! kilobytes or a moment has passed; a dedicated thread writes the blocks to standard output. If the access log is
//! off, there are no entries and no cost.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tracing::{info, warn};

use crate::config::LogFormat;
use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{OutcomeKind, RequestResult};
use crate::mirror::request::Request;
use crate::mirror::request::event_id::event_id;
use crate::mirror::request::request_id::RequestId;
use crate::mirror::request::sender::Sender;
use crate::mirror::routing::local_route::LocalRoute;
use crate::mirror::routing::routes::Route;
use crate::sentry::category::Category;
use crate::telemetry::label::Label;
use crate::telemetry::line_buffer::LineBuffer;
use crate::telemetry::lines::{DropReason, Lines, LinesGuard};
use crate::telemetry::timestamp::rfc3339;

/// Longer methods are truncated. The standard methods are shorter.
const METHOD_BYTES_MAX: usize = 16;

/// The maximum size of the queue of lines. It holds some seconds of lines while the reader of the log stalls.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The access log of the process.
#[derive(Clone)]
pub struct AccessLog {
    lines: Lines,
    format: LogFormat,
}

/// The access log as one worker writes it.
pub struct WorkerAccessLog {
    lines: LineBuffer,
    format: LogFormat,
}

impl AccessLog {
    /// Starts a log to standard output. Dropping the guard writes the queued lines and stops the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn to_stdout(format: LogFormat) -> io::Result<(AccessLog, LinesGuard)> {
        let on_change = |result: Result<(), &io::Error>| match result {
            Ok(()) => info!("the access log can be written again"),
            Err(error) => {
                warn!(%error, "cannot write the access log to standard output; its lines are lost until writing succeeds again");
            }
        };
        let (lines, guard) = Lines::start("access-log", QUEUE_BYTES_MAX, io::stdout(), on_change)?;
        Ok((AccessLog { lines, format }, guard))
    }

    /// The number of lines dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.lines.dropped(reason)
    }

    pub fn for_worker(&self) -> Rc<WorkerAccessLog> {
        Rc::new(WorkerAccessLog {
            lines: LineBuffer::new(self.lines.clone()),
            format: self.format,
        })
    }
}

impl WorkerAccessLog {
    /// Queues the lines that are collected. Must be called now and then, and at the shutdown.
    pub fn flush(&self) {
        self.lines.flush();
    }

    /// An entry for a request that began at `started`.
    pub fn entry(
        self: &Rc<Self>,
        id: RequestId,
        peer: SocketAddr,
        client: IpAddr,
        started: Instant,
    ) -> AccessLogEntry {
        AccessLogEntry {
            id,
            log: Rc::clone(self),
            peer,
            client,
            at: SystemTime::now(),
            started,
            fields: RefCell::default(),
        }
    }
}

/// The line of one request, which is written when this is dropped.
pub struct AccessLogEntry {
    log: Rc<WorkerAccessLog>,
    id: RequestId,
    peer: SocketAddr,
    client: IpAddr,
    at: SystemTime,
    started: Instant,
    fields: RefCell<Fields>,
}

#[derive(Default)]
struct Fields {
    request: Option<RequestFields>,
    /// The categories of the items, each once.
    categories: Vec<Category>,
    reply: Option<ReplyFields>,
    deliveries: Vec<(usize, OutcomeKind, Duration)>,
}

struct RequestFields {
    method: String,
    endpoint: &'static str,
    route: Option<LocalRoute>,
    received_bytes: usize,
    sender: Sender,
    event_id: Option<String>,
}

/// The reply to the SDK.
pub struct ReplyFields {
    pub result: RequestResult,
    /// Why the mirror rejected the request.
    pub reason: Option<Reason>,
    /// `None` if the SDK had disconnected before the reply.
    pub status: Option<u16>,
    pub body_bytes: usize,
}

impl AccessLogEntry {
    pub(crate) fn record_request(&self, request: &Request) {
        let method = request.method();
        let method = method.get(..METHOD_BYTES_MAX).unwrap_or(method);
        self.fields.borrow_mut().request = Some(RequestFields {
            method: String::from_utf8_lossy(method).into_owned(),
            endpoint: request.target.endpoint.label(),
            route: request.route.clone(),
            received_bytes: request.head.len() + request.received_bytes,
            sender: Sender::new(request, self.client),
            event_id: event_id(request),
        });
    }

    /// Records the categories of a request. `None` is an item without a category.
    pub(crate) fn record_categories(&self, categories: &[Option<Category>]) {
        let mut fields = self.fields.borrow_mut();
        for category in categories.iter().flatten() {
            if !fields.categories.contains(category) {
                fields.categories.push(*category);
            }
        }
    }

    pub fn record_reply(&self, reply: ReplyFields) {
        self.fields.borrow_mut().reply = Some(reply);
    }

    /// Records the outcome of a delivery to the outbound at `index`, which ended so long `after` the start of the
    /// fan-out.
    pub fn record_delivery(&self, index: usize, outcome: OutcomeKind, after: Duration) {
        let mut fields = self.fields.borrow_mut();
        fields.deliveries.push((index, outcome, after));
    }

    fn line(&self) -> String {
        let mut fields = self.fields.borrow_mut();
        fields.deliveries.sort_by_key(|(index, _, _)| *index);
        let line = Line {
            entry: self,
            fields: &fields,
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
    fields: &'e Fields,
}

impl Line<'_> {
    fn route(&self) -> Option<&Route> {
        self.fields.request.as_ref()?.route.as_deref()
    }

    fn categories(&self) -> Vec<&'static str> {
        let categories = self.fields.categories.iter();
        categories.map(|category| category.name()).collect()
    }

    fn deliveries(&self) -> impl Iterator<Item = (&str, &'static str, f64)> {
        let outbounds = self.route().map_or(&[][..], |route| &route.outbounds);
        let deliveries = self.fields.deliveries.iter();
        deliveries.filter_map(|(index, outcome, after)| {
            let name = outbounds.get(*index)?.name.as_str();
            Some((name, outcome.word(), millis(*after)))
        })
    }

    fn json(&self) -> String {
        let Fields { request, reply, .. } = self.fields;
        let request = request.as_ref();
        let sender = request.map(|request| &request.sender);
        let reply = reply.as_ref();
        let deliveries: Vec<_> = self
            .deliveries()
            .map(|(outbound, outcome, ms)| json!({"outbound": outbound, "outcome": outcome, "ms": ms}))
            .collect();
        let line = json!({
            "at": rfc3339(self.entry.at),
            "request": self.entry.id.to_string(),
            "peer": self.entry.peer.to_string(),
            "client": self.entry.client.to_string(),
            "method": request.map(|request| request.method.as_str()),
            "endpoint": request.map(|request| request.endpoint),
            "route": self.route().map(|route| route.name.as_str()),
            "project": sender.and_then(|sender| sender.project.as_deref()),
            "sdk": sender.and_then(|sender| sender.sdk.as_deref()),
            "event_id": request.and_then(|request| request.event_id.as_deref()),
            "categories": self.categories(),
            "received_bytes": request.map(|request| request.received_bytes),
            "answer": reply.map(|reply| reply.result.word()),
            "reason": reply.and_then(|reply| reply.reason).map(Label::word),
            "status": reply.and_then(|reply| reply.status),
            "reply_bytes": reply.map(|reply| reply.body_bytes),
            "ms": millis(self.entry.started.elapsed()),
            "deliveries": deliveries,
        });
        line.to_string()
    }

    fn write_request(&self, request: &RequestFields, line: &mut String) {
        let RequestFields {
            method,
            endpoint,
            received_bytes,
            sender,
            event_id,
            ..
        } = request;
        // Writing to a String cannot fail.
        let method = quoted(method);
        let _ = write!(line, " method={method} endpoint={endpoint}");
        let route = self.route().map(|route| route.name.as_str());
        let texts = [
            ("route", route),
            ("project", sender.project.as_deref()),
            ("sdk", sender.sdk.as_deref()),
            ("event_id", event_id.as_deref()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                let _ = write!(line, " {name}={}", quoted(text));
            }
        }
        let categories = self.categories();
        if !categories.is_empty() {
            let _ = write!(line, " categories={}", categories.join(","));
        }
        let _ = write!(line, " received_bytes={received_bytes}");
    }

    fn text(&self) -> String {
        let Fields { request, reply, .. } = self.fields;
        let AccessLogEntry {
            id,
            at,
            peer,
            client,
            ..
        } = self.entry;
        let mut line = format!("{} request={id} peer={peer} client={client}", rfc3339(*at));
        // Writing to a String cannot fail.
        if let Some(request) = request {
            self.write_request(request, &mut line);
        }
        if let Some(reply) = reply {
            let _ = write!(line, " answer={}", reply.result.word());
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

/// Puts `text` in quotes if it contains a space, a quote or an equals sign. Control characters are escaped
/// before.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([' ', '"', '=']) {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{text}\"").into()
    } else {
        text.into()
    }
}

/// Milliseconds, rounded to one decimal place.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

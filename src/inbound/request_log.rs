//! Counts a request and fills its entry in the access log.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use tracing::debug;
use tracing::field::{DisplayValue, display};

use crate::inbound::connection::Abort;
use crate::mirror::core::Core;
use crate::mirror::reply::Reply;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::reporting::access_log::{AccessLogEntry, ReplyFields};
use crate::mirror::reporting::counters::RequestResult;
use crate::mirror::request::Request;
use crate::mirror::request::request_id::RequestId;
use crate::mirror::request::request_trace::RequestTrace;
use crate::mirror::request::sender::Sender;
use crate::mirror::routing::routes::Route;
use crate::telemetry::label::Label;

/// The counters and the access log entry of one request.
pub(super) struct RequestLog<'c> {
    core: &'c Core,
    peer: SocketAddr,
    client: IpAddr,
    started: Instant,
    trace: Option<Rc<RequestTrace>>,
}

impl<'c> RequestLog<'c> {
    /// For a request whose head has arrived.
    pub(super) fn begin(core: &'c Core, peer: SocketAddr, client: IpAddr) -> RequestLog<'c> {
        let started = Instant::now();
        RequestLog {
            core,
            peer,
            client,
            started,
            trace: core.trace(peer, client, started),
        }
    }

    /// The trace of the request, if a log needs it. Its entry in the access log is written when the last
    /// reference is dropped.
    pub(super) fn trace(&self) -> Option<Rc<RequestTrace>> {
        self.trace.clone()
    }

    /// Releases the trace, because the reply is recorded.
    pub(super) fn without_trace(self) -> RequestLog<'c> {
        RequestLog {
            trace: None,
            ..self
        }
    }

    /// Records the reply to a request, before it is written.
    pub(super) fn record_reply(&self, request: &Request, reply: &Result<Reply, Abort>) {
        let result = match reply {
            Ok(reply) => {
                self.log_reply(request, reply);
                reply.result()
            }
            Err(Abort::Gone) => RequestResult::Abandoned,
            Err(Abort::Rejected(rejection)) => {
                self.log_rejection(rejection);
                self.record_unknown_key(request, rejection);
                RequestResult::Rejected
            }
        };
        self.core
            .counters
            .count_request(result, request.route.as_deref());
        let Some(entry) = self.entry() else { return };
        entry.record_request(request);
        entry.record_reply(match reply {
            Ok(reply) => ReplyFields {
                result,
                reason: None,
                status: Some(reply.status()),
                body_bytes: reply.body_bytes(),
            },
            Err(Abort::Gone) => ReplyFields {
                result,
                reason: None,
                status: None,
                body_bytes: 0,
            },
            Err(Abort::Rejected(rejection)) => rejection_fields(rejection),
        });
    }

    /// Records a request whose head is rejected.
    pub(super) fn record_rejection(&self, rejection: &Rejection) {
        self.log_rejection(rejection);
        self.core
            .counters
            .count_request(RequestResult::Rejected, None);
        if let Some(entry) = self.entry() {
            entry.record_reply(rejection_fields(rejection));
        }
    }

    /// Records that the reply to a request of `route` has been written.
    pub(super) fn record_written(&self, route: Option<&Route>) {
        if let Some(route) = route {
            let counters = route.counters.for_worker(self.core.counters.worker);
            counters.request_time.record_since(self.started);
        }
    }

    fn log_reply(&self, request: &Request, reply: &Reply) {
        let route = request.route.as_ref().map(|route| route.name.as_str());
        debug!(
            request = self.id(),
            peer = %self.peer,
            client = %self.client,
            route,
            endpoint = request.target.endpoint.label(),
            status = reply.status(),
            result = reply.result().word(),
            ms = self.started.elapsed().as_secs_f64() * 1e3,
            "request answered"
        );
    }

    fn record_unknown_key(&self, request: &Request, rejection: &Rejection) {
        let Some(key) = rejection.unknown_key() else {
            return;
        };
        let sender = || Sender::new(request, self.client);
        self.core.unknown_keys.borrow_mut().record(key, sender);
    }

    fn entry(&self) -> Option<&AccessLogEntry> {
        self.trace.as_ref()?.entry.as_ref()
    }

    /// The id of the request for log lines.
    fn id(&self) -> Option<DisplayValue<RequestId>> {
        self.trace.as_ref().map(|trace| display(trace.id))
    }

    fn log_rejection(&self, rejection: &Rejection) {
        self.core.counters.rejections.inc(rejection.reason());
        debug!(request = self.id(), peer = %self.peer, client = %self.client, status = rejection.status(), reason = %rejection, "request rejected");
    }
}

fn rejection_fields(rejection: &Rejection) -> ReplyFields {
    ReplyFields {
        result: RequestResult::Rejected,
        reason: Some(rejection.reason()),
        status: Some(rejection.status()),
        body_bytes: Reply::rejection(rejection).body_bytes(),
    }
}

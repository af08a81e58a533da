//! Counting a request, and adding what is known of it to the access log.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tracing::debug;

use crate::inbound::connection::Abort;
use crate::mirror::access_log::{AccessLogEntry, ReplySummary};
use crate::mirror::core::Core;
use crate::mirror::counters::RequestResult;
use crate::mirror::rejection::Rejection;
use crate::mirror::reply::Reply;
use crate::mirror::request::Request;
use crate::mirror::routes::Route;

/// What is counted and logged of one request.
pub(super) struct RequestLog<'c> {
    core: &'c Core,
    peer: SocketAddr,
    started: Instant,
    entry: Option<Rc<AccessLogEntry>>,
}

impl<'c> RequestLog<'c> {
    /// For a request whose head has come.
    pub(super) fn begin(core: &'c Core, peer: SocketAddr) -> RequestLog<'c> {
        let started = Instant::now();
        RequestLog {
            core,
            peer,
            started,
            entry: core.access_entry(peer, started),
        }
    }

    /// Its entry in the access log, if there is one. That is written when nobody holds it any more.
    pub(super) fn entry(&self) -> Option<Rc<AccessLogEntry>> {
        self.entry.clone()
    }

    /// The same without the entry, which is complete on this side.
    pub(super) fn without_entry(self) -> RequestLog<'c> {
        RequestLog {
            entry: None,
            ..self
        }
    }

    /// Records a request whose reply is known.
    pub(super) fn answered(&self, request: &Request, answer: &Result<Reply, Abort>) {
        let result = match answer {
            Ok(reply) => reply.result(),
            Err(Abort::Gone) => RequestResult::Abandoned,
            Err(Abort::Rejected(rejection)) => {
                self.log_rejection(rejection);
                RequestResult::Rejected
            }
        };
        self.core
            .counters
            .count_request(result, request.route.as_deref());
        let Some(entry) = &self.entry else { return };
        entry.record_request(
            request.method(),
            request.target.endpoint.label(),
            request.route.as_ref(),
            request.head.len() + request.received_bytes,
        );
        entry.record_reply(match answer {
            Ok(reply) => ReplySummary {
                result,
                reason: None,
                status: Some(reply.status()),
                body_bytes: reply.body_bytes(),
            },
            Err(Abort::Gone) => ReplySummary {
                result,
                reason: None,
                status: None,
                body_bytes: 0,
            },
            Err(Abort::Rejected(rejection)) => told_rejection(rejection),
        });
    }

    /// Records a request whose head is refused.
    pub(super) fn rejected(&self, rejection: &Rejection) {
        self.log_rejection(rejection);
        self.core
            .counters
            .count_request(RequestResult::Rejected, None);
        if let Some(entry) = &self.entry {
            entry.record_reply(told_rejection(rejection));
        }
    }

    /// Records that the reply to a request by `route` is written.
    pub(super) fn replied(&self, route: Option<&Route>) {
        if let Some(route) = route {
            let counters = route.counters.for_worker(self.core.counters.worker);
            counters.request_time.record_since(self.started);
        }
    }

    fn log_rejection(&self, rejection: &Rejection) {
        self.core.counters.rejections.inc(rejection.reason());
        debug!(peer = %self.peer, status = rejection.status(), reason = %rejection, "request refused");
    }
}

fn told_rejection(rejection: &Rejection) -> ReplySummary {
    ReplySummary {
        result: RequestResult::Rejected,
        reason: Some(rejection.reason()),
        status: Some(rejection.status()),
        body_bytes: Reply::rejection(rejection).body_bytes(),
    }
}

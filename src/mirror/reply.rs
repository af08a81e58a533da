//! The bytes we send back to the SDK.
//!
//! Every reply has a length, a reason phrase, the date and the CORS headers that Relay sends, errors included:
//! without them a browser hides the status from the SDK. What an outbound answers is text or data to a
//! browser, never a page or a script of the mirror's own, but for the script of the crash-report dialog.
//! `Retry-After` never goes with a 2xx, where
//! several SDKs would take it for a ban on everything (sentry-javascript 11, sentry-rust 0.49).

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::http::header_writer;
use crate::mirror::counters::RequestResult;
use crate::mirror::media_type;
use crate::mirror::outcome::{Outcome, SkipReason};
use crate::mirror::rate_limit_store::{DEFAULT_RETRY_SECONDS, retry_seconds};
use crate::mirror::rejection::Rejection;
use crate::mirror::reply_policy::Decision;
use crate::mirror::request::Request;
use crate::sentry::endpoint::{CannedResponse, Endpoint};
use crate::sentry::rate_limits::{self, RateLimit};
use crate::telemetry::timestamp::HttpDate;
use crate::upstream::response::{MemoryPermit, Response};

/// What Relay's CORS layer lets a browser send with a request.
const ALLOWED_HEADERS: &str = "x-sentry-auth,x-requested-with,x-forwarded-for,origin,referer,accept,content-type,authentication,authorization,content-encoding,transfer-encoding";

/// What a 429 says where nothing is limited at every outbound. Without the field SDKs stop sending
/// anything for a minute, or for as long as `Retry-After` says; beside it they do not look at that, and
/// they pass over categories that they do not know.
const LIMIT_ON_NOTHING: &str = "1:none:organization";

/// A body up to this size is written together with its head.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// What a client asks to be answered, apart from the content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyFraming {
    /// The answer goes without its body, as to HEAD.
    pub is_head: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0, which has to be told that the connection stays open.
    pub is_http10: bool,
}

/// What a reply depends on besides the outcomes.
pub(crate) struct ReplyContext<'r> {
    /// What every live outbound has asked not to be sent.
    pub common_limits: Vec<RateLimit>,
    /// The primary's answer is passed on whatever it is.
    pub is_strict: bool,
    /// What the client understands.
    pub expected: Expected,
    /// What it is a reply to.
    pub request: &'r Request,
}

/// What a client understands of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Whatever an API answers with.
    Anything,
    /// SDKs take nothing but 200 with a JSON object for a success here: Java and Elixir send again what
    /// was answered otherwise, although it was accepted.
    Object,
    /// The script of the crash-report dialog.
    Script,
}

/// A reply before it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    status: u16,
    content_type: Option<Bytes>,
    /// The other fields, which are rare in an answer to a delivery.
    fields: Vec<(&'static str, Bytes)>,
    body: Bytes,
    /// What the body takes of the memory budget, until it is written.
    _memory: MemoryPermit,
    /// What it is counted as, if not by its status.
    result: Option<RequestResult>,
}

impl Reply {
    /// A reply without a body.
    pub(crate) fn empty(status: u16) -> Reply {
        Reply {
            status,
            ..Reply::default()
        }
    }

    /// A success that concerns only the mirror itself.
    fn local() -> Reply {
        Reply {
            result: Some(RequestResult::Local),
            ..Reply::empty(200)
        }
    }

    /// The answer to a health check.
    pub(crate) fn health() -> Reply {
        Reply::local().with_body("text/plain", Bytes::from_static(b"ok\n"))
    }

    /// The answer to a Relay that asks whether its upstream is alive.
    pub(crate) fn alive() -> Reply {
        let body = Bytes::from_static(br#"{"is_healthy":true}"#);
        Reply::local().with_body("application/json", body)
    }

    /// The answer to a preflight request for `endpoint`.
    pub(crate) fn preflight(endpoint: Endpoint) -> Reply {
        Reply::local()
            .with("Allow", endpoint.allow_header())
            .with("Access-Control-Allow-Methods", endpoint.allow_header())
            .with("Access-Control-Allow-Headers", allowed_headers(endpoint))
            .with("Access-Control-Max-Age", "3600")
    }

    /// The answer to a refused request.
    pub(crate) fn rejection(rejection: &Rejection) -> Reply {
        let reply = Reply::empty(rejection.status()).with_detail(&rejection.to_string());
        match rejection {
            Rejection::Method(endpoint) => reply.with("Allow", endpoint.allow_header()),
            Rejection::Encoding => reply.with("Accept-Encoding", "zstd,gzip,deflate,br"),
            _ => reply,
        }
    }

    /// The answer that `decision` on `outcomes` asks for.
    pub(crate) fn from_decision(
        decision: Decision,
        outcomes: &[Option<Outcome>],
        context: ReplyContext<'_>,
    ) -> Reply {
        let common_limits = &context.common_limits;
        match decision {
            Decision::Answer(index) => match outcomes.get(index) {
                Some(Some(Outcome::Answered(response))) => {
                    let is_strict = context.is_strict && index == 0;
                    Reply::answer(response, is_strict, context)
                }
                Some(Some(_) | None) | None => Reply::unavailable(),
            },
            Decision::Success => {
                let mut reply = Reply::success(context.request.success());
                // Otherwise nobody wanted it, and all is as it should be.
                let is_unconfirmed = outcomes.iter().any(Option::is_none);
                reply.result = is_unconfirmed.then_some(RequestResult::Unconfirmed);
                reply.with_limits(common_limits)
            }
            Decision::RateLimited => Reply::rate_limited(outcomes, common_limits),
            Decision::TooLarge => {
                Reply::empty(413).with_detail("request too large for every outbound")
            }
            Decision::Unavailable => Reply::unavailable(),
        }
    }

    /// The answer where an upstream's cannot be passed on.
    pub(crate) fn blocked() -> Reply {
        Reply::empty(502).with_detail("response of the upstream blocked")
    }

    /// The script in it, if it is one.
    pub(crate) fn script(&self) -> Option<&[u8]> {
        let content_type = self.content_type.as_deref()?;
        (self.status == 200 && media_type::is_script(content_type)).then_some(&*self.body)
    }

    /// The same reply with another body.
    pub(crate) fn with_script(mut self, script: Vec<u8>) -> Reply {
        self.body = script.into();
        self
    }

    /// All in it that an upstream may have written.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let fields = self.fields.iter().map(|(_, value)| &**value);
        let content_type = self.content_type.as_deref();
        fields.chain(content_type).chain([&*self.body])
    }

    /// Whether its body is in a coding, so that nobody has looked into it.
    pub(crate) fn is_encoded(&self) -> bool {
        let mut names = self.fields.iter().map(|(name, _)| *name);
        names.any(|name| name == "Content-Encoding")
    }

    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// How many bytes its body has.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// What it tells the SDK.
    pub(crate) fn result(&self) -> RequestResult {
        self.result
            .unwrap_or_else(|| RequestResult::from_status(self.status))
    }

    /// Appends the reply to `out`, but for a large body, which is returned. A server with a clock says
    /// when it answered (RFC 9110 section 6.6.1).
    pub(crate) fn write(
        &self,
        reply_framing: ReplyFraming,
        date: &HttpDate,
        out: &mut Vec<u8>,
    ) -> Bytes {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason_phrase(self.status).as_bytes());
        out.extend_from_slice(
            b"\r\nAccess-Control-Allow-Origin: *\
              \r\nAccess-Control-Expose-Headers: x-sentry-error,x-sentry-rate-limits,retry-after\
              \r\nCross-Origin-Resource-Policy: cross-origin\
              \r\nX-Content-Type-Options: nosniff\r\n",
        );
        header_writer::append(out, "Date", date);
        if let Some(content_type) = &self.content_type {
            header_writer::append(out, "Content-Type", content_type);
        }
        for (name, value) in &self.fields {
            header_writer::append(out, name, value);
        }
        // What the answer to GET would be long is not known where the upstream has not said it.
        let is_unknown = reply_framing.is_head && self.body.is_empty();
        if self.status != 204 && !is_unknown {
            header_writer::append_number(out, "Content-Length", self.body.len());
        }
        if !reply_framing.keep_alive {
            header_writer::append(out, "Connection", b"close");
        } else if reply_framing.is_http10 {
            header_writer::append(out, "Connection", b"keep-alive");
        }
        out.extend_from_slice(b"\r\n");
        if reply_framing.is_head || self.status == 204 {
            return Bytes::new();
        }
        if self.body.len() > COPY_BYTES_MAX {
            return self.body.clone();
        }
        out.extend_from_slice(&self.body);
        Bytes::new()
    }

    fn answer(response: &Response, is_strict: bool, context: ReplyContext<'_>) -> Reply {
        let is_accepted = (200..300).contains(&response.status);
        let is_misleading = response.status != 200 || !is_object(&response.body);
        let must_be_object = context.expected == Expected::Object;
        if is_accepted && is_misleading && must_be_object && !is_strict {
            let reply = Reply::success(context.request.success());
            return reply.with_limits(&context.common_limits);
        }
        let rare_headers = response.rare_headers();
        let mut reply = Reply::empty(response.status)
            .with_field("Content-Encoding", &rare_headers.content_encoding)
            .with_field("X-Sentry-Error", &rare_headers.sentry_error);
        if let Some(content_type) = &response.content_type {
            let may_be_script = context.expected == Expected::Script && response.status == 200;
            reply = reply.with_content_type(content_type, may_be_script);
        }
        reply.body = response.body.clone();
        reply._memory = response.memory.clone();
        match (is_accepted, is_strict) {
            // What one outbound asks for would silence the SDK for the others too.
            (_, false) => reply.with_limits(&context.common_limits),
            (true, true) => reply.with_field("X-Sentry-Rate-Limits", &rare_headers.rate_limits),
            (false, true) => reply
                .with_field("X-Sentry-Rate-Limits", &rare_headers.rate_limits)
                .with_field("Retry-After", &rare_headers.retry_after),
        }
    }

    fn success(canned: CannedResponse) -> Reply {
        let reply = Reply::empty(canned.status);
        match canned.content_type {
            Some(content_type) => {
                reply.with_body(content_type, Bytes::from(canned.body.into_owned()))
            }
            None => reply,
        }
    }

    fn rate_limited(outcomes: &[Option<Outcome>], common_limits: &[RateLimit]) -> Reply {
        let pause = |outcome: &Outcome| match outcome {
            Outcome::Answered(response) => {
                (response.status == 429).then(|| retry_seconds(response))
            }
            Outcome::Skipped(SkipReason::RateLimited(seconds)) => Some(*seconds),
            Outcome::Skipped(_) | Outcome::Failed(_) | Outcome::Panicked => None,
        };
        let pause = outcomes.iter().flatten().filter_map(pause).min();
        let reply = Reply::empty(429).with_detail("rate limited by every outbound");
        let reply = match common_limits {
            // Each takes what another does not.
            [] => reply.with("X-Sentry-Rate-Limits", LIMIT_ON_NOTHING),
            limits => reply.with_limits(limits),
        };
        reply.with_seconds("Retry-After", pause.unwrap_or(DEFAULT_RETRY_SECONDS))
    }

    fn unavailable() -> Reply {
        Reply::empty(503).with_detail("no outbound accepted the request")
    }

    /// Takes over the content type of an upstream, if a browser may see it as that.
    fn with_content_type(mut self, content_type: &Bytes, may_be_script: bool) -> Reply {
        let is_passed_on = media_type::is_harmless(content_type)
            || may_be_script && media_type::is_script(content_type);
        if is_passed_on {
            self.content_type = Some(content_type.clone());
        } else if media_type::is_xml(content_type) {
            self.content_type = Some(content_type.clone());
            self = self.with("Content-Security-Policy", media_type::XML_POLICY);
        } else {
            self.content_type = Some(Bytes::from_static(media_type::PLAIN));
        }
        self
    }

    /// Announces limits, if there are any.
    fn with_limits(self, limits: &[RateLimit]) -> Reply {
        if limits.is_empty() {
            return self;
        }
        let value = rate_limits::header_value(limits);
        self.with_bytes("X-Sentry-Rate-Limits", value.into())
    }

    /// Passes a field on as it came, if it did.
    fn with_field(self, name: &'static str, value: &Option<Bytes>) -> Reply {
        match value {
            Some(value) => self.with_bytes(name, value.clone()),
            None => self,
        }
    }

    fn with(self, name: &'static str, value: &'static str) -> Reply {
        self.with_bytes(name, Bytes::from_static(value.as_bytes()))
    }

    fn with_seconds(self, name: &'static str, seconds: u32) -> Reply {
        self.with_bytes(name, seconds.to_string().into())
    }

    fn with_bytes(mut self, name: &'static str, value: Bytes) -> Reply {
        self.fields.push((name, value));
        self
    }

    fn with_body(mut self, content_type: &'static str, body: Bytes) -> Reply {
        self.content_type = Some(Bytes::from_static(content_type.as_bytes()));
        self.body = body;
        self
    }

    /// Relay's error shape.
    fn with_detail(self, detail: &str) -> Reply {
        let body = serde_json::json!({ "detail": detail }).to_string();
        self.with_body("application/json", body.into())
    }
}

/// What a browser may send with a request. The form of the crash-report dialog is sent by a page
/// whose tracing adds its own fields (sentry-javascript #8823).
fn allowed_headers(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::ErrorPage => "content-type,authorization,x-requested-with,baggage,sentry-trace",
        _ => ALLOWED_HEADERS,
    }
}

/// Whether a body is a whole JSON object, as Relay answers with. What it is called does not matter: SDKs
/// that care try to read it.
fn is_object(body: &[u8]) -> bool {
    let body = body.trim_ascii_start();
    body.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        // The phrase is not optional for some old clients, but its text does not matter.
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_object_is_an_answer_of_relay() {
        for body in [
            "{}",
            " {}\n",
            r#"{"id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#,
            r#"{"id": null, "more": [1, {"a": "\u00e9"}]}"#,
        ] {
            assert!(is_object(body.as_bytes()), "{body}");
            for end in 0..body.trim_end().len() {
                assert!(!is_object(&body.as_bytes()[..end]), "{body} cut at {end}");
            }
        }
        for body in [
            "",
            "ok",
            "[]",
            "null",
            "1",
            "\"{}\"",
            "{}{}",
            "{} x",
            "<p>{}</p>",
            "{a:1}",
        ] {
            assert!(!is_object(body.as_bytes()), "{body}");
        }
    }
}

//! The replies to SDKs.
//!
//! Every reply has a length, a reason phrase, the date and the CORS headers that Relay sends. Errors have them
//! too: without CORS headers a browser hides the status from the SDK. A browser never gets a page or a script
//! from an outbound, except the script of the crash-report dialog. A 2xx never contains `Retry-After`, because
//! several SDKs would stop sending everything (sentry-javascript 11, sentry-rust 0.49).
//!
//! Only [`reply_policy`] decides the reply from the outcomes. [`rejection`] lists every reason to reject a request, and
//! [`crash_dialog`] rewrites the only script that the mirror serves.

pub(crate) mod crash_dialog;
mod media_type;
pub(crate) mod refusal;
pub(crate) mod rejected_key;
pub(crate) mod rejection;
pub(crate) mod reply_policy;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::http::header_writer;
use crate::mirror::fan_out::outcome::{Outcome, SkipReason};
use crate::mirror::outbound::rate_limit_store::{DEFAULT_RETRY_SECONDS, retry_seconds};
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::reply::reply_policy::Decision;
use crate::mirror::reporting::counters::RequestResult;
use crate::mirror::request::Request;
use crate::sentry::endpoint::{CannedResponse, Endpoint};
use crate::sentry::rate_limits::{self, RateLimit};
use crate::telemetry::timestamp::HttpDate;
use crate::upstream::response::{MemoryPermit, Response};

/// The request headers that Relay's CORS layer allows.
const ALLOWED_HEADERS: &str = "x-sentry-auth,x-requested-with,x-forwarded-for,origin,referer,accept,content-type,authentication,authorization,content-encoding,transfer-encoding";

/// The `X-Sentry-Rate-Limits` of a 429 if the outbounds have no limit in common. A 429 without this header makes
/// SDKs stop sending everything, for a minute or for the time in `Retry-After`. A 429 with it does not: SDKs then
/// ignore `Retry-After`, and also this limit, because they do not know its category.
const LIMIT_ON_NOTHING: &str = "1:none:organization";

/// A body up to this size is copied after its head, so that one write sends both.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// The form of a reply that a client requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyFraming {
    /// The request is a HEAD: the reply has no body.
    pub is_head: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The client uses HTTP/1.0, so it expects an explicit `Connection: keep-alive`.
    pub is_http10: bool,
}

/// The data that a reply needs besides the outcomes.
pub(crate) struct ReplyContext<'r> {
    /// The rate limits that all live outbounds have in common.
    pub common_limits: Vec<RateLimit>,
    /// The primary's response is forwarded unchanged.
    pub is_strict: bool,
    pub expected: Expected,
    pub request: &'r Request,
}

/// The responses that a client understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any API response.
    Anything,
    /// A success must be 200 with a JSON object. After any other success, the Java and Elixir SDKs send the
    /// event again.
    Object,
    /// The script of the crash-report dialog.
    Script,
}

/// A reply before it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    status: u16,
    content_type: Option<Bytes>,
    /// Other headers. Most replies have none.
    headers: Vec<(&'static str, Bytes)>,
    body: Bytes,
    /// The memory of the body, until it is written.
    _memory: MemoryPermit,
    /// The result to count, if it does not follow from the status.
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

    /// A success that the mirror sends by itself.
    fn local() -> Reply {
        Reply {
            result: Some(RequestResult::Local),
            ..Reply::empty(200)
        }
    }

    pub(crate) fn health() -> Reply {
        Reply::local().with_body("text/plain", Bytes::from_static(b"ok\n"))
    }

    /// The reply to a Relay that checks whether its upstream is alive.
    pub(crate) fn alive() -> Reply {
        let body = Bytes::from_static(br#"{"is_healthy":true}"#);
        Reply::local().with_body("application/json", body)
    }

    /// The reply to a preflight request for `endpoint`.
    pub(crate) fn preflight(endpoint: Endpoint) -> Reply {
        Reply::local()
            .with("Allow", endpoint.allow_header())
            .with("Access-Control-Allow-Methods", endpoint.allow_header())
            .with("Access-Control-Allow-Headers", allowed_headers(endpoint))
            .with("Access-Control-Max-Age", "3600")
    }

    pub(crate) fn rejection(rejection: &Rejection) -> Reply {
        let reply = Reply::empty(rejection.status()).with_detail(&rejection.to_string());
        match rejection {
            Rejection::Method(endpoint) => reply.with("Allow", endpoint.allow_header()),
            Rejection::Encoding => reply.with("Accept-Encoding", "zstd,gzip,deflate,br"),
            _ => reply,
        }
    }

    /// The reply for a `decision` on `outcomes`.
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
                // Otherwise no outbound wanted the request, or its rate limits are hidden from this client.
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

    /// The reply in place of a response that must not be forwarded.
    pub(crate) fn blocked() -> Reply {
        Reply::empty(502).with_detail("response of the upstream blocked")
    }

    /// The script in the body, if it is one.
    pub(crate) fn script(&self) -> Option<&[u8]> {
        let content_type = self.content_type.as_deref()?;
        (self.status == 200 && media_type::is_script(content_type)).then_some(&*self.body)
    }

    pub(crate) fn with_script(mut self, script: Vec<u8>) -> Reply {
        self.body = script.into();
        self
    }

    /// All texts in the reply that may come from an upstream.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let headers = self.headers.iter().map(|(_, value)| &**value);
        let content_type = self.content_type.as_deref();
        headers.chain(content_type).chain([&*self.body])
    }

    /// Whether the body has a content coding, so that it cannot be searched.
    pub(crate) fn is_encoded(&self) -> bool {
        let mut names = self.headers.iter().map(|(name, _)| *name);
        names.any(|name| name == "Content-Encoding")
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The result to count for the request.
    pub(crate) fn result(&self) -> RequestResult {
        self.result
            .unwrap_or_else(|| RequestResult::from_status(self.status))
    }

    /// Appends the reply to `out`, except a large body, which it returns. A server with a clock must send the
    /// date (RFC 9110 section 6.6.1).
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
        for (name, value) in &self.headers {
            header_writer::append(out, name, value);
        }
        // Without a body, the length of the response to a GET is unknown.
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
            .with_optional("Content-Encoding", &rare_headers.content_encoding)
            .with_optional("X-Sentry-Error", &rare_headers.sentry_error);
        if let Some(content_type) = &response.content_type {
            let may_be_script = context.expected == Expected::Script && response.status == 200;
            reply = reply.with_content_type(content_type, may_be_script);
        }
        reply.body = response.body.clone();
        reply._memory = response.memory.clone();
        match (is_accepted, is_strict) {
            // The limits of one outbound would silence the SDK for all others.
            (_, false) => reply.with_limits(&context.common_limits),
            (true, true) => reply.with_optional("X-Sentry-Rate-Limits", &rare_headers.rate_limits),
            (false, true) => reply
                .with_optional("X-Sentry-Rate-Limits", &rare_headers.rate_limits)
                .with_optional("Retry-After", &rare_headers.retry_after),
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
            // Each category is accepted by some outbound.
            [] => reply.with("X-Sentry-Rate-Limits", LIMIT_ON_NOTHING),
            limits => reply.with_limits(limits),
        };
        reply.with_seconds("Retry-After", pause.unwrap_or(DEFAULT_RETRY_SECONDS))
    }

    fn unavailable() -> Reply {
        Reply::empty(503).with_detail("no outbound accepted the request")
    }

    /// Sets the content type of an upstream's response, or a safe replacement.
    fn with_content_type(mut self, content_type: &Bytes, may_be_script: bool) -> Reply {
        let is_safe = media_type::is_harmless(content_type)
            || may_be_script && media_type::is_script(content_type);
        if is_safe {
            self.content_type = Some(content_type.clone());
        } else if media_type::is_xml(content_type) {
            self.content_type = Some(content_type.clone());
            self = self.with("Content-Security-Policy", media_type::XML_POLICY);
        } else {
            self.content_type = Some(Bytes::from_static(media_type::PLAIN));
        }
        self
    }

    fn with_limits(self, limits: &[RateLimit]) -> Reply {
        if limits.is_empty() {
            return self;
        }
        let value = rate_limits::header_value(limits);
        self.with_bytes("X-Sentry-Rate-Limits", value.into())
    }

    fn with_optional(self, name: &'static str, value: &Option<Bytes>) -> Reply {
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
        self.headers.push((name, value));
        self
    }

    fn with_body(mut self, content_type: &'static str, body: Bytes) -> Reply {
        self.content_type = Some(Bytes::from_static(content_type.as_bytes()));
        self.body = body;
        self
    }

    /// Sets a body in the format of Relay's errors.
    fn with_detail(self, detail: &str) -> Reply {
        let body = serde_json::json!({ "detail": detail }).to_string();
        self.with_body("application/json", body.into())
    }
}

/// The request headers that a browser may send. For the form of the crash-report dialog, they include those
/// that the tracing of the page adds (sentry-javascript #8823).
fn allowed_headers(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::ErrorPage => "content-type,authorization,x-requested-with,baggage,sentry-trace",
        _ => ALLOWED_HEADERS,
    }
}

/// Whether a body is a complete JSON object, as in Relay's responses. The content type is ignored: SDKs that need
/// the body try to parse it.
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
        // Some old clients require a phrase, but ignore its text.
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_json_object_counts_as_a_response_of_relay() {
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

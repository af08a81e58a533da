//! A request from an SDK, with its route and its edits.
//!
//! `inbound::handle` fills it in step by step. After that it is immutable, and the deliveries and transforms
//! share it. [`head_edits`] lists what changes in its head, and [`client_address`] tells which client it is from. A
//! [`sender`] is who sent it, and a [`request_trace`] ties its log lines together.

pub(super) mod classify;
pub(crate) mod client_address;
pub(crate) mod event_id;
pub(crate) mod head_edits;
pub(super) mod item_count;
pub(crate) mod request_id;
pub(super) mod request_summary;
pub(crate) mod request_trace;
pub(crate) mod sender;

use std::net::IpAddr;

use bytes::Bytes;

use crate::http::encoding::Encoding;
use crate::http::head::{HeaderName, RequestHead};
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::routing::local_route::LocalRoute;
use crate::runtime::slices::Slices;
use crate::sentry::category::Category;
use crate::sentry::edit::{EDITS_MAX, Edit};
use crate::sentry::endpoint::{self, CannedResponse, Endpoint, Target};
use crate::sentry::envelope::{EnvelopeError, EnvelopeHeader};
use crate::sentry::envelope_index::Indexer;

/// The number of edits of each kind for which an idle connection keeps memory. SDKs need about ten.
const RETAINED_EDITS_MAX: usize = 64;

#[derive(Clone, Default)]
pub struct Request {
    /// The request line and header lines as received.
    pub head: Bytes,
    /// Their positions in `head`.
    pub parsed: RequestHead,
    pub target: Target,
    /// The edits in the head. Once complete, they are sorted by position and do not overlap.
    pub head_edits: Vec<Edit>,
    pub body: Body,
    /// The edits in the body, sorted by position, without overlap.
    pub body_edits: Vec<Edit>,
    /// The envelope header, if the body is an envelope.
    pub envelope: Option<EnvelopeHeader>,
    pub route: Option<LocalRoute>,
    /// The route of the key in `trace.public_key`, if it is not `route`.
    pub trace_route: Option<LocalRoute>,
    /// The address to append to `X-Forwarded-For` for outbounds that get it.
    pub client: Option<IpAddr>,
    /// The length of the received body.
    pub received_bytes: usize,
    /// Whether the listener has ended TLS.
    pub came_over_tls: bool,
}

#[derive(Clone, Default)]
pub struct Body {
    /// The whole body if `is_whole`, otherwise its first lines or nothing.
    pub decoded: Bytes,
    pub is_whole: bool,
    /// The body as received, if some outbound may get it in this form.
    pub encoded: Option<Bytes>,
    /// The coding of the received body.
    pub encoding: Encoding,
}

impl Body {
    /// A whole body that was received without a coding.
    pub fn plain(decoded: Bytes) -> Body {
        Body {
            decoded,
            is_whole: true,
            encoded: None,
            encoding: Encoding::Identity,
        }
    }
}

impl Request {
    /// Clears the request. Keeps only as much memory as usual requests need, so that an idle connection stays
    /// small.
    pub(crate) fn clear(&mut self) {
        for edits in [&mut self.head_edits, &mut self.body_edits] {
            edits.clear();
            edits.shrink_to(RETAINED_EDITS_MAX);
        }
        self.head = Bytes::new();
        self.body = Body::default();
        self.envelope = None;
        self.route = None;
        self.trace_route = None;
        self.client = None;
        self.received_bytes = 0;
    }

    /// Determines the endpoint from the path.
    ///
    /// # Errors
    /// Upstreams might interpret the path in different ways.
    pub(crate) fn parse_target(&mut self) -> Result<(), Rejection> {
        let (head, target) = (&self.head, self.parsed.target);
        self.target = endpoint::parse_target(head, target, &mut self.head_edits);
        let has_too_many_slashes = self.head_edits.len() >= EDITS_MAX;
        match has_too_many_slashes || endpoint::has_dot_segment(head, target) {
            true => Err(Rejection::NotFound),
            false => Ok(()),
        }
    }

    /// Sets the envelope header that was found in the body.
    ///
    /// # Errors
    /// The envelope header is malformed. At an unknown endpoint this is not an error: its body may have any format.
    pub(crate) fn set_envelope(
        &mut self,
        envelope: Result<Option<EnvelopeHeader>, EnvelopeError>,
    ) -> Result<(), Rejection> {
        self.envelope = match envelope {
            Err(_) if self.target.endpoint == Endpoint::Generic => None,
            envelope => envelope.map_err(Rejection::Envelope)?,
        };
        Ok(())
    }

    /// The method as received.
    pub(crate) fn method(&self) -> &[u8] {
        self.parsed.method_span.slice(&self.head)
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&[u8]> {
        self.parsed.values(name, &self.head).next()
    }

    /// Whether the body must be an envelope.
    pub(crate) fn is_envelope(&self) -> bool {
        match self.target.endpoint {
            Endpoint::Envelope | Endpoint::Tunnel => true,
            Endpoint::Store | Endpoint::Generic => self
                .parsed
                .values(HeaderName::ContentType, &self.head)
                .any(|value| value.starts_with(b"application/x-sentry-envelope")),
            _ => false,
        }
    }

    /// The categories of the request for rate limits; none at endpoints without rate limits. Walks over the
    /// headers of items in slices.
    pub(crate) async fn categories(&self) -> Vec<Option<Category>> {
        if !self.target.endpoint.has_rate_limits() {
            return Vec::new();
        }
        let Some(envelope) = self.envelope.filter(|_| self.body.is_whole) else {
            return vec![Category::from_endpoint(self.target.endpoint)];
        };
        let mut indexer = Indexer::new(&self.body.decoded, envelope.end, None);
        let mut slices = Slices::for_scans();
        let is_whole = loop {
            match indexer.step() {
                Ok(Some(walked_bytes)) => slices.spend(walked_bytes).await,
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        indexer.categories(is_whole)
    }

    /// The endpoint's response to a request that it accepts.
    pub(crate) fn success(&self) -> CannedResponse {
        let event_id = self.envelope.and_then(|envelope| envelope.event_id);
        let event_id = event_id.map(|span| span.slice(&self.body.decoded));
        let content_type = self.header(HeaderName::ContentType);
        self.target
            .endpoint
            .success(self.method(), event_id, content_type)
    }
}

//! One request from an SDK: what came, where it goes, and what changes in it.
//!
//! A connection fills it in step by step, see `inbound::handle`. From then on it never changes, and the
//! tasks that make something of it for some outbounds share it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::http::encoding::Encoding;
use crate::http::head::{HeaderName, RequestHead};
use crate::mirror::rejection::Rejection;
use crate::mirror::routes::Route;
use crate::runtime::slices::Slices;
use crate::sentry::category::Category;
use crate::sentry::edit::{EDITS_MAX, Edit};
use crate::sentry::endpoint::{self, CannedResponse, Endpoint, Target};
use crate::sentry::envelope::{EnvelopeError, EnvelopeHeader};
use crate::sentry::envelope_index::Indexer;

/// How many edits of each kind a connection keeps room for. SDKs need about ten.
const KEPT_EDITS_MAX: usize = 64;

/// A request from an SDK.
#[derive(Clone, Default)]
pub struct Request {
    /// The request line and header lines, as they came.
    pub head: Bytes,
    /// Where they are in `head`.
    pub parsed: RequestHead,
    pub target: Target,
    /// What changes in the head. Once complete: in order of position, without overlap.
    pub head_edits: Vec<Edit>,
    pub body: Body,
    /// What changes in the body, in order of position, without overlap.
    pub body_edits: Vec<Edit>,
    /// The header of the body, if that is an envelope.
    pub envelope: Option<EnvelopeHeader>,
    pub route: Option<Arc<Route>>,
    /// The other route whose inbound key is in `trace.public_key`.
    pub trace_route: Option<Arc<Route>>,
    /// The SDK's address, if it is to be appended to `X-Forwarded-For`.
    pub client: Option<IpAddr>,
    /// The length of the body as it came.
    pub received_bytes: usize,
}

/// The body of a request.
#[derive(Clone, Default)]
pub struct Body {
    /// All of it if `is_whole`, otherwise its first lines, or nothing.
    pub decoded: Bytes,
    pub is_whole: bool,
    /// The body as it came, if some outbound may get it like that.
    pub encoded: Option<Bytes>,
    /// The coding it came in.
    pub encoding: Encoding,
}

impl Body {
    /// A body that came without a coding.
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
    /// Forgets all but the memory that a usual request needs, so that an idle connection stays small.
    pub(crate) fn clear(&mut self) {
        for edits in [&mut self.head_edits, &mut self.body_edits] {
            edits.clear();
            edits.shrink_to(KEPT_EDITS_MAX);
        }
        self.head = Bytes::new();
        self.body = Body::default();
        self.envelope = None;
        self.route = None;
        self.trace_route = None;
        self.client = None;
        self.received_bytes = 0;
    }

    /// Finds out what the request asks for.
    ///
    /// # Errors
    /// The path is one that upstreams might read in different ways.
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
    /// There is none, but at an endpoint that is not known: there the body may be anything.
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

    /// The method as it came.
    pub(crate) fn method(&self) -> &[u8] {
        self.parsed.method_span.slice(&self.head)
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&[u8]> {
        self.parsed.values(name, &self.head).next()
    }

    /// Whether the body has to be an envelope.
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

    /// The categories that rate limits can be about: none at an endpoint where they do not count. It
    /// walks over the headers of items in slices.
    pub(crate) async fn categories(&self) -> Vec<Option<Category>> {
        if !self.target.endpoint.has_rate_limits() {
            return Vec::new();
        }
        let Some(envelope) = self.envelope.filter(|_| self.body.is_whole) else {
            return vec![Category::from_endpoint(self.target.endpoint)];
        };
        let mut indexer = Indexer::new(&self.body.decoded, envelope.end, None);
        let mut slices = Slices::of_walks();
        let is_whole = loop {
            match indexer.step() {
                Ok(Some(walked_bytes)) => slices.spend(walked_bytes).await,
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        indexer.categories(is_whole)
    }

    /// What the endpoint answers to a request that it accepts.
    pub(crate) fn success(&self) -> CannedResponse {
        let event_id = self.envelope.and_then(|envelope| envelope.event_id);
        let event_id = event_id.map(|span| span.slice(&self.body.decoded));
        let content_type = self.header(HeaderName::ContentType);
        self.target
            .endpoint
            .success(self.method(), event_id, content_type)
    }
}

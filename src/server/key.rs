//! Which key a request is routed by, and what it means where there is none.
//!
//! Mostly it stands in the head. An envelope may name it in its own header alone, which is what the SDK
//! option `tunnel` sends; what turns out to be no such envelope is refused as Relay would refuse it.

use std::sync::Arc;

use crate::http::head::{FieldName, Method};
use crate::mirror::rejection::Rejection;
use crate::mirror::routes::Route;
use crate::sentry::auth::{self, AuthField, FoundKey, Source};
use crate::sentry::dsn;
use crate::sentry::edit::Put;
use crate::sentry::endpoint::{Endpoint, Target};
use crate::sentry::envelope::{self, EnvelopeHeader};
use crate::server::inbound::Exchange;
use crate::server::worker::Routing;

impl Exchange {
    /// Finds the key in the head, and edits all places of it.
    pub(super) fn find_key(
        &mut self,
        head: &[u8],
        target: &Target,
    ) -> Result<Option<FoundKey>, Rejection> {
        if target.endpoint == Endpoint::ErrorPage {
            let query = target.query.ok_or(Rejection::NoKey)?;
            return Ok(auth::find_in_dsn_parameter(
                head,
                query,
                &mut self.head_edits,
            ));
        }
        let fields = self.head.fields.iter().filter_map(|field| {
            let source = match field.name {
                FieldName::XSentryAuth => AuthField::XSentryAuth,
                FieldName::Authorization => AuthField::Authorization,
                _ => return None,
            };
            Some((source, field.value))
        });
        let (query, path_key) = (target.query, target.path_key);
        let found = auth::find(head, fields, query, path_key, &mut self.head_edits);
        let found = found.map_err(Rejection::Auth)?;
        if target.lacks_project && is_meant_for_sentry(target, found.as_ref()) {
            return Err(Rejection::BadProject);
        }
        if target.endpoint == Endpoint::Tunnel {
            // The password of the site that the tunnel is on: none of an outbound's business.
            for edit in &mut self.head_edits {
                if matches!(edit.put, Put::BasicCredentials { .. }) {
                    edit.put = Put::Nothing;
                }
            }
        }
        Ok(found)
    }
}

/// Whether the key may stand in the body alone: the SDK option `tunnel` sends it nowhere else, and to
/// whatever path the user wants.
pub(super) fn may_name_key_in_body(endpoint: Endpoint, method: Method) -> bool {
    match endpoint {
        Endpoint::Envelope | Endpoint::Tunnel => true,
        Endpoint::Generic => method == Method::Post,
        _ => false,
    }
}

/// Whether what looks like a tunnel is none, since its head names a key of Sentry's. Basic auth may be
/// that of the site a tunnel is on.
fn is_meant_for_sentry(target: &Target, key: Option<&FoundKey>) -> bool {
    target.names_key || key.is_some_and(|key| key.source != Source::Basic)
}

/// The refusal of a request whose key was looked for in its body, in vain.
pub(super) fn refuse_without_key(target: &Target, key: Option<&FoundKey>) -> Rejection {
    match target.endpoint {
        Endpoint::Generic => Rejection::NoKey,
        // Relay has nothing at such a path.
        Endpoint::Tunnel if is_meant_for_sentry(target, key) => Rejection::NotFound,
        _ => Rejection::NoEnvelopeKey,
    }
}

/// The key in the `dsn` of an envelope header.
pub(super) fn envelope_key(envelope: Option<&EnvelopeHeader>, body: &[u8]) -> Option<Vec<u8>> {
    let dsn = envelope.and_then(|envelope| envelope.dsn);
    let text = dsn.map(|dsn| envelope::unescape(dsn.of(body)));
    text.as_deref()
        .and_then(dsn::key_in_text)
        .map(<[u8]>::to_vec)
}

pub(super) fn find_route<'r>(
    routing: &'r Routing,
    key: &[u8],
) -> Result<&'r Arc<Route>, Rejection> {
    routing.plan.routes.find(key).ok_or_else(|| {
        if auth::is_well_formed(key) {
            Rejection::UnknownKey
        } else {
            Rejection::BadKey
        }
    })
}

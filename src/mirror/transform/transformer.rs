//! Makes the bodies for outbounds with a transform.
//!
//! Each transform of the route filters, copies and compresses the request, once for all outbounds with this
//! transform. Large bodies are processed in slices, with pauses in which the core serves other connections. The
//! memory of the results counts against the memory budget. If it is exhausted, only these deliveries fail.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::http::head::Method;
use crate::mirror::cap::capping::CapRequest;
use crate::mirror::core::Core;
use crate::mirror::fan_out::FanOut;
use crate::mirror::fan_out::outcome::{Outcome, SkipReason};
use crate::mirror::fan_out::render::OutboundBody;
use crate::mirror::outbound::rate_limit_store::limited_seconds;
use crate::mirror::request::Request;
use crate::mirror::routing::routes::Route;
use crate::mirror::transform::compression::{Compressions, compress};
use crate::mirror::transform::copies::{self, Template};
use crate::mirror::transform::filter::PartialBody;
use crate::mirror::transform::selector::{Filtered, NoBody, Selector};
use crate::mirror::transform::{BodyEncoding, Transform};
use crate::runtime::slices::{Slices, concat};
use crate::sentry::endpoint::Endpoint;

pub(crate) struct Transformed<'t> {
    /// The index of the outbound in the route.
    pub(crate) index: usize,
    pub(crate) body: &'t OutboundBody,
    /// The memory of all results so far.
    pub(crate) memory_bytes: usize,
    /// Whether this is a further copy.
    pub(crate) is_copy: bool,
}

/// Transforms a request for the outbounds of `fan_out` with a transform, and calls `deliver` for each body and
/// outbound. Records an outcome in `fan_out` for each outbound without a body.
pub(crate) async fn run(
    core: &Core,
    request: &Request,
    fan_out: &FanOut,
    deliver: impl Fn(Transformed<'_>),
) {
    let route = fan_out.route();
    let mut transformer = Transformer {
        core,
        request,
        selector: Selector::new(request, route.samples, core.budget.reservation()),
        compressions: Compressions::default(),
    };
    for (transform_index, transform) in route.transforms.iter().enumerate() {
        let asking = transformer.asking(route, transform);
        let filtered = match transformer
            .selector
            .filter(transform.selection, asking)
            .await
        {
            Ok(filtered) => filtered,
            Err(cause) => {
                for (index, _) in route.with_transform(transform_index) {
                    fan_out.skip(index, cause.into());
                }
                continue;
            }
        };
        let indices = transformer
            .without_rate_limit(transform_index, fan_out, &filtered)
            .await;
        if indices.is_empty() {
            continue;
        }
        let mut template = None;
        for copy in 1..=transformer.copy_count(transform) {
            let is_copy = copy > 1;
            let body = transformer
                .body(transform, &filtered, copy, &mut template)
                .await;
            for index in &indices {
                match &body {
                    Ok(body) => deliver(Transformed {
                        index: *index,
                        body,
                        memory_bytes: transformer.selector.memory.bytes(),
                        is_copy,
                    }),
                    Err(cause) if is_copy => fan_out.skip_copy(*index, &(*cause).into()),
                    Err(cause) => fan_out.skip(*index, (*cause).into()),
                }
            }
        }
    }
    fan_out.hold_memory(transformer.selector.memory);
}

/// Makes the bodies of one request.
struct Transformer<'t> {
    core: &'t Core,
    request: &'t Request,
    selector: Selector<'t>,
    compressions: Compressions,
}

impl Transformer<'_> {
    /// The caps for a transform.
    fn asking<'r>(&self, route: &'r Route, transform: &Transform) -> Option<CapRequest<'r>> {
        let outbound = route.outbounds.get(transform.capped?)?;
        Some(CapRequest {
            caps: outbound.caps.as_deref()?,
            worker: self.core.counters.worker,
            copies: self.copy_count(transform),
            now: Instant::now(),
        })
    }

    /// The indices of the outbounds with a transform whose rate limits do not block the whole filtered request.
    /// Skips the others.
    async fn without_rate_limit(
        &self,
        transform_index: usize,
        fan_out: &FanOut,
        filtered: &Filtered,
    ) -> Vec<usize> {
        let now = Instant::now();
        let mut categories = None;
        let mut indices = Vec::new();
        for (index, outbound) in fan_out.route().with_transform(transform_index) {
            if let Some(split) = &filtered.split {
                fan_out.split_items(index, split);
            }
            if categories.is_none() && outbound.rate_limits.may_limit() {
                categories = Some(filtered.categories(self.request).await);
            }
            let categories = categories.as_deref().unwrap_or_default();
            match limited_seconds(&outbound.rate_limits, categories, now) {
                Some(seconds) => {
                    let reason = SkipReason::RateLimited(seconds);
                    fan_out.skip(index, Outcome::Skipped(reason));
                }
                None => {
                    for refused in &filtered.left_out {
                        self.core.counters.items.inc((*refused).into());
                    }
                    indices.push(index);
                }
            }
        }
        indices
    }

    /// The number of copies. Only envelopes and events are copied: their ids are known.
    fn copy_count(&self, transform: &Transform) -> u32 {
        let is_event = self.request.target.endpoint == Endpoint::Store
            && self.request.parsed.method == Method::Post;
        match self.request.envelope.is_some() || is_event {
            true => transform.copies,
            false => 1,
        }
    }

    /// The body of copy number `copy`, encoded as `transform` requires.
    async fn body(
        &mut self,
        transform: &Transform,
        filtered: &Filtered,
        copy: u32,
        template: &mut Option<Template>,
    ) -> Result<OutboundBody, NoBody> {
        let encoding = self.request.body.encoding;
        let body_encoding = transform.body_encoding(encoding);
        let is_unchanged =
            copy == 1 && filtered.categories.is_none() && filtered.partial.edits.is_empty();
        let codec = match (body_encoding, &self.request.body.encoded) {
            (BodyEncoding::AsReceived(_), Some(encoded)) if is_unchanged => {
                return Ok(OutboundBody::AsReceived(encoded.clone(), encoding.name()));
            }
            (BodyEncoding::Plain, _) => None,
            (BodyEncoding::AsReceived(codec), _) => codec,
            (BodyEncoding::Compressed(codec), _) => Some(codec),
        };
        let partial = match copy {
            1 => filtered.partial.clone(),
            _ => self.copy(&filtered.partial, copy, template).await?,
        };
        match codec {
            Some(codec) if !(partial.front.is_empty() && partial.rest.is_empty()) => {
                let (core, memory) = (self.core, &mut self.selector.memory);
                let compressed = match copy {
                    1 => {
                        self.compressions
                            .compress(&partial.rest, codec, core, memory)
                            .await
                    }
                    // Each further copy has different bytes, so caching is useless.
                    _ => compress(&partial.rest, codec, core, memory)
                        .await
                        .map(Rc::new),
                };
                let compressed = compressed.ok_or(NoBody::OutOfMemory)?;
                Ok(OutboundBody::Compressed(partial, compressed))
            }
            Some(_) | None => Ok(OutboundBody::Plain(partial)),
        }
    }

    async fn copy(
        &mut self,
        partial: &PartialBody,
        copy: u32,
        template: &mut Option<Template>,
    ) -> Result<PartialBody, NoBody> {
        let template = match template {
            Some(template) => template,
            None => template.insert(self.template(partial).await?),
        };
        let length = template.text().len();
        self.selector.reserve(length)?;
        let mut text = concat([template.text()], length).await;
        let mut slices = Slices::new(copies::RENAMED_MAX);
        for ids in template.ids() {
            copies::rename(&mut text, ids, copy);
            slices.spend(ids.len()).await;
        }
        Ok(template.partial(text))
    }

    async fn template(&mut self, partial: &PartialBody) -> Result<Template, NoBody> {
        let segments = [&partial.front[..], &partial.rest];
        let length = segments.iter().map(|segment| segment.len()).sum();
        self.selector.reserve(length)?;
        let text = Bytes::from(concat(segments, length).await);
        let mut found = Vec::new();
        let mut slices = Slices::for_scans();
        for ids in copies::ids(&text, self.request.envelope.is_some()) {
            self.selector.reserve(size_of_val(&*ids.spans))?;
            found.push(ids.spans);
            slices.spend(ids.walked_bytes).await;
        }
        Ok(Template::new(partial, text, found))
    }
}

//! Making what outbounds get that do not take the whole request, once and decoded.
//!
//! For each transform of the route the request is filtered, copied and compressed, once for all outbounds
//! that have it. Large bodies are worked on in slices, with pauses in which the core's other connections
//! are served. All that is made counts in the memory budget: if there is no room for it, these deliveries
//! fail and no other.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::http::head::Method;
use crate::mirror::compression::{Compressions, compress};
use crate::mirror::copies::{self, Template};
use crate::mirror::core::Core;
use crate::mirror::fan_out::FanOut;
use crate::mirror::filter::PartialBody;
use crate::mirror::outcome::{Outcome, SkipReason};
use crate::mirror::rate_limit_store::limited_seconds;
use crate::mirror::render::OutboundBody;
use crate::mirror::request::Request;
use crate::mirror::selector::{Filtered, Nothing, Selector};
use crate::mirror::transform::{Form, Transform};
use crate::runtime::slices::{Slices, concat};
use crate::sentry::endpoint::Endpoint;

/// A body that was made for an outbound.
pub(crate) struct Transformed<'t> {
    /// Which outbound of the route it is for.
    pub(crate) index: usize,
    pub(crate) body: &'t OutboundBody,
    /// How much memory all that was made takes so far.
    pub(crate) memory_bytes: usize,
    /// Whether it is a further copy.
    pub(crate) is_copy: bool,
}

/// Transforms a request for those outbounds of `fan_out` that ask for it, and calls `deliver` for each
/// body. What has no delivery is recorded in `fan_out`.
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
    for (number, transform) in route.transforms.iter().enumerate() {
        let filtered = match transformer.selector.filter(transform.selection).await {
            Ok(filtered) => filtered,
            Err(nothing) => {
                for (index, _) in route.with_transform(number) {
                    fan_out.skip(index, nothing.into());
                }
                continue;
            }
        };
        let indices = transformer.unlimited(number, fan_out, &filtered).await;
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
                    Err(nothing) if is_copy => fan_out.skip_copy(*index, &(*nothing).into()),
                    Err(nothing) => fan_out.skip(*index, (*nothing).into()),
                }
            }
        }
    }
    fan_out.keep(transformer.selector.memory);
}

/// What makes the bodies of one request.
struct Transformer<'t> {
    core: &'t Core,
    request: &'t Request,
    selector: Selector<'t>,
    compressions: Compressions,
}

impl Transformer<'_> {
    /// The outbounds with a transform, by its number, that take what was filtered. The others have limited
    /// all of it.
    async fn unlimited(&self, number: usize, fan_out: &FanOut, filtered: &Filtered) -> Vec<usize> {
        let now = Instant::now();
        let mut categories = None;
        let mut indices = Vec::new();
        for (index, outbound) in fan_out.route().with_transform(number) {
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

    /// How many copies there are to be: only what has ids that are known here is copied.
    fn copy_count(&self, transform: &Transform) -> u32 {
        let is_event = self.request.target.endpoint == Endpoint::Store
            && self.request.parsed.method == Method::Post;
        match self.request.envelope.is_some() || is_event {
            true => transform.copies,
            false => 1,
        }
    }

    /// Copy number `copy` of what was taken, in the form that `transform` asks for.
    async fn body(
        &mut self,
        transform: &Transform,
        filtered: &Filtered,
        copy: u32,
        template: &mut Option<Template>,
    ) -> Result<OutboundBody, Nothing> {
        let encoding = self.request.body.encoding;
        let form = transform.form(encoding);
        let is_unchanged =
            copy == 1 && filtered.categories.is_none() && filtered.partial.edits.is_empty();
        let target = match (form, &self.request.body.encoded) {
            (Form::AsReceived(_), Some(encoded)) if is_unchanged => {
                return Ok(OutboundBody::AsReceived(encoded.clone(), encoding.name()));
            }
            (Form::Plain, _) => None,
            (Form::AsReceived(target), _) => target,
            (Form::Compressed(target), _) => Some(target),
        };
        let partial = match copy {
            1 => filtered.partial.clone(),
            _ => self.copy(&filtered.partial, copy, template).await?,
        };
        match target {
            Some(target) if !(partial.front.is_empty() && partial.rest.is_empty()) => {
                let (core, memory) = (self.core, &mut self.selector.memory);
                let compressed = match copy {
                    1 => {
                        self.compressions
                            .compress(&partial.rest, target, core, memory)
                            .await
                    }
                    // Each further copy has bytes of its own.
                    _ => compress(&partial.rest, target, core, memory)
                        .await
                        .map(Rc::new),
                };
                let compressed = compressed.ok_or(Nothing::Memory)?;
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
    ) -> Result<PartialBody, Nothing> {
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

    /// What copies of `partial` are made from.
    async fn template(&mut self, partial: &PartialBody) -> Result<Template, Nothing> {
        let segments = [&partial.front[..], &partial.rest];
        let length = segments.iter().map(|segment| segment.len()).sum();
        self.selector.reserve(length)?;
        let text = Bytes::from(concat(segments, length).await);
        let mut found = Vec::new();
        let mut slices = Slices::of_walks();
        for ids in copies::ids(&text, self.request.envelope.is_some()) {
            self.selector.reserve(size_of_val(&*ids.spans))?;
            found.push(ids.spans);
            slices.spend(ids.walked_bytes).await;
        }
        Ok(Template::new(partial, text, found))
    }
}

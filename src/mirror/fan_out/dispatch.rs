//! Starts the deliveries of a request.
//!
//! Deliveries to outbounds without a transform begin at once. The others need a transformed body first. That
//! may take longer than an SDK should wait, so it runs in a task of its own, which continues even if the
//! connection closes.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use crate::mirror::core::{Core, Routing};
use crate::mirror::fan_out::FanOut;
use crate::mirror::fan_out::delivery::Delivery;
use crate::mirror::fan_out::outcome::{Outcome, SkipReason};
use crate::mirror::fan_out::render::{self, OutboundBody};
use crate::mirror::outbound::rate_limit_store::limited_seconds;
use crate::mirror::request::Request;
use crate::mirror::transform::transformer::{self, Transformed};
use crate::runtime::panics::caught;
use crate::sentry::category::Category;
use crate::upstream::exchange::Failure;

pub(crate) struct Dispatch {
    pub(crate) core: Rc<Core>,
    pub(crate) routing: Rc<Routing>,
    pub(crate) request: Rc<Request>,
    pub(crate) fan_out: Rc<FanOut>,
}

impl Dispatch {
    /// Starts the deliveries to all outbounds. `categories` are those of the request; they may be empty if no
    /// outbound has rate limits. `is_untransformed` disables all transforms.
    pub(crate) fn start(self, categories: &[Option<Category>], is_untransformed: bool) {
        let now = self.fan_out.started();
        let mut has_transforms = false;
        for (index, outbound) in self.fan_out.outbounds().iter().enumerate() {
            if outbound.transform.is_some() && !is_untransformed {
                has_transforms = true;
                continue;
            }
            match limited_seconds(&outbound.rate_limits, categories, now) {
                Some(seconds) => {
                    let reason = SkipReason::RateLimited(seconds);
                    self.fan_out.skip(index, Outcome::Skipped(reason));
                }
                None => self.deliver(index, &OutboundBody::Whole, 0, false, now),
            }
        }
        if has_transforms {
            monoio::spawn(self.transform());
        }
    }

    async fn transform(self) {
        let transforming = pin!(transformer::run(
            &self.core,
            &self.request,
            &self.fan_out,
            |transformed| self.deliver_transformed(transformed)
        ));
        if caught(transforming).await.is_err() {
            self.fan_out.fail_transformed();
        }
    }

    fn deliver_transformed(&self, transformed: Transformed<'_>) {
        let Transformed {
            index,
            body,
            memory_bytes,
            is_copy,
        } = transformed;
        self.deliver(index, body, memory_bytes, is_copy, Instant::now());
    }

    /// Starts the delivery of `body` to one outbound. `transform_bytes` is the memory of the bodies transformed so far.
    fn deliver(
        &self,
        index: usize,
        body: &OutboundBody,
        transform_bytes: usize,
        is_copy: bool,
        begun: Instant,
    ) {
        let fan_out = &self.fan_out;
        let outbound = fan_out.outbounds().get(index);
        let Some((outbound, pool)) = outbound.and_then(|outbound| {
            let pool = self.routing.pools.get(outbound.upstream)?;
            Some((outbound, pool))
        }) else {
            debug_assert!(false, "an outbound without a pool");
            return;
        };
        let own_bytes = render::held_bytes(&self.request, outbound, body);
        let shared_bytes = fan_out.memory_bytes() + transform_bytes;
        let skip = |outcome| match is_copy {
            true => fan_out.skip_copy(index, &outcome),
            false => fan_out.skip(index, outcome),
        };
        let Some(admission) = pool.admit(own_bytes, shared_bytes) else {
            return skip(Outcome::Failed(Failure::Overloaded));
        };
        let started = self.core.tasks.start(|buffer| Delivery {
            fan_out: Rc::clone(fan_out),
            index,
            pool: Rc::clone(pool),
            request: render::render(&self.request, outbound, body, buffer),
            begun,
            is_copy,
            _admission: admission,
        });
        if started.is_err() {
            skip(Outcome::Panicked);
        } else if is_copy {
            fan_out.begin_copy(index);
        } else if !matches!(body, OutboundBody::Whole) {
            fan_out.begin_transformed(index);
        }
    }
}

#[cfg(test)]
mod tests;

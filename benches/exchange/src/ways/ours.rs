//! The mirror's own: [`Pool::deliver`], exactly as a worker calls it.
//!
//! Pool, checks of a connection before it is used again, retry, deadline and the cap on deliveries in
//! flight are all part of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sentry_mirror::internals::http::head::Method;
use sentry_mirror::internals::limits::Limits;
use sentry_mirror::internals::runtime::memory_budget::MemoryBudget;
use sentry_mirror::internals::sentry::dsn::{Origin, Scheme};
use sentry_mirror::internals::upstream::exchange::OutboundRequest;
use sentry_mirror::internals::upstream::origin::SharedOrigin;
use sentry_mirror::internals::upstream::pool::Pool;
use sentry_mirror::internals::upstream::waiting::Client;

use super::{Answer, Message, Way};

/// The body size up to which `mirror::fan_out::render` copies a body behind its head.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// The upstream of one worker.
pub struct Ours {
    upstream: Pool,
    client: Rc<dyn Client>,
}

/// No client waits for a response.
struct NoClient;

impl Client for NoClient {
    fn is_answered(&self) -> bool {
        true
    }
}

/// What the mirror makes a request of.
pub struct Parts {
    head: Vec<u8>,
    body: Bytes,
}

impl Parts {
    pub fn of(message: &Message) -> Parts {
        Parts {
            head: message.head(),
            body: message.body.clone(),
        }
    }

    /// A request to consume. A short body is copied, a long one is shared.
    pub fn instance(&self) -> OutboundRequest {
        let (head, body) = if self.body.len() <= COPY_BYTES_MAX {
            ([self.head.as_slice(), &self.body].concat(), Bytes::new())
        } else {
            (self.head.clone(), self.body.clone())
        };
        OutboundRequest {
            method: Method::Post,
            head,
            body,
            tail: Vec::new(),
        }
    }
}

impl Ours {
    pub fn new(address: SocketAddr, patience: Duration) -> Ours {
        let origin = Origin {
            scheme: Scheme::Http,
            host: address.ip().to_string(),
            port: address.port(),
        };
        let shared = SharedOrigin::new(1, origin, None);
        shared.set_addresses(&[address]);
        let mut limits = Limits::default();
        limits.timeouts.exchange = patience;
        let budget = MemoryBudget::new(limits.memory_bytes);
        Ours {
            upstream: Pool::new(Arc::new(shared), Rc::new(limits), &budget, 0),
            client: Rc::new(NoClient),
        }
    }
}

impl Way for Ours {
    const NAME: &'static str = "ours";
    type Prepared = Parts;

    fn prepare(&self, message: &Message) -> Parts {
        Parts::of(message)
    }

    async fn exchange(&self, parts: &Parts) -> Result<Answer, String> {
        let mut request = parts.instance();
        let delivering = self
            .upstream
            .deliver(&mut request, Instant::now(), 0, &self.client);
        match delivering.await.0 {
            Ok(response) => Ok(Answer {
                status: response.status,
                body: response.body,
            }),
            Err(failure) => Err(failure.to_string()),
        }
    }
}

//! The mirror's own exchange with the simplest correct pool, as in `codec`.
//!
//! It exists to be compared with that one, since [`super::ours`] does more: it checks a connection before it
//! reuses it, and limits the deliveries in flight. The mirror always does both.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use monoio::time::timeout;
use sentry_mirror::internals::limits::Limits;
use sentry_mirror::internals::net::stream::Stream;
use sentry_mirror::internals::net::transfer::Transfer;
use sentry_mirror::internals::runtime::memory_budget::MemoryBudget;
use sentry_mirror::internals::upstream::exchange::Connection;

use super::ours::Parts;
use super::{Answer, Message, Way};

/// Idle connections.
pub struct Bare {
    address: SocketAddr,
    budget: Rc<MemoryBudget>,
    limits: Limits,
    patience: Duration,
    idle: RefCell<Vec<Connection>>,
}

impl Bare {
    pub fn new(address: SocketAddr, patience: Duration) -> Bare {
        Bare {
            address,
            budget: MemoryBudget::new(usize::MAX),
            limits: Limits::default(),
            patience,
            idle: RefCell::default(),
        }
    }

    async fn connection(&self) -> Result<Connection, String> {
        if let Some(connection) = self.idle.borrow_mut().pop() {
            return Ok(connection);
        }
        let stream = crate::connect(self.address).await?;
        let share = self.budget.reservation();
        Ok(Connection::new(Stream::Plain(stream), share))
    }

    async fn attempt(&self, parts: &Parts) -> Result<Answer, String> {
        let mut connection = self.connection().await?;
        let mut request = parts.instance();
        let transfer = Transfer::default();
        let exchanging = connection.exchange(&mut request, &self.limits, &transfer);
        let response = exchanging.await;
        let response = response.map_err(|failure| failure.to_string())?;
        if connection.is_reusable() {
            self.idle.borrow_mut().push(connection);
        }
        Ok(Answer {
            status: response.status,
            body: response.body,
        })
    }
}

impl Way for Bare {
    const NAME: &'static str = "our exchange alone";
    type Prepared = Parts;

    fn prepare(&self, message: &Message) -> Parts {
        Parts::of(message)
    }

    async fn exchange(&self, parts: &Parts) -> Result<Answer, String> {
        timeout(self.patience, self.attempt(parts))
            .await
            .unwrap_or_else(|_| Err("timeout".to_owned()))
    }
}

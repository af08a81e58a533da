//! One worker's deliveries to an origin: the limit on how many are in flight, the circuit breaker, and the
//! retries over other connections.
//!
//! A connection is returned to the [`connections`] only after an exchange that ended cleanly. If the exchange
//! fails or is dropped at a deadline, its connection is dropped with it, so that no response can reach another
//! request.
//!
//! [`connections`]: crate::upstream::connections

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use crate::limits::Limits;
use crate::net::transfer::Transfer;
use crate::runtime::memory_budget::MemoryBudget;
use crate::upstream::addresses::Address;
use crate::upstream::breaker::RouteId;
use crate::upstream::connections::Connections;
use crate::upstream::exchange::{Failure, OutboundRequest};
use crate::upstream::http2::sessions::{Carried, Context, Sessions};
use crate::upstream::origin::SharedOrigin;
use crate::upstream::pooled::PooledConnection;
use crate::upstream::probe::ensure_prober;
use crate::upstream::response::Response;
use crate::upstream::silence::{unless_silent, while_moving};
use crate::upstream::tunnel;
use crate::upstream::waiting::{Client, Wanted};

pub(crate) use crate::runtime::memory_budget::Admission;

/// Over how many new connections a delivery is sent at most, while other addresses than the silent ones are known.
const NEW_CONNECTIONS_MAX: usize = 4;

/// One worker's deliveries and connections to one origin.
pub struct Pool {
    connections: Rc<Connections>,
    /// Those of HTTP/2.
    sessions: Rc<Sessions>,
    /// The origin's part of the worker's memory budget.
    budget: Rc<MemoryBudget>,
    in_flight: Cell<usize>,
}

impl Pool {
    /// An empty pool of the worker with this index. Its part of `budget` is unlimited until
    /// [`Pool::set_memory_share`].
    pub fn new(
        shared: Arc<SharedOrigin>,
        limits: Rc<Limits>,
        budget: &Rc<MemoryBudget>,
        worker: usize,
    ) -> Pool {
        shared.set_limits(&limits);
        let budget = budget.part(usize::MAX);
        let connections = Connections::new(shared, limits, Rc::clone(&budget), worker);
        Pool {
            sessions: Sessions::new(&connections, Rc::clone(&budget)),
            connections,
            budget,
            in_flight: Cell::new(0),
        }
    }

    /// Changes the limits. Deliveries in flight keep the old ones.
    pub fn set_limits(&self, limits: Rc<Limits>) {
        self.origin().set_limits(&limits);
        self.connections.set_limits(limits);
    }

    /// Changes its share of the worker's memory budget.
    pub fn set_memory_share(&self, bytes: usize) {
        self.budget.set_limit(bytes);
    }

    /// Reserves memory for a delivery that takes `own` bytes and keeps alive `kept` bytes, which its request
    /// has reserved. `None` if no memory is left, or the deliveries to this origin take its share.
    pub fn admit(&self, own: usize, kept: usize) -> Option<Admission> {
        self.budget.admit(own, kept)
    }

    pub fn origin(&self) -> &Arc<SharedOrigin> {
        self.connections.origin()
    }

    /// Delivers `request` of `client`, as long as it is not silent for `timeouts.exchange` from `begun` on. Returns the
    /// result and the time at which the delivery ended. The breaker may drop the request because of earlier failures of
    /// `route`.
    ///
    /// # Errors
    /// Why there is no response. The request may have arrived all the same.
    pub async fn deliver(
        &self,
        request: &mut OutboundRequest,
        begun: Instant,
        route: RouteId,
        client: &Rc<dyn Client>,
    ) -> (Result<Response, Failure>, Instant) {
        let limits = self.connections.limits();
        let Some(_slot) = InFlightSlot::acquire(&self.in_flight, limits.in_flight) else {
            return (Err(Failure::Overloaded), begun);
        };
        let (shared, worker) = (self.origin(), self.connections.worker());
        let Some(permit) = shared.admit(route, begun) else {
            ensure_prober(shared, worker);
            return (Err(Failure::BreakerOpen), begun);
        };
        let (has_connection, is_counted) = (Cell::new(false), Cell::new(true));
        let given_up = Cell::new(None);
        // Pinned in place because the future is about 2 KiB.
        let (transfer, bytes) = (Transfer::default(), request.bytes());
        let context = Context {
            limits: &limits,
            client,
            transfer: &transfer,
            has_connection: &has_connection,
            is_counted: &is_counted,
            given_up: &given_up,
        };
        let attempted = {
            let attempt = pin!(self.attempt(request, begun, context));
            let period = limits.timeouts.exchange;
            unless_silent(attempt, &transfer, bytes, begun, period).await
        };
        let ended = Instant::now();
        let result = match attempted {
            Ok((response, None)) => Ok(response),
            Ok((response, Some(pooled))) => {
                let elapsed = ended.saturating_duration_since(pooled.since);
                self.connections.record_exchange(elapsed);
                self.connections.put_back(pooled, ended);
                Ok(response)
            }
            Err(Failure::Timeout) if !has_connection.get() => Err(Failure::NoConnection),
            Err(failure) => Err(failure),
        };
        if let (Err(Failure::Timeout), Some(address)) = (&result, given_up.take()) {
            shared.record_address_failed(&address, begun, ended);
        }
        let result = result.and_then(|response| unless_by_proxy(response, shared));
        let unanswered = result.as_ref().err().and_then(Failure::unanswered);
        match (&result, unanswered) {
            (Err(_), _) if !is_counted.get() => drop(permit),
            (Err(failure), Some(how)) => {
                shared.record_failure(&permit, how, failure, ended);
                ensure_prober(shared, worker);
            }
            // A body that moves slowly, or a shortage of this host or worker.
            (Err(failure), None) if !failure.is_response() => drop(permit),
            (Ok(_) | Err(_), _) => shared.record_response(permit, worker, ended),
        }
        (result, ended)
    }

    /// Closes idle connections that are not needed any more, and publishes the gauges.
    pub async fn sweep(&self, now: Instant) {
        self.sessions.sweep(now, &self.connections.limits());
        self.connections.sweep(now).await;
        let counters = self.connections.counters();
        counters.in_flight.set(self.in_flight.get());
        ensure_prober(self.origin(), self.connections.worker());
    }

    /// Sends over HTTP/2 if the upstream gets that, otherwise over HTTP/1.1. The latter returns its connection, too.
    async fn attempt(
        &self,
        request: &mut OutboundRequest,
        begun: Instant,
        context: Context<'_>,
    ) -> Result<(Response, Option<Box<PooledConnection>>), Failure> {
        let mut opened = None;
        if self.sessions.take(request.bytes(), begun) {
            match self.sessions.deliver(request, begun, context).await {
                Carried::Ended(result) => return result.map(|response| (response, None)),
                Carried::OverHttp1(connection) => opened = connection,
            }
        }
        let attempted = self.attempt_http1(request, begun, opened, context).await;
        attempted.map(|(response, pooled)| (response, Some(pooled)))
    }

    /// Sends over `opened`, if that is given, or another connection. Sends again over a new one if a reused
    /// connection was stale, or if a new one brought no response and the upstream has other addresses. Sets
    /// `has_connection` while it does not wait for a connection.
    async fn attempt_http1(
        &self,
        request: &mut OutboundRequest,
        begun: Instant,
        mut opened: Option<Box<PooledConnection>>,
        context: Context<'_>,
    ) -> Result<(Response, Box<PooledConnection>), Failure> {
        let Context {
            client,
            has_connection,
            ..
        } = context;
        let connections = &self.connections;
        let mut wanted = Wanted::Any;
        let mut silent = Vec::new();
        let mut sends = 0;
        loop {
            let idle = match wanted {
                Wanted::Any if opened.is_none() => connections.take_idle(begun),
                Wanted::Any | Wanted::New => None,
            };
            let (mut pooled, is_new) = match (opened.take(), idle) {
                (Some(opened), _) => (opened, true),
                (None, Some(mut idle)) => {
                    idle.since = begun;
                    (idle, false)
                }
                (None, None) => {
                    has_connection.set(false);
                    // Boxed because it is rare: every delivery would carry the space for it.
                    let granted = Box::pin(connections.wait(wanted, Rc::clone(client))).await?;
                    let is_new = !granted.has_answered;
                    (granted, is_new)
                }
            };
            has_connection.set(true);
            wanted = Wanted::New;
            if is_new {
                let first = self.first_exchange(&mut pooled, request, context, &silent);
                let result = Box::pin(first).await;
                if result.is_err() && pooled.connection.was_silent() {
                    let socket = pooled.address.socket;
                    if !silent.contains(&socket) {
                        silent.push(socket);
                    }
                    sends += 1;
                    if sends < NEW_CONNECTIONS_MAX && self.origin().addresses().has_other(&silent) {
                        connections.counters().retries.inc();
                        debug!(origin = %self.origin().name, "an address does not answer; retrying at another");
                        continue;
                    }
                }
                return result.map(|response| (response, pooled));
            }
            connections.counters().reused.inc();
            let result = exchange(&mut pooled, request, context).await;
            if !pooled.connection.was_stale(&result) {
                // A connection that was opened in advance may be used here for the first time.
                if result.is_ok() && !pooled.has_answered {
                    pooled.record_answered();
                }
                return result.map(|response| (response, pooled));
            }
            if let Err(Failure::Malformed(_)) = result {
                connections.record_unsolicited(pooled.connection.unread(), Instant::now());
            }
            connections.counters().retries.inc();
            debug!(origin = %self.origin().name, "a pooled connection was stale; retrying on a new one");
        }
    }

    /// The first exchange over a new connection, which shows whether its address answers. If it is not known to,
    /// and there are others than those in `silent`, it gets only a part of the time.
    async fn first_exchange(
        &self,
        pooled: &mut PooledConnection,
        request: &mut OutboundRequest,
        context: Context<'_>,
        silent: &[SocketAddr],
    ) -> Result<Response, Failure> {
        let address = Arc::clone(&pooled.address);
        let addresses = self.origin().addresses();
        let mut tried = silent.to_vec();
        tried.push(address.socket);
        let silence_max = match addresses.has_other(&tried) {
            true => address.silence_max(context.limits.timeouts.exchange),
            false => None,
        };
        let result = {
            let exchange = pin!(exchange(pooled, request, context));
            match silence_max {
                Some(silence) => while_moving(exchange, context.transfer, silence)
                    .await
                    .unwrap_or(Err(Failure::Timeout)),
                None => exchange.await,
            }
        };
        let is_useless = match &result {
            Err(failure) => failure.unanswered().is_some(),
            // As a load balancer without a server behind it does. Its answer counts, but later connections had better
            // go to another address.
            Ok(response) => response.status == 503 && !pooled.connection.is_reusable(),
        };
        if is_useless {
            let begun = pooled.connecting_begun;
            self.origin()
                .record_address_failed(&address, begun, Instant::now());
        } else {
            pooled.record_answered();
        }
        result
    }
}

/// Sends `request` over a connection. If the caller gives that up before the response begins, notes the address.
async fn exchange(
    pooled: &mut PooledConnection,
    request: &mut OutboundRequest,
    context: Context<'_>,
) -> Result<Response, Failure> {
    let mut watch = GivenUp {
        address: Some(&pooled.address),
        context,
    };
    let exchanging = pooled
        .connection
        .exchange(request, context.limits, context.transfer);
    let result = exchanging.await;
    watch.address = None;
    result
}

/// Notes, when it is dropped, the address of an exchange that is still waiting for a response.
struct GivenUp<'p> {
    /// `None` after the exchange.
    address: Option<&'p Arc<Address>>,
    context: Context<'p>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(address) = self.address
            && !self.context.transfer.is_receiving()
        {
            self.context.given_up.set(Some(Arc::clone(address)));
        }
    }
}

/// Only a proxy answers 407 (RFC 9110 section 15.5.8). The server has not seen the request then. What comes out of a
/// tunnel is not from the proxy.
fn unless_by_proxy(response: Response, shared: &SharedOrigin) -> Result<Response, Failure> {
    if response.status != 407 || shared.tls.is_some() {
        return Ok(response);
    }
    match shared.proxy() {
        Some(proxy) => {
            let meaning = tunnel::refusal(407, "it wants other credentials; see the key proxy");
            let words = format!("the proxy {} {meaning}", proxy.authority());
            Err(Failure::ProxyRefused(words))
        }
        None => Ok(response),
    }
}

/// Counts a delivery as in flight until it is dropped.
struct InFlightSlot<'u> {
    in_flight: &'u Cell<usize>,
}

impl<'u> InFlightSlot<'u> {
    fn acquire(in_flight: &'u Cell<usize>, limit: usize) -> Option<InFlightSlot<'u>> {
        if in_flight.get() >= limit {
            return None;
        }
        in_flight.set(in_flight.get() + 1);
        Some(InFlightSlot { in_flight })
    }
}

impl Drop for InFlightSlot<'_> {
    fn drop(&mut self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }
}

#[cfg(test)]
mod tests;

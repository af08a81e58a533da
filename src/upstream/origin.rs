//! What all workers share about an origin: how to reach it, and whether it answers.
//!
//! Read-mostly by design. Addresses are looked at only when a connection is opened, never per
//! request; the state is written only when it changes, so that one change makes one log line
//! however many workers see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tracing::{info, warn};

use crate::observe::change::Change;
use crate::sentry::dsn::Origin;

/// An origin as the whole process sees it.
pub struct SharedOrigin {
    /// Scheme, host and port.
    pub origin: Origin,
    /// How to speak TLS to it; `None` for `http`.
    pub tls: Option<TlsIdentity>,
    addresses: RwLock<Arc<[SocketAddr]>>,
    next_address: AtomicUsize,
    /// 1 while it is down.
    down: Change,
}

/// Whose certificate is expected, and which ones are trusted.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Trusted roots, protocol versions and the cache of sessions to resume.
    pub config: Arc<ClientConfig>,
    /// The name sent as SNI and looked for in the certificate.
    pub server_name: ServerName<'static>,
}

impl SharedOrigin {
    /// An origin whose addresses are not known yet.
    pub fn new(origin: Origin, tls: Option<TlsIdentity>) -> SharedOrigin {
        SharedOrigin {
            origin,
            tls,
            addresses: RwLock::new(Arc::new([])),
            next_address: AtomicUsize::new(0),
            down: Change::new(),
        }
    }

    /// The same origin with other TLS settings: it keeps the addresses.
    pub fn with_tls(&self, tls: TlsIdentity) -> SharedOrigin {
        let successor = SharedOrigin::new(self.origin.clone(), Some(tls));
        successor.set_addresses(self.addresses().to_vec());
        successor
    }

    /// The addresses to try, in the order to try them.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        Arc::clone(
            &self
                .addresses
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Where in [`SharedOrigin::addresses`] to begin; moves on with [`SharedOrigin::skip_address`].
    pub fn first_address(&self) -> usize {
        self.next_address.load(Ordering::Relaxed)
    }

    /// Lets later connections begin with the address after the one at `failed`. Of several that
    /// failed there at once, one moves on.
    pub fn skip_address(&self, failed: usize) {
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self
            .next_address
            .compare_exchange(failed, failed.wrapping_add(1), ok, other);
    }

    /// Replaces the addresses by a newer answer of the resolver.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        let mut current = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = addresses.into();
    }

    /// Takes note that a delivery got an answer.
    pub fn answered(&self, now: Instant) {
        if self.down.is_news(0, now) {
            info!(origin = %self.origin, "upstream is answering again");
        }
    }

    /// Takes note that a delivery failed without an answer.
    pub fn failed(&self, failure: &dyn std::fmt::Display, now: Instant) {
        if self.down.is_news(1, now) {
            warn!(origin = %self.origin, %failure, "upstream does not answer");
        }
    }
}

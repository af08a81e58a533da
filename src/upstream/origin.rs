//! What all workers share about an origin: how to reach it, and whether it answers.
//!
//! Read-mostly by design. Addresses are looked at only when a connection is opened, never per
//! request; the state is written only when it changes, so that one change makes one log line
//! however many workers see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tracing::{info, warn};

use crate::sentry::dsn::Origin;

/// An origin as the whole process sees it.
pub struct SharedOrigin {
    /// Scheme, host and port.
    pub origin: Origin,
    /// How to speak TLS to it; `None` for `http`.
    pub tls: Option<TlsIdentity>,
    addresses: RwLock<Arc<[SocketAddr]>>,
    next_address: AtomicUsize,
    is_down: AtomicBool,
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
            is_down: AtomicBool::new(false),
        }
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

    /// Lets later connections begin with the next address, because this one failed.
    pub fn skip_address(&self) {
        self.next_address.fetch_add(1, Ordering::Relaxed);
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
    pub fn answered(&self) {
        if self.is_down.load(Ordering::Relaxed) && self.is_down.swap(false, Ordering::Relaxed) {
            info!(origin = %self.origin, "upstream is answering again");
        }
    }

    /// Takes note that a delivery failed without an answer.
    pub fn failed(&self, failure: &dyn std::fmt::Display) {
        if !self.is_down.load(Ordering::Relaxed) && !self.is_down.swap(true, Ordering::Relaxed) {
            warn!(origin = %self.origin, %failure, "upstream does not answer; its deliveries are lost until it does");
        }
    }
}

//! The documented bounds of memory, in bytes, from docs/limits.md. Each test adds up those that
//! apply to it.

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

/// A process by itself, and each of its workers.
pub(crate) const PROCESS_BYTES: usize = 24 * MIB;
pub(crate) const WORKER_BYTES: usize = 32 * MIB;

/// The access log.
pub(crate) const ACCESS_LOG_BYTES: usize = 16 * MIB;

/// Each route and each outbound, by itself and for each worker, and each origin besides.
pub(crate) const TARGET_BYTES: usize = 12 * KIB;
pub(crate) const TARGET_WORKER_BYTES: usize = 2 * KIB;
pub(crate) const ORIGIN_BYTES: usize = 64 * KIB;

/// Each connection of an SDK.
pub(crate) const CONNECTION_BYTES: usize = 24 * KIB;

/// Each delivery in flight with its connection, or idle connection to an upstream, and one with TLS.
pub(crate) const UPSTREAM_BYTES: usize = 24 * KIB;
pub(crate) const TLS_UPSTREAM_BYTES: usize = 88 * KIB;

//! Processes, threads and connections: what runs.
//!
//! [`supervisor`] owns the process: it [listens](listen), starts one [`worker`] per core on a
//! [`driver`], and stops them or gives them a new [`plan`] when [`signals`] ask for it. A worker
//! `accept`s its share ([`balance`]) from the common listener and spawns [`inbound`], one SDK connection,
//! which reads and writes through [`connection`]; [`request`] is the story of one request, with
//! `key` for what it is routed by, `body` and [`decode`] for its body, which is decoded in a `queue`, and `prepare`, in the `background`,
//! for the outbounds that want something special, in `turns`: a `part` of it, or a `compression`.
//! [`gate`] and [`stop`] let it end without losing what it has accepted. [`notify`] tells a service manager
//! of the start and the end, and [`sight`] is what can be seen of all this from outside.

mod accept;
mod authenticate;
pub(crate) mod balance;
mod body;
pub(crate) mod connection;
pub(crate) mod driver;
mod handle;
pub(crate) mod listen;
mod local;
mod memory;
pub(crate) mod notify;
mod pace;
mod peers;
mod request_log;
mod session;
pub(crate) mod sight;
pub(crate) mod signals;
pub(crate) mod supervisor;
pub(crate) mod worker;

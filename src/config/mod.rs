//! The configuration: from a file and the environment to a value that cannot be wrong.
//!
//! The way is file → raw → valid. The raw form (`node`, private) is the YAML tree with the path of
//! every value; `schema` and `routes` turn it into [`Config`], whose fields need no further check.
//! Everything wrong is collected on that way and reported at once, because an operator who has to
//! start the program once per mistake stops reading the messages. [`Source::read`] is the only
//! place of this room that touches the world; `tls.ca_file` is read by the TLS code, in the same
//! start, so that its existence is not checked here.

mod changes;
mod describe;
mod effective;
mod environment;
mod limits;
mod locate;
mod nearest;
mod node;
mod outbound;
mod place;
mod report;
mod routes;
mod schema;
mod source;
mod telemetry;
mod units;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_yaml::Value;

use crate::limits::Limits;
use crate::sentry::dsn::Dsn;
use crate::sentry::selection::Selection;

pub(crate) use self::changes::Changes;
pub(crate) use self::report::ConfigErrors;
pub(crate) use self::source::{STANDARD_INPUT, Source};

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `ip`: the address to listen on.
    pub ip: IpAddr,
    /// `port`: the port to listen on; 0 lets the kernel choose a free one.
    pub port: u16,
    /// `reuse_port`: whether another mirror may listen on the same port at the same time.
    pub reuse_port: bool,
    /// `keys`: the routes, at least one, in configuration order, each with its own inbound key.
    pub routes: Vec<Route>,
    /// `workers`: how many threads serve.
    pub workers: Workers,
    /// `driver`: how a worker waits for its sockets.
    pub driver: DriverChoice,
    /// `reply_policy`: which outbound's answer the SDK gets.
    pub reply_policy: ReplyPolicy,
    /// `reply_timeout`: how long an SDK waits for an upstream before it gets a local success.
    pub reply_timeout: Duration,
    /// `modify_envelope`: whether the DSN and the trace's key in the header of an envelope are replaced.
    pub modify_envelope: bool,
    /// `forward_client_ip`: whether upstreams learn the addresses of the SDKs.
    pub forward_client_ip: bool,
    /// `external_url`: where browsers reach the mirror; `None` to take it from each request.
    pub external_url: Option<String>,
    /// `tls`: whom to trust as an upstream.
    pub tls: Tls,
    /// `log_filter`, `log_format` and `verbose`.
    pub log: Log,
    /// `limits`, `timeouts`, `pool`, `breaker` and `dns`.
    pub limits: Limits,
    /// Whether `limits.memory_bytes` is configured; otherwise the mirror makes it fit.
    pub is_memory_configured: bool,
    /// `admin`: where metrics and the status page are served; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// Whether nobody has said so, so that a mirror without them is better than none.
    pub admin_is_default: bool,
    /// `access_log`: the form of its lines; `None` for no such log.
    pub access_log: Option<LogFormat>,
    /// `statsd_addr` and `default_metrics_tags`: where metrics are pushed to.
    pub statsd: Option<StatsdTarget>,
    /// `sentry_dsn` and `sentry_env`: where errors of the mirror itself are reported to.
    pub self_report: Option<SelfReport>,
    /// What is allowed but probably not meant, one line each, with its place.
    pub warnings: Vec<String>,
}

/// One entry of `keys`: an inbound DSN and where its requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The DSN the SDKs are configured with; its public key selects the route.
    pub inbound: Dsn,
    /// At least one; the first is the primary.
    pub outbounds: Vec<Outbound>,
}

/// One target of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// The DSN to deliver to.
    pub dsn: Dsn,
    /// `categories` and `sample_rate`: what of each request it gets; `None` for everything.
    pub selection: Option<Selection>,
    /// `multiplier`: how many times it gets that.
    pub copies: u32,
    /// `compression`: in which form.
    pub compression: Compression,
}

/// In which content coding an outbound gets bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// The one that the SDK has used.
    Preserve,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// How many workers to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as there are cores to use.
    Auto,
    /// Exactly this many.
    Count(NonZeroUsize),
}

/// How a worker waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where the kernel and the container allow it, else epoll.
    Auto,
    /// io_uring, or no start at all.
    IoUring,
    /// epoll.
    Epoll,
}

/// Which outbound's answer the SDK gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyPolicy {
    /// The first success in configuration order.
    FirstSuccess,
    /// The primary's answer, whatever it is.
    Primary,
}

/// Whom to trust as an upstream. The built-in roots are trusted always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `tls.ca_file`: PEM certificates to trust as well.
    pub ca_file: Option<PathBuf>,
    /// `tls.system_roots`: whether to trust the certificates of the operating system as well.
    pub system_roots: bool,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `log_filter`: directives of `tracing_subscriber::EnvFilter`, known to be valid. `verbose`
    /// makes it `debug`.
    pub filter: String,
    /// `log_format`: the form of a line.
    pub format: LogFormat,
}

/// Where metrics are pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdTarget {
    /// The host's name or address.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
    /// What goes with every metric.
    pub tags: BTreeMap<String, String>,
}

/// Where errors of the mirror itself are reported to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfReport {
    /// The DSN.
    pub dsn: Dsn,
    /// The environment that reports name.
    pub environment: Option<String>,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object, for log collectors.
    Json,
}

impl Config {
    /// Reads the file at `path`, or standard input where that is `-`; variables `SENTRY_MIRROR_*` of `env`
    /// replace what it says.
    pub fn load(
        path: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        Config::from_source(&Source::read(path), env)
    }

    /// Reads a configuration from `source`.
    pub fn from_source(
        source: &Source,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        let text = source.text.as_deref().map_err(Clone::clone)?;
        Config::parse(text, &source.name, env)
    }

    /// Reads a configuration from `text`. `file_name` is what the messages call it.
    pub fn parse(
        text: &str,
        file_name: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        let mut document = source::document(text, file_name)?;
        let report = report::Report::default();
        let variables = environment::overlay(&mut document, env, &report);
        let config = schema::config(&Value::Mapping(document), &report);
        let warnings = report.finish(file_name, source::without_mark(text), &variables)?;
        Ok(Config { warnings, ..config })
    }
}

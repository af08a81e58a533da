//! The validated configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::cap_settings::Cap;
use super::header_list::Headers;
use super::organization::SentryApi;
use super::proxy_settings::{Proxy, ProxyChoice};
use super::tls_settings::{ListenerTls, Tls};
use crate::http::forwarded::AddressField;
use crate::http2::mode::Http2Mode;
use crate::limits::Limits;
use crate::sentry::dsn::Dsn;
use crate::sentry::selection::Selection;

/// A valid configuration. `config.example.yml` explains each key.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub ip: IpAddr,
    /// 0 lets the kernel choose a free port.
    pub port: u16,
    /// Where it listens besides `ip` and `port`.
    pub listen: Vec<Listener>,
    pub reuse_port: bool,
    /// `keys`: at least one route, in configuration order, each with its own inbound key.
    pub routes: Vec<Route>,
    pub workers: Workers,
    pub driver: DriverChoice,
    pub reply_policy: ReplyPolicy,
    pub reply_timeout: Duration,
    pub modify_envelope: bool,
    /// `client_address` and `forward_client_ip`.
    pub client_address: ClientAddress,
    /// Without a slash at the end. `None` takes the URL from each request.
    pub external_url: Option<String>,
    /// The default of each outbound.
    pub headers: Headers,
    pub tls: Tls,
    /// Whether outbounds get HTTP/2, unless they have a value of their own.
    pub http2: Http2Mode,
    pub(crate) caps: Vec<Cap>,
    pub proxy: ProxyChoice,
    /// `log_filter`, `log_format` and `verbose`.
    pub log: Log,
    /// `limits`, `timeouts`, `pool`, `breaker` and `dns`.
    pub limits: Limits,
    /// Whether `limits.memory_bytes` is set; otherwise it is derived from the available memory.
    pub is_memory_configured: bool,
    /// `None` serves no admin pages.
    pub admin: Option<SocketAddr>,
    /// Whether `admin` is not set. If its default address is in use, the mirror then runs without
    /// admin pages.
    pub admin_is_default: bool,
    /// `None` writes no access log.
    pub access_log: Option<LogFormat>,
    /// `statsd_addr` and `default_metrics_tags`.
    pub statsd: Option<StatsdTarget>,
    /// Whether to count items by category.
    pub item_metrics: bool,
    /// Where to keep the counts of the last days.
    pub state_file: Option<PathBuf>,
    /// `sentry_dsn` and `sentry_env`.
    pub self_report: Option<SelfReport>,
    /// Settings that are valid but probably not meant, one line each, with file, line and column.
    pub warnings: Vec<String>,
}

/// One entry of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: ListenAddress,
    /// Where proxies connect from that begin with a header of the PROXY protocol, and nobody else may. Empty if
    /// there is no such header.
    pub proxy_protocol: Vec<IpNet>,
    /// `None` for plain HTTP.
    pub tls: Option<ListenerTls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Inet(SocketAddr),
    /// A socket in the file system, whose file has this mode.
    Unix {
        path: PathBuf,
        mode: u32,
    },
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Inet(address) => address.fmt(f),
            ListenAddress::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One entry of `keys`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique among the routes.
    pub name: Option<String>,
    /// Its public key selects the route.
    pub inbound: Dsn,
    /// At least one; the first is the primary.
    pub outbounds: Vec<Outbound>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// Unique among the outbounds of the route.
    pub name: Option<String>,
    pub dsn: Dsn,
    /// `categories` and `sample_rate`; `None` selects everything.
    pub selection: Option<Selection>,
    /// `multiplier`: how many copies of each request to deliver.
    pub copies: u32,
    pub compression: Compression,
    /// `reply`: whether the SDK may get its response.
    pub replies: bool,
    /// `headers`, and those of the defaults that they do not replace.
    pub headers: Headers,
    pub tls: Tls,
    /// `None` to connect to the server itself.
    pub proxy: Option<Proxy>,
    /// `None` for [`ClientAddress::default`].
    pub client_address: Option<AddressPolicy>,
    /// `None` for [`Config::http2`].
    pub http2: Option<Http2Mode>,
    /// `cap`, or the default of the top.
    pub(crate) caps: Vec<Cap>,
    /// Where its organization's own counts are.
    pub sentry_api: Option<SentryApi>,
}

impl Route {
    /// What people read: the name, or the inbound DSN with its key shortened. The latter may not be unique.
    pub fn display_name(&self) -> String {
        let name = self.name.clone();
        name.unwrap_or_else(|| self.inbound.shortened())
    }
}

impl Outbound {
    /// What people read: the name, or the DSN with its key shortened. The latter may not be unique.
    pub fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.dsn.shortened())
    }
}

/// The names of the variants of an enum in the file.
pub(super) type Names<T, const N: usize> = [(&'static str, T); N];

/// The values of `reply`.
pub(super) const REPLIES: Names<bool, 2> = [("auto", true), ("never", false)];

/// The content coding of delivered bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// The coding that the SDK used.
    Preserve,
    Gzip,
    Zstd,
}

impl Compression {
    pub(super) const NAMES: Names<Compression, 4> = [
        ("none", Compression::None),
        ("preserve", Compression::Preserve),
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
    ];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// Where proxies connect from, or are named by others. `None` if it is not set; an empty list trusts nobody.
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// The header in which trusted proxies pass the client's address.
    pub field: AddressField,
    /// `forward_client_ip`: what outbounds without a setting of their own get.
    pub default: AddressPolicy,
    /// Whether any of these settings, or that of an outbound, is in the file.
    pub is_configured: bool,
}

/// Whether an outbound is told the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPolicy {
    Send,
    Hide,
}

impl AddressPolicy {
    pub(super) const NAMES: Names<AddressPolicy, 2> =
        [("send", AddressPolicy::Send), ("hide", AddressPolicy::Hide)];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per available core.
    Auto,
    Count(NonZeroUsize),
}

/// How a worker waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring if the kernel and the container allow it, otherwise epoll.
    Auto,
    /// io_uring, or fail to start.
    IoUring,
    Epoll,
}

impl DriverChoice {
    pub(super) const NAMES: Names<DriverChoice, 3> = [
        ("auto", DriverChoice::Auto),
        ("io_uring", DriverChoice::IoUring),
        ("epoll", DriverChoice::Epoll),
    ];
}

/// Which outbound's response the SDK receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyPolicy {
    /// The first success in configuration order.
    FirstSuccess,
    /// The primary's response, whether or not it is a success.
    Primary,
}

impl ReplyPolicy {
    pub(super) const NAMES: Names<ReplyPolicy, 2> = [
        ("first_success", ReplyPolicy::FirstSuccess),
        ("primary", ReplyPolicy::Primary),
    ];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Valid directives of `tracing_subscriber::filter::Targets`; `verbose` replaces them by `debug`.
    pub filter: String,
    pub format: LogFormat,
}

/// Where metrics are pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdTarget {
    pub server: StatsdServer,
    /// Sent with every metric.
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsdServer {
    Udp {
        /// A host name or an IP address, without brackets.
        host: String,
        port: u16,
    },
    /// A datagram socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for StatsdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatsdServer::Udp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            StatsdServer::Udp { host, port } => write!(f, "{host}:{port}"),
            StatsdServer::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where the mirror reports its own errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfReport {
    pub dsn: Dsn,
    pub environment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    pub(super) const NAMES: Names<LogFormat, 2> =
        [("text", LogFormat::Text), ("json", LogFormat::Json)];
}

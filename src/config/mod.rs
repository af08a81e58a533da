//! The configuration: from a file and environment variables to a validated [`Config`].
//!
//! [`Source`] reads the text, `environment` overlays variables, `references` puts in values from variables
//! and files, and `schema` with the modules below it
//! turns the YAML tree (`node`) into a [`Config`], whose values need no further check. All mistakes are
//! collected on the way and reported together, in the order of the file: an operator should not have to
//! start the program once per mistake. Only [`Source::read`] and `references` do I/O. The TLS code reads `tls.ca_file`
//! later in the same start, so its existence is not checked here.

mod cap;
mod cap_settings;
mod category_name;
mod changes;
mod client_address;
mod describe;
mod diagnostics;
mod effective;
mod environment;
mod header_list;
mod headers;
mod http2;
mod json_schema;
mod key_path;
mod limits;
mod listen;
mod listen_address;
mod listen_tls;
mod load;
mod model;
mod name;
mod node;
mod organization;
mod outbound;
mod positions;
mod proxy;
mod proxy_settings;
mod references;
mod regular_file;
mod routes;
mod schema;
mod sentry_api;
mod source;
mod starter;
mod suggest;
mod telemetry;
mod tls;
mod tls_settings;
mod units;
mod upstream;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use self::cap_settings::{Amount, Cap};
pub(crate) use self::changes::Changes;
pub(crate) use self::json_schema::json_schema;
pub(crate) use self::model::{
    AddressPolicy, ClientAddress, Compression, ListenAddress, Log, LogFormat, Outbound,
    ReplyPolicy, Route, SelfReport, StatsdServer, StatsdTarget, Workers,
};
pub use self::model::{Config, DriverChoice};
pub(crate) use self::name::NO_ROUTE;
pub(crate) use self::organization::SentryApi;
pub(crate) use self::proxy_settings::Proxy;
pub(crate) use self::regular_file::read_regular_file;
pub(crate) use self::source::{STANDARD_INPUT, Source};
pub(crate) use self::starter::starter;
pub(crate) use self::tls_settings::{CertificateFiles, ListenerTls, Tls, TlsVersion};
pub(crate) use self::units::parse_duration;
pub(crate) use self::upstream::Upstream;

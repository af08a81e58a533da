//! Which upstreams get HTTP/2.

/// How requests are sent to an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2Mode {
    /// HTTP/1.1 only.
    #[default]
    Off,
    /// HTTP/2 for `https`, if the server offers it, and for requests that are small.
    Auto,
    /// HTTP/2 over TLS for all requests.
    Required,
    /// HTTP/2 for all requests, without TLS and without asking ("prior knowledge", RFC 9113 §3.3).
    H2c,
}

impl Http2Mode {
    /// Whether a request may be sent over HTTP/1.1.
    pub(crate) fn allows_http1(self) -> bool {
        matches!(self, Http2Mode::Off | Http2Mode::Auto)
    }
}

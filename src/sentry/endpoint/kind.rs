//! The endpoints of Sentry's ingest.

/// What a request path addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/api/{project}/envelope/`, which current SDKs use.
    Envelope,
    /// `/api/{project}/store/` and `/api/store/`, which SDKs before 2020 use.
    Store,
    /// `/api/{project}/security/` and `/csp-report/`: reports of browsers.
    Security,
    /// `/api/{project}/nel/`: network error logging of browsers.
    Nel,
    /// `/api/{project}/minidump/`, of Crashpad and Breakpad.
    Minidump,
    /// `/api/{project}/unreal/{key}/`, of the crash reporter of Unreal Engine.
    Unreal,
    /// `/api/{project}/events/{event}/attachments/`.
    Attachments,
    /// `/api/{project}/cron/{slug}[/{key}]`, for check-ins with `curl`.
    Cron,
    /// `/api/{project}/integration/otlp/v1/traces`.
    OtlpTraces,
    /// `/api/{project}/integration/otlp/v1/logs`.
    OtlpLogs,
    /// `/api/{project}/integration/vercel/logs`.
    VercelLogs,
    /// `/api/{project}/playstation/`.
    Playstation,
    /// `/api/{project}/upload/`: large attachments in parts. Each server signs the locations it returns, so they
    /// are invalid at other servers. Clients understand 404 as "not offered".
    Upload,
    /// `/api/embed/error-page/`: the crash-report dialog. Its key is in the query's `dsn`.
    ErrorPage,
    /// Any other `/api/{project}/…`.
    Generic,
    /// Any other path: an envelope sent through the SDK option `tunnel`. A path that looks `Generic` is a tunnel
    /// too, if the only key is in the header of the envelope.
    #[default]
    Tunnel,
}

impl Endpoint {
    /// Whether the endpoint accepts this method. `OPTIONS` is not an endpoint's concern: all paths get the same
    /// reply.
    pub fn allows(self, method: &[u8]) -> bool {
        self.allow_header()
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|allowed| allowed == method)
    }

    /// The accepted methods, as the value of an `Allow` header.
    pub const fn allow_header(self) -> &'static str {
        match self {
            Endpoint::Envelope
            | Endpoint::Tunnel
            | Endpoint::Security
            | Endpoint::Nel
            | Endpoint::Minidump
            | Endpoint::Unreal
            | Endpoint::Attachments
            | Endpoint::OtlpTraces
            | Endpoint::OtlpLogs
            | Endpoint::VercelLogs
            | Endpoint::Playstation => "POST",
            Endpoint::Store | Endpoint::Cron => "GET,HEAD,POST",
            Endpoint::ErrorPage => "GET,POST",
            Endpoint::Upload => "PATCH,POST",
            Endpoint::Generic => "DELETE,GET,HEAD,PATCH,POST,PUT",
        }
    }

    /// The name in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Endpoint::Envelope => "envelope",
            Endpoint::Store => "store",
            Endpoint::Security => "security",
            Endpoint::Nel => "nel",
            Endpoint::Minidump => "minidump",
            Endpoint::Unreal => "unreal",
            Endpoint::Attachments => "attachments",
            Endpoint::Cron => "cron",
            Endpoint::OtlpTraces => "otlp_traces",
            Endpoint::OtlpLogs => "otlp_logs",
            Endpoint::VercelLogs => "vercel_logs",
            Endpoint::Playstation => "playstation",
            Endpoint::Upload => "upload",
            Endpoint::ErrorPage => "error_page",
            Endpoint::Generic => "generic",
            Endpoint::Tunnel => "tunnel",
        }
    }
}

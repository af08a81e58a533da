//! The same job on tokio, as a good engineer would write it in a week, to compare with.
//!
//! hyper serves, all connections share one pooled hyper client with rustls, headers and envelope headers are
//! rewritten as parsed values, mimalloc allocates, the runtime has its default threads. Deliveries run
//! concurrently with a deadline. The reply is the primary's response, or the first success if the primary
//! fails. It handles SDK traffic as the mirror does: every key site, all content codings, `dsn` and
//! `trace.public_key`. With `http2: auto` its client offers HTTP/2 to upstreams, and uses it where they take it. It has
//! none of the mirror's limits, breakers and reloads, which makes it cheaper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::config::{Config, Route};
use crate::rewrite::{Inbound, Refusal};

mod config;
mod rewrite;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The longest body, on the wire and decoded.
const BODY_BYTES_MAX: usize = 200 * 1024 * 1024;

/// The deadline of a delivery.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a client waits for the outbounds.
const REPLY_PATIENCE: Duration = Duration::from_millis(1500);

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;
type AnyError = Box<dyn std::error::Error + Send + Sync>;

struct Mirror {
    config: Config,
    client: HttpClient,
}

fn main() -> Result<(), AnyError> {
    let path = std::env::args()
        .nth(2)
        .ok_or("usage: tokio-mirror -c FILE")?;
    let config = Config::read(&path)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()?.block_on(run(config))
}

async fn run(config: Config) -> Result<(), AnyError> {
    let listener = TcpListener::bind((config.ip.as_str(), config.port)).await?;
    let client = client(&config)?;
    let mirror = Arc::new(Mirror { config, client });
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(serve(Arc::clone(&mirror), stream, peer));
    }
}

fn client(config: &Config) -> Result<HttpClient, AnyError> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(Duration::from_secs(3)));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config.tls()?)
        .https_or_http();
    let connector = match config.is_http2 {
        true => connector.enable_all_versions().wrap_connector(tcp),
        false => connector.enable_http1().wrap_connector(tcp),
    };
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .build(connector))
}

async fn serve(mirror: Arc<Mirror>, stream: TcpStream, _peer: SocketAddr) {
    // If the option cannot be set, the connection is broken, and the first read fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let mirror = Arc::clone(&mirror);
        async move { Ok::<_, Infallible>(mirror.answer(request).await) }
    });
    // The client has disconnected.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Mirror {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let response = match self.mirror(request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        with_cors(response)
    }

    async fn mirror(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        if request.method() == Method::OPTIONS {
            return Ok(Response::new(Full::default()));
        }
        if request.uri().path() == "/health" {
            return Ok(Response::new(Full::from("ok\n")));
        }
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too large"))?;
        let inbound = Inbound::new(parts, body.to_bytes(), BODY_BYTES_MAX)?;
        let route = self.config.routes.get(inbound.key());
        let route = route.ok_or(Refusal::new(StatusCode::FORBIDDEN, "unknown key"))?;
        self.deliver(route, &inbound).await
    }

    /// Sends the request to all outbounds at once; gives the response of the first, or the next success if it
    /// fails.
    async fn deliver(
        &self,
        route: &Route,
        inbound: &Inbound,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let mut deliveries = Vec::with_capacity(route.outbounds.len());
        for outbound in &route.outbounds {
            let request = inbound.rewritten(outbound)?;
            deliveries.push(tokio::spawn(exchange(self.client.clone(), request)));
        }
        let answer = tokio::time::timeout(REPLY_PATIENCE, first_success(deliveries)).await;
        match answer {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no outbound")),
            Err(_elapsed) => Ok(Response::new(Full::from("{}"))),
        }
    }
}

async fn first_success(
    deliveries: Vec<JoinHandle<Option<Response<Full<Bytes>>>>>,
) -> Option<Response<Full<Bytes>>> {
    let mut first = None;
    for delivery in deliveries {
        let response = delivery.await.ok().flatten();
        if let Some(response) = response {
            if response.status().is_success() {
                return Some(response);
            }
            first.get_or_insert(response);
        }
    }
    first
}

async fn exchange(
    client: HttpClient,
    request: Request<Full<Bytes>>,
) -> Option<Response<Full<Bytes>>> {
    let exchange = async {
        let response = client.request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = parts.status;
        for name in [&CONTENT_TYPE, &RETRY_AFTER] {
            if let Some(value) = parts.headers.get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        for name in ["x-sentry-rate-limits", "x-sentry-error"] {
            if let Some(value) = parts.headers.get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        Some(response)
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .ok()
        .flatten()
}

fn with_cors(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
    headers.insert(
        "access-control-expose-headers",
        HeaderValue::from_static("x-sentry-error,x-sentry-rate-limits,retry-after"),
    );
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("cross-origin"),
    );
    response
}

//! Rewriting a request for an outbound, in the tokio build.
//!
//! Values are parsed, changed and written again: the query as a form, the auth field as a list, the
//! envelope header as JSON. The body behind that header is shared.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use serde_json::Value;

use crate::config::Outbound;

const X_SENTRY_AUTH: HeaderName = HeaderName::from_static("x-sentry-auth");

/// Fields that are never forwarded, besides those that `Connection` lists.
const DROPPED: [HeaderName; 13] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::ACCEPT_ENCODING,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("x-forwarded-for"),
];

/// A parsed request.
pub struct Inbound {
    parts: Parts,
    /// Without the fields that are never forwarded.
    headers: HeaderMap,
    key: String,
    body: Bytes,
    /// The header of an envelope, and the position of the rest.
    envelope: Option<(Value, usize)>,
    is_tunnel: bool,
}

/// The reply to a request that cannot be mirrored.
pub struct Refusal {
    status: StatusCode,
    reason: &'static str,
}

impl Refusal {
    pub fn new(status: StatusCode, reason: &'static str) -> Refusal {
        Refusal { status, reason }
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "detail": self.reason }).to_string();
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = self.status;
        response
    }
}

fn malformed(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason)
}

impl Inbound {
    pub fn new(parts: Parts, body: Bytes, bytes_max: usize) -> Result<Inbound, Refusal> {
        let body = decode(&parts.headers, body, bytes_max)?;
        let is_tunnel = !parts.uri.path().contains("/api/");
        let is_envelope = is_tunnel || parts.uri.path().contains("/envelope");
        let envelope = if is_envelope {
            Some(envelope_header(&body)?)
        } else {
            None
        };
        let key = find_key(&parts)
            .or_else(|| key_of_dsn(envelope.as_ref()?.0.get("dsn")?.as_str()?))
            .ok_or(Refusal::new(StatusCode::UNAUTHORIZED, "no key"))?;
        let mut headers = parts.headers.clone();
        if let Some(listed) = parts.headers.get(header::CONNECTION) {
            for name in listed.to_str().unwrap_or("").split(',') {
                headers.remove(name.trim());
            }
        }
        for name in &DROPPED {
            headers.remove(name);
        }
        Ok(Inbound {
            parts,
            headers,
            key,
            body,
            envelope,
            is_tunnel,
        })
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// The request for one outbound.
    pub fn rewritten(&self, outbound: &Outbound) -> Result<Request<Full<Bytes>>, Refusal> {
        let body = self.body_for(outbound)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self
            .uri(outbound)
            .parse()
            .map_err(|_| malformed("bad URI"))?;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.insert(header::HOST, outbound.host.clone());
        for name in [X_SENTRY_AUTH, header::AUTHORIZATION] {
            let value = headers.get(&name).and_then(|value| value.to_str().ok());
            let Some(value) = value.and_then(|value| self.auth(value, outbound)) else {
                continue;
            };
            let value = HeaderValue::try_from(value).map_err(|_| malformed("bad auth field"))?;
            headers.insert(name, value);
        }
        Ok(request)
    }

    fn uri(&self, outbound: &Outbound) -> String {
        let path = self.parts.uri.path();
        let path = match path.split_once("/api/") {
            None => format!("/api/{}/envelope/", outbound.project),
            Some((_, rest)) => {
                let (_project, endpoint) = rest.split_once('/').unwrap_or((rest, ""));
                let endpoint = endpoint.replace(&self.key, &outbound.key);
                format!("/api/{}/{endpoint}", outbound.project)
            }
        };
        let mut uri = format!("{}{path}", outbound.base);
        if let Some(query) = self.parts.uri.query().filter(|_| !self.is_tunnel) {
            let mut out = form_urlencoded::Serializer::new(String::new());
            for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                match (&*name, &outbound.secret) {
                    ("sentry_key", _) => out.append_pair(&name, &outbound.key),
                    ("sentry_secret", None) => continue,
                    ("sentry_secret", Some(secret)) => out.append_pair(&name, secret),
                    _ => out.append_pair(&name, &value),
                };
            }
            uri.push('?');
            uri.push_str(&out.finish());
        }
        uri
    }

    fn auth(&self, value: &str, outbound: &Outbound) -> Option<String> {
        if value.len() > 6 && value[..6].eq_ignore_ascii_case("basic ") {
            let secret = outbound.secret.as_deref().unwrap_or("");
            let user = BASE64_STANDARD.encode(format!("{}:{secret}", outbound.key));
            return Some(format!("Basic {user}"));
        }
        let list = sentry_list(value)?;
        let replaced = list.split(',').filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            match (name, &outbound.secret) {
                ("sentry_key", _) => Some(Cow::from(format!("sentry_key={}", outbound.key))),
                ("sentry_secret", secret) => {
                    let secret = secret.as_ref()?;
                    Some(Cow::from(format!("sentry_secret={secret}")))
                }
                _ => Some(Cow::from(format!("{name}={value}"))),
            }
        });
        let replaced: Vec<_> = replaced.collect();
        Some(format!("Sentry {}", replaced.join(", ")))
    }

    fn body_for(&self, outbound: &Outbound) -> Result<Bytes, Refusal> {
        let Some((header, rest)) = &self.envelope else {
            return Ok(self.body.clone());
        };
        let mut header = header.clone();
        if let Some(dsn) = header.get_mut("dsn").filter(|dsn| dsn.is_string()) {
            *dsn = Value::from(outbound.dsn.as_str());
        }
        let trace_key = header
            .get_mut("trace")
            .and_then(|trace| trace.get_mut("public_key"));
        if let Some(key) = trace_key.filter(|key| key.is_string()) {
            *key = Value::from(outbound.key.as_str());
        }
        let out = BytesMut::with_capacity(self.body.len() + 256);
        let mut out = out.writer();
        serde_json::to_writer(&mut out, &header).map_err(|_| malformed("bad envelope header"))?;
        let mut out = out.into_inner();
        out.put_slice(&self.body[*rest..]);
        Ok(out.freeze())
    }
}

fn envelope_header(body: &Bytes) -> Result<(Value, usize), Refusal> {
    let end = memchr::memchr(b'\n', body).unwrap_or(body.len());
    let header = serde_json::from_slice(&body[..end]).map_err(|_| malformed("bad envelope"))?;
    Ok((header, end))
}

/// The key at a key site outside of the body.
fn find_key(parts: &Parts) -> Option<String> {
    let field = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    key_of_list(field(X_SENTRY_AUTH))
        .or_else(|| key_of_list(field(header::AUTHORIZATION)))
        .or_else(|| key_of_basic(field(header::AUTHORIZATION)?))
        .or_else(|| {
            let query = parts.uri.query()?.as_bytes();
            let mut pairs = form_urlencoded::parse(query);
            let (_, key) = pairs.find(|(name, _)| name == "sentry_key")?;
            Some(key.into_owned())
        })
        .or_else(|| {
            let mut segments = parts
                .uri
                .path()
                .split('/')
                .skip_while(|it| *it != "api")
                .skip(2);
            match segments.next()? {
                "unreal" => segments.next().map(str::to_owned),
                "cron" => segments.nth(1).map(str::to_owned),
                _ => None,
            }
        })
}

fn sentry_list(value: &str) -> Option<&str> {
    let (scheme, list) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("sentry").then_some(list)
}

fn key_of_list(value: Option<&str>) -> Option<String> {
    let pairs = sentry_list(value?)?.split(',');
    let mut keys = pairs.filter_map(|pair| pair.trim().strip_prefix("sentry_key="));
    keys.next().map(str::to_owned)
}

fn key_of_basic(value: &str) -> Option<String> {
    let (scheme, coded) = value.split_once(' ')?;
    let plain = BASE64_STANDARD.decode(coded).ok()?;
    let (key, _) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| key.to_owned())
}

fn key_of_dsn(dsn: &str) -> Option<String> {
    let (_, rest) = dsn.split_once("://")?;
    let (user, _) = rest.split_once('@')?;
    user.split(':').next().map(str::to_owned)
}

fn decode(headers: &HeaderMap, body: Bytes, bytes_max: usize) -> Result<Bytes, Refusal> {
    let coding = headers.get(header::CONTENT_ENCODING);
    let coding = coding.and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut out = Vec::with_capacity(body.len() * 4);
    let most = bytes_max as u64 + 1;
    let decoded = match coding.to_ascii_lowercase().as_str() {
        "" | "identity" | "utf-8" => return Ok(body),
        "gzip" => MultiGzDecoder::new(&*body).take(most).read_to_end(&mut out),
        "deflate" => ZlibDecoder::new(&*body).take(most).read_to_end(&mut out),
        "br" => brotli::Decompressor::new(&*body, 4096)
            .take(most)
            .read_to_end(&mut out),
        "zstd" => zstd::Decoder::with_buffer(&*body)
            .and_then(|decoder| decoder.take(most).read_to_end(&mut out)),
        _ => {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unknown coding",
            ));
        }
    };
    match decoded {
        Ok(count) if count > bytes_max => {
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too large"))
        }
        Ok(_) => Ok(out.into()),
        Err(_) => Err(malformed("the body cannot be decoded")),
    }
}

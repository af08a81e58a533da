//! The ways to do one exchange: send a request, read its response, keep the connection.
//!
//! Each way gets the request in its cheapest form, made beforehand, and copies only what one exchange
//! consumes. This compares the exchanges, and not how requests are made, which the mirror does in its own way.

use std::future::Future;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use monoio_http::common::body::{FixedBody, HttpBody};

pub mod bare;
pub mod client;
pub mod codec;
pub mod floor;
pub mod ours;

/// A way to do an exchange, with its pool of connections to one upstream.
pub trait Way {
    /// Its name in the tables.
    const NAME: &'static str;

    /// A request in the form this way takes.
    type Prepared: 'static;

    /// Converts `message` into that form.
    fn prepare(&self, message: &Message) -> Self::Prepared;

    /// Sends `request` and reads the response, before the deadline of the way.
    fn exchange(&self, request: &Self::Prepared) -> impl Future<Output = Result<Answer, String>>;
}

/// A request in a neutral form.
pub struct Message {
    pub authority: String,
    pub path: &'static str,
    pub body: Bytes,
}

/// The checked parts of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Message {
    /// The header lines that the mirror forwards from an SDK's request.
    fn headers(&self) -> [(&'static str, String); 6] {
        let auth = "Sentry sentry_key=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, sentry_version=7, \
                    sentry_client=sentry.python/2.35.0";
        [
            ("host", self.authority.clone()),
            ("content-length", self.body.len().to_string()),
            ("user-agent", "sentry.python/2.35.0".to_owned()),
            ("content-type", "application/x-sentry-envelope".to_owned()),
            ("x-sentry-auth", auth.to_owned()),
            ("accept", "*/*".to_owned()),
        ]
    }

    /// Request line and header lines, as bytes.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\n", self.path);
        for (name, value) in self.headers() {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// The request as the crate `http` has it.
    pub fn typed(&self) -> TypedRequest {
        let uri = format!("http://{}{}", self.authority, self.path);
        let headers = self.headers().into_iter().map(|(name, value)| {
            let value = HeaderValue::from_maybe_shared(Bytes::from(value));
            (
                HeaderName::from_static(name),
                value.expect("a header value"),
            )
        });
        TypedRequest {
            uri: uri.parse().expect("a URI"),
            headers: headers.collect(),
            body: self.body.clone(),
        }
    }
}

/// The parts of an [`http::Request`], which each exchange consumes.
pub struct TypedRequest {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl TypedRequest {
    /// A request to consume. Names, values and body are shared; the table of headers is not.
    pub fn instance(&self) -> Request<HttpBody> {
        let mut request = Request::new(HttpBody::fixed_body(Some(self.body.clone())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

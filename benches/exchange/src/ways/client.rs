//! monoio-http-client with its own pool and connector, over HTTP/1.1.
//!
//! It has no deadline, so it gets the one that its users add: a timeout around the call, as for any monoio
//! future.

use std::time::Duration;

use monoio::time::timeout;
use monoio_http::common::body::BodyExt;
use monoio_http_client::{Builder, Client};

use super::{Answer, Message, TypedRequest, Way};

/// The client, which knows the upstream's address from each request.
pub struct HttpClient {
    client: Client,
    patience: Duration,
}

impl HttpClient {
    /// A client. It spawns a task, so this works only on a runtime.
    pub fn new(patience: Duration) -> HttpClient {
        HttpClient {
            client: Builder::new().http1_client().build(),
            patience,
        }
    }

    async fn attempt(&self, request: &TypedRequest) -> Result<Answer, String> {
        let response = self.client.send_request(request.instance()).await;
        let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
        let body = body.bytes().await.map_err(|error| error.to_string())?;
        Ok(Answer {
            status: head.status.as_u16(),
            body,
        })
    }
}

impl Way for HttpClient {
    const NAME: &'static str = "monoio-http-client";
    type Prepared = TypedRequest;

    fn prepare(&self, message: &Message) -> TypedRequest {
        message.typed()
    }

    async fn exchange(&self, request: &TypedRequest) -> Result<Answer, String> {
        timeout(self.patience, self.attempt(request))
            .await
            .unwrap_or_else(|_| Err("timeout".to_owned()))
    }
}

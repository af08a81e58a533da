//! monoio-http's `ClientCodec` over a monoio stream, with the simplest correct pool.
//!
//! A connection leaves the pool for an exchange and returns only after success, so that a deadline drops it.
//! There is nothing else: no check before reuse, no retry, no limit.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use monoio::io::sink::SinkExt;
use monoio::io::stream::Stream;
use monoio::net::TcpStream;
use monoio::time::timeout;
use monoio_http::common::body::BodyExt;
use monoio_http::h1::codec::ClientCodec;

use super::{Answer, Message, TypedRequest, Way};

/// Idle connections with their codecs.
pub struct Codec {
    address: SocketAddr,
    patience: Duration,
    idle: RefCell<Vec<ClientCodec<TcpStream>>>,
}

impl Codec {
    pub fn new(address: SocketAddr, patience: Duration) -> Codec {
        Codec {
            address,
            patience,
            idle: RefCell::default(),
        }
    }

    async fn codec(&self) -> Result<ClientCodec<TcpStream>, String> {
        if let Some(codec) = self.idle.borrow_mut().pop() {
            return Ok(codec);
        }
        Ok(ClientCodec::new(crate::connect(self.address).await?))
    }

    async fn attempt(&self, request: &TypedRequest) -> Result<Answer, String> {
        let mut codec = self.codec().await?;
        let sent = codec.send_and_flush(request.instance()).await;
        sent.map_err(|error| error.to_string())?;
        let response = match codec.next().await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("closed without a response".to_owned()),
        };
        let (head, body) = response.into_parts();
        let body = body.with_io(&mut codec).bytes().await;
        let body = body.map_err(|error| error.to_string())?;
        self.idle.borrow_mut().push(codec);
        Ok(Answer {
            status: head.status.as_u16(),
            body,
        })
    }
}

impl Way for Codec {
    const NAME: &'static str = "monoio-http";
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

//! The floor: one write, reads until the expected number of bytes is there, nothing else.
//!
//! It shows the cost of the runtime, the kernel and a timeout; the rest of a way's time is its own. It parses
//! nothing: it knows the response in advance and compares. It is useless for real work.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::timeout;

use super::{Answer, Message, Way};
use crate::sink;

/// Idle connections with their buffers.
pub struct Floor {
    address: SocketAddr,
    patience: Duration,
    idle: RefCell<Vec<Connection>>,
}

struct Connection {
    stream: TcpStream,
    response: Vec<u8>,
}

/// The request and its response, as bytes.
pub struct Expected {
    request: Bytes,
    response: Vec<u8>,
    answer: Answer,
}

impl Floor {
    pub fn new(address: SocketAddr, patience: Duration) -> Floor {
        Floor {
            address,
            patience,
            idle: RefCell::default(),
        }
    }

    async fn connection(&self) -> Result<Connection, String> {
        if let Some(connection) = self.idle.borrow_mut().pop() {
            return Ok(connection);
        }
        let stream = crate::connect(self.address).await?;
        Ok(Connection {
            stream,
            response: Vec::with_capacity(16 * 1024),
        })
    }

    async fn attempt(&self, expected: &Expected) -> Result<Answer, String> {
        let mut connection = self.connection().await?;
        let (sent, _) = connection.stream.write_all(expected.request.clone()).await;
        sent.map_err(|error| error.to_string())?;
        let (received, response) = connection.stream.read(connection.response).await;
        connection.response = response;
        let count = received.map_err(|error| error.to_string())?;
        // The sink writes a response at once, and it is far smaller than what a read can take.
        if connection.response.get(..count) != Some(&expected.response) {
            return Err(format!("{count} bytes that are not the response"));
        }
        self.idle.borrow_mut().push(connection);
        Ok(expected.answer.clone())
    }
}

impl Way for Floor {
    const NAME: &'static str = "floor";
    type Prepared = Expected;

    fn prepare(&self, message: &Message) -> Expected {
        let mut request = message.head();
        request.extend_from_slice(&message.body);
        Expected {
            request: request.into(),
            response: sink::response(message.path),
            answer: Answer {
                status: 200,
                body: Bytes::from(sink::body(message.path)),
            },
        }
    }

    async fn exchange(&self, expected: &Expected) -> Result<Answer, String> {
        timeout(self.patience, self.attempt(expected))
            .await
            .unwrap_or_else(|_| Err("timeout".to_owned()))
    }
}

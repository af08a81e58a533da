//! Lingering close.
//!
//! A socket that is closed with unread bytes sends a reset, and so does a closed socket that receives more: an
//! empty line after a body, or the next request. The reset may overtake the reply, or make the client discard
//! it. So the connection is read and its data discarded for a while, until the client closes it, too (RFC 9112
//! section 9.6).

use std::time::{Duration, Instant};

use monoio::time::timeout;

use super::{Connection, ReadOutcome};
use crate::net::socket::READ_BYTES;
use crate::runtime::shutdown::Shutdown;

/// How long a lingering connection may be silent.
const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection lingers in all. A client may read the reply only after it has sent a large body.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);

impl Connection {
    /// Closes the connection in a way that lets the client read the reply: shuts down the sending side, then
    /// reads and discards until the client closes, too, or a timeout ends. The timeout is shorter while the
    /// worker shuts down, because the worker waits for this.
    pub(crate) async fn linger(mut self, shutdown: &Shutdown) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut deadline = Instant::now() + LINGER_TIMEOUT;
        let mut is_stopping = false;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            if shutdown.is_triggered() && !is_stopping {
                is_stopping = true;
                deadline = deadline.min(now + LINGER_IDLE_TIMEOUT);
            }
            // Waits without a buffer: most clients close at once.
            self.buffer.clear();
            self.release_buffer();
            let readable = timeout(LINGER_IDLE_TIMEOUT, self.stream.socket().readable(false));
            if !matches!(readable.await, Ok(Ok(()))) {
                return;
            }
            match self.fill(now + LINGER_IDLE_TIMEOUT, READ_BYTES).await {
                ReadOutcome::Data => {}
                ReadOutcome::End | ReadOutcome::Violation | ReadOutcome::TimedOut => return,
            }
        }
    }
}

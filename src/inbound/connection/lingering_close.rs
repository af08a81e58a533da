//! A polite end, for a client that may still be sending.
//!
//! A socket that is closed with unread bytes in it answers with a reset, and so it answers what comes when
//! it is closed: an empty line behind a body, or the next request. The reset may overtake the reply, or
//! take it from the client's buffer. So what still comes is read for a while and thrown away, until the
//! client has closed too (RFC 9112 section 9.6).

use std::time::{Duration, Instant};

use bytes::BytesMut;
use monoio::io::AsyncWriteRent;
use monoio::time::timeout;

use super::{Connection, ReadOutcome};
use crate::net::socket::READ_BYTES;
use crate::runtime::shutdown::Shutdown;

/// How long a closed connection may be silent, and how long it is read at all. A client that sends a
/// large body reads only after that.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
const LINGER_TIME: Duration = Duration::from_secs(30);

impl Connection {
    /// Closes so that the client can still read the reply: no more writing from our side, then
    /// reading for a while until the client has closed too. A worker that is stopping waits for that,
    /// so it takes less time then.
    pub(crate) async fn linger(mut self, shutdown: &Shutdown) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut deadline = Instant::now() + LINGER_TIME;
        let mut is_stopping = false;
        self.buffer = BytesMut::new();
        loop {
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            if shutdown.is_triggered() && !is_stopping {
                is_stopping = true;
                deadline = deadline.min(now + LINGER_SILENCE);
            }
            // No buffer is held while nothing comes: most clients close at once.
            let readable = timeout(LINGER_SILENCE, self.stream.readable(false));
            if !matches!(readable.await, Ok(Ok(()))) {
                return;
            }
            self.buffer.clear();
            match self.fill(now + LINGER_SILENCE, READ_BYTES).await {
                ReadOutcome::Some => {}
                ReadOutcome::End | ReadOutcome::Late => return,
            }
        }
    }
}

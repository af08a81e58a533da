//! The tasks of a session: one reads, one writes, one watches.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use monoio::time::sleep;

use crate::net::duplex::{Meter, Receiver, Sender, split};
use crate::net::socket::READ_BYTES;
use crate::net::stream::Stream;
use crate::runtime::deadline::in_time;
use crate::runtime::panics::caught;
use crate::upstream::counters::SessionEnd;
use crate::upstream::exchange::Failure;
use crate::upstream::http2::output_memory::BYTES_FREE;
use crate::upstream::http2::session::Session;
use crate::upstream::read_buffer::ReadError;

/// How often a session with deliveries is watched. So silence is noticed at most this much late.
const WATCHED: Duration = Duration::from_millis(250);

/// How often one without deliveries is.
const WATCHED_IDLE: Duration = Duration::from_secs(1);

/// How long the reader may take for what the server sent before it closed, after it takes nothing any more:
/// responses, or the alert that tells why. And how long the writer may take to tell a server that broke a rule why it
/// is left.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// The most that is read at once while there are no deliveries: the usual response.
const IDLE_READ_BYTES: usize = 2 * 1024;

/// Starts the tasks of a session over `stream`.
///
/// # Errors
/// The process has no descriptor left.
pub(super) fn start(session: &Rc<Session>, stream: Stream) -> io::Result<()> {
    let (receiver, sender) = split(stream)?;
    let meter = receiver.meter();
    spawn(session, |session| read(session, receiver));
    spawn(session, |session| write(session, sender));
    spawn(session, |session| watch(session, meter));
    Ok(())
}

/// Runs a task. A panic in it ends the session only.
fn spawn<F: Future<Output = ()> + 'static>(
    session: &Rc<Session>,
    task: impl FnOnce(Rc<Session>) -> F,
) {
    let running = task(Rc::clone(session));
    let session = Rc::clone(session);
    monoio::spawn(async move {
        let running = pin!(running);
        if caught(running).await.is_err() {
            let error = io::Error::other("a bug in this program: an HTTP/2 connection panicked");
            session.end(Failure::Receive(error.into()), SessionEnd::Broken);
        }
    });
}

async fn read(session: Rc<Session>, mut receiver: Receiver) {
    let mut incoming = BytesMut::new();
    loop {
        let buffer = std::mem::take(&mut incoming);
        // An operation that is dropped may lose bytes, but then the session has ended.
        let read = {
            // A session without deliveries holds a small buffer meanwhile, so that a delivery that comes alone costs
            // one operation to receive its response, not one to wait for it and another one to read it.
            let bytes_max = match session.deliveries() {
                0 => IDLE_READ_BYTES,
                _ => READ_BYTES,
            };
            let reading = pin!(receiver.receive(buffer, bytes_max));
            unless(reading, |context| session.poll_unread(context)).await
        };
        let Some((received, buffer)) = read else {
            return;
        };
        incoming = buffer;
        let is_open = matches!(received, Ok(true));
        // Responses may have arrived together with the end.
        if is_open || !incoming.is_empty() {
            session.receive(&mut incoming, Instant::now());
        }
        match received {
            Ok(true) => {}
            Ok(false) => return session.end(Failure::Closed, SessionEnd::Closed),
            Err(error) => {
                let failure = Failure::from(ReadError::Io(error));
                return session.end(failure, SessionEnd::Broken);
            }
        }
        if receiver.wants_write() {
            session.flush();
        }
    }
}

/// Runs `future` until `ended` completes.
async fn unless<T>(
    mut future: Pin<&mut impl Future<Output = T>>,
    ended: impl Fn(&Context<'_>) -> Poll<()>,
) -> Option<T> {
    poll_fn(|context| match ended(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(context).map(Some),
    })
    .await
}

async fn write(session: Rc<Session>, mut sender: Sender) {
    let mut buffer = Vec::new();
    while let Some(output) = session.output(buffer).await {
        let mut sending = pin!(sender.send(output));
        if session.has_ended() {
            in_time(Instant::now() + LAST_WORDS, sending.as_mut()).await;
            return;
        }
        let sent = unless(sending, |context| session.poll_failed(context)).await;
        let Some((sent, mut sent_buffer)) = sent else {
            return;
        };
        if let Err(error) = sent {
            let ended = pin!(poll_fn(|context| session.poll_failed(context)));
            in_time(Instant::now() + LAST_WORDS, ended).await;
            return session.end(Failure::Send(error.into()), SessionEnd::Broken);
        }
        sent_buffer.clear();
        sent_buffer.shrink_to(BYTES_FREE);
        buffer = sent_buffer;
    }
    session.end(Failure::Closed, SessionEnd::Closed);
}

async fn watch(session: Rc<Session>, meter: Meter) {
    while !session.has_ended() {
        let interval = match session.deliveries() {
            0 => WATCHED_IDLE,
            _ => WATCHED,
        };
        sleep(interval).await;
        session.watch(Instant::now(), || meter.taken_bytes());
    }
}

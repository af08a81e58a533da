//! The smallest HTTP server that is still safe to leave running.
//!
//! One short-lived thread per connection, one request per connection. Their number, the bytes of a
//! request and the time for reading it and for writing the answer are bounded, so that a client which
//! does nothing, or everything, costs a thread for some seconds at most and never keeps a probe waiting.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::pages::{Page, Pages};

/// How many connections are served at a time. A collector, a probe and some browsers need a handful.
const CONNECTIONS_MAX: usize = 32;

/// The bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The header lines of a request.
const FIELDS_MAX: usize = 64;

/// The time for a request to come, and that for an answer to be taken.
const READ_TIME: Duration = Duration::from_secs(3);
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How long a client may take to close once it has its answer.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// The pause after a failed accept, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `pages` to all who connect, for ever.
pub(super) fn serve(listener: &TcpListener, pages: &Arc<Pages>) {
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let place = Place::take(&connections);
        if place.number > CONNECTIONS_MAX {
            // Closed without a word: words would take time, and there is too much to do already.
            continue;
        }
        let pages = Arc::clone(pages);
        let spawned = thread::Builder::new()
            .name("admin-connection".to_owned())
            .spawn(move || {
                // A client that is gone needs no answer.
                let _ = answer(stream, &pages);
                drop(place);
            });
        if let Err(error) = spawned {
            warn!(%error, "cannot start a thread for a connection to the admin pages");
        }
    }
}

/// A connection being served; counts itself out when dropped.
struct Place {
    connections: Arc<AtomicUsize>,
    number: usize,
}

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Place {
        Place {
            connections: Arc::clone(connections),
            number: connections.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    let request = read_request(&mut stream)?;
    let (page, is_head) = match &request {
        Some(request) => (pages.page(request), request.method == "HEAD"),
        None => (
            Page::text(400, "this is no request that is understood\n"),
            false,
        ),
    };
    let mut bytes = head(&page).into_bytes();
    if !is_head {
        bytes.extend_from_slice(page.body.as_bytes());
    }
    write_all(&mut stream, &bytes)?;
    stream.shutdown(Shutdown::Write)?;
    // What is still unread would make the kernel reset the connection, and the answer with it.
    stream.set_read_timeout(Some(CLOSE_TIME))?;
    let mut rest = [0; 1024];
    let _ = stream.read(&mut rest)?;
    Ok(())
}

/// A request as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its method.
    pub(super) method: String,
    /// Its path, without the query.
    pub(super) path: String,
    /// What it would like to have.
    pub(super) accept: String,
}

/// Reads a request; `None` where it is malformed or too large.
fn read_request(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    let deadline = Instant::now() + READ_TIME;
    let mut head = Vec::new();
    let mut room = [0; 2048];
    while head.len() < HEAD_BYTES_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut room)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(room.get(..count).unwrap_or_default());
        match parse(&head) {
            Ok(None) => {}
            Ok(request) => return Ok(request),
            Err(_malformed) => return Ok(None),
        }
    }
    Ok(None)
}

/// The request that `head` holds, if it is complete.
fn parse(head: &[u8]) -> Result<Option<Request>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    if parsed.parse(head)?.is_partial() {
        return Ok(None);
    }
    let target = parsed.path.unwrap_or_default();
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut accepts = parsed
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("accept"));
    let accept = accepts.next().map_or(&[][..], |field| field.value);
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        accept: String::from_utf8_lossy(accept).into_owned(),
    }))
}

fn head(page: &Page) -> String {
    let phrase = match page.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    format!(
        "HTTP/1.1 {} {phrase}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'\r\n{}Connection: close\r\n\r\n",
        page.status,
        page.content_type,
        page.body.len(),
        if page.status == 405 {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        },
    )
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + WRITE_TIME;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        let count = stream.write(bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// The time until `deadline`, which is never zero: to the system that would mean for ever.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_method_its_path_and_what_it_accepts() {
        let head = b"GET /metrics?x=1 HTTP/1.1\r\nHost: m\r\naccept: text/plain\r\n\r\n";
        let expected = Request {
            method: "GET".to_owned(),
            path: "/metrics".to_owned(),
            accept: "text/plain".to_owned(),
        };
        assert_eq!(parse(head), Ok(Some(expected)));
        for end in 0..head.len() {
            assert_eq!(parse(&head[..end]), Ok(None), "{end}");
        }
        assert!(parse(b"\0\r\n\r\n").is_err());
    }
}

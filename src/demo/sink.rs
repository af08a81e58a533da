//! A small stand-in for Sentry: accepts everything, answers what Sentry answers, shows what it got.
//!
//! Blocking sockets and one thread per connection are enough for something that a person watches. Of
//! the mirror it uses the pure rooms only: the syntax of HTTP, the endpoints and their answers.
//! Reading and writing are its own, so that faults of the mirror's I/O show here. It does not check
//! keys, keeps nothing, and is not meant to be reached from outside.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::wire::{Fault, Request, Wire};
use crate::causes;
use crate::http::head::{FieldName, Method};
use crate::sentry::endpoint::{self, Shape};
use crate::sentry::envelope;

/// The pause after a failed accept: running out of file descriptors lasts for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a sink says about each request: the request, or why it was none.
pub(super) type Arrival = Result<Request, String>;

/// Accepts on `listen` for the rest of the process and hands every arrival to `on_arrival`, after it
/// was answered. Gives the address, with the port that was taken for port 0.
pub(super) fn start(
    listen: SocketAddr,
    on_arrival: impl Fn(Arrival) + Send + Sync + 'static,
) -> Result<SocketAddr, String> {
    let failed = |error: io::Error| causes::of_listening(listen, "--listen", &error);
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let on_arrival = Arc::new(on_arrival);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let on_arrival = Arc::clone(&on_arrival);
            let serving = move || serve(&stream, &*on_arrival);
            // A connection that gets no thread is closed, as a busy server would.
            let _ = thread::Builder::new()
                .name("sink".to_owned())
                .spawn(serving);
        }
    });
    Ok(address)
}

/// Answers the requests of one connection until it ends.
fn serve(stream: &TcpStream, on_arrival: &dyn Fn(Arrival)) {
    let mut wire = Wire::new(stream);
    loop {
        let request = match read(stream, &mut wire) {
            Ok(Some(request)) => request,
            Ok(None) | Err(Fault::Io(_)) => return,
            Err(Fault::Malformed(reason)) => {
                // Whether the sender still listens changes nothing: the connection ends here.
                let _ = (&mut &*stream).write_all(&refusal(&reason));
                return on_arrival(Err(reason));
            }
        };
        let head = &request.head;
        let keep_alive = head.parsed.keep_alive(&head.bytes);
        let answered = (&mut &*stream).write_all(&answer(&request, keep_alive));
        on_arrival(Ok(request));
        if answered.is_err() || !keep_alive {
            return;
        }
    }
}

/// Reads a request, with the `100 Continue` that its sender may wait for.
fn read(mut stream: &TcpStream, wire: &mut Wire<&TcpStream>) -> Result<Option<Request>, Fault> {
    let Some(head) = wire.request_head()? else {
        return Ok(None);
    };
    if head.parsed.expects_continue(&head.bytes) {
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        stream.write_all(interim).map_err(Fault::Io)?;
    }
    wire.request(head).map(Some)
}

/// The success shape of the request's endpoint.
fn answer(request: &Request, keep_alive: bool) -> Vec<u8> {
    let (head, parsed) = (&request.head.bytes, &request.head.parsed);
    let endpoint = endpoint::parse_target(head, parsed.target, &mut Vec::new()).endpoint;
    let event_id = envelope::scan(&request.body, &mut Vec::new())
        .ok()
        .and_then(|header| header.event_id)
        .map(|span| span.of(&request.body));
    let content_type = parsed.values(FieldName::ContentType, head).next();
    let shape = endpoint.success(parsed.method_span.of(head), event_id, content_type);
    message(&shape, "OK", parsed.method == Method::Head, keep_alive)
}

/// The answer to what is not a request, in Relay's shape.
fn refusal(reason: &str) -> Vec<u8> {
    let shape = Shape {
        status: 400,
        content_type: Some("application/json"),
        body: serde_json::json!({ "detail": reason })
            .to_string()
            .into_bytes()
            .into(),
    };
    message(&shape, "Bad Request", false, false)
}

fn message(shape: &Shape, reason: &str, is_head: bool, keep_alive: bool) -> Vec<u8> {
    let mut message = format!("HTTP/1.1 {} {reason}\r\n", shape.status);
    if let Some(content_type) = shape.content_type {
        message += &format!("Content-Type: {content_type}\r\n");
    }
    // RFC 9110 section 8.6: a 204 has no length.
    if shape.status != 204 {
        message += &format!("Content-Length: {}\r\n", shape.body.len());
    }
    // Lets a browser's SDK talk to a sink without the mirror in between.
    message += "Access-Control-Allow-Origin: *\r\n";
    if !keep_alive {
        message += "Connection: close\r\n";
    }
    message += "\r\n";
    let mut message = message.into_bytes();
    if !is_head {
        message.extend_from_slice(&shape.body);
    }
    message
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn sink() -> (TcpStream, mpsc::Receiver<Arrival>) {
        let (sender, arrivals) = mpsc::channel();
        let on_arrival = move |arrival| sender.send(arrival).unwrap();
        let address = start((Ipv4Addr::LOCALHOST, 0).into(), on_arrival).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (stream, arrivals)
    }

    #[test]
    fn a_connection_is_kept_and_each_request_is_answered_as_sentry_does() {
        let (mut stream, arrivals) = sink();
        let mut wire = Wire::new(stream.try_clone().unwrap());
        let id = "9ec79c33ec9942ab8353589fcb2e04dc";
        let body = format!("{{\"event_id\":\"{id}\"}}\n");
        for (request, status, answer) in [
            (
                format!(
                    "POST /api/1/envelope/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
                200,
                format!("{{\"id\":\"{id}\"}}"),
            ),
            (
                "POST /api/1/cron/job/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                    .to_owned(),
                202,
                String::new(),
            ),
        ] {
            stream.write_all(request.as_bytes()).unwrap();
            let got = wire.answer().unwrap();
            assert_eq!((got.status, &*got.body), (status, answer.as_bytes()));
            assert!(arrivals.recv_timeout(PATIENCE).unwrap().is_ok());
        }
    }

    #[test]
    fn a_sender_that_waits_for_its_100_gets_it() {
        let (mut stream, arrivals) = sink();
        let mut wire = Wire::new(stream.try_clone().unwrap());
        stream
            .write_all(
                b"POST /api/1/store/ HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
            )
            .unwrap();
        assert_eq!(wire.answer().unwrap().status, 100);
        stream.write_all(b"{}").unwrap();
        assert_eq!(wire.answer().unwrap().status, 200);
        assert_eq!(
            &*arrivals.recv_timeout(PATIENCE).unwrap().unwrap().body,
            b"{}"
        );
    }

    #[test]
    fn what_is_no_request_is_answered_with_400_and_the_connection_ends() {
        let (mut stream, arrivals) = sink();
        let mut wire = Wire::new(stream.try_clone().unwrap());
        stream.write_all(b"\x16\x03\x01 not http\r\n\r\n").unwrap();
        let got = wire.answer().unwrap();
        assert_eq!(got.status, 400);
        assert!(got.body.starts_with(b"{\"detail\":"));
        assert!(wire.answer().is_err());
        assert!(arrivals.recv_timeout(PATIENCE).unwrap().is_err());
    }
}

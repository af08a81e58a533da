//! A stand-in for Sentry: accepts everything and answers as Sentry does, or as the command line says.
//!
//! Blocking sockets and one thread per connection are enough for a person who watches. It checks no keys,
//! stores nothing, and is not meant to be reachable from outside.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use crate::blocking::message::Message;
use crate::cli::{RateLimit, SinkArguments};
use crate::os_errors;
use crate::sentry::category::Category;
use crate::sentry::endpoint::{self, Endpoint};
use crate::sentry::envelope;
use crate::sentry::items::items;
use crate::span::Span;

/// The pause after a failed accept, for example without free file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How a sink answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Behaviour {
    pub(super) delay: Duration,
    /// The status of every answer, if it is not Sentry's.
    pub(super) status: Option<u16>,
    pub(super) rate_limit: Option<RateLimit>,
    /// Whether it closes each connection after a request, without an answer.
    pub(super) closes: bool,
}

impl Behaviour {
    pub(super) fn new(arguments: &SinkArguments) -> Behaviour {
        Behaviour {
            delay: arguments.delay.unwrap_or_default(),
            status: arguments.status,
            rate_limit: arguments.rate_limit.clone(),
            closes: arguments.close,
        }
    }

    /// The behaviour in words, as the end of a sentence about the sink.
    pub(super) fn description(&self) -> String {
        let mut parts = Vec::new();
        if !self.delay.is_zero() {
            parts.push(format!("waits {:?} before each answer", self.delay));
        }
        if let Some(limit) = &self.rate_limit {
            parts.push(format!("answers 429 with the rate limit {}", limit.field()));
        }
        if let Some(status) = self.status {
            parts.push(format!("answers {status}"));
        }
        if self.closes {
            parts.push("closes each connection without an answer".to_owned());
        }
        match parts.is_empty() {
            true => "answers as Sentry does".to_owned(),
            false => parts.join(", "),
        }
    }

    /// The answer to a request; `None` if there is none.
    fn answer(&self, request: &Message) -> Option<Vec<u8>> {
        let limit = self.rate_limit.as_ref();
        let limit = limit.filter(|limit| limit.applies_to(categories(request).into_iter()));
        match (limit, self.status) {
            _ if self.closes => None,
            (Some(limit), _) => Some(limited(request, limit)),
            (None, Some(status)) => Some(refusal(request, status)),
            (None, None) => Some(success(request)),
        }
    }
}

/// The index of a sink and a request to it, or what was wrong with that.
pub(super) type Arrival = (usize, Result<Message, String>);

/// Accepts on `listen` for the rest of the process. Sends each request to `arrivals` after it was answered.
/// Returns the address with the actual port.
pub(super) fn start(
    listen: SocketAddr,
    index: usize,
    behaviour: Behaviour,
    arrivals: Sender<Arrival>,
) -> Result<SocketAddr, String> {
    let failed = |error: io::Error| os_errors::listen_error(listen, "--listen", &error);
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let behaviour = Arc::new(behaviour);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(ACCEPT_BACKOFF);
                continue;
            };
            let arrivals = arrivals.clone();
            let behaviour = Arc::clone(&behaviour);
            // Without a thread the connection is closed.
            let _ = thread::Builder::new().spawn(move || {
                // An error ends the connection; nothing else can be done about it.
                let _ = serve(&stream, &behaviour, |request| {
                    // Nothing receives only while the process ends.
                    let _ = arrivals.send((index, request));
                });
            });
        }
    });
    Ok(address)
}

fn serve(
    mut stream: &TcpStream,
    behaviour: &Behaviour,
    on_arrival: impl Fn(Result<Message, String>),
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        match Message::read(&mut reader) {
            Ok(Some(request)) => {
                let closes = request.field("connection") == Some("close");
                thread::sleep(behaviour.delay);
                let answer = behaviour.answer(&request);
                if let Some(answer) = &answer {
                    stream.write_all(answer)?;
                }
                on_arrival(Ok(request));
                if closes || answer.is_none() {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    on_arrival(Err(error.to_string()));
                    stream.write_all(
                        b"HTTP/1.1 400 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    )?;
                }
                return Err(error);
            }
        }
    }
}

pub(super) fn endpoint(request: &Message) -> Endpoint {
    let target = request.part(1).as_bytes();
    let span = Span::new(0, target.len());
    endpoint::parse_target(target, span, &mut Vec::new()).endpoint
}

/// The categories of a request, by which Sentry limits it.
fn categories(request: &Message) -> Vec<Category> {
    let endpoint = endpoint(request);
    if let Some(category) = Category::from_endpoint(endpoint) {
        return vec![category];
    }
    if !matches!(endpoint, Endpoint::Envelope | Endpoint::Tunnel) {
        return Vec::new();
    }
    let body = &request.body;
    let header_end = body.iter().position(|byte| *byte == b'\n');
    let items = items(body, header_end.unwrap_or(body.len())).map_while(Result::ok);
    let category = |kind: &[u8]| Category::from_item_type(kind);
    items.filter_map(|item| category(&item.kind)).collect()
}

/// The success response of the request's endpoint.
fn success(request: &Message) -> Vec<u8> {
    let header = envelope::scan(&request.body, &mut Vec::new()).ok();
    let event_id = header.and_then(|header| header.event_id);
    let event_id = event_id.map(|span| span.slice(&request.body));
    let content_type = request.field("content-type").map(str::as_bytes);
    let method = request.part(0);
    let response = endpoint(request).success(method.as_bytes(), event_id, content_type);
    let content_type = response.content_type.unwrap_or("text/plain");
    answer(request, response.status, content_type, "", &response.body)
}

/// The answer with a rate limit that is reached, as Relay makes it.
fn limited(request: &Message, limit: &RateLimit) -> Vec<u8> {
    let fields = format!(
        "Retry-After: {}\r\nX-Sentry-Rate-Limits: {}\r\n",
        limit.seconds,
        limit.field()
    );
    let body = b"{\"detail\":\"Sentry dropped data due to a quota or internal rate limit being reached.\"}";
    answer(request, 429, "application/json", &fields, body)
}

/// The answer with a status from the command line.
fn refusal(request: &Message, status: u16) -> Vec<u8> {
    let body = format!("{{\"detail\":\"the sink answers {status}\"}}");
    answer(request, status, "application/json", "", body.as_bytes())
}

fn answer(
    request: &Message,
    status: u16,
    content_type: &str,
    fields: &str,
    body: &[u8],
) -> Vec<u8> {
    // A 204 has no Content-Length (RFC 9110 section 8.6), and neither it nor a 304 has a body.
    let has_body = !matches!(status, 204 | 304);
    let body_fields = match has_body {
        false => String::new(),
        true => format!(
            "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
            body.len()
        ),
    };
    // The CORS field lets the SDK of a browser talk to a sink directly.
    let mut message = format!(
        "HTTP/1.1 {status} \r\n{body_fields}{fields}Access-Control-Allow-Origin: *\r\n\r\n"
    )
    .into_bytes();
    if has_body && request.part(0) != "HEAD" {
        message.extend_from_slice(body);
    }
    message
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;
    use crate::sentry::category::CategorySet;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// A sink with the index 7.
    fn sink(behaviour: Behaviour, sender: Sender<Arrival>) -> SocketAddr {
        start((Ipv4Addr::LOCALHOST, 0).into(), 7, behaviour, sender).unwrap()
    }

    /// What a sink answers to an envelope with one item of the type `kind`; `None` if it closes the connection.
    fn asked(behaviour: &Behaviour, kind: &str) -> Option<Message> {
        let (sender, _arrivals) = mpsc::channel();
        let mut stream = TcpStream::connect(sink(behaviour.clone(), sender)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let body = format!("{{}}\n{{\"type\":\"{kind}\"}}\n{{}}\n");
        let length = body.len();
        let head = format!("POST /api/1/envelope/ HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).unwrap();
        Message::read(&mut BufReader::new(stream)).unwrap()
    }

    #[test]
    fn a_sink_answers_with_the_status_it_was_given() {
        let behaviour = Behaviour {
            status: Some(503),
            ..Behaviour::default()
        };
        let answer = asked(&behaviour, "event").unwrap();
        assert_eq!(answer.part(1), "503");
        assert_eq!(&*answer.body, b"{\"detail\":\"the sink answers 503\"}");
        let empty = Behaviour {
            status: Some(204),
            ..Behaviour::default()
        };
        let answer = asked(&empty, "event").unwrap();
        assert_eq!(answer.field("content-length"), None);
    }

    #[test]
    fn a_sink_limits_only_requests_of_the_categories_it_was_given() {
        let limit = |categories| RateLimit {
            categories,
            seconds: 30,
        };
        let errors = CategorySet::parse("error");
        for (limit, kind, status) in [
            (limit(errors), "event", "429"),
            (limit(errors), "session", "200"),
            (limit(None), "session", "429"),
        ] {
            let behaviour = Behaviour {
                rate_limit: Some(limit.clone()),
                ..Behaviour::default()
            };
            let answer = asked(&behaviour, kind).unwrap();
            assert_eq!(answer.part(1), status, "{kind}");
            let is_limited = status == "429";
            let expected = is_limited.then(|| limit.field());
            assert_eq!(answer.field("x-sentry-rate-limits"), expected.as_deref());
            assert_eq!(answer.field("retry-after"), is_limited.then_some("30"));
        }
    }

    #[test]
    fn a_sink_may_close_the_connection_instead_of_an_answer() {
        let behaviour = Behaviour {
            closes: true,
            ..Behaviour::default()
        };
        assert!(asked(&behaviour, "event").is_none());
    }

    #[test]
    fn a_slow_sink_waits_before_its_answer() {
        let behaviour = Behaviour {
            delay: Duration::from_millis(30),
            ..Behaviour::default()
        };
        let start = Instant::now();
        assert_eq!(asked(&behaviour, "event").unwrap().part(1), "200");
        assert!(start.elapsed() >= behaviour.delay);
    }

    #[test]
    fn requests_of_a_connection_are_answered_until_one_is_malformed() {
        let (sender, arrivals) = mpsc::channel();
        let address = sink(Behaviour::default(), sender);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let id = "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}\n";
        for (request, status, body) in [
            (
                format!(
                    "POST /api/1/envelope/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n{id}",
                    id.len()
                ),
                "200",
                "{\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}",
            ),
            (
                "POST /api/1/cron/job/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                    .to_owned(),
                "202",
                "",
            ),
            ("\x16\x03\x01 not http\r\n".to_owned(), "400", ""),
        ] {
            stream.write_all(request.as_bytes()).unwrap();
            let answer = Message::read(&mut reader).unwrap().unwrap();
            assert_eq!((answer.part(1), &*answer.body), (status, body.as_bytes()));
            let (index, arrival) = arrivals.recv_timeout(TIMEOUT).unwrap();
            assert_eq!((index, arrival.is_ok()), (7, status != "400"));
        }
        assert!(Message::read(&mut reader).unwrap().is_none());
    }
}

//! Upstreams that send more than one response per request. The surplus answers no request, and such an
//! upstream gets a new connection for each request for a while.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::support::tls::Authority;
use crate::support::upstream::read_request;
use crate::support::{
    Action, Config, KEY_A, PATIENCE, Process, Upstream, config, envelope, envelope_request,
};

const DROPPED: &str = "sentry_mirror_upstream_connections_dropped_total";
const WARNING: &str = "upstream sent bytes that answer no request";

/// What an upstream does on a connection after its response has reached the client.
#[derive(Clone, Copy, Debug)]
enum Then {
    Nothing,
    Say(&'static str),
    /// Sends it and closes.
    Leave(&'static str),
    /// Sends a TLS message without application data.
    UpdateKeys,
    /// Closes TLS, but not the connection below.
    EndTls,
}

/// An upstream that answers every request with its event id, and then follows an order.
struct Told {
    address: SocketAddr,
    orders: Sender<Then>,
    done: Receiver<()>,
    connections: Arc<AtomicUsize>,
    authority: Option<Authority>,
}

impl Told {
    fn start(has_tls: bool) -> Told {
        let authority = has_tls.then(Authority::new);
        let tls = authority
            .as_ref()
            .map(|authority| Arc::new(authority.server_config("localhost")));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, given) = channel();
        let (tells, done) = channel();
        let given = Arc::new(Mutex::new(given));
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let (given, tells) = (Arc::clone(&given), tells.clone());
                let tls = tls.clone();
                thread::spawn(move || match tls {
                    None => serve(stream, &given, &tells),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(session, stream), &given, &tells)
                    }
                });
            }
        });
        Told {
            address,
            orders,
            done,
            connections,
            authority,
        }
    }

    fn mirror(&self, driver: &str) -> Process {
        let port = self.address.port();
        let config = match &self.authority {
            None => Config::new([format!("http://{KEY_A}@127.0.0.1:{port}/11")]),
            Some(authority) => {
                Config::new([format!("https://{KEY_A}@localhost:{port}/11")]).trust(authority)
            }
        };
        config.with_metrics().set("driver", driver).start()
    }

    /// Gives an order to the connection with the last response.
    fn order(&self, then: Then) {
        self.orders.send(then).unwrap();
        self.done.recv_timeout(PATIENCE).unwrap();
    }

    /// How many connections it has accepted.
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The upstream's end of a connection.
trait Speaker: Read + Write {
    fn update_keys(&mut self) {}
    fn end_tls(&mut self) {}
}

impl Speaker for TcpStream {}

impl Speaker for StreamOwned<ServerConnection, TcpStream> {
    fn update_keys(&mut self) {
        self.conn.refresh_traffic_keys().unwrap();
        // Without this it would wait for the next write.
        self.flush().unwrap();
    }

    fn end_tls(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
    }
}

/// Serves one connection until it ends.
fn serve<S: Speaker>(stream: S, orders: &Mutex<Receiver<Then>>, done: &Sender<()>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let id = read_id(&mut reader)?;
        let body = format!(r#"{{"id":"{id}"}}"#);
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        say(reader.get_mut(), &(head + &body))?;
        let then = orders.lock().unwrap().recv().ok()?;
        let stream = reader.get_mut();
        match then {
            Then::Nothing => {}
            // The mirror may have closed already.
            Then::Say(words) | Then::Leave(words) => drop(say(stream, words)),
            Then::UpdateKeys => stream.update_keys(),
            Then::EndTls => stream.end_tls(),
        }
        if matches!(then, Then::Leave(_)) {
            drop(reader);
            return done.send(()).ok();
        }
        done.send(()).ok()?;
    }
}

fn say(stream: &mut impl Write, words: &str) -> Option<()> {
    stream.write_all(words.as_bytes()).ok()?;
    stream.flush().ok()
}

/// Reads one request and gives the event id in it.
fn read_id(reader: &mut impl BufRead) -> Option<String> {
    let request = read_request(reader)?;
    let (_, rest) = request.text().split_once(r#""event_id":""#)?;
    Some(rest.split('"').next()?.to_owned())
}

const ANOTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
const FAREWELL: &str = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";

/// Sends a request for each of `orders`, and checks that each gets its own response.
fn ask_each(mirror: &Process, told: &Told, orders: &[Then]) {
    let mut client = mirror.client();
    for (number, order) in orders.iter().enumerate() {
        let id = format!("9ec79c33ec9942ab8353589fcb2e{number:04}");
        let response = client.ask(&envelope_request(envelope(&id).as_bytes()));
        let expected = format!(r#"{{"id":"{id}"}}"#);
        assert_eq!(response.text(), expected, "{number} of {orders:?}");
        told.order(*order);
    }
}

#[test]
fn unsolicited_responses_answer_no_request_and_suspend_connection_reuse() {
    for driver in ["auto", "epoll"] {
        for has_tls in [false, true] {
            for (words, seen) in [
                (ANOTHER, "a response with status 200"),
                ("HTTP/1.1 4", "bytes without an HTTP status"),
                ("left over", "bytes without an HTTP status"),
            ] {
                let told = Told::start(has_tls);
                let mirror = told.mirror(driver);
                let say = Then::Say(words);
                let orders = [Then::Nothing, Then::Nothing, say, say, say, Then::Nothing];
                ask_each(&mirror, &told, &orders);
                // The first three shared one connection, and the other three had one each.
                assert_eq!(told.connections(), 4, "{driver} {words:?}");
                let line = mirror.wait_for_line(WARNING);
                assert!(line.contains(seen), "{line}");
                let metrics = mirror.metrics();
                let found = metrics.sum(DROPPED, &[r#"reason="unsolicited_data""#]);
                let unpooled = metrics.sum(DROPPED, &[r#"reason="not_pooled""#]);
                assert_eq!((found, unpooled), (1.0, 3.0), "{driver} {words:?}");
            }
        }
    }
}

#[test]
fn connection_ends_and_tls_messages_are_not_unsolicited_data() {
    for driver in ["auto", "epoll"] {
        for (has_tls, order) in [
            (false, Then::Leave("")),
            (false, Then::Leave(FAREWELL)),
            (true, Then::Leave("")),
            (true, Then::Leave(FAREWELL)),
            (true, Then::EndTls),
            (true, Then::UpdateKeys),
        ] {
            let told = Told::start(has_tls);
            let mirror = told.mirror(driver);
            let quiet = Then::Nothing;
            ask_each(&mirror, &told, &[quiet, order, quiet, quiet, quiet]);
            assert_eq!(told.connections(), 2, "{driver} {order:?}");
            let unpooled = mirror.metrics().sum(DROPPED, &[]);
            assert_eq!(unpooled, 0.0, "{driver} {order:?}");
            assert!(!mirror.log().iter().any(|line| line.contains(WARNING)));
        }
    }
}

#[test]
fn bytes_after_a_response_suspend_the_pool() {
    for rest in ["left over", ANOTHER] {
        let upstream = Upstream::start(move |number, _| match number {
            0 => Action::Raw(format!("{ANOTHER}{rest}").into_bytes()),
            _ => Action::ok(),
        });
        let extra = "workers: 1\nadmin: {port: 0}";
        let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], extra));
        let mut client = mirror.client();
        for _ in 0..4 {
            let response = client.ask(&envelope_request(envelope("00").as_bytes()));
            assert_eq!(response.status, 200);
        }
        assert_eq!(upstream.connections(), 4);
        mirror.wait_for_line(WARNING);
    }
}

#[test]
fn an_undetectable_late_response_misleads_at_most_one_request() {
    // The unsolicited response comes when the connection is in use again, before the actual response.
    let upstream = Upstream::start(|number, _| match number % 2 {
        0 => Action::ok(),
        _ => Action::Raw(
            format!("{ANOTHER}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes(),
        ),
    });
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], "workers: 1"));
    let mut client = mirror.client();
    for _ in 0..10 {
        client.ask(&envelope_request(envelope("00").as_bytes()));
    }
    // A connection for the first two requests, and one for each that followed.
    assert_eq!(upstream.connections(), 9);
}

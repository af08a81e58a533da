//! A process that is stopped for longer than its time-outs, by SIGSTOP, a frozen control group or a
//! suspended machine: data that waits in its sockets when it continues counts as in time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::{Client, Config, KEY_A, envelope, envelope_request, wait_until};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const REQUESTS: usize = 12;
/// `timeouts.exchange` and `timeouts.head`; `reply_timeout` is shorter, and `STOPPED` is longer.
const TIMEOUT: &str = "4s";
const STOPPED: Duration = Duration::from_secs(5);

#[test]
fn data_that_arrived_while_the_process_was_stopped_is_in_time() {
    for driver in ["auto", "epoll"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mirror = Config::new([format!("http://{KEY_A}@{address}/11")])
            .with_metrics()
            .set("driver", driver)
            .set("reply_timeout", "3s")
            .set("timeouts.exchange", TIMEOUT)
            .set("timeouts.head", TIMEOUT)
            .start();
        let request = envelope_request(envelope(ID).as_bytes());
        let mut clients: Vec<Client> = (0..REQUESTS).map(|_| mirror.client()).collect();
        for client in &mut clients {
            client.send(&request);
        }
        let mut upstreams: Vec<TcpStream> = (0..REQUESTS)
            .map(|_| {
                let (mut stream, _) = listener.accept().unwrap();
                assert_ne!(stream.read(&mut [0; 4000]).unwrap(), 0);
                stream
            })
            .collect();
        let mut half = mirror.client();
        half.send(&request[..60]);

        mirror.signal("STOP");
        wait_until(|| mirror.is_stopped(), || "it is not stopped".to_owned());
        for stream in &mut upstreams {
            answer(stream);
        }
        half.send(&request[60..]);
        // Longer than the time-outs.
        thread::sleep(STOPPED);
        mirror.signal("CONT");

        for client in &mut clients {
            let reply = client.response();
            let told = (reply.status, reply.text());
            assert_eq!(told, (200, "{\"id\":\"late\"}"), "{driver}");
        }
        // The breaker stays closed. A connection may or may not be back in the pool for the request that was
        // half sent, so the upstream serves new connections, too.
        for stream in upstreams {
            thread::spawn(move || serve(stream));
        }
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
        assert_eq!(half.response().status, 200, "{driver}");
        assert_eq!(clients[0].ask(&request).status, 200, "{driver}");
        let metrics = mirror.metrics();
        let count = |outcome: &str| {
            let label = format!("outcome=\"{outcome}\"");
            metrics.sum("sentry_mirror_deliveries_total", &[&label])
        };
        assert_eq!(count("timeout"), 0.0, "{driver}");
        assert_eq!(count("2xx"), REQUESTS as f64 + 2.0, "{driver}");
    }
}

fn answer(stream: &mut TcpStream) {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"id\":\"late\"}";
    stream.write_all(answer).unwrap();
}

/// Answers every request until the mirror closes.
fn serve(mut stream: TcpStream) {
    while stream.read(&mut [0; 4000]).is_ok_and(|count| count > 0) {
        answer(&mut stream);
    }
}

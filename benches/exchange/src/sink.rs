//! The upstream that all ways talk to: it reads requests and answers each with its own path.
//!
//! It runs on its own thread and core, so that its CPU time does not count. Some paths make it misbehave as
//! real servers do, see [`Manner`]; none of that needs a clock.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;

use bytes::BytesMut;
use monoio::io::AsyncWriteRentExt;
use monoio::net::{TcpListener, TcpStream};
use sentry_mirror::internals::net::socket::read_some;

use crate::machine::{self, Role};

/// The path of a request that is answered late: together with the next one on its connection.
pub const SLOW: &str = "/slow";
/// The path of a request after whose response the connection is closed without notice.
pub const LAST: &str = "/last";
/// The path of a request that gets a `100 Continue` first.
pub const INTERIM: &str = "/interim";

/// Starts it, for as long as the process lives. Returns where it listens.
pub fn start() -> Result<SocketAddr, String> {
    let (ready, address) = mpsc::channel();
    thread::Builder::new()
        .name("sink".to_owned())
        .spawn(move || run(&ready))
        .map_err(|error| format!("no thread for the sink: {error}"))?;
    address
        .recv()
        .unwrap_or_else(|_| Err("the sink died".to_owned()))
}

/// The body of the answer to `path`.
pub fn body(path: &str) -> String {
    format!("answer to {path}")
}

/// The answer to `path`, with header lines such as Relay sends.
pub fn response(path: &str) -> Vec<u8> {
    let body = body(path);
    format!(
        "HTTP/1.1 200 OK\r\n\
         server: nginx\r\n\
         date: Mon, 05 Jan 2026 12:00:00 GMT\r\n\
         content-type: application/json\r\n\
         content-length: {}\r\n\
         vary: origin, access-control-request-method, access-control-request-headers\r\n\
         access-control-allow-origin: *\r\n\
         access-control-expose-headers: x-sentry-error,x-sentry-rate-limits,retry-after\r\n\
         via: 1.1 google\r\n\
         \r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn run(ready: &mpsc::Sender<Result<SocketAddr, String>>) {
    let served = machine::runtime(Role::Sink).map(|mut runtime| {
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            // The other end is closed only at the end of the program.
            let _ = ready.send(listener.local_addr().map_err(|error| error.to_string()));
            loop {
                #[expect(clippy::disallowed_methods, reason = "it is never given up")]
                let (stream, _peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                monoio::spawn(serve(stream));
            }
        })
    });
    let result: Result<(), std::io::Error> = match served {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error)),
    };
    if let Err(error) = result {
        let _ = ready.send(Err(format!("sink: {error}")));
    }
}

/// Serves one connection until it ends.
async fn serve(mut stream: TcpStream) {
    let mut buffer = BytesMut::new();
    let mut held_back = Vec::new();
    loop {
        let (path, len) = loop {
            if let Some(request) = Arrived::find(&buffer) {
                buffer.reserve(request.len.saturating_sub(buffer.len()));
                if buffer.len() >= request.len {
                    break (request.path, request.len);
                }
            }
            let (result, rest) = read_some(&mut stream, buffer, usize::MAX).await;
            buffer = rest;
            if !matches!(result, Ok(1..)) {
                return;
            }
        };
        drop(buffer.split_to(len));

        let mut answer = std::mem::take(&mut held_back);
        if path == INTERIM {
            answer.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        answer.extend_from_slice(&response(&path));
        if path == SLOW {
            held_back = answer;
            continue;
        }
        let (result, _) = stream.write_all(answer).await;
        if result.is_err() || path == LAST {
            return;
        }
    }
}

/// A request whose head has arrived.
struct Arrived {
    path: String,
    /// Its length, body included.
    len: usize,
}

impl Arrived {
    /// The request at the start of `buffer`. All of them have a `content-length` in lower case.
    fn find(buffer: &[u8]) -> Option<Arrived> {
        let head_len = buffer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&buffer[..head_len]).ok()?;
        let path = head.split(' ').nth(1)?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?;
        Some(Arrived {
            path: path.to_owned(),
            len: head_len + length.parse::<usize>().ok()?,
        })
    }
}

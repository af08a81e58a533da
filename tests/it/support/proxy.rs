//! A small HTTP proxy.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it does with a connection once it has the head of a request.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    /// Connects to the upstream, whatever name the request has.
    Serve,
    /// The same if `Proxy-Authorization` has this value; otherwise 407.
    Require(&'static str),
    /// Answers with these bytes and closes.
    Answer(&'static str),
    /// Answers with a head that does not end.
    Endless,
    /// Never answers.
    Hang,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// A proxy that knows no server but the one at `upstream`.
    pub(crate) fn start(upstream: SocketAddr, behaviour: Behaviour) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || serve(stream, upstream, behaviour, &seen));
            }
        });
        Proxy { address, heads }
    }

    /// The heads of the first request on each connection.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("unpoisoned").clone()
    }
}

fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    behaviour: Behaviour,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    seen.lock().expect("unpoisoned").push(head.clone());
    let is_allowed = match behaviour {
        Behaviour::Serve => true,
        Behaviour::Require(value) => {
            head.contains(&format!("\r\nProxy-Authorization: {value}\r\n"))
        }
        Behaviour::Answer(bytes) => {
            client.write_all(bytes.as_bytes())?;
            return client.shutdown(Shutdown::Both);
        }
        Behaviour::Endless => {
            client.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                client.write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")?;
            }
        }
        Behaviour::Hang => {
            return io::copy(&mut reader, &mut io::sink()).map(|_| ());
        }
    };
    if !is_allowed {
        client.write_all(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
        )?;
        return io::copy(&mut reader, &mut io::sink()).map(|_| ());
    }
    let mut server = TcpStream::connect_timeout(&upstream, super::PATIENCE)?;
    if head.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    } else {
        server.write_all(head.as_bytes())?;
    }
    let buffered = reader.buffer().to_vec();
    server.write_all(&buffered)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut server.take(u64::MAX), &mut client);
    client.shutdown(Shutdown::Both)
}

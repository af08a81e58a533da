//! The largest request that has to pass with default limits: a form with a minidump of 200 MiB, which is
//! Relay's limit for an attachment, and a small log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::support::{IN_KEY, KEY_A, KEY_B, Process, config};

const MIB: usize = 1024 * 1024;
const DUMP_MIB: usize = 200;
const ID: &str = "f8f8b981-960e-448a-87ae-fb58fc61541b";

/// The body: one block, repeated, so that it can be compared without being stored.
struct Form {
    front: Vec<u8>,
    block: Vec<u8>,
    back: Vec<u8>,
}

impl Form {
    fn new() -> Form {
        let disposition = "Content-Disposition: form-data; name=";
        let front = format!(
            "--x\r\n{disposition}\"upload_file_minidump\"; filename=\"a.dmp\"\r\nContent-Type: application/octet-stream\r\n\r\nMDMP"
        );
        let back = format!(
            "\r\n--x\r\n{disposition}\"log\"; filename=\"log.txt\"\r\n\r\n{}\r\n--x--\r\n",
            "a line of the log\n".repeat(1000)
        );
        // Not a power of two, so that swapped blocks differ.
        let block = (0..MIB).map(|at| (at % 251) as u8).collect();
        Form {
            front: front.into(),
            block,
            back: back.into(),
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let blocks = std::iter::repeat_n(&self.block, DUMP_MIB);
        let ends = [&self.front, &self.back];
        let [front, back] = ends.map(std::iter::once);
        front.chain(blocks).chain(back).map(Vec::as_slice)
    }

    fn bytes(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }
}

/// Accepts one request, which must have `form` as its body, answers it, and gives the lines of its head.
fn take(form: &Arc<Form>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let form = Arc::clone(form);
    let taking = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(&stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut arrived = vec![0; MIB];
        for piece in form.pieces() {
            let arrived = &mut arrived[..piece.len()];
            reader.read_exact(arrived).expect("the whole form");
            assert!(arrived == piece, "the form has changed");
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{ID}",
            ID.len()
        );
        (&stream).write_all(answer.as_bytes()).expect("it listens");
        head
    });
    (address, taking)
}

#[test]
fn a_minidump_of_200_mib_arrives_whole_at_both_outbounds() {
    let form = Arc::new(Form::new());
    let [(a, at_a), (b, at_b)] = [take(&form), take(&form)];
    let outbounds = [
        format!("http://{KEY_A}@{a}/11"),
        format!("http://{KEY_B}@{b}/22"),
    ];
    let mirror = Process::start(&config(&outbounds, "reply_timeout: 20s"));
    let mut client = mirror.client();
    let length = format!("Content-Length: {}", form.bytes());
    let head = format!(
        "POST /api/42/minidump/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Type: multipart/form-data; boundary=x\r\n{length}\r\n\r\n"
    );
    client.send(head.as_bytes());
    for piece in form.pieces() {
        client.send(piece);
    }
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, ID));
    for (at, project, key) in [(at_a, 11, KEY_A), (at_b, 22, KEY_B)] {
        let head = at.join().expect("the form arrived as it was");
        let line = format!("POST /api/{project}/minidump/?sentry_key={key} HTTP/1.1");
        assert_eq!(head[0], line);
        assert!(head.contains(&length), "{head:?}");
    }
}

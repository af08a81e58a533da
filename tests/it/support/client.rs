//! A client that writes given bytes and reads responses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{PATIENCE, only};

/// A connection to the mirror.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

/// A response of the mirror.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header field, which must occur at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        only(&self.fields, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).expect("the mirror listens"))
    }

    /// Uses a connection that the test has opened.
    pub(crate) fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader
            .get_mut()
            .write_all(bytes)
            .expect("the mirror reads");
    }

    /// Sends and waits for the response.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Response {
        self.send(bytes);
        self.response()
    }

    /// Reads one response; one to HEAD must be read with [`Client::response_head`].
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.response_head();
        if response.field("transfer-encoding") == Some("chunked") {
            response.body = self.chunks();
            return response;
        }
        let length = response
            .field("content-length")
            .map_or(0, |value| value.parse().expect("a number"));
        response.body = vec![0; length];
        self.reader
            .read_exact(&mut response.body)
            .expect("the whole body");
        response
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line(), 16).expect("the length of a chunk");
            let begin = body.len();
            body.resize(begin + length, 0);
            let chunk = body.get_mut(begin..).expect("the chunk");
            self.reader.read_exact(chunk).expect("the whole chunk");
            assert_eq!(self.line(), "", "a chunk has its end");
            if length == 0 {
                return body;
            }
        }
    }

    /// Reads the head of a response.
    pub(crate) fn response_head(&mut self) -> Response {
        let status_line = self.line();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Response {
                    status,
                    fields,
                    body: Vec::new(),
                };
            }
            let (name, value) = line.split_once(": ").expect("name: value");
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Whether the mirror has closed the connection, with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0; 1]), Ok(0))
    }

    /// Another handle of the connection, to write from another thread.
    pub(crate) fn another_handle(&self) -> TcpStream {
        self.reader.get_ref().try_clone().expect("a handle")
    }

    /// Closes the sending side.
    pub(crate) fn finish_writing(&mut self) {
        self.reader
            .get_ref()
            .shutdown(std::net::Shutdown::Write)
            .expect("still open");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line in time");
        assert!(line.ends_with("\r\n"), "a line without CRLF: {line:?}");
        line.trim_end_matches("\r\n").to_owned()
    }
}

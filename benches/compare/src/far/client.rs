//! A client of the load: an SDK with one connection, which never blocks and outlives every failure.

use std::io;
use std::net::{SocketAddr, TcpStream};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
    sockopt,
};

use crate::sink::content_length;
use crate::wire::Template;

#[derive(Default)]
pub struct Client {
    stream: Option<TcpStream>,
    /// The request that is not answered yet.
    pub request: Option<usize>,
    sent: usize,
    answer: Vec<u8>,
}

/// What an event has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Waiting,
    /// An answer, and whether its status is 2xx.
    Answered(bool),
    /// The connection failed before an answer.
    Broken,
}

impl Client {
    /// The connection to register, if a new one is needed.
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<Option<&TcpStream>> {
        if self.stream.is_some() {
            return Ok(None);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Some(self.stream.insert(TcpStream::from(socket))))
    }

    /// Begins a request.
    pub fn begin(&mut self, number: usize, template: &mut Template) -> Turn {
        self.request = Some(number);
        self.sent = 0;
        self.answer.clear();
        self.push(template)
    }

    /// Sends what the socket takes.
    pub fn push(&mut self, template: &mut Template) -> Turn {
        let (Some(stream), Some(number)) = (&self.stream, self.request) else {
            return Turn::Waiting;
        };
        // All clients share the bytes.
        if self.sent < template.wire.len() {
            template.name(number);
        }
        while self.sent < template.wire.len() {
            match send(stream, &template.wire[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN | Errno::NOTCONN) => return Turn::Waiting,
                Err(_) => return self.end(Turn::Broken),
            }
        }
        Turn::Waiting
    }

    /// Reads what is there.
    pub fn read(&mut self, scratch: &mut [u8]) -> Turn {
        let Some(stream) = &self.stream else {
            return Turn::Waiting;
        };
        let count = match recv(stream, &mut *scratch, RecvFlags::empty()) {
            Ok((_, count)) => count,
            Err(Errno::AGAIN) => return Turn::Waiting,
            Err(_) => 0,
        };
        if count == 0 {
            return self.end(Turn::Broken);
        }
        self.answer.extend_from_slice(&scratch[..count]);
        match judge(&self.answer) {
            None => Turn::Waiting,
            Some(answer) => {
                let turn = Turn::Answered(answer.is_success);
                if answer.closes {
                    return self.end(turn);
                }
                self.request = None;
                turn
            }
        }
    }

    /// Drops the connection.
    fn end(&mut self, turn: Turn) -> Turn {
        self.stream = None;
        // A server may close an idle connection.
        match self.request.take() {
            Some(_) => turn,
            None => Turn::Waiting,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    is_success: bool,
    closes: bool,
}

/// The complete answer, once it is complete.
fn judge(bytes: &[u8]) -> Option<Answer> {
    let head_len = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = &bytes[..head_len];
    let length = content_length(head).unwrap_or(0);
    (bytes.len() >= head_len + length).then(|| Answer {
        is_success: head.starts_with(b"HTTP/1.1 2"),
        closes: head
            .split(|byte| *byte == b'\n')
            .any(|line| line.trim_ascii().eq_ignore_ascii_case(b"connection: close")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_when_it_is_complete() {
        for (text, is_success, closes) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                true,
                false,
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                false,
                true,
            ),
        ] {
            let bytes = text.as_bytes();
            assert_eq!(judge(&bytes[..bytes.len() - 1]), None);
            assert_eq!(judge(bytes), Some(Answer { is_success, closes }));
        }
    }
}

//! A lane of the load: one client that sends one request after the other.
//!
//! A lane has a connection, or opens one for each request, as the SDKs for Java, Ruby and PHP do. All lanes share
//! the bytes that they send, except for the number of the request at the front, which is always sent before
//! another lane writes its own.

use std::io;
use std::net::{SocketAddr, TcpStream};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::sink::content_length;
use crate::wire::Template;

pub struct Lane {
    pub stream: Option<TcpStream>,
    /// Whether it takes a new connection for each request.
    pub is_fresh: bool,
    /// When its request was due; `None` without one.
    pub due: Option<u64>,
    /// The template that it sends, and how much is sent.
    template: usize,
    sent: usize,
    response: Vec<u8>,
}

/// The result of an event on a lane.
pub enum Turn {
    /// Its request is answered.
    Answered,
    Waiting,
    Failed(String),
}

impl Lane {
    pub fn new(is_fresh: bool) -> Lane {
        Lane {
            stream: None,
            is_fresh,
            due: None,
            template: 0,
            sent: 0,
            response: Vec::new(),
        }
    }

    /// Opens its connection.
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<&TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(self.stream.insert(stream))
    }

    /// Starts a request that was due at this time.
    pub fn begin(&mut self, due: u64, index: usize, template: &Template) -> Result<(), String> {
        self.due = Some(due);
        self.template = index;
        self.sent = 0;
        self.response.clear();
        self.push(template)?;
        if self.sent == 0 {
            return Err("not even the head of a request can be sent".to_owned());
        }
        Ok(())
    }

    /// The template that is not completely sent yet, if there is one.
    pub fn unsent(&self, templates: &[Template]) -> Option<usize> {
        let is_unsent = self.due.is_some() && self.sent < templates[self.template].wire.len();
        is_unsent.then_some(self.template)
    }

    /// Sends on.
    pub fn push(&mut self, template: &Template) -> Result<(), String> {
        let Some(stream) = &self.stream else {
            return Err("there is no connection".to_owned());
        };
        while self.sent < template.wire.len() {
            match send(stream, &template.wire[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(format!("cannot send a request: {error}")),
            }
        }
        Ok(())
    }

    /// Reads once.
    pub fn read(&mut self, scratch: &mut [u8]) -> Turn {
        let Some(stream) = &self.stream else {
            return Turn::Waiting;
        };
        let count = match recv(stream, &mut *scratch, RecvFlags::empty()) {
            Ok((_, count)) => count,
            Err(rustix::io::Errno::AGAIN) => return Turn::Waiting,
            Err(error) => return Turn::Failed(format!("cannot read a reply: {error}")),
        };
        if self.due.is_none() {
            // A server may close an idle connection.
            self.stream = None;
            return Turn::Waiting;
        }
        if count == 0 {
            return Turn::Failed("the connection was closed instead of a reply".to_owned());
        }
        let new = &scratch[..count];
        let reply = if self.response.is_empty() {
            new
        } else {
            self.response.extend_from_slice(new);
            &self.response
        };
        match judge(reply) {
            Ok(true) => Turn::Answered,
            Ok(false) => {
                if self.response.is_empty() {
                    self.response.extend_from_slice(new);
                }
                Turn::Waiting
            }
            Err(complaint) => Turn::Failed(complaint),
        }
    }
}

/// Whether `reply` is complete; an error if it is not a success.
fn judge(reply: &[u8]) -> Result<bool, String> {
    let Some(head_end) = memchr::memmem::find(reply, b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = &reply[..head_end + 4];
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let text = String::from_utf8_lossy(reply);
        return Err(format!("a request was answered {text:?}"));
    }
    let length = content_length(head).ok_or("a reply has no Content-Length")?;
    Ok(reply.len() >= head.len() + length)
}

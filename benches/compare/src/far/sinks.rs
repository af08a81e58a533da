//! Sinks that answer after a delay.
//!
//! All answers have the same delay, so that a queue in the order of arrival is the cheapest timer there is.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustls::ServerConfig;

use crate::engine::said;
use crate::ledger::Ledger;
use crate::sink::SinkConnection;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 16_384;

/// How many connections are accepted at a time, so that nothing else waits long.
const BATCH: usize = 64;

pub struct Sinks {
    listeners: Vec<TcpListener>,
    tls: Option<Arc<ServerConfig>>,
    delay: u64,
    connections: Vec<Slot>,
    vacant: Vec<usize>,
    answers: VecDeque<Answer>,
    pub ledgers: Vec<Ledger>,
    /// How many connections they have accepted.
    pub accepted: usize,
    /// Whether a connection could not be accepted, and why.
    pub complaint: Option<String>,
    /// The highest bits of the data of their events.
    listener_mark: u64,
    connection_mark: u64,
}

/// A place for connections, one after the other.
#[derive(Default)]
struct Slot {
    connection: Option<SinkConnection>,
    /// Which connection this is.
    turn: u32,
}

struct Answer {
    due: u64,
    slot: usize,
    turn: u32,
    requests: usize,
}

impl Sinks {
    /// Starts so many, with free ports of `ip`.
    pub fn listen(
        count: usize,
        ip: Ipv4Addr,
        tls: Option<Arc<ServerConfig>>,
        delay: Duration,
    ) -> Result<Sinks, String> {
        let listeners = (0..count).map(|_| listener(ip));
        let listeners = listeners.collect::<rustix::io::Result<Vec<_>>>();
        Ok(Sinks {
            listeners: listeners.map_err(said("a sink"))?,
            tls,
            delay: delay.as_nanos() as u64,
            connections: Vec::new(),
            vacant: Vec::new(),
            answers: VecDeque::new(),
            ledgers: Vec::new(),
            accepted: 0,
            complaint: None,
            listener_mark: 0,
            connection_mark: 0,
        })
    }

    pub fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let addresses = self.listeners.iter().map(TcpListener::local_addr);
        addresses
            .collect::<Result<_, _>>()
            .map_err(said("a sink's address"))
    }

    /// Registers the listeners with the marks of events for them and their connections.
    pub fn watch(&mut self, epoll: &OwnedFd, listener: u64, connection: u64) -> Result<(), String> {
        (self.listener_mark, self.connection_mark) = (listener, connection);
        for (index, socket) in self.listeners.iter().enumerate() {
            let data = EventData::new_u64(listener | index as u64);
            epoll::add(epoll, socket, data, EventFlags::IN).map_err(said("epoll"))?;
        }
        Ok(())
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.connections.len() - self.vacant.len()
    }

    /// How many requests have arrived at all sinks together.
    pub fn arrived(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.arrived).sum()
    }

    pub fn accept(&mut self, epoll: &OwnedFd, sink: usize) -> Result<(), String> {
        for _ in 0..BATCH {
            let stream = match self.listeners[sink].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    let complaint = format!("a sink could not accept: {error}");
                    self.complaint.get_or_insert(complaint);
                    break;
                }
            };
            self.accepted += 1;
            let connection = SinkConnection::new(stream, sink, self.tls.as_ref());
            let connection = connection.map_err(said("a sink's connection"))?;
            let slot = self.vacant.pop().unwrap_or_else(|| {
                self.connections.push(Slot::default());
                self.connections.len() - 1
            });
            let data = EventData::new_u64(self.connection_mark | slot as u64);
            let added = epoll::add(epoll, connection.stream(), data, EventFlags::IN);
            added.map_err(said("epoll"))?;
            self.connections[slot].connection = Some(connection);
        }
        Ok(())
    }

    /// Reads from a connection.
    pub fn serve(&mut self, slot: usize, now: u64, scratch: &mut [u8]) {
        let Some(connection) = &mut self.connections[slot].connection else {
            return;
        };
        let ledger = &mut self.ledgers[connection.sink];
        match connection.turn(ledger, scratch) {
            None => self.end(slot),
            Some(0) => {}
            Some(requests) if self.delay == 0 => {
                if !connection.answer(requests) {
                    self.end(slot);
                }
            }
            Some(requests) => self.answers.push_back(Answer {
                due: now + self.delay,
                slot,
                turn: self.connections[slot].turn,
                requests,
            }),
        }
    }

    /// Sends the answers that are due; gives whether there were any.
    pub fn answer(&mut self, now: u64) -> bool {
        let mut is_busy = false;
        while let Some(answer) = self.answers.pop_front_if(|answer| answer.due <= now) {
            is_busy = true;
            let slot = &mut self.connections[answer.slot];
            if slot.turn == answer.turn
                && let Some(connection) = &mut slot.connection
                && !connection.answer(answer.requests)
            {
                self.end(answer.slot);
            }
        }
        is_busy
    }

    fn end(&mut self, slot: usize) {
        let state = &mut self.connections[slot];
        state.connection = None;
        state.turn = state.turn.wrapping_add(1);
        self.vacant.push(slot);
    }
}

/// The standard library's listeners have room for 128 connections only.
fn listener(ip: Ipv4Addr) -> rustix::io::Result<TcpListener> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::from((ip, 0)))?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

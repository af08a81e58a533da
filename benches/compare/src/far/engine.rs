//! The load, the sinks and the line in one thread that never sleeps, as in [`crate::engine`].
//!
//! Unlike there a request may fail, and there are as many clients as an open load needs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

use super::cases::Load;
use super::client::{Client, Turn};
use super::history::{Fate, Request};
use super::line::Line;
use super::sinks::Sinks;
use crate::engine::said;
use crate::wire::Template;

/// The most clients of an open load. What is due while all of them wait is sent later, and its latency tells.
const CLIENTS: usize = 5_000;

/// How many requests are sent, and how many events are handled, before anything else has its turn.
const BATCH: usize = 32;

/// Over which time a closed load begins.
const BEGINNING: Duration = Duration::from_millis(300);

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What an event is about: the highest bits of its data.
const LISTENER: u64 = 1 << 40;
const SINK: u64 = 2 << 40;
const CLIENT: u64 = 3 << 40;
const INDEX: u64 = LISTENER - 1;

pub struct Engine {
    epoll: OwnedFd,
    start: Instant,
    pub sinks: Sinks,
    line: Option<Line>,
    target: SocketAddr,
    template: Template,
    clients: Vec<Client>,
    free: VecDeque<usize>,
    /// Requests that are due and have no client.
    waiting: VecDeque<usize>,
    /// Every request, by its number.
    pub requests: Vec<Request>,
    pub answered: usize,
    pub refused: usize,
    load: Option<(Load, u64)>,
    /// How many requests of this load were due.
    planned: u64,
    scratch: Vec<u8>,
    events: Vec<Event>,
}

impl Engine {
    pub fn new(
        mut sinks: Sinks,
        line: Option<Line>,
        target: SocketAddr,
        template: Template,
    ) -> Result<Engine, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(said("epoll"))?;
        sinks.watch(&epoll, LISTENER, SINK)?;
        Ok(Engine {
            epoll,
            start: Instant::now(),
            sinks,
            line,
            target,
            template,
            clients: Vec::new(),
            free: VecDeque::new(),
            waiting: VecDeque::new(),
            requests: Vec::new(),
            answered: 0,
            refused: 0,
            load: None,
            planned: 0,
            scratch: vec![0; 64 * 1024],
            events: Vec::with_capacity(BATCH),
        })
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Begins to send.
    pub fn begin(&mut self, load: Load) {
        self.planned = 0;
        self.load = Some((load, self.now()));
    }

    /// Ends to send; what was due until now is still sent.
    pub fn pause(&mut self) {
        let now = self.now();
        while let Some(due) = self.next_due(now) {
            self.plan(due);
        }
        self.load = None;
    }

    fn plan(&mut self, due: u64) {
        self.planned += 1;
        self.waiting.push_back(self.requests.len());
        self.requests.push(Request::new(due));
    }

    /// How many requests are due and not answered.
    pub fn in_flight(&self) -> usize {
        self.requests.len() - self.answered - self.refused
    }

    /// Runs everything for a while.
    pub fn run(&mut self, time: Duration) -> Result<(), String> {
        self.run_until(self.now() + time.as_nanos() as u64, |_| false)
    }

    /// Runs until all requests are answered and all sinks have them, or the time is over.
    pub fn settle(&mut self, time: Duration) -> Result<(), String> {
        let is_over = |engine: &Engine| {
            let arrived = |ledger: &crate::ledger::Ledger| ledger.arrived >= engine.requests.len();
            engine.in_flight() == 0 && engine.sinks.ledgers.iter().all(arrived)
        };
        self.run_until(self.now() + time.as_nanos() as u64, is_over)?;
        for (number, request) in self.requests.iter_mut().enumerate() {
            let mut ledgers = self.sinks.ledgers.iter();
            request.is_mirrored = ledgers.all(|ledger| ledger.times(number) > 0);
        }
        Ok(())
    }

    fn run_until(&mut self, end: u64, is_over: impl Fn(&Engine) -> bool) -> Result<(), String> {
        loop {
            let now = self.now();
            if now >= end || is_over(self) {
                return Ok(());
            }
            let mut is_busy = match &mut self.line {
                Some(line) => line.carry(now)?,
                None => false,
            };
            is_busy |= self.sinks.answer(now);
            is_busy |= self.send_due(now)?;
            is_busy |= self.handle_events()?;
            if !is_busy {
                // Without a core of its own it has to let others run.
                thread::yield_now();
            }
        }
    }

    fn send_due(&mut self, now: u64) -> Result<bool, String> {
        let mut is_busy = false;
        for _ in 0..BATCH {
            let Some(due) = self.next_due(now) else {
                break;
            };
            self.plan(due);
        }
        for _ in 0..BATCH {
            let Some(number) = self.waiting.front().copied() else {
                break;
            };
            let Some(client) = self.free_client() else {
                break;
            };
            self.waiting.pop_front();
            self.send(client, number)?;
            is_busy = true;
        }
        Ok(is_busy)
    }

    /// When the next request was due, if it is.
    fn next_due(&self, now: u64) -> Option<u64> {
        let (load, begin) = self.load?;
        let after = |requests: u64, rate: f64| {
            let due = begin + (requests as f64 * 1e9 / rate) as u64;
            (due <= now).then_some(due)
        };
        match load {
            Load::Open(rate) => after(self.planned, rate),
            Load::Bursts { rate, size } => {
                let size = u64::from(size);
                after(self.planned / size * size, rate)
            }
            Load::Closed(clients) => {
                let passed = (now - begin) as f64 / BEGINNING.as_nanos() as f64;
                let allowed = clients as f64 * passed.min(1.0);
                (self.in_flight() < allowed as usize).then_some(now)
            }
        }
    }

    fn free_client(&mut self) -> Option<usize> {
        self.free.pop_front().or_else(|| {
            (self.clients.len() < CLIENTS).then(|| {
                self.clients.push(Client::default());
                self.clients.len() - 1
            })
        })
    }

    fn send(&mut self, client: usize, number: usize) -> Result<(), String> {
        let connected = self.clients[client].connect(self.target);
        if let Some(stream) = connected.map_err(said("a connection to the contender"))? {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            let data = EventData::new_u64(CLIENT | client as u64);
            epoll::add(&self.epoll, stream, data, flags).map_err(said("epoll"))?;
        }
        let now = self.now();
        let request = &mut self.requests[number];
        request.late = now - request.due;
        let turn = self.clients[client].begin(number, &mut self.template);
        self.note(client, number, turn);
        Ok(())
    }

    fn handle_events(&mut self) -> Result<bool, String> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&AT_ONCE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("epoll: {error}")),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            let index = (data & INDEX) as usize;
            match data & !INDEX {
                LISTENER => self.sinks.accept(&self.epoll, index)?,
                SINK => {
                    let now = self.now();
                    self.sinks.serve(index, now, &mut self.scratch);
                }
                _ => self.advance(index, flags),
            }
        }
        let is_busy = !events.is_empty();
        self.events = events;
        Ok(is_busy)
    }

    fn advance(&mut self, client: usize, flags: EventFlags) {
        let Some(number) = self.clients[client].request else {
            // Its server may have closed it.
            self.clients[client].read(&mut self.scratch);
            return;
        };
        let mut turn = Turn::Waiting;
        if flags.contains(EventFlags::OUT) {
            turn = self.clients[client].push(&mut self.template);
        }
        if turn == Turn::Waiting {
            turn = self.clients[client].read(&mut self.scratch);
        }
        self.note(client, number, turn);
    }

    fn note(&mut self, client: usize, number: usize, turn: Turn) {
        let now = self.now();
        let request = &mut self.requests[number];
        request.fate = match turn {
            Turn::Waiting => return,
            Turn::Answered(true) => Fate::Accepted,
            Turn::Answered(false) | Turn::Broken => Fate::Refused,
        };
        request.latency = now - request.due;
        match request.fate {
            Fate::Accepted => self.answered += 1,
            _ => self.refused += 1,
        }
        self.free.push_back(client);
    }
}

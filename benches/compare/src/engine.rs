//! The load and the sinks: one thread, one epoll, no runtime.
//!
//! The cost of a contender shows only if its surroundings cost less, and the timing of an open load is right only
//! if nothing else wants the core. So everything here is a read or a write as soon as possible, on one core,
//! bounded in number and time.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::time::Timespec;
use rustls::ServerConfig;

use crate::lane::{Lane, Turn};
use crate::ledger::{Ledger, Verdict};
use crate::sink::SinkConnection;
use crate::wire::Template;

/// How long a slot may be idle before it is abandoned.
const PATIENCE: Duration = Duration::from_secs(20);

/// For a look at what has happened.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What an event is about: the highest bits of its data.
const LISTENER: u64 = 1 << 40;
const SINK: u64 = 2 << 40;
const LANE: u64 = 3 << 40;
const INDEX: u64 = LISTENER - 1;

/// How requests are sent.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Closed loop: each lane sends its next request after a reply.
    Full,
    /// Open loop: so many a second, independently of replies.
    Open(f64),
}

/// The result of a period of load.
#[derive(Default)]
pub struct Stretch {
    pub answered: usize,
    /// How many of them when the time was over.
    pub answered_in_time: usize,
    /// The duration, without the wait at its end.
    pub elapsed: Duration,
    /// The time from when each request was due to the end of its reply, in nanoseconds.
    pub latencies: Vec<u64>,
}

pub struct Engine {
    epoll: OwnedFd,
    start: Instant,
    listeners: Vec<Option<TcpListener>>,
    tls: Option<Arc<ServerConfig>>,
    connections: Vec<Option<SinkConnection>>,
    vacant: Vec<usize>,
    pub ledgers: Vec<Ledger>,
    /// How many connections each sink has accepted.
    pub accepted: Vec<usize>,
    lanes: Vec<Lane>,
    free: VecDeque<usize>,
    templates: Vec<Template>,
    /// The order of templates, repeated.
    order: Vec<usize>,
    target: SocketAddr,
    sent: usize,
    scratch: Vec<u8>,
    events: Vec<Event>,
}

impl Engine {
    /// Starts sinks, each with its own address.
    pub fn new(sinks: usize, tls: Option<Arc<ServerConfig>>) -> Result<Engine, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(said("epoll"))?;
        let mut engine = Engine {
            epoll,
            start: Instant::now(),
            listeners: Vec::new(),
            tls,
            connections: Vec::new(),
            vacant: Vec::new(),
            ledgers: Vec::new(),
            accepted: vec![0; sinks],
            lanes: Vec::new(),
            free: VecDeque::new(),
            templates: Vec::new(),
            order: Vec::new(),
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            sent: 0,
            scratch: vec![0; 256 * 1024],
            events: Vec::with_capacity(256),
        };
        for index in 0..sinks {
            let listener =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said("a sink's address"))?;
            listener.set_nonblocking(true).map_err(said("a sink"))?;
            engine.watch(&listener, LISTENER | index as u64, EventFlags::IN)?;
            engine.listeners.push(Some(listener));
        }
        Ok(engine)
    }

    /// Where a sink listens.
    pub fn address(&self, sink: usize) -> Result<SocketAddr, String> {
        let listener = self.listeners.get(sink).and_then(Option::as_ref);
        let listener = listener.ok_or("there is no such sink")?;
        listener.local_addr().map_err(said("a sink's address"))
    }

    /// Makes the address of a sink refuse connections.
    pub fn refuse(&mut self, sink: usize) {
        self.listeners[sink] = None;
    }

    /// Makes a sink never accept: the kernel completes its connections, and nothing answers.
    pub fn fall_silent(&mut self, sink: usize) -> Result<(), String> {
        if let Some(listener) = &self.listeners[sink] {
            epoll::delete(&self.epoll, listener).map_err(said("epoll"))?;
        }
        Ok(())
    }

    /// Sets the requests and their address.
    pub fn load(
        &mut self,
        target: SocketAddr,
        templates: Vec<Template>,
        order: Vec<usize>,
        lanes: Vec<Lane>,
    ) {
        self.target = target;
        self.templates = templates;
        self.order = order;
        self.set_lanes(lanes);
    }

    /// Sets the number of clients.
    pub fn set_lanes(&mut self, lanes: Vec<Lane>) {
        self.free = (0..lanes.len()).collect();
        self.lanes = lanes;
    }

    /// How many requests were sent.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Takes the connections of the load; they stay open until dropped.
    pub fn park(&mut self) -> Result<Vec<TcpStream>, String> {
        let mut parked = Vec::new();
        for stream in self.lanes.iter_mut().filter_map(|lane| lane.stream.take()) {
            epoll::delete(&self.epoll, &stream).map_err(said("epoll"))?;
            parked.push(stream);
        }
        Ok(parked)
    }

    /// Sends one request on every lane, and waits until all of them are answered.
    pub fn once(&mut self) -> Result<(), String> {
        let now = self.now();
        while let Some(lane) = self.free.pop_front() {
            self.send(lane, now)?;
        }
        let mut nothing = Stretch::default();
        while self.free.len() < self.lanes.len() {
            self.turn(PATIENCE, &mut nothing)?;
        }
        Ok(())
    }

    /// Sends requests for a while, then waits until all of them are answered.
    pub fn run(&mut self, pace: Pace, time: Duration) -> Result<Stretch, String> {
        self.run_observed(pace, time, || {})
    }

    /// The same; `observe` is called at the end of the time, before the wait for the rest.
    pub fn run_observed(
        &mut self,
        pace: Pace,
        time: Duration,
        observe: impl FnOnce(),
    ) -> Result<Stretch, String> {
        let mut stretch = Stretch::default();
        let begin = self.now();
        let end = begin + time.as_nanos() as u64;
        let interval = match pace {
            Pace::Full => 0.0,
            Pace::Open(rate) => 1e9 / rate,
        };
        let mut planned = 0_u64;
        let mut observe = Some(observe);
        loop {
            let now = self.now();
            let due = begin + (planned as f64 * interval) as u64;
            let is_over = match pace {
                Pace::Full => now >= end,
                Pace::Open(_) => due >= end,
            };
            if is_over {
                if let Some(observe) = observe.take() {
                    stretch.elapsed = Duration::from_nanos(now - begin);
                    stretch.answered_in_time = stretch.answered;
                    observe();
                }
                if self.free.len() == self.lanes.len() {
                    return Ok(stretch);
                }
            } else if due <= now
                && let Some(lane) = self.free.pop_front()
            {
                let due = if matches!(pace, Pace::Full) { now } else { due };
                self.send(lane, due)?;
                planned += 1;
                continue;
            }
            // With free lanes wait for the clock, otherwise for a reply.
            let pause = match pace {
                Pace::Open(_) if !is_over && !self.free.is_empty() => due - now,
                _ => PATIENCE.as_nanos() as u64,
            };
            self.turn(Duration::from_nanos(pause), &mut stretch)?;
        }
    }

    /// Runs the sinks until every ledger in `whole` has all requests or the time is over.
    pub fn settle(&mut self, whole: usize, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        let mut nothing = Stretch::default();
        while Instant::now() < end
            && self.ledgers[..whole]
                .iter()
                .any(|ledger| ledger.arrived < self.sent)
        {
            self.turn(Duration::from_millis(20), &mut nothing)?;
        }
        Ok(())
    }

    /// Whether everything arrived, in the first `whole` ledgers.
    pub fn verdict(&self, whole: usize) -> Verdict {
        let mut verdict = Verdict::default();
        for ledger in &self.ledgers[..whole] {
            verdict.add(ledger.verdict(self.sent));
        }
        verdict
    }

    /// Polls for events and handles them. It never sleeps: waking a sleeping receiver can cost the sender more
    /// than the send itself, and a slow contender would pay for it more often.
    fn turn(&mut self, pause: Duration, stretch: &mut Stretch) -> Result<(), String> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let end = Instant::now() + pause;
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&AT_ONCE)) {
                // Without a core of its own it has to let others run.
                Ok(0) if Instant::now() < end => thread::yield_now(),
                Ok(0) if pause >= PATIENCE => {
                    let waiting = self.lanes.len() - self.free.len();
                    return Err(format!("{waiting} requests got no answer in {PATIENCE:?}"));
                }
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            let index = (data & INDEX) as usize;
            match data & !INDEX {
                LISTENER => self.accept(index)?,
                SINK => self.serve(index),
                _ => self.advance(index, flags, stretch)?,
            }
        }
        self.events = events;
        Ok(())
    }

    fn accept(&mut self, sink: usize) -> Result<(), String> {
        while let Some(Ok((stream, _))) = self.listeners[sink].as_ref().map(TcpListener::accept) {
            self.accepted[sink] += 1;
            let connection = SinkConnection::new(stream, sink, self.tls.as_ref());
            let connection = connection.map_err(said("a sink's connection"))?;
            let slot = self.vacant.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.watch(connection.stream(), SINK | slot as u64, EventFlags::IN)?;
            self.connections[slot] = Some(connection);
        }
        Ok(())
    }

    fn serve(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else {
            return;
        };
        let ledger = &mut self.ledgers[connection.sink];
        let requests = connection.turn(ledger, &mut self.scratch);
        if !requests.is_some_and(|count| connection.answer(count)) {
            self.connections[slot] = None;
            self.vacant.push(slot);
        }
    }

    fn send(&mut self, lane: usize, due: u64) -> Result<(), String> {
        if self.lanes[lane].stream.is_none() {
            let stream = self.lanes[lane].connect(self.target);
            let stream = stream.map_err(said("a connection to the contender"))?;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            let event = EventData::new_u64(LANE | lane as u64);
            epoll::add(&self.epoll, stream, event, flags).map_err(said("epoll"))?;
        }
        let index = self.order[self.sent % self.order.len()];
        let template = &mut self.templates[index];
        template.name(self.sent);
        self.sent += 1;
        self.lanes[lane].begin(due, index, template)
    }

    fn advance(
        &mut self,
        lane: usize,
        flags: EventFlags,
        stretch: &mut Stretch,
    ) -> Result<(), String> {
        if flags.contains(EventFlags::OUT)
            && let Some(template) = self.lanes[lane].unsent(&self.templates)
        {
            self.lanes[lane].push(&self.templates[template])?;
        }
        let was_waiting = self.lanes[lane].due;
        match self.lanes[lane].read(&mut self.scratch) {
            Turn::Waiting => {}
            Turn::Failed(complaint) => return Err(complaint),
            Turn::Answered => {
                let now = self.now();
                stretch.answered += 1;
                stretch.latencies.extend(was_waiting.map(|due| now - due));
                let lane_state = &mut self.lanes[lane];
                lane_state.due = None;
                if lane_state.is_fresh {
                    lane_state.stream = None;
                }
                self.free.push_back(lane);
            }
        }
        Ok(())
    }

    fn watch(&self, socket: impl AsFd, data: u64, flags: EventFlags) -> Result<(), String> {
        epoll::add(&self.epoll, socket, EventData::new_u64(data), flags).map_err(said("epoll"))
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// Prefixes an error.
pub fn said<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

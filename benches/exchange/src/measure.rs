//! The CPU time of an exchange on its thread, for every way and size.
//!
//! CPU time instead of throughput, because other programs disturb it least and because it is what limits a
//! worker. The ways alternate in short slots, with another one first in each round, and each slot is compared
//! with our slot of the same round: a disturbance that lasts longer than a round affects both. Connections are
//! reopened every few rounds, since the kernel chooses buffer sizes per connection. Every response is checked.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::machine::thread_cpu_time;
use crate::sink;
use crate::ways::bare::Bare;
use crate::ways::client::HttpClient;
use crate::ways::codec::Codec;
use crate::ways::floor::Floor;
use crate::ways::ours::Ours;
use crate::ways::{Answer, Message, Way};

/// The number of concurrent exchanges.
pub const CONNECTIONS: usize = 16;

/// The deadline of an exchange, which none reaches.
const PATIENCE: Duration = Duration::from_secs(10);

/// The rounds for which a connection is used.
const ROUNDS_PER_CONNECTION: usize = 5;

/// A request to measure with.
pub struct Size {
    pub name: &'static str,
    pub body_bytes: usize,
    /// The exchanges of a slot: some hundredths of a second of CPU time.
    pub exchanges: usize,
}

/// An error event, and a replay or a profile.
pub const SIZES: [Size; 2] = [
    Size {
        name: "2 KB",
        body_bytes: 2_000,
        exchanges: 4_000,
    },
    Size {
        name: "200 KB",
        body_bytes: 200_000,
        exchanges: 640,
    },
];

/// The samples of one way: microseconds of CPU time per exchange, one per round.
pub struct Samples {
    pub way: &'static str,
    pub values: Vec<f64>,
}

/// Measures all ways with requests of `size`.
pub async fn measure(
    upstream: SocketAddr,
    size: &Size,
    rounds: usize,
) -> Result<[Samples; 5], String> {
    let mut samples = [
        Samples::new::<Floor>(),
        Samples::new::<Ours>(),
        Samples::new::<Bare>(),
        Samples::new::<Codec>(),
        Samples::new::<HttpClient>(),
    ];
    let mut rounds_left = rounds;
    while rounds_left > 0 {
        let rounds_now = rounds_left.min(ROUNDS_PER_CONNECTION);
        add_rounds(&mut samples, upstream, size, rounds_now).await?;
        rounds_left -= rounds_now;
    }
    Ok(samples)
}

/// Adds `rounds` samples of each way, on connections of their own.
async fn add_rounds(
    samples: &mut [Samples; 5],
    upstream: SocketAddr,
    size: &Size,
    rounds: usize,
) -> Result<(), String> {
    let message = Message {
        authority: upstream.to_string(),
        path: "/api/11/envelope/",
        body: Bytes::from(vec![b'x'; size.body_bytes]),
    };
    let floor = Contestant::new(Floor::new(upstream, PATIENCE), &message);
    let ours = Contestant::new(Ours::new(upstream, PATIENCE), &message);
    let bare = Contestant::new(Bare::new(upstream, PATIENCE), &message);
    let codec = Contestant::new(Codec::new(upstream, PATIENCE), &message);
    let client = Contestant::new(HttpClient::new(PATIENCE), &message);

    // The first round opens the connections and warms the caches; it does not count.
    for round in 0..=rounds {
        for turn in 0..samples.len() {
            let way = (round + turn) % samples.len();
            let sample = match way {
                0 => floor.slot(size.exchanges).await?,
                1 => ours.slot(size.exchanges).await?,
                2 => bare.slot(size.exchanges).await?,
                3 => codec.slot(size.exchanges).await?,
                _ => client.slot(size.exchanges).await?,
            };
            if round > 0 {
                samples[way].values.push(sample);
            }
        }
    }
    Ok(())
}

impl Samples {
    fn new<W: Way>() -> Samples {
        Samples {
            way: W::NAME,
            values: Vec::new(),
        }
    }
}

/// A way with the request it sends and the answer it must get.
struct Contestant<W: Way> {
    way: Rc<W>,
    request: Rc<W::Prepared>,
    answer: Rc<Answer>,
}

impl<W: Way + 'static> Contestant<W> {
    fn new(way: W, message: &Message) -> Contestant<W> {
        let request = way.prepare(message);
        Contestant {
            way: Rc::new(way),
            request: Rc::new(request),
            answer: Rc::new(Answer {
                status: 200,
                body: sink::body(message.path).into(),
            }),
        }
    }

    /// Runs `exchanges`, [`CONNECTIONS`] at a time; gives the microseconds of CPU time of each.
    async fn slot(&self, exchanges: usize) -> Result<f64, String> {
        let before = thread_cpu_time();
        let tasks: Vec<_> = (0..CONNECTIONS)
            .map(|_| monoio::spawn(self.share(exchanges / CONNECTIONS)))
            .collect();
        for task in tasks {
            task.await?;
        }
        let spent = thread_cpu_time() - before;
        Ok(spent.as_secs_f64() * 1e6 / exchanges as f64)
    }

    /// One exchange after the other.
    fn share(&self, exchanges: usize) -> impl Future<Output = Result<(), String>> + use<W> {
        let way = Rc::clone(&self.way);
        let request = Rc::clone(&self.request);
        let expected = Rc::clone(&self.answer);
        async move {
            for _ in 0..exchanges {
                let answer = way.exchange(&request).await;
                let answer = answer.map_err(|error| format!("{}: {error}", W::NAME))?;
                if answer != *expected {
                    return Err(format!("{}: unexpected answer {answer:?}", W::NAME));
                }
            }
            Ok(())
        }
    }
}

//! Heads that recur with small changes: each request has to be handled as if it were the first of all.
//!
//! The mirror compares a head with one that it parsed before, of the same or of another connection, and a response's
//! head with the one before it. Random walks through doubtful requests are sent over few connections. A second mirror
//! gets each request over a connection of its own, after one that has nothing in common with it, and an upstream that
//! closes after each response. What arrives at the upstreams, and what clients read, has to be the same.

mod alphabet;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::sink::{Answer, Seen, Sink};
use crate::support::{Action, Config, KEY_A, PATIENCE, Process, Upstream};
use alphabet::{ANSWERS, BODIES, EXTRA, INVALID_BODIES, PLACES};

const KEYS: [&str; 3] = [
    "0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcde0",
    "fedcba9876543210fedcba9876543210",
];
/// It is not configured.
const UNKNOWN_KEY: &str = "0123456789abcdef0123456789abcdee";

/// The walks of a run, unless `RECURRING_WALKS` in the environment says how many, and the requests of each.
const WALKS: u64 = 12;
const STEPS: usize = 60;

/// How long `KnownHead` lets a head be, around which lengths are tried.
const KEPT_BYTES: usize = 1024;

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).expect("below a usize")
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A request that changes step by step.
struct Walk {
    random: Random,
    places: Vec<&'static str>,
    /// The same without what is invalid.
    valid_places: Vec<&'static str>,
    body: usize,
    answer: usize,
    /// The length of a header that only makes the head longer.
    padding: usize,
    via: String,
}

impl Walk {
    fn new(seed: u64, via: &str) -> Walk {
        let first = |(valid, _): &(&'static [&'static str], _)| valid[0];
        let places: Vec<&str> = PLACES.iter().map(first).collect();
        Walk {
            random: Random(seed),
            valid_places: places.clone(),
            places,
            body: 0,
            answer: 0,
            padding: 0,
            via: via.to_owned(),
        }
    }

    /// Changes a few places, mostly to a text of the same length. One that made the request invalid changes back, and
    /// any becomes what it was at first now and then, so that most requests are valid.
    fn step(&mut self) {
        let at = self.random.below(2 * PLACES.len());
        if let Some((valid, _)) = PLACES.get(at) {
            self.valid_places[at] = valid[0];
        }
        self.places.clone_from(&self.valid_places);
        self.body = self.body.min(BODIES.len() - INVALID_BODIES - 1);
        for _ in 0..self.random.below(3) {
            let at = match self.random.below(4) {
                0 => EXTRA,
                _ => self.random.below(PLACES.len()),
            };
            let (valid, invalid) = PLACES[at];
            let now = self.places[at];
            let all = valid.iter().chain(invalid).copied();
            let alike: Vec<&str> = all
                .filter(|text| text.len() == now.len() && *text != now)
                .collect();
            let choices = match self.random.below(8) {
                0 if !invalid.is_empty() => invalid,
                1..6 if !alike.is_empty() => &alike,
                _ => valid,
            };
            self.places[at] = self.random.pick(choices);
            if valid.contains(&self.places[at]) {
                self.valid_places[at] = self.places[at];
            }
        }
        match self.random.below(16) {
            0..4 => self.body = self.random.below(BODIES.len() - INVALID_BODIES),
            4 => self.body = self.random.below(BODIES.len()),
            5..9 => self.answer = self.random.below(ANSWERS.len()),
            9 => self.padding = self.random.below(4),
            _ => {}
        }
    }

    fn request(&self) -> Vec<u8> {
        let (framing, body) = BODIES[self.body];
        let body = self.filled(body);
        let [method, target, version, fields @ ..] = &self.places[..] else {
            panic!("three places make the request line");
        };
        let head = format!(
            "{method} {target} {version}\r\n{}X-Answer: {:02}\r\n{framing}",
            fields.concat(),
            self.answer,
        );
        let mut head = self.filled(&head.replace("{length}", &body.len().to_string()));
        let missing =
            (KEPT_BYTES + self.padding).checked_sub(head.len() + "X-Pad: \r\n\r\n".len() + 2);
        if let Some(missing) = missing.filter(|_| self.padding > 0) {
            head.push_str(&format!("X-Pad: {}\r\n", "p".repeat(missing)));
        }
        // One of the characters is not ASCII. It is sent in Latin-1, as one byte.
        let head = head
            .chars()
            .map(|character| u8::try_from(u32::from(character)).expect("Latin-1"));
        head.chain(*b"\r\n").chain(body.bytes()).collect()
    }

    fn filled(&self, text: &str) -> String {
        let [k, l, m] = KEYS;
        let keys = [
            ("{K}", k),
            ("{L}", l),
            ("{M}", m),
            ("{U}", UNKNOWN_KEY),
            ("{V}", &self.via),
        ];
        keys.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }
}

/// A mirror and its upstream.
struct Side {
    mirror: Process,
    /// Its listener for the PROXY protocol.
    proxied: SocketAddr,
    sink: Sink,
}

impl Side {
    fn start(closes: bool) -> Side {
        let sink = Sink::start(move |seen| {
            let is_head = seen.head.starts_with(b"HEAD ");
            let number = seen.values("x-answer").first().map_or(0, |number| {
                let number = str::from_utf8(number).expect("our own text");
                number.parse().expect("our own number")
            });
            let answer = ANSWERS[number].chars();
            let answer =
                answer.map(|character| u8::try_from(u32::from(character)).expect("Latin-1"));
            Answer {
                bytes: match is_head {
                    true => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
                    false => answer.collect(),
                },
                late: None,
                closes,
            }
        });
        let routes: String = KEYS
            .iter()
            .zip(1..)
            .map(|(key, project)| {
                let outbound = format!("{project}{}", &"abcdefabcdefabcdefabcdefabcdefab"[1..]);
                format!(
                    "  - inbound: http://{key}@mirror.example.com/42\n    outbound:\n      - http://{outbound}@{}/{project}\n",
                    sink.address
                )
            })
            .collect();
        let config = format!(
            "ip: 127.0.0.1\nport: 0\nworkers: 1\nreply_policy: primary\nbreaker: {{failures: 1000}}\n\
             forward_client_ip: true\nclient_address: {{trusted_proxies: [127.0.0.0/8, 203.0.113.9]}}\n\
             listen: [{{address: '127.0.0.1:0', proxy_protocol: [127.0.0.0/8]}}]\nkeys:\n{routes}"
        );
        let mirror = Process::start(&config);
        let line = mirror.wait_for_line(", too");
        let address = line.split("listening on ").nth(1).expect("an address");
        let proxied = address.split(',').next().expect("an address");
        let proxied = proxied.parse().expect("an address");
        Side {
            mirror,
            proxied,
            sink,
        }
    }

    /// A connection whose proxy says that it is for `client`.
    fn connect(&self, client: &str) -> Talk {
        let mut stream = TcpStream::connect(self.proxied).expect("the mirror listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let line = format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n");
        stream.write_all(line.as_bytes()).expect("the mirror reads");
        Talk {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends a request that has nothing in common with any other.
    fn separate(&self) {
        let mut stream = TcpStream::connect(self.mirror.address).expect("the mirror listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = b"TRACE /nothing HTTP/1.0\r\nNothing: in common\r\n\r\n";
        stream.write_all(request).expect("the mirror reads");
        let mut reply = Vec::new();
        // The mirror closes after a request of HTTP/1.0.
        stream.read_to_end(&mut reply).expect("a reply");
        assert!(reply.starts_with(b"HTTP/1.1 4"), "{}", reply.escape_ascii());
    }

    /// What has arrived at the upstream, without what differs between two of them.
    fn arrived(&self) -> Vec<Seen> {
        let mut seen = self.sink.take();
        for seen in &mut seen {
            seen.connection = 0;
            // The field `Host` and DSNs in bodies have the port, whose five digits are those of an ephemeral one.
            let address = self.sink.address.to_string();
            for text in [&mut seen.head, &mut seen.body] {
                *text = replace(text, address.as_bytes(), b"upstream");
            }
        }
        seen
    }
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|found| found == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    [&replaced, rest].concat()
}

/// A connection of a client.
struct Talk {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Talk {
    /// The next reply but interim ones, without its date, and whether the connection goes on.
    fn reply(&mut self, request: &[u8]) -> (Vec<u8>, bool) {
        loop {
            let end = self.receive_until(|received| {
                let blank = received.windows(4).position(|four| four == b"\r\n\r\n")?;
                Some(blank + 4)
            });
            let head: Vec<u8> = self.received.drain(..end).collect();
            let text = str::from_utf8(&head).expect("text").to_owned();
            if text.starts_with("HTTP/1.1 100 ") {
                continue;
            }
            let lines = text.split_inclusive("\r\n");
            let lines: Vec<&str> = lines.filter(|line| !line.starts_with("Date: ")).collect();
            let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
            let length = value("Content-Length: ")
                .map_or(0, |value| value.trim().parse().expect("a length"));
            let is_bodiless = request.starts_with(b"HEAD ") || text.starts_with("HTTP/1.1 204");
            let length: usize = if is_bodiless { 0 } else { length };
            self.receive_until(|received| (received.len() >= length).then_some(length));
            let body: Vec<u8> = self.received.drain(..length).collect();
            let goes_on = !lines
                .iter()
                .any(|line| line.eq_ignore_ascii_case("Connection: close\r\n"));
            return ([lines.concat().as_bytes(), &body].concat(), goes_on);
        }
    }

    fn receive_until(&mut self, is_enough: impl Fn(&[u8]) -> Option<usize>) -> usize {
        loop {
            if let Some(end) = is_enough(&self.received) {
                return end;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).expect("a reply");
            assert!(
                count > 0,
                "the mirror closes without a reply after {}",
                self.received.escape_ascii()
            );
            self.received.extend_from_slice(&bytes[..count]);
        }
    }

    /// Sends requests in pieces of up to so many bytes. A mirror that closes the connection after one of them may not
    /// read the others.
    fn send(&mut self, bytes: &[u8], piece_bytes: usize) {
        for piece in bytes.chunks(piece_bytes) {
            if let Err(error) = self.stream.write_all(piece) {
                let is_closed = matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                );
                assert!(is_closed, "{error}");
                return;
            }
        }
    }
}

/// A request, and who sends it.
struct Sent {
    client: &'static str,
    bytes: Vec<u8>,
}

const CLIENTS: [&str; 4] = ["203.0.113.9", "203.0.113.8", "198.51.100.77", "127.0.0.1"];

/// Sends all requests over as few connections as possible, some in one write.
fn tell_together(side: &Side, requests: &[Sent], random: &mut Random) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    let mut talk: Option<(&str, Talk)> = None;
    while let Some(first) = requests.get(replies.len()) {
        let (_, mut current) = match talk.take() {
            Some(open) if open.0 == first.client => open,
            _ => (first.client, side.connect(first.client)),
        };
        let same_client = requests[replies.len()..]
            .iter()
            .take_while(|sent| sent.client == first.client);
        let batch: Vec<&Sent> = same_client.take(1 + random.below(3)).collect();
        let bytes: Vec<u8> = batch
            .iter()
            .flat_map(|sent| sent.bytes.iter().copied())
            .collect();
        let piece_bytes = random.pick(&[usize::MAX, usize::MAX, 1, 7, 300]);
        current.send(&bytes, piece_bytes);
        let mut goes_on = true;
        for sent in batch {
            let reply;
            (reply, goes_on) = current.reply(&sent.bytes);
            replies.push(reply);
            if !goes_on {
                break;
            }
        }
        if goes_on {
            talk = Some((first.client, current));
        }
    }
    replies
}

/// Sends each request as if it were the first.
fn tell_apart(side: &Side, requests: &[Sent]) -> Vec<Vec<u8>> {
    let tell = |sent: &Sent| {
        side.separate();
        let mut talk = side.connect(sent.client);
        talk.send(&sent.bytes, usize::MAX);
        talk.reply(&sent.bytes).0
    };
    requests.iter().map(tell).collect()
}

#[test]
fn a_request_is_handled_as_if_it_were_the_first() {
    let (together, apart) = (Side::start(false), Side::start(true));
    let first = Sent {
        client: CLIENTS[0],
        bytes: Walk::new(0, "").request(),
    };
    tell_apart(&apart, std::slice::from_ref(&first));
    let seen = apart.sink.take();
    let via = str::from_utf8(seen[0].values("via")[0]).expect("text");
    let tag = via.strip_prefix("1.1 ").expect("our own field");
    let mut statuses = std::collections::BTreeMap::new();
    let walks =
        std::env::var("RECURRING_WALKS").map_or(WALKS, |walks| walks.parse().expect("a number"));
    for seed in 0..walks {
        let mut walk = Walk::new(seed, tag);
        let mut client = CLIENTS[0];
        let requests: Vec<Sent> = (0..STEPS)
            .map(|_| {
                walk.step();
                if walk.random.below(6) == 0 {
                    client = walk.random.pick(&CLIENTS);
                }
                let bytes = walk.request();
                Sent { client, bytes }
            })
            .collect();
        let expected = tell_apart(&apart, &requests);
        let replies = tell_together(&together, &requests, &mut walk.random);
        for ((sent, reply), expected) in requests.iter().zip(&replies).zip(&expected) {
            assert_eq!(
                reply.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "walk {seed}, to {}",
                sent.bytes.escape_ascii()
            );
            *statuses.entry(reply[9..12].to_vec()).or_insert(0_usize) += 1;
        }
        let (seen, expected) = (together.arrived(), apart.arrived());
        assert_eq!(seen.len(), expected.len(), "walk {seed}");
        for (seen, expected) in seen.iter().zip(&expected) {
            assert!(
                seen == expected,
                "walk {seed}: {seen:?}\n  instead of {expected:?}"
            );
        }
    }
    let count = |status: &[u8]| statuses.get(status).copied().unwrap_or_default();
    let texts: Vec<String> = statuses
        .iter()
        .map(|(status, count)| format!("{}: {count}", status.escape_ascii()))
        .collect();
    // The walks go through all that matters.
    assert!(count(b"200") > 200, "{texts:?}");
    for status in [b"201", b"204", b"400", b"401", b"413", b"505", b"508"] {
        assert!(count(status) > 0, "{texts:?}");
    }
}

/// The rate limits of a response, and what the client is told: `Retry-After` and the limits. `|` ends a line.
#[rustfmt::skip]
const RATE_LIMITS: &[(&str, [&str; 2])] = &[
    ("Retry-After: 60|X-Sentry-Rate-Limits: 60:error:key|", ["60", "60:error:key"]),
    ("Retry-After: 61|X-Sentry-Rate-Limits: 61:error:key|", ["61", "61:error:key"]),
    ("Retry-After: 62|X-Sentry-Rate-Limits: 62:error:org|", ["62", "62:error:org"]),
    ("Retry-After: 99|X-Sentry-Rate-Limits: 62:error:org|", ["99", "62:error:org"]),
    ("Retry-After: 98|X-Sentry-Rate-Limits: 62::organiza|", ["98", "62::organiza"]),
    ("Retry-After: 97|X-Sentry-Rate-Limitt: 62::organiza|", ["97", "97::organization"]),
    ("Retry-Aftes: 96|X-Sentry-Rate-Limits: 62::organiza|", ["62", "62::organiza"]),
    ("Retry-After: 5|X-Sentry-Rate-Limits: 5:error:key|", ["5", "5:error:key"]),
    ("Retry-After: 7|X-Sentry-Rate-Limits: 7:error:key|", ["7", "7:error:key"]),
];

#[test]
fn rate_limits_of_responses_that_recur_are_those_of_each() {
    let answers = RATE_LIMITS.iter().map(|(lines, _)| {
        let lines = lines.replace('|', "\r\n");
        format!("HTTP/1.1 429 Limited\r\n{lines}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}")
    });
    let answers: Vec<String> = answers.collect();
    let upstream =
        Upstream::start(move |number, _| Action::Raw(answers[number].clone().into_bytes()));
    let key = |number: usize| format!("{number:032x}");
    let config = (1..=RATE_LIMITS.len()).fold(
        Config::without_routes().set("workers", 1),
        |config, number| {
            config.route(
                &key(number),
                42,
                [upstream.dsn(KEY_A, u32::try_from(number).expect("few"))],
            )
        },
    );
    let mirror = config.start();
    let mut client = mirror.client();
    let told = (1..=RATE_LIMITS.len()).map(|number| {
        let request = format!(
            "POST /api/42/store/ HTTP/1.1\r\nHost: m\r\nX-Sentry-Auth: Sentry sentry_key={}\r\nContent-Length: 2\r\n\r\n{{}}",
            key(number)
        );
        let reply = client.ask(request.as_bytes());
        assert_eq!(reply.status, 429);
        ["retry-after", "x-sentry-rate-limits"].map(|name| reply.field(name).unwrap_or_default().to_owned())
    });
    let expected: Vec<[&str; 2]> = RATE_LIMITS.iter().map(|(_, told)| *told).collect();
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(upstream.connections(), 1);
}

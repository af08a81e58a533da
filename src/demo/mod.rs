//! `demo` and `sink`: see the mirror work before configuring anything.
//!
//! [`run`] starts two stand-ins for Sentry and the real mirror on the loopback, in this process, sends it
//! what three SDKs would send, and shows what came in beside what each outbound got. What it shows is
//! proved to the byte on the way, so the demo is a test as well. [`sink()`] is one such stand-in alone. No
//! logger is installed: the terminal belongs to the story.
//!
//! `sdk` makes the requests, `message` reads them, `sink` answers, `show` turns them into text, `verify`
//! holds them to what they must be.

mod message;
mod sdk;
mod show;
mod sink;
mod verify;

use std::io::{self, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use self::message::{Message, printable};
use self::sdk::Sending;
use self::show::{Row, describe};
use self::sink::{Arrival, endpoint};
use crate::config::Config;
use crate::sentry::dsn::Dsn;
use crate::server::signals;
use crate::server::supervisor::Mirror;

/// The key of the SDKs, and those of the two outbounds.
const INBOUND_KEY: &str = "0123456789abcdef0123456789abcdef";
const KEY_A: &str = "aaaa1111aaaa1111aaaa1111aaaa1111";
const KEY_B: &str = "bbbb2222bbbb2222bbbb2222bbbb2222";

/// The names of the two outbounds.
const NAMES: [&str; 2] = ["A", "B"];

/// Any free port of the loopback.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How long anything may take that takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

const SUMMARY: &str = "
  3 requests became 6 deliveries. In each, the project, the host and every
  place that had the inbound key were replaced, in place; every other byte of
  the envelopes is as the SDK made it.
";

/// Shows the mirror at work; then stays up for the user's own SDK unless `once` is set.
///
/// # Errors
/// What could not be started, or what was not as it must be.
pub(crate) fn run(once: bool) -> Result<(), String> {
    let stage = Stage::start()?;
    let out = &mut io::stdout();
    write(out, &stage.introduction())?;
    let shown = stage.show(out);
    if shown.is_ok() {
        write(out, &(show::heading("what that was") + SUMMARY))?;
        if !once {
            return stage.stay();
        }
    }
    stage.mirror.stop();
    shown
}

/// Accepts requests on `listen` and prints each of them until the process is asked to stop, or its
/// terminal is closed.
///
/// # Errors
/// The address cannot be had, or standard output cannot be written to.
pub(crate) fn sink(listen: SocketAddr) -> Result<(), String> {
    let signals = signals::listen()?;
    let (sender, arrivals) = mpsc::channel();
    let address = sink::start(listen, move |arrival| {
        // Nobody receives any more only while the process ends.
        let _ = sender.send((0, arrival));
    })?;
    let introduction = format!(
        "A stand-in for Sentry is listening on {address}.\n\
         It accepts every key and every project, for example with the DSN\n\n  \
         http://{INBOUND_KEY}@{address}/1\n\n\
         Every request is printed below; Ctrl-C ends it.\n"
    );
    write(&mut io::stdout(), &introduction)?;
    thread::spawn(move || print(&arrivals, |_| String::new()));
    signals.wait_for_stop();
    Ok(())
}

/// The mirror between an SDK and two sinks.
struct Stage {
    mirror: Mirror,
    inbound: Dsn,
    outbounds: [Dsn; 2],
    /// What arrives at the sinks, each with the number of its sink.
    arrivals: Receiver<(usize, Arrival)>,
}

impl Stage {
    fn start() -> Result<Stage, String> {
        let (sender, arrivals) = mpsc::channel();
        let start_sink = |index: usize| {
            let sender = sender.clone();
            sink::start(LOOPBACK, move |arrival| {
                // Nobody receives any more only while the demo ends.
                let _ = sender.send((index, arrival));
            })
        };
        let (a, b) = (start_sink(0)?, start_sink(1)?);
        let outbounds = [
            dsn(&format!("http://{KEY_A}@{a}/1001"))?,
            // A path prefix, as with a Sentry that is reached through a reverse proxy.
            dsn(&format!("http://{KEY_B}@{b}/sentry/2002"))?,
        ];
        let mirror = Mirror::start(&config(&outbounds)?).map_err(|error| error.to_string())?;
        let inbound = dsn(&format!("http://{INBOUND_KEY}@{}/42", mirror.address()))?;
        Ok(Stage {
            mirror,
            inbound,
            outbounds,
            arrivals,
        })
    }

    fn introduction(&self) -> String {
        let [a, b] = &self.outbounds;
        let build = match cfg!(debug_assertions) {
            true => "\n  This is a debug build: the times below are not those of a release.",
            false => "",
        };
        format!(
            "{}
  The mirror, on {}, and two stand-ins for Sentry, all in this process:

                    ┌─> outbound A  {}
     SDK ─> mirror ─┤
                    └─> outbound B  {}

  The SDK only knows the inbound DSN  {}
  Keys are cut short here. What the mirror has changed is shown ⟦like this⟧.{build}
",
            show::heading("sentry-mirror: one DSN in, several out"),
            self.mirror.sight().driver(),
            a.shortened(),
            b.shortened(),
            self.inbound.shortened(),
        )
    }

    /// Sends the three requests and writes to `out` what became of them.
    fn show(&self, out: &mut impl Write) -> Result<(), String> {
        let sendings = sdk::sendings(&self.inbound).map_err(|error| error.to_string())?;
        let mut flaws = 0;
        for (index, sending) in sendings.iter().enumerate() {
            let title = format!("{} of {}: {}", index + 1, sendings.len(), sending.title);
            let text = show::heading(&title) + &self.mirrored(sending)?;
            flaws += text.matches('✗').count();
            write(out, &text)?;
        }
        match flaws {
            0 => Ok(()),
            _ => Err(format!("{flaws} × not as it must be; see ✗ above")),
        }
    }

    /// One request: sends it, waits for it at both outbounds, compares and proves.
    fn mirrored(&self, sending: &Sending) -> Result<String, String> {
        let sent = Message::read(&mut &*sending.bytes).map_err(|error| error.to_string())?;
        let sent = sent.ok_or("the demo's request is empty")?;
        let (answer, elapsed) = self
            .exchange(&sending.bytes)
            .map_err(|error| format!("cannot reach the mirror: {error}"))?;
        let received = self.await_both()?;

        let before = describe(&sent);
        let mut text = show::title(&format!("the SDK sent ({})", sending.remark));
        text += &show::rows(&before, None);
        for ((name, outbound), got) in NAMES.iter().zip(&self.outbounds).zip(&received) {
            text += &show::title(&format!("outbound {name} got"));
            text += &show::rows(&describe(got), Some(&before));
            match verify::verify(&sent, got, &self.inbound, outbound) {
                Ok(()) => text += &show::proof("every other byte is as it was sent"),
                Err(flaws) => text.extend(flaws.iter().map(|flaw| show::flaw(flaw))),
            }
        }
        let (status, body) = (answer.part(1), printable(&answer.body));
        let milliseconds = elapsed.as_secs_f64() * 1000.0;
        let reply = format!("{status} {body} after {milliseconds:.2} ms");
        text += &show::title("the SDK received");
        text += &show::rows(&[Row("reply", reply)], None);
        let expected = format!("{{\"id\":\"{}\"}}", sending.event_id);
        if (status, &*body) != ("200", &*expected) {
            text += &show::flaw(&format!("expected 200 {expected}"));
        }
        Ok(text)
    }

    /// Sends a request on a new connection, for each is of another SDK, and reads the answer.
    fn exchange(&self, request: &[u8]) -> io::Result<(Message, Duration)> {
        let mut stream = TcpStream::connect_timeout(&self.mirror.address(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let start = Instant::now();
        stream.write_all(request)?;
        let answer = Message::read(&mut BufReader::new(&stream))?;
        let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((answer, start.elapsed()))
    }

    /// Waits until each sink has got a request.
    fn await_both(&self) -> Result<[Message; 2], String> {
        let deadline = Instant::now() + PATIENCE;
        let mut received = [None, None];
        loop {
            received = match received {
                [Some(first), Some(second)] => return Ok([first, second]),
                missing => missing,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let (sink, arrival) = self.arrivals.recv_timeout(left).map_err(|_| {
                let missing = received.iter().position(Option::is_none);
                let name = missing.and_then(|index| NAMES.get(index)).unwrap_or(&"?");
                format!("nothing arrived at outbound {name} in time")
            })?;
            let request = arrival.map_err(|reason| format!("a sink got no request: {reason}"))?;
            if let Some(slot) = received.get_mut(sink)
                && slot.replace(request).is_some()
            {
                return Err("an outbound got the same request twice".to_owned());
            }
        }
    }

    /// Prints what arrives at the sinks until the process is asked to stop.
    fn stay(self) -> Result<(), String> {
        let signals = signals::listen()?;
        let dsn = &self.inbound;
        let invitation = format!(
            "{}
  The mirror stays up. Point any SDK on this host at it:

     {dsn}

  Python   pip install sentry-sdk
           import sentry_sdk
           sentry_sdk.init(\"{dsn}\")
           sentry_sdk.capture_message(\"hello, mirror\")

  Node     npm install @sentry/node
           const Sentry = require(\"@sentry/node\");
           Sentry.init({{ dsn: \"{dsn}\" }});
           Sentry.captureMessage(\"hello, mirror\");

  Every request that arrives at an outbound is printed below; Ctrl-C ends it.
",
            show::heading("now yours"),
        );
        write(&mut io::stdout(), &invitation)?;
        let arrivals = self.arrivals;
        let outbound =
            |index: usize| format!("outbound {} got: ", NAMES.get(index).unwrap_or(&"?"));
        thread::spawn(move || print(&arrivals, outbound));
        signals.wait_for_stop();
        self.mirror.stop();
        Ok(())
    }
}

/// Prints everything that arrives, for as long as standard output can be written to. `prefix` makes the
/// begin of the title from the number of a sink.
fn print(arrivals: &Receiver<(usize, Arrival)>, prefix: impl Fn(usize) -> String) {
    for (index, arrival) in arrivals {
        let (what, text) = match &arrival {
            Ok(request) => (
                endpoint(request).label(),
                show::rows(&describe(request), None),
            ),
            Err(reason) => ("nothing readable", show::flaw(reason)),
        };
        let text = show::title(&(prefix(index) + what)) + &text;
        if write(&mut io::stdout(), &text).is_err() {
            return;
        }
    }
}

/// Writes `text` at once, so that it stays together when others write, too.
fn write(out: &mut impl Write, text: &str) -> Result<(), String> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}

/// The configuration that an operator would write for this, as text.
fn config(outbounds: &[Dsn; 2]) -> Result<Config, String> {
    let [a, b] = outbounds;
    // The inbound DSN has no port yet; a request is routed by the key alone.
    let text = format!(
        "ip: 127.0.0.1
port: 0
keys:
  - inbound: http://{INBOUND_KEY}@127.0.0.1/42
    outbound:
      - {a}
      - {b}
"
    );
    Config::parse(&text, "demo", std::iter::empty()).map_err(|errors| errors.to_string())
}

fn dsn(text: &str) -> Result<Dsn, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_goes_through_the_real_mirror_and_finds_nothing_wrong() {
        let stage = Stage::start().unwrap();
        let mut out = stage.introduction().into_bytes();
        let shown = stage.show(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(shown, Ok(()), "{text}");
        assert_eq!(text.matches("✓ every other byte").count(), 6, "{text}");
        assert!(!text.contains('✗'));
        for line in text.lines() {
            assert!(line.chars().count() <= show::WIDTH, "{line}");
        }
        for mark in [
            "/api/⟦1001⟧/envelope/",
            " bytes, sent ⟦plain⟧, with Content-Length",
            "/⟦sentry/⟧api/⟦2002⟧/envelope/",
            "sentry_key=⟦aaaa…⟧",
            "sentry_key=⟦bbbb…⟧",
            "\"public_key\":\"⟦bbbb…⟧\"",
            "item      event, ",
            "item      transaction, ",
            "replay_recording, ",
            "reply     200 {\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"} after ",
        ] {
            assert!(text.contains(mark), "{mark} is not in {text}");
        }
        for key in [INBOUND_KEY, KEY_A, KEY_B] {
            assert!(!text.contains(key), "a whole key is shown");
        }
        assert_eq!(stage.mirror.stop(), 0);
    }

    #[test]
    fn the_demo_fails_when_an_outbound_does_not_get_what_it_must() {
        let mut stage = Stage::start().unwrap();
        let [a, b] = stage.outbounds;
        let other = a.to_string().replace("/1001", "/1002");
        stage.outbounds = [dsn(&other).unwrap(), b];
        let mut out = Vec::new();
        let shown = stage.show(&mut out);
        let text = String::from_utf8(out).unwrap();
        // The path of all three, and the `dsn` in the envelope of the replay.
        let expected = "4 × not as it must be; see ✗ above".to_owned();
        assert_eq!(shown, Err(expected));
        let count = |flaw: &str| text.matches(&format!("✗ {flaw}: expected")).count();
        assert_eq!(
            (count("request line"), count("envelope header")),
            (3, 1),
            "{text}"
        );
        stage.mirror.stop();
    }
}

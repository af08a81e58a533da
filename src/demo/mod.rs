//! The commands `demo` and `sink`: see the mirror work before configuring anything.
//!
//! [`run`] starts two stand-ins for Sentry and the real mirror on the loopback interface, in this process. It
//! sends the mirror the requests of three SDKs, shows what each outbound received, and verifies every byte of
//! that, so the demo is also a test. [`sink()`] starts one such stand-in alone. There is no log, because
//! the terminal shows the demo.

mod sdk;
mod show;
mod sink;
mod verify;

use std::io::{self, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use self::sdk::SdkRequest;
use self::show::{Fields, describe};
use self::sink::{Arrival, Behaviour, endpoint};
use crate::blocking::message::{Message, printable};
use crate::cli::SinkArguments;
use crate::config::Config;
use crate::process::signals;
use crate::process::supervisor::Mirror;
use crate::sentry::dsn::Dsn;

const INBOUND_KEY: &str = "0123456789abcdef0123456789abcdef";
const KEY_A: &str = "aaaa1111aaaa1111aaaa1111aaaa1111";
const KEY_B: &str = "bbbb2222bbbb2222bbbb2222bbbb2222";

const OUTBOUND_NAMES: [&str; 2] = ["A", "B"];

/// Any free port of the loopback interface.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The timeout of a step that takes about a millisecond.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Shows the mirror at work. Then stays up for the user's own SDK unless `once` is set.
///
/// # Errors
/// Something could not be started, or was not received as it should be.
pub(crate) fn run(once: bool) -> Result<(), String> {
    let demo = Demo::start()?;
    let out = &mut io::stdout();
    write(out, &demo.introduction())?;
    let shown = demo.show(out);
    if shown.is_ok() && !once {
        return demo.stay();
    }
    demo.mirror.stop();
    shown
}

/// Accepts requests on the address in `arguments` and prints each of them until the process is asked to stop, or its
/// terminal is closed.
///
/// # Errors
/// The address is not available, or standard output cannot be written to.
pub(crate) fn sink(arguments: &SinkArguments) -> Result<(), String> {
    let signals = signals::listen()?;
    let (sender, arrivals) = mpsc::channel();
    let behaviour = Behaviour::new(arguments);
    let description = behaviour.description();
    let address = sink::start(arguments.listen, 0, behaviour, sender)?;
    let introduction = format!(
        "A stand-in for Sentry is listening on {address}.\n\
         It accepts every key and every project, for example with the DSN\n\n  \
         http://{INBOUND_KEY}@{address}/1\n\n\
         It {description}.\n\
         It prints every request below. Press Ctrl-C to stop it.\n"
    );
    write(&mut io::stdout(), &introduction)?;
    let fields = match arguments.headers {
        true => Fields::All,
        false => Fields::Addressing,
    };
    thread::spawn(move || print(&arrivals, fields, |_| String::new()));
    signals.wait_for_shutdown();
    Ok(())
}

/// The mirror between an SDK and two sinks.
struct Demo {
    mirror: Mirror,
    inbound: Dsn,
    outbounds: [Dsn; 2],
    arrivals: Receiver<Arrival>,
}

impl Demo {
    fn start() -> Result<Demo, String> {
        let (sender, arrivals) = mpsc::channel();
        let a = sink::start(LOOPBACK, 0, Behaviour::default(), sender.clone())?;
        let b = sink::start(LOOPBACK, 1, Behaviour::default(), sender)?;
        let outbounds = [
            dsn(&format!("http://{KEY_A}@{a}/1001"))?,
            // With a path prefix, as for a Sentry behind a reverse proxy.
            dsn(&format!("http://{KEY_B}@{b}/sentry/2002"))?,
        ];
        let mirror = Mirror::start(&config(&outbounds)?).map_err(|error| error.to_string())?;
        let inbound = dsn(&format!("http://{INBOUND_KEY}@{}/42", mirror.address()))?;
        Ok(Demo {
            mirror,
            inbound,
            outbounds,
            arrivals,
        })
    }

    fn introduction(&self) -> String {
        let [a, b] = &self.outbounds;
        format!(
            "The mirror, on {}, and two stand-ins for Sentry, all in this process:

                 ┌─> outbound A  {}
  SDK ─> mirror ─┤
                 └─> outbound B  {}

The SDK knows only the inbound DSN {}.
Keys are shortened here. What the mirror changed is ⟦in brackets⟧.
",
            self.mirror.mirror_status().driver(),
            a.shortened(),
            b.shortened(),
            self.inbound.shortened(),
        )
    }

    /// Sends the three requests and writes to `out` what the outbounds received.
    fn show(&self, out: &mut impl Write) -> Result<(), String> {
        let mut flaws = 0;
        for request in sdk::requests(&self.inbound).map_err(|error| error.to_string())? {
            let text = self.mirrored(&request)?;
            flaws += text.matches('✗').count();
            write(out, &text)?;
        }
        match flaws {
            0 => write(out, "\n3 requests became 6 correct deliveries.\n"),
            _ => Err(format!("{flaws} flaws; see ✗ above")),
        }
    }

    /// Sends one request, waits for it at both outbounds, and verifies it.
    fn mirrored(&self, request: &SdkRequest) -> Result<String, String> {
        let sent = Message::read(&mut &*request.bytes).map_err(|error| error.to_string())?;
        let sent = sent.ok_or("the demo's request is empty")?;
        let (reply, elapsed) = self
            .exchange(&request.bytes)
            .map_err(|error| format!("cannot reach the mirror: {error}"))?;
        let received = self.await_both()?;

        let before = describe(&sent, Fields::Addressing);
        let mut text = format!("\n━━ {}\n\n  the SDK sent\n", request.title);
        text += &show::rows(&before, None);
        for ((name, outbound), received) in
            OUTBOUND_NAMES.iter().zip(&self.outbounds).zip(&received)
        {
            text += &format!("  outbound {name} received\n");
            text += &show::rows(&describe(received, Fields::Addressing), Some(&before));
            let flaws = verify::verify(&sent, received, &self.inbound, outbound);
            text.extend(flaws.iter().map(|flaw| format!("    ✗ {flaw}\n")));
            if flaws.is_empty() {
                text += "    ✓ every other byte is as sent\n";
            }
        }
        let (status, body) = (reply.part(1), printable(&reply.body));
        let milliseconds = elapsed.as_secs_f64() * 1000.0;
        text += &format!("  the SDK received {status} {body} after {milliseconds:.2} ms\n");
        let expected = format!("{{\"id\":\"{}\"}}", request.event_id);
        if (status, &*body) != ("200", &*expected) {
            text += &format!("    ✗ expected 200 {expected}\n");
        }
        Ok(text)
    }

    /// Sends a request on a new connection, because each is from another SDK, and reads the reply.
    fn exchange(&self, request: &[u8]) -> io::Result<(Message, Duration)> {
        let mut stream = TcpStream::connect_timeout(&self.mirror.address(), STEP_TIMEOUT)?;
        stream.set_read_timeout(Some(STEP_TIMEOUT))?;
        let start = Instant::now();
        stream.write_all(request)?;
        let reply = Message::read(&mut BufReader::new(&stream))?;
        let reply = reply.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((reply, start.elapsed()))
    }

    /// Waits until each sink has received a request.
    fn await_both(&self) -> Result<[Message; 2], String> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        let mut received = [None, None];
        loop {
            received = match received {
                [Some(first), Some(second)] => return Ok([first, second]),
                missing => missing,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let (sink, arrival) = self
                .arrivals
                .recv_timeout(left)
                .map_err(|_| "a request did not arrive at both outbounds in time")?;
            let request = arrival.map_err(|reason| format!("a sink got no request: {reason}"))?;
            if let Some(slot) = received.get_mut(sink)
                && slot.replace(request).is_some()
            {
                return Err("an outbound received the same request twice".to_owned());
            }
        }
    }

    /// Prints what arrives at the sinks until the process is asked to stop.
    fn stay(self) -> Result<(), String> {
        let signals = signals::listen()?;
        let dsn = &self.inbound;
        let invitation = format!(
            "
The mirror stays up. Point any SDK on this host at it:

  {dsn}

  pip install sentry-sdk
  python -c 'import sentry_sdk; sentry_sdk.init(\"{dsn}\"); sentry_sdk.capture_message(\"hello\")'

Every request that arrives at an outbound is printed below. Press Ctrl-C to stop.
"
        );
        write(&mut io::stdout(), &invitation)?;
        let arrivals = self.arrivals;
        let outbound = |index: usize| {
            let name = OUTBOUND_NAMES.get(index).unwrap_or(&"?");
            format!("outbound {name} received: ")
        };
        thread::spawn(move || print(&arrivals, Fields::Addressing, outbound));
        signals.wait_for_shutdown();
        self.mirror.stop();
        Ok(())
    }
}

/// Prints each request that arrives, until writing to standard output fails. `prefix` returns how the title of
/// a request starts, given the index of the sink that received it.
fn print(arrivals: &Receiver<Arrival>, fields: Fields, prefix: impl Fn(usize) -> String) {
    for (index, arrival) in arrivals {
        let (what, text) = match &arrival {
            Ok(request) => (
                endpoint(request).label(),
                show::rows(&describe(request, fields), None),
            ),
            Err(reason) => ("a malformed request", format!("    ✗ {reason}\n")),
        };
        let text = format!("\n  {}{what}\n{text}", prefix(index));
        if write(&mut io::stdout(), &text).is_err() {
            return;
        }
    }
}

/// Writes `text` at once, so that it is not mixed with the text of another thread.
fn write(out: &mut impl Write, text: &str) -> Result<(), String> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}

/// The configuration as an operator would write it. The port in the inbound DSN is missing, because it is
/// not known yet; requests are routed by the key alone.
fn config(outbounds: &[Dsn; 2]) -> Result<Config, String> {
    let [a, b] = outbounds;
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
    fn the_demo_goes_through_the_real_mirror_and_finds_no_flaws() {
        let demo = Demo::start().unwrap();
        let mut out = demo.introduction().into_bytes();
        let shown = demo.show(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(shown, Ok(()), "{text}");
        assert_eq!(text.matches("✓ every other byte").count(), 6, "{text}");
        assert!(!text.contains('✗'));
        for mark in [
            "/api/⟦1001⟧/envelope/",
            " bytes, sent ⟦plain⟧, with Content-Length",
            "/⟦sentry/⟧api/⟦2002⟧/envelope/",
            "sentry_key=⟦aaaa…⟧",
            "sentry_key=⟦bbbb…⟧",
            "\"public_key\":\"⟦bbbb…⟧\"",
            "item     event, ",
            "item     transaction, ",
            "replay_recording, ",
            "the SDK received 200 {\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"} after ",
        ] {
            assert!(text.contains(mark), "{mark} is not in {text}");
        }
        for key in [INBOUND_KEY, KEY_A, KEY_B] {
            assert!(!text.contains(key), "a whole key is shown");
        }
        assert_eq!(demo.mirror.stop(), 0);
    }

    #[test]
    fn the_demo_fails_if_an_outbound_does_not_receive_what_it_should() {
        let mut demo = Demo::start().unwrap();
        let [a, b] = demo.outbounds;
        let other = a.to_string().replace("/1001", "/1002");
        demo.outbounds = [dsn(&other).unwrap(), b];
        let mut out = Vec::new();
        let shown = demo.show(&mut out);
        let text = String::from_utf8(out).unwrap();
        // The path of all three, and the `dsn` in the envelope of the replay.
        assert_eq!(shown, Err("4 flaws; see ✗ above".to_owned()));
        let count = |flaw: &str| text.matches(&format!("✗ {flaw}: expected")).count();
        assert_eq!(count("request line"), 3, "{text}");
        assert_eq!(count("envelope header"), 1, "{text}");
        demo.mirror.stop();
    }
}

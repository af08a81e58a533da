//! `demo` and `sink`: see the mirror work before configuring anything.
//!
//! [`run`] starts two stand-ins for Sentry and the real mirror on the loopback, in this process,
//! sends it what three SDKs would send, and shows what came in beside what each outbound got. What it
//! shows is proved to the byte on the way, so the tour is a test as well. [`sink()`] is one such
//! stand-in alone. This room uses all the others and none of them knows it. It installs no logger:
//! the terminal belongs to the story.
//!
//! A `tour` goes through the requests of `sdk`; `wire` and `sink` are its network, `describe`, `items`
//! and `compare` turn requests into words, `verify` holds them to what they must be, and `page` lays
//! them out.

mod compare;
mod describe;
mod items;
mod page;
mod sdk;
mod sink;
mod tour;
mod verify;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use self::describe::{describe, subject};
use self::page::Page;
use self::sink::Arrival;
use self::tour::{NAMES, Tour, write};
use crate::config::Config;
use crate::sentry::dsn::Dsn;
use crate::server::signals;
use crate::server::supervisor::Mirror;

/// The key of the SDKs, and those of the two outbounds.
const INBOUND_KEY: &str = "0123456789abcdef0123456789abcdef";
const KEY_A: &str = "aaaa1111aaaa1111aaaa1111aaaa1111";
const KEY_B: &str = "bbbb2222bbbb2222bbbb2222bbbb2222";

/// Any free port of the loopback.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Shows the mirror at work; then stays up for the user's own SDK unless `once` is set.
///
/// # Errors
/// What could not be started, or what was not as it must be.
pub fn run(once: bool) -> Result<(), String> {
    let page = Page::of_stdout();
    let stage = Stage::start()?;
    write(&mut io::stdout(), &stage.introduction(page))?;
    let told = stage.tour(page).run(&mut io::stdout());
    if told.is_ok() {
        write(&mut io::stdout(), &page.heading("what that was"))?;
        write(&mut io::stdout(), SUMMARY)?;
        if !once {
            return stage.stay(page);
        }
    }
    stage.mirror.stop();
    told
}

/// Accepts requests on `listen` and prints each of them until the process is asked to stop, or its
/// terminal is closed.
///
/// # Errors
/// The address cannot be had, or standard output cannot be written to.
pub fn sink(listen: SocketAddr) -> Result<(), String> {
    let page = Page::of_stdout();
    let signals = signals::listen()?;
    let (sender, arrivals) = mpsc::channel();
    let address = sink::start(listen, move |arrival| {
        // Nobody receives any more only while the process ends.
        let _ = sender.send((0, arrival));
    })?;
    let host = SocketAddr::new(reachable(address.ip()), address.port());
    let introduction = format!(
        "A stand-in for Sentry is listening on {address}.\n\
         It accepts every key and every project, for example with the DSN\n\n  \
         http://{INBOUND_KEY}@{host}/1\n\n\
         Every request is printed below; Ctrl-C ends it.\n"
    );
    write(&mut io::stdout(), &introduction)?;
    thread::spawn(move || print(&arrivals, page, |_, what| what.to_owned()));
    signals.wait_for_stop();
    Ok(())
}

const SUMMARY: &str = "
  3 requests became 6 deliveries. In each, the project, the host and every
  place that had the inbound key were replaced, in place; every other byte of
  the envelopes is as the SDK made it.
";

/// The mirror between an SDK and two sinks.
struct Stage {
    mirror: Mirror,
    inbound: Dsn,
    outbounds: [Dsn; 2],
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

    fn tour(&self, page: Page) -> Tour<'_> {
        Tour {
            mirror: self.mirror.address(),
            inbound: &self.inbound,
            outbounds: &self.outbounds,
            arrivals: &self.arrivals,
            page,
        }
    }

    fn introduction(&self, page: Page) -> String {
        let [a, b] = &self.outbounds;
        let driver = driver().map_or_else(String::new, |driver| format!(", on {driver}"));
        let build = match cfg!(debug_assertions) {
            true => "\n  This is a debug build: the times below are not those of a release.",
            false => "",
        };
        format!(
            "{}
  The mirror{driver}, and two stand-ins for Sentry, all in this process:

                    ┌─> outbound A  {}
     SDK ─> mirror ─┤
                    └─> outbound B  {}

  The SDK only knows the inbound DSN  {}
  Keys are cut short here. What the mirror has changed is shown ⟦like this⟧.{build}
",
            page.heading("sentry-mirror: one DSN in, several out"),
            a.shortened(),
            b.shortened(),
            self.inbound.shortened(),
        )
    }

    /// Prints what arrives at the sinks until the process is asked to stop.
    fn stay(self, page: Page) -> Result<(), String> {
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
            page.heading("now yours"),
        );
        write(&mut io::stdout(), &invitation)?;
        let arrivals = self.arrivals;
        let title = |index: usize, what: &str| {
            format!("outbound {} got: {what}", NAMES.get(index).unwrap_or(&"?"))
        };
        thread::spawn(move || print(&arrivals, page, title));
        signals.wait_for_stop();
        self.mirror.stop();
        Ok(())
    }
}

/// Prints everything that arrives, for as long as standard output can be written to. `title` makes
/// the title of the number of a sink and what came in there.
fn print(arrivals: &Receiver<(usize, Arrival)>, page: Page, title: impl Fn(usize, &str) -> String) {
    for (index, arrival) in arrivals {
        let (what, text) = match arrival {
            Ok(request) => (subject(&request), page.rows(&describe(&request))),
            Err(reason) => ("nothing readable".to_owned(), page.flaw(&reason)),
        };
        let text = page.title(&title(index, &what), "") + &text;
        if write(&mut io::stdout(), &text).is_err() {
            return;
        }
    }
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

/// An address under which this host reaches what listens on `ip`.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}

/// What the workers wait with, judged by the descriptors that this process has open: the kernel's
/// answer, not what was asked for.
fn driver() -> Option<&'static str> {
    let descriptors = std::fs::read_dir("/proc/self/fd").ok()?;
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let links: Vec<_> = links.collect();
    let is_open = |name: &str| links.iter().any(|link| link.as_os_str() == name);
    if is_open("anon_inode:[io_uring]") {
        Some("io_uring")
    } else if is_open("anon_inode:[eventpoll]") {
        Some("epoll")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tour_goes_through_the_real_mirror_and_finds_nothing_wrong() {
        let stage = Stage::start().unwrap();
        let mut out = stage.introduction(Page::plain()).into_bytes();
        let told = stage.tour(Page::plain()).run(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(told, Ok(()), "{text}");
        assert_eq!(text.matches("✓ identical to the byte").count(), 6, "{text}");
        assert!(!text.contains('✗'));
        assert_eq!(text.matches("endpoint  ").count(), 3, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= page::WIDTH_DEFAULT, "{line}");
        }
        for mark in [
            "endpoint  tunnel",
            "/api/⟦1001⟧/envelope/",
            " bytes, sent ⟦plain⟧, with Content-Length",
            "/⟦sentry/⟧api/⟦2002⟧/envelope/",
            "sentry_key=⟦aaaa…⟧",
            "sentry_key=⟦bbbb…⟧",
            "\"public_key\":\"⟦bbbb…⟧\"",
            "event, 1",
            "transaction, 1",
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
    fn the_tour_fails_when_an_outbound_does_not_get_what_it_must() {
        let mut stage = Stage::start().unwrap();
        let [a, b] = stage.outbounds;
        let other = a.to_string().replace("/1001", "/1002");
        stage.outbounds = [dsn(&other).unwrap(), b];
        let mut out = Vec::new();
        let told = stage.tour(Page::plain()).run(&mut out);
        let text = String::from_utf8(out).unwrap();
        // The path of all three, and the `dsn` in the envelope of the replay.
        assert_eq!(
            told,
            Err("4 things are not as they must be; see ✗ above".to_owned())
        );
        assert_eq!(
            text.matches("✗ request line: expected").count(),
            3,
            "{text}"
        );
        assert_eq!(
            text.matches("✗ envelope header: expected").count(),
            1,
            "{text}"
        );
        stage.mirror.stop();
    }
}

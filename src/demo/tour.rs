//! The tour: each of the three requests is sent, awaited at both outbounds, compared and proved.
//!
//! The SDK's side is a plain TCP connection to the mirror, a new one for each request, for they are
//! three different SDKs. The time is that from the first byte sent to the last byte of the answer.
//! Nothing is assumed: what does not arrive, or arrives with one byte wrong, ends in an error.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::describe::{Row, describe, printable, subject};
use super::page::Page;
use super::sdk::{self, Sending};
use super::sink::Arrival;
use super::verify::verify;
use super::wire::{Answer, Fault, Request, Wire};
use crate::sentry::dsn::Dsn;

/// How long anything may take that takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// The names of the two outbounds.
pub(super) const NAMES: [&str; 2] = ["A", "B"];

/// What a tour goes through.
pub(super) struct Tour<'t> {
    /// Where the mirror listens.
    pub(super) mirror: SocketAddr,
    /// The DSN of the SDKs.
    pub(super) inbound: &'t Dsn,
    /// The DSNs of the sinks, in the order of [`NAMES`].
    pub(super) outbounds: &'t [Dsn; 2],
    /// What arrives at the sinks, each with the number of its sink.
    pub(super) arrivals: &'t Receiver<(usize, Arrival)>,
    pub(super) page: Page,
}

impl Tour<'_> {
    /// Sends the three requests and tells on `out` what became of them.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), String> {
        let sendings = sdk::sendings(self.inbound).map_err(|error| error.to_string())?;
        let count = sendings.len();
        let mut flaw_count = 0;
        for (index, sending) in sendings.iter().enumerate() {
            let title = format!("{} of {count}: {}", index + 1, sending.title);
            let (text, flaws) = self.station(sending)?;
            flaw_count += flaws;
            write(out, &(self.page.heading(&title) + &text))?;
        }
        match flaw_count {
            0 => Ok(()),
            1 => Err("one thing is not as it must be; see ✗ above".to_owned()),
            _ => Err(format!(
                "{flaw_count} things are not as they must be; see ✗ above"
            )),
        }
    }

    /// One request: what there is to show, and how many flaws are in it.
    fn station(&self, sending: &Sending) -> Result<(String, usize), String> {
        let sent = parse(&sending.bytes)?;
        let (answer, elapsed) = self.exchange(&sending.bytes)?;
        let received = self.await_both()?;

        let sent_rows = describe(&sent);
        let mut text = self
            .page
            .title("the SDK sent", &format!(" ({})", sending.remark));
        // The outbounds' is the same, and to be seen in their request lines.
        let endpoint = Row {
            label: "endpoint",
            text: subject(&sent),
        };
        text += &self.page.rows(&[endpoint]);
        text += &self.page.rows(&sent_rows);
        let mut flaw_count = 0;
        for ((name, outbound), got) in NAMES.iter().zip(self.outbounds).zip(&received) {
            text += &self.page.title(&format!("outbound {name} got"), "");
            let (shown, flaws) = self.outbound(&sent, &sent_rows, got, outbound);
            text += &shown;
            flaw_count += flaws;
        }
        let (shown, flaws) = self.reply(&answer, elapsed, sending.event_id);
        Ok((text + &shown, flaw_count + flaws))
    }

    fn outbound(
        &self,
        sent: &Request,
        sent_rows: &[Row],
        got: &Request,
        outbound: &Dsn,
    ) -> (String, usize) {
        let mut text = self.page.compared_rows(sent_rows, &describe(got));
        let flaws = match verify(sent, got, self.inbound, outbound) {
            Ok(bytes) => {
                text += &self
                    .page
                    .proof(&format!("identical to the byte: {bytes} bytes of items"));
                Vec::new()
            }
            Err(flaws) => flaws,
        };
        text.extend(flaws.iter().map(|flaw| self.page.flaw(flaw)));
        (text, flaws.len())
    }

    fn reply(&self, answer: &Answer, elapsed: Duration, event_id: &str) -> (String, usize) {
        let body = printable(&answer.body);
        let milliseconds = elapsed.as_secs_f64() * 1000.0;
        let reply = Row {
            label: "reply",
            text: format!("{} {body} after {milliseconds:.2} ms", answer.status),
        };
        let text = self.page.title("the SDK was told", "") + &self.page.rows(&[reply]);
        let expected = format!("{{\"id\":\"{event_id}\"}}");
        if answer.status == 200 && body == expected {
            (text, 0)
        } else {
            (
                text + &self.page.flaw(&format!("expected 200 {expected}")),
                1,
            )
        }
    }

    /// Sends a request as its SDK would and reads the answer.
    fn exchange(&self, request: &[u8]) -> Result<(Answer, Duration), String> {
        let failed = |error| format!("cannot reach the mirror: {error}");
        let mut stream = TcpStream::connect_timeout(&self.mirror, PATIENCE).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let start = Instant::now();
        stream.write_all(request).map_err(failed)?;
        let answer = Wire::new(&stream).answer().map_err(|fault| match fault {
            Fault::Io(error) => failed(error),
            Fault::Malformed(reason) => format!("the mirror's answer: {reason}"),
        })?;
        Ok((answer, start.elapsed()))
    }

    /// Waits until each sink has got a request.
    fn await_both(&self) -> Result<[Request; 2], String> {
        let deadline = Instant::now() + PATIENCE;
        let mut received = [None, None];
        loop {
            received = match received {
                [Some(first), Some(second)] => return Ok([first, second]),
                missing => missing,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let (sink, arrival) = self.arrivals.recv_timeout(left).map_err(|_| {
                let names = NAMES.iter().zip(&received);
                let missing = names
                    .filter(|(_, slot)| slot.is_none())
                    .map(|(name, _)| *name);
                let missing: Vec<&str> = missing.collect();
                format!(
                    "nothing arrived at outbound {} in time",
                    missing.join(" and ")
                )
            })?;
            let request = arrival.map_err(|reason| format!("a sink got no request: {reason}"))?;
            if let Some(slot) = received.get_mut(sink)
                && slot.replace(request).is_some()
            {
                return Err("an outbound got the same request twice".to_owned());
            }
        }
    }
}

/// Writes `text` at once, so that it stays together whoever else writes.
pub(super) fn write(out: &mut impl Write, text: &str) -> Result<(), String> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}

/// What is about to be sent, seen as whoever receives it sees it.
fn parse(bytes: &[u8]) -> Result<Request, String> {
    let mut wire = Wire::new(bytes);
    let request = match wire.request_head() {
        Ok(Some(head)) => wire.request(head),
        Ok(None) => Err(Fault::Malformed("it is empty".to_owned())),
        Err(fault) => Err(fault),
    };
    request.map_err(|fault| format!("the tour's own request is wrong: {fault:?}"))
}

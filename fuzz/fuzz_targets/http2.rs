//! What a server sends over HTTP/2: how its bytes are split over reads makes no difference, each request ends at most
//! once and with nothing behind it, and no input makes the mirror keep or send much.

#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::http2::connection::{Connection, Event};
use sentry_mirror::internals::http2::error::{ErrorCode, Violation};

const REQUESTS: [&[u8]; 3] = [
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
    b"HEAD /c HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// SETTINGS with an initial window of four bytes.
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x04";

fuzz_target!(|data: &[u8]| {
    let now = Instant::now();
    let whole = Run::new(now, data, data.len().max(1));
    let step = usize::from(data.first().copied().unwrap_or_default()) % 40 + 1;
    let pieces = Run::new(now, data, step);
    assert_eq!(whole.seen, pieces.seen);
    assert_eq!(whole.violation, pieces.violation);
    assert_eq!(whole.output, pieces.output);
    // Each frame of nine bytes is answered by at most two of thirteen and the answer to a ping of seventeen.
    assert!(whole.output.len() <= 1024 + 6 * data.len());
});

struct Run {
    seen: Vec<(usize, String)>,
    violation: Option<Violation>,
    output: Vec<u8>,
}

impl Run {
    /// Feeds `data` in pieces of `step` bytes.
    fn new(now: Instant, data: &[u8], step: usize) -> Run {
        let mut connection = Connection::new(true, now);
        let ready = connection.receive(SETTINGS, now, |_| {});
        assert_eq!(ready, Ok(SETTINGS.len()));
        let mut ids = Vec::new();
        for (token, request) in REQUESTS.iter().enumerate() {
            let opened = connection.open(token, request, |_| token == 1);
            ids.push(opened.expect("the server allows streams").id);
        }
        let body = b"body body";
        let mut sent = connection.send(ids[1], body, true);
        let mut run = Run {
            seen: Vec::new(),
            violation: None,
            output: Vec::new(),
        };
        let (mut processed, mut arrived) = (0, 0);
        while arrived < data.len() {
            arrived = data.len().min(arrived + step);
            let mut ended = [false; REQUESTS.len()];
            let received = connection.receive(&data[processed..arrived], now, |event| {
                run.seen.extend(describe(&event));
                if let Event::End { token, .. } | Event::Failed { token, .. } = event {
                    assert!(!std::mem::replace(&mut ended[token], true));
                }
            });
            match received {
                Ok(count) => processed += count,
                Err(violation) => {
                    run.violation = Some(violation);
                    break;
                }
            }
        }
        run.check();
        if run.violation.is_none() {
            sent += connection.send(ids[1], &body[sent..], true);
            assert!(sent <= body.len());
            connection.reset(ids[0], ErrorCode::CANCEL);
        }
        run.output = connection.take_output(Vec::new());
        run
    }

    /// Nothing follows the end of a request.
    fn check(&self) {
        for token in 0..REQUESTS.len() {
            let of_token = self.seen.iter().filter(|(seen, _)| *seen == token);
            let words: Vec<&str> = of_token.map(|(_, word)| &word[..]).collect();
            let end = words.iter().position(|word| word.starts_with("end"));
            assert!(end.is_none_or(|end| end + 1 == words.len()), "{words:?}");
            let heads = words.iter().filter(|word| word.starts_with("head"));
            assert!(heads.count() <= 1, "{words:?}");
        }
    }
}

fn describe(event: &Event<'_>) -> Option<(usize, String)> {
    Some(match event {
        Event::Head { token, head } => {
            assert!((200..=999).contains(&head.status));
            (*token, format!("head {}", head.status))
        }
        Event::Data { token, bytes } => {
            assert!(!bytes.is_empty());
            (*token, format!("data {bytes:?}"))
        }
        Event::End { token, is_sent } => (*token, format!("end {is_sent}")),
        Event::Failed { token, failure } => (*token, format!("end {failure:?}")),
        Event::CanSend { token } => (*token, "can send".to_owned()),
        Event::Ready | Event::GoingAway(_) | Event::Pong(_) => return None,
    })
}

//! Whole responses of upstreams, with interim responses and bodies: the result does not depend on the pieces
//! in which they arrive, and is the same in a real exchange over a socket. The first byte selects the pieces,
//! and whether the request was a HEAD.

#![no_main]

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bytes::{Buf, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use monoio::net::TcpStream;
use monoio::time::TimeDriver;
use monoio::{LegacyDriver, Runtime, RuntimeBuilder};
use sentry_mirror::internals::http::chunked::{Chunked, Progress};
use sentry_mirror::internals::http::framing::{self, Framing};
use sentry_mirror::internals::http::head::{Method, Parsed};
use sentry_mirror::internals::http::response::ResponseHead;
use sentry_mirror::internals::limits::Limits;
use sentry_mirror::internals::net::stream::Stream;
use sentry_mirror::internals::net::transfer::Transfer;
use sentry_mirror::internals::runtime::memory_budget::MemoryBudget;
use sentry_mirror::internals::upstream::exchange::{Connection, Failure, OutboundRequest};
use sentry_mirror::internals::upstream::response::Response;

const BYTES_MAX: usize = 1024;

/// How many heads of a response are looked at.
const HEADS_MAX: usize = 16;

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let method = if first & 1 == 0 {
        Method::Post
    } else {
        Method::Head
    };
    let whole = read(data, data.len().max(1), method);
    let in_pieces = read(data, usize::from(first >> 1).max(1), method);
    assert_eq!(whole, in_pieces);
    let exchanged = exchange(data, method);
    match (&whole, &exchanged) {
        (Ok(Some(answer)), Ok(response)) => {
            assert_eq!(answer.status, response.status);
            assert_eq!(answer.body, response.body);
        }
        (Ok(None), Err(failure)) => assert!(matches!(failure, Failure::Closed), "{failure}"),
        (Err(Malformed), Err(failure)) => {
            assert!(
                matches!(failure, Failure::Malformed(_) | Failure::TooLarge),
                "{failure}"
            );
        }
        (read, _) => panic!("{read:?}, but {exchanged:?}"),
    }
    if let Ok(Some(answer)) = whole {
        assert!(answer.body.len() <= data.len() && answer.status >= 200);
        assert!(method == Method::Post || answer.body.is_empty());
    }
});

thread_local! {
    static RUNTIME: RefCell<Runtime<TimeDriver<LegacyDriver>>> = {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
        RefCell::new(runtime.expect("a runtime"))
    };
}

/// The result of the program if an upstream sends `data` and closes.
fn exchange(data: &[u8], method: Method) -> Result<Response, Failure> {
    let (mut upstream, mirror) = UnixStream::pair().expect("a pair of sockets");
    upstream.write_all(data).expect("room for it");
    upstream.shutdown(Shutdown::Write).expect("a socket");
    mirror.set_nonblocking(true).expect("a socket");
    // Nothing that an exchange does is particular to TCP.
    let mirror = std::net::TcpStream::from(OwnedFd::from(mirror));
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let stream = Stream::Plain(TcpStream::from_std(mirror).expect("a socket"));
            let share = MemoryBudget::new(1024 * 1024).reservation();
            let mut request = OutboundRequest {
                method,
                head: b"POST / HTTP/1.1\r\n\r\n".to_vec(),
                body: Bytes::new(),
                tail: Vec::new(),
            };
            let mut connection = Connection::new(stream, share);
            let transfer = Transfer::default();
            connection
                .exchange(&mut request, &limits(), &transfer)
                .await
        })
    })
}

fn limits() -> Limits {
    Limits {
        response_bytes: BYTES_MAX,
        ..Limits::default()
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// What follows it, where it ends before the connection does.
    rest: Option<Vec<u8>>,
}

/// The response is invalid, or a part of it is too long.
#[derive(Debug, PartialEq)]
struct Malformed;

/// Reads as `upstream::exchange` does. `None` if the end is missing.
fn read(data: &[u8], piece_bytes: usize, method: Method) -> Result<Option<Answer>, Malformed> {
    let mut pieces = data.chunks(piece_bytes);
    let mut buffer = BytesMut::new();
    let mut head = ResponseHead::default();
    let mut interims = 0;
    let framing = loop {
        if interims == HEADS_MAX {
            return Err(Malformed);
        }
        match head.parse(&buffer, BYTES_MAX).map_err(|_| Malformed)? {
            Parsed::Complete if head.status == 101 => return Err(Malformed),
            Parsed::Complete if head.status < 200 => {
                buffer.advance(head.len);
                interims += 1;
            }
            Parsed::Complete => {
                let text = buffer.split_to(head.len);
                break framing::for_response(&head, &text, method).map_err(|_| Malformed)?;
            }
            Parsed::Partial => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    };
    let mut chunked = Chunked::for_response(BYTES_MAX);
    let body = loop {
        match framing {
            Framing::Empty => break Vec::new(),
            Framing::Length(length) if length > BYTES_MAX => return Err(Malformed),
            Framing::UntilClose if buffer.len() > BYTES_MAX => return Err(Malformed),
            Framing::Length(length) if buffer.len() >= length => {
                break buffer.split_to(length).to_vec();
            }
            Framing::Chunked => {
                let progress = chunked.decode(&mut buffer).map_err(|_| Malformed)?;
                if let Progress::Done { body, consumed } = progress {
                    break body.slice(&buffer.split_to(consumed)).to_vec();
                }
            }
            Framing::UntilClose | Framing::Length(_) => {}
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None if framing == Framing::UntilClose => {
                let body = buffer.to_vec();
                return Ok(Some(Answer {
                    status: head.status,
                    body,
                    rest: None,
                }));
            }
            None => return Ok(None),
        }
    };
    pieces.for_each(|piece| buffer.extend_from_slice(piece));
    Ok(Some(Answer {
        status: head.status,
        body,
        rest: Some(buffer.to_vec()),
    }))
}

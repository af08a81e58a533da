//! An upstream that accepts everything, marks its number, and does as little else as it can.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::mix::CATEGORIES;
use crate::tally::Tally;

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

pub struct Sink {
    pub address: SocketAddr,
    pub arrived: Arc<Tally>,
    /// Requests whose body had another length than it should.
    wrong: Arc<AtomicUsize>,
    items: Arc<Items>,
}

/// How many items of each of [`CATEGORIES`] have arrived.
type Items = [AtomicUsize; CATEGORIES.len()];

impl Sink {
    pub fn start(size: usize) -> io::Result<Sink> {
        Sink::start_with(size, None)
    }

    /// One that reads so many bytes a second over each connection.
    pub fn start_slow(size: usize, bytes_per_second: usize) -> io::Result<Sink> {
        Sink::start_with(size, Some(bytes_per_second))
    }

    fn start_with(size: usize, pace: Option<usize>) -> io::Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sink = Sink {
            address: listener.local_addr()?,
            arrived: Arc::new(Tally::new(size)),
            wrong: Arc::default(),
            items: Arc::default(),
        };
        let (arrived, wrong) = (Arc::clone(&sink.arrived), Arc::clone(&sink.wrong));
        let items = Arc::clone(&sink.items);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (arrived, wrong) = (Arc::clone(&arrived), Arc::clone(&wrong));
                let items = Arc::clone(&items);
                thread::spawn(move || {
                    // It ends with an error when the mirror is gone.
                    let _ = serve(&stream, &arrived, &wrong, &items, pace);
                });
            }
        });
        Ok(sink)
    }

    /// How many items of each category have arrived, without those that have none.
    pub fn items(&self) -> BTreeMap<String, usize> {
        let counts = self.items.iter().map(|count| count.load(Ordering::Relaxed));
        let named = CATEGORIES
            .iter()
            .map(|(_, category)| (*category).to_owned());
        named.zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    pub fn assert_whole(&self) -> Result<(), String> {
        match self.wrong.load(Ordering::Relaxed) {
            0 => Ok(()),
            count => Err(format!("{count} bodies arrived with a wrong length")),
        }
    }
}

fn serve(
    stream: &TcpStream,
    arrived: &Tally,
    wrong: &AtomicUsize,
    items: &Items,
    pace: Option<usize>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(pace.map_or(65_536, |_| 1024), stream);
    let mut line = Vec::new();
    loop {
        let (mut length, mut mark) = (0, None);
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line == b"\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix(b"Content-Length: ") {
                length = numbers(value).next().unwrap_or_default();
            } else if let Some(value) = line.strip_prefix(b"X-Soak: ") {
                let mut all = numbers(value);
                mark = all.next().zip(all.next()).zip(all.next());
            }
        }
        skip(&mut reader, length, pace)?;
        let ((number, expected), category) = mark.unwrap_or(((usize::MAX, 0), usize::MAX));
        if let Some(count) = items.get(category) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if length != expected {
            wrong.fetch_add(1, Ordering::Relaxed);
        }
        arrived.mark(number);
        (&mut &*stream).write_all(OK)?;
    }
}

fn numbers(text: &[u8]) -> impl Iterator<Item = usize> {
    let text = str::from_utf8(text).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok())
}

fn skip(reader: &mut impl BufRead, mut left: usize, pace: Option<usize>) -> io::Result<()> {
    while left > 0 {
        let taken = reader.fill_buf()?.len().min(left);
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reader.consume(taken);
        left -= taken;
        if let Some(bytes_per_second) = pace {
            thread::sleep(Duration::from_secs_f64(
                taken as f64 / bytes_per_second as f64,
            ));
        }
    }
    Ok(())
}

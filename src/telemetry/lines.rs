//! Writes lines from a thread of its own, so that no worker waits for the reader of the output.
//!
//! The queue is bounded in bytes. Lines that do not fit or cannot be written are dropped and counted, and
//! a callback can log the first failure of several. The crate `tracing-appender` has such a thread, too,
//! but it bounds the number of lines instead of bytes, allocates 4 MiB for its queue, and ignores failures.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::label::{Label, labels};

/// How long the end of the process waits for queued lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

labels! {
    pub enum DropReason {
        /// The queue was full because the reader of the output is too slow.
        Queue => "queue",
        /// Writing failed.
        Write => "write",
    }
}

/// A handle to the thread that writes. Clones share the thread.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    bytes_max: usize,
    /// Indexed by [`DropReason`].
    dropped: [AtomicU64; DropReason::ALL.len()],
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// The bytes that the thread has taken from the queue and is writing.
    writing_bytes: usize,
    is_closed: bool,
}

/// Keeps the thread alive. Dropping it waits until the queue is written, for [`FLUSH_TIMEOUT`] at most.
pub struct LinesGuard(Lines);

impl Lines {
    /// Starts a thread called `name` that writes lines to `writer`, with at most `bytes_max` bytes in its
    /// queue. The thread calls `on_change` when writing starts to fail, and when it works again.
    ///
    /// # Errors
    /// If no thread can be created.
    pub fn start(
        name: &str,
        bytes_max: usize,
        writer: impl Write + Send + 'static,
        on_change: impl FnMut(Result<(), &io::Error>) + Send + 'static,
    ) -> io::Result<(Lines, LinesGuard)> {
        let lines = Lines(Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            bytes_max,
            dropped: Default::default(),
        }));
        let shared = Arc::clone(&lines.0);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || shared.write_all(writer, on_change))?;
        Ok((lines.clone(), LinesGuard(lines)))
    }

    /// Queues lines that include their line ends. Drops those for which the queue has no room.
    pub fn push(&self, lines: &[u8]) {
        let mut queue = self.0.lock();
        let queued_bytes = queue.waiting.len() + queue.writing_bytes;
        let room = self.0.bytes_max.saturating_sub(queued_bytes);
        let (fitting, rest) = split_lines(lines, room);
        let is_first = queue.waiting.is_empty() && !fitting.is_empty();
        queue.waiting.extend_from_slice(fitting);
        drop(queue);
        if is_first {
            self.0.changed.notify_all();
        }
        if !rest.is_empty() {
            // The last line may lack its end.
            let ends = line_ends(rest).max(1);
            self.0.drop_lines(DropReason::Queue, ends);
        }
    }

    /// The number of lines dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let count = self.0.dropped.get(reason.index());
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Each call of `write` must pass whole lines.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_lines(&self, reason: DropReason, lines: u64) {
        if let Some(count) = self.dropped.get(reason.index()) {
            count.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Writes lines until the queue is closed and empty.
    fn write_all(&self, mut writer: impl Write, mut on_change: impl FnMut(Result<(), &io::Error>)) {
        let mut is_failing = false;
        let mut bytes = Vec::new();
        while self.take(&mut bytes) {
            let (written, result) = write_lines(&mut writer, &bytes);
            let rest = bytes.get(written..).unwrap_or_default();
            self.drop_lines(DropReason::Write, line_ends(rest));
            if result.is_err() != is_failing {
                is_failing = !is_failing;
                on_change(result.as_ref().copied());
            }
        }
    }

    /// Waits for lines and swaps them with `bytes`, to reuse its memory. Returns `false` at the end.
    fn take(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        let mut queue = self.lock();
        queue.writing_bytes = 0;
        // Wakes the end of the process, which may be waiting for this.
        self.changed.notify_all();
        while queue.waiting.is_empty() && !queue.is_closed {
            let woken = self.changed.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut queue.waiting, bytes);
        queue.writing_bytes = bytes.len();
        !bytes.is_empty()
    }
}

impl Drop for LinesGuard {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut queue = shared.lock();
        queue.is_closed = true;
        shared.changed.notify_all();
        let is_busy = |queue: &mut Queue| !queue.waiting.is_empty() || queue.writing_bytes > 0;
        let _ = shared
            .changed
            .wait_timeout_while(queue, FLUSH_TIMEOUT, is_busy);
    }
}

/// Splits `lines` into as many whole lines as fit into `room` bytes, and the rest.
fn split_lines(lines: &[u8], room: usize) -> (&[u8], &[u8]) {
    if lines.len() <= room {
        return (lines, &[]);
    }
    let fitting = lines.get(..room).unwrap_or_default();
    let end = fitting.iter().rposition(|byte| *byte == b'\n');
    lines.split_at(end.map_or(0, |end| end + 1))
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Writes `bytes`. Returns how many were written before the first failure.
fn write_lines(writer: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match writer.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, writer.flush())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A writer that reports each write to the test, which decides on its result.
    struct Scripted {
        writes: Sender<Vec<u8>>,
        results: Receiver<io::Result<()>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.send(bytes.to_vec()).unwrap();
            self.results.recv().unwrap().map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Setup {
        lines: Lines,
        guard: LinesGuard,
        writes: Receiver<Vec<u8>>,
        results: Sender<io::Result<()>>,
        changes: Receiver<String>,
    }

    fn start(bytes_max: usize) -> Setup {
        let (written, writes) = channel();
        let (results, scripted) = channel();
        let (change, changes) = channel();
        let writer = Scripted {
            writes: written,
            results: scripted,
        };
        let on_change = move |result: Result<(), &io::Error>| {
            let text = result.map_or_else(ToString::to_string, |()| "works".to_owned());
            change.send(text).unwrap();
        };
        let (lines, guard) = Lines::start("lines", bytes_max, writer, on_change).unwrap();
        Setup {
            lines,
            guard,
            writes,
            results,
            changes,
        }
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_and_dropped_lines_are_counted() {
        let setup = start(100);
        setup.lines.push(b"first\n");
        // This line is being written, and still counts towards the bound.
        assert_eq!(setup.writes.recv().unwrap(), b"first\n");
        let long = [b'x'; 50];
        setup.lines.push(&long);
        setup.lines.push(&long);
        assert_eq!(setup.lines.dropped(DropReason::Queue), 1);
        setup.lines.push(&[b'y'; 44]);
        setup.lines.push(b"z");
        assert_eq!(setup.lines.dropped(DropReason::Queue), 2);
        for _ in 0..2 {
            setup.results.send(Ok(())).unwrap();
        }
        drop(setup.guard);
        assert_eq!(setup.writes.recv().unwrap().len(), 94);
        assert_eq!(setup.lines.dropped(DropReason::Write), 0);
    }

    #[test]
    fn of_a_block_the_lines_that_fit_are_queued_and_the_others_counted() {
        let setup = start(10);
        setup.lines.push(b"one\ntwo\nthree\nfour\n");
        assert_eq!(setup.writes.recv().unwrap(), b"one\ntwo\n");
        assert_eq!(setup.lines.dropped(DropReason::Queue), 2);
        setup.lines.push(b"six\n");
        assert_eq!(setup.lines.dropped(DropReason::Queue), 3);
        setup.lines.push(b"7\n8\n");
        assert_eq!(setup.lines.dropped(DropReason::Queue), 4);
        for _ in 0..2 {
            setup.results.send(Ok(())).unwrap();
        }
        drop(setup.guard);
        assert_eq!(setup.writes.recv().unwrap(), b"7\n");
    }

    #[test]
    fn failures_are_counted_and_the_first_is_reported() {
        let setup = start(100);
        let full = || Err(io::Error::other("full"));
        for result in [full(), full(), Ok(()), full()] {
            setup.lines.push(b"a\nb\n");
            setup.writes.recv().unwrap();
            setup.results.send(result).unwrap();
        }
        drop(setup.guard);
        assert_eq!(setup.lines.dropped(DropReason::Write), 6);
        let reported: Vec<String> = setup.changes.iter().collect();
        assert_eq!(reported, ["full", "works", "full"]);
    }

    #[test]
    fn dropping_the_guard_does_not_wait_forever() {
        let setup = start(100);
        setup.lines.push(b"never taken\n");
        setup.writes.recv().unwrap();
        drop(setup.guard);
        assert_eq!(setup.lines.dropped(DropReason::Queue), 0);
    }
}

//! Collects lines of one thread, so that threads do not meet at the queue for each line.

use std::cell::RefCell;

use super::lines::Lines;

/// The lines collected are queued once they have this size.
const BLOCK_BYTES: usize = 32 * 1024;

/// Lines of one thread on their way to [`Lines`]. Dropping it queues them.
pub(crate) struct LineBuffer {
    lines: Lines,
    collected: RefCell<Vec<u8>>,
}

impl LineBuffer {
    pub(crate) fn new(lines: Lines) -> LineBuffer {
        LineBuffer {
            lines,
            collected: RefCell::default(),
        }
    }

    /// Collects a line that includes its line end.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut collected = self.collected.borrow_mut();
        collected.extend_from_slice(line);
        if collected.len() >= BLOCK_BYTES {
            self.lines.push(&collected);
            collected.clear();
            collected.shrink_to(2 * BLOCK_BYTES);
        }
    }

    /// Queues what is collected. The worker calls it ten times a second, so that no line waits for long.
    pub(crate) fn flush(&self) {
        let mut collected = self.collected.borrow_mut();
        if !collected.is_empty() {
            self.lines.push(&collected);
            collected.clear();
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{self, Write};
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use super::super::label::Label;
    use super::super::lines::DropReason;
    use super::*;

    struct ToChannel(Sender<Vec<u8>>);

    impl Write for ToChannel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_queued_in_blocks_on_a_flush_and_on_drop() {
        let (sender, writes) = channel();
        let (lines, guard) = Lines::start("lines", 1 << 20, ToChannel(sender), |_| {}).unwrap();
        let buffer = LineBuffer::new(lines);
        buffer.flush();
        buffer.push(b"a\n");
        buffer.push(b"b\n");
        buffer.flush();
        assert_eq!(writes.recv().unwrap(), b"a\nb\n");
        let line = [b"c".repeat(BLOCK_BYTES - 3).as_slice(), b"\n"].concat();
        buffer.push(&line);
        buffer.push(b"d\n");
        assert_eq!(writes.recv().unwrap().len(), BLOCK_BYTES);
        buffer.push(b"e\n");
        drop(buffer);
        assert_eq!(writes.recv().unwrap(), b"e\n");
        drop(guard);
        assert_eq!(writes.iter().count(), 0);
    }

    #[test]
    fn lines_of_many_threads_are_whole_in_the_order_of_each_thread_and_all_written_or_counted() {
        const THREADS: usize = 4;
        const LINES: usize = 20_000;
        for queue_bytes in [100_000, 1 << 30] {
            let (sender, writes) = channel();
            let writer = ToChannel(sender);
            let (lines, guard) = Lines::start("lines", queue_bytes, writer, |_| {}).unwrap();
            let send = |thread: usize| {
                let buffer = LineBuffer::new(lines.clone());
                for number in 0..LINES {
                    let filler = "x".repeat(number % 300);
                    buffer.push(format!("{thread} {number} {filler}.\n").as_bytes());
                    if number % 1000 == 0 {
                        buffer.flush();
                    }
                }
            };
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    scope.spawn(move || send(thread));
                }
            });
            let dropped: u64 = DropReason::ALL.iter().map(|r| lines.dropped(*r)).sum();
            let remaining = THREADS * LINES - usize::try_from(dropped).unwrap();
            let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            let (mut written, mut written_count) = (Vec::new(), 0);
            while written_count < remaining {
                let block = writes.recv().unwrap();
                written_count += ends(&block);
                written.extend(block);
            }
            drop(guard);
            assert_eq!(writes.try_iter().count(), 0);
            let written = String::from_utf8(written).unwrap();
            let mut last = HashMap::new();
            let mut count = 0;
            for line in written.lines() {
                let mut words = line.split(' ');
                let mut word = || words.next().unwrap();
                let (thread, number) = (word(), word().parse::<usize>().unwrap());
                assert_eq!(word().len(), number % 300 + 1, "{line}");
                let before = last.insert(thread.to_owned(), number);
                assert!(before.is_none_or(|before| before < number), "{line}");
                count += 1;
            }
            assert_eq!(count, remaining);
            assert!(queue_bytes < 1 << 30 || dropped == 0);
        }
    }
}

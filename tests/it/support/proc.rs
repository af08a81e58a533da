//! Descriptors and memory of a process, read from `/proc`, independently of the process itself.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Process};

impl Process {
    /// The number of its open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.id());
        fs::read_dir(folder).expect("it runs").count()
    }

    /// Whether it is stopped, by SIGSTOP.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        fields.starts_with('T')
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.id())).expect("it runs");
        let pages = statm.split(' ').nth(1).expect("the second field");
        pages.parse::<usize>().expect("a number") * 4096
    }

    /// Its peak resident memory in bytes.
    pub(crate) fn peak_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.expect("a number").parse::<usize>().expect("a number") * 1024
    }

    /// Waits until no more than `count` descriptors are open.
    pub(crate) fn wait_for_descriptors(&self, count: usize) {
        wait_until(
            || self.descriptors() <= count,
            || {
                let now = self.descriptors();
                format!("{now} descriptors are open, {count} were to be left")
            },
        );
    }
}

/// Waits until `holds`, and fails with the text of `otherwise` after [`PATIENCE`].
pub(crate) fn wait_until(mut holds: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{}", otherwise());
        thread::sleep(Duration::from_millis(10));
    }
}

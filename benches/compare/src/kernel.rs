//! CPU time, memory and system calls of a process, from the kernel.
//!
//! A contender may have children, such as nginx's workers; they all count. CPU time is what the scheduler has
//! charged to all threads, including ended ones, in nanoseconds. On the loopback the sender is also charged for
//! the path of a packet through the kernel to the receiving socket.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPU time of a process and its children.
#[derive(Clone, Default)]
pub struct CpuTimes {
    total: Duration,
    /// The CPU time of each running thread.
    threads: Vec<(u32, u64)>,
}

impl CpuTimes {
    pub fn of(process: u32) -> CpuTimes {
        let mut times = CpuTimes::default();
        for member in family(process) {
            times.total += clock(member).unwrap_or_default();
            for thread in threads(member) {
                let path = format!("/proc/{member}/task/{thread}/schedstat");
                let text = fs::read_to_string(path).unwrap_or_default();
                let time = text.split(' ').next().and_then(|time| time.parse().ok());
                times.threads.extend(time.map(|time| (thread, time)));
            }
        }
        times
    }

    /// What was used since `earlier`, by each thread.
    fn since(&self, earlier: &CpuTimes) -> Vec<u64> {
        let before = |thread: u32| earlier.threads.iter().find(|(id, _)| *id == thread);
        let used =
            |(thread, time): &(u32, u64)| time - before(*thread).map_or(0, |(_, time)| *time);
        self.threads.iter().map(used).collect()
    }

    /// What was used since `earlier`, in all.
    pub fn total_since(&self, earlier: &CpuTimes) -> Duration {
        self.total.saturating_sub(earlier.total)
    }

    /// The CPU time of the busiest of `workers` threads since `earlier`, relative to the average.
    pub fn imbalance_since(&self, earlier: &CpuTimes, workers: usize) -> f64 {
        let mut used = self.since(earlier);
        used.sort_unstable_by(|one, other| other.cmp(one));
        let busiest = used.first().copied().unwrap_or(0) as f64;
        let mean = used.iter().take(workers).sum::<u64>() as f64 / workers as f64;
        busiest / mean
    }
}

/// The CPU time of a process alone.
fn clock(process: u32) -> Option<Duration> {
    let process = Pid::from_raw(i32::try_from(process).ok()?);
    let clock = ClockId::pid_cpu_clock_id(process).ok()?;
    Some(Duration::from(clock.now().ok()?))
}

/// The memory of a process and its children in KiB, by the name of a line in its status: `VmHWM`,
/// `VmRSS`.
pub fn memory(process: u32, line: &str) -> u64 {
    let of_member = |member: u32| {
        let text = fs::read_to_string(format!("/proc/{member}/status")).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|text| text.strip_prefix(line))
            .unwrap_or("");
        let number = line.trim_start_matches(':').split_whitespace().next();
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    family(process).into_iter().map(of_member).sum()
}

/// Counts system calls while it lives, with `perf stat`.
pub struct SyscallCount {
    perf: std::process::Child,
}

impl SyscallCount {
    /// `None` if perf is not installed or not permitted.
    pub fn start(process: u32) -> Option<SyscallCount> {
        let members: Vec<String> = family(process).iter().map(u32::to_string).collect();
        let perf = Command::new("perf")
            .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p"])
            .arg(members.join(","))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Some(SyscallCount { perf: perf.ok()? })
    }

    pub fn stop(self) -> Option<u64> {
        interrupt(self.perf.id());
        let output = self.perf.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains("sys_enter"))?;
        line.split(',').next()?.parse().ok()
    }
}

fn interrupt(process: u32) {
    if let Some(id) = i32::try_from(process)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // An error means that it has ended already.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
    }
}

/// Asks a process to end.
pub fn terminate(process: u32) {
    if let Some(id) = i32::try_from(process)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    }
}

/// A process with its children.
fn family(process: u32) -> Vec<u32> {
    let mut members = vec![process];
    for thread in threads(process) {
        let path = format!("/proc/{process}/task/{thread}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        members.extend(
            text.split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    members
}

fn threads(process: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten();
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.collect()
}

/// The cores that may be used.
pub fn cores() -> Result<Vec<usize>, String> {
    let allowed = sched_getaffinity(None).map_err(|error| error.to_string())?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect())
}

/// Binds the calling thread, and the threads and processes that it starts, to these cores.
pub fn bind(cores: &[usize]) -> Result<(), String> {
    let mut own = CpuSet::new();
    for core in cores {
        own.set(*core);
    }
    sched_setaffinity(None, &own).map_err(|error| format!("cannot bind to a core: {error}"))
}

//! What the figures depend on, for the record.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

pub struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    memory_kib: u64,
    commit: String,
    rustc: String,
    nginx: Option<String>,
    /// The load average of the last minute when the run began: what others did.
    load: String,
    date: String,
}

impl Machine {
    pub fn describe(cores: usize) -> Machine {
        let system = rustix::system::uname();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find(|line| line.starts_with("model name"));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            kernel: system.release().to_string_lossy().into_owned(),
            cpu: cpu
                .and_then(|line| line.split(": ").nth(1))
                .unwrap_or("unknown")
                .to_owned(),
            cores,
            memory_kib: memory.unwrap_or(0),
            commit: said_by("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            rustc: said_by("rustc", &["--version"]),
            nginx: crate::nginx::version(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            date: said_by("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
        }
    }

    pub fn line(&self) -> String {
        let nginx = self.nginx.as_deref().unwrap_or("not installed");
        format!(
            "Linux {}, {} cores of {}, {}, nginx {nginx}, commit {}, load {} at the start",
            self.kernel, self.cores, self.cpu, self.rustc, self.commit, self.load
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_kib": self.memory_kib,
            "commit": self.commit,
            "rustc": self.rustc,
            "nginx": self.nginx,
            "load_at_start": self.load,
            "date": self.date,
        })
    }
}

/// The first line of what a program prints.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

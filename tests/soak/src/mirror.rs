//! The mirror as a child process, and what the kernel says about it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

pub const IN_KEY: &str = "0123456789abcdef0123456789abcdef";
const OUT_KEYS: [&str; 2] = [
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
];

/// How many descriptors this process and the mirror may want.
const DESCRIPTORS: u64 = 65_536;

/// A running mirror; killed when dropped.
pub struct Mirror {
    pub address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    lines: mpsc::Receiver<String>,
    config: PathBuf,
}

/// What it holds at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub resident_bytes: usize,
    pub descriptors: usize,
    pub threads: usize,
}

/// Lets this process and its child have many descriptors, as far as the system allows.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map(|maximum| maximum.max(DESCRIPTORS));
    let set = |current| {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current,
                maximum: current,
            },
        )
    };
    if set(wanted).is_err() {
        let _ = set(limit.maximum);
    }
}

/// The descriptors that this process may have.
pub fn descriptor_limit() -> usize {
    let current = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS);
    usize::try_from(current).unwrap_or(usize::MAX)
}

impl Mirror {
    /// Starts the release binary with these upstreams and with `extra` in its configuration.
    pub fn start(upstreams: [SocketAddr; 2], extra: &str) -> Result<Mirror, String> {
        let binary =
            std::env::var("SENTRY_MIRROR_BIN").map_err(|_| "SENTRY_MIRROR_BIN is not set")?;
        let list: String = OUT_KEYS
            .iter()
            .zip(upstreams)
            .map(|(key, upstream)| format!("      - http://{key}@{upstream}/1\n"))
            .collect();
        let text = format!(
            "ip: 127.0.0.1\nport: 0\nadmin: {{port: 0}}\n{extra}\nkeys:\n  - inbound: http://{IN_KEY}@mirror/42\n    outbound:\n{list}"
        );
        let config = std::env::temp_dir().join(format!("soak-{}.yml", std::process::id()));
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let mut child = Command::new(&binary)
            .arg("-c")
            .arg(&config)
            // It would take it for a key of its configuration.
            .env_remove("SENTRY_MIRROR_BIN")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {binary}: {error}"))?;
        let stderr = child.stderr.take().ok_or("no pipe")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains(" WARN ") || line.contains(" ERROR ") {
                    println!("{line}");
                }
                let _ = sender.send(line);
            }
        });
        let mut mirror = Mirror {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            lines,
            config,
        };
        // Different threads write these lines, in any order.
        while mirror.address.port() == 0 || mirror.admin.port() == 0 {
            let line = mirror.await_line("")?;
            mirror.admin = address(&line, "status page at http://").unwrap_or(mirror.admin);
            mirror.address = address(&line, "listening on ").unwrap_or(mirror.address);
        }
        Ok(mirror)
    }

    /// The items that it has counted as delivered to an upstream, by category; or a fault if it has counted others.
    pub fn delivered_items(&self, upstream: SocketAddr) -> Result<BTreeMap<String, usize>, String> {
        let metrics = self.metrics().map_err(|error| error.to_string())?;
        let mut delivered = BTreeMap::new();
        for line in metrics.lines() {
            let Some(line) = line.strip_prefix("sentry_mirror_items_total{") else {
                continue;
            };
            let (labels, value) = line.rsplit_once("} ").ok_or("no labels")?;
            let count: usize = value.parse().map_err(|_| line.to_owned())?;
            if count == 0 || !labels.contains(&format!("@{upstream}/")) {
                continue;
            }
            if !labels.contains("outcome=\"delivered\"") {
                return Err(format!("not delivered: {line}"));
            }
            let (_, rest) = labels.split_once("category=\"").ok_or("no category")?;
            let (category, _) = rest.split_once('"').ok_or("no category")?;
            delivered.insert(category.to_owned(), count);
        }
        Ok(delivered)
    }

    fn metrics(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        // Without chunks, the body ends with the connection.
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub fn sample(&self) -> Sample {
        let number = |name: &str| self.status(name).unwrap_or_default();
        let folder = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        Sample {
            resident_bytes: number("VmRSS:") * 1024,
            descriptors: folder.map_or(0, Iterator::count),
            threads: number("Threads:"),
        }
    }

    /// The most memory it has ever had.
    pub fn peak_bytes(&self) -> usize {
        self.status("VmHWM:").unwrap_or_default() * 1024
    }

    fn status(&self, name: &str) -> Option<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Tells it to stop, and gives its totals.
    pub fn stop(mut self) -> Result<String, String> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.ok_or("no process")?, Signal::TERM).map_err(|error| error.to_string())?;
        let totals = self.await_line("stopped: ")?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("it ended with {status}"));
        }
        let totals = totals.split("stopped: ").nth(1).unwrap_or_default();
        Ok(totals.to_owned())
    }

    fn await_line(&self, text: &str) -> Result<String, String> {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(_) => return Err(format!("the mirror does not say {text:?}")),
            }
        }
    }
}

/// The address in `line` that stands after these words.
fn address(line: &str, words: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(words)?;
    rest.split([' ', '/']).next()?.parse().ok()
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

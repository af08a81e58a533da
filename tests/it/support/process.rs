//! The real binary, run as an operator runs it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::{Client, PATIENCE, Response};

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A running mirror; it is killed when dropped.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
    log: Arc<Log>,
    /// Reads the log to its end.
    reader: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grew: Condvar,
}

/// The result of a run that ends by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary with `arguments` to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    let mut command = binary();
    // Cargo's, for the compiler; here it would be an unknown key.
    command.env_remove("SENTRY_MIRROR_VERSION");
    command.args(arguments);
    leave_admin_off(&mut command);
    let output = command.output().expect("the binary runs");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Many mirrors run at a time, and the default admin port is the same for all.
fn leave_admin_off(command: &mut Command) {
    let after_c = command.get_args().skip_while(|argument| *argument != "-c");
    let config = after_c
        .skip(1)
        .find_map(|path| fs::read_to_string(path).ok());
    if !config.is_some_and(|config| config.contains("admin:")) {
        command.env("SENTRY_MIRROR_ADMIN", "off");
    }
}

/// Writes `text` to a new file and gives its path.
pub(crate) fn file(name: &str, text: &str) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    let path = folder.join(name);
    fs::write(&path, text).expect("a temporary file");
    path
}

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sentry-mirror"))
}

/// The reply to one request on a new connection.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Response {
    Client::connect(address).ask(request.as_bytes())
}

impl Process {
    /// Runs the mirror with a configuration and waits until it listens.
    pub(crate) fn start(config: &str) -> Process {
        Process::start_with(config, |_| {})
    }

    /// The same with the file at `path`, which may change.
    pub(crate) fn start_at(path: &Path) -> Process {
        Process::start_with("", |command| {
            *command = binary();
            command.arg("-c").arg(path);
        })
    }

    /// The same, with its standard output going to `stdout`.
    pub(crate) fn start_with_stdout(config: &str, stdout: Stdio) -> Process {
        Process::spawn(config, |_| {}, stdout)
    }

    /// The same, after `adjust` has changed the command.
    pub(crate) fn start_with(config: &str, adjust: impl FnOnce(&mut Command)) -> Process {
        Process::spawn(config, adjust, Stdio::null())
    }

    /// The same, with both.
    pub(crate) fn spawn(config: &str, adjust: impl FnOnce(&mut Command), stdout: Stdio) -> Process {
        let mut command = binary();
        command.arg("-c").arg(file("config.yml", config));
        command.stdin(Stdio::null());
        adjust(&mut command);
        leave_admin_off(&mut command);
        let mut child = command
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stderr = child.stderr.take().expect("a pipe");
        let log = Arc::new(Log::default());
        let written = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                written.lines.lock().expect("unpoisoned").push(line);
                written.grew.notify_all();
            }
        });
        let mut process = Process {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            log,
            reader: Some(reader),
        };
        let line = process.wait_for_line("listening on ");
        let (_, rest) = line.split_once("listening on ").expect("just seen");
        let address = rest.split([' ', '"']).next().expect("an address");
        process.address = address.parse().expect("an address");
        process
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The address of its admin pages, whose port has to be 0 in the configuration.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        let line = self.wait_for_line("status page at http://");
        let (_, rest) = line.split_once("http://").expect("just seen");
        let address = rest.split('/').next().expect("an address");
        address.parse().expect("an address")
    }

    /// A page of the admin port.
    pub(crate) fn page(&self, path: &str) -> Response {
        let request = format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n");
        loop {
            let page = ask(self.admin_address(), &request);
            // It listens a moment before the pages are ready.
            if page.text() != "starting\n" {
                return page;
            }
        }
    }

    /// Its standard output, which has to be a pipe.
    pub(crate) fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("a pipe")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines.lock().expect("unpoisoned").clone()
    }

    /// Waits for a log line that contains `text`.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_lines(text, 1).remove(0)
    }

    /// Waits for `count` log lines that contain `text`.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> Vec<String> {
        self.wait_for_lines_with_any(&[text], count)
    }

    /// Waits for `count` log lines that contain any of `texts`.
    pub(crate) fn wait_for_lines_with_any(&self, texts: &[&str], count: usize) -> Vec<String> {
        let found = |lines: &Vec<String>| -> Vec<String> {
            let is_found = |line: &&String| texts.iter().any(|text| line.contains(text));
            lines.iter().filter(is_found).cloned().collect()
        };
        let lines = self.log.lines.lock().expect("unpoisoned");
        let (lines, _) = self
            .log
            .grew
            .wait_timeout_while(lines, PATIENCE, |lines| found(lines).len() < count)
            .expect("unpoisoned");
        let matching = found(&lines);
        assert!(
            matching.len() >= count,
            "{} of {count} lines with any of {texts:?} in the log:\n{}",
            matching.len(),
            lines.join("\n")
        );
        matching
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many io_uring rings it has open.
    pub(crate) fn rings(&self) -> usize {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.id())).expect("it runs");
        let targets = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let is_ring = |target: &PathBuf| target.to_string_lossy().contains("io_uring");
        targets.filter(is_ring).count()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let (sender, ended) = std::sync::mpsc::channel();
        let id = self.child.id();
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            let status = self.child.wait();
            if let Some(reader) = self.reader.take() {
                reader.join().expect("the log is read");
            }
            let _ = sender.send(status);
        });
        match ended.recv_timeout(PATIENCE) {
            Ok(status) => {
                let lines = log.lines.lock().expect("unpoisoned").clone();
                (status.expect("a status"), lines)
            }
            Err(_) => panic!("process {id} does not end"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! `sentry-mirror health`: asks the running mirror whether it is well.
//!
//! It is for container engines, whose checks are commands inside of an image that has neither a shell
//! nor an HTTP client. It asks over the network, as an SDK would. The configuration says where, and
//! nothing else of it matters: a mirror goes on serving whatever became of its file. Where nobody
//! answers there, because the file is gone, names another port by now, or leaves the port to the kernel,
//! the process that runs with the file is looked for in `/proc`, and asked at the addresses it listens
//! on.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, all_processes};

use crate::cli::{Arguments, CONFIG_DEFAULT};
use crate::config::{Config, Source};

/// How long to wait for the connection, for each write and for each read.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much of an answer is read; a status line is much shorter.
const LINE_BYTES_MAX: u64 = 1024;

/// What to ask: what a Relay asks its upstream. The admin port, which says nothing about the workers,
/// does not know it.
const QUESTION: &str =
    "GET /api/0/relays/live/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// How an answer begins that says that all is well.
const WELL: &[u8] = b"HTTP/1.1 200 ";

/// What was found out.
#[derive(Debug)]
pub(crate) struct Health {
    /// What is wrong with the configuration as it is now, one line each.
    pub complaints: Vec<String>,
    /// How the running mirror is: what is wrong with it, or that there is none, in words for an operator.
    pub mirror: Result<(), String>,
}

/// Asks the mirror that runs with the configuration at `path`. Without a path that is `config.yml`, or,
/// where there is no such file, the configuration of the only mirror that runs here.
pub(crate) fn ask(path: Option<&Path>, env: &[(String, String)]) -> Health {
    let path = match path {
        Some(path) => path.to_owned(),
        None => usual_path(),
    };
    let source = Source::read(&path);
    let errors = Config::from_source(&source, env.iter().cloned()).err();
    let mut complaints = errors.map_or(Vec::new(), |errors| errors.messages().to_vec());
    let told = Config::listen_address(&source, env).map(reachable);
    let at_told = match told {
        Some(place) => ask_at(place),
        None => Err(format!(
            "no mirror is running with {}, which does not say where to ask",
            path.display()
        )),
    };
    let Err(problem) = at_told else {
        return Health {
            complaints,
            mirror: Ok(()),
        };
    };
    let mirror = match ask_process(&path, told) {
        Some(Ok(place)) => {
            if let Some(told) = told {
                complaints.push(format!(
                    "{} says {told}, and the running mirror listens on {place}: ip and port change only with a restart",
                    path.display()
                ));
            }
            Ok(())
        }
        Some(Err(problem)) => Err(problem),
        None => Err(problem),
    };
    Health { complaints, mirror }
}

/// Asks the process that runs with the configuration at `path` and does not listen on `asked`, and gives
/// the address at which it says that all is well. `None` where there is no such process.
fn ask_process(path: &Path, asked: Option<SocketAddr>) -> Option<Result<SocketAddr, String>> {
    let path = absolute(path);
    let mut problems = Vec::new();
    for mirror in running_mirrors().filter(|mirror| is_same_file(&mirror.config, &path)) {
        let places: Vec<_> = mirror.listening().into_iter().map(reachable).collect();
        if asked.is_some_and(|asked| places.contains(&asked)) {
            continue;
        }
        for place in places {
            match ask_at(place) {
                Ok(()) => return Some(Ok(place)),
                Err(problem) => problems.push(problem),
            }
        }
    }
    (!problems.is_empty()).then(|| Err(problems.join("; ")))
}

/// Asks the mirror that listens on `place`.
fn ask_at(place: SocketAddr) -> Result<(), String> {
    let line = exchange(place).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => format!("no answer from {place} within {PATIENCE:?}"),
        _ => format!("no answer from {place}: {error}"),
    })?;
    if line.starts_with(WELL) {
        return Ok(());
    }
    let line = String::from_utf8_lossy(line.trim_ascii_end());
    Err(format!(
        "the mirror at {place} answers {line:?} instead of 200"
    ))
}

/// Where to ask what listens on `address`: if that is all addresses, on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The first line of the answer.
fn exchange(place: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&place, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(QUESTION.as_bytes())?;
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)?;
    Ok(line)
}

/// A mirror that runs in the same network, and sees the same files, as this process.
struct Running {
    process: Process,
    /// The file that it reads.
    config: PathBuf,
}

/// The mirrors of which `/proc` tells. Those of other users, and those in other containers, are not
/// among them.
fn running_mirrors() -> impl Iterator<Item = Running> {
    let processes = all_processes().into_iter().flatten().flatten();
    let here = Process::myself().ok();
    processes.filter_map(move |process| Running::new(process, here.as_ref()?))
}

impl Running {
    /// `process`, if it is a mirror beside `here`.
    fn new(process: Process, here: &Process) -> Option<Running> {
        let is_other = process.pid() != here.pid();
        if !is_other || program(&process)? != program(here)? || !is_beside(&process, here) {
            return None;
        }
        let words = process.cmdline().ok()?;
        let arguments = Arguments::from_words(words.into_iter().map(Into::into).collect()).ok()?;
        let is_mirror = arguments.command.is_none() && !arguments.check;
        let config = process.cwd().ok()?.join(arguments.config);
        is_mirror.then_some(Running { process, config })
    }

    /// The addresses that it listens on: that for SDKs, and that of the admin pages.
    fn listening(&self) -> Vec<SocketAddr> {
        let tables = [self.process.tcp(), self.process.tcp6()];
        let sockets = tables.into_iter().flatten().flatten();
        let mut listening: Vec<_> = sockets
            .filter(|socket| socket.state == TcpState::Listen)
            .collect();
        let descriptors = self.process.fd().into_iter().flatten().flatten();
        let own: HashSet<u64> = descriptors
            .filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })
            .collect();
        listening.retain(|socket| own.contains(&socket.inode));
        listening
            .iter()
            .map(|socket| socket.local_address)
            .collect()
    }
}

/// The name of the program that `process` runs. Where the file was replaced meanwhile, its path ends in
/// ` (deleted)`.
fn program(process: &Process) -> Option<String> {
    let path = process.exe().ok()?;
    let name = path.file_name().and_then(OsStr::to_str)?;
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

/// Whether `process` is in the same network and sees the same files as `here`.
fn is_beside(process: &Process, here: &Process) -> bool {
    let of = |process: &Process, name: &str| {
        let namespaces = process.namespaces().ok()?;
        let namespace = namespaces.0.get(OsStr::new(name))?;
        Some((namespace.device_id, namespace.identifier))
    };
    ["net", "mnt"]
        .into_iter()
        .all(|name| of(process, name).is_some() && of(process, name) == of(here, name))
}

/// The file that is meant where none is named.
fn usual_path() -> PathBuf {
    let usual = PathBuf::from(CONFIG_DEFAULT);
    if usual.exists() {
        return usual;
    }
    let mut running = running_mirrors();
    match (running.next(), running.next()) {
        (Some(only), None) => only.config,
        _ => usual,
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether two absolute paths lead to the same file, or would if it were there.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let components = |path: &Path| path.components().collect::<PathBuf>();
    let (one, other) = (components(one), components(other));
    one == other
        || matches!(
            (one.canonicalize(), other.canonicalize()),
            (Ok(one), Ok(other)) if one == other
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_the_loopback() {
        let at = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:7"), "127.0.0.1:7");
        assert_eq!(at("[::]:7"), "[::1]:7");
        assert_eq!(at("192.0.2.1:7"), "192.0.2.1:7");
    }

    #[test]
    fn a_path_is_compared_as_a_whole() {
        let same = |one: &str, other: &str| is_same_file(Path::new(one), Path::new(other));
        assert!(same("/no/such/./config.yml", "/no/such/config.yml"));
        assert!(!same("/no/such/config.yml", "/no/other/config.yml"));
    }
}

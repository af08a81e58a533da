//! `sentry-mirror health`: checks whether the running mirror is healthy.
//!
//! It is for container engines, whose health checks are commands in an image that has neither a shell nor
//! an HTTP client. It sends a request over the network, as an SDK would. Only the address is read from the
//! configuration: a mirror keeps serving when its file is broken. If nothing answers at that address,
//! because the file is missing, has another port by now, or lets the kernel choose the port, the process
//! that runs with the file is searched for in `/proc` and asked at the addresses on which it listens.

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

/// The timeout for connecting, for each write and for each read.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum length of a status line.
const LINE_BYTES_MAX: u64 = 1024;

/// The health check that a Relay sends to its upstream. The admin port, which says nothing about the
/// workers, does not have this path.
const REQUEST: &str =
    "GET /api/0/relays/live/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The start of the response of a healthy mirror.
const HEALTHY: &[u8] = b"HTTP/1.1 200 ";

#[derive(Debug)]
pub(crate) struct Health {
    /// Problems of the configuration, which do not affect the result.
    pub warnings: Vec<String>,
    /// Whether the running mirror is healthy, or why it is not, for an operator.
    pub mirror: Result<(), String>,
}

/// Checks the mirror that runs with the configuration at `path`. The default is `config.yml`, or, if there is
/// no such file, the configuration of the only running mirror.
pub(crate) fn check(path: Option<&Path>, env: &[(String, String)]) -> Health {
    let path = match path {
        Some(path) => path.to_owned(),
        None => default_path(),
    };
    let source = Source::read(&path);
    let errors = Config::from_source(&source, env.iter().cloned()).err();
    let mut warnings = errors.map_or(Vec::new(), |errors| errors.messages().to_vec());
    let configured = Config::listen_address(&source, env).map(reachable);
    let result = match configured {
        Some(address) => check_address(address),
        None => Err(format!(
            "no mirror is running with {}, and the file does not give an address",
            path.display()
        )),
    };
    let Err(problem) = result else {
        return Health {
            warnings,
            mirror: Ok(()),
        };
    };
    let mirror = match check_process(&path, configured) {
        Some(Ok(address)) => {
            if let Some(configured) = configured {
                warnings.push(format!(
                    "{} has {configured}, but the running mirror listens on {address}: changes of ip and port need a restart",
                    path.display()
                ));
            }
            Ok(())
        }
        Some(Err(problem)) => Err(problem),
        None => Err(problem),
    };
    Health { warnings, mirror }
}

/// Checks the process that runs with the configuration at `path` but does not listen on `tried`. Returns the
/// address at which it is healthy, or `None` if there is no such process.
fn check_process(path: &Path, tried: Option<SocketAddr>) -> Option<Result<SocketAddr, String>> {
    let path = absolute(path);
    let mut problems = Vec::new();
    for mirror in running_mirrors().filter(|mirror| is_same_file(&mirror.config, &path)) {
        let addresses: Vec<_> = mirror.listening().into_iter().map(reachable).collect();
        if tried.is_some_and(|tried| addresses.contains(&tried)) {
            continue;
        }
        for address in addresses {
            match check_address(address) {
                Ok(()) => return Some(Ok(address)),
                Err(problem) => problems.push(problem),
            }
        }
    }
    (!problems.is_empty()).then(|| Err(problems.join("; ")))
}

/// Checks the mirror that listens on `address`.
fn check_address(address: SocketAddr) -> Result<(), String> {
    let line = exchange(address).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => format!("no answer from {address} within {TIMEOUT:?}"),
        _ => format!("no answer from {address}: {error}"),
    })?;
    if line.starts_with(HEALTHY) {
        return Ok(());
    }
    let line = String::from_utf8_lossy(line.trim_ascii_end());
    Err(format!(
        "the mirror at {address} answered {line:?} instead of 200"
    ))
}

/// The address at which to reach a listener on `address`: the loopback if it listens on all addresses.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Sends the request and returns the status line.
fn exchange(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)?;
    Ok(line)
}

/// A running mirror in the same network and mount namespace as this process.
struct Running {
    process: Process,
    /// The absolute path of its configuration.
    config: PathBuf,
}

/// The mirrors visible in `/proc`. Those of other users or in other containers are not.
fn running_mirrors() -> impl Iterator<Item = Running> {
    let processes = all_processes().into_iter().flatten().flatten();
    let here = Process::myself().ok();
    processes.filter_map(move |process| Running::new(process, here.as_ref()?))
}

impl Running {
    /// `process`, if it is a mirror in the namespaces of `here`.
    fn new(process: Process, here: &Process) -> Option<Running> {
        let is_other = process.pid() != here.pid();
        if !is_other || program(&process)? != program(here)? || !shares_namespaces(&process, here) {
            return None;
        }
        let words = process.cmdline().ok()?;
        let arguments = Arguments::from_words(words.into_iter().map(Into::into).collect()).ok()?;
        let is_mirror = arguments.command.is_none() && !arguments.check;
        let config = process.cwd().ok()?.join(arguments.config);
        is_mirror.then_some(Running { process, config })
    }

    /// The addresses that it listens on: the port for SDKs and the admin port.
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

/// The file name of the program that `process` runs. If the file has been replaced, the kernel appends
/// ` (deleted)` to its path.
fn program(process: &Process) -> Option<String> {
    let path = process.exe().ok()?;
    let name = path.file_name().and_then(OsStr::to_str)?;
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

/// Whether both processes have the same network and mount namespace.
fn shares_namespaces(process: &Process, here: &Process) -> bool {
    let namespace = |process: &Process, name: &str| {
        let namespaces = process.namespaces().ok()?;
        let found = namespaces.0.get(OsStr::new(name))?;
        Some((found.device_id, found.identifier))
    };
    ["net", "mnt"]
        .into_iter()
        .all(|name| namespace(process, name).is_some_and(|id| namespace(here, name) == Some(id)))
}

/// The file to use if none is given.
fn default_path() -> PathBuf {
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

/// Whether two absolute paths name the same file, which need not exist.
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
    fn a_listener_on_all_addresses_is_checked_on_the_loopback() {
        let at = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:7"), "127.0.0.1:7");
        assert_eq!(at("[::]:7"), "[::1]:7");
        assert_eq!(at("192.0.2.1:7"), "192.0.2.1:7");
    }

    #[test]
    fn paths_are_compared_by_their_components() {
        let same = |one: &str, other: &str| is_same_file(Path::new(one), Path::new(other));
        assert!(same("/no/such/./config.yml", "/no/such/config.yml"));
        assert!(!same("/no/such/config.yml", "/no/other/config.yml"));
    }
}

//! `sentry-mirror health`: asks the mirror that runs with the same configuration whether it is well.
//!
//! It is for container engines, whose checks are commands inside of an image that has neither a shell
//! nor an HTTP client. It asks as an SDK would, over the network, and knows nothing of the process
//! but where it listens; a mirror that listens on all addresses is asked on the loopback.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::Config;

/// How long to wait for the connection, for each write and for each read.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much of an answer is read; a status line is much shorter.
const LINE_BYTES_MAX: u64 = 1024;

/// What to ask. This and [`place`] are all that this file knows of the mirror.
const QUESTION: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// How an answer begins that says that all is well.
const WELL: &[u8] = b"HTTP/1.1 200 ";

/// Asks the mirror that runs with `config`.
///
/// # Errors
/// It is not well, or there is none, in words for an operator.
pub fn ask(config: &Config) -> Result<(), String> {
    let place = place(config);
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

/// Where to ask.
fn place(config: &Config) -> SocketAddr {
    let ip = match config.ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, config.port)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_the_loopback() {
        let at = |ip: &str| {
            let text = format!(
                "ip: '{ip}'\nport: 7\nkeys: [{{inbound: http://{0}@m/1, outbound: [http://{0}@o/2]}}]",
                "0".repeat(32)
            );
            let config = Config::parse(&text, "config.yml", std::iter::empty()).unwrap();
            place(&config).to_string()
        };
        assert_eq!(at("0.0.0.0"), "127.0.0.1:7");
        assert_eq!(at("::"), "[::1]:7");
        assert_eq!(at("192.0.2.1"), "192.0.2.1:7");
    }
}

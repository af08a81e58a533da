//! A tunnel through an HTTP proxy (RFC 9110 section 9.3.6).

use std::io;

use bytes::BytesMut;
use monoio::net::TcpStream;

use crate::http::head::{HeadError, Parsed};
use crate::http::response::ResponseHead;
use crate::net::socket::{read_some, write_all};
use crate::sentry::dsn::Origin;
use crate::upstream::origin::SharedOrigin;

/// The most bytes of the proxy's response head. Its body, the page with an error, is not read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Opens a tunnel to `origin` over `stream`, a connection to the proxy.
///
/// # Errors
/// What the proxy did, as a predicate.
pub(super) async fn open(
    mut stream: TcpStream,
    origin: &Origin,
    authorization: Option<&str>,
) -> Result<TcpStream, String> {
    let request = request(origin, authorization);
    let failed = |error: io::Error| format!("broke the connection: {error}");
    let (sent, _) = write_all(&mut stream, request.into_bytes()).await;
    sent.map_err(failed)?;
    let mut buffer = BytesMut::new();
    loop {
        let (count, read) = read_some(&mut stream, buffer, HEAD_BYTES_MAX).await;
        buffer = read;
        if count.map_err(failed)? == 0 {
            return Err("closed the connection before it answered CONNECT".to_owned());
        }
        if is_open(&buffer)? {
            return Ok(stream);
        }
    }
}

/// The request for a tunnel; `None` where none is needed.
pub(crate) fn connect_request(shared: &SharedOrigin) -> Option<String> {
    let proxy = shared.proxy().filter(|_| shared.tls.is_some())?;
    Some(request(&shared.origin, proxy.authorization().as_deref()))
}

fn request(origin: &Origin, authorization: Option<&str>) -> String {
    let host = match origin.host.contains(':') {
        true => format!("[{}]:{}", origin.host, origin.port),
        false => format!("{}:{}", origin.host, origin.port),
    };
    let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n"));
    let authorization = authorization.unwrap_or_default();
    format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n")
}

/// Whether `received` is a success. `false` while it is not complete.
fn is_open(received: &[u8]) -> Result<bool, String> {
    let mut head = ResponseHead::default();
    match head.parse(received, HEAD_BYTES_MAX) {
        Ok(Parsed::Partial) => return Ok(false),
        Ok(Parsed::Complete) => {}
        Err(HeadError::TooLarge | HeadError::TooManyHeaders) => {
            return Err("answered CONNECT with a head of more than 16 KiB or 256 lines".to_owned());
        }
        Err(_) => return Err("answered CONNECT with something else than HTTP".to_owned()),
    }
    match head.status {
        // Framing fields of a success are ignored (RFC 9110 section 9.3.6). The server speaks only after the
        // mirror.
        200..300 if head.len == received.len() => Ok(true),
        200..300 => Err("sent data before the mirror did".to_owned()),
        // tinyproxy 1.11 answers 401 to wrong credentials, and 407 only where there are none.
        status @ (401 | 407) => Err(refusal(
            status,
            "it wants other credentials; see the key proxy",
        )),
        status => Err(refusal(status, "it does not connect to the server")),
    }
}

/// Describes a refusal by the proxy: its status, and what that means.
pub(super) fn refusal(status: u16, meaning: &str) -> String {
    format!("answered {status}: {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentry::dsn::Scheme;

    #[test]
    fn the_request_names_the_server_with_its_port() {
        let origin = |host: &str, port| Origin {
            scheme: Scheme::Https,
            host: host.to_owned(),
            port,
        };
        assert_eq!(
            request(&origin("o.example", 443), None),
            "CONNECT o.example:443 HTTP/1.1\r\nHost: o.example:443\r\n\r\n"
        );
        assert_eq!(
            request(&origin("::1", 8443), Some("Basic eDp5")),
            "CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
        );
    }

    #[test]
    fn only_a_success_without_data_opens_a_tunnel() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        let many = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(300));
        for (received, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Ok(true)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(true)),
            ("HTTP/1.1 200 OK\r\n", Ok(false)),
            ("", Ok(false)),
            ("HTTP/1.1 200 OK\r\n\r\nx", Err("sent data")),
            (
                "HTTP/1.1 407 X\r\n\r\n",
                Err("answered 407: it wants other credentials"),
            ),
            (
                "HTTP/1.1 401 X\r\n\r\n",
                Err("answered 401: it wants other credentials"),
            ),
            (
                "HTTP/1.1 403 X\r\nContent-Length: 5\r\n\r\nno",
                Err("answered 403"),
            ),
            (
                "HTTP/1.1 502 X\r\n\r\n",
                Err("answered 502: it does not connect"),
            ),
            ("SSH-2.0-x\r\n", Err("something else than HTTP")),
            (long.as_str(), Err("more than 16 KiB")),
            (many.as_str(), Err("or 256 lines")),
        ] {
            match (is_open(received.as_bytes()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{received}"),
                (Err(found), Err(words)) => assert!(found.contains(words), "{found}"),
                (found, _) => panic!("{received:.50}: {found:?}"),
            }
        }
    }
}

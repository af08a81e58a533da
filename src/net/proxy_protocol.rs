//! The header with which a proxy tells for whom it opens a connection: the PROXY protocol, versions 1 and 2.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. The header comes before anything else, and exactly
//! once. A proxy that connects for itself, for example to check the health, sends `UNKNOWN` (version 1) or the
//! command `LOCAL` (version 2), and then the connection's own address counts. Addresses of other families count as
//! unknown, too. Extensions (TLVs) are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, with its line end.
const LINE_BYTES_MAX: usize = 107;

/// The longest header that is accepted. Version 2 allows 64 KiB of extensions; the largest that proxies send are the
/// names and hashes of a TLS client certificate, some hundred bytes.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;

/// How a header of version 2 begins. Version 1 begins with `PROXY `.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, and the length of the rest.
const FIXED_BYTES: usize = 16;

/// How much of a header has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Partial,
    Complete {
        length: usize,
        /// The client's address; `None` if the header names none.
        source: Option<SocketAddr>,
    },
}

/// This is no header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Parses the header at the start of `received`.
///
/// # Errors
/// What has arrived cannot become a header, or one that is too long.
pub fn parse(received: &[u8]) -> Result<Header, Malformed> {
    let common = |start: &[u8]| {
        let length = received.len().min(start.len());
        received.get(..length) == start.get(..length)
    };
    if common(&SIGNATURE) {
        version_2(received)
    } else if common(b"PROXY ") {
        version_1(received)
    } else {
        Err(Malformed)
    }
}

fn version_1(received: &[u8]) -> Result<Header, Malformed> {
    let start = received.get(..LINE_BYTES_MAX).unwrap_or(received);
    let Some(end) = memchr::memchr(b'\n', start) else {
        return match received.len() < LINE_BYTES_MAX {
            true => Ok(Header::Partial),
            false => Err(Malformed),
        };
    };
    let line = received.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").ok_or(Malformed)?;
    let line = str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = line.split(' ');
    let is_v6 = match (words.next(), words.next()) {
        (Some("PROXY"), Some("TCP4")) => false,
        (Some("PROXY"), Some("TCP6")) => true,
        // Whatever follows has to be ignored.
        (Some("PROXY"), Some("UNKNOWN")) => {
            return Ok(Header::Complete {
                length: end + 1,
                source: None,
            });
        }
        _ => return Err(Malformed),
    };
    let mut ip = || -> Result<IpAddr, Malformed> {
        let ip: IpAddr = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or(Malformed)?;
        (ip.is_ipv6() == is_v6).then_some(ip).ok_or(Malformed)
    };
    let (source, _destination) = (ip()?, ip()?);
    let mut port = || -> Result<u16, Malformed> {
        let word = words.next().ok_or(Malformed)?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let port = word.parse().ok().filter(|_| is_number);
        port.ok_or(Malformed)
    };
    let (source_port, _destination) = (port()?, port()?);
    match words.next() {
        None => Ok(Header::Complete {
            length: end + 1,
            source: Some(SocketAddr::new(source, source_port)),
        }),
        Some(_) => Err(Malformed),
    }
}

fn version_2(received: &[u8]) -> Result<Header, Malformed> {
    let Some(fixed) = received.first_chunk::<FIXED_BYTES>() else {
        // The version can be wrong already.
        return match received.get(SIGNATURE.len()) {
            Some(0x20 | 0x21) | None => Ok(Header::Partial),
            Some(_) => Err(Malformed),
        };
    };
    let [.., command, family, high, low] = *fixed;
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    if length > HEADER_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(rest) = received.get(FIXED_BYTES..length) else {
        return Ok(Header::Partial);
    };
    let source = match family >> 4 {
        _ if is_local => None,
        1 => {
            let addresses = rest.first_chunk::<12>().ok_or(Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        2 => {
            let addresses = rest.first_chunk::<36>().ok_or(Malformed)?;
            let ip = addresses.first_chunk::<16>().ok_or(Malformed)?;
            let [high, low] = [addresses[32], addresses[33]];
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), port))
        }
        // Unspecified, or sockets in the file system of the proxy.
        0 | 3 => None,
        _ => return Err(Malformed),
    };
    Ok(Header::Complete { length, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2 with this command, family and rest.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn addresses_v4() -> Vec<u8> {
        [
            &[203, 0, 113, 9, 10, 0, 0, 1][..],
            &4711_u16.to_be_bytes(),
            &443_u16.to_be_bytes(),
        ]
        .concat()
    }

    fn addresses_v6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let ports = [4711_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
        [&source.octets()[..], &[0; 16], &ports].concat()
    }

    /// Asserts that a header is complete only with its last byte, and that what follows does not matter.
    #[track_caller]
    fn check(header: &[u8], source: Option<&str>) {
        for length in 0..header.len() {
            assert_eq!(parse(&header[..length]), Ok(Header::Partial), "{length}");
        }
        let expected = Ok(Header::Complete {
            length: header.len(),
            source: source.map(|source| source.parse().unwrap()),
        });
        assert_eq!(parse(header), expected);
        for rest in [&b"GET / HTTP/1.1\r\n\r\n"[..], header] {
            assert_eq!(parse(&[header, rest].concat()), expected);
        }
    }

    #[test]
    fn headers_of_version_1_name_the_client() {
        for (line, source) in [
            (
                "PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n",
                Some("203.0.113.9:4711"),
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                Some("255.255.255.255:65535"),
            ),
            (
                "PROXY TCP6 2001:db8::9 ::1 0 443\r\n",
                Some("[2001:db8::9]:0"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            (
                "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
                None,
            ),
        ] {
            check(line.as_bytes(), source);
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 16));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        check(longest.as_bytes(), None);
    }

    #[test]
    fn headers_of_version_2_name_the_client_and_may_have_extensions() {
        let extension = [0x04, 0, 3, b'a', b'b', b'c'];
        let many = vec![0x04; HEADER_BYTES_MAX - FIXED_BYTES - 12];
        for family in [0x11, 0x12] {
            check(&v2(0x21, family, &addresses_v4()), Some("203.0.113.9:4711"));
        }
        check(
            &v2(0x21, 0x11, &[addresses_v4(), extension.to_vec()].concat()),
            Some("203.0.113.9:4711"),
        );
        check(
            &v2(0x21, 0x21, &[addresses_v6(), extension.to_vec()].concat()),
            Some("[2001:db8::9]:4711"),
        );
        check(
            &v2(0x21, 0x11, &[addresses_v4(), many].concat()),
            Some("203.0.113.9:4711"),
        );
        // The proxy itself, and addresses that mean nothing here.
        check(&v2(0x20, 0x00, b""), None);
        check(&v2(0x20, 0x11, &addresses_v4()), None);
        check(&v2(0x20, 0x99, b"x"), None);
        check(&v2(0x21, 0x00, &extension), None);
        check(&v2(0x21, 0x31, &[0; 216]), None);
    }

    #[test]
    fn anything_else_is_refused_as_soon_as_it_shows() {
        let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 15));
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "P ",
            "PROXX",
            "proxy TCP4",
            "\r\n\r\n\r",
            "PROXY\r\n",
            "PROXY TCP5 203.0.113.9 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 1 2\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 1\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 1 2 3\r\n",
            "PROXY TCP4  203.0.113.9 10.0.0.1 1 2\r\n",
            "PROXY TCP4 2001:db8::9 10.0.0.1 1 2\r\n",
            "PROXY TCP6 203.0.113.9 ::1 1 2\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 65536 2\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +1 2\r\n",
            "PROXY TCP4 203.0.113.999 10.0.0.1 1 2\r\n",
            &too_long,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text:?}");
        }
        for header in [
            v2(0x11, 0x11, &addresses_v4()),
            v2(0x22, 0x11, &addresses_v4()),
            v2(0x21, 0x41, &addresses_v4()),
            v2(0x21, 0x11, &addresses_v4()[..11]),
            v2(0x21, 0x21, &addresses_v6()[..35]),
            v2(0x21, 0x11, &vec![0; HEADER_BYTES_MAX]),
        ] {
            assert_eq!(parse(&header), Err(Malformed), "{header:?}");
        }
        // The version is wrong before the header is complete.
        assert_eq!(parse(&v2(0x31, 0, b"")[..13]), Err(Malformed));
    }
}

//! What went wrong with TLS, in words that say what an operator can do about it.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use crate::observe::words;

/// How many of the names in a certificate are told; some have hundreds.
const NAMES_MAX: usize = 5;

/// How much of each; a name of DNS has 253.
const NAME_BYTES_MAX: usize = 253;

/// An error of a handshake in words about the server at `address`. What is no failure of TLS stays as it
/// is.
pub(super) fn in_handshake(error: io::Error, address: SocketAddr) -> io::Error {
    let words = match (tls(&error), error.kind()) {
        (Some(error), _) => words(error),
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "closed the connection during the TLS handshake; does it speak TLS on this port?"
                .to_owned()
        }
        (None, _) => return error,
    };
    io::Error::new(error.kind(), format!("the server at {address} {words}"))
}

/// The same for an error behind the handshake, where some servers say only then what they want of a
/// client (RFC 8446 section 4.4.2.4).
pub(super) fn later(error: io::Error) -> io::Error {
    match tls(&error) {
        Some(tls) => io::Error::new(error.kind(), format!("the server {}", words(tls))),
        None => error,
    }
}

/// That a server goes on without ever coming to data.
pub(super) fn endless() -> io::Error {
    let words = "the server sends TLS messages, such as session tickets, without end and no data";
    io::Error::new(io::ErrorKind::InvalidData, words)
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What a server did, as the end of a sentence.
fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => about_certificate(error),
        Error::NoCertificatesPresented => "presents no certificate".to_owned(),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload,
        ) => {
            "does not speak TLS on this port; is it the port for http, or should the DSN begin with http://?"
                .to_owned()
        }
        Error::AlertReceived(alert) => about_alert(*alert),
        Error::PeerIncompatible(reason) => format!(
            "has no version of TLS or no cipher suite in common with the mirror, which speaks TLS 1.2 and 1.3 ({reason:?})"
        ),
        Error::PeerMisbehaved(reason) => format!("breaks the TLS protocol ({reason:?})"),
        other => format!("cannot be talked to with TLS: {other}"),
    }
}

fn about_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "has a certificate that is signed by an unknown authority; add the authority's certificate to tls.ca_file, if it is to be trusted, or let the server send the whole chain"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "has a certificate whose signature does not fit; does tls.ca_file hold an older certificate of the same name?"
                .to_owned()
        }
        CertificateError::Other(error) if is_authority(error) => {
            "has a self-signed certificate that is not known; add it to tls.ca_file, if it is to be trusted"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = distance(*not_after, *time);
            format!("has a certificate that expired {ago} ago; renew it, or set this host's clock")
        }
        CertificateError::Expired => "has a certificate that has expired".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let ahead = distance(*time, *not_before);
            format!("has a certificate that is not valid before {ahead} from now; is this host's clock right?")
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            // RFC 9525 section 2: what the subject says is no name of a server any more.
            if presented.is_empty() {
                return format!(
                    "has a certificate without subjectAltName, and the common name of a certificate does not count; make one with `-addext subjectAltName=DNS:{expected}` (IP:… for an address)"
                );
            }
            let names = names(presented);
            format!("has a certificate for {names}, and not for {expected}, which is the host of the DSN")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "has a certificate that is not for servers: its extended key usage lacks serverAuth"
                .to_owned()
        }
        other => format!("has a certificate that cannot be accepted: {other}"),
    }
}

/// Whether a certificate was refused since it is marked as an authority's. rustls has no name for that
/// and passes on the error of its verifier.
fn is_authority(error: &OtherError) -> bool {
    error.0.to_string() == "CaUsedAsEndEntity"
}

fn about_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::HandshakeFailure => {
            "refuses the TLS handshake: it accepts none of the cipher suites of TLS 1.2 and 1.3 that the mirror offers, or it wants something else that the mirror does not have"
                .to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "speaks neither TLS 1.2 nor TLS 1.3, and the mirror nothing older".to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "has no site with the host name of the DSN".to_owned()
        }
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "asks for a client certificate, and the mirror has none".to_owned()
        }
        AlertDescription::NoApplicationProtocol => {
            "does not offer HTTP/1.1 over TLS (ALPN)".to_owned()
        }
        other => format!("broke off TLS with the alert {other:?}"),
    }
}

/// The names that a certificate is for, of which each comes as `DnsName("a.example.com")`.
fn names(presented: &[String]) -> String {
    let mut names = String::new();
    for (index, name) in presented.iter().take(NAMES_MAX).enumerate() {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        let name = inner.unwrap_or(name).trim_matches('"');
        let separator = if index == 0 { "" } else { ", " };
        let name = words::sanitized(name.as_bytes(), NAME_BYTES_MAX, &[]);
        let _ = write!(names, "{separator}{name}");
    }
    if presented.len() > NAMES_MAX {
        let _ = write!(names, " and {} others", presented.len() - NAMES_MAX);
    }
    names
}

/// How long it is from one time to a later one, in days or less.
fn distance(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    let (number, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7_199 => (seconds / 60, "minute"),
        7_200..=172_799 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_as_they_would_be_written_and_not_without_end() {
        let presented = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let two = presented(&["DnsName(\"a.example\")", "IpAddress(192.0.2.1)"]);
        assert_eq!(names(&two), "a.example, 192.0.2.1");
        assert_eq!(
            names(&presented(&["odd"; 7])),
            "odd, odd, odd, odd, odd and 2 others"
        );
    }

    #[test]
    fn distances_are_told_in_the_largest_unit_that_says_enough() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        for (seconds, told) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (600, "10 minutes"),
            (86_400, "24 hours"),
            (86_400 * 30, "30 days"),
        ] {
            assert_eq!(distance(at(10), at(10 + seconds)), told);
        }
        assert_eq!(distance(at(10), at(9)), "0 seconds");
    }

    #[test]
    fn what_is_no_failure_of_tls_stays_as_it_is() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        for explained in [
            |error, address| in_handshake(error, address),
            |error, _| later(error),
        ] {
            let error: io::Error = explained(io::ErrorKind::BrokenPipe.into(), address);
            assert_eq!(error.to_string(), "broken pipe");
        }
    }
}

//! TLS errors as messages that say what an operator can do about them.

use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use crate::telemetry::words;

/// The most names of a certificate in a message; some certificates have hundreds.
const NAMES_MAX: usize = 5;

/// The longest name in a message. A DNS name has at most 253 bytes.
const NAME_BYTES_MAX: usize = 253;

/// Explains an error of a handshake with the server at `address`. Other errors than TLS's stay unchanged.
pub(super) fn in_handshake(error: io::Error, address: SocketAddr) -> io::Error {
    let explanation = match (tls(&error), error.kind()) {
        (Some(error), _) => explain(error),
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "closed the connection during the TLS handshake; does it speak TLS on this port?"
                .to_owned()
        }
        (None, _) => return error,
    };
    io::Error::new(
        error.kind(),
        format!("the server at {address} {explanation}"),
    )
}

/// Explains an error after the handshake. With TLS 1.3, some servers refuse a client only then (RFC 8446
/// section 4.4.2.4).
pub(super) fn after_handshake(error: io::Error) -> io::Error {
    let Some(tls) = tls(&error) else {
        return error;
    };
    let words = format!("the server {}", explain(tls));
    match tls {
        Error::AlertReceived(_) => io::Error::new(error.kind(), Refusal(words)),
        _ => io::Error::new(error.kind(), words),
    }
}

/// The server ended the session by an alert after the handshake, for example over our certificate.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// Whether the error is an alert of the server after the handshake.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Refusal>())
}

/// The error for a server that sends too many TLS messages without data.
pub(super) fn no_data() -> io::Error {
    let words = "the server keeps sending TLS messages without data, such as session tickets";
    io::Error::new(io::ErrorKind::InvalidData, words)
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What the server did, as a predicate.
fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => about_certificate(error),
        Error::NoCertificatesPresented => "presents no certificate".to_owned(),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload,
        ) => "does not speak TLS on this port; if it is the port for HTTP, use http:// in the DSN"
            .to_owned(),
        Error::AlertReceived(alert) => about_alert(*alert),
        Error::PeerIncompatible(reason) => format!(
            "has no TLS version or cipher suite in common with the mirror, which speaks TLS 1.2 and 1.3 ({reason:?})"
        ),
        Error::PeerMisbehaved(reason) => format!("violates the TLS protocol ({reason:?})"),
        other => format!("fails the TLS handshake: {other}"),
    }
}

fn about_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "has a certificate that is signed by an unknown authority; to trust it, add the authority's certificate to tls.ca_file, or let the server send the whole chain"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "has a certificate whose signature is invalid; does tls.ca_file have an older certificate of the same name?"
                .to_owned()
        }
        CertificateError::Other(error) if is_authority(error) => {
            "has an unknown self-signed certificate; to trust it, add it to tls.ca_file"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = distance(*not_after, *time);
            format!("has a certificate that expired {ago} ago; renew it, or correct this host's clock")
        }
        CertificateError::Expired => "has a certificate that has expired".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let ahead = distance(*time, *not_before);
            format!("has a certificate that becomes valid only in {ahead}; is this host's clock right?")
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            // The subject is no longer used as the name of a server (RFC 9525 section 2).
            if presented.is_empty() {
                return format!(
                    "has a certificate without subjectAltName, and the common name does not count; make one with `-addext subjectAltName=DNS:{expected}` (IP:… for an address)"
                );
            }
            let names = names(presented);
            format!("has a certificate for {names}, not for {expected}, which is the host of the DSN")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "has a certificate that is not for servers: its extended key usage lacks serverAuth"
                .to_owned()
        }
        other => format!("has a certificate that cannot be accepted: {other}"),
    }
}

/// Whether a certificate was rejected because it is marked as a certificate authority's. rustls has no error
/// for that and passes on the one of its verifier.
fn is_authority(error: &OtherError) -> bool {
    error.0.to_string() == "CaUsedAsEndEntity"
}

fn about_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::HandshakeFailure => {
            "refuses the TLS handshake: it accepts none of the cipher suites of TLS 1.2 and 1.3 that the mirror offers, or requires something else that the mirror does not have"
                .to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "speaks neither TLS 1.2 nor TLS 1.3, and the mirror speaks nothing older".to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "has no site with the host name of the DSN".to_owned()
        }
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "requires a client certificate, and the mirror has none; see tls.cert_file".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => {
            format!("refuses the client certificate of the mirror, tls.cert_file ({alert:?})")
        }
        AlertDescription::NoApplicationProtocol => {
            "does not offer HTTP/1.1 over TLS (ALPN)".to_owned()
        }
        other => format!("ended TLS with the alert {other:?}"),
    }
}

/// The names in a certificate as a list. rustls presents each as `DnsName("a.example.com")`.
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

/// The time from one point to a later one, in days or a smaller unit.
pub(super) fn distance(from: UnixTime, to: UnixTime) -> String {
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
    fn names_are_shown_without_their_type_and_up_to_a_limit() {
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
    fn distances_have_the_largest_unit_of_which_there_are_at_least_two() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (600, "10 minutes"),
            (86_400, "24 hours"),
            (86_400 * 30, "30 days"),
        ] {
            assert_eq!(distance(at(10), at(10 + seconds)), expected);
        }
        assert_eq!(distance(at(10), at(9)), "0 seconds");
    }

    #[test]
    fn other_errors_stay_unchanged() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        for explain in [
            |error, address| in_handshake(error, address),
            |error, _| after_handshake(error),
        ] {
            let error: io::Error = explain(io::ErrorKind::BrokenPipe.into(), address);
            assert_eq!(error.to_string(), "broken pipe");
        }
    }
}

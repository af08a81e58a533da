//! DSNs, `scheme://key[:secret]@host[:port][/prefix]/project`.
//!
//! A [`Dsn`] comes from the configuration, so parsing is strict and every error says what is valid. Key and secret
//! are limited to `[A-Za-z0-9_-]`: they are inserted unescaped into header lines, JSON strings, URLs and base64
//! credentials. The text of a whole DSN needs no escaping in a JSON string either.
//!
//! In the DSN that an *SDK* wrote into an envelope, only the key counts; see [`key_in_text`].

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use memchr::{memchr, memmem, memrchr};

/// The protocol of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port of a URL without one.
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Scheme, host and port. Pooled connections belong to an origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub scheme: Scheme,
    /// The host in lower case; an IPv6 address in its canonical form, without brackets.
    pub host: String,
    /// The port; the scheme's default if the DSN has none.
    pub port: u16,
}

impl Origin {
    /// The value of the `Host` header: an IPv6 address is in brackets, and the default port is omitted.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        let host = &self.host;
        if self.port == self.scheme.default_port() {
            format!("{open}{host}{close}")
        } else {
            format!("{open}{host}{close}:{}", self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

/// A configured DSN. Two DSNs are equal if they mean the same, even in different spellings.
#[derive(Clone, PartialEq, Eq)]
pub struct Dsn {
    origin: Origin,
    key: String,
    secret: Option<String>,
    prefix: String,
    project: String,
}

impl Dsn {
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The secret, which servers no longer require. An empty one counts as none.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The path before `/api/`: empty, or `/a/b` without a slash at the end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The project id, in its original spelling.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Whether the key has the 32 characters that Relay requires. Other keys are allowed, since documentation uses
    /// words as keys, but cause a warning.
    pub fn has_usual_key(&self) -> bool {
        self.key.len() == 32
    }

    /// The DSN without its secret, which clients may see.
    pub fn without_secret(&self) -> String {
        let public = Dsn {
            secret: None,
            ..self.clone()
        };
        public.to_string()
    }

    /// The DSN for logs, with a shortened key and without the secret.
    pub fn shortened(&self) -> String {
        let Dsn {
            origin,
            key,
            prefix,
            project,
            secret: _,
        } = self;
        let (scheme, authority) = (origin.scheme, origin.authority());
        format!(
            "{scheme}://{}@{authority}{prefix}/{project}",
            shorten_key(key)
        )
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.origin.scheme, self.key)?;
        if let Some(secret) = &self.secret {
            write!(f, ":{secret}")?;
        }
        let (authority, prefix, project) = (self.origin.authority(), &self.prefix, &self.project);
        write!(f, "@{authority}{prefix}/{project}")
    }
}

/// Prints the shortened form, so that no log of a larger value contains a key.
impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({})", self.shortened())
    }
}

/// The first four characters of a key, for logs.
pub(crate) fn shorten_key(key: &str) -> String {
    key.chars().take(4).chain(['…']).collect()
}

/// The public key in the text of an SDK's DSN: the part between `://` and `@`, up to a colon. `None` if there is no
/// such part or it is empty.
///
/// Deliberately lenient: Relay writes `key:@host`, Go's SDK writes the secret too, and other errors do not matter,
/// since the whole text is replaced.
pub fn key_in_text(text: &[u8]) -> Option<&[u8]> {
    let user = memmem::find(text, b"://")? + 3;
    let rest = text.get(user..)?;
    let user_info = rest.get(..memchr(b'@', rest)?)?;
    let key = user_info.get(..memchr(b':', user_info).unwrap_or(user_info.len()))?;
    (!key.is_empty()).then_some(key)
}

/// The project id of a DSN in a text: its last segment, if it is a number.
pub(crate) fn project_in_text(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_suffix(b"/").unwrap_or(text);
    let slash = memrchr(b'/', text)?;
    let project = text.get(slash + 1..)?;
    let is_number = !project.is_empty() && project.iter().all(u8::is_ascii_digit);
    is_number.then_some(project)
}

/// The part of a text that makes it an invalid DSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DsnError {
    Scheme,
    /// A query or a fragment, which a DSN must not have.
    Query,
    /// No key.
    NoKey,
    Key,
    Secret,
    Host,
    Port,
    Prefix,
    Project,
}

impl fmt::Display for DsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DsnError::Scheme => {
                "it must begin with `http://` or `https://`, as in `https://key@host/42`"
            }
            DsnError::Query => "it must not have a query or a fragment: leave out `?` and `#`",
            DsnError::NoKey => {
                "the public key is missing: it stands before `@`, as in `https://key@host/42`"
            }
            DsnError::Key => "the public key may have letters, digits, `-` and `_` only",
            DsnError::Secret => "the secret may have letters, digits, `-` and `_` only",
            DsnError::Host => {
                "the host must be a name, an IPv4 address or an IPv6 address in brackets"
            }
            DsnError::Port => "the port must be a number from 1 to 65535",
            DsnError::Prefix => {
                "the path before the project has a character that a URL path cannot have"
            }
            DsnError::Project => {
                "it must end in the project id, a number, as in `https://key@host/42`"
            }
        })
    }
}

impl std::error::Error for DsnError {}

impl FromStr for Dsn {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Dsn, DsnError> {
        let (scheme, rest) = text.split_once("://").ok_or(DsnError::Scheme)?;
        let scheme = parse_scheme(scheme)?;
        if rest.contains(['?', '#']) {
            return Err(DsnError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, host_port) = authority.rsplit_once('@').ok_or(DsnError::NoKey)?;
        let (key, secret) = parse_user_info(user_info)?;
        let (host, port) = parse_host_port(host_port)?;
        let (prefix, project) = parse_path(path)?;
        Ok(Dsn {
            origin: Origin {
                scheme,
                host,
                port: port.unwrap_or(scheme.default_port()),
            },
            key,
            secret,
            prefix,
            project,
        })
    }
}

fn parse_scheme(scheme: &str) -> Result<Scheme, DsnError> {
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .find(|known| scheme.eq_ignore_ascii_case(known.as_str()))
        .ok_or(DsnError::Scheme)
}

fn parse_user_info(user_info: &str) -> Result<(String, Option<String>), DsnError> {
    let (key, secret) = user_info.split_once(':').unwrap_or((user_info, ""));
    if key.is_empty() {
        return Err(DsnError::NoKey);
    }
    if !is_plain(key) {
        return Err(DsnError::Key);
    }
    if !is_plain(secret) {
        return Err(DsnError::Secret);
    }
    let secret = (!secret.is_empty()).then(|| secret.to_owned());
    Ok((key.to_owned(), secret))
}

/// Whether a text has only letters, digits, `-` and `_`, so that it can be inserted unchanged into a header
/// line, a JSON string, a URL or base64 credentials.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn parse_host_port(host_port: &str) -> Result<(String, Option<u16>), DsnError> {
    if let Some(bracketed) = host_port.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']').ok_or(DsnError::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| DsnError::Host)?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or(DsnError::Port)?),
        };
        return Ok((address.to_string(), port.map(parse_port).transpose()?));
    }
    let (host, port) = match host_port.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (host_port, None),
    };
    if !is_host(host) {
        return Err(DsnError::Host);
    }
    Ok((host.to_ascii_lowercase(), port))
}

/// Names and IPv4 addresses. Underscores are not in RFC 1123, but they are in container networks.
fn is_host(host: &str) -> bool {
    host.strip_suffix('.')
        .unwrap_or(host)
        .split('.')
        .all(|label| !label.is_empty() && is_plain(label))
}

fn parse_port(port: &str) -> Result<u16, DsnError> {
    match port.parse() {
        Ok(number) if number != 0 && is_digits(port) => Ok(number),
        Ok(_) | Err(_) => Err(DsnError::Port),
    }
}

/// Splits a path into prefix and project. Runs of slashes count as one, as Relay folds them, and a
/// slash at the end is ignored.
fn parse_path(path: &str) -> Result<(String, String), DsnError> {
    let mut segments = path.rsplit('/').filter(|segment| !segment.is_empty());
    let project = segments.next().ok_or(DsnError::Project)?;
    if !is_digits(project) || project.parse::<u64>().is_err() {
        return Err(DsnError::Project);
    }
    let mut prefix = String::new();
    for segment in segments {
        if !segment.bytes().all(is_path_byte) {
            return Err(DsnError::Prefix);
        }
        prefix.insert_str(0, segment);
        prefix.insert(0, '/');
    }
    Ok((prefix, project.to_owned()))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `pchar` of RFC 3986 §3.3. None of them needs escaping in a JSON string.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn dsn(text: &str) -> Dsn {
        text.parse()
            .unwrap_or_else(|error: DsnError| panic!("{text}: {error}"))
    }

    #[test]
    fn every_part_of_a_dsn_is_parsed() {
        let dsn = dsn("https://public-key-red:s3cret@Sentry.Example.COM:8443/a/b/42");
        assert_eq!(dsn.key(), "public-key-red");
        assert!(!dsn.has_usual_key());
        assert_eq!(dsn.secret(), Some("s3cret"));
        assert_eq!(
            dsn.origin(),
            &Origin {
                scheme: Scheme::Https,
                host: "sentry.example.com".into(),
                port: 8443
            }
        );
        assert_eq!(dsn.prefix(), "/a/b");
        assert_eq!(dsn.project(), "42");
    }

    /// A DSN, and its canonical text.
    #[test]
    fn a_dsn_is_displayed_in_canonical_form() {
        for (written, canonical) in [
            ("https://k@h/42", "https://k@h/42"),
            ("https://k:@h/42", "https://k@h/42"),
            ("https://k:s@h/42", "https://k:s@h/42"),
            ("HTTPS://K@H:443/42", "https://K@h/42"),
            ("http://k@h:80/42", "http://k@h/42"),
            ("http://k@h:443/42", "http://k@h:443/42"),
            ("http://k@h/42/", "http://k@h/42"),
            ("http://k@h//a///b//42//", "http://k@h/a/b/42"),
            ("http://k@[::1]/1", "http://k@[::1]/1"),
            ("http://k@[0:0::0001]:9000/1", "http://k@[::1]:9000/1"),
            ("http://k@127.0.0.1:3000/042", "http://k@127.0.0.1:3000/042"),
            (
                "https://k@o1.ingest.sentry.io./0",
                "https://k@o1.ingest.sentry.io./0",
            ),
            ("http://k@relay_1/1", "http://k@relay_1/1"),
            (
                "http://k@h/~a/%20/b@c:d/18446744073709551615",
                "http://k@h/~a/%20/b@c:d/18446744073709551615",
            ),
        ] {
            let parsed = dsn(written);
            assert_eq!(parsed.to_string(), canonical, "{written}");
            assert_eq!(dsn(canonical), parsed, "{written}");
        }
    }

    #[test]
    fn invalid_dsns_are_rejected() {
        for (written, error) in [
            ("", DsnError::Scheme),
            ("k@h/42", DsnError::Scheme),
            ("ftp://k@h/42", DsnError::Scheme),
            (" https://k@h/42", DsnError::Scheme),
            ("https://k@h/42?x=1", DsnError::Query),
            ("https://k@h/42#x", DsnError::Query),
            ("https://h/42", DsnError::NoKey),
            ("https://@h/42", DsnError::NoKey),
            ("https://:s@h/42", DsnError::NoKey),
            ("https://k.no-cache@h/42", DsnError::Key),
            ("https://k\"@h/42", DsnError::Key),
            ("https://ké@h/42", DsnError::Key),
            ("https://k@x@h/42", DsnError::Key),
            ("https://k:s:t@h/42", DsnError::Secret),
            ("https://k:s t@h/42", DsnError::Secret),
            ("https://k@/42", DsnError::Host),
            ("https://k@a..b/42", DsnError::Host),
            ("https://k@./42", DsnError::Host),
            ("https://k@a b/42", DsnError::Host),
            ("https://k@[::g]/42", DsnError::Host),
            ("https://k@[::1/42", DsnError::Host),
            ("https://k@[fe80::1%eth0]/42", DsnError::Host),
            ("https://k@::1/42", DsnError::Port),
            ("https://k@[::1]8080/42", DsnError::Port),
            ("https://k@h:/42", DsnError::Port),
            ("https://k@h:0/42", DsnError::Port),
            ("https://k@h:+80/42", DsnError::Port),
            ("https://k@h:65536/42", DsnError::Port),
            ("https://k@h/a b/42", DsnError::Prefix),
            ("https://k@h/a\\b/42", DsnError::Prefix),
            ("https://k@h/a\"/42", DsnError::Prefix),
            ("https://k@h/é/42", DsnError::Prefix),
            ("https://k@h", DsnError::Project),
            ("https://k@h/", DsnError::Project),
            ("https://k@h/p", DsnError::Project),
            ("https://k@h/+1", DsnError::Project),
            ("https://k@h/42/x", DsnError::Project),
            ("https://k@h/18446744073709551616", DsnError::Project),
        ] {
            assert_eq!(written.parse::<Dsn>(), Err(error), "{written}");
        }
    }

    #[test]
    fn the_default_port_is_omitted() {
        for (written, authority, origin) in [
            ("https://k@h/1", "h", "https://h"),
            ("https://k@h:80/1", "h:80", "https://h:80"),
            ("http://k@[::1]/1", "[::1]", "http://[::1]"),
            ("http://k@[::1]:81/1", "[::1]:81", "http://[::1]:81"),
        ] {
            assert_eq!(dsn(written).origin().authority(), authority);
            assert_eq!(dsn(written).origin().to_string(), origin);
        }
    }

    #[test]
    fn logs_show_neither_key_nor_secret() {
        let dsn = dsn(&format!("https://{KEY}:topsecret@h:1/p/42"));
        assert!(dsn.has_usual_key());
        assert_eq!(dsn.shortened(), "https://0123…@h:1/p/42");
        assert_eq!(format!("{dsn:?}"), "Dsn(https://0123…@h:1/p/42)");
        assert_eq!(shorten_key("ab"), "ab…");
    }

    #[test]
    fn the_key_in_a_dsn_of_an_sdk_is_found() {
        for (text, key) in [
            ("https://K@h/42", Some("K")),
            ("https://K:@h/42", Some("K")),
            ("http://K:sec@h:9109/a/b/42", Some("K")),
            ("http://K@[::1]:9/42", Some("K")),
            ("nonsense://K@", Some("K")),
            ("https://h/42", None),
            ("https://@h/42", None),
            ("https://:s@h/42", None),
            ("K@h/42", None),
            ("", None),
        ] {
            assert_eq!(
                key_in_text(text.as_bytes()),
                key.map(str::as_bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn the_project_of_a_dsn_in_a_text_is_its_last_segment() {
        for (text, project) in [
            ("https://k@host/42", Some("42")),
            ("https://k:s@host:9000/a/b/7/", Some("7")),
            ("https://k@host/app", None),
            ("https://k@host/", None),
            ("42", None),
            ("", None),
        ] {
            let found = project_in_text(text.as_bytes());
            assert_eq!(found, project.map(str::as_bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in "(https?://)?[a-z0-9:@/\\[\\]. é-]{0,40}") {
            if let Ok(dsn) = text.parse::<Dsn>() {
                let canonical = dsn.to_string();
                prop_assert_eq!(key_in_text(canonical.as_bytes()), Some(dsn.key().as_bytes()));
                prop_assert_eq!(canonical.parse::<Dsn>(), Ok(dsn));
            }
        }

        #[test]
        fn a_canonical_dsn_is_parsed_and_displayed_unchanged(
            scheme in "https?",
            user in "[a-zA-Z0-9_-]{1,40}(:[a-z0-9]{1,9})?",
            host in "[a-z0-9_-]{1,9}(\\.[a-z0-9]{1,9}){0,3}|\\[2001:db8::[1-9a-f]\\]",
            port in 444u16..,
            path in "(/[a-zA-Z0-9._~%!$&'()*+,;=:@-]{1,9}){0,3}",
            project: u64,
        ) {
            let text = format!("{scheme}://{user}@{host}:{port}{path}/{project}");
            prop_assert_eq!(dsn(&text).to_string(), text);
        }
    }
}

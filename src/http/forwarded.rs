//! The header fields in which proxies say for whom they forward a request.
//!
//! `Forwarded` is a list of elements with parameters (RFC 7239). The others are lists of addresses, or hold a single
//! one. Each proxy appends to the end, so lists are read from the end: what is further left was written earlier, and
//! perhaps by the client itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::http::head::{HeaderName, RequestHead};

/// A field with the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressField {
    XForwardedFor,
    Forwarded,
    XRealIp,
    CfConnectingIp,
    TrueClientIp,
    XSentryForwardedFor,
    XVercelForwardedFor,
}

impl AddressField {
    pub const NAMES: [(&'static str, AddressField); 7] = [
        ("X-Forwarded-For", AddressField::XForwardedFor),
        ("Forwarded", AddressField::Forwarded),
        ("X-Real-IP", AddressField::XRealIp),
        ("CF-Connecting-IP", AddressField::CfConnectingIp),
        ("True-Client-IP", AddressField::TrueClientIp),
        ("X-Sentry-Forwarded-For", AddressField::XSentryForwardedFor),
        ("X-Vercel-Forwarded-For", AddressField::XVercelForwardedFor),
    ];

    /// The entries of the field in a head, the last one first. An entry that is no IP address is `None`: RFC 7239
    /// section 6 allows `unknown` and names such as `_proxy`.
    pub fn entries_backwards(
        self,
        head: &RequestHead,
        buffer: &[u8],
    ) -> impl Iterator<Item = Option<IpAddr>> {
        let lines = head.headers.iter().rev().filter(move |line| {
            let may_be = matches!(
                line.name,
                HeaderName::XForwardedFor | HeaderName::ClientAddress
            );
            let name = line.name_span.slice(buffer);
            may_be && name.eq_ignore_ascii_case(self.name().as_bytes())
        });
        let values = lines.map(|line| line.value.slice(buffer));
        let entries = values.flat_map(|value| FromLast(Some(value)));
        // Empty entries mean nothing (RFC 9110 section 5.6.1.2).
        let entries = entries.filter(|entry| !entry.trim_ascii().is_empty());
        entries.map(move |entry| self.address_in(entry))
    }

    fn name(self) -> &'static str {
        let mut names = AddressField::NAMES.iter();
        names
            .find(|(_, field)| *field == self)
            .map_or("", |(name, _)| name)
    }

    fn address_in(self, entry: &[u8]) -> Option<IpAddr> {
        match self {
            AddressField::Forwarded => node(forwarded_for(entry)?),
            _ => node(entry),
        }
    }
}

/// The entries of a list, the last one first. Commas in quotes separate nothing. The end of a list is written by the
/// nearest proxy, so quotes are paired from there: a quote that a client leaves open hides no later entry.
struct FromLast<'v>(Option<&'v [u8]>);

impl<'v> Iterator for FromLast<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        let list = self.0?;
        let mut is_quoted = false;
        for (at, byte) in list.iter().enumerate().rev() {
            let before = list.get(..at).unwrap_or_default();
            match byte {
                b'"' if !is_escaped(before) => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    self.0 = Some(before);
                    return list.get(at + 1..);
                }
                _ => {}
            }
        }
        self.0 = None;
        Some(list)
    }
}

/// Whether a quote after this text is escaped (RFC 9110 section 5.6.4).
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

/// The value of the parameter `for` in an element of `Forwarded`; `None` without it or if it is there twice.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    let mut values = Parameters(Some(element)).filter_map(|parameter| {
        let equals = memchr::memchr(b'=', parameter)?;
        let (name, value) = parameter.split_at_checked(equals)?;
        let is_for = name.trim_ascii().eq_ignore_ascii_case(b"for");
        is_for.then(|| value.get(1..)).flatten()
    });
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The parts between the semicolons that are not in quotes.
struct Parameters<'e>(Option<&'e [u8]>);

impl<'e> Iterator for Parameters<'e> {
    type Item = &'e [u8];

    fn next(&mut self) -> Option<&'e [u8]> {
        let rest = self.0?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = rest.iter().position(|byte| {
            let was_escaped = is_escaped;
            is_escaped = is_quoted && *byte == b'\\' && !was_escaped;
            if *byte == b'"' && !was_escaped {
                is_quoted = !is_quoted;
            }
            *byte == b';' && !is_quoted
        });
        self.0 = end.and_then(|end| rest.get(end + 1..));
        rest.get(..end.unwrap_or(rest.len()))
    }
}

/// The IP address of a node: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, each
/// also in quotes. A port may be a name such as `_p` (RFC 7239 section 6.2).
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let text = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => text,
    };
    let address: IpAddr = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']')?;
        let is_bare = port.is_empty() || is_port(port.strip_prefix(':')?);
        is_bare.then(|| host.parse::<Ipv6Addr>())?.ok()?.into()
    } else if let Some((host, _)) = text.split_once(':').filter(|(_, port)| is_port(port)) {
        host.parse::<Ipv4Addr>().ok()?.into()
    } else {
        text.parse().ok()?
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(is_name),
        None => text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{HeadLimits, Parsed};

    /// The entries of a field in these lines, with `-` for what is no address.
    fn entries(field: AddressField, lines: &[&str]) -> String {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        let mut head = RequestHead::default();
        let parsed = head.parse(text.as_bytes(), HeadLimits::default());
        assert_eq!(parsed, Ok(Parsed::Complete), "{text}");
        let entry = |entry: Option<IpAddr>| entry.map_or("-".to_owned(), |ip| ip.to_string());
        let entries: Vec<String> = field
            .entries_backwards(&head, text.as_bytes())
            .map(entry)
            .collect();
        entries.join(" ")
    }

    /// The header to read, header lines, and the entries that it has in them.
    const LISTS: &[(AddressField, &[&str], &str)] = &[
        (AddressField::XForwardedFor, &["Host: m"], ""),
        (AddressField::XForwardedFor, &["X-Forwarded-For:"], ""),
        (
            AddressField::XForwardedFor,
            &["x-forwarded-for: 192.0.2.1"],
            "192.0.2.1",
        ),
        (
            AddressField::XForwardedFor,
            &[
                "X-Forwarded-For: 192.0.2.1,192.0.2.2 , 192.0.2.3",
                "A: b",
                "X-Forwarded-For: 192.0.2.4\t",
            ],
            "192.0.2.4 192.0.2.3 192.0.2.2 192.0.2.1",
        ),
        (
            AddressField::XForwardedFor,
            &["X-Forwarded-For: , 192.0.2.1,,junk,unknown,"],
            "- - 192.0.2.1",
        ),
        (
            AddressField::XForwardedFor,
            &[
                "Forwarded: for=192.0.2.1",
                "X-Real-IP: 192.0.2.2",
                "X-Forwarded-For: 192.0.2.3",
            ],
            "192.0.2.3",
        ),
        (
            AddressField::XRealIp,
            &["x-real-ip: 192.0.2.2", "X-Forwarded-For: 192.0.2.3"],
            "192.0.2.2",
        ),
        (
            AddressField::CfConnectingIp,
            &["CF-Connecting-IP: 2001:db8::1"],
            "2001:db8::1",
        ),
        (
            AddressField::TrueClientIp,
            &["True-Client-IP: 192.0.2.2"],
            "192.0.2.2",
        ),
        (
            AddressField::XSentryForwardedFor,
            &["X-Sentry-Forwarded-For: 192.0.2.2"],
            "192.0.2.2",
        ),
        (
            AddressField::XVercelForwardedFor,
            &["X-Vercel-Forwarded-For: 192.0.2.2"],
            "192.0.2.2",
        ),
        (
            AddressField::Forwarded,
            &[
                "Forwarded: for=192.0.2.1;proto=https, For=\"[2001:db8::17]:4711\"",
                "Forwarded: by=203.0.113.1;FOR=192.0.2.3;host=m",
            ],
            "192.0.2.3 2001:db8::17 192.0.2.1",
        ),
        (
            AddressField::Forwarded,
            &[
                "Forwarded: for=_hidden, for=unknown, proto=http, for=192.0.2.1;for=192.0.2.2, 192.0.2.3",
            ],
            "- - - - -",
        ),
        // Commas, semicolons and escaped quotes in quotes.
        (
            AddressField::Forwarded,
            &[r#"Forwarded: for=192.0.2.1;ext="a,for=192.0.2.9;\",\\", for=192.0.2.2"#],
            "192.0.2.2 192.0.2.1",
        ),
        // A client leaves a quote open; proxies append plain and quoted entries.
        (
            AddressField::Forwarded,
            &[r#"Forwarded: for="192.0.2.9, for=192.0.2.1, for="[2001:db8::1]""#],
            "2001:db8::1 192.0.2.1 -",
        ),
        (
            AddressField::Forwarded,
            &[r#"Forwarded: for="\, for=192.0.2.1"#],
            "192.0.2.1 -",
        ),
    ];

    #[test]
    fn lists_are_read_from_the_end_over_all_lines() {
        for (field, lines, expected) in LISTS {
            assert_eq!(entries(*field, lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_node_is_an_address_with_or_without_a_port() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            (" 192.0.2.1\t", Some("192.0.2.1")),
            ("192.0.2.1:80", Some("192.0.2.1")),
            ("192.0.2.1:_p", Some("192.0.2.1")),
            ("\"192.0.2.1:80\"", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("\"[2001:db8::1]:65535\"", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[::ffff:192.0.2.1]:80", Some("192.0.2.1")),
            ("::1", Some("::1")),
            ("192.0.2.1:", None),
            ("192.0.2.1:65536", None),
            ("192.0.2.1:+80", None),
            ("192.0.2.1:_", None),
            ("192.0.2.1 192.0.2.2", None),
            ("192.0.2.256", None),
            ("192.0.2", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("[2001:db8::1]80", None),
            ("[2001:db8::1]:x", None),
            ("fe80::1%eth0", None),
            ("\"192.0.2.1", None),
            ("localhost", None),
            ("unknown", None),
            ("_hidden", None),
            ("\u{2603}", None),
            ("", None),
        ] {
            let address = node(text.as_bytes()).map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{text}");
        }
        assert_eq!(node(b"192.0.2.\xff"), None);
    }
}

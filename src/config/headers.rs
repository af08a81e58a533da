//! `headers`: what the mirror adds to the requests for an outbound, or replaces in them.
//!
//! Names are compared without regard to case. Headers of the connection, the framing, the body and the keys cannot
//! be configured: the mirror sets them itself.

use serde_yaml::Value;

use super::header_list::Headers;
use super::node::Node;
use super::value::Parsed;

/// The most headers of one outbound, and their most bytes, which count for the memory of each delivery.
const COUNT_MAX: usize = 32;
const BYTES_MAX: usize = 8 * 1024;

/// Fields of the connection and of the framing (RFC 9110 sections 7.6.1 and 8.6, RFC 9112 section 6), and those
/// that the mirror sets by itself.
const REFUSED: [(&str, &str); 20] = [
    ("connection", "it concerns one connection"),
    ("keep-alive", "it concerns one connection"),
    ("proxy-connection", "it concerns one connection"),
    ("proxy-authenticate", "it concerns one connection"),
    (
        "proxy-authorization",
        "it is for a proxy, see the key proxy",
    ),
    ("te", "it concerns one connection"),
    ("trailer", "it frames the body"),
    ("transfer-encoding", "it frames the body"),
    ("upgrade", "it concerns one connection"),
    ("http2-settings", "it concerns one connection"),
    ("content-length", "it frames the body"),
    ("content-encoding", "see the key compression"),
    ("content-type", "it describes the body of each request"),
    ("expect", "it changes how the body is sent"),
    ("accept-encoding", "the mirror does not decode responses"),
    ("host", "it follows from the DSN"),
    ("via", "it is how the mirror notices loops"),
    ("x-forwarded-for", "see the key forward_client_ip"),
    ("x-sentry-auth", "it holds the key of the DSN"),
    ("range", "it asks for a part of the response"),
];

/// The headers in the mapping `node`, and those of `defaults` that are not in it. Null leaves out a default.
pub(super) fn headers(node: &Node<'_>, defaults: &Headers) -> Headers {
    let mut headers = defaults.clone();
    if !node.is_absent() && !node.is_mapping() {
        node.reject("a mapping from header names to texts");
        return headers;
    }
    let mut own = Headers::default();
    for (name, value) in node.members() {
        if let Some(problem) = problem(&name) {
            value.error(problem);
        } else if own.names().any(|known| known.eq_ignore_ascii_case(&name)) {
            value.error("this header is there twice, in other letters");
        } else {
            headers.remove(&name);
            let text = value.optional(header_value);
            // A null counts as seen, too.
            own.push(name, text.unwrap_or_default());
        }
    }
    own.remove_empty();
    headers.append(own);
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if headers.len() > COUNT_MAX || bytes > BYTES_MAX {
        node.error(format!(
            "found {} headers with {bytes} bytes, expected at most {COUNT_MAX} with {BYTES_MAX} bytes",
            headers.len()
        ));
    }
    headers
}

/// Why no header may have this name.
fn problem(name: &str) -> Option<String> {
    // RFC 9110 section 5.6.2.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Some("this name has characters that header names cannot have".to_owned());
    }
    let mut refused = REFUSED.iter();
    let (_, reason) = refused.find(|(refused, _)| refused.eq_ignore_ascii_case(name))?;
    Some(format!("{name} cannot be set here: {reason}"))
}

/// A text without control characters (RFC 9110 section 5.5). A number would lose its spelling.
fn header_value(value: &Value) -> Parsed<String> {
    const FORM: &str = "text in one line of printable ASCII characters; a number needs quotes";
    let text = value.as_str().map(|text| text.trim_matches(' '));
    let is_valid = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let text = text.filter(|text| !text.is_empty() && text.bytes().all(is_valid));
    text.map(str::to_owned).ok_or_else(|| FORM.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(defaults: &str, own: &str) -> Result<Config, String> {
        let text = format!(
            "headers: {defaults}\nkeys:\n- inbound: http://aaaa@m/1\n  outbound:\n  - https://bbbb@o/2\n  \
             - {{dsn: https://cccc@o/2, headers: {own}}}\n"
        );
        Config::parse(&text, "c.yml", std::iter::empty()).map_err(|errors| errors.to_string())
    }

    fn headers(config: &Config, outbound: usize) -> String {
        let headers = &config.routes[0].outbounds[outbound].headers;
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"));
        lines.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn an_outbound_has_the_defaults_that_it_does_not_replace() {
        for (defaults, own, first, second) in [
            ("{}", "{}", "", ""),
            ("null", "{A: b}", "", "A: b"),
            ("{A: b}", "null", "A: b", "A: b"),
            (
                "{A: b, C: d}",
                "{c: ' e f ', X: g}",
                "A: b, C: d",
                "A: b, c: e f, X: g",
            ),
            ("{A: b, C: d}", "{a: null}", "A: b, C: d", "C: d"),
            (
                "{A: '1', Authorization: Bearer x}",
                "{}",
                "A: 1, Authorization: Bearer x",
                "A: 1, Authorization: Bearer x",
            ),
        ] {
            let config = parse(defaults, own).unwrap();
            assert_eq!(headers(&config, 0), first, "{defaults} {own}");
            assert_eq!(headers(&config, 1), second, "{defaults} {own}");
        }
        let config = parse("{Token: secret}", "{}").unwrap();
        for text in [config.describe(), config.effective()] {
            assert!(text.contains("Token"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_would_break_a_request_is_an_error_with_its_place() {
        let many: Vec<String> = (0..33).map(|number| format!("X-{number}: a")).collect();
        let many = format!("{{{}}}", many.join(", "));
        let long = format!("{{A: {}}}", "x".repeat(8 * 1024));
        for (own, expected) in [
            (
                "[a]",
                "headers: found a list, expected a mapping from header names to texts",
            ),
            ("text", "headers: found \"text\", expected a mapping"),
            (
                "{Host: a}",
                "headers.Host: Host cannot be set here: it follows from the DSN",
            ),
            ("{hOST: null}", "hOST cannot be set here"),
            ("{Transfer-Encoding: chunked}", "frames the body"),
            ("{Via: a}", "how the mirror notices loops"),
            ("{X-Sentry-Auth: a}", "it holds the key"),
            (
                "{A: \"a\\tb\"}",
                "text in one line of printable ASCII characters",
            ),
            ("{'': a}", "characters that header names cannot have"),
            ("{'a b': a}", "characters that header names cannot have"),
            (
                "{\"a\\r\\nb\": a}",
                "characters that header names cannot have",
            ),
            ("{é: a}", "characters that header names cannot have"),
            (
                "{A: \"b\\r\\nX: c\"}",
                "headers.A: found \"b\\r\\nX: c\", expected text in one line",
            ),
            ("{A: \"b\\0\"}", "expected text in one line"),
            ("{A: é}", "expected text in one line"),
            ("{A: 1.10}", "a number needs quotes"),
            ("{A: [b]}", "found a list"),
            ("{A: ''}", "expected text in one line"),
            ("{A: b, a: c}", "headers.a: this header is there twice"),
            (many.as_str(), "found 33 headers with"),
            (
                long.as_str(),
                "with 8193 bytes, expected at most 32 with 8192 bytes",
            ),
        ] {
            let error = parse("{}", own).unwrap_err();
            let place = "c.yml:6:38: keys[0].outbound[1].headers";
            assert!(
                error.starts_with(&place[..8]) && error.contains(&place[10..]),
                "{error}"
            );
            assert!(error.contains(expected), "{own}: {error}");
        }
        for (name, _) in REFUSED {
            assert!(parse(&format!("{{{name}: a}}"), "{}").is_err(), "{name}");
        }
    }
}

//! The crash-report dialog: a script that Sentry serves, rewritten so that its form is sent to the mirror.
//!
//! A page loads the script from the mirror, which requests it from the primary. The script contains the
//! absolute URL to which the browser posts the form. It is the URL of the request for the script, as the
//! upstream saw it. The mirror replaces it by the URL of the request that it received itself, so that the
//! form is posted to the mirror, which mirrors it to every outbound. Sources of the format: Sentry's
//! `error-page-embed.js` and `json.dumps_htmlsafe`.
//!
//! Anyone can request the script, so it must not reveal the outbounds. If a response contains the key, the
//! secret or the host of an outbound, the mirror replies 502 instead.

use std::time::Instant;

use memchr::{memchr, memchr2, memchr2_iter, memmem};
use tracing::warn;

use crate::http::head::HeaderName;
use crate::mirror::reply::Reply;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::reporting::escapes::unescape;
use crate::mirror::request::Request;
use crate::mirror::routing::routes::{Outbound, Route};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::sentry::endpoint;
use crate::span::Span;

/// The path of the dialog, by which the URL to replace is recognized.
const PATH: &[u8] = b"/api/embed/error-page/";

/// The path with escaped slashes, as some JSON writers write it.
const ESCAPED_PATH: &[u8] = b"\\/api\\/embed\\/error-page\\/";

/// The maximum length of the URL that is written into a script. With the options of the SDK it has about
/// 1 KiB. The memory budget counts the script without the replacements, and a slow client may keep the
/// rewritten script in memory for long.
const URL_BYTES_MAX: usize = 8 * 1024;

/// The maximum length of a script, which is searched for credentials and hosts. Sentry's has 16 KiB.
const SCRIPT_BYTES_MAX: usize = 256 * 1024;

/// The maximum length of any other response. It may be searched for all outbounds of a route. Sentry's have a
/// few words.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The maximum number of URLs to replace in a script. Sentry's has one. A replacement may be longer than
/// the original.
const URLS_MAX: usize = 8;

/// The maximum number of nested layers of escaping that are undone.
const ESCAPINGS_MAX: usize = 3;

/// Shorter keys and secrets are not searched for, because they may be part of ordinary words.
const CREDENTIAL_LENGTH_MIN: usize = 8;

/// The public host of Sentry, to which the script contains a link for the user.
const PUBLIC_HOST: &[u8] = b"sentry.io";

/// A script in which the URLs of the form are replaced.
struct Redirected {
    script: Vec<u8>,
    /// The parts of the script that were not replaced.
    unchanged: Vec<u8>,
    url_count: usize,
}

/// The reply to a request of the dialog at `route`: `reply`, or a 502 if that reveals something about an
/// outbound. In a request for the script, `form_url` is the URL for its form as a string literal.
pub(crate) fn rewrite_reply(reply: Reply, route: &Route, form_url: Option<&[u8]>) -> Reply {
    let redirected = match (reply.script(), form_url) {
        (Some(script), Some(form_url)) => Some(redirected(script, form_url)),
        (None, _) | (_, None) => None,
    };
    // Only the primary is asked for the script.
    let asked_count = match form_url {
        Some(_) => 1,
        None => route.outbounds.len(),
    };
    let asked = route.outbounds.get(..asked_count).unwrap_or_default();
    let is_unsafe = |text: &[u8]| {
        let bytes_max = match redirected {
            Some(_) => SCRIPT_BYTES_MAX,
            None => ANSWER_BYTES_MAX,
        };
        text.len() > bytes_max || reveals_any(text, asked)
    };
    let is_blocked = reply.is_encoded()
        || match &redirected {
            Some(redirected) => redirected.url_count > URLS_MAX || is_unsafe(&redirected.unchanged),
            None => reply.texts().any(is_unsafe),
        };
    let has_no_url = redirected
        .as_ref()
        .is_some_and(|redirected| redirected.url_count == 0 && !redirected.unchanged.is_empty());
    if (is_blocked || has_no_url) && route.dialog_log.is_due(Instant::now()) {
        warn!(
            route = route.name,
            status = reply.status(),
            "{}",
            match is_blocked {
                true =>
                    "blocked a response of the crash-report dialog (502): it contains the key, secret or host of an outbound, has a content coding, or is too long",
                false =>
                    "cannot rewrite the script of the crash-report dialog: it contains no form URL; its reports will not reach the mirror",
            }
        );
    }
    match redirected {
        _ if is_blocked => Reply::blocked(),
        Some(redirected) => reply.with_script(redirected.script),
        None => reply,
    }
}

/// The script with each URL of its form replaced by `url`; `None` if it contains no such URL.
pub fn redirect(script: &[u8], url: &[u8]) -> Option<Vec<u8>> {
    let redirected = redirected(script, url);
    (redirected.url_count > 0).then_some(redirected.script)
}

/// Replaces at most [`URLS_MAX`] URLs and one more, by which the caller notices that there are too many.
fn redirected(script: &[u8], url: &[u8]) -> Redirected {
    let mut redirected = Redirected {
        script: Vec::with_capacity(script.len() + url.len()),
        unchanged: Vec::with_capacity(script.len()),
        url_count: 0,
    };
    let mut copied = 0;
    let literals = memchr2_iter(b'"', b'\'', script).filter_map(|open| literal_from(script, open));
    for literal in literals.take(URLS_MAX + 1) {
        // Nested in the previous literal.
        if literal.start < copied {
            continue;
        }
        let before = script.get(copied..literal.start).unwrap_or_default();
        redirected.script.extend_from_slice(before);
        redirected.script.extend_from_slice(url);
        redirected.unchanged.extend_from_slice(before);
        copied = literal.end;
        redirected.url_count += 1;
    }
    let rest = script.get(copied..).unwrap_or_default();
    redirected.script.extend_from_slice(rest);
    redirected.unchanged.extend_from_slice(rest);
    redirected
}

/// Whether `text` contains the key, the secret or the host of one of `outbounds`, in any escaping.
fn reveals_any(text: &[u8], outbounds: &[Outbound]) -> bool {
    let mut text = text.to_ascii_lowercase();
    for _ in 0..=ESCAPINGS_MAX {
        if outbounds.iter().any(|outbound| reveals(&text, outbound)) {
            return true;
        }
        let Some(unescaped) = unescape(&text) else {
            return false;
        };
        text = unescaped;
        text.make_ascii_lowercase();
    }
    false
}

/// Whether `text`, in lower case, contains the credentials or the host of `outbound`.
fn reveals(text: &[u8], outbound: &Outbound) -> bool {
    // Without the last characters, which depend on what follows the key.
    let basic = outbound.basic.get(..outbound.basic.len() / 4 * 4 - 4);
    let credentials = [
        Some(outbound.key.as_str()),
        outbound.secret.as_deref(),
        basic,
    ];
    let has_credential = credentials.into_iter().flatten().any(|credential| {
        credential.len() >= CREDENTIAL_LENGTH_MIN
            && memmem::find(text, credential.to_ascii_lowercase().as_bytes()).is_some()
    });
    has_credential || has_host(text, host_name(&outbound.host))
}

/// Whether `text` contains `host` as the host of a URL.
fn has_host(text: &[u8], host: &[u8]) -> bool {
    let is_url = |at: usize| {
        let before = text.get(..at).unwrap_or_default();
        let after = text.get(at + host.len()..).unwrap_or_default();
        let continues = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_whole = match after {
            [b'.', next, ..] => !continues(next),
            [next, ..] => !continues(next),
            [] => true,
        };
        is_whole && (before.ends_with(b"//") || before.ends_with(b"@"))
    };
    host != PUBLIC_HOST && memmem::find_iter(text, host).any(is_url)
}

/// The host of `authority`, without the port.
fn host_name(authority: &str) -> &[u8] {
    let authority = authority.as_bytes();
    let address_end = memchr(b']', authority).map(|at| at + 1);
    let end = address_end.or_else(|| memchr(b':', authority));
    authority
        .get(..end.unwrap_or(authority.len()))
        .unwrap_or(authority)
}

/// The URL for the form of the script: that of this request as the browser sees it, as a string literal.
///
/// # Errors
/// The URL is too long.
pub(crate) fn form_url(request: &Request, table: &RoutingTable) -> Result<Vec<u8>, Rejection> {
    let path = endpoint::path(&request.head, request.parsed.target);
    let target = request
        .head
        .get(path.start..request.parsed.target.end)
        .unwrap_or_default();
    let url = match &table.external_url {
        Some(base) => [base.as_bytes(), target].concat(),
        None => external_url(
            request.header(HeaderName::Host).unwrap_or_default(),
            request.header(HeaderName::XForwardedProto),
            request.came_over_tls,
            target,
        ),
    };
    literal(&url).ok_or(Rejection::UrlTooLong)
}

/// The URL of a request as the browser sees it. `host` is the value of its `Host` header and `target` its path
/// and query. `forwarded_proto` is the value of `X-Forwarded-Proto`. The load balancer that terminates TLS sets
/// its first entry; further balancers may append others. Without it, the mirror itself may have ended TLS.
pub fn external_url(
    host: &[u8],
    forwarded_proto: Option<&[u8]>,
    came_over_tls: bool,
    target: &[u8],
) -> Vec<u8> {
    let outermost = forwarded_proto.and_then(|list| list.split(|byte| *byte == b',').next());
    let scheme: &[u8] = match outermost.map(<[u8]>::trim_ascii) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => b"https",
        None if came_over_tls => b"https",
        Some(_) | None => b"http",
    };
    [scheme, b"://", host, target].concat()
}

/// The content of the string literal that begins with the quote at `open`, if it is the URL of the form. The
/// search ends at the next quote of the same kind, so each byte of a script is read once per kind at most.
fn literal_from(script: &[u8], open: usize) -> Option<Span> {
    let (quote, rest) = script.get(open..)?.split_first()?;
    let starts: [&[u8]; 4] = [b"http://", b"https://", b"http:\\/\\/", b"https:\\/\\/"];
    if !starts.iter().any(|start| rest.starts_with(start)) {
        return None;
    }
    // A URL contains no quotes, so this one ends the literal.
    let length = memchr2(*quote, b'\n', rest)?;
    let url = rest.get(..length)?;
    let has_path = memmem::find(url, PATH).is_some() || memmem::find(url, ESCAPED_PATH).is_some();
    let is_literal = rest.get(length) == Some(quote);
    (has_path && is_literal).then(|| Span::new(open + 1, open + 1 + length))
}

/// `url` as the content of a string literal, for a script that may be embedded in HTML; `None` if it is too
/// long. A client controls parts of the URL, so everything that could end the literal is escaped.
pub fn literal(url: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for byte in url {
        match byte {
            b'"' | b'\'' | b'\\' | b'<' | b'>' | b'&' | 0..=0x20 | 0x7f.. => {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            }
            _ => out.push(*byte),
        }
        if out.len() > URL_BYTES_MAX {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &[u8] =
        b"https://mirror.example.com/api/embed/error-page/?dsn=https://k@m/1&eventId=a";

    fn redirected(script: &str) -> Option<String> {
        redirect(script.as_bytes(), &literal(URL).unwrap())
            .map(|script| String::from_utf8(script).unwrap())
    }

    #[test]
    fn the_form_url_is_replaced() {
        let safe =
            "https://mirror.example.com/api/embed/error-page/?dsn=https://k@m/1\\u0026eventId=a";
        for endpoint in [
            "https://o1.ingest.sentry.io/api/embed/error-page/?dsn=https%3A//x@o1/2\\u0026eventId=a",
            "http:\\/\\/127.0.0.1:9000\\/p\\/api\\/embed\\/error-page\\/?dsn=x",
        ] {
            let script = |endpoint: &str| {
                format!("(function() {{ var endpoint = /**/\"{endpoint}\";/**/ var s = \"a\"; }})")
            };
            assert_eq!(redirected(&script(endpoint)), Some(script(safe)));
        }
        let comment = "// From `/api/embed/error-page/`: see \"/api/embed/error-page/\".\n";
        assert_eq!(
            redirected(&format!("{comment}e=\"https://h/api/embed/error-page/?a\"")),
            Some(format!("{comment}e=\"{safe}\""))
        );
        assert_eq!(
            redirected("e='http://h/api/embed/error-page/?a';x"),
            Some(format!("e='{safe}';x"))
        );
    }

    #[test]
    fn scripts_without_a_form_url_are_unchanged() {
        for script in [
            "",
            "var a = 1;",
            "// see /api/embed/error-page/ for more\n",
            "x = \"see /api/embed/error-page/\";",
            "x = \"http://h/api/embed/error-page/",
            "x = \"http://h/api/embed/error-page/\ny\"",
        ] {
            assert_eq!(redirected(script), None, "{script:?}");
        }
    }

    #[test]
    fn a_crafted_script_takes_linear_time() {
        let path = "/api/embed/error-page/";
        // Each takes seconds if every occurrence of the path starts a search.
        for piece in [
            path.to_owned(),
            format!("\"http:/{path}"),
            format!("'http://{path}\"http://"),
        ] {
            let script = format!("{}\n", piece.repeat(1024 * 1024 / piece.len()));
            let started = std::time::Instant::now();
            redirect(script.as_bytes(), &literal(URL).unwrap());
            assert!(started.elapsed().as_millis() < 500, "{piece}");
        }
    }

    #[test]
    fn a_long_url_is_rejected() {
        let url = |apostrophes: usize| [URL, &b"'".repeat(apostrophes)].concat();
        assert!(literal(&url(1000)).is_some());
        assert_eq!(literal(&url(URL_BYTES_MAX / 6)), None);
    }

    #[test]
    fn a_url_cannot_inject_code() {
        let url = external_url(
            b"h\"</script><script>alert(1)//",
            Some(b"HTTPS"),
            false,
            b"/api/embed/error-page/?a='+x+\"\\",
        );
        let script = redirect(
            b"e=\"http://h/api/embed/error-page/\"",
            &literal(&url).unwrap(),
        )
        .unwrap();
        let literal = &script[3..script.len() - 1];
        assert!(literal.starts_with(b"https://h\\u0022\\u003c"));
        for byte in b"\"'<>&" {
            assert!(!literal.contains(byte));
        }
        let mut escaped = literal.split(|byte| *byte == b'\\').skip(1);
        assert!(escaped.all(|rest| rest.starts_with(b"u00")));
    }

    #[test]
    fn the_external_url_has_the_scheme_of_the_load_balancer() {
        let url = |proto| external_url(b"m:3000", proto, false, b"/api/x");
        assert_eq!(url(None), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"http")), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"https")), b"https://m:3000/api/x");
        assert_eq!(url(Some(b"https,http")), b"https://m:3000/api/x");
        assert_eq!(url(Some(b" HTTPS , http")), b"https://m:3000/api/x");
        assert_eq!(url(Some(b"http,https")), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"")), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"gopher")), b"http://m:3000/api/x");
        let over_tls = |proto| external_url(b"m:3443", proto, true, b"/api/x");
        assert_eq!(over_tls(None), b"https://m:3443/api/x");
        assert_eq!(over_tls(Some(b"http")), b"http://m:3443/api/x");
    }
}

//! The crash-report dialog: a script that Sentry's web part serves, made to report to the mirror.
//!
//! A page loads the script from the mirror, which asks the primary for it. In the script stands the
//! absolute URL to which the form is posted, which is the upstream's own URL of the very request that
//! asked for it. That string is replaced by the mirror's URL of that request, so that the form comes
//! back here and is mirrored to every outbound. Sources of the shape: Sentry's `error-page-embed.js`
//! and `json.dumps_htmlsafe`.
//!
//! Anybody may ask for the script, so it must not tell where the mirror sends to: an answer that still
//! has the key, the secret or the host of an outbound in it is answered 502 instead.

use std::time::Instant;

use memchr::{memchr, memchr2, memchr2_iter, memmem};
use tracing::warn;

use crate::http::head::HeaderName;
use crate::mirror::escapes::unescape;
use crate::mirror::rejection::Rejection;
use crate::mirror::reply::Reply;
use crate::mirror::request::Request;
use crate::mirror::routes::{Outbound, Route};
use crate::mirror::routing_table::RoutingTable;
use crate::sentry::endpoint;
use crate::span::Span;

/// The path of the dialog, which the string to replace holds.
const PATH: &[u8] = b"/api/embed/error-page/";

/// The same with its slashes escaped, as some JSON writers do.
const ESCAPED_PATH: &[u8] = b"\\/api\\/embed\\/error-page\\/";

/// How long a URL may be as it is written into a script. The SDK's options make one of a kilobyte. The
/// script is counted as it came, and a client may take long to read what it becomes.
const URL_BYTES_MAX: usize = 8 * 1024;

/// How long a script may be that is looked through for what it must not tell. Sentry's has 16 KiB.
const SCRIPT_BYTES_MAX: usize = 256 * 1024;

/// The same of any other answer, which may be about every outbound of a route. Sentry's have a few words.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// How many URLs of a script are replaced; Sentry's has one. Each may become longer.
const URLS_MAX: usize = 8;

/// How often escaping is undone, one in the other.
const ESCAPINGS_MAX: usize = 3;

/// The shortest key or secret that is looked for: a shorter one may be part of any word.
const CREDENTIAL_LENGTH_MIN: usize = 8;

/// The public server of Sentry, to which its script has a link for the user.
const PUBLIC_HOST: &[u8] = b"sentry.io";

/// A script with the URLs it posts to replaced.
struct Redirected {
    script: Vec<u8>,
    /// What it has of the upstream's.
    kept: Vec<u8>,
    url_count: usize,
}

/// The answer to a request of the dialog at `route`: what an outbound has answered in `reply`, unless
/// that tells something about an outbound. A script, where one was asked for, posts to the URL that is
/// written in it as `post_to`.
pub(crate) fn passed_on(reply: Reply, route: &Route, post_to: Option<&[u8]>) -> Reply {
    let redirected = match (reply.script(), post_to) {
        (Some(script), Some(post_to)) => Some(redirected(script, post_to)),
        (None, _) | (_, None) => None,
    };
    // The script comes from the primary.
    let asked_count = match post_to {
        Some(_) => 1,
        None => route.outbounds.len(),
    };
    let asked = route.outbounds.get(..asked_count).unwrap_or_default();
    let tells = |text: &[u8]| {
        let bytes_max = match redirected {
            Some(_) => SCRIPT_BYTES_MAX,
            None => ANSWER_BYTES_MAX,
        };
        text.len() > bytes_max || tells_of(text, asked)
    };
    let is_withheld = reply.is_coded()
        || match &redirected {
            Some(redirected) => redirected.url_count > URLS_MAX || tells(&redirected.kept),
            None => reply.texts().any(tells),
        };
    let has_no_url = redirected
        .as_ref()
        .is_some_and(|redirected| redirected.url_count == 0 && !redirected.kept.is_empty());
    if (is_withheld || has_no_url) && route.dialog_lines.is_due(Instant::now()) {
        warn!(
            route = route.name,
            status = reply.status(),
            "{}",
            match is_withheld {
                true =>
                    "an answer of the crash-report dialog names its outbound's key, secret or host, is in a content coding, or is too long, and is not passed on (502)",
                false =>
                    "the script of the crash-report dialog has no URL to replace; its reports do not come to the mirror",
            }
        );
    }
    match redirected {
        _ if is_withheld => Reply::withheld(),
        Some(redirected) => reply.with_script(redirected.script),
        None => reply,
    }
}

/// The script with each URL that it posts to replaced by `url`, or `None` where there is no such string.
pub fn redirect(script: &[u8], url: &[u8]) -> Option<Vec<u8>> {
    let redirected = redirected(script, url);
    (redirected.url_count > 0).then_some(redirected.script)
}

/// Stops behind one URL more than may be replaced.
fn redirected(script: &[u8], url: &[u8]) -> Redirected {
    let mut redirected = Redirected {
        script: Vec::with_capacity(script.len() + url.len()),
        kept: Vec::with_capacity(script.len()),
        url_count: 0,
    };
    let mut copied = 0;
    let literals = memchr2_iter(b'"', b'\'', script).filter_map(|open| literal_from(script, open));
    for literal in literals.take(URLS_MAX + 1) {
        // Within another one.
        if literal.start < copied {
            continue;
        }
        let before = script.get(copied..literal.start).unwrap_or_default();
        redirected.script.extend_from_slice(before);
        redirected.script.extend_from_slice(url);
        redirected.kept.extend_from_slice(before);
        copied = literal.end;
        redirected.url_count += 1;
    }
    let rest = script.get(copied..).unwrap_or_default();
    redirected.script.extend_from_slice(rest);
    redirected.kept.extend_from_slice(rest);
    redirected
}

/// Whether `text` has the key, the secret or the host of one of `outbounds` in it, however it is escaped.
fn tells_of(text: &[u8], outbounds: &[Outbound]) -> bool {
    let mut text = text.to_ascii_lowercase();
    for _ in 0..=ESCAPINGS_MAX {
        if outbounds.iter().any(|outbound| has(&text, outbound)) {
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

/// Whether `text`, in lower case, has the credentials or the host of `outbound` in it.
fn has(text: &[u8], outbound: &Outbound) -> bool {
    // What the padding depends on is left out.
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

/// Whether `host` stands in `text` as that of a URL.
fn has_host(text: &[u8], host: &[u8]) -> bool {
    let is_url = |at: usize| {
        let before = text.get(..at).unwrap_or_default();
        let behind = text.get(at + host.len()..).unwrap_or_default();
        let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_whole = match behind {
            [b'.', next, ..] => !goes_on(next),
            [next, ..] => !goes_on(next),
            [] => true,
        };
        is_whole && (before.ends_with(b"//") || before.ends_with(b"@"))
    };
    host != PUBLIC_HOST && memmem::find_iter(text, host).any(is_url)
}

/// A host without its port.
fn host_name(authority: &str) -> &[u8] {
    let authority = authority.as_bytes();
    let address_end = memchr(b']', authority).map(|at| at + 1);
    let end = address_end.or_else(|| memchr(b':', authority));
    authority
        .get(..end.unwrap_or(authority.len()))
        .unwrap_or(authority)
}

/// The URL to which the script of the crash-report dialog is to post: the one at which the browser sees
/// this request, as a literal of the script.
pub(crate) fn script_url(request: &Request, table: &RoutingTable) -> Result<Vec<u8>, Rejection> {
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
            target,
        ),
    };
    literal(&url).ok_or(Rejection::UrlTooLong)
}

/// The URL of a request as the browser sees it. `host` is the value of its `Host` field and
/// `forwarded_proto` that of `X-Forwarded-Proto`, set by the load balancer that ends TLS, which stands
/// first where balancers behind it append to the list; `target` is its path and query.
pub fn external_url(host: &[u8], forwarded_proto: Option<&[u8]>, target: &[u8]) -> Vec<u8> {
    let outermost = forwarded_proto.and_then(|list| list.split(|byte| *byte == b',').next());
    let scheme: &[u8] = match outermost.map(<[u8]>::trim_ascii) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => b"https",
        Some(_) | None => b"http",
    };
    [scheme, b"://", host, target].concat()
}

/// The content of the string literal that may begin with the quote at `open`, if it is the URL. It is
/// looked at as far as to the next quote of the same kind, so no byte of a script twice for each kind.
fn literal_from(script: &[u8], open: usize) -> Option<Span> {
    let (quote, rest) = script.get(open..)?.split_first()?;
    let starts: [&[u8]; 4] = [b"http://", b"https://", b"http:\\/\\/", b"https:\\/\\/"];
    if !starts.iter().any(|start| rest.starts_with(start)) {
        return None;
    }
    // A literal that holds an URL has no such quote inside, escaped or not.
    let length = memchr2(*quote, b'\n', rest)?;
    let url = rest.get(..length)?;
    let has_path = memmem::find(url, PATH).is_some() || memmem::find(url, ESCAPED_PATH).is_some();
    let is_literal = rest.get(length) == Some(quote);
    (has_path && is_literal).then(|| Span::new(open + 1, open + 1 + length))
}

/// `url` as the content of a string literal, in a script as well as inside HTML; `None` if it is too long
/// for one. It is made of what a client sent, so nothing of it may be taken for code.
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
    fn the_endpoint_of_the_script_becomes_the_mirrors() {
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
    fn another_script_is_left_alone() {
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
    fn a_hostile_script_costs_no_more_than_its_length() {
        let path = "/api/embed/error-page/";
        // Each of these took seconds where every path is looked around from.
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
    fn a_url_that_would_make_the_script_long_is_not_put_into_it() {
        let url = |apostrophes: usize| [URL, &b"'".repeat(apostrophes)].concat();
        assert!(literal(&url(1000)).is_some());
        assert_eq!(literal(&url(URL_BYTES_MAX / 6)), None);
    }

    #[test]
    fn nothing_of_a_request_can_become_code() {
        let url = external_url(
            b"h\"</script><script>alert(1)//",
            Some(b"HTTPS"),
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
    fn the_external_url_follows_the_load_balancer() {
        let url = |proto| external_url(b"m:3000", proto, b"/api/x");
        assert_eq!(url(None), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"http")), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"https")), b"https://m:3000/api/x");
        assert_eq!(url(Some(b"https,http")), b"https://m:3000/api/x");
        assert_eq!(url(Some(b" HTTPS , http")), b"https://m:3000/api/x");
        assert_eq!(url(Some(b"http,https")), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"")), b"http://m:3000/api/x");
        assert_eq!(url(Some(b"gopher")), b"http://m:3000/api/x");
    }
}

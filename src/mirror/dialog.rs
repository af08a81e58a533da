//! The crash-report dialog: a script that Sentry's web part serves, made to report to the mirror.
//!
//! A page loads the script from the mirror, which asks the primary for it. In the script stands the
//! absolute URL to which the form is posted, which is the upstream's own URL of the very request that
//! asked for it. That one string is replaced by the mirror's URL of that request, so that the form
//! comes back here and is mirrored to every outbound. Sources of the shape: Sentry's
//! `error-page-embed.js` and `json.dumps_htmlsafe`.

use memchr::{memchr2, memchr2_iter, memmem};

use crate::span::Span;

/// The path of the dialog, which the string to replace holds.
const PATH: &[u8] = b"/api/embed/error-page/";

/// The same with its slashes escaped, as some JSON writers do.
const ESCAPED_PATH: &[u8] = b"\\/api\\/embed\\/error-page\\/";

/// How long a URL may be as it is written into a script. The SDK's options make one of a kilobyte. The
/// script is counted as it came, and a client may take long to read what it becomes.
const URL_BYTES_MAX: usize = 8 * 1024;

/// The script with the URL it posts to replaced by `url`, or `None` where there is no such string, or
/// `url` is too long for one.
pub fn redirect(script: &[u8], url: &[u8]) -> Option<Vec<u8>> {
    let literal = find_literal(script)?;
    let safe = html_safe(url)?;
    let mut out = Vec::with_capacity(script.len() + safe.len());
    out.extend_from_slice(script.get(..literal.start)?);
    out.extend_from_slice(&safe);
    out.extend_from_slice(script.get(literal.end..)?);
    Some(out)
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

/// The content of the first string literal that holds the dialog's URL.
fn find_literal(script: &[u8]) -> Option<Span> {
    let mut quotes = memchr2_iter(b'"', b'\'', script);
    quotes.find_map(|open| literal_from(script, open))
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

/// `url`, written so that it stays one string literal, in a script as well as inside HTML. It is made of
/// what a client sent, so nothing of it may be taken for code.
fn html_safe(url: &[u8]) -> Option<Vec<u8>> {
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
        redirect(script.as_bytes(), URL).map(|script| String::from_utf8(script).unwrap())
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
            redirect(script.as_bytes(), URL);
            assert!(started.elapsed().as_millis() < 500, "{piece}");
        }
    }

    #[test]
    fn a_url_that_would_make_the_script_long_is_not_put_into_it() {
        let script = b"e=\"http://h/api/embed/error-page/\"";
        let url = |apostrophes: usize| [URL, &b"'".repeat(apostrophes)].concat();
        assert!(redirect(script, &url(1000)).is_some());
        assert_eq!(redirect(script, &url(URL_BYTES_MAX / 6)), None);
    }

    #[test]
    fn nothing_of_a_request_can_become_code() {
        let url = external_url(
            b"h\"</script><script>alert(1)//",
            Some(b"HTTPS"),
            b"/api/embed/error-page/?a='+x+\"\\",
        );
        let script = redirect(b"e=\"http://h/api/embed/error-page/\"", &url).unwrap();
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

use proptest::prelude::*;

use super::AuthHeader::{Authorization, XSentryAuth};
use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

type Found = Result<Option<(Source, String)>, AuthError>;

/// A head built of parts, with the span of each.
#[derive(Default)]
struct Request {
    head: Vec<u8>,
    headers: Vec<(AuthHeader, Span)>,
    query: Option<Span>,
    path_key: Option<Span>,
}

impl Request {
    fn append(&mut self, text: impl AsRef<[u8]>) -> Span {
        self.head.push(b'\n');
        let start = self.head.len();
        self.head.extend_from_slice(text.as_ref());
        Span::new(start, self.head.len())
    }

    fn header(mut self, header: AuthHeader, value: impl AsRef<[u8]>) -> Request {
        let span = self.append(value);
        self.headers.push((header, span));
        self
    }

    fn query(mut self, query: &str) -> Request {
        self.query = Some(self.append(query));
        self
    }

    fn path_key(mut self, segment: &str) -> Request {
        self.path_key = Some(self.append(segment));
        self
    }

    fn find(&self) -> (Found, Vec<Edit>) {
        let mut edits = Vec::new();
        let headers = self.headers.iter().copied();
        let found = find(&self.head, headers, self.query, self.path_key, &mut edits);
        let found = found.map(|found| {
            found.map(|found| {
                let key = String::from_utf8_lossy(found.bytes(&self.head)).into_owned();
                (found.source, key)
            })
        });
        edits.sort_by_key(|edit| edit.span.start);
        (found, edits)
    }

    /// The head for an outbound with the key `OUT` and this secret.
    fn rewritten(&self, secret: Option<&str>) -> String {
        rewrite(&self.head, &self.find().1, secret)
    }
}

fn rewrite(head: &[u8], edits: &[Edit], secret: Option<&str>) -> String {
    let mut out = Vec::new();
    let mut at = 0;
    for edit in edits {
        assert!(at <= edit.span.start, "overlapping edits: {edits:?}");
        out.extend_from_slice(&head[at..edit.span.start]);
        match (edit.replacement, secret) {
            (Replacement::Key, _) => out.extend_from_slice(b"OUT"),
            (Replacement::PublicDsn, _) => out.extend_from_slice(b"https://OUT@out/1"),
            (Replacement::SecretParameter { value }, Some(secret)) => {
                out.extend_from_slice(&head[edit.span.start..value.start]);
                out.extend_from_slice(secret.as_bytes());
                out.extend_from_slice(&head[value.end..edit.span.end]);
            }
            (Replacement::SecretParameter { .. }, None) | (Replacement::Nothing, _) => {}
            (Replacement::KeyParameter, _) => out.extend_from_slice(b"sentry_key=OUT"),
            (Replacement::BasicCredentials { with_secret }, secret) => {
                let secret = secret.filter(|_| with_secret).unwrap_or_default();
                out.extend_from_slice(STANDARD.encode(format!("OUT:{secret}")).as_bytes());
            }
            (other, _) => panic!("unexpected {other:?}"),
        }
        at = edit.span.end;
    }
    out.extend_from_slice(&head[at..]);
    String::from_utf8_lossy(&out).into_owned()
}

/// `KEY` in the text stands for a key.
fn with_key(text: &str) -> String {
    text.replace("KEY", KEY)
}

fn x_sentry_auth(value: &str) -> Request {
    Request::default().header(XSentryAuth, with_key(value))
}

#[test]
fn auth_headers_of_sdks_are_rewritten() {
    for (value, without_secret, with_secret) in [
        (
            "Sentry sentry_key=KEY, sentry_version=7, sentry_client=sentry.python/2.75.0",
            "Sentry sentry_key=OUT, sentry_version=7, sentry_client=sentry.python/2.75.0",
            "Sentry sentry_key=OUT, sentry_version=7, sentry_client=sentry.python/2.75.0",
        ),
        (
            "Sentry sentry_key=KEY, sentry_version=7, sentry_client=p/2, sentry_secret=in",
            "Sentry sentry_key=OUT, sentry_version=7, sentry_client=p/2",
            "Sentry sentry_key=OUT, sentry_version=7, sentry_client=p/2, sentry_secret=NEW",
        ),
        (
            "Sentry sentry_version=7,sentry_client=sentry.java/8.53.0,sentry_key=KEY,sentry_secret=in",
            "Sentry sentry_version=7,sentry_client=sentry.java/8.53.0,sentry_key=OUT",
            "Sentry sentry_version=7,sentry_client=sentry.java/8.53.0,sentry_key=OUT,sentry_secret=NEW",
        ),
        (
            "Sentry sentry_version=5, sentry_client=sentry-elixir/13.5.0, sentry_timestamp=1, sentry_key=KEY",
            "Sentry sentry_version=5, sentry_client=sentry-elixir/13.5.0, sentry_timestamp=1, sentry_key=OUT",
            "Sentry sentry_version=5, sentry_client=sentry-elixir/13.5.0, sentry_timestamp=1, sentry_key=OUT",
        ),
        (
            "sentry sentry_secret=in, sentry_key=KEY",
            "sentry sentry_key=OUT",
            "sentry sentry_secret=NEW, sentry_key=OUT",
        ),
        (
            "SENTRY sentry_secret=a,sentry_secret=b,sentry_key=KEY,sentry_secret=c,sentry_secret=d,x=1",
            "SENTRY sentry_key=OUT,x=1",
            "SENTRY sentry_secret=NEW,sentry_secret=NEW,sentry_key=OUT,sentry_secret=NEW,sentry_secret=NEW,x=1",
        ),
        (
            "Sentry   sentry_key = KEY ,, , sentry_secret = a=b , x",
            "Sentry   sentry_key = OUT ,, , x",
            "Sentry   sentry_key = OUT ,, , sentry_secret = NEW , x",
        ),
        (
            "Sentry sentry_key=KEY.no-cache, sentry_version=7.1",
            "Sentry sentry_key=OUT.no-cache, sentry_version=7.1",
            "Sentry sentry_key=OUT.no-cache, sentry_version=7.1",
        ),
    ] {
        for (header, source) in [
            (XSentryAuth, Source::XSentryAuth),
            (Authorization, Source::Authorization),
        ] {
            let request = Request::default().header(header, with_key(value));
            assert_eq!(request.find().0, Ok(Some((source, KEY.into()))), "{value}");
            assert_eq!(request.rewritten(None), format!("\n{without_secret}"));
            assert_eq!(request.rewritten(Some("NEW")), format!("\n{with_secret}"));
        }
    }
}

#[test]
fn auth_values_that_relay_ignores_are_no_source() {
    for value in [
        "",
        "Sentry",
        "Sentry\tsentry_key=KEY",
        "Sentry,sentry_key=KEY",
        "sentry_key=KEY",
        "Bearer sentry_key=KEY",
        "Sentry sentry_key=KEY, sentry_client=é/1",
        "Sentry sentry_key=KEY, sentry_client=\u{1}",
    ] {
        assert_eq!(x_sentry_auth(value).find().0, Ok(None), "{value}");
    }
    let bearer = Request::default().header(Authorization, "Bearer abc");
    assert_eq!(bearer.find(), (Ok(None), vec![]));
    assert_eq!(Request::default().find(), (Ok(None), vec![]));
}

#[test]
fn malformed_auth_values_are_rejected() {
    for (value, error) in [
        ("Sentry ", AuthError::Unparsable),
        ("Sentry sentry_version=7", AuthError::Unparsable),
        ("Sentry sentry_key=", AuthError::Unparsable),
        ("Sentry sentry_key=KEY,sentry_key=", AuthError::Unparsable),
        ("Sentry Sentry_Key=KEY", AuthError::Unparsable),
        (
            "Sentry sentry_version=7 sentry_key=KEY",
            AuthError::Unparsable,
        ),
        (
            "Sentry sentry_key=KEY,sentry_version=",
            AuthError::Unparsable,
        ),
        (
            "Sentry sentry_key=KEY,sentry_version=x",
            AuthError::Unparsable,
        ),
        (
            "Sentry sentry_key=KEY,sentry_version=65536",
            AuthError::Unparsable,
        ),
        (
            "Sentry sentry_key=KEY,sentry_version=8",
            AuthError::BadVersion,
        ),
        (
            "Sentry sentry_key=KEY,sentry_version=8.1",
            AuthError::BadVersion,
        ),
    ] {
        assert_eq!(x_sentry_auth(value).find().0, Err(error), "{value}");
    }
}

#[test]
fn the_last_of_several_keys_counts_and_all_are_rewritten() {
    let request = x_sentry_auth("Sentry sentry_key=first,sentry_key=KEY");
    assert_eq!(
        request.find().0,
        Ok(Some((Source::XSentryAuth, KEY.into())))
    );
    assert_eq!(
        request.rewritten(None),
        "\nSentry sentry_key=OUT,sentry_key=OUT"
    );
}

#[test]
fn quotes_have_no_meaning() {
    let (found, _) = x_sentry_auth("Sentry sentry_key=\"KEY\"").find();
    assert_eq!(found, Ok(Some((Source::XSentryAuth, format!("\"{KEY}\"")))));
}

#[test]
fn the_first_line_counts_and_all_are_rewritten() {
    let request = x_sentry_auth("Sentry sentry_key=KEY")
        .header(XSentryAuth, "Sentry sentry_secret=in, sentry_key=second");
    assert_eq!(
        request.find().0,
        Ok(Some((Source::XSentryAuth, KEY.into())))
    );
    assert_eq!(
        request.rewritten(None),
        "\nSentry sentry_key=OUT\nSentry sentry_key=OUT"
    );

    let request = x_sentry_auth("Sentry sentry_key=KEY")
        .header(XSentryAuth, "Sentry sentry_version=x,sentry_key=second");
    assert_eq!(
        request.rewritten(None),
        "\nSentry sentry_key=OUT\nSentry sentry_version=x,sentry_key=OUT"
    );

    let request = x_sentry_auth("").header(XSentryAuth, "Sentry sentry_key=second");
    assert_eq!(request.find().0, Ok(None));
}

#[test]
fn an_ignored_line_leaks_no_key_and_stays_ignored() {
    for (value, rewritten) in [
        // Bytes beyond ASCII are kept, and the keys beside them are replaced.
        (
            "Sentry sentry_key=KEY,sentry_client=é/1",
            "Sentry sentry_key=OUT,sentry_client=é/1",
        ),
        (
            "sentry é, sentry_secret=in ,sentry_key=KEY.é",
            "sentry é, sentry_key=OUT.é",
        ),
        // Without the bytes for which Relay ignores it, the line would be a source.
        ("Sentry sentry_key=é,sentry_client=a/1", ""),
        ("Sentry sentry_key=KEY,sentry_secret=é", ""),
        // A key outside the parameters of the list.
        ("Sentry sentry_client=é sentry_key=KEY", ""),
        ("Sentry é;sentry_secret=in", ""),
        // Without the scheme, the line is emptied.
        ("sentry_key=KEY", ""),
        ("Sentry\tsentry_key=KEY", ""),
        ("Bearer sentry_key=KEY, sentry_secret=in", ""),
        ("KEY", ""),
        ("", ""),
    ] {
        let request = x_sentry_auth(value).path_key(KEY);
        assert_eq!(request.find().0, Ok(Some((Source::Path, KEY.into()))));
        assert_eq!(
            request.rewritten(None),
            format!("\n{rewritten}\nOUT"),
            "{value}"
        );
    }
    // Other services use the header too.
    for (value, rewritten) in [
        ("Bearer é", "Bearer é"),
        ("Bearer KEY", "Bearer KEY"),
        ("sentry_key=KEY", ""),
        ("Sentry\tsentry_secret=in", ""),
        ("Sentry,sentry_secre%74=in", ""),
        ("", ""),
    ] {
        let request = Request::default()
            .header(Authorization, value)
            .path_key(KEY);
        let expected = format!("\n{rewritten}\nOUT");
        assert_eq!(request.rewritten(None), expected, "{value}");
    }
}

#[test]
fn parameters_with_unusual_spellings_of_a_key_name_are_removed() {
    for (list, rewritten) in [
        (
            "sentry_key=KEY,sentry_client=x;sentry_secret=in",
            "sentry_key=OUT",
        ),
        (
            "sentry_secre%74=in,sentry_client=x,sentry_key=KEY",
            "sentry_client=x,sentry_key=OUT",
        ),
        (
            "sentry_key=KEY,sentry_version=7.;sentry_secret=in",
            "sentry_key=OUT",
        ),
        ("sentry_key=KEY,Sentry_Secret=in,a=b", "sentry_key=OUT,a=b"),
        ("sentry_key=KEY,sentry_secret:in", "sentry_key=OUT"),
        ("sentry_key=KEY.x;sentry_secret=in", "sentry_key=OUT"),
    ] {
        let header = x_sentry_auth(&format!("Sentry {list}"));
        assert_eq!(header.rewritten(None), format!("\nSentry {rewritten}"));
        let in_query = |list: &str| list.replace(',', "&");
        let query = Request::default().query(&in_query(&with_key(list)));
        assert_eq!(
            query.rewritten(None),
            format!("\n{}", in_query(rewritten)),
            "{list}"
        );
    }
    // Relay ignores a query without the plain text `sentry_`.
    for (query, rewritten) in [
        ("sentr%79_key=KEY&a=b", "a=b"),
        ("a=b&sentr%79_secret=in&c=d", "a=b&c=d"),
        ("sentr%2579_key=KEY&%73entr%79%5fsecret=in", ""),
        ("Sentry_Secret=in&a", "a"),
        ("a=%20b", "a=%20b"),
    ] {
        let request = Request::default().query(&with_key(query)).path_key(KEY);
        assert_eq!(request.find().0, Ok(Some((Source::Path, KEY.into()))));
        assert_eq!(request.rewritten(None), format!("\n{rewritten}\nOUT"));
    }
}

#[test]
fn lines_after_the_first_leak_no_key() {
    for (value, rewritten) in [
        (
            "Sentry sentry_client=a/é,sentry_key=in",
            "Sentry sentry_client=a/é,sentry_key=OUT",
        ),
        ("Sentry sentry_version=7 sentry_key=in", ""),
        ("sentry_key=in", ""),
    ] {
        let request = x_sentry_auth("Sentry sentry_key=KEY").header(XSentryAuth, value);
        let expected = format!("\nSentry sentry_key=OUT\n{rewritten}");
        assert_eq!(request.rewritten(None), expected, "{value}");
    }
}

#[test]
fn keys_in_queries_are_rewritten() {
    for (query, rewritten) in [
        (
            "sentry_version=7&sentry_key=KEY&sentry_client=sentry.javascript.node%2F11.12.0",
            "sentry_version=7&sentry_key=OUT&sentry_client=sentry.javascript.node%2F11.12.0",
        ),
        (
            "sentry_client=sentry.native/0.16.3&sentry_key=KEY&product=x%20y&&guid=",
            "sentry_client=sentry.native/0.16.3&sentry_key=OUT&product=x%20y&&guid=",
        ),
        ("sentry_key=KEY", "sentry_key=OUT"),
        ("sentry_key=KEY.no-cache", "sentry_key=OUT.no-cache"),
        (
            "x_sentry_key=1&sentry_key=KEY",
            "x_sentry_key=1&sentry_key=OUT",
        ),
        ("sentry_secret=a&sentry_key=KEY", "sentry_key=OUT"),
        ("sentry_key=KEY&sentry_secret=a", "sentry_key=OUT"),
        (
            "sentry_key=other&sentry_secret=a&sentry_secret=b&sentry_key=KEY&y=1",
            "sentry_key=OUT&sentry_key=OUT&y=1",
        ),
        (
            "sentry%5Fkey=KEY&sentry_version=7",
            "sentry_key=OUT&sentry_version=7",
        ),
    ] {
        let request = Request::default().query(&with_key(query));
        let found = request.find().0;
        assert_eq!(found, Ok(Some((Source::Query, KEY.into()))), "{query}");
        assert_eq!(request.rewritten(None), format!("\n{rewritten}"));
    }
}

#[test]
fn a_percent_encoded_key_is_decoded() {
    for (query, rewritten) in [
        ("sentry_key=%61b%2Dc", "sentry_key=OUT"),
        ("sentry_key=%61b%2Dc.no-cache", "sentry_key=OUT.no-cache"),
        (
            "sentry_key=%61b-c%2eno-cache.x",
            "sentry_key=OUT%2eno-cache.x",
        ),
    ] {
        let request = Request::default().query(query);
        assert_eq!(request.find().0, Ok(Some((Source::Query, "ab-c".into()))));
        assert_eq!(request.rewritten(None), format!("\n{rewritten}"));
    }
}

#[test]
fn a_query_with_the_text_sentry_is_a_source() {
    for (query, expected) in [
        ("foo=bar", Ok(None)),
        ("sentry%5Fkey=KEY", Ok(None)),
        ("AppID=CrashReporter&UserID=1", Ok(None)),
        ("sentry_release=1", Err(AuthError::Unparsable)),
        ("x=sentry_", Err(AuthError::Unparsable)),
        (
            "sentry_key=KEY&sentry_version=9",
            Err(AuthError::BadVersion),
        ),
    ] {
        let request = Request::default().query(&with_key(query));
        assert_eq!(request.find().0, expected, "{query}");
    }
    let request = x_sentry_auth("Sentry sentry_key=KEY").query("foo=bar");
    assert_eq!(
        request.find().0,
        Ok(Some((Source::XSentryAuth, KEY.into())))
    );
}

#[test]
fn basic_credentials_are_rewritten() {
    for (user_info, with_secret, key) in [
        ("KEY:", false, Some(KEY)),
        ("KEY:secret", true, Some(KEY)),
        ("KEY.no-cache:a:b", true, Some(KEY)),
        ("KEY", false, None),
        (":secret", false, None),
        ("", false, None),
    ] {
        let value = format!("bASIC {}", STANDARD.encode(with_key(user_info)));
        let request = Request::default().header(Authorization, &value);
        let (found, edits) = request.find();
        assert_eq!(found, Ok(key.map(|key| (Source::Basic, key.into()))));
        let replacement = Replacement::BasicCredentials { with_secret };
        let span = Span::new("\nBasic ".len(), value.len() + 1);
        let expected = key.map(|_| Edit { span, replacement });
        assert_eq!(edits, Vec::from_iter(expected), "{user_info}");
    }
    for value in [
        "Basic",
        "Basic ",
        "Basic ?",
        "Basic  S0VZOg==",
        "Basic S0VZOg",
        "Basic /zo=",
    ] {
        let request = Request::default().header(Authorization, value);
        assert_eq!(request.find(), (Ok(None), vec![]), "{value}");
    }
    let request = x_sentry_auth("Basic S0VZOg==");
    assert_eq!(request.find().0, Ok(None));
    assert_eq!(request.rewritten(None), "\n");
}

#[test]
fn keys_in_paths_are_rewritten() {
    for (segment, key, rewritten) in [
        (KEY, KEY, "OUT"),
        ("k.no-cache", "k", "OUT.no-cache"),
        ("%6b", "k", "OUT"),
    ] {
        let request = Request::default().path_key(segment);
        assert_eq!(request.find().0, Ok(Some((Source::Path, key.into()))));
        assert_eq!(request.rewritten(None), format!("\n{rewritten}"));
    }
}

#[test]
fn more_than_one_source_is_rejected() {
    let sources: [fn(Request) -> Request; 5] = [
        |request| request.header(XSentryAuth, "Sentry sentry_key=a"),
        |request| request.header(Authorization, "Sentry sentry_key=a"),
        |request| request.header(Authorization, "Basic YTo="),
        |request| request.query("sentry_key=a"),
        |request| request.path_key("a"),
    ];
    for (i, first) in sources.iter().enumerate() {
        for (j, second) in sources.iter().enumerate() {
            // Two lines of one header are one source, and so are two queries.
            if i == j || (i, j) == (1, 2) || (i, j) == (2, 1) {
                continue;
            }
            let request = second(first(Request::default()));
            assert_eq!(request.find().0, Err(AuthError::Multiple), "{i} and {j}");
        }
    }
}

#[test]
fn the_dsn_of_the_crash_report_dialog_is_rewritten() {
    for (query, key, rewritten) in [
        (
            "dsn=https://KEY@h/42&eventId=1",
            Some(KEY),
            "dsn=https://OUT@out/1&eventId=1",
        ),
        (
            "a=1&dsn=https%3A%2F%2FKEY%3As%40h%2F42",
            Some(KEY),
            "a=1&dsn=https://OUT@out/1",
        ),
        (
            "dsn=https://k@h/1&dsn=https://KEY@h/42",
            Some(KEY),
            "dsn=https://OUT@out/1&dsn=https://OUT@out/1",
        ),
        ("eventId=1", None, "eventId=1"),
    ] {
        let head = with_key(query).into_bytes();
        let mut edits = Vec::new();
        let found = find_in_dsn_parameter(&head, Span::new(0, head.len()), &mut edits);
        assert_eq!(
            found.as_ref().map(|found| found.source),
            key.map(|_| Source::Query)
        );
        assert_eq!(
            found.as_ref().map(|found| found.bytes(&head)),
            key.map(str::as_bytes)
        );
        assert_eq!(rewrite(&head, &edits, None), rewritten);
    }
}

#[test]
fn well_formed_keys_are_32_ascii_characters() {
    assert!(is_well_formed(KEY.as_bytes()));
    assert!(is_well_formed(&[b'Z'; 32]));
    assert!(!is_well_formed(&KEY.as_bytes()[1..]));
    assert!(!is_well_formed(&[b'a'; 33]));
    assert!(!is_well_formed("é".repeat(16).as_bytes()));
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("sentry_secret=in".to_owned()),
        Just(" sentry_secret = in ".to_owned()),
        Just("sentry_key=in".to_owned()),
        Just("sentry_version=7".to_owned()),
        "[a-z= ]{0,6}",
    ]
}

/// The parameters of a list in their order, as a server sees them.
fn seen(list: &str, separator: char) -> Vec<(String, String)> {
    list.split(separator)
        .filter_map(|piece| piece.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

proptest! {
    /// The reference splits the list and filters it.
    #[test]
    fn lists_are_rewritten_as_by_the_reference(
        pieces in proptest::collection::vec(piece(), 0..7),
        secret in proptest::option::of(Just("NEW")),
    ) {
        for (syntax, separator) in [(Syntax::Header, ','), (Syntax::Query, '&')] {
            let list = pieces.join(&separator.to_string());
            let head = list.as_bytes();
            let mut edits = Vec::new();
            let found = read_list(head, Span::new(0, head.len()), syntax, &mut edits);
            let rewritten = rewrite(head, &edits, secret);
            let expected: Vec<_> = seen(&list, separator)
                .into_iter()
                .filter_map(|(name, value)| match name.as_str() {
                    "sentry_secret" => Some((name, secret?.to_owned())),
                    "sentry_key" => Some((name, "OUT".to_owned())),
                    _ => Some((name, value)),
                })
                .collect();
            prop_assert_eq!(found.is_ok(), list.contains("sentry_key="));
            prop_assert_eq!(seen(&rewritten, separator), expected, "{} -> {}", list, rewritten);
        }
    }

    #[test]
    fn versions_are_parsed_as_by_the_standard_library(text in "[0-9.+-]{0,7}") {
        let number = text.split('.').next().unwrap();
        prop_assert_eq!(read_version(text.as_bytes()), number.parse().ok());
    }

    #[test]
    fn a_key_in_a_query_ends_at_its_first_dot(value in "(k|\\.|%2e|%2E|%|%2|2|e){0,8}") {
        let mut edits = Vec::new();
        let span = Span::new(0, value.len());
        read_key(value.as_bytes(), span, Syntax::Query, &mut edits);
        let dots = [value.find('.'), value.to_lowercase().find("%2e")];
        let end = dots.into_iter().flatten().min().unwrap_or(value.len());
        prop_assert_eq!(edits, [Edit { span: Span::new(0, end), replacement: Replacement::Key }]);
    }

    #[test]
    fn one_byte_makes_a_value_invisible(value in "[ -~\t]{1,80}", byte: u8, at: usize) {
        prop_assert!(is_visible(value.as_bytes()));
        let mut bytes = value.into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        prop_assert_eq!(is_visible(&bytes), matches!(byte, b' '..=b'~' | b'\t'));
    }

    #[test]
    fn any_bytes_are_parsed(
        lines in proptest::collection::vec((any::<bool>(), any::<Vec<u8>>()), 0..3),
        tail: Vec<u8>,
    ) {
        let mut request = Request::default();
        for (x_sentry_auth, mut value) in lines {
            value.splice(0..0, b"sentry sentry_key=".iter().copied());
            let header = if x_sentry_auth { XSentryAuth } else { Authorization };
            request = request.header(header, value);
        }
        request = request.query(&String::from_utf8_lossy(&tail));
        request.rewritten(None);
    }
}

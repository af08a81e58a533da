use proptest::prelude::*;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::EnvelopeError::{Empty, Malformed, NotAnObject, TooDeep, UnexpectedEnd};
use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Scans `body` and applies the edits.
fn rewrite(body: &[u8]) -> Result<(EnvelopeHeader, Vec<u8>), EnvelopeError> {
    let mut edits = Vec::new();
    let header = scan(body, &mut edits)?;
    let mut out = Vec::new();
    let mut at = 0;
    for edit in edits {
        assert!(at <= edit.span.start, "out of order");
        assert!(edit.span.end < header.end, "outside of the header");
        out.extend_from_slice(&body[at..edit.span.start]);
        out.extend_from_slice(match edit.replacement {
            Replacement::Dsn => b"OUT_DSN",
            Replacement::TraceKey => b"OUT_KEY",
            other => panic!("unexpected {other:?}"),
        });
        at = edit.span.end;
    }
    out.extend_from_slice(&body[at..]);
    Ok((header, out))
}

/// Headers of real SDKs. `KEY` is the inbound key; `<…>` marks text that is replaced.
#[test]
fn headers_of_sdks_are_rewritten() {
    for marked in [
        // Python 2.75
        r#"{"event_id":"e","sent_at":"2026-11-23T15:32:05.903898Z","trace":{"trace_id":"t","environment":"prod","release":"app@1.2.3","public_key":"<KEY>","sample_rate":"1.0"}}"#,
        // Node 11
        r#"{"event_id":"e","sent_at":"s","sdk":{"name":"sentry.javascript.node","version":"11.12.0"},"trace":{"environment":"p","release":"r","public_key":"<KEY>","trace_id":"t"}}"#,
        r#"{"sdk":{"name":"sentry.javascript.node","version":"11.12.0"}}"#,
        // JavaScript through a tunnel
        r#"{"event_id":"e","sent_at":"s","sdk":{"name":"j","version":"1"},"dsn":"<http://KEY@mirror.example.com:9105/42>","trace":{"public_key":"<KEY>"}}"#,
        // Java
        r#"{"event_id":"e","sdk":{"name":"sentry.java.android","packages":[{"name":"maven:io.sentry","version":"8"}],"integrations":["A","B"]},"trace":{"trace_id":"t","public_key":"<KEY>","sampled":"true"},"sent_at":"s"}"#,
        // Go 0.47: secret, port and prefix
        r#"{"event_id":"e","sent_at":"s","dsn":"<http://KEY:sec@mirror.example.com:9109/a/b/42>","sdk":{"name":"sentry.go","version":"0.47.0","integrations":["\u003cx\u003e"],"packages":[]},"trace":{"environment":"prod","public_key":"<KEY>","release":"r"}}"#,
        // Rust 0.49: no trace at all
        r#"{"event_id":"f8f8b981-960e-448a-87ae-fb58fc61541b"}"#,
        r#"{}"#,
        // native 0.16: numbers unquoted
        r#"{"dsn":"<http://KEY@mirror.example.com/42>","event_id":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5","trace":{"public_key":"<KEY>","sample_rate":1,"sample_rand":0.1263391142495743,"sampled":"true"}}"#,
        // PHP 4: slashes escaped
        r#"{"sent_at":"s","dsn":"<https:\/\/KEY@mirror.example.com\/42>","sdk":{"name":"php"},"event_id":"e","trace":{"public_key":"<KEY>"}}"#,
        // Ruby 6
        r#"{"event_id":"e","dsn":"<http://KEY@mirror.example.com/42>","sdk":{"name":"sentry.ruby","version":"6.6.2"},"sent_at":"s","trace":{"trace_id":"t","public_key":"<KEY>"}}"#,
        // Relay in proxy mode
        r#"{"event_id":"e","dsn":"<https://KEY:@mirror/42>","client":"sentry.python/2.75.0","version":7,"remote_addr":"10.0.0.3","forwarded_for":"","trace":{"public_key":"<KEY>"}}"#,
    ] {
        let sent = marked.replace(['<', '>'], "").replace("KEY", KEY);
        let mut expected = String::new();
        for (index, part) in marked.split(['<', '>']).enumerate() {
            match (index % 2, part) {
                (0, part) => expected.push_str(part),
                (_, "KEY") => expected.push_str("OUT_KEY"),
                (_, _) => expected.push_str("OUT_DSN"),
            }
        }
        for tail in ["", "\n", "\n{\"type\":\"event\"}\n{\"dsn\":\"x\"}"] {
            let (header, rewritten) = rewrite(format!("{sent}{tail}").as_bytes()).unwrap();
            assert_eq!(header.end, sent.len());
            assert_eq!(
                String::from_utf8(rewritten).unwrap(),
                format!("{expected}{tail}")
            );
            let event_id = header.event_id.map(|span| span.slice(sent.as_bytes()));
            assert_eq!(event_id.is_some(), sent.contains("event_id"));
            if let Some(dsn) = header.dsn {
                let dsn = unescape(dsn.slice(sent.as_bytes()));
                assert_eq!(crate::sentry::dsn::key_in_text(&dsn), Some(KEY.as_bytes()));
            }
            if let Some(key) = header.trace_key {
                assert_eq!(key.slice(sent.as_bytes()), KEY.as_bytes());
            }
        }
    }
}

#[test]
fn only_top_level_members_are_rewritten() {
    for (sent, rewritten) in [
        // White space before the header and inside it.
        ("\n \t\r\n{\"dsn\":\"a\"}", "\n \t\r\n{\"dsn\":\"OUT_DSN\"}"),
        (
            "{\n  \"dsn\" : \"a\" ,\n  \"trace\" : {\n \"public_key\"\t:\n\"b\" } }\n",
            "{\n  \"dsn\" : \"OUT_DSN\" ,\n  \"trace\" : {\n \"public_key\"\t:\n\"OUT_KEY\" } }\n",
        ),
        // Bytes after the header are ignored.
        ("{}\r\n", "{}\r\n"),
        ("{} ", "{} "),
        ("{}{\"dsn\":\"a\"}", "{}{\"dsn\":\"a\"}"),
        // Values that are not strings.
        (r#"{"dsn":null}"#, r#"{"dsn":null}"#),
        (r#"{"dsn":42}"#, r#"{"dsn":42}"#),
        (r#"{"dsn":{"dsn":"a"}}"#, r#"{"dsn":{"dsn":"a"}}"#),
        (r#"{"trace":null}"#, r#"{"trace":null}"#),
        (r#"{"trace":"public_key"}"#, r#"{"trace":"public_key"}"#),
        (
            r#"{"trace":[{"public_key":"a"}]}"#,
            r#"{"trace":[{"public_key":"a"}]}"#,
        ),
        (
            r#"{"trace":{"public_key":null}}"#,
            r#"{"trace":{"public_key":null}}"#,
        ),
        (r#"{"trace":{}}"#, r#"{"trace":{}}"#),
        // Other members with these names.
        (r#"{"public_key":"a"}"#, r#"{"public_key":"a"}"#),
        (r#"{"sdk":{"dsn":"a"}}"#, r#"{"sdk":{"dsn":"a"}}"#),
        (
            r#"{"sdk":{"trace":{"public_key":"a"}}}"#,
            r#"{"sdk":{"trace":{"public_key":"a"}}}"#,
        ),
        (
            r#"{"trace":{"dsn":"a","x":{"public_key":"a"}}}"#,
            r#"{"trace":{"dsn":"a","x":{"public_key":"a"}}}"#,
        ),
        (r#"{"a":"\"dsn\":\"b\""}"#, r#"{"a":"\"dsn\":\"b\""}"#),
        (
            r#"{"Dsn":"a","dsn ":"a","":"a"}"#,
            r#"{"Dsn":"a","dsn ":"a","":"a"}"#,
        ),
        // Names with escapes.
        (r#"{"d\u0073n":"a"}"#, r#"{"d\u0073n":"OUT_DSN"}"#),
        (
            r#"{"\u0064\u0073\u006E":"a"}"#,
            r#"{"\u0064\u0073\u006E":"OUT_DSN"}"#,
        ),
        (
            r#"{"trac\u0065":{"public\u005fkey":"a"}}"#,
            r#"{"trac\u0065":{"public\u005fkey":"OUT_KEY"}}"#,
        ),
        // Duplicates.
        (
            r#"{"dsn":"a","dsn":"b"}"#,
            r#"{"dsn":"OUT_DSN","dsn":"OUT_DSN"}"#,
        ),
        (
            r#"{"trace":{"public_key":"a"},"dsn":"c","trace":{"public_key":"b","public_key":""}}"#,
            r#"{"trace":{"public_key":"OUT_KEY"},"dsn":"OUT_DSN","trace":{"public_key":"OUT_KEY","public_key":"OUT_KEY"}}"#,
        ),
        // Escapes and multi-byte characters nearby.
        (
            r#"{"a":"\\","b":"\\\"","é\u00e9":"ü😀\ud83d\ude00","dsn":"\"\\"}"#,
            r#"{"a":"\\","b":"\\\"","é\u00e9":"ü😀\ud83d\ude00","dsn":"OUT_DSN"}"#,
        ),
        (
            r#"{"a":[[],{},[1,-2.5e+3,true,null,{"b":"]}"}]],"dsn":"x"}"#,
            r#"{"a":[[],{},[1,-2.5e+3,true,null,{"b":"]}"}]],"dsn":"OUT_DSN"}"#,
        ),
    ] {
        let (_, out) = rewrite(sent.as_bytes()).unwrap_or_else(|error| panic!("{sent}: {error}"));
        assert_eq!(String::from_utf8(out).unwrap(), rewritten);
    }
}

#[test]
fn malformed_headers_are_rejected() {
    for (body, error) in [
        ("", Empty),
        ("\n", UnexpectedEnd),
        ("\u{feff}{}", NotAnObject),
        ("[]", NotAnObject),
        ("null", NotAnObject),
        ("\"dsn\"", NotAnObject),
        ("\0", NotAnObject),
        ("{", UnexpectedEnd),
        ("{\"dsn", UnexpectedEnd),
        ("{\"dsn\\", UnexpectedEnd),
        ("{\"dsn\"", UnexpectedEnd),
        ("{\"dsn\":", UnexpectedEnd),
        ("{\"dsn\":\"a", UnexpectedEnd),
        ("{\"dsn\":\"a\\\"}", UnexpectedEnd),
        ("{\"dsn\":\"a\"", UnexpectedEnd),
        ("{\"dsn\":\"a\",", UnexpectedEnd),
        ("{\"a\":[", UnexpectedEnd),
        ("{\"a\":1", UnexpectedEnd),
        ("{,}", Malformed),
        ("{dsn:1}", Malformed),
        ("{\"dsn\" \"a\"}", Malformed),
        ("{\"dsn\":}", Malformed),
        ("{\"dsn\":,}", Malformed),
        ("{\"dsn\":\"a\",}", Malformed),
        ("{\"dsn\":\"a\" junk}", Malformed),
        ("{\"dsn\":\"a\"\"b\":1}", Malformed),
        ("{\"a\":1 2,\"b\":3}", Malformed),
        ("{\"a\":'x'}", Malformed),
        ("{\"a\":[}", Malformed),
        ("{\"a\":{]}", Malformed),
        ("{\"a\":1]", Malformed),
        ("{\"a\":[\0]}", Malformed),
    ] {
        let mut edits = Vec::new();
        assert_eq!(scan(body.as_bytes(), &mut edits), Err(error), "{body:?}");
        assert_eq!(edits, [], "{body:?}");
    }
}

#[test]
fn the_depth_of_nesting_is_bounded() {
    let nested = |depth| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(rewrite(nested(127).as_bytes()).is_ok());
    assert_eq!(rewrite(nested(128).as_bytes()).unwrap_err(), TooDeep);
    let in_trace = |depth| format!("{{\"trace\":{}}}", nested(depth));
    assert!(rewrite(in_trace(126).as_bytes()).is_ok());
    assert_eq!(rewrite(in_trace(127).as_bytes()).unwrap_err(), TooDeep);
}

#[test]
fn strings_are_unescaped() {
    for (content, text) in [
        ("", ""),
        (r"https:\/\/k@h\/42", "https://k@h/42"),
        (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r"\u0041\u00e9\u20AC", "Aé€"),
        (r"\ud83d\ude00!", "😀!"),
        (r"\ud83d", "\u{fffd}"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
        (r"\ud83dA", "\u{fffd}A"),
        (r"\ud83d\u0041", "\u{fffd}A"),
        (r"\ude00", "\u{fffd}"),
        (r"\u12", "\u{fffd}12"),
        (r"\u+123", "\u{fffd}+123"),
        (r"\x", "x"),
        ("a\\", "a\\"),
    ] {
        assert_eq!(String::from_utf8_lossy(&unescape(content.as_bytes())), text);
    }
    assert!(matches!(unescape(b"plain"), Cow::Borrowed(b"plain")));
    assert!(matches!(unescape(br"\/"), Cow::Owned(_)));
}

/// JSON with ordered and duplicate members.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Scalar(Value),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        struct JsonVisitor;
        impl<'de> Visitor<'de> for JsonVisitor {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
                Ok(Json::Scalar(Value::Null))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Scalar(number.into()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Scalar(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Json::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }
        deserializer.deserialize_any(JsonVisitor)
    }
}

impl Json {
    /// Writes it as text. The bits of `choices` decide about white space and escapes.
    fn write(&self, choices: &mut dyn Iterator<Item = bool>, out: &mut String) {
        space(choices, out);
        match self {
            Json::Scalar(Value::String(text)) => write_string(text, choices, out),
            Json::Scalar(scalar) => out.push_str(&scalar.to_string()),
            Json::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    element.write(choices, out);
                }
                space(choices, out);
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    space(choices, out);
                    write_string(name, choices, out);
                    space(choices, out);
                    out.push(':');
                    value.write(choices, out);
                    space(choices, out);
                }
                out.push('}');
            }
        }
    }

    /// The reference: replaces in the tree.
    fn replaced(mut self) -> Json {
        let replace = |object: &mut Json, name: &str, text: &str| {
            let Json::Object(members) = object else {
                return;
            };
            for (member, value) in members {
                if member == name && matches!(value, Json::Scalar(Value::String(_))) {
                    *value = Json::Scalar(text.into());
                }
            }
        };
        replace(&mut self, "dsn", "OUT_DSN");
        if let Json::Object(members) = &mut self {
            for (_, trace) in members.iter_mut().filter(|(name, _)| name == "trace") {
                replace(trace, "public_key", "OUT_KEY");
            }
        }
        self
    }
}

fn space(choices: &mut dyn Iterator<Item = bool>, out: &mut String) {
    if choices.next() == Some(true) {
        out.push_str(if choices.next() == Some(true) {
            "\n\t"
        } else {
            " \r"
        });
    }
}

fn write_string(text: &str, choices: &mut dyn Iterator<Item = bool>, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        let must = matches!(character, '"' | '\\' | '\0'..='\u{1f}');
        if must || choices.next() == Some(true) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(character);
        }
    }
    out.push('"');
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("dsn".to_owned()),
        Just("trace".to_owned()),
        Just("public_key".to_owned()),
        "[a-z\"\\\\/{}\\[\\]:,é😀\n]{0,4}",
    ]
}

fn json() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<u64>().prop_map(Value::from),
        name().prop_map(Value::from),
        Just(Value::from(KEY)),
        Just(Value::from(format!("https://{KEY}@mirror/42"))),
    ];
    scalar
        .prop_map(Json::Scalar)
        .prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
                3 => object(inner),
            ]
        })
}

fn object(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    proptest::collection::vec((name(), value), 0..5).prop_map(Json::Object)
}

proptest! {
    #[test]
    fn headers_are_rewritten_as_by_the_reference(
        header in object(json()),
        choices: Vec<bool>,
        tail: Vec<u8>,
    ) {
        let mut text = String::new();
        header.write(&mut choices.into_iter(), &mut text);
        prop_assert_eq!(&serde_json::from_str::<Json>(&text).unwrap(), &header);

        let (scanned, rewritten) = rewrite(text.as_bytes()).unwrap();
        prop_assert_eq!(scanned.end, text.len());
        prop_assert_eq!(serde_json::from_slice::<Json>(&rewritten).unwrap(), header.replaced());

        // Bytes after the header have no effect.
        let (scanned_with_tail, rewritten_with_tail) =
            rewrite(&[text.as_bytes(), &tail].concat()).unwrap();
        prop_assert_eq!(scanned_with_tail, scanned);
        prop_assert_eq!(rewritten_with_tail, [rewritten, tail].concat());

        // A truncated header is never accepted.
        for cut in 0..text.len() {
            prop_assert!(rewrite(&text.as_bytes()[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_scanned(tail: Vec<u8>, nearly in "[\\[\\]{}\",:\\\\a1 ]{0,40}") {
        let _ = rewrite(&tail);
        let _ = rewrite(&[b"{\"dsn\":", &tail[..]].concat());
        let _ = rewrite(format!("{{\"trace\":{nearly}").as_bytes());
        unescape(&tail);
        unescape(nearly.as_bytes());
    }

    #[test]
    fn unescaping_agrees_with_a_parser(text: String, choices: Vec<bool>) {
        let mut json = String::new();
        write_string(&text, &mut choices.into_iter(), &mut json);
        prop_assert_eq!(&*unescape(&json.as_bytes()[1..json.len() - 1]), text.as_bytes());
    }
}

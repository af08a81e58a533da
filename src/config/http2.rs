//! `http2`: which outbounds get HTTP/2.
//!
//! Connections belong to an origin, so outbounds at the same one have the same value.

use std::collections::HashMap;

use super::model::{Names, Outbound};
use super::node::{Node, Section};
use super::value::{choice, name};
use crate::http2::mode::Http2Mode;
use crate::sentry::dsn::{Dsn, Origin, Scheme};

pub(super) const NAMES: Names<Http2Mode, 4> = [
    ("auto", Http2Mode::Auto),
    ("off", Http2Mode::Off),
    ("required", Http2Mode::Required),
    ("h2c", Http2Mode::H2c),
];

/// What can be the default for all outbounds. The other values are for some schemes only.
const DEFAULTS: Names<Http2Mode, 2> = [("auto", Http2Mode::Auto), ("off", Http2Mode::Off)];

/// The top-level key.
pub(super) fn default(root: &mut Section<'_>) -> Http2Mode {
    root.value("http2", choice(DEFAULTS), Http2Mode::default())
}

/// The key of an outbound. `None` for the default. A value that the DSN does not allow is an error of the DSN, since it
/// is a value of the key.
pub(super) fn of_outbound(
    node: &Node<'_>,
    dsn_node: &Node<'_>,
    dsn: Option<&Dsn>,
) -> Option<Http2Mode> {
    let mode = node.optional(choice(NAMES))?;
    let needed = match mode {
        Http2Mode::Required => Scheme::Https,
        Http2Mode::H2c => Scheme::Http,
        Http2Mode::Off | Http2Mode::Auto => return Some(mode),
    };
    if dsn.is_some_and(|dsn| dsn.origin().scheme != needed) {
        dsn_node.error(match needed {
            Scheme::Https => {
                "is with http, for which http2 is h2c, auto or off, but it is required"
            }
            Scheme::Http => {
                "is with https, for which http2 is required, auto or off, but it is h2c"
            }
        });
    }
    Some(mode)
}

/// Outbounds at the same origin that want different protocols are an error.
pub(super) fn reject_mixed<'a, 'n: 'a>(
    outbounds: impl Iterator<Item = (&'a Node<'n>, &'a Outbound)>,
    default: Http2Mode,
) {
    let mut first_at: HashMap<&Origin, (Http2Mode, &str)> = HashMap::new();
    for (node, outbound) in outbounds {
        let mode = outbound.http2.unwrap_or(default);
        let origin = outbound.dsn.origin();
        let (first, path) = *first_at.entry(origin).or_insert((mode, &node.path));
        if first != mode {
            node.error(format!(
                "has http2: {}, but {path} at the same server has http2: {}; expected the same",
                name(mode, NAMES),
                name(first, NAMES)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(outbounds: &str, rest: &str) -> Result<Config, String> {
        let text = format!(
            "keys:\n  - inbound: http://11111111111111111111111111111111@h/1\n    outbound: [{outbounds}]\n{rest}\n"
        );
        Config::parse(&text, "c.yml", std::iter::empty()).map_err(|error| error.to_string())
    }

    fn outbound(scheme: &str, project: u32, http2: &str) -> String {
        format!(
            "{{dsn: '{scheme}://22222222222222222222222222222222@o.example.com/{project}', http2: {http2}}}"
        )
    }

    #[test]
    fn an_outbound_has_its_own_value_or_the_default() {
        let outbounds = [
            outbound("https", 1, "required"),
            outbound("https", 2, "required"),
            outbound("http", 3, "h2c"),
            "https://22222222222222222222222222222222@p.example.com/4".to_owned(),
        ];
        let config = parse(&outbounds.join(", "), "http2: auto").unwrap();
        let modes = config.routes[0].outbounds.iter();
        let modes: Vec<_> = modes
            .map(|outbound| outbound.http2.unwrap_or(config.http2))
            .collect();
        let expected = [
            Http2Mode::Required,
            Http2Mode::Required,
            Http2Mode::H2c,
            Http2Mode::Auto,
        ];
        assert_eq!(modes, expected);
        assert!(
            config.describe().contains(" http2 h2c\n"),
            "{}",
            config.describe()
        );
        let config = parse(&outbound("https", 1, "null"), "").unwrap();
        assert_eq!(
            (config.routes[0].outbounds[0].http2, config.http2),
            (None, Http2Mode::Off)
        );
    }

    #[test]
    fn what_a_scheme_does_not_have_is_an_error() {
        for (scheme, http2, expected) in [
            (
                "http",
                "required",
                "keys[0].outbound[0].dsn: is with http, for which http2 is h2c, auto or off, but it is required",
            ),
            (
                "https",
                "h2c",
                "keys[0].outbound[0].dsn: is with https, for which http2 is required, auto or off, but it is h2c",
            ),
            ("https", "yes", "expected auto, off, required or h2c"),
        ] {
            let errors = parse(&outbound(scheme, 1, http2), "").unwrap_err();
            assert!(errors.contains(expected), "{errors}");
        }
        let errors = parse(&outbound("http", 1, "off"), "http2: h2c").unwrap_err();
        assert!(
            errors.contains("http2: found \"h2c\", expected auto or off"),
            "{errors}"
        );
    }

    #[test]
    fn outbounds_at_one_server_have_the_same_value() {
        let outbounds = [
            outbound("https", 1, "required"),
            outbound("https", 2, "off"),
        ];
        let errors = parse(&outbounds.join(", "), "").unwrap_err();
        let expected = "has http2: off, but keys[0].outbound[0].dsn at the same server has http2: required; expected the same";
        assert!(errors.contains(expected), "{errors}");
        let outbounds = [outbound("https", 1, "auto"), outbound("https", 2, "null")];
        assert!(parse(&outbounds.join(", "), "").is_err());
        assert!(parse(&outbounds.join(", "), "http2: auto").is_ok());
    }
}

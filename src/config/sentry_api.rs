//! `sentry_api` of an outbound: where its organization's own counts are, for `sentry-mirror parity`.
//!
//! The mirror itself never asks there. A token is secret: no output shows it.

use serde_yaml::Value;

use super::node::Node;
use super::organization::{SentryApi, Token};
use super::value::{Parsed, text};
use crate::sentry::dsn::{Dsn, Origin};

/// The mapping `node`, of an outbound with this DSN.
pub(super) fn sentry_api(node: Node<'_>, dsn: Option<&Dsn>) -> Option<SentryApi> {
    if node.is_absent() {
        return None;
    }
    let mut section = node.section();
    let organization = section.take("organization").required(organization);
    let token = token(&section.take("token"));
    let url = section.take("url").optional(url);
    section.finish();
    let (origin, prefix) = url.or_else(|| dsn.map(default_url))?;
    Some(SentryApi {
        origin,
        prefix,
        organization: organization?,
        token: token?,
    })
}

/// Where the web API is if only the DSN is known: at the host of the DSN, but for Sentry's own hosts for
/// ingestion. `o1.ingest.de.sentry.io` belongs to `de.sentry.io`.
fn default_url(dsn: &Dsn) -> (Origin, String) {
    let mut origin = dsn.origin().clone();
    if let Some((organization, rest)) = origin.host.split_once(".ingest.")
        && organization.starts_with('o')
        && rest.ends_with("sentry.io")
    {
        origin.host = rest.to_owned();
    }
    (origin, dsn.prefix().to_owned())
}

fn organization(value: &Value) -> Parsed<String> {
    const FORM: &str = "the slug of an organization, as in the address of its pages";
    let slug = text(value).map_err(|_| FORM)?;
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match slug.bytes().all(is_valid) {
        true => Ok(slug),
        false => Err(FORM.to_owned()),
    }
}

/// A value that is no token is not quoted: it may be most of one.
fn token(node: &Node<'_>) -> Option<Token> {
    const FORM: &str =
        "an auth token with the scope org:read, for example from a file: file:/run/secrets/token";
    let any = |value: &Value| match value {
        Value::Null => Err(FORM.to_owned()),
        value => Ok(value.as_str().unwrap_or_default().to_owned()),
    };
    let token = node.required(any)?;
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        node.error(format!("found something else, expected {FORM}"));
        return None;
    }
    Some(Token::new(token))
}

/// Scheme, host, and optional port and path.
fn url(value: &Value) -> Parsed<(Origin, String)> {
    const FORM: &str = "a URL of the form https://HOST";
    let url = text(value).map_err(|_| FORM)?;
    let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
    let rest = rest.trim_end_matches('/');
    // The grammar is that of a DSN without key and project.
    let dsn = format!("{scheme}://key@{rest}/1").parse::<Dsn>();
    let dsn = dsn.map_err(|_| FORM)?;
    match rest.contains('@') {
        true => Err(FORM.to_owned()),
        false => Ok((dsn.origin().clone(), dsn.prefix().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(dsn: &str, api: &str) -> Result<Config, String> {
        let text = format!(
            "keys:\n- inbound: http://aaaa@m/1\n  outbound:\n  - {{dsn: '{dsn}', sentry_api: {api}}}\n"
        );
        Config::parse(&text, "c.yml", std::iter::empty()).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_url_follows_from_the_dsn_unless_it_is_set() {
        for (dsn, url, expected) in [
            (
                "https://bbbb@o1.ingest.sentry.io/2",
                "",
                "https://sentry.io",
            ),
            (
                "https://bbbb@o1.ingest.us.sentry.io/2",
                "",
                "https://us.sentry.io",
            ),
            (
                "https://bbbb@o1.ingest.de.sentry.io/2",
                "",
                "https://de.sentry.io",
            ),
            (
                "https://bbbb@errors.acme.org:8443/x/2",
                "",
                "https://errors.acme.org:8443/x",
            ),
            (
                "https://bbbb@a.ingest.b.org/2",
                "",
                "https://a.ingest.b.org",
            ),
            (
                "https://bbbb@relay.acme.org/2",
                ", url: http://web:9000/s/",
                "http://web:9000/s",
            ),
        ] {
            let config =
                parse(dsn, &format!("{{organization: acme, token: secret{url}}}")).unwrap();
            let api = config.routes[0].outbounds[0].sentry_api.as_ref().unwrap();
            assert_eq!(api.url(), expected, "{dsn}");
            assert_eq!((&*api.organization, api.token.as_str()), ("acme", "secret"));
            assert!(!format!("{config:?}").contains("secret"));
            assert!(!config.effective().contains("secret"));
            assert!(
                config.effective().contains(expected),
                "{}",
                config.effective()
            );
        }
        assert_eq!(
            parse("https://bbbb@o/2", "null").unwrap().routes[0].outbounds[0].sentry_api,
            None
        );
    }

    #[test]
    fn what_is_wrong_is_named_without_the_token() {
        for (api, expected) in [
            (
                "{}",
                "sentry_api.organization: found nothing, expected the slug",
            ),
            (
                "{organization: a/b, token: t}",
                "expected the slug of an organization",
            ),
            (
                "{organization: acme}",
                "sentry_api.token: found nothing, expected an auth token with the scope org:read",
            ),
            (
                "{organization: acme, token: t, url: sentry.io}",
                "expected a URL of the form https://HOST",
            ),
            (
                "{organization: acme, token: t, url: 'https://a@b'}",
                "expected a URL of the form https://HOST",
            ),
            (
                "{organization: acme, token: t, urls: a}",
                "did you mean url?",
            ),
            ("acme", "found \"acme\", expected a mapping"),
        ] {
            let error = parse("https://bbbb@o/2", api).unwrap_err();
            assert!(error.contains(expected), "{api}: {error}");
        }
        let error =
            parse("https://bbbb@o/2", "{organization: acme, token: 'sec ret'}").unwrap_err();
        assert!(!error.contains("sec ret"), "{error}");
    }
}

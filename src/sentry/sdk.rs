//! The name and the version of the SDK that sent a request, as it calls itself: `sentry.python/2.75.0`.
//!
//! It is in the parameter `sentry_client` of an auth header or of the query.

use std::borrow::Cow;

use super::parameters::{Syntax, parameters};
use crate::span::Span;

/// The scheme before the parameters of an auth header.
const SCHEME: &[u8] = b"sentry ";

/// The `sentry_client` of a request with these values of auth headers and this query. The first that is not
/// empty counts.
pub(crate) fn sentry_client<'b>(
    head: &'b [u8],
    auth_headers: impl Iterator<Item = Span>,
    query: Option<Span>,
) -> Option<Cow<'b, [u8]>> {
    let lists = auth_headers.map(|value| (without_scheme(head, value), Syntax::Header));
    let mut lists = lists.chain(query.map(|query| (query, Syntax::Query)));
    lists.find_map(|(list, syntax)| {
        let mut values = parameters(head, list, syntax)
            .filter(|parameter| &*syntax.decode(parameter.name.slice(head)) == b"sentry_client")
            .map(|parameter| syntax.decode(parameter.value.slice(head)));
        values.find(|value| !value.is_empty())
    })
}

fn without_scheme(head: &[u8], value: Span) -> Span {
    let start = value.slice(head).get(..SCHEME.len());
    match start.is_some_and(|start| start.eq_ignore_ascii_case(SCHEME)) {
        true => Span::new(value.start + SCHEME.len(), value.end),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_found_in_headers_and_in_the_query() {
        for (header, query, expected) in [
            (
                "Sentry sentry_key=a, sentry_client=py/2.75.0",
                "",
                Some("py/2.75.0"),
            ),
            ("sentry sentry_client=py/1,sentry_key=a", "", Some("py/1")),
            ("sentry_client=old/1", "", Some("old/1")),
            ("Sentry sentry_client=", "sentry_client=js/1", Some("js/1")),
            (
                "Sentry sentry_client=py/1",
                "sentry_client=js/1",
                Some("py/1"),
            ),
            (
                "",
                "sentry_key=a&sentry%5Fclient=sentry.javascript.node%2F10.7",
                Some("sentry.javascript.node/10.7"),
            ),
            ("Basic abc", "x=sentry_client", None),
            ("", "", None),
        ] {
            let head = format!("{header}?{query}");
            let query = Span::new(header.len() + 1, head.len());
            let headers = std::iter::once(Span::new(0, header.len()));
            let found = sentry_client(head.as_bytes(), headers, Some(query));
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{head}");
        }
    }
}

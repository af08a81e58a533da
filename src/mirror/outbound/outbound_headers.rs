//! The configured headers of an outbound, as they are sent.

use crate::config::{self, Proxy};
use crate::http::head::RequestHead;
use crate::http::header_writer;
use crate::sentry::edit::{Edit, Replacement};

pub struct OutboundHeaders {
    names: Vec<String>,
    /// All lines, each with its line end.
    lines: Vec<u8>,
    /// The words of the values that may be secret.
    secrets: Vec<String>,
}

/// A shorter word is too short for a credential, and common in texts.
const SECRET_BYTES_MIN: usize = 6;

impl OutboundHeaders {
    /// `None` if there are none. A plain proxy gets its credentials with each request.
    pub(crate) fn from_config(outbound: &config::Outbound) -> Option<OutboundHeaders> {
        let headers = &outbound.headers;
        let proxy = outbound.plain_proxy().and_then(Proxy::authorization);
        let mut lines = Vec::new();
        for (name, value) in headers.iter() {
            header_writer::append(&mut lines, name, value.as_bytes());
        }
        if let Some(authorization) = &proxy {
            header_writer::append(&mut lines, "Proxy-Authorization", authorization.as_bytes());
        }
        let names = headers.iter().map(|(name, _)| name.to_owned()).collect();
        let values = headers.iter().map(|(_, value)| value);
        let words = values
            .chain(proxy.as_deref())
            .flat_map(str::split_whitespace);
        let secrets = words.filter(|word| word.len() >= SECRET_BYTES_MIN);
        let secrets = secrets.map(str::to_owned).collect();
        (!lines.is_empty()).then_some(OutboundHeaders {
            names,
            lines,
            secrets,
        })
    }

    /// The words of the values, which an upstream may repeat in an error.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(String::as_str)
    }

    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// `edits`, which are those of `head` in `buffer`, and the removal of the lines that are replaced.
    pub(crate) fn with_removals(
        &self,
        head: &RequestHead,
        buffer: &[u8],
        edits: &[Edit],
    ) -> Vec<Edit> {
        let mut edits = edits.to_vec();
        for header in &head.headers {
            let name = header.name_span.slice(buffer);
            let mut names = self.names.iter();
            if !names.any(|own| own.as_bytes().eq_ignore_ascii_case(name)) {
                continue;
            }
            let line = header.line;
            edits.retain(|edit| edit.span.start < line.start || edit.span.end > line.end);
            edits.push(Edit {
                span: line,
                replacement: Replacement::Nothing,
            });
        }
        edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
        edits
    }
}

//! Who sent a request, for operators: the SDK, the project and the address of the client.
//!
//! The client chooses the texts, so they are cut and escaped, and credentials in them are shortened.

use std::net::IpAddr;

use crate::http::head::HeaderName;
use crate::mirror::request::Request;
use crate::sentry::edit::Replacement;
use crate::sentry::{dsn, envelope, sdk};
use crate::telemetry::words;

/// The maximum length of the name of an SDK. Browsers have the longest: their `User-Agent`.
const SDK_BYTES_MAX: usize = 120;

/// The length of the largest project id.
const PROJECT_BYTES_MAX: usize = 20;

const USER_AGENT: &[u8] = b"user-agent";

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The SDK with its version, or else the `User-Agent`.
    pub sdk: Option<String>,
    /// The project id in the path, or in the DSN of the envelope.
    pub project: Option<String>,
    pub client: IpAddr,
}

impl Sender {
    /// The sender of `request`, which came from the address `client`.
    pub(crate) fn new(request: &Request, client: IpAddr) -> Sender {
        Sender {
            sdk: sdk(request),
            project: project(request),
            client,
        }
    }
}

fn sdk(request: &Request) -> Option<String> {
    let Request { head, parsed, .. } = request;
    let auth = parsed.headers.iter().filter(|header| {
        matches!(
            header.name,
            HeaderName::XSentryAuth | HeaderName::Authorization
        )
    });
    let auth = auth.map(|header| header.value);
    let client = sdk::sentry_client(head, auth, request.target.query);
    let user_agent = || {
        let mut headers = parsed.headers.iter();
        let is_user_agent = |name: &[u8]| name.eq_ignore_ascii_case(USER_AGENT);
        let found = headers.find(|header| is_user_agent(header.name_span.slice(head)))?;
        Some(found.value.slice(head).into())
    };
    let text = client.or_else(user_agent)?;
    Some(words::sanitized(&text, SDK_BYTES_MAX, &[])).filter(|text| !text.is_empty())
}

fn project(request: &Request) -> Option<String> {
    let edits = request.head_edits.iter();
    let mut in_path = edits.filter(|edit| edit.replacement == Replacement::Project);
    if let Some(edit) = in_path.next() {
        return Some(shown_project(edit.span.slice(&request.head)));
    }
    let dsn = request.envelope?.dsn?.slice(&request.body.decoded);
    let dsn = envelope::unescape(dsn);
    dsn::project_in_text(&dsn).map(shown_project)
}

fn shown_project(project: &[u8]) -> String {
    words::sanitized(project, PROJECT_BYTES_MAX, &[])
}

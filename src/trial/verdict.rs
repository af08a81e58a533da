//! What the answer of an outbound means, in words for an operator.

use crate::blocking::client::{Answer, Failure};
use crate::telemetry::words;
use crate::trial::target::Target;

/// The maximum length of the part of an answer that is shown.
const SHOWN_BYTES_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) is_good: bool,
    pub(super) text: String,
}

impl Verdict {
    pub(super) fn good(text: impl Into<String>) -> Verdict {
        Verdict {
            is_good: true,
            text: text.into(),
        }
    }

    pub(super) fn bad(text: impl Into<String>) -> Verdict {
        Verdict {
            is_good: false,
            text: text.into(),
        }
    }

    /// The verdict as a line below a headline.
    pub(super) fn line(&self, label: &str) -> String {
        let mark = if self.is_good { '✓' } else { '✗' };
        format!("  {mark} {label}: {}\n", self.text)
    }
}

/// The verdict on what `target` answered.
pub(super) fn verdict(target: &Target, result: &Result<Answer, Failure>) -> Verdict {
    let answer = match result {
        Ok(answer) => answer,
        Err(failure) => return Verdict::bad(shown(target, failure.to_string().as_bytes())),
    };
    let status = answer.status();
    let body = &answer.message.body;
    let said = said(target, body);
    let took = answer.elapsed.as_millis();
    let text = match status {
        200..=299 if looks_like_sentry(body) => {
            let address = answer.address;
            let certificate = answer.certificate_left.as_ref();
            let certificate =
                certificate.map(|left| format!("; its certificate expires in {left}"));
            return Verdict::good(format!(
                "accepts ({status} from {address} in {took} ms{})",
                certificate.unwrap_or_default()
            ));
        }
        200..=299 => format!(
            "answers {status}, but not as Sentry does{said}; is something else at this host or path?"
        ),
        300..=399 => {
            let location = answer.message.field("location").unwrap_or("nowhere");
            let location = shown(target, location.as_bytes());
            format!(
                "redirects ({status}) to {location}; a POST is not repeated there, so write the final scheme and host into the DSN"
            )
        }
        400 if is_about_https(body) => {
            format!("answers {status}{said}; write https:// into the DSN")
        }
        400 => format!("rejects the request as malformed ({status}){said}"),
        401 | 403 => format!(
            "rejects the key for project {} ({status}){said}; copy the DSN again from the client keys of the project, and check that the key is enabled",
            target.project
        ),
        404 => format!(
            "has no envelope endpoint there ({status}){said}; is the host the one for ingestion, and is the path before the project right?"
        ),
        405 => {
            format!("takes no POST there ({status}){said}; is the path before the project right?")
        }
        413 => format!("takes no request of this size ({status}){said}"),
        429 => format!(
            "knows the key, but is rate limited ({status}){said}; a quota of the organization may be used up"
        ),
        502..=504 => format!(
            "is not available ({status}){said}; what stands in front of it answers, Sentry itself does not"
        ),
        500..=599 => format!("fails ({status}){said}"),
        _ => format!("answers {status}{said}, which Sentry never does here"),
    };
    Verdict::bad(text)
}

/// Sentry answers an envelope with a JSON object, which has an `id` if there was an event.
fn looks_like_sentry(body: &[u8]) -> bool {
    body.trim_ascii().is_empty()
        || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).is_ok()
}

/// nginx says so if it gets HTTP on its port for HTTPS.
fn is_about_https(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("HTTPS port")
}

/// The server's own words, behind a colon. Of Sentry's errors only the member `detail`.
fn said(target: &Target, body: &[u8]) -> String {
    let error = serde_json::from_slice::<serde_json::Value>(body).ok();
    let detail = error.as_ref().and_then(|error| error["detail"].as_str());
    let text = detail.map_or(body, str::as_bytes).trim_ascii();
    match text.is_empty() {
        true => String::new(),
        false => format!(": {:?}", shown(target, text)),
    }
}

/// Text from a server, shortened, on one line, and without credentials.
fn shown(target: &Target, text: &[u8]) -> String {
    let credentials: Vec<&str> = target.credentials.iter().map(String::as_str).collect();
    words::sanitized(text, SHOWN_BYTES_MAX, &credentials)
}

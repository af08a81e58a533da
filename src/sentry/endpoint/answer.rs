//! The success response of each endpoint, if no upstream's response arrives in time.
//!
//! Status and body have exactly Relay's form, because SDKs check them: in Java's only 200 is a success, and 201 or
//! 202 means "send it again later"; Elixir's retries unless the body is JSON; Crashpad retries unless the status is
//! 200 to 203.

use std::borrow::Cow;

use super::kind::Endpoint;

/// The parts of a response that depend on the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannedResponse {
    pub status: u16,
    /// `None` without a body.
    pub content_type: Option<&'static str>,
    pub body: Cow<'static, [u8]>,
}

impl CannedResponse {
    const fn new(status: u16, content_type: &'static str, body: &'static [u8]) -> CannedResponse {
        CannedResponse {
            status,
            content_type: Some(content_type),
            body: Cow::Borrowed(body),
        }
    }

    const fn empty(status: u16) -> CannedResponse {
        CannedResponse {
            status,
            content_type: None,
            body: Cow::Borrowed(b""),
        }
    }

    fn json_id(event_id: Option<[u8; 32]>) -> CannedResponse {
        let mut response = CannedResponse::new(200, "application/json", b"{}");
        if let Some(id) = event_id {
            response.body = [b"{\"id\":\"", &id[..], b"\"}"].concat().into();
        }
        response
    }

    /// A hyphenated UUID, which uploaders only log. If the request names no event, only an upstream knows the id;
    /// the nil UUID is better than an invented one.
    fn text_id(event_id: Option<[u8; 32]>) -> CannedResponse {
        let mut uuid = Vec::with_capacity(36);
        for (index, digit) in event_id.unwrap_or([b'0'; 32]).into_iter().enumerate() {
            if matches!(index, 8 | 12 | 16 | 20) {
                uuid.push(b'-');
            }
            uuid.push(digit);
        }
        CannedResponse {
            body: uuid.into(),
            ..CannedResponse::new(200, "text/plain", b"")
        }
    }
}

/// A transparent image of one pixel. SDKs for old browsers load it to report by `GET`.
const PIXEL: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff\
    !\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x01D\0;";

impl Endpoint {
    /// Whether Relay answers an accepted `POST` with 200 and JSON, on which SDKs rely.
    pub const fn is_answered_200(self) -> bool {
        matches!(
            self,
            Endpoint::Envelope | Endpoint::Tunnel | Endpoint::Store
        )
    }

    /// Whether Relay answers 429 if the request is rate limited. At other endpoints it answers as if it had
    /// accepted the request.
    pub const fn reveals_rate_limits(self) -> bool {
        !matches!(
            self,
            Endpoint::Cron
                | Endpoint::Minidump
                | Endpoint::Nel
                | Endpoint::Playstation
                | Endpoint::Unreal
        )
    }

    /// Whether the rate limits of ingest apply. The crash-report dialog is served by Sentry's web application,
    /// which does not know them, and its 429 has no meaning for ingest.
    pub const fn has_rate_limits(self) -> bool {
        !matches!(self, Endpoint::ErrorPage)
    }

    /// The response to an accepted request, as far as it can be known without an upstream.
    ///
    /// `event_id` is the one in the request, with or without hyphens. Uploads and the crash-report dialog depend on
    /// an upstream's response; here they get an empty one.
    pub fn success(
        self,
        method: &[u8],
        event_id: Option<&[u8]>,
        request_content_type: Option<&[u8]>,
    ) -> CannedResponse {
        let event_id = event_id.and_then(normalize);
        match self {
            Endpoint::Store if method != b"POST" => CannedResponse::new(200, "image/gif", PIXEL),
            Endpoint::Envelope | Endpoint::Tunnel | Endpoint::Store => {
                CannedResponse::json_id(event_id)
            }
            Endpoint::Minidump | Endpoint::Unreal => CannedResponse::text_id(event_id),
            Endpoint::OtlpTraces | Endpoint::OtlpLogs => match request_content_type {
                Some(value) if is_json(value) => CannedResponse::json_id(None),
                Some(_) | None => CannedResponse::new(200, "application/x-protobuf", b""),
            },
            Endpoint::Security | Endpoint::Nel | Endpoint::Playstation | Endpoint::ErrorPage => {
                CannedResponse::empty(200)
            }
            Endpoint::Attachments => CannedResponse::empty(201),
            Endpoint::Cron | Endpoint::VercelLogs => CannedResponse::empty(202),
            Endpoint::Upload if method == b"POST" => CannedResponse::empty(201),
            Endpoint::Upload => CannedResponse::empty(204),
            Endpoint::Generic => CannedResponse::json_id(None),
        }
    }
}

pub(in crate::sentry) fn is_json(content_type: &[u8]) -> bool {
    content_type
        .get(..b"application/json".len())
        .is_some_and(|start| start.eq_ignore_ascii_case(b"application/json"))
}

/// An event id in Relay's form: 32 lower-case digits without hyphens.
fn normalize(event_id: &[u8]) -> Option<[u8; 32]> {
    let mut digits = event_id.iter().filter(|byte| **byte != b'-');
    let mut id = [0; 32];
    for slot in &mut id {
        *slot = digits
            .next()
            .filter(|digit| digit.is_ascii_hexdigit())?
            .to_ascii_lowercase();
    }
    digits.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = "f8f8b981960e448a87aefb58fc61541b";
    const HYPHENATED: &str = "F8F8B981-960e-448a-87ae-fb58fc61541b";

    #[test]
    fn event_endpoints_return_the_event_id() {
        for endpoint in [Endpoint::Envelope, Endpoint::Store, Endpoint::Tunnel] {
            for (id, body) in [
                (Some(EVENT), format!("{{\"id\":\"{EVENT}\"}}")),
                (Some(HYPHENATED), format!("{{\"id\":\"{EVENT}\"}}")),
                (Some(""), "{}".to_owned()),
                (Some("f8f8b981960e448a87aefb58fc61541"), "{}".to_owned()),
                (Some("f8f8b981960e448a87aefb58fc61541bb"), "{}".to_owned()),
                (Some("f8f8b981960e448a87aefb58fc61541\""), "{}".to_owned()),
                (None, "{}".to_owned()),
            ] {
                let response = endpoint.success(b"POST", id.map(str::as_bytes), None);
                assert_eq!(response.status, 200);
                assert_eq!(response.content_type, Some("application/json"));
                assert_eq!(response.body, body.as_bytes());
            }
        }
    }

    #[test]
    fn store_by_get_returns_an_image() {
        let response = Endpoint::Store.success(b"GET", None, None);
        assert_eq!(
            (response.status, response.content_type),
            (200, Some("image/gif"))
        );
        assert!(response.body.starts_with(b"GIF89a\x01\0\x01\0"));
        assert!(response.body.ends_with(b";"));
    }

    #[test]
    fn crash_report_endpoints_return_a_hyphenated_id() {
        for endpoint in [Endpoint::Minidump, Endpoint::Unreal] {
            let response = endpoint.success(b"POST", None, None);
            assert_eq!(
                (response.status, response.content_type),
                (200, Some("text/plain"))
            );
            assert_eq!(&*response.body, b"00000000-0000-0000-0000-000000000000");
            let response = endpoint.success(b"POST", Some(EVENT.as_bytes()), None);
            assert_eq!(response.body, HYPHENATED.to_lowercase().as_bytes());
        }
    }

    #[test]
    fn otlp_endpoints_answer_in_the_encoding_of_the_request() {
        for endpoint in [Endpoint::OtlpTraces, Endpoint::OtlpLogs] {
            for (sent, content_type, body) in [
                (Some("application/json"), "application/json", "{}"),
                (
                    Some("Application/JSON; charset=utf-8"),
                    "application/json",
                    "{}",
                ),
                (Some("application/x-protobuf"), "application/x-protobuf", ""),
                (None, "application/x-protobuf", ""),
            ] {
                let response = endpoint.success(b"POST", None, sent.map(str::as_bytes));
                assert_eq!(
                    response,
                    CannedResponse::new(200, content_type, body.as_bytes())
                );
            }
        }
    }

    #[test]
    fn other_endpoints_return_the_status_of_relay() {
        for (endpoint, method, response) in [
            (Endpoint::Security, "POST", CannedResponse::empty(200)),
            (Endpoint::Nel, "POST", CannedResponse::empty(200)),
            (Endpoint::Playstation, "POST", CannedResponse::empty(200)),
            (Endpoint::ErrorPage, "GET", CannedResponse::empty(200)),
            (Endpoint::Attachments, "POST", CannedResponse::empty(201)),
            (Endpoint::Cron, "GET", CannedResponse::empty(202)),
            (Endpoint::VercelLogs, "POST", CannedResponse::empty(202)),
            (Endpoint::Upload, "POST", CannedResponse::empty(201)),
            (Endpoint::Upload, "PATCH", CannedResponse::empty(204)),
            (
                Endpoint::Generic,
                "PUT",
                CannedResponse::new(200, "application/json", b"{}"),
            ),
        ] {
            let answer = endpoint.success(method.as_bytes(), Some(EVENT.as_bytes()), None);
            assert_eq!(answer, response, "{endpoint:?}");
        }
    }
}

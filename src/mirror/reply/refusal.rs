//! How an outbound refuses a request.

use crate::telemetry::label::labels;

labels! {
    /// The status with which an outbound refused what another took.
    pub enum Refusal {
        /// 400: the request is malformed, or too large in a way that has no other status.
        BadRequest => "400",
        /// 401: the key is missing or unknown.
        Unauthorized => "401",
        /// 403: the key is wrong or disabled, or belongs to another project.
        Forbidden => "403",
        /// 404: there is no such project or endpoint.
        NotFound => "404",
        /// 413: the request or an item of it is too large for this side.
        TooLarge => "413",
        /// Another 4xx but 429.
        Other => "other",
    }
}

impl Refusal {
    /// `None` if the status is no refusal: a rate limit is not about the request, and a 5xx is a failure.
    pub(crate) fn from_status(status: u16) -> Option<Refusal> {
        Some(match status {
            400 => Refusal::BadRequest,
            401 => Refusal::Unauthorized,
            403 => Refusal::Forbidden,
            404 => Refusal::NotFound,
            413 => Refusal::TooLarge,
            429 => return None,
            402..=499 => Refusal::Other,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::label::Label;

    #[test]
    fn rate_limits_and_failures_are_no_refusals() {
        for (status, word) in [
            (200, None),
            (302, None),
            (400, Some("400")),
            (401, Some("401")),
            (403, Some("403")),
            (404, Some("404")),
            (405, Some("other")),
            (413, Some("413")),
            (422, Some("other")),
            (429, None),
            (500, None),
        ] {
            assert_eq!(
                Refusal::from_status(status).map(Label::word),
                word,
                "{status}"
            );
        }
    }
}

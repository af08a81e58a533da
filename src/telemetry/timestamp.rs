//! Timestamps as text: RFC 3339 in UTC with milliseconds, and the date of an HTTP header.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// `at` as `2026-11-23T22:22:17.123Z`, limited to the years 1970 to 9999.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(limited(at));
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, millis) = at.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// An IMF-fixdate (RFC 9110 section 5.6.7): `Mon, 23 Nov 2026 22:22:17 GMT`.
pub(crate) type HttpDate = [u8; 29];

/// `at` as an HTTP date, limited to the years 1970 to 9999.
pub(crate) fn http_date(at: SystemTime) -> HttpDate {
    let text = httpdate::fmt_http_date(limited(at));
    // Every IMF-fixdate has 29 bytes.
    text.as_bytes().try_into().unwrap_or([b' '; 29])
}

/// The last second of the year 9999: both formats have a four-digit year.
const SECONDS_MAX: u64 = 253_402_300_799;

fn limited(at: SystemTime) -> SystemTime {
    at.clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_limited_to_four_digit_years() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_795_472_537, "Mon, 23 Nov 2026 22:22:17 GMT"),
            (SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (SECONDS_MAX + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let date = http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(str::from_utf8(&date), Ok(expected));
        }
        let early = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(http_date(early), http_date(UNIX_EPOCH));
    }

    #[test]
    fn rfc3339_follows_the_gregorian_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_399, "2000-02-28T23:59:59.250Z"),
            (951_782_400, "2000-02-29T00:00:00.250Z"),
            (951_868_800, "2000-03-01T00:00:00.250Z"),
            (1_763_937_296, "2025-11-23T22:34:56.250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.250Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(250);
            assert_eq!(rfc3339(at), expected);
        }
    }
}

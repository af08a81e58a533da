//! Timestamps as text: RFC 3339 in UTC with milliseconds, and the date of an HTTP header.
//!
//! Dates are computed from the number of days since 1970 in the Gregorian calendar. Years are counted
//! from March, so that the leap day is the last day of its year.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `at` as `2026-11-23T22:22:17.123Z`. A time before 1970 is written as the start of 1970.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// An IMF-fixdate (RFC 9110 section 5.6.7): `Mon, 23 Nov 2026 22:22:17 GMT`.
pub(crate) type HttpDate = [u8; 29];

/// The last second of the year 9999: an HTTP date has a four-digit year.
const HTTP_SECONDS_MAX: u64 = 253_402_300_799;

/// `at` as an HTTP date, limited to the years 1970 to 9999.
pub(crate) fn http_date(at: SystemTime) -> HttpDate {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(HTTP_SECONDS_MAX);
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    // Every IMF-fixdate has 29 bytes.
    text.as_bytes().try_into().unwrap_or([b' '; 29])
}

/// Year, month and day of a number of days since 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_BEFORE_1970;
    let era = days / DAYS_OF_400_YEARS;
    let day_of_era = days % DAYS_OF_400_YEARS;
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, the lengths of months repeat every five: 31, 30, 31, 30, 31 days, 153 in all.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
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
            (HTTP_SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (HTTP_SECONDS_MAX + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
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

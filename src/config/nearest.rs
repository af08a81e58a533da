//! Which known name was probably meant.
//!
//! An operator who mistypes a key is best helped by the right one, while a suggestion that is far
//! off sends them the wrong way: where no name is close, there is none.

use strsim::osa_distance;

/// The one of `known` that is closest to `name`, if it is close enough to be a slip: one edit, or
/// one for every three characters.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let tolerance = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (osa_distance(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_a_slip_has_a_nearest_name() {
        let known = ["ip", "port", "outbound", "inbound"];
        for (name, expected) in [
            ("prot", Some("port")),
            ("outbounds", Some("outbound")),
            ("inbuond", Some("inbound")),
            ("pi", Some("ip")),
            ("password", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
    }
}

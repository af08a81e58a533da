//! Suggestions for misspelt names.

use strsim::osa_distance;

/// The name in `known` that `name` is probably a misspelling of. A wrong suggestion is worse than
/// none, so at most one edit per three characters counts as a misspelling.
pub(super) fn suggest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
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
    use super::suggest;

    #[test]
    fn only_a_misspelt_name_gets_a_suggestion() {
        let known = ["ip", "port", "outbound", "inbound"];
        for (name, expected) in [
            ("prot", Some("port")),
            ("outbounds", Some("outbound")),
            ("inbuond", Some("inbound")),
            ("pi", Some("ip")),
            ("password", None),
            ("", None),
        ] {
            assert_eq!(suggest(name, &known), expected, "{name}");
        }
    }
}

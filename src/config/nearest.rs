//! Which known name was probably meant.
//!
//! An operator who mistypes a key is best helped by the right one, while a suggestion that is far
//! off sends them the wrong way: where no name is close, there is none.

/// The one of `known` that is closest to `name`, if it is close enough to be a slip: one edit, or
/// one for every three characters.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let tolerance = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many insertions, deletions, replacements and swaps of neighbours make `left` into `right`
/// (optimal string alignment). Three rows of the table are enough: a swap looks two rows back.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut above_char = None;
    for (row_index, left_char) in left.chars().enumerate() {
        let mut row = vec![row_index + 1];
        let mut right_before = None;
        for (column, &right_char) in right.iter().enumerate() {
            let replaced = at(&above, column) + usize::from(left_char != right_char);
            let mut best = replaced
                .min(at(&above, column + 1) + 1)
                .min(at(&row, column) + 1);
            if above_char == Some(right_char) && right_before == Some(left_char) {
                best = best.min(at(&before, column - 1) + 1);
            }
            row.push(best);
            right_before = Some(right_char);
        }
        before = std::mem::replace(&mut above, row);
        above_char = Some(left_char);
    }
    at(&above, right.len())
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distances() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("port", "port", 0),
            ("prot", "port", 1),
            ("por", "port", 1),
            ("ports", "port", 1),
            ("pört", "port", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

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

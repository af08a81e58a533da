//! What has changed between two texts, word by word.
//!
//! The tour marks what the mirror rewrote, and it must not know that from the mirror: so it looks
//! only at the text before and the text after, and finds the longest run of words that both have in
//! common. Words are runs of letters and digits, so that a key or a project id changes as a whole;
//! every other character is a word of its own. The cost is the product of the two lengths, which is
//! fine for header lines and would not be for bodies.

/// A piece of the later text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment<'t> {
    /// Its text; empty where something was left out.
    pub(super) text: &'t str,
    /// Whether it was not like that before.
    pub(super) changed: bool,
}

impl<'t> Segment<'t> {
    /// A piece that is not compared with anything.
    pub(super) fn plain(text: &'t str) -> Segment<'t> {
        Segment {
            text,
            changed: false,
        }
    }
}

/// Takes `after` apart into what it has from `before` and what is new.
pub(super) fn segments<'t>(before: &str, after: &'t str) -> Vec<Segment<'t>> {
    let (old, new) = (words(before), words(after));
    let common = common_lengths(&old, &new);
    let length = |old: usize, new: usize| -> usize {
        let row = common.get(old).map_or(&[][..], Vec::as_slice);
        row.get(new).copied().unwrap_or_default()
    };
    let mut marked = Marked {
        text: after,
        end: 0,
        segments: Vec::new(),
    };
    let (mut i, mut j) = (0, 0);
    loop {
        match (old.get(i), new.get(j)) {
            (Some(was), Some(is)) if was == is => {
                marked.push(is.len(), false);
                i += 1;
                j += 1;
            }
            (Some(_), Some(is)) if length(i, j + 1) > length(i + 1, j) => {
                marked.push(is.len(), true);
                j += 1;
            }
            (Some(_), _) => {
                marked.push(0, true);
                i += 1;
            }
            (None, Some(is)) => {
                marked.push(is.len(), true);
                j += 1;
            }
            (None, None) => return marked.segments,
        }
    }
}

/// The segments so far, without two of a kind in a row.
struct Marked<'t> {
    text: &'t str,
    end: usize,
    segments: Vec<Segment<'t>>,
}

impl Marked<'_> {
    /// Appends the next `bytes` of the text.
    fn push(&mut self, bytes: usize, changed: bool) {
        let mut start = self.end;
        self.end += bytes;
        if let Some(last) = self.segments.pop_if(|last| last.changed == changed) {
            start -= last.text.len();
        }
        let text = self.text.get(start..self.end).unwrap_or_default();
        self.segments.push(Segment { text, changed });
    }
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_part = |character: char| character.is_alphanumeric() || "…-_".contains(character);
        let end = if is_part(first) {
            rest.find(|character| !is_part(character))
        } else {
            Some(first.len_utf8())
        };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word);
        rest = after;
    }
    words
}

/// For every pair of positions, how many words the two texts have in common from there on.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<Vec<usize>> {
    let mut rows = vec![vec![0; new.len() + 1]];
    for was in old.iter().rev() {
        let below = rows.last().map_or(&[][..], Vec::as_slice);
        let mut row = vec![0];
        // From right to left: `right` is the entry made last, `diagonal` the one below it.
        let (mut right, mut diagonal) = (0, 0);
        for (is, under) in new.iter().zip(below).rev() {
            right = if was == is {
                diagonal + 1
            } else {
                right.max(*under)
            };
            diagonal = *under;
            row.push(right);
        }
        row.reverse();
        rows.push(row);
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The segments as one text, with the changes in brackets.
    fn marked(before: &str, after: &str) -> String {
        let segments = segments(before, after);
        let texts: String = segments.iter().map(|segment| segment.text).collect();
        assert_eq!(texts, after);
        let show = |segment: &Segment<'_>| match segment.changed {
            true => format!("[{}]", segment.text),
            false => segment.text.to_owned(),
        };
        segments.iter().map(show).collect()
    }

    #[test]
    fn keys_projects_ports_and_prefixes_are_marked_as_a_whole() {
        for (before, after, expected) in [
            ("", "", ""),
            ("same text", "same text", "same text"),
            (
                "POST /api/42/envelope/ HTTP/1.1",
                "POST /api/1001/envelope/ HTTP/1.1",
                "POST /api/[1001]/envelope/ HTTP/1.1",
            ),
            (
                "POST /api/42/envelope/?sentry_version=7&sentry_key=0123… HTTP/1.1",
                "POST /sentry/api/2002/envelope/?sentry_version=7&sentry_key=bbbb… HTTP/1.1",
                "POST /[sentry/]api/[2002]/envelope/?sentry_version=7&sentry_key=[bbbb…] HTTP/1.1",
            ),
            (
                r#"{"dsn":"http://0123…@127.0.0.1:4001/42","trace":{"public_key":"0123…"}}"#,
                r#"{"dsn":"http://bbbb…@127.0.0.1:5002/sentry/2002","trace":{"public_key":"bbbb…"}}"#,
                r#"{"dsn":"http://[bbbb…]@127.0.0.1:[5002]/[sentry/2002]","trace":{"public_key":"[bbbb…]"}}"#,
            ),
        ] {
            assert_eq!(marked(before, after), expected);
        }
    }

    #[test]
    fn what_was_left_out_leaves_an_empty_mark() {
        let before = "sentry_version=7, sentry_secret=dead…, sentry_client=x";
        let after = "sentry_version=7, sentry_client=x";
        assert_eq!(marked(before, after), "sentry_version=7, []sentry_client=x");
        assert_eq!(marked("all of it", ""), "[]");
        assert_eq!(marked("", "all of it"), "[all of it]");
    }

    #[test]
    fn texts_beyond_ascii_are_cut_between_characters() {
        assert_eq!(marked("größe: 1 ⟦a⟧", "größer: 2 ⟦a⟧"), "[größer]: [2] ⟦a⟧");
    }
}

//! The comments of the example, by key path.

use super::super::positions::Positions;

/// Where a comment behind a value begins.
const TRAILING: &str = " # ";

pub(super) struct Comments {
    lines: Vec<&'static str>,
    positions: Positions,
}

impl Comments {
    pub(super) fn new(text: &'static str) -> Comments {
        Comments {
            lines: text.lines().collect(),
            positions: Positions::parse(text),
        }
    }

    /// The comment above the key at `path` and the one behind its value. Keys without either share the
    /// comment of the key above. An item of a list has the comment of the list; a key that the example lacks has none.
    pub(super) fn of(&self, path: &str) -> Option<String> {
        if !path.ends_with(']') && !self.positions.has_key(path) {
            return None;
        }
        let key = self.positions.key(path)?.line().checked_sub(1)?;
        let trailing = self.trailing(key);
        let mut above = self.above(key);
        let mut line = key;
        while above.is_empty() && trailing.is_empty() && self.is_sibling(line) {
            line -= 1;
            above = self.above(line);
        }
        let parts: Vec<&str> = above.into_iter().chain(trailing).map(str::trim).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The comment behind the value in a line, which goes on in the same column of the lines below.
    fn trailing(&self, line: usize) -> Vec<&'static str> {
        let Some((value, text)) = self
            .lines
            .get(line)
            .and_then(|line| line.split_once(TRAILING))
        else {
            return Vec::new();
        };
        let column = value.len() + 1;
        let below = self.lines.iter().skip(line + 1).map_while(|line| {
            let (indentation, text) = line.split_once('#')?;
            let goes_on = indentation.len() == column && indentation.trim().is_empty();
            goes_on.then_some(text)
        });
        [text].into_iter().chain(below).collect()
    }

    /// The lines of comment directly above a line.
    fn above(&self, line: usize) -> Vec<&'static str> {
        let lines = self.lines.iter().take(line).rev();
        let comments = lines.map_while(|line| line.trim_start().strip_prefix('#'));
        let mut comments: Vec<&str> = comments.collect();
        comments.reverse();
        comments
    }

    /// Whether the line above has a key beside that of `line`, without a comment of its own behind it.
    fn is_sibling(&self, line: usize) -> bool {
        let above = line.checked_sub(1).and_then(|above| self.lines.get(above));
        let indentation = |line: &str| line.len() - line.trim_start().len();
        match (above, self.lines.get(line)) {
            (Some(above), Some(line)) => {
                !above.is_empty()
                    && indentation(above) == indentation(line)
                    && !above.contains(TRAILING)
            }
            _ => false,
        }
    }
}

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
    /// comment of the key above.
    pub(super) fn of(&self, path: &str) -> Option<String> {
        let key = self.positions.key(path)?.line().checked_sub(1)?;
        let trailing = self
            .lines
            .get(key)?
            .split_once(TRAILING)
            .map(|(_, text)| text);
        let mut above = self.above(key);
        let mut line = key;
        while above.is_empty() && trailing.is_none() && self.is_sibling(line) {
            line -= 1;
            above = self.above(line);
        }
        let parts: Vec<&str> = above.into_iter().chain(trailing).map(str::trim).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
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

//! Lines and columns of keys and values.
//!
//! `serde_yaml` does not keep positions. When there is something to report, a second parser reads the
//! text again and records the position of each key path. If it stops earlier than the first parser did,
//! the positions so far are used. A value without a position of its own, such as one behind an alias, is
//! reported at the innermost key around it.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::key_path;

/// The path of keys that are not scalars, and of everything in them. Nothing is reported there.
const NO_PATH: &str = "?";

/// Both numbers start at 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    line: usize,
    column: usize,
}

impl Position {
    pub(super) fn line(self) -> usize {
        self.line
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<Marker> for Position {
    fn from(marker: Marker) -> Position {
        Position {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }
}

/// A key that occurs twice in the same mapping.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    pub(super) path: String,
    pub(super) first: Position,
    pub(super) second: Position,
}

/// The positions of all keys and values, by key path.
#[derive(Default)]
pub(super) struct Positions {
    keys: HashMap<String, Position>,
    values: HashMap<String, Position>,
    duplicates: Vec<Duplicate>,
}

impl Positions {
    pub(super) fn parse(text: &str) -> Positions {
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            // After an error the parser returns the same error forever.
            let Ok((event, span)) = event else { break };
            walk.step(&event, Position::from(span.start));
        }
        walk.positions
    }

    /// The tab in the indentation of `line`, where a syntax error is, or of the line before: some
    /// errors are detected only at the next token.
    pub(super) fn indenting_tab(text: &str, line: usize) -> Option<Position> {
        let lines = text.lines().zip(1..).take(line);
        lines
            .skip(line.saturating_sub(2))
            .filter(|(text, _)| !text.trim().is_empty())
            .find_map(|(text, line)| {
                let indentation = text.chars().take_while(|c| c.is_whitespace());
                let column = indentation.zip(1..).find(|(c, _)| *c == '\t')?.1;
                Some(Position { line, column })
            })
    }

    /// The position of the key at `path`, or of the innermost value around it.
    pub(super) fn key(&self, path: &str) -> Option<Position> {
        let own = self.keys.get(path).copied();
        own.or_else(|| self.value(path))
    }

    /// Whether there is a key at `path`.
    pub(super) fn has_key(&self, path: &str) -> bool {
        self.keys.contains_key(path)
    }

    /// The position of the value at `path`, or of the innermost value around it.
    pub(super) fn value(&self, path: &str) -> Option<Position> {
        let own = self.values.get(path).copied();
        own.or_else(|| {
            if path.is_empty() {
                return None;
            }
            self.value(key_path::parent(path))
        })
    }

    pub(super) fn duplicates(self) -> Vec<Duplicate> {
        self.duplicates
    }
}

/// A walk through the events of a document.
#[derive(Default)]
struct Walk {
    positions: Positions,
    /// The collections that contain the next event, outermost first.
    open: Vec<Collection>,
}

enum Collection {
    Mapping {
        path: String,
        /// The path and position of the key, between the key and its value.
        key: Option<(String, Position)>,
    },
    Sequence {
        path: String,
        /// The number of entries so far.
        length: usize,
    },
}

impl Walk {
    fn step(&mut self, event: &Event<'_>, position: Position) {
        match event {
            Event::Scalar(text, style, ..) => {
                if !self.take_key(Some(text), position) {
                    let is_missing = text.is_empty() && *style == ScalarStyle::Plain;
                    self.add_value(position, is_missing);
                }
            }
            Event::Alias(_) => {
                self.begin(position);
            }
            Event::MappingStart(..) => {
                let path = self.begin(position);
                self.open.push(Collection::Mapping { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = self.begin(position);
                self.open.push(Collection::Sequence { path, length: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }

    /// Records the event as a key if a key comes next, and returns whether it did. `text` is `None`
    /// for a key that is not a scalar.
    fn take_key(&mut self, text: Option<&str>, position: Position) -> bool {
        let Some(Collection::Mapping { path, key }) = self.open.last_mut() else {
            return false;
        };
        if key.is_some() {
            return false;
        }
        let Some(text) = text else {
            *key = Some((NO_PATH.to_owned(), position));
            return true;
        };
        let path = key_path::member(path, text);
        *key = Some((path.clone(), position));
        match self.positions.keys.get(&path) {
            Some(&first) => self.positions.duplicates.push(Duplicate {
                path,
                first,
                second: position,
            }),
            None => {
                self.positions.keys.insert(path, position);
            }
        }
        true
    }

    /// Records an alias or the begin of a collection, and returns its path.
    fn begin(&mut self, position: Position) -> String {
        if self.take_key(None, position) {
            return NO_PATH.to_owned();
        }
        self.add_value(position, false)
    }

    /// Records the position of the next value and returns its path. A missing value gets the position
    /// of its key.
    fn add_value(&mut self, position: Position, is_missing: bool) -> String {
        let (path, position) = match self.open.last_mut() {
            None => (String::new(), position),
            Some(Collection::Sequence { path, length }) => {
                let path = key_path::entry(path, *length);
                *length += 1;
                (path, position)
            }
            Some(Collection::Mapping { key, .. }) => {
                let (path, key_position) =
                    key.take().unwrap_or_else(|| (NO_PATH.to_owned(), position));
                (path, if is_missing { key_position } else { position })
            }
        };
        self.positions
            .values
            .entry(path.clone())
            .or_insert(position);
        path
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    fn value(text: &str, path: &str) -> String {
        let position = Positions::parse(text).value(path);
        position.map_or("nowhere".to_owned(), |position| position.to_string())
    }

    #[test]
    fn a_value_has_a_line_and_a_column() {
        let text = "# é\nkeys:\n  - inbound: é1\n    outbound: [a, {dsn: b}]\n  -\nport:\nip: 1\n";
        for (path, expected) in [
            ("", "2:1"),
            ("keys", "3:3"),
            ("keys[0]", "3:5"),
            ("keys[0].inbound", "3:14"),
            ("keys[0].outbound", "4:15"),
            ("keys[0].outbound[0]", "4:16"),
            ("keys[0].outbound[1]", "4:19"),
            ("keys[0].outbound[1].dsn", "4:25"),
            ("keys[1]", "5:4"),
            ("port", "6:1"),
            ("ip", "7:5"),
            ("keys[0].missing", "3:5"),
            ("missing.a.b[3]", "2:1"),
        ] {
            assert_eq!(value(text, path), expected, "{path}");
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_a_duplicate() {
        let positions = Positions::parse("a: 1\nt:\n  b: 2\n  c: 3\n  b: 4\n");
        assert_eq!(positions.key("t.c").unwrap().to_string(), "4:3");
        assert_eq!(positions.key("t.d").unwrap().to_string(), "3:3");
        let [twice] = &positions.duplicates()[..] else {
            panic!("expected one duplicate");
        };
        assert_eq!(twice.path, "t.b");
        assert_eq!(twice.first.to_string(), "3:3");
        assert_eq!(twice.second.to_string(), "5:3");
    }

    #[test]
    fn keys_that_are_not_scalars_do_not_shift_later_positions() {
        let text = "? [x, {y: 1}]\n: {z: 2}\n? *a\n: 1\nport: 3\n";
        assert_eq!(value(&text.replace("*a", "{q: 1}"), "port"), "5:7");
        assert_eq!(value("a: &n {b: 1}\nc: *n\nd: 5\n", "c.b"), "2:4");
        assert_eq!(value("a: &n k\n*n : 1\nd: 5\n", "d"), "3:4");
    }

    #[test]
    fn positions_before_a_syntax_error_are_known() {
        assert_eq!(value("a: 1\nb: [2\nc: 3\n", "a"), "1:4");
        assert_eq!(value("a: 1\nb: [2\nc: 3\n", "z"), "1:1");
        assert_eq!(value("", "a"), "nowhere");
    }
}

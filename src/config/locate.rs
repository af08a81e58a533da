//! From key paths to lines and columns.
//!
//! The deserialized document does not know where its values were written. A second pass over the
//! events of another parser does, and makes the same key paths as `node`. It runs only when there
//! is something to report. Where that parser gives up earlier than the first one did, the places
//! found until then are used; what has none of its own, an alias for instance, is shown at the
//! nearest thing around it.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::node::key_path;

/// The path of what has none: keys that are lists, mappings or aliases, and what is in them.
const NOT_ASKED_FOR: &str = "?";

/// A place in a text. Both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    line: usize,
    column: usize,
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

/// A key that is written a second time in the same mapping.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    pub(super) path: String,
    pub(super) first: Position,
    pub(super) second: Position,
}

/// Where everything in a document stands.
#[derive(Default)]
pub(super) struct Positions {
    keys: HashMap<String, Position>,
    values: HashMap<String, Position>,
    duplicates: Vec<Duplicate>,
}

impl Positions {
    /// The places in `text`.
    pub(super) fn of(text: &str) -> Positions {
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            // The parser repeats an error for ever.
            let Ok((event, span)) = event else { break };
            walk.step(&event, Position::from(span.start));
        }
        walk.positions
    }

    /// The tab by which the line of a syntax error, or the one before it, is indented: some errors are
    /// found only at the next token.
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

    /// Where the key at `path` is written.
    pub(super) fn key(&self, path: &str) -> Option<Position> {
        let own = self.keys.get(path).copied();
        own.or_else(|| self.value(path))
    }

    /// Where the value at `path`, or else the innermost thing around it, begins.
    pub(super) fn value(&self, path: &str) -> Option<Position> {
        let own = self.values.get(path).copied();
        own.or_else(|| {
            if path.is_empty() {
                return None;
            }
            let parent = path.rfind(['.', '[']).and_then(|end| path.get(..end));
            self.value(parent.unwrap_or_default())
        })
    }

    /// The keys that are written twice.
    pub(super) fn duplicates(self) -> Vec<Duplicate> {
        self.duplicates
    }
}

/// The walk through a document: the collections around the next event.
#[derive(Default)]
struct Walk {
    positions: Positions,
    around: Vec<Collection>,
}

enum Collection {
    /// A mapping at `path`; between a key and its value, the key's path and place.
    Mapping {
        path: String,
        key: Option<(String, Position)>,
    },
    /// A list at `path` with `length` entries so far.
    Sequence { path: String, length: usize },
}

impl Walk {
    fn step(&mut self, event: &Event<'_>, position: Position) {
        match event {
            Event::Scalar(text, style, ..) => {
                if !self.take_key(Some(text), position) {
                    let is_missing = text.is_empty() && *style == ScalarStyle::Plain;
                    self.place_value(position, is_missing);
                }
            }
            Event::Alias(_) => {
                self.open(position);
            }
            Event::MappingStart(..) => {
                let path = self.open(position);
                self.around.push(Collection::Mapping { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = self.open(position);
                self.around.push(Collection::Sequence { path, length: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.around.pop();
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }

    /// Takes what comes as the next key, if a key is due: `text`, or something that is no scalar.
    fn take_key(&mut self, text: Option<&str>, position: Position) -> bool {
        let Some(Collection::Mapping { path, key }) = self.around.last_mut() else {
            return false;
        };
        if key.is_some() {
            return false;
        }
        let Some(text) = text else {
            *key = Some((NOT_ASKED_FOR.to_owned(), position));
            return true;
        };
        let path = key_path(path, text);
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

    /// Gives the path of something that is no scalar and begins here.
    fn open(&mut self, position: Position) -> String {
        if self.take_key(None, position) {
            return NOT_ASKED_FOR.to_owned();
        }
        self.place_value(position, false)
    }

    /// Notes the place of the next value and gives its path. A value that is left out is shown at
    /// its key.
    fn place_value(&mut self, position: Position, is_missing: bool) -> String {
        let (path, position) = match self.around.last_mut() {
            None => (String::new(), position),
            Some(Collection::Sequence { path, length }) => {
                *length += 1;
                (format!("{path}[{}]", *length - 1), position)
            }
            Some(Collection::Mapping { key, .. }) => {
                let (path, key_position) = key
                    .take()
                    .unwrap_or_else(|| (NOT_ASKED_FOR.to_owned(), position));
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
        let position = Positions::of(text).value(path);
        position.map_or("nowhere".to_owned(), |position| position.to_string())
    }

    #[test]
    fn values() {
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
    fn keys_and_duplicates() {
        let positions = Positions::of("a: 1\nt:\n  b: 2\n  c: 3\n  b: 4\n");
        assert_eq!(positions.key("t.c").unwrap().to_string(), "4:3");
        assert_eq!(positions.key("t.d").unwrap().to_string(), "3:3");
        let [twice] = &positions.duplicates()[..] else {
            panic!("one key is written twice");
        };
        assert_eq!(twice.path, "t.b");
        assert_eq!(twice.first.to_string(), "3:3");
        assert_eq!(twice.second.to_string(), "5:3");
    }

    #[test]
    fn keys_that_are_no_scalars_keep_the_walk_in_step() {
        let text = "? [x, {y: 1}]\n: {z: 2}\n? *a\n: 1\nport: 3\n";
        assert_eq!(value(&text.replace("*a", "{q: 1}"), "port"), "5:7");
        assert_eq!(value("a: &n {b: 1}\nc: *n\nd: 5\n", "c.b"), "2:4");
        assert_eq!(value("a: &n k\n*n : 1\nd: 5\n", "d"), "3:4");
    }

    #[test]
    fn a_broken_text_is_located_until_it_breaks() {
        assert_eq!(value("a: 1\nb: [2\nc: 3\n", "a"), "1:4");
        assert_eq!(value("a: 1\nb: [2\nc: 3\n", "z"), "1:1");
        assert_eq!(value("", "a"), "nowhere");
    }
}

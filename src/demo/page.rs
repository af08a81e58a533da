//! How things look on the terminal: headings, labelled rows that wrap, marks, colours.
//!
//! Everything here makes text and prints nothing. A change is marked with brackets, so that it is
//! seen on paper too; colours come on top, only where standard output is a terminal and the user has
//! not set `NO_COLOR` (no-color.org).

use std::io::IsTerminal;

use super::compare::{self, Segment};
use super::describe::Row;

/// The columns that are used.
const WIDTH: usize = 96;

/// The column where the text of a row begins.
const TEXT_COLUMN: usize = 14;

/// Codes of the colours (ECMA-48 section 8.3.117).
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "32";
const YELLOW: &str = "1;33";

/// How to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    is_coloured: bool,
}

impl Page {
    /// A page for standard output.
    pub(super) fn of_stdout() -> Page {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Page {
            is_coloured: std::io::stdout().is_terminal() && !no_color,
        }
    }

    /// A page without colours.
    #[cfg(test)]
    pub(super) const fn plain() -> Page {
        Page { is_coloured: false }
    }

    /// A line across the page with a title in it.
    pub(super) fn heading(self, title: &str) -> String {
        let line = "━".repeat(WIDTH.saturating_sub(title.chars().count() + 4));
        format!("\n{}\n", self.paint(BOLD, &format!("━━ {title} {line}")))
    }

    /// The name of a block of rows and a remark on it.
    pub(super) fn title(self, name: &str, remark: &str) -> String {
        format!("\n  {}{remark}\n", self.paint(BOLD, name))
    }

    /// The rows of a request.
    pub(super) fn rows(self, rows: &[Row]) -> String {
        rows.iter()
            .map(|row| self.row(row.label, &[Segment::plain(&row.text)]))
            .collect()
    }

    /// The rows of a request with the places marked that are not as in `before`.
    pub(super) fn compared_rows(self, before: &[Row], rows: &[Row]) -> String {
        let mut page = String::new();
        for (index, row) in rows.iter().enumerate() {
            let same_row = before.get(index).filter(|before| before.label == row.label);
            let before = same_row.map_or("", |before| before.text.as_str());
            page += &self.row(row.label, &compare::segments(before, &row.text));
        }
        page
    }

    /// Something that is as it must be.
    pub(super) fn proof(self, text: &str) -> String {
        format!("    {} {text}\n", self.paint(GREEN, "✓"))
    }

    /// Something that is not as it must be.
    pub(super) fn flaw(self, text: &str) -> String {
        format!("    {}\n", self.paint(RED, &format!("✗ {text}")))
    }

    /// A label and a text, which goes on below itself where it is too long for one line.
    fn row(self, label: &str, segments: &[Segment<'_>]) -> String {
        let label_columns = TEXT_COLUMN - 4;
        let mut row = format!(
            "    {}",
            self.paint(DIM, &format!("{label:label_columns$}"))
        );
        let mut column = TEXT_COLUMN;
        for Segment { text, changed } in segments {
            let shown = match changed {
                true => format!("⟦{text}⟧"),
                false => (*text).to_owned(),
            };
            for piece in pieces(&shown) {
                let columns = piece.chars().count();
                if column + columns > WIDTH && column > TEXT_COLUMN {
                    row = row.trim_end().to_owned();
                    row += &format!("\n{:TEXT_COLUMN$}", "");
                    column = TEXT_COLUMN;
                }
                row += &match changed {
                    true => self.paint(YELLOW, &piece),
                    false => piece,
                };
                column += columns;
            }
        }
        row.trim_end().to_owned() + "\n"
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_coloured {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Cuts a text where a line may end: behind spaces, commas and ampersands, and anywhere in what is
/// longer than a line.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    for piece in text.split_inclusive([' ', ',', '&']) {
        let characters: Vec<char> = piece.chars().collect();
        let lines = characters.chunks(WIDTH - TEXT_COLUMN);
        pieces.extend(lines.map(|line| line.iter().collect()));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        let text = text.to_owned();
        let label = "header";
        Row { label, text }
    }

    #[test]
    fn changes_are_in_brackets_and_coloured_only_on_a_terminal() {
        let (before, after) = ([row("key=a, x")], [row("key=b, x")]);
        assert_eq!(
            Page::plain().compared_rows(&before, &after),
            "    header    key=⟦b⟧, x\n"
        );
        let page = Page { is_coloured: true };
        assert_eq!(
            page.compared_rows(&before, &after),
            "    \x1b[2mheader    \x1b[0mkey=\x1b[1;33m⟦b⟧\x1b[0m, x\n"
        );
    }

    #[test]
    fn a_row_without_a_counterpart_is_new() {
        let item = Row {
            label: "item",
            text: "x".to_owned(),
        };
        for before in [&[][..], &[row("x")]] {
            let page = Page::plain().compared_rows(before, std::slice::from_ref(&item));
            assert_eq!(page, "    item      ⟦x⟧\n");
        }
    }

    #[test]
    fn long_rows_wrap_and_lose_nothing() {
        for text in ["word, ".repeat(60), "x".repeat(500), "ä&".repeat(200)] {
            let page = Page::plain().rows(&[row(text.trim_end())]);
            let lines: Vec<&str> = page.lines().collect();
            assert!(lines.len() > 1);
            assert!(
                lines.iter().all(|line| line.chars().count() <= WIDTH),
                "{page}"
            );
            let squeezed = |text: &str| text.replace([' ', '\n'], "");
            let content = squeezed(&page);
            assert_eq!(content.strip_prefix("header"), Some(&*squeezed(&text)));
        }
    }
}

//! How things look on the terminal: headings, labelled rows that wrap, marks, colours.
//!
//! Everything here makes text and prints nothing. A change is marked with brackets, so that it is
//! seen on paper too; colours come on top, only where standard output is a terminal and the user has
//! not set `NO_COLOR` (no-color.org).

use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;

use rustix::termios;

use super::compare::{self, Segment};
use super::describe::Row;

/// The columns that are used where nothing is known of a terminal.
pub(super) const WIDTH_DEFAULT: usize = 78;

/// The columns that are used of a narrow and of a wide terminal: some must be left for the text of
/// rows, and lines that are too long are hard to read.
const WIDTHS: RangeInclusive<usize> = 40..=96;

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
    width: usize,
}

impl Page {
    /// A page for standard output.
    pub(super) fn of_stdout() -> Page {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Page {
            is_coloured: io::stdout().is_terminal() && !no_color,
            width: width(columns()),
        }
    }

    /// A page without colours, of the default width.
    #[cfg(test)]
    pub(super) const fn plain() -> Page {
        Page {
            is_coloured: false,
            width: WIDTH_DEFAULT,
        }
    }

    /// A line across the page with a title in it.
    pub(super) fn heading(self, title: &str) -> String {
        let line = "━".repeat(self.width.saturating_sub(title.chars().count() + 4));
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
        for piece in pieces(&cells(segments), self.width - TEXT_COLUMN) {
            if column + piece.len() > self.width && column > TEXT_COLUMN {
                row = row.trim_end().to_owned();
                row += &format!("\n{:TEXT_COLUMN$}", "");
                column = TEXT_COLUMN;
            }
            column += piece.len();
            for run in piece.chunk_by(|one, next| one.is_changed == next.is_changed) {
                let text: String = run.iter().map(|cell| cell.character).collect();
                row += &match run.first() {
                    Some(cell) if cell.is_changed => self.paint(YELLOW, &text),
                    Some(_) | None => text,
                };
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

/// The columns to use of as many as there are; 0 where that is not known.
fn width(columns: usize) -> usize {
    match columns {
        0 => WIDTH_DEFAULT,
        _ => columns.clamp(*WIDTHS.start(), *WIDTHS.end()),
    }
}

/// The columns that the user or else the terminal says there are.
fn columns() -> usize {
    let variable = std::env::var("COLUMNS").ok();
    let wanted = variable.and_then(|columns| columns.parse().ok());
    wanted.unwrap_or_else(|| {
        termios::tcgetwinsize(io::stdout()).map_or(0, |terminal| terminal.ws_col.into())
    })
}

/// A character of a row.
struct Cell {
    character: char,
    is_changed: bool,
}

/// The characters of a row, with brackets around what has changed.
fn cells(segments: &[Segment<'_>]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for Segment { text, changed } in segments {
        let (open, close) = if *changed { ("⟦", "⟧") } else { ("", "") };
        let characters = [open, text, close].into_iter().flat_map(str::chars);
        cells.extend(characters.map(|character| Cell {
            character,
            is_changed: *changed,
        }));
    }
    cells
}

/// Cuts a row where a line may end: behind spaces, commas and ampersands, and anywhere in what is
/// longer than a line.
fn pieces(cells: &[Cell], columns_max: usize) -> impl Iterator<Item = &[Cell]> {
    cells
        .split_inclusive(|cell| [' ', ',', '&'].contains(&cell.character))
        .flat_map(move |piece| piece.chunks(columns_max))
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
        let page = Page {
            is_coloured: true,
            ..Page::plain()
        };
        assert_eq!(
            page.compared_rows(&before, &after),
            "    \x1b[2mheader    \x1b[0mkey=\x1b[1;33m⟦b⟧\x1b[0m, x\n"
        );
    }

    #[test]
    fn no_line_ends_before_a_mark_in_the_middle_of_a_word() {
        let (before, after) = ("\"public_key\":\"a\", x", "\"public_key\":\"b\", x");
        let page = Page {
            width: TEXT_COLUMN + 20,
            ..Page::plain()
        };
        assert_eq!(
            page.compared_rows(
                &[row(&format!("{{}},{before}"))],
                &[row(&format!("{{}},{after}"))]
            ),
            "    header    {},\n              \"public_key\":\"⟦b⟧\",\n              x\n"
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
            for width in [40, 78, 96] {
                let page = Page {
                    width,
                    ..Page::plain()
                };
                let shown = page.rows(&[row(text.trim_end())]);
                let columns = shown.lines().map(|line| line.chars().count());
                let widest = columns.max().unwrap();
                assert!((width - 10..=width).contains(&widest), "{shown}");
                let squeezed = |text: &str| text.replace([' ', '\n'], "");
                let content = squeezed(&shown);
                assert_eq!(content.strip_prefix("header"), Some(&*squeezed(&text)));
            }
        }
    }

    #[test]
    fn the_width_follows_the_terminal_within_reason() {
        for (columns, used) in [(0, 78), (1, 40), (80, 80), (usize::MAX, 96)] {
            assert_eq!(width(columns), used, "{columns:?}");
        }
    }
}

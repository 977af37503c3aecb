//! How commands print: text for people, aligned; objects as JSON or YAML for programs.
//!
//! Nothing is taken out of what is printed: a file gets the bytes that there are. Colours are not put in where they do not belong: in
//! what is not a terminal, and under NO_COLOR.

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde_json::Value;
use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};
use unicode_width::UnicodeWidthStr as _;

/// An emphasis.
pub const BOLD: Style = Style::new().bold();
/// Of what is added.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// Of what is removed.
pub const RED: Style = AnsiColor::Red.on_default();
/// Of where it is.
pub const CYAN: Style = AnsiColor::Cyan.on_default();

/// Whether colours are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also in a file or a pipe.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    /// Makes it so for the whole process.
    pub fn apply(self) {
        let choice = match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// For programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
}

impl Format {
    /// An object in this form, with a newline at its end.
    pub fn write(self, object: &Value) -> anyhow::Result<String> {
        let mut text = match self {
            Self::Json => readable_as_yaml(&serde_json::to_string_pretty(object)?),
            Self::Yaml => serde_saphyr::to_string(object)?,
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

/// JSON whose strings have none of the characters that are no part of a YAML text, or end a line of it (YAML 1.2.2, 5.1 and 5.4): they
/// are escaped, so that what is printed can be applied.
fn readable_as_yaml(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(letter));
            }
            letter => text.push(letter),
        }
    }
    text
}

/// Prints to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Text in a style, where standard output shows styles.
pub fn styled(style: Style, text: &str) -> String {
    match anstream::AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => text.to_owned(),
        ColorChoice::Auto | ColorChoice::Always | ColorChoice::AlwaysAnsi => format!("{style}{text}{style:#}"),
    }
}

/// Text of somebody else, made harmless for a terminal: what would move the cursor or change a colour is shown as what it is.
/// Tabs and ends of lines stay.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => cleaned.push(letter),
            '\u{1b}' => cleaned.push_str("^["),
            letter if letter.is_control() || is_bidi(letter) => cleaned.extend(letter.escape_unicode()),
            letter => cleaned.push(letter),
        }
    }
    cleaned
}

/// Characters that change the order in which others are shown.
fn is_bidi(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same, in one line: nothing after the first end of a line.
pub fn clean_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let more = if text.lines().nth(1).is_some() { "..." } else { "" };
    format!("{}{more}", clean(line).replace('\t', " "))
}

/// Text of somebody else as a file would get it, or made harmless when a terminal gets it.
pub fn body(text: &str) -> String {
    if io::stdout().is_terminal() { clean(text) } else { text.to_owned() }
}

/// Columns, aligned as kubectl aligns them: at least 6 wide, 3 blanks between them. Rows that come later keep the widths of the
/// first ones, and push when they do not fit.
#[derive(Debug, Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Whether no widths are known yet.
    pub fn is_empty(&self) -> bool {
        self.widths.is_empty()
    }

    /// Makes room for the cells of this row.
    pub fn fit(&mut self, row: &[String]) {
        self.widths.resize(self.widths.len().max(row.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width() + 3).max(6);
        }
    }

    /// Lines of rows. The first call, which should have the headings, sets the widths.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> String {
        if self.widths.is_empty() {
            for row in rows {
                self.fit(row);
            }
        }
        let mut text = String::new();
        for row in rows {
            for (at, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if at + 1 < row.len() {
                    let width = self.widths.get(at).copied().unwrap_or_default();
                    text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()).max(1)));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// The text at a path of an object; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_stay_so() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let mut columns = Columns::default();
        assert_eq!(columns.lines(&[row(["NAME", "X"]), row(["fix-login", "1"])]), "NAME        X\nfix-login   1\n");
        assert_eq!(columns.lines(&[row(["a", "2"]), row(["a-very-long-name", "3"])]), "a           2\na-very-long-name 3\n");
        assert_eq!(Columns::default().lines(&[row(["名前", "x"])]), "名前   x\n");
    }

    #[test]
    fn an_object_that_is_printed_is_read_as_the_same_one_whatever_letters_it_has() {
        let object = serde_json::json!({"a": "\u{7}\u{7f}\u{83}\u{85}\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}\u{1f600}名", "b": ["\\u0083\"\t\r\n"]});
        let json = Format::Json.write(&object).unwrap();
        assert!(json.contains("\\u0083\\u0085\\u2028"), "{json}");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), object);
        for format in [Format::Json, Format::Yaml] {
            let text = format.write(&object).unwrap();
            assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), object, "{format:?}: {text}");
        }
    }

    #[test]
    fn a_terminal_gets_no_orders_from_others() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc\td\u{202e}"), "a^[[31mb\\u{d}\nc\td\\u{202e}");
        assert_eq!(clean_line("one\ttwo\nthree"), "one two...");
        assert_eq!(clean_line(""), "");
    }
}

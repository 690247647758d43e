//! What commands print: tables for people, proto3 JSON for programs.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};

use super::Failure;

/// Writes `text` to standard output at once.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// A table as plain columns, one line per row; ends with a line feed.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| or_dash(&plain(&cell))));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Names and values below each other; entries without a value are left out.
pub(super) fn fields<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let entries: Vec<_> = entries.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    entries.iter().map(|(name, value)| format!("{name:width$}  {}\n", plain(value))).collect()
}

/// The text on one line, without anything that a terminal would obey: it comes from others.
pub(super) fn plain(text: &str) -> String {
    grey_core::text::plain(text).into_owned()
}

/// The last word of an enum value's name, in lower case.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', " ")
}

/// `key=value` pairs on one line.
pub(super) fn pairs<'a>(entries: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<_> = entries.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_command_the_terminal() {
        let rows =
            [["acme\u{1b}[2J".to_owned(), String::new()], ["b\nc\u{3164}d".to_owned(), "gold".to_owned()]];
        insta::assert_snapshot!(table(["TENANT", "TIER"], rows), @"
        TENANT    TIER
        acme [2J  -
        b c d     gold
        ");
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let text = fields([("tier", "gold".to_owned()), ("region", String::new()), ("x", "y".to_owned())]);
        assert_eq!(text, "tier  gold\nx     y\n");
    }
}

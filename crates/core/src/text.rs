//! Text that people write and read: what of it can be stored, logged and shown as it is.
//!
//! PostgreSQL takes no NUL, terminals obey escape sequences, and characters that turn the direction of writing make a
//! line say something else than it shows. One rule for all of it: where a person or a program states a text, it is
//! refused; what comes from a registry or another system is cleaned.

use std::borrow::Cow;

/// Said of a text that is not [plain](is_plain).
pub const NOT_PLAIN: &str = "must be plain text: no control characters, line breaks, invisible characters or such that change the direction of writing";

/// Whether the text has nothing in it but what is shown.
///
/// ```
/// assert!(grey_core::text::is_plain("Müller & Söhne ליבה"));
/// assert!(!grey_core::text::is_plain("acme\u{1b}[2J"));
/// ```
#[must_use]
pub fn is_plain(text: &str) -> bool {
    !text.contains(is_unfit)
}

/// The text with a space for each character that is not shown.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if is_plain(text) { Cow::Borrowed(text) } else { Cow::Owned(text.replace(is_unfit, " ")) }
}

fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Line and paragraph separators; marks, embeddings, overrides and isolates of direction.
            '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // What takes no room: two texts that look alike would not be. Joiners stay, scripts and emoji need them.
            | '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_told_and_cleaned() {
        for text in ["", "a b", "日本", "مرحبا", "👩\u{200d}🚀"] {
            assert!(is_plain(text) && plain(text) == text, "{text:?}");
        }
        for unfit in
            "\0\n\t\u{1b}\u{7f}\u{9b}\u{61c}\u{200f}\u{2028}\u{202e}\u{2066}\u{feff}\u{200b}\u{e0041}".chars()
        {
            let text = format!("a{unfit}b");
            assert!(!is_plain(&text), "{text:?}");
            assert_eq!(plain(&text), "a b");
        }
    }
}

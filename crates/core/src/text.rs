//! Text that people write and read: what of it can be stored, logged and shown as it is.
//!
//! PostgreSQL takes no NUL, terminals obey escape sequences, characters that turn the direction of writing make a line
//! say something else than it shows, and by those that are not shown two texts differ that look alike. One rule for all of
//! it: where a person or a program states a text, it is refused; what comes from a registry or another system is cleaned.

use std::borrow::Cow;

use icu_properties::{CodePointSetData, CodePointSetDataBorrowed, props::DefaultIgnorableCodePoint};

/// Said of a text that is not [plain](is_plain).
pub const NOT_PLAIN: &str = "must be plain text: no control characters, line breaks, invisible characters or such that change the direction of writing";

/// What Unicode has shown as nothing by whoever does not obey it: marks of direction, fillers, tags, and what it has set
/// aside for more of the kind.
const IGNORABLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();

/// Whether the text has nothing in it but what is shown.
///
/// ```
/// assert!(grey_core::text::is_plain("Müller & Söhne ליבה"));
/// assert!(!grey_core::text::is_plain("acme\u{1b}[2J"));
/// ```
#[must_use]
pub fn is_plain(text: &str) -> bool {
    text.is_ascii() && !text.contains(|character: char| character.is_ascii_control())
        || characters(text).all(|(_, is_unfit)| !is_unfit)
}

/// The text with a space for each character that is not shown.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(characters(text).map(|(character, is_unfit)| if is_unfit { ' ' } else { character }).collect())
}

/// Each character, and whether it is unfit where it stands.
fn characters(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut before = None;
    let mut rest = text.chars().peekable();
    std::iter::from_fn(move || {
        let character = rest.next()?;
        let is_unfit = match shaping(character) {
            None => is_unfit(character),
            Some(shaping) => !shaping.fits(before, rest.peek().copied()),
        };
        // What is cleaned stands as a space before what follows.
        before = Some(if is_unfit { ' ' } else { character });
        Some((character, is_unfit))
    })
}

/// What scripts and emoji need although it is not shown, where it shapes what stands beside it.
#[derive(Clone, Copy)]
enum Shaping {
    /// Joins two characters, or keeps them apart.
    Joiner,
    /// Selects a variant of the character before it.
    Selector,
}

fn shaping(character: char) -> Option<Shaping> {
    match character {
        '\u{200c}' | '\u{200d}' => Some(Shaping::Joiner),
        '\u{fe00}'..='\u{fe0f}' => Some(Shaping::Selector),
        _ => None,
    }
}

impl Shaping {
    /// Between ASCII there is nothing to shape, but for the digits of emoji.
    fn fits(self, before: Option<char>, after: Option<char>) -> bool {
        let Some(before) = before.filter(|before| is_shown(*before)) else { return false };
        match self {
            Self::Joiner => after.is_some_and(|after| {
                let is_shown = is_shown(after) && shaping(after).is_none();
                let joins_no_joiner = !matches!(shaping(before), Some(Self::Joiner));
                is_shown && joins_no_joiner && !(before.is_ascii() && after.is_ascii())
            }),
            Self::Selector => {
                let is_keycap = after == Some('\u{20e3}');
                shaping(before).is_none() && (!before.is_ascii() || is_keycap)
            }
        }
    }
}

fn is_shown(character: char) -> bool {
    !character.is_whitespace() && !is_unfit(character)
}

/// Whether the character is not shown, or does what it should not, wherever it stands.
fn is_unfit(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let is_invisible = IGNORABLE.contains(character) && shaping(character).is_none();
    is_invisible || character.is_control() || is_no_character(character) || is_odd(character)
}

/// Unicode's noncharacters: the last two of each plane, and a block.
fn is_no_character(character: char) -> bool {
    u32::from(character) & 0xfffe == 0xfffe || matches!(character, '\u{fdd0}'..='\u{fdef}')
}

/// Separators of lines and paragraphs, marks of annotations, and a letter without a dot.
fn is_odd(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' | '\u{2800}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is refused, in the order of the code points: the rule once more, by Unicode's `DerivedCoreProperties.txt` and
    /// its chapter on noncharacters.
    const UNFIT: &[(u32, u32)] = &[
        // Controls of ASCII and Latin-1, and the soft hyphen.
        (0x00, 0x1f),
        (0x7f, 0x9f),
        (0xad, 0xad),
        // The grapheme joiner, which joins nothing; the Arabic letter mark.
        (0x34f, 0x34f),
        (0x61c, 0x61c),
        // Fillers of Hangul, inherent vowels of Khmer, selectors and the vowel separator of Mongolian.
        (0x115f, 0x1160),
        (0x17b4, 0x17b5),
        (0x180b, 0x180f),
        // A space of no width, marks of direction.
        (0x200b, 0x200b),
        (0x200e, 0x200f),
        // Separators of lines and paragraphs; embeddings and overrides of direction.
        (0x2028, 0x202e),
        // The word joiner, invisible operators, isolates of direction, deprecated controls.
        (0x2060, 0x206f),
        // Braille without a dot, the filler of Hangul.
        (0x2800, 0x2800),
        (0x3164, 0x3164),
        (0xfdd0, 0xfdef),
        (0xfeff, 0xfeff),
        (0xffa0, 0xffa0),
        (0xfff0, 0xfffb),
        (0xfffe, 0xffff),
        // Controls of shorthand and of music.
        (0x1_bca0, 0x1_bca3),
        (0x1_d173, 0x1_d17a),
        (0x1_fffe, 0x1_ffff),
        (0x2_fffe, 0x2_ffff),
        (0x3_fffe, 0x3_ffff),
        (0x4_fffe, 0x4_ffff),
        (0x5_fffe, 0x5_ffff),
        (0x6_fffe, 0x6_ffff),
        (0x7_fffe, 0x7_ffff),
        (0x8_fffe, 0x8_ffff),
        (0x9_fffe, 0x9_ffff),
        (0xa_fffe, 0xa_ffff),
        (0xb_fffe, 0xb_ffff),
        (0xc_fffe, 0xc_ffff),
        (0xd_fffe, 0xd_ffff),
        // Tags, further selectors of variants, and what is set aside for more.
        (0xe_0000, 0xe_0fff),
        (0xe_fffe, 0xe_ffff),
        (0xf_fffe, 0xf_ffff),
        (0x10_fffe, 0x10_ffff),
    ];

    #[test]
    fn every_character_is_shown_or_refused() {
        for character in '\0'..=char::MAX {
            let code = u32::from(character);
            let is_listed = UNFIT.iter().any(|(first, last)| (*first..=*last).contains(&code));
            let text = format!("α{character}β");
            assert_eq!(is_plain(&text), !is_listed, "U+{code:04X}");
            assert_eq!(plain(&text) == "α β", is_listed || character == ' ', "U+{code:04X}");
        }
    }

    #[test]
    fn joiners_and_selectors_stand_only_where_they_shape_something() {
        let [joiner, selector] = ["\u{200d}", "\u{fe0f}"];
        for name in ["", "ann", "анна", "ann "] {
            for shaping in [joiner, selector, "\u{200c}", "\u{fe0e}"] {
                assert!(!is_plain(&format!("{shaping}{name}")), "{name:?}");
                assert!(!is_plain(&format!("{name}{shaping} b")) || shaping >= "\u{fe00}", "{name:?}");
            }
            assert!(!is_plain(&format!("{name}{joiner}")), "{name:?}");
            assert!(!is_plain(&format!("{name}{joiner}{joiner}я")), "{name:?}");
        }
        assert_eq!(plain("ann\u{200d}"), "ann ");
        for text in ["a\u{fe0f}\u{200d}я", "я\u{fe0f}\u{fe0f}\u{200d}я"] {
            assert!(!is_plain(text) && is_plain(&plain(text)), "{text:?}");
        }
        assert!(!is_plain("an\u{200d}n") && !is_plain("ann\u{fe0f}") && !is_plain("я\u{fe0f}\u{fe0f}"));
        assert!(is_plain("PDF\u{200c}ها") && is_plain("1\u{fe0f}\u{20e3}"));
    }

    #[test]
    fn what_is_not_shown_is_told_and_cleaned() {
        let names = [
            "",
            "a b",
            "日本",
            "مرحبا",
            "👩\u{200d}🚀",
            "❤\u{fe0f}\u{200d}🔥",
            "می\u{200c}خواهم",
            "ක්\u{200d}ෂ",
            "❤\u{fe0f}",
        ];
        for text in names {
            assert!(is_plain(text) && plain(text) == text, "{text:?}");
        }
        for unfit in
            "\0\n\t\u{1b}\u{7f}\u{9b}\u{61c}\u{200f}\u{2028}\u{202e}\u{3164}\u{feff}\u{e0041}".chars()
        {
            let text = format!("a{unfit}b");
            assert!(!is_plain(&text), "{text:?}");
            assert_eq!(plain(&text), "a b");
        }
    }
}

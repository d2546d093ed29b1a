//! The width of a text in the font it is drawn with, and what follows from it: wrapping and shortening.

use skrifa::prelude::{FontRef, LocationRef, MetadataProvider, Size};
use std::sync::LazyLock;

pub(crate) const REGULAR: &[u8] = include_bytes!("../assets/Roboto-Regular.ttf");
pub(crate) const BOLD: &[u8] = include_bytes!("../assets/Roboto-Bold.ttf");

/// The same for a web page: the characters of our texts, packed.
pub(crate) const REGULAR_WEB: &[u8] = include_bytes!("../assets/report/Roboto-Regular.woff2");
pub(crate) const BOLD_WEB: &[u8] = include_bytes!("../assets/report/Roboto-Bold.woff2");

/// The two weights that are compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Regular,
    Bold,
}

static FONTS: LazyLock<[Option<FontRef<'static>>; 2]> =
    LazyLock::new(|| [FontRef::new(REGULAR).ok(), FontRef::new(BOLD).ok()]);

/// Width in pixels, without kerning (Roboto's only ever makes a text narrower).
pub(crate) fn width(text: &str, size: f64, weight: Weight) -> f64 {
    let guess = 0.6 * size;
    let Some(font) = &FONTS[weight as usize] else {
        return guess * text.chars().count() as f64;
    };
    let metrics = font.glyph_metrics(Size::new(size as f32), LocationRef::default());
    let advance = |c| {
        font.charmap()
            .map(c)
            .and_then(|glyph| metrics.advance_width(glyph))
    };
    text.chars().map(|c| advance(c).map_or(guess, f64::from)).sum()
}

/// Breaks a text at spaces so that no line is wider than `max_width`; a word that is too long by itself is
/// shortened.
pub(crate) fn wrap(text: &str, size: f64, weight: Weight, max_width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // Only the plain space: the no-break space holds a number and its unit together.
    for word in text.split([' ', '\n', '\t']).filter(|word| !word.is_empty()) {
        if let Some(line) = lines.last_mut() {
            let longer = format!("{line} {word}");
            if width(&longer, size, weight) <= max_width {
                *line = longer;
                continue;
            }
        }
        lines.push(fit(word, size, weight, max_width));
    }
    lines
}

/// The text, cut with an ellipsis where it is wider than `max_width`.
pub(crate) fn fit(text: &str, size: f64, weight: Weight, max_width: f64) -> String {
    if width(text, size, weight) <= max_width {
        return text.to_owned();
    }
    let mut kept: String = text.to_owned();
    while kept.pop().is_some() {
        let shortened = format!("{}…", kept.trim_end());
        if width(&shortened, size, weight) <= max_width {
            return shortened;
        }
    }
    "…".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_come_from_the_font() {
        let narrow = width("iiii", 12.0, Weight::Regular);
        let wide = width("WWWW", 12.0, Weight::Regular);
        assert!(wide > 3.0 * narrow);
        assert!(width("MTLA", 12.0, Weight::Bold) > width("MTLA", 12.0, Weight::Regular));
        assert!(
            (width("MTLA", 24.0, Weight::Regular) / width("MTLA", 12.0, Weight::Regular) - 2.0).abs() < 1e-3
        );
    }

    #[test]
    fn the_font_has_the_characters_of_units() {
        for c in "µ×·…–\u{2009}\u{a0}²".chars() {
            for font in FONTS.iter() {
                assert!(font.as_ref().unwrap().charmap().map(c).is_some(), "{c:?}");
            }
        }
    }

    #[test]
    fn wrapped_lines_keep_every_word_and_fit() {
        let text = "How do decode latency and cache size grow with context?";
        let lines = wrap(text, 17.0, Weight::Bold, 160.0);
        assert!(lines.len() > 2);
        assert_eq!(lines.join(" "), text);
        assert!(lines.iter().all(|line| width(line, 17.0, Weight::Bold) <= 160.0));
    }

    #[test]
    fn a_word_that_cannot_fit_is_cut() {
        let cut = fit("an-endless-variant-name", 12.0, Weight::Regular, 60.0);
        assert!(cut.ends_with('…') && cut.starts_with("an-"));
        assert!(width(&cut, 12.0, Weight::Regular) <= 60.0);
    }
}

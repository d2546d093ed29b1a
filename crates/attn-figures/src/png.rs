//! From an SVG document to pixels, with the fonts that are compiled in and no others.

use crate::{Error, font};
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};
use std::sync::{Arc, LazyLock};

static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    fonts.load_font_data(font::REGULAR.to_vec());
    fonts.load_font_data(font::BOLD.to_vec());
    fonts.set_sans_serif_family("Roboto");
    fonts.set_serif_family("Roboto"); // usvg's last resort
    Arc::new(fonts)
});

/// Renders a figure's SVG on white, `scale` pixels to each of its own.
///
/// # Errors
/// [`Error::Png`] where the document is not SVG, or the picture would be too large or empty.
pub fn to_png(svg: &str, scale: f32) -> Result<Vec<u8>, Error> {
    let failed = |message: String| Error::Png { message };
    let options = Options {
        fontdb: Arc::clone(&FONTS),
        font_family: "Roboto".to_owned(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|e| failed(e.to_string()))?;
    let size = tree.size().to_int_size();
    let side = |pixels: u32| (pixels as f32 * scale).round() as u32;
    let (width, height) = (side(size.width()), side(size.height()));
    let mut pixels =
        Pixmap::new(width, height).ok_or_else(|| failed(format!("no picture of {width} x {height}")))?;
    pixels.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn darkest(body: &str) -> u8 {
        let svg = format!(r#"<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20">{body}</svg>"#);
        let png = to_png(&svg, 2.0).unwrap();
        let pixels = Pixmap::decode_png(&png).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (120, 40));
        pixels.pixels().iter().map(|p| p.red()).min().unwrap()
    }

    #[test]
    fn text_is_drawn_without_any_font_on_the_machine() {
        assert_eq!(darkest(""), 255);
        for family in [
            "Roboto, Helvetica, Arial, sans-serif",
            "sans-serif",
            "No Such Font",
        ] {
            let text = format!(r#"<text x="2" y="16" font-size="16" font-family="{family}">MTLA</text>"#);
            assert!(darkest(&text) < 80, "{family}");
        }
    }

    #[test]
    fn what_is_not_svg_is_an_error() {
        assert!(matches!(to_png("<svg", 1.0), Err(Error::Png { .. })));
        let huge = r#"<svg xmlns="http://www.w3.org/2000/svg" width="9e8" height="9e8"/>"#;
        assert!(matches!(to_png(huge, 2.0), Err(Error::Png { .. })));
    }
}

//! A QR code as a picture (ISO/IEC 18004, SVG).

use std::fmt::Write;

use qrcodegen::{QrCode, QrCodeEcc};

/// The white border that a reader needs around it, in modules.
const QUIET_ZONE: i32 = 4;

/// The picture of a text; `None` where it is too long for one.
pub(super) fn svg(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let side = code.size() + 2 * QUIET_ZONE;
    let mut modules = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(modules, "M{},{}h1v1h-1z", x + QUIET_ZONE, y + QUIET_ZONE);
        }
    }
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0,0h{side}v{side}h-{side}z\"/><path d=\"{modules}\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_dark_on_white_with_a_border_and_holds_nothing_of_the_text() {
        let picture = svg("https://id.example.com/\"><script>").unwrap();
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>"));
        assert!(!picture.contains("script") && picture.matches('<').count() == 4, "{picture}");
        // The upper left corner of the finder pattern, and nothing before it.
        assert!(picture.contains("<path d=\"M4,4h1v1h-1z"), "{picture}");
        assert!(!picture.contains("M3,") && !picture.contains(",3h1"), "{picture}");
        assert_eq!(svg(&"x".repeat(4000)), None);
    }
}

//! Header fields that hold a list (RFC 9110 §5.6.1): several fields of one name are one list.

use http::header::{ACCEPT, HeaderMap, HeaderName};

/// The members of a list, without the space around them.
pub fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let fields = headers.get_all(name).iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether a list has this member, in whatever case.
pub fn lists(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    members(headers, name).any(|found| found.eq_ignore_ascii_case(member.as_bytes()))
}

/// Whether `Accept` names this media type in so many words (RFC 9110 §12.5.1). What takes anything (`*/*`),
/// as scripts and images are asked for, does not ask for it.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    members(headers, &ACCEPT).any(|range| {
        let named = range.split(|byte| *byte == b';').next().unwrap_or_default();
        named.trim_ascii().eq_ignore_ascii_case(media_type.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONNECTION;

    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn several_fields_are_one_list() {
        let headers = headers(&CONNECTION, &["close, X-Hop", "\tUpgrade ,,"]);
        let found: Vec<_> = members(&headers, &CONNECTION).collect();
        assert_eq!(found, [&b"close"[..], b"X-Hop", b"Upgrade", b"", b""]);
        assert!(lists(&headers, &CONNECTION, "upgrade") && !lists(&headers, &CONNECTION, "hop"));
    }

    #[test]
    fn a_media_type_is_accepted_where_it_is_named() {
        for (accept, is_named) in [
            ("text/html", true),
            ("image/webp, Text/HTML ;q=0.9", true),
            ("*/*", false),
            ("text/*", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            assert_eq!(accepts(&headers(&ACCEPT, &[accept]), "text/html"), is_named, "{accept}");
        }
        assert!(!accepts(&HeaderMap::new(), "text/html"));
    }
}

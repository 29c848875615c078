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

/// The members of a list of preferences without their parameters, and the quality of each (RFC 9110 §12.4.2), those liked
/// best first. What is no text, or has no quality that can be read, is left out.
pub fn quality_values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<(&'a str, f32)> {
    /// No browser has so many.
    const MOST: usize = 64;
    let listed = members(headers, name).take(MOST).filter_map(|member| {
        let mut parts = str::from_utf8(member).ok()?.split(';').map(str::trim);
        let value = parts.next().filter(|value| !value.is_empty())?;
        let quality = match parts.next() {
            Some(weight) => {
                let weight = weight.strip_prefix(['q', 'Q'])?.trim().strip_prefix('=')?;
                weight.trim().parse::<f32>().ok()?
            }
            None => 1.0,
        };
        (0.0..=1.0).contains(&quality).then_some((value, quality))
    });
    let mut listed: Vec<_> = listed.collect();
    // Those that are liked alike stay in their order.
    listed.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    listed
}

/// The tag for the first of some language ranges, which begin with the one liked best, that there is a tag for: the same, else
/// the longest that is more general (RFC 4647 §3.4), else one that is more particular (§3.3.1). For `de-AT` there is `de`, and
/// for `pt` there is `pt-BR`. `*` takes the first, and what is given no quality is not wanted.
pub fn best_tag<'a>(accepted: &[(&str, f32)], tags: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_unwanted =
        |tag: &str| accepted.iter().any(|(range, quality)| *quality == 0.0 && begins_with(tag, range));
    let tags: Vec<&str> = tags.into_iter().filter(|tag| !is_unwanted(tag)).collect();
    accepted.iter().filter(|(_, quality)| *quality > 0.0).find_map(|(range, _)| {
        let general = tags.iter().filter(|tag| begins_with(range, tag)).max_by_key(|tag| tag.len());
        general.or_else(|| tags.iter().find(|tag| *range == "*" || begins_with(tag, range))).copied()
    })
}

/// Whether a tag is this one, or begins with its subtags.
fn begins_with(tag: &str, subtags: &str) -> bool {
    tag.get(..subtags.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(subtags))
        && matches!(tag.as_bytes().get(subtags.len()), None | Some(b'-'))
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

    #[test]
    fn what_is_liked_best_comes_first_and_what_is_no_preference_not_at_all() {
        let headers =
            headers(&ACCEPT, &["b;q=0.5, a, ;q=1, x;q=2, y;q=much, z;level=1", "d;Q = 0.5,c;q=0.7, e;q=0"]);
        let values = [("a", 1.0), ("c", 0.7), ("b", 0.5), ("d", 0.5), ("e", 0.0)];
        assert_eq!(quality_values(&headers, &ACCEPT), values);
    }

    #[test]
    fn a_range_fits_what_is_more_general_and_what_is_more_particular() {
        let best = |range: &str, tags: &[&'static str]| best_tag(&[(range, 1.0)], tags.iter().copied());
        assert_eq!(best("de-AT", &["en", "de"]), Some("de"));
        assert_eq!(best("pt", &["pt-BR", "en"]), Some("pt-BR"));
        assert_eq!(best("de-AT", &["de-DE"]), None);
        assert_eq!(best("*", &["ar", "en"]), Some("ar"));
    }

    #[test]
    fn the_same_tag_goes_before_any_other_and_what_is_unwanted_is_so_in_all_its_kinds() {
        let best = |accepted: &[(&str, f32)], tags: &[&'static str]| best_tag(accepted, tags.iter().copied());
        assert_eq!(best(&[("de-AT", 1.0)], &["de", "de-AT"]), Some("de-AT"));
        assert_eq!(best(&[("en", 1.0)], &["en-AU", "en"]), Some("en"));
        assert_eq!(best(&[("de-AT", 1.0), ("en", 0.5), ("de", 0.0)], &["de-AT", "de", "en"]), Some("en"));
    }
}

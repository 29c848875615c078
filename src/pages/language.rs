//! The languages that our pages are in, and which of them somebody reads best.

use http::{HeaderMap, header};

use crate::fields;

/// A language of our pages: each has all texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// English, for whoever reads none of the others.
    English,
    /// German.
    German,
}

impl Language {
    /// Each of them. The first is for whoever reads none of them.
    pub const ALL: [Self; 2] = [Self::English, Self::German];

    /// As HTML, HTTP and OpenID Connect name it (BCP 47).
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// The one of this tag.
    pub fn of_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == tag)
    }

    /// The one that a browser prefers (RFC 9110 §12.5.4).
    pub fn of_browser(headers: &HeaderMap) -> Self {
        let accepted = fields::quality_values(headers, &header::ACCEPT_LANGUAGE);
        Self::best(&accepted).unwrap_or(Self::English)
    }

    /// The first of `ui_locales`, which begin with the one liked best (OpenID Connect Core §3.1.2.1), that we have.
    pub fn of_ui_locales(locales: &str) -> Option<Self> {
        let accepted: Vec<_> = locales.split_ascii_whitespace().map(|locale| (locale, 1.0)).collect();
        Self::best(&accepted)
    }

    fn best(accepted: &[(&str, f32)]) -> Option<Self> {
        Self::of_tag(fields::best_tag(accepted, Self::ALL.map(Self::tag))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &'static str) -> Language {
        let value = http::HeaderValue::from_static(accept);
        Language::of_browser(&HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, value)]))
    }

    #[test]
    fn a_browser_gets_what_it_likes_best_of_what_there_is() {
        for (accept, language) in [
            ("de", Language::German),
            ("de-AT,de;q=0.9,en;q=0.8", Language::German),
            ("DE-ch", Language::German),
            ("en-US,en;q=0.9,de;q=0.8", Language::English),
            ("en;q=0.2, de ; q=0.7", Language::German),
            ("fr,de;q=0.5", Language::German),
            ("fr", Language::English),
            ("", Language::English),
            ("*", Language::English),
            ("*, en;q=0", Language::German),
            ("en;q=0,de;q=0", Language::English),
            ("den,e", Language::English),
            ("de;q=nonsense,en;q=0.1", Language::English),
        ] {
            assert_eq!(of(accept), language, "{accept}");
        }
        assert_eq!(Language::of_browser(&HeaderMap::new()), Language::English);
    }

    #[test]
    fn ui_locales_begin_with_the_one_liked_best() {
        assert_eq!(Language::of_ui_locales("fr-CA de-CH en"), Some(Language::German));
        assert_eq!(Language::of_ui_locales("en de"), Some(Language::English));
        assert_eq!(Language::of_ui_locales("fr"), None);
    }
}

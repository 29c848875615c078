//! Where the browser goes after a login: a path of the app, and never anywhere else (R5).

use url::{Position, Url, form_urlencoded};

use crate::config::Origin;
use crate::error::{Reason, Refusal};

/// Longer ones would make the login cookie too large; five of those must fit in a request's head.
pub(super) const LONGEST: usize = 1024;

/// Reads `return_to`, a path of this origin with its query and fragment, as a browser would; gives it
/// as the parser writes it, never as it came in.
pub fn parse(text: &str, origin: &Origin, base_path: &str) -> Result<String, Refusal> {
    let refused = || Refusal::new(Reason::ReturnTo);
    // Browsers read a backslash in a path as a slash, and drop tabs and line ends wherever they stand.
    let path = text.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') || path.contains('\\') || text.chars().any(char::is_control) {
        return Err(refused());
    }
    let own = Url::parse(origin.as_str()).map_err(|_| refused())?;
    let url = own.join(text).map_err(|_| refused())?;
    own_path(&url, &own, base_path).ok_or_else(refused)
}

/// Reads `target_link_uri`, an absolute URL of this origin (OpenID Connect Core §4).
pub fn parse_target_link(text: &str, origin: &Origin, base_path: &str) -> Result<String, Refusal> {
    let refused = || Refusal::new(Reason::TargetLink);
    let own = Url::parse(origin.as_str()).map_err(|_| refused())?;
    let url = Url::parse(text).map_err(|_| refused())?;
    own_path(&url, &own, base_path).ok_or_else(refused)
}

/// Where a navigation without a session is sent: to login, and from there back to where it wanted to go.
pub fn login_location(base_path: &str, wanted: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if wanted.len() <= LONGEST {
        query.append_pair("return_to", wanted);
    }
    format!("{base_path}/login?{}", query.finish())
}

fn own_path(url: &Url, own: &Url, base_path: &str) -> Option<String> {
    let path = &url[Position::BeforePath..];
    let leads_to_endpoint =
        url.path().strip_prefix(base_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // The scheme for itself, too: `blob:https://shop.example.com` has the origin of what it names.
    (url.scheme() == own.scheme()
        && url.origin() == own.origin()
        && url.username().is_empty()
        && url.password().is_none()
        // `/.//evil.example` is written as `//evil.example`, which a browser takes for a host.
        && !path.starts_with("//")
        // A login that returns to login would go on for ever.
        && !leads_to_endpoint
        && path.len() <= LONGEST)
        .then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Origin {
        Origin::parse("https://shop.example.com").unwrap()
    }

    #[test]
    fn r5_a_path_of_the_app_is_written_anew() {
        for (text, written) in [
            ("/", "/"),
            ("/orders?page=2#top", "/orders?page=2#top"),
            ("/a/../b", "/b"),
            ("/é?q=ü", "/%C3%A9?q=%C3%BC"),
            ("/%2f%2fevil.example", "/%2f%2fevil.example"),
            ("/bffs", "/bffs"),
            ("/search?q=a\\b", "/search?q=a\\b"),
        ] {
            assert_eq!(parse(text, &own(), "/bff").unwrap(), written);
        }
    }

    #[test]
    fn r5_whatever_could_lead_elsewhere_is_refused() {
        for text in [
            "",
            "orders",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/\t/evil.example",
            "/\n/evil",
            "https://evil.example/",
            "https://shop.example.com/",
            "https:evil.example",
            "javascript:alert(1)",
            "/.//evil.example",
            "/a/..//evil.example",
            "/%2e//evil.example",
            " /orders",
            "///evil.example",
            "/bff/login",
            "/bff/logout",
            "/bff",
            "/x/../bff/login",
        ] {
            assert!(parse(text, &own(), "/bff").is_err(), "{text:?}");
        }
        assert!(parse(&format!("/{}", "a".repeat(LONGEST)), &own(), "/bff").is_err());
    }

    #[test]
    fn a_target_link_is_an_absolute_url_of_the_app() {
        let parsed = |text| parse_target_link(text, &own(), "/bff").ok();
        assert_eq!(parsed("https://shop.example.com/orders?a=1").as_deref(), Some("/orders?a=1"));
        for text in [
            "/orders",
            "https://evil.example/",
            "http://shop.example.com/",
            "https://u@shop.example.com/",
            "blob:https://shop.example.com/orders",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}

//! `return_to` and `target_link_uri`: whatever is accepted stays on the app's origin (R5).

use cloakroom::config::Origin;
use cloakroom::endpoints::return_to::{login_location, parse, parse_target_link};
use http::HeaderValue;
use url::Url;

/// What stands in the parameter.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for origin in ["https://shop.example.com", "http://localhost:8080"] {
        let Ok(origin) = Origin::parse(origin) else { return };
        if let Ok(path) = parse(&text, &origin, "/bff") {
            check(&path, &origin);
            assert_eq!(parse(&path, &origin, "/bff").ok(), Some(path), "{text:?}");
        }
        if let Ok(path) = parse_target_link(&text, &origin, "/bff") {
            check(&path, &origin);
        }
    }
    assert!(HeaderValue::try_from(login_location("/bff", &text)).is_ok());
}

/// A browser that is sent there, by a `Location` or by a page, stays where it is.
fn check(path: &str, origin: &Origin) {
    assert!(path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/\\"), "{path:?}");
    assert!(HeaderValue::from_str(path).is_ok(), "{path:?}");
    assert!(path.len() <= 1024, "{path:?}");
    let base = Url::parse(origin.as_str()).and_then(|own| own.join("/bff/callback?code=1"));
    let target = base.and_then(|base| base.join(path)).expect("a path can be joined");
    assert_eq!(target.origin().ascii_serialization(), origin.as_str(), "{path:?}");
    let is_endpoint = target.path() == "/bff" || target.path().starts_with("/bff/");
    assert!(!is_endpoint, "{path:?}");
}

//! The `Cookie` header: what is found is removed, nothing else is, and a planted value opens nothing (R26, R34).

use std::borrow::Cow;

use cloakroom::config::SessionKey;
use cloakroom::seal::{Context, KeyRing, Purpose};
use cloakroom::session::cookie::{Conflicting, Ticket, find, names, remove};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

const NAME: &str = "__Host-cloakroom";

/// Each line is one `Cookie` field.
pub fn run(data: &[u8]) {
    let before = fields(data);
    let found = find(&before, NAME);
    assert_eq!(found, expected(&before));
    assert_eq!(names(&before, NAME).iter().any(|name| name == NAME), found != Ok(None));

    let is_ours = |name: &str| name == NAME || name.starts_with("__Host-cloakroom-login-");
    let mut after = before.clone();
    remove(&mut after, is_ours);
    assert_eq!(find(&after, NAME), Ok(None));
    assert!(!names(&after, "").iter().any(|name| is_ours(name)));
    assert!(after.get_all(COOKIE).iter().count() <= 1);
    let others: Vec<_> = pairs(&before).into_iter().filter(|pair| !is_own_pair(pair, is_ours)).collect();
    assert_eq!(pairs(&after), others);
    let once = after.clone();
    remove(&mut after, is_ours);
    assert_eq!(after, once);

    if let Ok(Some(value)) = found {
        let ring = KeyRing::new(&[SessionKey::new([1; 32])]);
        let context =
            Context { purpose: Purpose::SessionCookie, name: NAME, app: "https://shop.example.com" };
        assert_eq!(Ticket::from_cookie(&value, &ring, &context), None);
    }
}

fn fields(data: &[u8]) -> HeaderMap {
    let lines = data.split(|byte| *byte == b'\n');
    lines.filter_map(|line| Some((COOKIE, HeaderValue::from_bytes(line).ok()?))).collect()
}

/// What RFC 6265 §5.4 would have sent: pairs between semicolons, with space and tab around them.
fn pairs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let values: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = values.join(&b';');
    let trimmed = joined.split(|byte| *byte == b';').map(|pair| {
        let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
        let start = pair.iter().position(is_text).unwrap_or(pair.len());
        let end = pair.iter().rposition(is_text).map_or(start, |last| last + 1);
        pair[start..end].to_vec()
    });
    trimmed.filter(|pair| !pair.is_empty()).collect()
}

fn expected(headers: &HeaderMap) -> Result<Option<Cow<'static, str>>, Conflicting> {
    let prefix = format!("{NAME}=");
    let mut values: Vec<_> = pairs(headers)
        .iter()
        .filter_map(|pair| Some(pair.strip_prefix(prefix.as_bytes())?.to_vec()))
        .collect();
    values.dedup();
    match values.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(String::from_utf8_lossy(one).into_owned().into())),
        _ => Err(Conflicting),
    }
}

fn is_own_pair(pair: &[u8], is_ours: impl Fn(&str) -> bool) -> bool {
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    std::str::from_utf8(name).is_ok_and(is_ours)
}

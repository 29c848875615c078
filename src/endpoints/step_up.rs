//! A login that brings what an upstream found missing in the last one (RFC 9470).

use std::time::Duration;

use serde_json::Value;
use url::form_urlencoded;

use super::login::LONGEST_ACR_VALUES;
use super::return_to;
use crate::clock::Timestamp;
use crate::oidc::jwt::numeric_date;
use crate::session::Session;

/// A session that is this young comes straight from a login. Where that brought what is asked for, another one brings
/// nothing else.
const JUST_BEGUN: Duration = Duration::from_secs(60);

/// How far the clocks of an issuer and an upstream may be apart.
const LEEWAY: u64 = 60;

/// What a login is to bring. It holds nothing that `login` would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUp {
    acr_values: Option<String>,
    max_age: Option<u64>,
}

impl StepUp {
    /// What an upstream asks for, as far as a login can be asked for it.
    pub fn new(acr_values: Option<&str>, max_age: Option<&str>) -> Self {
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let acr_values = acr_values.filter(|values| values.len() <= LONGEST_ACR_VALUES && is_plain(values));
        let acr_values = acr_values.map(str::trim).filter(|values| !values.is_empty());
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let max_age = max_age.filter(|seconds| is_number(seconds));
        Self {
            acr_values: acr_values.map(str::to_owned),
            max_age: max_age.and_then(|seconds| seconds.parse().ok()),
        }
    }

    /// Whether a session comes straight from a login that brought this. Who is sent to login then comes back with
    /// the same, and would go on for ever.
    pub fn was_just_brought_by(&self, session: &Session, now: Timestamp) -> bool {
        let claims = &session.identity.claims;
        let has_context = self.acr_values.as_ref().is_none_or(|values| {
            let acr = claims.get("acr").and_then(Value::as_str);
            acr.is_some_and(|acr| values.split(' ').any(|value| value == acr))
        });
        let was_recent = self.max_age.is_none_or(|max_age| {
            let auth_time = claims.get("auth_time").and_then(numeric_date);
            auth_time.is_some_and(|at| {
                session.created_at.as_secs().saturating_sub(at) <= max_age.saturating_add(LEEWAY)
            })
        });
        now.since(session.created_at) < JUST_BEGUN && has_context && was_recent
    }

    /// Where such a login begins, at this issuer where there are several, and from there leads back to `wanted`. Where nothing is known of what is missing,
    /// the user is to log in by hand: more nobody can do.
    pub fn login_location(&self, base_path: &str, issuer: Option<&str>, wanted: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let max_age = self.max_age.map(|seconds| seconds.to_string());
        query.extend_pairs(issuer.map(|issuer| ("iss", issuer)));
        query.extend_pairs(self.acr_values.as_ref().map(|values| ("acr_values", values)));
        query.extend_pairs(max_age.as_ref().map(|seconds| ("max_age", seconds)));
        if self.acr_values.is_none() && max_age.is_none() {
            query.append_pair("prompt", "login");
        }
        query.extend_pairs(
            wanted.filter(|path| path.len() <= return_to::LONGEST).map(|path| ("return_to", path)),
        );
        format!("{base_path}/login?{}", query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(acr_values: Option<&str>, max_age: Option<&str>) -> String {
        StepUp::new(acr_values, max_age).login_location("/bff", None, None)
    }

    #[test]
    fn rfc9470_a_login_is_asked_for_what_is_missing() {
        assert_eq!(location(Some("gold  silver"), Some("0")), "/bff/login?acr_values=gold++silver&max_age=0");
        assert_eq!(location(None, Some("300")), "/bff/login?max_age=300");
        assert_eq!(location(None, None), "/bff/login?prompt=login");
        let at = StepUp::new(Some("gold"), None).login_location("/bff", Some("https://id.test/a"), None);
        assert_eq!(at, "/bff/login?iss=https%3A%2F%2Fid.test%2Fa&acr_values=gold");
        let wanted = StepUp::new(Some("gold"), None).login_location("/bff", None, Some("/orders?page=2&a=ü"));
        assert_eq!(wanted, "/bff/login?acr_values=gold&return_to=%2Forders%3Fpage%3D2%26a%3D%C3%BC");
    }

    #[test]
    fn rfc9470_what_a_login_would_refuse_is_left_out() {
        let long = "x".repeat(LONGEST_ACR_VALUES + 1);
        for acr_values in ["", " ", "a\nb", "gold\u{7f}", "göld", &long] {
            assert_eq!(location(Some(acr_values), None), "/bff/login?prompt=login", "{acr_values:?}");
        }
        for max_age in ["", "-1", "+1", "1.5", "soon", " 1", "99999999999999999999999"] {
            assert_eq!(location(None, Some(max_age)), "/bff/login?prompt=login", "{max_age:?}");
        }
        assert_eq!(
            location(Some(&"x".repeat(LONGEST_ACR_VALUES)), None).len(),
            522 + "/bff/login?".len() + 1
        );
        let long = format!("/{}", "a".repeat(return_to::LONGEST));
        assert_eq!(
            StepUp::new(None, Some("1")).login_location("/bff", None, Some(&long)),
            "/bff/login?max_age=1"
        );
    }
}

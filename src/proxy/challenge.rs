//! What an upstream says of the token it was sent, in the challenges of its 401 (RFC 9110 §11.6.1).

use http::{HeaderMap, Response, StatusCode, header};

use crate::dpop::USE_DPOP_NONCE;

/// A longer field is no challenge, but an attack on whoever reads it.
const LONGEST_FIELD: usize = 16 * 1024;

/// Why an upstream refused the access token (RFC 6750 §3.1, RFC 9449 §7.1, RFC 9470 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// The token is dead, so that a fresh one may help.
    Invalid,
    /// Its proof is to have a nonce of the upstream's (RFC 9449 §9). The request was not looked at further.
    NonceRequired,
    /// The user is to prove again, or better, who they are. In the upstream's own words, which are worth nothing
    /// before they are checked.
    InsufficientAuthentication {
        /// Authentication contexts, separated by spaces, one of which is asked for.
        acr_values: Option<String>,
        /// Seconds since the user last proved who they are, at most.
        max_age: Option<String>,
    },
}

/// A challenge: how one may authenticate, and what is to be known of it.
#[derive(Debug)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

/// Why a response refuses the token, where it says so to whom knows bearer tokens or those that are bound to a key;
/// the first such word counts.
pub fn refusal_of_token<B>(response: &Response<B>) -> Option<TokenRefusal> {
    if response.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    challenges(response.headers()).iter().find_map(|challenge| match challenge.token_error()? {
        "invalid_token" => Some(TokenRefusal::Invalid),
        USE_DPOP_NONCE => Some(TokenRefusal::NonceRequired),
        "insufficient_user_authentication" => Some(TokenRefusal::InsufficientAuthentication {
            acr_values: challenge.parameter("acr_values").map(str::to_owned),
            max_age: challenge.parameter("max_age").map(str::to_owned),
        }),
        _ => None,
    })
}

impl Challenge {
    /// `error`, where it is about an access token.
    fn token_error(&self) -> Option<&str> {
        let is_about_token = ["Bearer", "DPoP"].iter().any(|scheme| self.scheme.eq_ignore_ascii_case(scheme));
        if is_about_token { self.parameter("error") } else { None }
    }

    /// A parameter's value. One that is there twice says nothing: a name occurs once (RFC 9110 §11.2).
    fn parameter(&self, name: &str) -> Option<&str> {
        let mut values = self.parameters.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }
}

/// All challenges of a response. What comes after something that makes no sense is not read, in that field.
fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for field in headers.get_all(header::WWW_AUTHENTICATE) {
        if field.len() <= LONGEST_FIELD {
            read(Rest(field.as_bytes()), &mut challenges);
        }
    }
    challenges
}

/// Reads one field. A comma ends a parameter or a challenge; which of them, only what follows tells. `None` at its
/// end, or where it makes no sense.
fn read(mut rest: Rest<'_>, challenges: &mut Vec<Challenge>) -> Option<()> {
    let mut is_open = false;
    loop {
        rest.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
        let name = rest.token()?;
        let mut ahead = Rest(rest.0);
        ahead.skip(is_space);
        if ahead.take(b'=') {
            // A parameter of no challenge of this field.
            let challenge = challenges.last_mut().filter(|_| is_open)?;
            ahead.skip(is_space);
            challenge.parameters.push((name, ahead.value()?));
            rest = ahead;
        } else {
            rest.skip_token68();
            challenges.push(Challenge { scheme: name, parameters: Vec::new() });
            is_open = true;
        }
    }
}

/// What is left of a field.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, is_meant: impl Fn(u8) -> bool) {
        self.split(is_meant);
    }

    /// Takes the bytes that are meant, up to the first that is not.
    fn split(&mut self, is_meant: impl Fn(u8) -> bool) -> &[u8] {
        let end = self.0.iter().position(|byte| !is_meant(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn take(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Option<String> {
        let token = self.split(is_token_character);
        (!token.is_empty()).then(|| String::from_utf8_lossy(token).into_owned())
    }

    /// A token or a quoted string (RFC 9110 §5.6.4), as what it stands for.
    fn value(&mut self) -> Option<String> {
        if !self.take(b'"') {
            return self.token();
        }
        let mut value = Vec::new();
        let mut bytes = self.0.iter().enumerate();
        while let Some((place, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.0 = &self.0[place + 1..];
                    return Some(String::from_utf8_lossy(&value).into_owned());
                }
                b'\\' => value.push(*bytes.next()?.1),
                byte => value.push(*byte),
            }
        }
        None
    }

    /// Credentials in one piece, where they follow a scheme: they may end in `=`, as a parameter never does.
    fn skip_token68(&mut self) {
        let mut ahead = Rest(self.0);
        ahead.skip(is_space);
        let has_credentials = !ahead.split(is_token68_character).is_empty();
        ahead.skip(|byte| byte == b'=');
        ahead.skip(is_space);
        if has_credentials && matches!(ahead.0.first(), None | Some(b',')) {
            self.0 = ahead.0;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_token68_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(fields: &[&str]) -> Option<TokenRefusal> {
        let mut response = Response::builder().status(401);
        for field in fields {
            response = response.header(header::WWW_AUTHENTICATE, *field);
        }
        refusal_of_token(&response.body(()).unwrap())
    }

    fn asks_for(acr_values: Option<&str>, max_age: Option<&str>) -> Option<TokenRefusal> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (acr_values, max_age) = (owned(acr_values), owned(max_age));
        Some(TokenRefusal::InsufficientAuthentication { acr_values, max_age })
    }

    #[test]
    fn only_a_challenge_of_tokens_with_invalid_token_asks_for_a_fresh_token() {
        let refused = |challenge: &str| refusal(&[challenge]) == Some(TokenRefusal::Invalid);
        assert!(refused("Bearer error=\"invalid_token\""));
        assert!(refused("bearer realm=\"api\", error=\"invalid_token\", error_description=\"expired\""));
        assert!(refused("Basic realm=\"api\", Bearer error=\"invalid_token\""));
        assert!(refused("Negotiate abc==, Bearer error=invalid_token"));
        assert!(refused("Bearer realm=\"a, b\\\"\" ,, error = \"invalid\\_token\""));
        assert!(refused("DPoP algs=\"ES256\", error=\"invalid_token\""));
        assert!(!refused("DPoP error=\"use_dpop_nonce\""));
        assert!(!refused("Bearer error=\"insufficient_scope\""));
        assert!(!refused("Bearer"));
        assert!(!refused("Basic realm=\"invalid_token\""));
        assert!(!refused("Basic error=\"invalid_token\""));
        assert!(!refused("Bearer realm=\"Bearer error=invalid_token\""));
        assert!(!refused("Bearer error=\"invalid_token\", error=\"insufficient_scope\""));
        assert!(refusal(&["Basic realm=\"api\"", "Bearer error=\"invalid_token\""]).is_some());
        assert_eq!(refusal(&[]), None);
    }

    #[test]
    fn rfc9449_a_challenge_tells_that_a_nonce_is_wanted() {
        let wants = |challenge: &str| refusal(&[challenge]) == Some(TokenRefusal::NonceRequired);
        assert!(wants("DPoP error=\"use_dpop_nonce\", error_description=\"x\""));
        assert!(wants("Bearer realm=\"a\", dpop algs=\"ES256\", error=use_dpop_nonce"));
        assert!(!wants("DPoP error=\"invalid_token\""));
        assert!(!wants("Basic error=\"use_dpop_nonce\""));
    }

    #[test]
    fn another_status_says_nothing_of_the_token() {
        let response = Response::builder().status(403);
        let response = response.header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
        assert_eq!(refusal_of_token(&response.body(()).unwrap()), None);
    }

    #[test]
    fn rfc9470_a_challenge_tells_what_authentication_would_do() {
        let error = "Bearer error=\"insufficient_user_authentication\"";
        for (more, acr_values, max_age) in [
            ("", None, None),
            (", acr_values=\"gold silver\"", Some("gold silver"), None),
            (", max_age=\"5\"", None, Some("5")),
            (", MAX_AGE=5, Acr_Values=gold", Some("gold"), Some("5")),
            (", acr_values=\"a\\\"b\"", Some("a\"b"), None),
            (", max_age=5, max_age=6", None, None),
            (", max_age=5 Basic realm=x, acr_values=of-basic", None, Some("5")),
        ] {
            assert_eq!(refusal(&[&format!("{error}{more}")]), asks_for(acr_values, max_age), "{more}");
        }
    }

    #[test]
    fn what_makes_no_sense_ends_its_field_and_no_other() {
        let good = "Bearer error=\"invalid_token\"";
        for bad in [
            "",
            ",",
            "=",
            "\"",
            "error=\"invalid_token\"",
            "Bearer error=\"invalid_token",
            "Bearer error=\"\\",
        ] {
            assert_eq!(refusal(&[bad]), None, "{bad:?}");
            assert_eq!(refusal(&[bad, good]), Some(TokenRefusal::Invalid), "{bad:?}");
        }
        assert_eq!(
            refusal(&[&format!("Bearer realm=\"{}\", error=invalid_token", "x".repeat(LONGEST_FIELD))]),
            None
        );
        let opaque = http::HeaderValue::from_bytes(b"Bearer realm=\"\xff\", error=invalid_token").unwrap();
        let response =
            Response::builder().status(401).header(header::WWW_AUTHENTICATE, opaque).body(()).unwrap();
        assert_eq!(refusal_of_token(&response), Some(TokenRefusal::Invalid));
    }
}

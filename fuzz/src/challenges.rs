//! Challenges of upstreams: what stands in a quoted string never ends it, and what is asked for never becomes more than a
//! parameter of a login (RFC 9110 §11.6.1, RFC 9470).

use cloakroom::endpoints::StepUp;
use cloakroom::proxy::challenge::{TokenRefusal, refusal_of_token};
use http::{HeaderValue, Response, header};
use url::Url;

/// As long as the longest field that is read, less what is put around it.
const LONGEST: usize = 4 * 1024;

/// The input as a field by itself, and as the realm of a good challenge.
pub fn run(data: &[u8]) {
    let Some(refusal) = refusal(data) else { return };
    if let Some(TokenRefusal::InsufficientAuthentication { acr_values, max_age }) = refusal {
        let said = String::from_utf8_lossy(data).replace('\\', "");
        assert!(said.to_ascii_lowercase().contains("bearer"));
        assert!(said.contains("insufficient_user_authentication"));
        check_login(&StepUp::new(acr_values.as_deref(), max_age.as_deref()));
    }
    let text = String::from_utf8_lossy(data);
    check_login(&StepUp::new(Some(&text), Some(&text)));

    let mut challenge = b"Bearer realm=\"".to_vec();
    for byte in data.iter().take(LONGEST) {
        if matches!(byte, b'"' | b'\\') {
            challenge.push(b'\\');
        }
        challenge.push(*byte);
    }
    challenge.extend_from_slice(b"\", error=\"invalid_token\"");
    assert_eq!(self::refusal(&challenge), Some(Some(TokenRefusal::Invalid)));
}

/// `None` where this can stand in no field.
fn refusal(field: &[u8]) -> Option<Option<TokenRefusal>> {
    let field = HeaderValue::from_bytes(field).ok()?;
    let response = Response::builder().status(401).header(header::WWW_AUTHENTICATE, field);
    Some(refusal_of_token(&response.body(()).expect("a response")))
}

fn check_login(step_up: &StepUp) {
    let location = step_up.login_location("/bff", None, Some("/orders"));
    assert!(location.is_ascii() && location.len() < 4096, "{location}");
    let origin = Url::parse("https://shop.example.com").expect("a URL");
    let login = origin.join(&location).expect("an address");
    assert_eq!((login.origin(), login.path(), login.fragment()), (origin.origin(), "/bff/login", None));
    let returns: Vec<_> = login.query_pairs().filter(|(name, _)| name == "return_to").collect();
    assert_eq!(returns.len(), 1);
    assert_eq!(returns[0].1, "/orders");
    for (name, value) in login.query_pairs() {
        match &*name {
            "acr_values" => assert!(!value.is_empty() && value.len() <= 512),
            "max_age" => assert!(value.parse::<u64>().is_ok()),
            "prompt" => assert_eq!(value, "login"),
            "return_to" => {}
            other => panic!("{other} was never asked for"),
        }
    }
}

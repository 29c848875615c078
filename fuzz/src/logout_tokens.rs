//! Logout tokens: none is accepted that is not about a logout, or that would pass for an ID token (R18, R54).

use cloakroom::oidc::id_token::IdToken;
use cloakroom::oidc::jwt::Jwt;
use cloakroom::oidc::{LoggedOut, LogoutToken, LogoutTokenFault};
use cloakroom::secret::Secret;

use super::signed;

/// Either a whole token, which somebody else made, or a header and claims, which our own issuer signs.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(accept(&Secret::new(text)).is_err());
    }
    let (header, claims) = signed::parts(data);
    let token = signed::token(header, claims);
    assert!(accept(&signed::altered(&token)).is_err());
    let Ok(logout) = accept(&token) else { return };

    let claims = signed::check_claims(header, claims);
    assert!(claims["events"]["http://schemas.openid.net/event/backchannel-logout"].is_object());
    assert!(claims.get("nonce").is_none());
    assert_eq!(claims["jti"], logout.id.as_str());
    let (subject, sid) = match &logout.whose {
        LoggedOut::Subject(subject) => (Some(subject), None),
        LoggedOut::Sid(sid) => (None, Some(sid)),
        LoggedOut::Both { subject, sid } => (Some(subject), Some(sid)),
    };
    for (name, said) in [("sub", subject), ("sid", sid)] {
        assert_eq!(claims.get(name), said.map(|text| text.as_str().into()).as_ref(), "{name}");
        assert!(said.is_none_or(|text| !text.is_empty()), "{name}");
    }
    assert!(IdToken::read(&token, &signed::ALGORITHMS).is_err());
}

fn accept(token: &Secret) -> Result<LogoutToken, LogoutTokenFault> {
    let jwt = Jwt::read(token, &signed::ALGORITHMS)?;
    let said = LogoutToken::check(&jwt, signed::ISSUER, signed::CLIENT, signed::NOW)?;
    jwt.check_signature(&signed::KEYS)?;
    Ok(said)
}

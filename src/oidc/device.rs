//! The device authorization grant (RFC 8628): the user logs in on another device, by a code that this one shows.

use std::fmt;
use std::time::Duration;

use ::http::StatusCode;
use serde_json::{Map, Value};
use url::Url;

use super::Client;
use super::discovery::is_protected;
use super::error::{DeviceAuthorizationError, DeviceAuthorizationFault, RedeemError};
use super::token::TokenError;
use crate::secret::Secret;
use crate::tokens::{Identity, Tokens};

/// `grant_type` (RFC 8628 §3.4).
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A code that lives long is one that somebody can be talked into typing: no longer, whatever the issuer allows.
const LONGEST_LIFETIME: u64 = 10 * 60;

/// How often the issuer is asked where it does not say (RFC 8628 §3.2), and how seldom at most, in seconds.
const DEFAULT_INTERVAL: u64 = 5;
const LONGEST_INTERVAL: u64 = 60;

/// In bytes. The device code has to fit into a cookie, and the address into a picture.
const LONGEST_DEVICE_CODE: usize = 1536;
const LONGEST_USER_CODE: usize = 64;
const LONGEST_ADDRESS: usize = 512;

/// A login that waits for its user (RFC 8628 §3.2).
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceAuthorization {
    /// Redeemed once the user has said yes.
    pub device_code: Secret,
    /// What the user types in.
    pub user_code: String,
    /// Where the user types it in.
    pub verification_uri: Url,
    /// How long both codes are good.
    pub lifetime: Duration,
    /// How often the issuer may be asked.
    pub interval: Duration,
}

/// Neither code is shown; whoever reads the user's could have somebody else type it in.
impl fmt::Debug for DeviceAuthorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DeviceAuthorization").finish_non_exhaustive()
    }
}

/// What has become of such a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceLogin {
    /// The user has not come to an end.
    Pending,
    /// The same, and the issuer wants to be asked less often (RFC 8628 §3.5).
    SlowDown,
    /// The user said no.
    Denied,
    /// It took too long, or the code was redeemed before.
    Expired,
    /// The user has logged in.
    Granted(Box<(Tokens, Identity)>),
}

impl Client {
    /// Whether users may log in so, by the configuration.
    pub fn may_authorize_devices(&self) -> bool {
        self.oidc.device_authorization
    }

    /// Begins a login on another device.
    ///
    /// # Errors
    /// Where the issuer is away, does not offer it, or says nothing that could be shown.
    pub async fn authorize_device(&self) -> Result<DeviceAuthorization, DeviceAuthorizationError> {
        let metadata = self.discovery.metadata().await?;
        let endpoint = metadata.device_authorization_endpoint.as_ref();
        let endpoint = endpoint.ok_or(DeviceAuthorizationError::NotOffered)?;
        let (scope, max_age) = (self.oidc.scopes.join(" "), self.oidc.max_age.map(|age| age.to_string()));
        let claims = Some(self.oidc.authorization.claims.as_json()).filter(|claims| !claims.is_empty());
        let claims = claims.map(|claims| Value::Object(claims.clone()).to_string());
        let configured = self.oidc.authorization_parameters.iter();
        let mut parameters: Vec<(&str, &str)> =
            configured.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        parameters.extend(max_age.as_deref().map(|age| ("max_age", age)));
        parameters.extend(claims.as_deref().map(|claims| ("claims", claims)));
        parameters.push(("scope", &scope));
        let answer = self.post_as_client(endpoint, &self.with_resource(&parameters)).await?;
        if answer.is_inconclusive() {
            return Err(answer.unavailable().into());
        }
        if answer.status != StatusCode::OK {
            return Err(DeviceAuthorizationError::Refused { error: answer.refusal() });
        }
        let said = answer.json_object().ok_or(DeviceAuthorizationFault::NotJson)?;
        Ok(DeviceAuthorization::new(&said, self.oidc.issuer.is_plain())?)
    }

    /// Asks once what has become of such a login. Of what a grant brings, all is checked that a code would bring, but
    /// for the `nonce`: none was sent, and one that comes is another login's.
    ///
    /// # Errors
    /// [`RedeemError::Unavailable`] where the issuer is away; anything else is a failed login.
    pub async fn redeem_device_code(&self, device_code: &Secret) -> Result<DeviceLogin, RedeemError> {
        let metadata = self.discovery.metadata().await?;
        let parameters = [("grant_type", GRANT_TYPE), ("device_code", device_code.expose())];
        let (expected, parameters) = (self.expect(None, None), self.with_resource(&parameters));
        let answer = match self.request_tokens(&metadata, &parameters, expected.dpop_key.as_deref()).await {
            Ok(answer) => answer,
            Err(TokenError::InvalidGrant) => return Ok(DeviceLogin::Expired),
            Err(TokenError::Refused { error }) => {
                return match error.as_str() {
                    "authorization_pending" => Ok(DeviceLogin::Pending),
                    "slow_down" => Ok(DeviceLogin::SlowDown),
                    "access_denied" => Ok(DeviceLogin::Denied),
                    "expired_token" => Ok(DeviceLogin::Expired),
                    _ => Err(RedeemError::Refused { error }),
                };
            }
            Err(error) => return Err(error.into()),
        };
        let granted =
            self.accept_tokens(&metadata, answer, None, &expected, expected.dpop_key.clone()).await?;
        Ok(DeviceLogin::Granted(Box::new(granted)))
    }
}

impl DeviceAuthorization {
    /// Reads an answer. `plain_allowed` where the issuer itself is one on loopback in plain HTTP.
    ///
    /// # Errors
    /// Where something in it is missing, or cannot be shown to a user.
    pub fn new(said: &Map<String, Value>, plain_allowed: bool) -> Result<Self, DeviceAuthorizationFault> {
        let text = |name, longest| {
            let text = said.get(name)?.as_str()?;
            ((1..=longest).contains(&text.len())).then_some(text)
        };
        let is_plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let device_code = text("device_code", LONGEST_DEVICE_CODE).filter(is_plain);
        let is_shown =
            |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -".contains(&byte));
        let user_code = text("user_code", LONGEST_USER_CODE).filter(is_shown);
        // Some issuers call it as the first drafts did.
        let address =
            ["verification_uri", "verification_url"].iter().find_map(|name| text(name, LONGEST_ADDRESS));
        let address = address.and_then(|address| Url::parse(address).ok());
        let seconds = |name| said.get(name).and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        let lifetime = seconds("expires_in").ok_or(DeviceAuthorizationFault::Lifetime)?;
        let interval = seconds("interval").unwrap_or(DEFAULT_INTERVAL);
        Ok(Self {
            device_code: Secret::new(device_code.ok_or(DeviceAuthorizationFault::DeviceCode)?),
            user_code: user_code.ok_or(DeviceAuthorizationFault::UserCode)?.to_owned(),
            verification_uri: address
                .filter(|address| is_protected(address, plain_allowed))
                .ok_or(DeviceAuthorizationFault::Address)?,
            lifetime: Duration::from_secs(lifetime.min(LONGEST_LIFETIME)),
            interval: Duration::from_secs(interval.min(LONGEST_INTERVAL)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: &Value) -> Result<DeviceAuthorization, DeviceAuthorizationFault> {
        let mut said = json!({
            "device_code": "d", "user_code": "BCDF-GHJK", "verification_uri": "https://id.test/device", "expires_in": 900,
        });
        let said = said.as_object_mut().unwrap();
        said.extend(change.as_object().unwrap().clone());
        said.retain(|_, value| !value.is_null());
        DeviceAuthorization::new(said, false)
    }

    #[test]
    fn rfc8628_a_login_waits_ten_minutes_at_most_and_the_issuer_is_asked_every_five_seconds_unless_it_says_more()
     {
        let times = |change| read(&change).map(|read| (read.lifetime.as_secs(), read.interval.as_secs()));
        assert_eq!(times(json!({})), Ok((600, 5)));
        assert_eq!(times(json!({"expires_in": 300, "interval": 7})), Ok((300, 7)));
        assert_eq!(times(json!({"interval": 1_000_000})), Ok((600, 60)));
        for odd in [json!(0), json!(-1), json!("7"), json!(null)] {
            assert_eq!(times(json!({"interval": odd})), Ok((600, 5)), "{odd}");
            assert_eq!(times(json!({"expires_in": odd})), Err(DeviceAuthorizationFault::Lifetime), "{odd}");
        }
    }

    #[test]
    fn rfc8628_what_cannot_be_shown_or_kept_is_refused() {
        use DeviceAuthorizationFault::{Address, DeviceCode, UserCode};
        for (name, fault, bad) in [
            (
                "device_code",
                DeviceCode,
                vec![json!(null), json!(""), json!(1), json!("a b"), json!("x".repeat(1537))],
            ),
            (
                "user_code",
                UserCode,
                vec![json!(null), json!(""), json!("<b>"), json!("ä"), json!("x".repeat(65))],
            ),
            (
                "verification_uri",
                Address,
                vec![
                    json!(null),
                    json!("http://id.test/device"),
                    json!("javascript:alert(1)"),
                    json!("https://user@id.test/"),
                    json!("/device"),
                    json!(format!("https://id.test/{}", "x".repeat(500))),
                ],
            ),
        ] {
            for bad in bad {
                assert_eq!(read(&json!({name: bad})), Err(fault), "{name}: {bad}");
            }
        }
        let older = read(&json!({"verification_uri": null, "verification_url": "https://id.test/activate"}));
        assert_eq!(older.unwrap().verification_uri.as_str(), "https://id.test/activate");
    }
}

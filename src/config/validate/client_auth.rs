//! How a client proves itself to its issuer, and what TLS is spoken with the two.

use crate::config::decode::{At, Optional, Required};
use crate::config::raw::client_auth::{self as raw, ClientProof};
use crate::config::reading::{Place, Reading, Reported};
use crate::config::validate::upstream::client_identity;
use crate::config::validate::{authorities, identity};
use crate::config::{AssertionAudience, CertificateAuthorities, ClientAuth, Identity, Issuer, SigningKey};

/// What the client proves itself with, and whom it believes.
pub(super) struct Proof {
    pub(super) client_auth: ClientAuth,
    pub(super) ca: Option<CertificateAuthorities>,
    pub(super) identity: Option<Identity>,
    /// Whether access tokens are bound to the certificate.
    pub(super) is_bound: bool,
}

/// All of it together.
pub(super) fn proof(
    issuer: Option<&Issuer>,
    auth: Required<raw::ClientAuth>,
    tls: Optional<raw::OidcTls>,
    is_bound: Required<bool>,
    reading: &mut Reading<'_>,
) -> Result<Proof, Reported> {
    let is_plain = issuer.is_some_and(Issuer::is_plain);
    let auth = auth.and_then(|At { value, place, .. }| {
        let (client_auth, own) = client_auth(value, reading)?;
        if is_plain && own.is_some() {
            return Err(without_tls(&place, reading));
        }
        Ok((client_auth, own, place))
    });
    let tls = tls.and_then(|tls| match tls {
        Some(tls) if is_plain => Err(without_tls(&tls.place, reading)),
        Some(tls) => self::tls(tls.value, reading),
        None => Ok((None, None)),
    });
    let ((client_auth, own, place), (ca, other), is_bound) = (auth?, tls?, is_bound?);
    if own.is_some() && other.is_some() {
        let remedy = "the one here, and `tls` without `certificate` and `private_key`";
        return Err(reading.fault(&place, "two certificates for one client", remedy));
    }
    let identity = own.or(other);
    if is_bound.value && identity.is_none() {
        let problem = "access tokens that are bound to a certificate, where the client has none";
        let remedy = "`tls: {certificate: …, private_key: …}` beside it, or `tls_client_auth`";
        return Err(reading.fault(&is_bound.place, problem, remedy));
    }
    Ok(Proof { client_auth, ca, identity, is_bound: is_bound.value })
}

/// A private key that signs JWTs.
pub(super) fn signing_key(key: raw::SigningKey, reading: &mut Reading<'_>) -> Result<SigningKey, Reported> {
    let (kid, algorithm) = (key.kid?.map(|kid| kid.value.0), key.algorithm?.map(|algorithm| algorithm.value));
    key.key?.value.read_signing_key(kid, algorithm, reading)
}

/// The method, and the certificate that goes with it.
fn client_auth(
    auth: raw::ClientAuth,
    reading: &mut Reading<'_>,
) -> Result<(ClientAuth, Option<Identity>), Reported> {
    let proof = match auth {
        raw::ClientAuth::None => return Ok((ClientAuth::None, None)),
        raw::ClientAuth::Proof(proof) => *proof,
    };
    match proof {
        ClientProof::SecretBasic(secret) => {
            secret.read(reading).map(|(secret, _)| (ClientAuth::ClientSecretBasic(secret), None))
        }
        ClientProof::SecretPost(secret) => {
            secret.read(reading).map(|(secret, _)| (ClientAuth::ClientSecretPost(secret), None))
        }
        ClientProof::PrivateKeyJwt(jwt) => {
            let key = signing_key(jwt.key, reading);
            let audience = jwt.audience?.map_or(AssertionAudience::Issuer, |audience| audience.value);
            Ok((ClientAuth::PrivateKeyJwt { key: key?, audience }, None))
        }
        ClientProof::Tls(own) | ClientProof::SelfSignedTls(own) => {
            Ok((ClientAuth::MutualTls, Some(identity(own.certificate?, own.private_key?, reading)?)))
        }
    }
}

fn tls(
    tls: raw::OidcTls,
    reading: &mut Reading<'_>,
) -> Result<(Option<CertificateAuthorities>, Option<Identity>), Reported> {
    let ca = tls.ca.and_then(|ca| ca.map(|ca| authorities(&ca, reading)).transpose());
    let identity = client_identity(tls.certificate, tls.private_key, reading);
    Ok((ca?, identity?))
}

fn without_tls(place: &Place, reading: &mut Reading<'_>) -> Reported {
    reading.fault(place, "TLS with an issuer that is spoken to without it", "an issuer with `https://`")
}

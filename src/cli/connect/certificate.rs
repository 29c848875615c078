//! Certificates, ours and those of upstreams: whose they are, and until when.

use std::time::{Duration, UNIX_EPOCH};

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use url::Url;

use super::Finding;
use crate::clock::Timestamp;
use crate::config::{App, Identity};
use crate::telemetry::chain;

/// Whoever renews certificates has done so by then.
const SOON: u64 = 14 * 24 * 60 * 60;

/// In seconds since 1970, later than any certificate is good.
const NEVER: u64 = 1 << 40;

/// Our own: does it cover what browsers ask for, and is it good for a while?
pub(super) fn check(identity: &Identity, apps: &[App], now: Timestamp) -> Vec<Finding> {
    let part = format!("certificate {}", identity.certificate.display());
    let shown = match identity.load() {
        Ok(shown) => shown,
        Err(error) => {
            let remedy = "see that both files can be read and belong together";
            return vec![Finding::fault(part, chain(&error), remedy)];
        }
    };
    let Some(own) = shown.cert.first() else { return Vec::new() };
    let mut findings = vec![judge(&part, not_after(own), now)];
    for app in apps.iter().filter(|app| app.origin.is_secure()) {
        let origin = Url::parse(app.origin.as_str());
        let host = origin.as_ref().ok().and_then(Url::host_str).unwrap_or_default();
        let remedy = "get one that names each app's host (subjectAltName)";
        let covered = if names(own, host) { Ok(()) } else { Err("it is not for this name".to_owned()) };
        findings.push(Finding::new(format!("{part} for {host}"), covered, remedy));
    }
    findings
}

/// One that is good until then, where that is known.
pub(super) fn judge(part: &str, not_after: Option<u64>, now: Timestamp) -> Finding {
    let remedy = "renew it; files that are replaced under the gateway are read by themselves";
    let Some(not_after) = not_after else {
        return Finding::warning(part, "its time cannot be read", "see that it is an X.509 certificate");
    };
    let until = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(not_after));
    match not_after.checked_sub(now.as_secs()) {
        None => Finding::fault(part, format!("expired on {until}"), remedy),
        Some(0..SOON) => Finding::warning(part, format!("expires on {until}"), remedy),
        Some(_) => Finding::good(format!("{part} good until {until}")),
    }
}

/// Until when it is good, in seconds since 1970: what says so is a verification in the far future, for its time is
/// looked at before its signature.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let then = UnixTime::since_unix_epoch(Duration::from_secs(NEVER));
    let verified =
        verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], then, algorithms);
    match verified {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        Ok(()) | Err(_) => None,
    }
}

fn names(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let name = ServerName::try_from(host.trim_matches(['[', ']']));
    let parsed = ParsedCertificate::try_from(certificate);
    matches!((name, parsed), (Ok(name), Ok(parsed)) if verify_server_name(&parsed, &name).is_ok())
}

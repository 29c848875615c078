//! Shared signals: from whom, and by what they are known.

use http::HeaderValue;

use crate::config::SharedSignals;
use crate::config::raw::signals as raw;
use crate::config::reading::{Reading, Reported};
use crate::config::secret_ref::SecretRef;
use crate::config::validate::distinct;
use crate::secret::Secret;

pub(super) fn shared_signals(
    signals: raw::SharedSignals,
    reading: &mut Reading<'_>,
) -> Result<SharedSignals, Reported> {
    let audience = signals.audience.and_then(|audience| {
        let texts = audience.value.0.0.into_iter().map(|text| text.map(|text| (text.value.0, text.place)));
        distinct(texts, "audience", reading)
    });
    let authorization_field = signals
        .authorization
        .and_then(|secret| secret.map(|secret| authorization(secret.value, reading)).transpose());
    Ok(SharedSignals {
        transmitter: signals.transmitter?.value.0,
        audience: audience?,
        authorization: authorization_field?,
    })
}

/// What no header field can hold would never come, and every event be refused.
fn authorization(secret: SecretRef, reading: &mut Reading<'_>) -> Result<Secret, Reported> {
    let (secret, place) = secret.read(reading)?;
    if HeaderValue::from_str(secret.expose()).is_ok() {
        return Ok(secret);
    }
    let remedy = "the field's whole value in one line, such as `Bearer` and a token";
    Err(reading.fault(&place, "not the value of a header field", remedy))
}

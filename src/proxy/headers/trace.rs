//! W3C Trace Context, towards the upstream.

use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::random::Random;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Carries a valid `traceparent` on under a new parent id, or begins a trace (W3C Trace Context §3.2).
pub(super) fn continue_trace(headers: &mut HeaderMap, random: Random) -> Result<(), InvalidHeaderValue> {
    let mut incoming = headers.get_all(TRACEPARENT).iter();
    let incoming = match (incoming.next(), incoming.next()) {
        (Some(value), None) => value.to_str().ok().and_then(parse_traceparent),
        _ => None,
    };
    let mut traceparent = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&random.bytes::<8>(), &mut traceparent[36..52]);
    match incoming {
        Some((trace_id, flags)) => {
            traceparent[3..35].copy_from_slice(trace_id.as_bytes());
            traceparent[53..].copy_from_slice(flags.as_bytes());
        }
        None => {
            headers.remove("tracestate");
            write_hex(&random.bytes::<16>(), &mut traceparent[3..35]);
        }
    }
    headers.insert(TRACEPARENT, HeaderValue::from_bytes(&traceparent)?);
    Ok(())
}

pub(super) fn parse_traceparent(value: &str) -> Option<(String, String)> {
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace_id, parent_id, flags] = parts.as_slice() else { return None };
    let is_valid = *version == "00" && is_hex(trace_id, 32) && is_hex(parent_id, 16) && is_hex(flags, 2);
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    (is_valid && !is_zero(trace_id) && !is_zero(parent_id))
        .then(|| ((*trace_id).to_owned(), (*flags).to_owned()))
}

fn write_hex(bytes: &[u8], to: &mut [u8]) {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    for (byte, digits) in bytes.iter().zip(to.chunks_exact_mut(2)) {
        digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

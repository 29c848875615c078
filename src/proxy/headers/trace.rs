//! W3C Trace Context, towards the upstream.

use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderValue};

use crate::random::Random;
use crate::telemetry::trace::{Context, TRACEPARENT, TRACESTATE, TraceParent};

/// Names the span of this exchange as the parent where the request is recorded. Where not, carries a valid
/// `traceparent` on under a new parent id, or begins a trace (W3C Trace Context §3.2).
pub(super) fn continue_trace(headers: &mut HeaderMap, random: Random) -> Result<(), InvalidHeaderValue> {
    let mut traceparent = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let has_parent = match TraceParent::of(headers) {
        Some(incoming) => {
            traceparent[3..35].copy_from_slice(incoming.trace_id.as_bytes());
            traceparent[53..].copy_from_slice(incoming.flags.as_bytes());
            true
        }
        None => false,
    };
    if !has_parent {
        headers.remove(TRACESTATE);
    }
    let value = match Context::current() {
        Some(context) => context.traceparent()?,
        None => {
            if !has_parent {
                write_hex(&random.bytes::<16>(), &mut traceparent[3..35]);
            }
            write_hex(&random.bytes::<8>(), &mut traceparent[36..52]);
            HeaderValue::from_bytes(&traceparent)?
        }
    };
    headers.insert(TRACEPARENT, value);
    Ok(())
}

fn write_hex(bytes: &[u8], to: &mut [u8]) {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    for (byte, digits) in bytes.iter().zip(to.chunks_exact_mut(2)) {
        digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

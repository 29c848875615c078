//! Single values: durations, sizes, numbers, addresses, scope and cookie names.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use serde_json::{Value, json};
use url::Host;

use crate::config::decode::{Decode, Form, Written, scalar};
use crate::config::diagnostic::InvalidValue;
use crate::config::document::Node;
use crate::config::reading::{Reading, Reported};
use crate::config::{Address, schema};

/// A text that is not empty.
#[derive(Clone, Debug)]
pub(super) struct Text(pub(super) String);

/// A number of things.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<const LEAST: usize, const MOST: usize>(pub(super) usize);

/// From 1 to a million.
pub(super) type Count = Number<1, 1_000_000>;

/// Threads.
pub(super) type Workers = Number<1, 1024>;

/// Header fields of one message.
pub(super) type Fields = Number<20, 10_000>;

/// Tries of one thing.
pub(super) type Attempts = Number<1, 10>;

/// Up to a hundred, and perhaps none.
pub(super) type CountOrZero = Number<0, 100>;

/// A number of bytes, not 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);

/// A duration that may be nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurationOrZero(pub(super) Duration);

/// A network of proxies, or a single one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network(pub(super) IpNet);

/// A scope (RFC 6749 §3.3).
#[derive(Clone, Debug)]
pub(super) struct Scope(pub(super) String);

/// What one of several issuers is called.
#[derive(Clone, Debug)]
pub(super) struct IssuerName(pub(super) String);

/// A cookie's name.
#[derive(Clone, Debug)]
pub(super) struct CookieName(pub(super) String);

impl Decode for Text {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a text", reading, |written| text(written).map(Self))
    }

    fn schema() -> Value {
        schema::text()
    }
}

impl Decode for bool {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "`true` or `false`", reading, |written| match (written.form, written.text.as_str()) {
            (Form::Boolean | Form::Substituted, "true") => Ok(true),
            (Form::Boolean | Form::Substituted, "false") => Ok(false),
            _ => Err(InvalidValue::new("neither true nor false", "`true` or `false`, without quotes")),
        })
    }

    fn schema() -> Value {
        schema::or_substituted(&json!({"type": "boolean"}))
    }
}

impl<const LEAST: usize, const MOST: usize> Decode for Number<LEAST, MOST> {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a whole number", reading, |written| {
            let number = match written.form {
                Form::Number | Form::Substituted => written.text.parse().ok(),
                Form::Boolean | Form::Text => None,
            };
            let number = number.filter(|number| (LEAST..=MOST).contains(number));
            let invalid = || {
                let problem = format!("not a whole number from {LEAST} to {MOST}");
                InvalidValue::new(problem, format!("such as `{}`, without quotes", MOST / 50))
            };
            number.map(Self).ok_or_else(invalid)
        })
    }

    fn schema() -> Value {
        schema::or_substituted(&json!({"type": "integer", "minimum": LEAST, "maximum": MOST}))
    }
}

impl Decode for Size {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a size such as `64KiB`", reading, |written| size(&written.text).map(Self))
    }

    fn schema() -> Value {
        json!({"anyOf": [{"type": "integer", "minimum": 1}, schema::pattern("[0-9]+(KiB|MiB|GiB)?")]})
    }
}

impl Decode for Duration {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a duration such as `90s`", reading, |written| match duration(&written.text)? {
            Self::ZERO => Err(InvalidValue::new("a duration of nothing", DURATION)),
            duration => Ok(duration),
        })
    }

    fn schema() -> Value {
        schema::pattern("[0-9]+(ms|s|m|h|d)")
    }
}

impl Decode for DurationOrZero {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a duration such as `90s`", reading, |written| duration(&written.text).map(Self))
    }

    fn schema() -> Value {
        Duration::schema()
    }
}

impl Decode for SocketAddr {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "an address such as `0.0.0.0:8443`", reading, |written| {
            let remedy = "an IP address and a port, such as `0.0.0.0:8443` or `\"[::]:8443\"`";
            written.text.parse().map_err(|_| InvalidValue::new("not an address to listen on", remedy))
        })
    }

    fn schema() -> Value {
        schema::text()
    }
}

impl Decode for Address {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "an address such as `10.0.0.7:9000`", reading, |written| address(&written.text))
    }

    fn schema() -> Value {
        schema::text()
    }
}

impl Decode for Network {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a network such as `10.0.0.0/8`", reading, |written| network(&written.text).map(Self))
    }

    fn schema() -> Value {
        schema::text()
    }
}

impl Decode for Method {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a method such as `GET`", reading, |written| method(&written.text))
    }

    fn schema() -> Value {
        schema::text()
    }
}

impl Decode for Scope {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a scope", reading, |written| {
            let text = text(written)?;
            let is_scope = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
            let remedy = "one scope an entry, without spaces and quotes (RFC 6749 §3.3)";
            if is_scope { Ok(Self(text)) } else { Err(InvalidValue::new("not a scope", remedy)) }
        })
    }

    fn schema() -> Value {
        schema::text()
    }
}

impl Decode for IssuerName {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a name such as `staff`", reading, |written| {
            let name = text(written)?;
            let is_of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.len() <= 32 && name.bytes().all(is_of_name) {
                return Ok(Self(name));
            }
            let remedy = "small letters, digits and `-`, 32 at most, such as `staff`";
            Err(InvalidValue::new("not a name that can stand in a path", remedy))
        })
    }

    fn schema() -> Value {
        schema::pattern("[a-z0-9-]{1,32}")
    }
}

impl Decode for CookieName {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a cookie's name", reading, |written| cookie_name(&written.text).map(Self))
    }

    fn schema() -> Value {
        schema::text()
    }
}

pub(super) fn text(written: &Written) -> Result<String, InvalidValue> {
    match written.form {
        Form::Boolean | Form::Number => {
            Err(InvalidValue::new("YAML takes this for a number or a truth value", "the same in quotes"))
        }
        Form::Text | Form::Substituted if written.text.is_empty() => {
            Err(InvalidValue::new("an empty text", "a text, or the file without this key"))
        }
        Form::Text | Form::Substituted => Ok(written.text.clone()),
    }
}

/// The remedy where a duration is none.
const DURATION: &str = "a whole number with `ms`, `s`, `m`, `h` or `d`, such as `90s`";

/// `500ms`, `90s`, `30m`, `12h`, `7d`: a whole number and one unit.
fn duration(text: &str) -> Result<Duration, InvalidValue> {
    const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
    let invalid = |problem: &str| InvalidValue::new(problem, DURATION);
    let (number, unit) = split_number(text).ok_or_else(|| invalid("not a duration"))?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(invalid("a duration without its unit")),
        _ => return Err(invalid("not a duration")),
    };
    match number.checked_mul(milliseconds).map(Duration::from_millis) {
        Some(duration) if duration <= LONGEST => Ok(duration),
        Some(_) | None => Err(invalid("longer than ten years")),
    }
}

/// `65536`, `64KiB`, `10MiB`, `1GiB`.
fn size(text: &str) -> Result<u64, InvalidValue> {
    let invalid = |problem: &str| {
        InvalidValue::new(problem, "bytes, or a whole number with `KiB`, `MiB` or `GiB`, such as `64KiB`")
    };
    let (number, unit) = split_number(text).ok_or_else(|| invalid("not a size"))?;
    let bytes = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(invalid("not a size")),
    };
    match number.checked_mul(bytes) {
        Some(0) => Err(invalid("a size of nothing")),
        Some(size) => Ok(size),
        None => Err(invalid("larger than can be counted")),
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// `10.0.0.7:9000`, `orders.internal:9000`, `[2001:db8::7]:9000`, `unix:/run/orders.sock`.
fn address(text: &str) -> Result<Address, InvalidValue> {
    let remedy =
        "such as `10.0.0.7:9000`, `orders.internal:9000`, `[2001:db8::7]:9000` or `unix:/run/orders.sock`";
    let invalid = |problem: &str| InvalidValue::new(problem, remedy);
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        return if path.is_absolute() {
            Ok(Address::Unix(path))
        } else {
            Err(invalid("the path of a Unix socket that is not absolute"))
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| invalid("an address without a port"))?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| invalid("not a port"))?;
    let host = match Host::parse(host).map_err(|_| invalid("not a host"))? {
        Host::Domain(name) if !name.contains('*') => name,
        Host::Domain(_) => return Err(invalid("a wildcard, where one host is to be named")),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    Ok(Address::Tcp { host, port })
}

fn network(text: &str) -> Result<IpNet, InvalidValue> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| text.parse::<IpNet>());
    let network =
        network.map_err(|_| InvalidValue::new("not a network", "such as `10.0.0.0/8`, or one address"))?;
    if network == network.trunc() {
        return Ok(network);
    }
    // `10.1.2.3/8` may be meant for one proxy, and would believe sixteen million.
    let remedy = format!("`{}` for all of it, or `{}` for the one address", network.trunc(), network.addr());
    Err(InvalidValue::new("an address within a network, which leaves open which of the two is meant", remedy))
}

fn method(text: &str) -> Result<Method, InvalidValue> {
    let remedy = "a method in capitals, such as `GET`; not `CONNECT` or `TRACE`";
    let invalid = || InvalidValue::new("not a method that can be let through", remedy);
    let is_upper_case = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| is_upper_case);
    method.filter(|method| *method != Method::CONNECT && *method != Method::TRACE).ok_or_else(invalid)
}

/// A token (RFC 6265 §4.1.1, RFC 9110 §5.6.2), so short that `Set-Cookie` stays below 300 bytes: the
/// sealed value takes some 135 of them, the attributes 60.
fn cookie_name(text: &str) -> Result<String, InvalidValue> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let remedy = "letters, digits, `-` and `_`, 64 at most, such as `__Host-cloakroom`";
    if (1..=64).contains(&text.len()) && text.bytes().all(is_token) {
        Ok(text.to_owned())
    } else {
        Err(InvalidValue::new("not a cookie's name", remedy))
    }
}

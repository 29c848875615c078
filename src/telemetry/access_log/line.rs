//! How a line of the access log is written.

use std::io::Write;
use std::net::Ipv4Addr;

use http::Version;

use crate::config::LogFormat;

/// A line that is being written: the members of a JSON object, or names and values for people. Texts are
/// written as JSON has them in both, so that nothing a client sends can end a line or a text.
pub(super) struct Line<'a> {
    lines: &'a mut Vec<u8>,
    format: LogFormat,
}

/// A name with what stands before and behind it in either format: in one piece, for each line has a dozen.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) json: &'static str,
    pub(super) text: &'static str,
}

/// The [`Name`] that is spelled like this.
macro_rules! name {
    ($name:literal) => {
        $crate::telemetry::access_log::line::Name {
            json: concat!(",\"", $name, "\":"),
            text: concat!(" ", $name, "="),
        }
    };
}

pub(super) use name;

impl<'a> Line<'a> {
    pub(super) fn begin(lines: &'a mut Vec<u8>, format: LogFormat, date: &str, millis: u64) -> Self {
        let [before, after] = match format {
            LogFormat::Json => ["{\"timestamp\":\"", "Z\",\"event\":\"access\""],
            LogFormat::Text => ["", "Z access"],
        };
        lines.extend_from_slice(before.as_bytes());
        lines.extend_from_slice(date.as_bytes());
        let mut line = Self { lines, format };
        line.fraction(millis);
        line.lines.extend_from_slice(after.as_bytes());
        line
    }

    pub(super) fn end(self) {
        self.lines.extend_from_slice(match self.format {
            LogFormat::Json => b"}\n",
            LogFormat::Text => b"\n",
        });
    }

    // Known where it is called, a name is stored and not copied.
    #[inline(always)]
    fn name(&mut self, name: Name) {
        match self.format {
            LogFormat::Json => self.lines.extend_from_slice(name.json.as_bytes()),
            LogFormat::Text => self.lines.extend_from_slice(name.text.as_bytes()),
        }
    }

    #[inline(always)]
    pub(super) fn number(&mut self, name: Name, value: u64) {
        self.name(name);
        self.digits(value);
    }

    /// The thousandths of the number before.
    pub(super) fn fraction(&mut self, thousandths: u64) {
        let digits = [b'.', digit(thousandths / 100), digit(thousandths / 10), digit(thousandths)];
        self.lines.extend_from_slice(&digits);
    }

    fn digits(&mut self, mut value: u64) {
        let (mut digits, mut first) = ([b'0'; 20], 20);
        while value > 0 || first == digits.len() {
            first -= 1;
            digits[first] = digit(value);
            value /= 10;
        }
        self.lines.extend_from_slice(&digits[first..]);
    }

    /// A value that holds nothing but letters, digits and the like.
    #[inline(always)]
    pub(super) fn plain(&mut self, name: Name, value: &str) {
        self.name(name);
        self.quote();
        self.lines.extend_from_slice(value.as_bytes());
        self.quote();
    }

    pub(super) fn address(&mut self, address: Ipv4Addr) {
        self.name(name!("client"));
        self.quote();
        for (position, octet) in address.octets().into_iter().enumerate() {
            if position > 0 {
                self.lines.push(b'.');
            }
            self.digits(octet.into());
        }
        self.quote();
    }

    fn quote(&mut self) {
        if self.format == LogFormat::Json {
            self.lines.push(b'"');
        }
    }

    /// Any bytes, so many of them at most.
    #[inline(always)]
    pub(super) fn text(&mut self, name: Name, bytes: &[u8], most: usize) {
        self.name(name);
        self.quoted(bytes, most);
    }

    fn quoted(&mut self, bytes: &[u8], most: usize) {
        self.lines.push(b'"');
        let bytes = &bytes[..bytes.len().min(most)];
        // Without an end before the last byte, so that many are looked at with one instruction.
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') & (*byte != b'"') & (*byte != b'\\');
        if bytes.iter().fold(true, |all, byte| all & is_plain(byte)) {
            self.lines.extend_from_slice(bytes);
            self.lines.push(b'"');
            return;
        }
        for chunk in bytes.utf8_chunks() {
            escape(chunk.valid(), self.lines);
            if !chunk.invalid().is_empty() {
                self.lines.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        self.lines.push(b'"');
    }
}

/// The last one of a number.
fn digit(value: u64) -> u8 {
    // The remainder is below ten.
    b'0' + (value % 10).to_le_bytes()[0]
}

pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        // No other is served.
        _ => "HTTP",
    }
}

/// RFC 8259 §7, and what a terminal would obey besides.
fn escape(text: &str, to: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.find(|letter: char| matches!(letter, '"' | '\\') || letter.is_control()) {
        let (plain, from) = rest.split_at(at);
        to.extend_from_slice(plain.as_bytes());
        let mut letters = from.chars();
        if let Some(letter) = letters.next() {
            let _ = write!(to, "\\u{:04x}", u32::from(letter));
        }
        rest = letters.as_str();
    }
    to.extend_from_slice(rest.as_bytes());
}

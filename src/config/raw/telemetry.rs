//! What the gateway tells about itself: logs, the access log, the audit trail, and what a collector gets.

use crate::config::decode::{Optional, Required};
use crate::config::keys::{Keys, Record};
use crate::config::otlp::{Headers, Ratio};
use crate::config::reading::Reported;
use crate::config::scalar::Text;
use crate::config::secret_ref::SecretRef;
use crate::config::web::UpstreamUrl;
use crate::config::words::Level;
use crate::config::{LogFormat, OtlpProtocol};

pub(in crate::config) struct Telemetry {
    pub(in crate::config) log: Required<Log>,
    pub(in crate::config) access_log: Required<bool>,
    pub(in crate::config) otlp: Optional<Otlp>,
    pub(in crate::config) audit: Optional<Audit>,
}

pub(in crate::config) struct Otlp {
    pub(in crate::config) endpoint: Required<UpstreamUrl>,
    pub(in crate::config) protocol: Required<OtlpProtocol>,
    pub(in crate::config) headers: Required<Headers>,
    pub(in crate::config) sample_ratio: Required<Ratio>,
    pub(in crate::config) ca: Optional<Text>,
}

pub(in crate::config) struct Audit {
    pub(in crate::config) key: Required<SecretRef>,
    pub(in crate::config) file: Optional<Text>,
}

pub(in crate::config) struct Log {
    pub(in crate::config) format: Required<LogFormat>,
    pub(in crate::config) level: Required<Level>,
}

impl Record for Telemetry {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            log: keys.or("log", "{}", "Logs."),
            access_log: keys.or(
                "access_log",
                "true",
                "Whether each answer is noted, in a line on standard output.",
            ),
            otlp: keys.optional("otlp", "A collector that traces and metrics are handed to."),
            audit: keys.optional("audit", "The audit trail; none where left out."),
        })
    }
}

impl Record for Otlp {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            endpoint: keys.required("endpoint", "http://collector:4317", "Where it listens."),
            protocol: keys.or("protocol", "grpc", "grpc, or http/protobuf, for which collectors have port 4318."),
            headers: keys.or(
                "headers",
                "{}",
                "Fields that go along, such as an API key; their values are secrets.",
            ),
            sample_ratio: keys.or(
                "sample_ratio",
                "1.0",
                "Of the traces that begin here, the part that is recorded. For one that has begun elsewhere, its traceparent says so.",
            ),
            ca: keys.optional(
                "ca",
                "A file of certificates in PEM; with https, the only authorities that are believed. The system's where left out.",
            ),
        })
    }
}

impl Record for Audit {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            key: keys.required(
                "key",
                "{file: /run/secrets/audit-key}",
                "Names users and sessions; 32 bytes in base64, and no session key.",
            ),
            file: keys.optional("file", "Where events are appended; standard output where left out."),
        })
    }
}

impl Record for Log {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            format: keys.or("format", "json", "json: one object a line; text: for people."),
            level: keys.or("level", "info", "The least that is logged."),
        })
    }
}

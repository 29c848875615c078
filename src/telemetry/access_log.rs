//! The access log: a line on standard output for each answer, once its body has been sent or has broken off.
//!
//! A line is put together by hand into a buffer of the thread that served the request, and one thread writes
//! the buffers out. Whoever answers requests never waits for who reads the lines: what is too much is dropped
//! and counted. No query is in a line, for queries hold codes; no cookie, token, or user either (R62).

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};

use super::metrics::Site;
use super::request::RequestId;
use crate::clock::Timestamp;
use crate::config::LogFormat;
use crate::worker;

mod line;

use line::{Line, name, protocol};

/// How much of a buffer is written out at once, in bytes, before its time.
const WRITTEN_AT: usize = 64 * 1024;

/// How long a line may wait to be written.
const INTERVAL: Duration = Duration::from_millis(200);

/// How much of a thread's lines may wait for a slow reader, in bytes.
const MOST_WAITING: usize = 1024 * 1024;

/// No more goes into a pipe at once without the lines of others in between (POSIX's `PIPE_BUF` on Linux).
const AT_ONCE: usize = 4096;

/// Of a path and of a `User-Agent`, in bytes: what a client chooses has an end.
const LONGEST_PATH: usize = 1024;
const LONGEST_USER_AGENT: usize = 256;

/// Threads beyond share buffers.
const BUFFERS: usize = 64;

static LOG: OnceLock<AccessLog> = OnceLock::new();

/// Where the lines go.
#[derive(Debug)]
pub(super) struct AccessLog {
    format: LogFormat,
    buffers: [Mutex<Buffer>; BUFFERS],
    dropped: AtomicU64,
    stops: AtomicBool,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Buffer {
    lines: Vec<u8>,
    /// The second since 1970 that a line was last written in, and its name.
    second: u64,
    date: String,
}

/// What a request's line says, as far as its head tells.
#[derive(Debug)]
pub(super) struct Entry {
    log: &'static AccessLog,
    id: RequestId,
    /// Whom it comes from.
    pub(super) client: IpAddr,
    began_at: Timestamp,
    method: Method,
    uri: Uri,
    version: Version,
    user_agent: Option<HeaderValue>,
}

impl AccessLog {
    /// Writes lines to standard output from here on.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(super) fn start(format: LogFormat) -> std::io::Result<()> {
        let log = LOG.get_or_init(|| Self::new(format));
        let output = std::io::stdout();
        let at_once = if is_file(&output) { usize::MAX } else { AT_ONCE };
        let run = move || log.run(output, at_once);
        *lock(&log.writer) = Some(thread::Builder::new().name("access-log".to_owned()).spawn(run)?);
        Ok(())
    }

    /// Writes what is left, and no more.
    pub(super) fn stop() {
        let Some(log) = LOG.get() else { return };
        log.stops.store(true, Ordering::Release);
        let writer = lock(&log.writer).take();
        if let Some(writer) = writer {
            writer.thread().unpark();
            let _ = writer.join();
        }
    }

    fn new(format: LogFormat) -> Self {
        let empty = || Mutex::new(Buffer { lines: Vec::new(), second: 0, date: date(0) });
        Self {
            format,
            buffers: std::array::from_fn(|_| empty()),
            dropped: AtomicU64::new(0),
            stops: AtomicBool::new(false),
            writer: Mutex::new(None),
        }
    }

    fn run(&self, mut output: impl Write, at_once: usize) {
        let mut lines = Vec::new();
        loop {
            let is_last = self.stops.load(Ordering::Acquire);
            for buffer in &self.buffers {
                // Two pieces of memory go to and fro between a thread and this one, and to no other thread.
                let mut waiting = lock(buffer);
                if waiting.lines.is_empty() {
                    continue;
                }
                std::mem::swap(&mut waiting.lines, &mut lines);
                drop(waiting);
                // Where nobody can read any more, there is nothing to be done about it.
                let _ = write_out(&mut output, &lines, at_once);
                lines.clear();
                lines.shrink_to(2 * WRITTEN_AT);
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(event = "access_log.dropped", lines = dropped);
            }
            if is_last {
                return;
            }
            thread::park_timeout(INTERVAL);
        }
    }

    fn add(&self, moment: Timestamp, write: impl FnOnce(Line<'_>)) {
        let mut buffer = lock(&self.buffers[worker::current() % BUFFERS]);
        let Buffer { lines, second, date: written } = &mut *buffer;
        let before = lines.len();
        if before >= MOST_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if *second != moment.as_secs() {
            *second = moment.as_secs();
            *written = date(*second);
        }
        write(Line::begin(lines, self.format, written, moment.as_millis() % 1000));
        let is_due = before < WRITTEN_AT && lines.len() >= WRITTEN_AT;
        drop(buffer);
        if is_due && let Some(writer) = &*lock(&self.writer) {
            writer.thread().unpark();
        }
    }
}

impl Entry {
    /// Where there is an access log.
    pub(super) fn begin<B>(
        request: &Request<B>,
        id: RequestId,
        client: IpAddr,
        now: Timestamp,
    ) -> Option<Self> {
        Some(Self {
            log: LOG.get()?,
            id,
            client,
            began_at: now,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
        })
    }

    /// The answer has come to its end.
    pub(super) fn write(&self, site: &Site, status: StatusCode, bytes: u64, took: Duration) {
        self.log.add(self.began_at + took, |mut line| {
            line.plain(name!("request_id"), self.id.as_str());
            match self.client.to_canonical() {
                IpAddr::V4(address) => line.address(address),
                IpAddr::V6(address) => line.plain(name!("client"), &address.to_string()),
            }
            for (name, value) in [(name!("app"), site.app()), (name!("route"), site.route())] {
                if !value.is_empty() {
                    line.text(name, value.as_bytes(), usize::MAX);
                }
            }
            line.text(name!("method"), self.method.as_str().as_bytes(), LONGEST_USER_AGENT);
            line.text(name!("path"), self.uri.path().as_bytes(), LONGEST_PATH);
            line.plain(name!("protocol"), protocol(self.version));
            line.number(name!("status"), status.as_u16().into());
            line.number(name!("bytes"), bytes);
            line.number(name!("duration_ms"), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            line.fraction((took.subsec_micros() % 1000).into());
            if let Some(user_agent) = &self.user_agent {
                line.text(name!("user_agent"), user_agent.as_bytes(), LONGEST_USER_AGENT);
            }
            line.end();
        });
    }
}

/// Whether what is written there at once stays together, however much it is.
fn is_file(output: &impl AsFd) -> bool {
    let file = output.as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|about| about.is_file())
}

/// In pieces of so many bytes at most, that no line of another writer to the same pipe gets into.
fn write_out(output: &mut impl Write, mut lines: &[u8], at_once: usize) -> std::io::Result<()> {
    while !lines.is_empty() {
        let whole = |piece: &[u8]| piece.iter().rposition(|byte| *byte == b'\n');
        let piece = lines.get(..at_once).map_or(Some(lines.len() - 1), whole);
        // A line that is longer than that goes by itself.
        let end =
            piece.or_else(|| lines.iter().position(|byte| *byte == b'\n')).map_or(lines.len(), |at| at + 1);
        let (piece, rest) = lines.split_at(end);
        output.write_all(piece)?;
        output.flush()?;
        lines = rest;
    }
    Ok(())
}

/// A second since 1970 as RFC 3339 writes it, without its end. Days are counted from a March on, so that the
/// leap day is a year's last.
pub(super) fn date(second: u64) -> String {
    let (days, of_day) = (second / 86_400 + 719_468, second % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;

    fn lines(format: LogFormat, texts: &[&[u8]]) -> String {
        let mut lines = Vec::new();
        for text in texts {
            let mut line = Line::begin(&mut lines, format, "2026-01-02T03:04:05", 6);
            line.text(name!("path"), text, 100);
            line.number(name!("status"), 200);
            line.plain(name!("client"), "::1");
            line.end();
        }
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn whatever_a_text_holds_a_line_is_one_json_object_on_one_line() {
        let hostile: [&[u8]; 6] = [
            b"/a",
            b"\"}\n{\"event\":\"forged\"",
            b"\\\"",
            b"\x00\x1b[2J\x7f\xc2\x9b",
            b"\xff\xc3",
            "\u{2028}/é".as_bytes(),
        ];
        let written = lines(LogFormat::Json, &hostile);
        assert_eq!(written.lines().count(), hostile.len());
        for (line, text) in written.lines().zip(hostile) {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} {line}"));
            assert_eq!(value["path"], String::from_utf8_lossy(text).into_owned());
            assert_eq!(
                (&value["event"], &value["status"], &value["client"]),
                (&"access".into(), &200.into(), &"::1".into())
            );
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        let text = lines(LogFormat::Text, &[b"/a b\"\n"]);
        assert_eq!(
            text,
            "2026-01-02T03:04:05.006Z access path=\"/a b\\u0022\\u000a\" status=200 client=::1\n"
        );
    }

    #[test]
    fn a_text_of_a_client_has_an_end() {
        let written = lines(LogFormat::Json, &["é".repeat(100_000).as_bytes()]);
        assert!(written.len() < 300, "{}", written.len());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for second in (0..5_000_000_000).step_by(86_399 * 7).chain([
            951_782_400,
            951_868_800,
            1_709_164_800,
            4_107_542_400,
        ]) {
            let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            // `Sun, 06 Nov 1994 08:49:37 GMT`
            let expected = httpdate::fmt_http_date(moment);
            let written = date(second);
            assert_eq!(written[8..10], expected[5..7], "{expected} {written}");
            assert_eq!(written[..4], expected[12..16], "{expected} {written}");
            assert_eq!(written[11..], expected[17..25], "{expected} {written}");
            let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(&expected[8..11]).unwrap() / 3 + 1;
            assert_eq!(written[5..7], format!("{month:02}"), "{expected} {written}");
        }
    }

    /// What is written, by pieces.
    #[derive(Default)]
    struct Pieces(Vec<Vec<u8>>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_whole_and_no_more_at_once_than_a_pipe_keeps_together() {
        let mut lines = Vec::new();
        for length in (0..3000).step_by(7).chain([AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE, 1]) {
            lines.extend(vec![b'x'; length]);
            lines.push(b'\n');
        }
        let mut pieces = Pieces::default();
        write_out(&mut pieces, &lines, AT_ONCE).unwrap();
        assert_eq!(pieces.0.concat(), lines);
        for piece in &pieces.0 {
            let count = piece.iter().filter(|byte| **byte == b'\n').count();
            assert!(
                piece.ends_with(b"\n") && (piece.len() <= AT_ONCE || count == 1),
                "{} {count}",
                piece.len()
            );
        }
        assert!(pieces.0.len() < lines.len() / 2000, "{}", pieces.0.len());
        let mut whole = Pieces::default();
        write_out(&mut whole, &lines, usize::MAX).unwrap();
        assert_eq!(whole.0, [lines], "into a file");
    }

    #[test]
    fn what_nobody_reads_in_time_is_dropped_and_counted() {
        let log = AccessLog::new(LogFormat::Json);
        let add = |moment| {
            log.add(Timestamp::from_secs(moment), |mut line| {
                line.text(name!("path"), &[b'x'; 1000], 1000);
                line.end();
            });
        };
        for moment in 0..2000 {
            add(moment);
        }
        let dropped = log.dropped.load(Ordering::Relaxed);
        assert!((900..1100).contains(&dropped), "{dropped}");
        log.stops.store(true, Ordering::Release);
        let mut written = Vec::new();
        log.run(&mut written, AT_ONCE);
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count() as u64, 2000 - dropped);
        assert!(
            String::from_utf8(written).unwrap().starts_with("{\"timestamp\":\"1970-01-01T00:00:00.000Z\"")
        );
        add(1);
        assert_eq!(log.dropped.load(Ordering::Relaxed), 0, "there is room again");
    }
}

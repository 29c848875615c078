//! The frames that a client sends, followed by their heads (RFC 9113 §4.1): what h2 puts no bound to is
//! bounded here (R65).
//!
//! Time: a frame that has begun, and a field block, must come to an end within the header timeout; a body in
//! the midst of a frame, and a client that takes nothing, may stand still for as long as a connection may be
//! idle. Number: frames that cost the client next to nothing and us some work have a [`Budget`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::budget::Budget;
use crate::config::Limits;

/// How long the client's preface is (RFC 9113 §3.4), in bytes.
const PREFACE: usize = 24;
/// How long a frame's head is, in bytes.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// Frames without a use of their own, at once and each second; further ones are earned.
const CHEAP: (u64, u64) = (1000, 100);
/// What a request earns of these. gRPC clients send a PING with each, to measure the way.
const EARNED_BY_REQUEST: u64 = 4;
/// For how many bytes sent one is earned: a client opens its window with two frames for each it got.
const BYTES_TO_EARN: usize = 1024;

/// Resets, in tenths, for each request earns one. What is reset has cost the client nothing, and us perhaps a
/// connection.
const RESETS: (u64, u64) = (2000, 50);
const COST_OF_RESET: u64 = 10;

/// How long we listen to a client that was sent away: to close with bytes unread would reset the
/// connection, and our last frame, which says why, could be lost.
const LINGERS: Duration = Duration::from_secs(1);

/// Whether the client was found to misuse the connection, for the one who can tell it so.
#[derive(Debug, Default)]
pub(super) struct Verdict(AtomicBool);

/// A byte stream that carries HTTP/2, whose client is watched.
#[derive(Debug)]
pub(super) struct WatchedFrames<S> {
    stream: S,
    place: Place,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// When what has begun must be there.
    due: Option<Instant>,
    /// A field block has begun (RFC 9113 §4.3) and has this time to end.
    block_due: Option<Instant>,
    /// Since when the client takes nothing of what is to be sent.
    blocked_since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    cheap: Budget,
    resets: Budget,
    unrewarded: usize,
    verdict: Arc<Verdict>,
    is_condemned: bool,
    lingers_until: Option<Instant>,
}

/// Where in the client's bytes we are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In its preface, with so many bytes to come.
    Preface(usize),
    /// In a frame's head, of which so many bytes are here.
    Head([u8; HEAD], usize),
    /// In the rest of a frame, with so many bytes to come.
    Payload { is_data: bool, left: usize },
}

impl Verdict {
    /// Whether it has fallen; true once.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl<S> WatchedFrames<S> {
    pub(super) fn new(stream: S, limits: &Limits, verdict: Arc<Verdict>) -> Self {
        let due = Instant::now() + limits.header_timeout;
        Self {
            stream,
            place: Place::Preface(PREFACE),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            // A client begins with its preface and its settings.
            due: Some(due),
            block_due: None,
            blocked_since: None,
            alarm: Box::pin(tokio::time::sleep_until(due)),
            cheap: Budget::new(CHEAP.0, CHEAP.1),
            resets: Budget::new(RESETS.0, RESETS.1),
            unrewarded: 0,
            verdict,
            is_condemned: false,
            lingers_until: None,
        }
    }

    /// Follows what has come; `false` where it is too much of something.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let now = Instant::now();
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Preface(left) => {
                    let step = bytes.len().min(*left);
                    *left -= step;
                    bytes = &bytes[step..];
                    if *left == 0 {
                        self.place = Place::Head([0; HEAD], 0);
                    }
                }
                Place::Head(head, length) => {
                    let step = bytes.len().min(HEAD - *length);
                    head[*length..*length + step].copy_from_slice(&bytes[..step]);
                    *length += step;
                    bytes = &bytes[step..];
                    // The first frame is due with the preface.
                    self.due = self.due.or(self.block_due).or(Some(now + self.header_timeout));
                    if *length == HEAD {
                        let head = *head;
                        if !self.begin(head, now) {
                            return false;
                        }
                    }
                }
                Place::Payload { is_data, left } => {
                    let step = bytes.len().min(*left);
                    *left -= step;
                    bytes = &bytes[step..];
                    if *is_data {
                        self.due = Some(now + self.idle_timeout);
                    }
                    if *left == 0 {
                        self.end_frame();
                    }
                }
            }
        }
        true
    }

    /// A frame's head is here whole.
    fn begin(&mut self, head: [u8; HEAD], now: Instant) -> bool {
        let [first, second, third, kind, flags, ..] = head;
        let length = usize::from(first) << 16 | usize::from(second) << 8 | usize::from(third);
        let is_affordable = match kind {
            DATA => length > 0 || flags & END_STREAM != 0 || self.cheap.spend(1),
            HEADERS => {
                self.cheap.earn(EARNED_BY_REQUEST);
                self.resets.earn(1);
                true
            }
            RST_STREAM => self.resets.spend(COST_OF_RESET),
            _ => self.cheap.spend(1),
        };
        match kind {
            HEADERS | CONTINUATION if flags & END_HEADERS != 0 => self.block_due = None,
            HEADERS => self.block_due = Some(now + self.header_timeout),
            DATA => self.due = Some(now + self.idle_timeout),
            _ => {}
        }
        self.place = Place::Payload { is_data: kind == DATA, left: length };
        if length == 0 {
            self.end_frame();
        }
        is_affordable
    }

    fn end_frame(&mut self) {
        self.place = Place::Head([0; HEAD], 0);
        self.due = self.block_due;
    }

    /// Sees to it that the task wakes when this moment has come; whether it has.
    fn has_come(&mut self, due: Instant, context: &mut Context<'_>) -> bool {
        if self.alarm.deadline() != due {
            self.alarm.as_mut().reset(due);
        }
        self.alarm.as_mut().poll(context).is_ready()
    }

    /// Nothing more is read. Who follows the verdict says so to the client; before the preface there is nobody.
    fn condemn(&mut self) -> Poll<io::Result<()>> {
        if matches!(self.place, Place::Preface(_)) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.is_condemned = true;
        self.verdict.0.store(true, Ordering::Relaxed);
        Poll::Pending
    }

    fn note_written(&mut self, length: usize) {
        self.blocked_since = None;
        self.unrewarded += length;
        self.cheap.earn((self.unrewarded / BYTES_TO_EARN) as u64);
        self.unrewarded %= BYTES_TO_EARN;
    }

    /// Ends the wait of who writes, where the client has taken nothing for too long.
    fn check_blocked<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let since = *self.blocked_since.get_or_insert_with(Instant::now);
            if self.has_come(since + self.idle_timeout, context) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedFrames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_condemned {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                if !this.follow(&buffer.filled()[before..]) {
                    buffer.set_filled(before);
                    return this.condemn();
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                // Whoever waits for the client to take something looks at that time by itself.
                let due = this.due.filter(|_| this.blocked_since.is_none());
                if due.is_some_and(|due| this.has_come(due, context)) {
                    return this.condemn();
                }
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedFrames<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(length)) = &written {
            self.note_written(*length);
        }
        self.check_blocked(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(length)) = &written {
            self.note_written(*length);
        }
        self.check_blocked(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.check_blocked(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = match self.lingers_until {
            Some(until) => until,
            None => {
                let shut = Pin::new(&mut self.stream).poll_shutdown(context);
                ready!(self.check_blocked(shut, context))?;
                *self.lingers_until.insert(Instant::now() + LINGERS)
            }
        };
        let mut space = [0; 16 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && Instant::now() < until => {}
                Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        if self.has_come(until, context) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

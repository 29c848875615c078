//! The time limits of one connection (R65): a silent connection, a head that comes in drop by drop, and a
//! body or a reader that stands still.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::prefixed::Prefixed;

mod request;

use request::RequestUnderWay;

pub(super) use request::Sending;

/// How long a client that sends nothing may leave a connection half closed.
const LINGERS_IN_SILENCE: Duration = Duration::from_millis(500);

/// After how much silence a connection rests. Who asks more often than this pays nothing for it.
const RESTS_AFTER: Duration = Duration::from_secs(2);

/// What a connection waits for.
#[derive(Debug)]
pub(super) struct Timing {
    state: Mutex<State>,
    header_timeout: Duration,
    idle_timeout: Duration,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Which request it is, counted from the first: what is said of an earlier one must not be taken for this one's.
    request: u64,
    coming: Coming,
    /// The answer is there for which the client has waited without being idle.
    has_waited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request's head is awaited: the first from the start on, each later one from its first byte on.
    Head,
    /// A request is being read.
    Request,
    /// A request was read whole, and the client waits for the answer: whose time that is, is another's to say.
    Waiting,
    /// An answer is being sent.
    Answer,
    /// An answer was sent before its request was read whole. What comes is the rest of that request.
    Answered,
    /// An answer was sent, and nothing has come since.
    Between,
    /// As [`Phase::Between`], and for so long that the connection may give back what it needs for requests alone.
    Resting,
    /// The connection carries another protocol, whose time is kept elsewhere.
    Tunnel,
}

/// How much of a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    /// Not its end.
    Part,
    /// All. What comes now is another request.
    Whole,
    /// Nobody reads the rest.
    Forsaken,
}

impl Timing {
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration) -> Self {
        let state = State { phase: Phase::Head, request: 0, coming: Coming::Part, has_waited: false };
        Self { state: Mutex::new(state), header_timeout, idle_timeout }
    }

    pub(super) fn begin_request(self: &Arc<Self>) -> RequestUnderWay {
        let mut state = self.state();
        state.request += 1;
        state.coming = Coming::Part;
        state.phase = Phase::Request;
        RequestUnderWay { timing: Arc::clone(self), request: state.request }
    }

    /// Whether there was a request so far.
    pub(super) fn has_begun(&self) -> bool {
        self.state().request > 0
    }

    /// Whether all was answered, and nothing has come for a while.
    pub(super) fn rests(&self) -> bool {
        self.state().phase == Phase::Resting
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.state().phase == Phase::Tunnel
    }

    pub(super) fn becomes_tunnel(&self) {
        self.state().phase = Phase::Tunnel;
    }

    fn has_waited(&self) -> bool {
        self.state().has_waited
    }

    fn request_ended(&self, request: u64, coming: Coming) {
        let mut state = self.state();
        if state.request != request {
            return;
        }
        state.coming = coming;
        match state.phase {
            Phase::Request if coming == Coming::Whole => state.phase = Phase::Waiting,
            Phase::Answered => state.phase = Phase::Between,
            Phase::Head
            | Phase::Request
            | Phase::Waiting
            | Phase::Answer
            | Phase::Between
            | Phase::Resting
            | Phase::Tunnel => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that fails once its time is up.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    stream: S,
    timing: Arc<Timing>,
    /// When the head that is awaited must be there; nothing where it has begun since the last look at the clock.
    head_due: Option<Instant>,
    /// When a byte last moved, in either direction; nothing where one has since the last look at the clock.
    moved: Option<Instant>,
    /// Rings when the time is up, or before: to put it off on each request would cost more than to look.
    alarm: Pin<Box<Sleep>>,
    /// Whether nothing that was written waits to go out.
    is_flushed: bool,
    /// Until when what still comes is read, once nothing more is written.
    lingers_until: Option<Instant>,
}

impl<S> TimedStream<S> {
    /// The first head must be there when it is due.
    pub(super) fn new(stream: S, timing: Arc<Timing>, head_due: Instant) -> Self {
        let alarm = Box::pin(tokio::time::sleep_until(head_due));
        Self {
            stream,
            timing,
            head_due: Some(head_due),
            moved: None,
            alarm,
            is_flushed: true,
            lingers_until: None,
        }
    }

    /// The clock is looked at once there is something to wait for, which most reads and writes do not.
    fn note_progress(&mut self, read: bool) {
        self.moved = None;
        if !read {
            return;
        }
        let mut state = self.timing.state();
        if matches!(state.phase, Phase::Between | Phase::Resting) {
            state.phase = Phase::Head;
            self.head_due = None;
        }
    }

    /// Fails where the time is up; otherwise sees to it that the task wakes when it will be.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut state = self.timing.state();
        if std::mem::take(&mut state.has_waited) {
            self.moved = None;
        }
        let Timing { header_timeout, idle_timeout, .. } = *self.timing;
        loop {
            // Within a request's body, the parser's state is all that keeps the rest of it from being taken for requests.
            let may_rest = state.phase == Phase::Between
                && state.coming == Coming::Whole
                && self.is_flushed
                && self.lingers_until.is_none();
            let due = match state.phase {
                Phase::Tunnel | Phase::Waiting => return Ok(()),
                Phase::Head => *self.head_due.get_or_insert_with(|| Instant::now() + header_timeout),
                Phase::Request | Phase::Answer | Phase::Answered | Phase::Between | Phase::Resting => {
                    let silence = if may_rest { RESTS_AFTER.min(idle_timeout) } else { idle_timeout };
                    *self.moved.get_or_insert_with(Instant::now) + silence
                }
            };
            if due < self.alarm.deadline() {
                self.alarm.as_mut().reset(due);
            }
            if self.alarm.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            if due > self.alarm.deadline() {
                self.alarm.as_mut().reset(due);
            } else if may_rest {
                state.phase = Phase::Resting;
            } else {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn watch<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
        moved: impl FnOnce(&T) -> Option<bool>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Ok(done)) => {
                if let Some(read) = moved(&done) {
                    self.note_progress(read);
                }
                // No time ran while the client waited; from this answer on it does again.
                if self.timing.has_waited() {
                    self.check(context)?;
                }
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match self.check(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() > before;
        self.watch(polled, context, |()| read.then_some(true))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(polled, context, |_| Some(false))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(polled, context, |_| Some(false))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.is_flushed |= matches!(polled, Poll::Ready(Ok(())));
        self.watch(polled, context, |()| None)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is closed must not rest instead: there may be bytes that nobody reads as what they were sent for.
        self.is_flushed = false;
        let until = match self.lingers_until {
            Some(until) => until,
            None => {
                let polled = Pin::new(&mut self.stream).poll_shutdown(context);
                ready!(self.watch(polled, context, |()| None))?;
                // In a tunnel, what still comes is for the other end.
                if self.timing.is_tunnel() {
                    return Poll::Ready(Ok(()));
                }
                let now = Instant::now();
                self.moved = Some(now);
                let until = now + self.timing.header_timeout;
                self.lingers_until = Some(until);
                until
            }
        };
        self.linger(until, context).map(Ok)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TimedStream<Prefixed<S>> {
    /// Waits for the next request's first byte, which is read again. `false` where the client closes instead.
    ///
    /// # Errors
    /// Where the connection fails, or the time is up.
    pub(super) async fn is_asked(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        let length = self.read(&mut byte).await?;
        self.stream.put_back(&byte[..length]);
        Ok(length > 0)
    }

    /// Has these bytes read again, before all others.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.stream.put_back(bytes);
    }
}

impl<S: AsyncRead + Unpin> TimedStream<S> {
    /// Reads what a client still sends, and forgets it: to close with bytes unread resets the connection,
    /// and the client may lose the answer that told it to stop (RFC 9112 §9.6).
    fn linger(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 16 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.moved = None,
                Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let moved = *self.moved.get_or_insert_with(Instant::now);
        self.alarm.as_mut().reset(until.min(moved + LINGERS_IN_SILENCE));
        self.alarm.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::body::{self, Body};

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    fn connection() -> (Arc<Timing>, TimedStream<DuplexStream>, DuplexStream) {
        let timing = Arc::new(Timing::new(HEADER, IDLE));
        let (ours, theirs) = duplex(64);
        (Arc::clone(&timing), TimedStream::new(ours, timing, Instant::now() + HEADER), theirs)
    }

    fn answer_at_once(timing: &Arc<Timing>) {
        let under_way = timing.begin_request();
        under_way.receives(body::full(""));
    }

    /// A request's body, and what sends it.
    fn coming() -> (tokio::sync::mpsc::Sender<&'static [u8]>, Body) {
        let (sender, mut parts) = tokio::sync::mpsc::channel(1);
        let frames = futures_util::stream::poll_fn(move |context| parts.poll_recv(context));
        let frames = futures_util::StreamExt::map(frames, |part| {
            Ok::<_, io::Error>(Frame::data(Bytes::from_static(part)))
        });
        (sender, body::boxed(http_body_util::StreamBody::new(frames)))
    }

    async fn is_at_rest(timing: &Timing, stream: &mut TimedStream<DuplexStream>) -> bool {
        assert!(tokio::time::timeout(RESTS_AFTER * 2, stream.read_u8()).await.is_err(), "nothing has come");
        timing.rests()
    }

    async fn times_out_after(stream: &mut TimedStream<DuplexStream>) -> Duration {
        let started = Instant::now();
        let mut byte = [0];
        loop {
            match stream.read(&mut byte).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    return started.elapsed();
                }
            }
        }
    }

    fn about(seconds: u64) -> std::ops::Range<Duration> {
        Duration::from_secs(seconds)..Duration::from_millis(seconds * 1000 + 10)
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_silent_connection_ends_with_the_header_timeout() {
        let (_, mut stream, _theirs) = connection();
        assert!(about(10).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_head_that_drips_in_gets_no_more_time() {
        let (_, mut stream, mut theirs) = connection();
        let dripping = tokio::spawn(async move {
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        assert!(about(10).contains(&times_out_after(&mut stream).await));
        dripping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_a_connection_may_be_idle_but_the_next_head_is_due_from_its_first_byte_on() {
        let (timing, mut stream, mut theirs) = connection();
        answer_at_once(&timing);
        tokio::time::sleep(Duration::from_secs(30)).await;
        theirs.write_all(b"G").await.unwrap();
        assert!(about(10).contains(&times_out_after(&mut stream).await));

        let (timing, mut stream, _theirs) = connection();
        answer_at_once(&timing);
        assert!(about(75).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_was_put_off_again_and_again_is_up_all_the_same() {
        let (timing, mut stream, mut theirs) = connection();
        for _ in 0..20 {
            answer_at_once(&timing);
            let waited = tokio::time::timeout(IDLE / 3, stream.read_u8()).await;
            assert!(waited.is_err(), "nothing has ended the wait");
            theirs.write_all(b"G").await.unwrap();
            stream.read_u8().await.unwrap();
        }
        answer_at_once(&timing);
        assert!(about(75).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_reader_that_stands_still_is_cut_off() {
        let (timing, mut stream, _theirs) = connection();
        let _under_way = timing.begin_request();
        let written = stream.write_all(&[0; 1000]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn r65_who_still_sends_is_heard_out_before_the_connection_closes_but_not_for_ever() {
        let (_, mut stream, mut theirs) = connection();
        let sending = tokio::spawn(async move {
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let started = Instant::now();
        stream.shutdown().await.unwrap();
        assert!(about(10).contains(&started.elapsed()));
        sending.abort();

        let (_, mut stream, _theirs) = connection();
        let started = Instant::now();
        stream.shutdown().await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_not_idle_and_has_its_whole_time_again_to_take_it() {
        let (timing, mut stream, mut theirs) = connection();
        theirs.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        let under_way = timing.begin_request();
        under_way.receives(body::full(""));
        let waited = tokio::time::timeout(IDLE * 10, stream.read_u8()).await;
        assert!(waited.is_err(), "nothing has ended the wait");
        let _sending = under_way.until_sent(body::full("answer"));
        assert!(about(75).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_connection_rests_until_the_next_head_begins_and_loses_no_byte_of_it() {
        let timing = Arc::new(Timing::new(HEADER, IDLE));
        let (ours, mut theirs) = duplex(64);
        let mut stream = TimedStream::new(Prefixed::new(ours), Arc::clone(&timing), Instant::now() + HEADER);
        answer_at_once(&timing);
        for (after, rests) in [(RESTS_AFTER / 2, false), (RESTS_AFTER, true)] {
            assert!(tokio::time::timeout(after, stream.read_u8()).await.is_err(), "nothing has come");
            assert_eq!(timing.rests(), rests);
        }
        theirs.write_all(b"GET").await.unwrap();
        assert!(stream.is_asked().await.unwrap() && !timing.rests());
        let mut head = [0; 3];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"GET");
        drop(theirs);
        assert!(!stream.is_asked().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_connection_within_a_request_does_not_rest_though_it_was_answered() {
        let (timing, mut stream, mut theirs) = connection();
        let under_way = timing.begin_request();
        let (sender, body) = coming();
        let mut body = under_way.receives(body);
        drop(under_way.until_sent(body::full("early")));
        assert!(!is_at_rest(&timing, &mut stream).await);
        // The rest of the body is no head either, which would be due.
        theirs.write_all(b"x").await.unwrap();
        stream.read_u8().await.unwrap();
        assert!(tokio::time::timeout(HEADER * 2, stream.read_u8()).await.is_err(), "nothing has come");
        drop(sender);
        assert!(body.frame().await.is_none());
        assert!(is_at_rest(&timing, &mut stream).await, "it has come whole now");
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_body_that_is_not_read_to_its_end_leaves_a_connection_without_rest() {
        let (timing, mut stream, mut theirs) = connection();
        let under_way = timing.begin_request();
        let (_sender, body) = coming();
        drop(under_way.receives(body));
        drop(under_way.until_sent(body::full("refused")));
        assert!(!is_at_rest(&timing, &mut stream).await);
        theirs.write_all(b"G").await.unwrap();
        assert!(about(10).contains(&times_out_after(&mut stream).await), "a head is due all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn r65_the_end_of_one_request_is_not_taken_for_that_of_the_next() {
        let (timing, mut stream, _theirs) = connection();
        let first = timing.begin_request();
        let (sender, body) = coming();
        let mut first_body = first.receives(body);
        drop(first.until_sent(body::full("early")));
        let second = timing.begin_request();
        let (_sender, body) = coming();
        let _second_body = second.receives(body);
        drop(sender);
        assert!(first_body.frame().await.is_none(), "read late");
        drop(second.until_sent(body::full("early")));
        assert!(!is_at_rest(&timing, &mut stream).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_whole_while_it_is_answered_has_its_idle_time_all_the_same() {
        let (timing, mut stream, _theirs) = connection();
        let under_way = timing.begin_request();
        let (sender, body) = coming();
        let mut body = under_way.receives(body);
        let _sending = under_way.until_sent(body::full("early"));
        drop(sender);
        assert!(body.frame().await.is_none());
        assert!(about(75).contains(&times_out_after(&mut stream).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_keeps_its_own_time() {
        let (timing, mut stream, mut theirs) = connection();
        timing.becomes_tunnel();
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::time::sleep(IDLE * 10).await;
        theirs.write_all(b"x").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b'x');
    }
}

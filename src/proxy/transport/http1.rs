//! HTTP/1.1: one request at a time on a connection, which is driven by the request itself and then by its
//! response's body. That takes no task, and so no wake-up, beside the client's own.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};

use super::Failed;
use super::connect::Stream;
use super::pool::Pool;
use super::upload::Upload;
use crate::body::{self, Body};
use crate::connector::POOL_IDLE_TIMEOUT;
use crate::proxy::servers::ServerAddress;
use crate::proxy::{Answer, EarlyHints, ForwardError, headers, tunnel};

/// The largest head of an answer, and the largest of its trailers, in bytes.
const LARGEST_HEAD: usize = 128 * 1024;

/// How many fields the parser has room for without asking for memory on each answer.
const FIELDS_ON_THE_STACK: usize = 100;

/// A connection.
pub(super) struct Link {
    server: ServerAddress,
    sender: SendRequest<Body>,
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    driver: Arc<Driver>,
    /// The driver once more, as the connection knows it.
    waker: Waker,
    /// Rings when an answer is due, or before: to set it anew for each request would cost more than to look.
    alarm: Pin<Box<Sleep>>,
    is_reusable: bool,
}

/// Begins a connection, on which an answer's head has so many fields at most.
pub(super) async fn open(
    stream: Stream,
    server: &ServerAddress,
    header_count: usize,
) -> hyper::Result<Box<Link>> {
    let mut builder = Builder::new();
    builder.max_header_size(LARGEST_HEAD);
    if header_count != FIELDS_ON_THE_STACK {
        builder.max_headers(header_count);
    }
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let driver = Arc::new(Driver::default());
    let waker = Waker::from(Arc::clone(&driver));
    let connection = Box::pin(connection.with_upgrades());
    let alarm = Box::pin(sleep(POOL_IDLE_TIMEOUT));
    Ok(Box::new(Link { server: server.clone(), sender, connection, driver, waker, alarm, is_reusable: true }))
}

/// Lets whoever asked for them have early hints, of which nothing but links is meant for a browser.
fn hear_early_hints(request: &mut Request<Body>) {
    let Some(EarlyHints(hear)) = request.extensions_mut().remove() else { return };
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::EARLY_HINTS {
            let links = response.headers().get_all(header::LINK).iter();
            hear(links.map(|link| (header::LINK, link.clone())).collect());
        }
    });
}

/// Sends a request. The connection goes into the pool when it is ready for another one.
pub(super) async fn send(
    link: Box<Link>,
    mut request: Box<Request<Body>>,
    host: &HeaderValue,
    upload: &Upload,
    pool: &Arc<Pool>,
    due: Option<Instant>,
) -> Result<Answer, Failed> {
    request.headers_mut().insert(header::HOST, host.clone());
    request.headers_mut().remove(header::TE);
    hear_early_hints(&mut request);
    let (link, response) = exchange(link, request, due).await;
    match response {
        None => Err(Failed::too_late()),
        Some(Ok(response)) => answer(link, response, upload, pool),
        Some(Err(mut error)) => {
            let unprocessed = error.take_message().map(Box::new);
            Err(Failed { error: upload.explain(error.into_error()), unprocessed })
        }
    }
}

impl Link {
    pub(super) fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// Ready once the connection has ended; it must not be polled any more then.
    fn poll_end(&mut self, context: &Context<'_>) -> Poll<()> {
        self.driver.be(context.waker());
        self.connection.as_mut().poll(&mut Context::from_waker(&self.waker)).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(event = "upstream.connection_failed", %error);
            }
        })
    }

    /// Ready once the time is up. Whoever drives the connection is woken.
    fn poll_due(&mut self, due: Instant) -> Poll<()> {
        if due < self.alarm.deadline() {
            self.alarm.as_mut().reset(due);
        }
        let mut context = Context::from_waker(&self.waker);
        while self.alarm.as_mut().poll(&mut context).is_ready() {
            if due <= self.alarm.deadline() {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Whether all of the last exchange is done: then nothing was left unread, and nothing unwritten.
    fn is_idle(&self) -> bool {
        self.sender.is_ready()
    }

    /// Drives the connection to the end of its exchange, with a task of its own.
    async fn run(self: Box<Self>, pool: Arc<Pool>) {
        let mut link = Some(self);
        std::future::poll_fn(|context| advance(&mut link, &pool, context)).await;
    }
}

/// Drives a connection until it has gone, into the pool or for good.
fn advance(link: &mut Option<Box<Link>>, pool: &Arc<Pool>, context: &Context<'_>) -> Poll<()> {
    let Some(driven) = link else { return Poll::Ready(()) };
    if driven.poll_end(context).is_ready() {
        *link = None;
    } else if let Some(idle) = link.take_if(|link| link.is_idle()) {
        retire(idle, pool);
    }
    if link.is_none() { Poll::Ready(()) } else { Poll::Pending }
}

fn retire(link: Box<Link>, pool: &Arc<Pool>) {
    if link.is_reusable {
        link.driver.be_nobody();
        pool.put(link);
    }
}

/// Drives the connection until there is a response, or until it is due; without a connection where that has ended.
async fn exchange(
    mut link: Box<Link>,
    request: Box<Request<Body>>,
    due: Option<Instant>,
) -> (Option<Box<Link>>, Option<Result<Response<Incoming>, TrySendError<Request<Body>>>>) {
    // Nothing but the connection can make it ready: it is looked at whenever that was polled, and needs to
    // wake nobody. Nor does it count as work, since its turn could not come again by itself.
    let mut response = pin!(unconstrained(link.sender.try_send_request(*request)));
    let mut link = Some(link);
    let answered = std::future::poll_fn(|context| {
        if link.as_mut().is_some_and(|link| link.poll_end(context).is_ready()) {
            // A request that was not begun comes back only when the connection is dropped.
            link = None;
        }
        if let Poll::Ready(answered) = response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(Some(answered));
        }
        match (&mut link, due) {
            (Some(link), Some(due)) => link.poll_due(due).map(|()| None),
            (_, None) | (None, _) => Poll::Pending,
        }
    });
    let answered = answered.await;
    (link, answered)
}

fn answer(
    mut link: Option<Box<Link>>,
    mut response: Response<Incoming>,
    upload: &Upload,
    pool: &Arc<Pool>,
) -> Result<Answer, Failed> {
    if headers::has_ambiguous_framing(response.headers()) {
        // Dropped with the connection: what is left on it may pass for the answer to somebody else's
        // request (R39).
        return Err(Failed { error: ForwardError::Framing, unprocessed: None });
    }
    let is_switch = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let tunnel = is_switch.then(|| tunnel::upgraded(hyper::upgrade::on(&mut response)));
    if let Some(link) = &mut link {
        // To what is known as a server of HTTP/1.0 no body of unknown length could be sent (RFC 9112 §6.1).
        link.is_reusable = response.version() == Version::HTTP_11;
    }
    let response = match link {
        Some(link) if link.is_idle() => {
            retire(link, pool);
            response.map(here)
        }
        // It is not the reading of the answer that lets the rest of the request go on.
        Some(link) if upload.is_in_progress() || is_switch => {
            tokio::spawn(link.run(Arc::clone(pool)));
            response.map(body::boxed)
        }
        link => {
            let pool = Arc::clone(pool);
            response.map(|incoming| body::boxed(Driven { link, incoming, pool, failure: None }))
        }
    };
    Ok(Answer { response, tunnel })
}

/// The body of an answer whose connection is idle again, so that nothing of it is still to come: it is nobody's to wait
/// for. Where its length is not known, trailers may end it.
fn here(mut incoming: Incoming) -> Body {
    if incoming.size_hint().exact().is_none_or(|length| length == 0) {
        return body::boxed(incoming);
    }
    let frame = Pin::new(&mut incoming).poll_frame(&mut Context::from_waker(Waker::noop()));
    match frame {
        Poll::Ready(Some(Ok(frame))) if incoming.is_end_stream() => {
            body::full(frame.into_data().unwrap_or_default())
        }
        Poll::Ready(Some(first)) => {
            let rest = BodyStream::new(incoming);
            body::boxed(StreamBody::new(futures_util::stream::iter([first]).chain(rest)))
        }
        Poll::Ready(None) | Poll::Pending => body::boxed(incoming),
    }
}

/// A response's body that drives the connection it comes from.
struct Driven {
    incoming: Incoming,
    /// `None` once all of the body is here that will come.
    link: Option<Box<Link>>,
    pool: Arc<Pool>,
    /// How the body broke off.
    failure: Option<hyper::Error>,
}

impl HttpBody for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, link, pool, failure } = &mut *self;
        if let Some(error) = failure.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let _ = advance(link, pool, context);
        // Whoever is given a frame comes again, and need not be woken by its being taken.
        let driver = link.as_ref().map(|link| link.driver.be_nobody());
        let frame = Pin::new(incoming).poll_frame(&mut Context::from_waker(Waker::noop()));
        match frame {
            Poll::Ready(Some(Err(error))) => {
                // Next time: with the failure, what came before it and was not yet sent would be dropped.
                *failure = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => {
                if let (Some(link), Some(driver)) = (link, driver) {
                    link.driver.be_again(driver);
                }
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Passes a connection's wake-ups on to whoever drives it at the moment: without it an idle connection
/// would hold on to the last task that drove it, and wake that one with its next request.
#[derive(Default)]
struct Driver(Mutex<Target>);

#[derive(Default)]
struct Target {
    task: Option<Waker>,
    /// Whether there was a wake-up while nobody drove.
    is_woken: bool,
}

impl Driver {
    fn be(&self, task: &Waker) {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut target.task {
            Some(present) => present.clone_from(task),
            absent @ None => *absent = Some(task.clone()),
        }
    }

    fn be_nobody(&self) -> Option<Waker> {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        target.is_woken = false;
        target.task.take()
    }

    /// Undoes [`Driver::be_nobody`].
    fn be_again(&self, task: Option<Waker>) {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !target.is_woken {
            target.task = task;
        } else if let Some(task) = task {
            drop(target);
            task.wake();
        }
    }
}

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        target.is_woken = true;
        let task = target.task.take();
        drop(target);
        if let Some(task) = task {
            task.wake();
        }
    }
}

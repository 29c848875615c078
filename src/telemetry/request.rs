//! Which request a log line belongs to. A span would be written down for each request, and nearly none is
//! ever read: here the request's name goes along, and is put into the lines that are logged.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::task_local;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::audit::Names;
use super::trace::Parent;
use crate::random::Random;

task_local! {
    static CURRENT: Current;
}

/// The request that a task answers.
#[derive(Clone, Debug)]
pub(super) struct Current {
    id: RequestId,
    /// The recorded span that the task is in.
    parent: Option<Arc<Parent>>,
    client: Cell<Option<IpAddr>>,
    whose: RefCell<Option<Names>>,
}

/// Names a request in logs, here and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; RequestId::LENGTH]);

impl RequestId {
    const LENGTH: usize = 16;

    /// A name of 96 random bits.
    pub fn generate(random: Random) -> Self {
        let mut id = [b'0'; Self::LENGTH];
        // Twelve bytes are sixteen letters.
        let _ = URL_SAFE_NO_PAD.encode_slice(random.bytes::<12>(), &mut id);
        Self(id)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The request that this task answers, where it answers one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| current.id).ok()
    }

    /// Does something for this request, under its span where it is recorded; what is logged meanwhile has its name.
    pub async fn within<T>(self, parent: Option<Arc<Parent>>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(Current::new(self, parent), work).await
    }

    /// The same of what does not wait.
    pub fn within_blocking<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Current::new(self, None), work)
    }
}

/// The request that this task answers comes from this address, as far as is known.
pub fn comes_from(client: IpAddr) {
    let _ = CURRENT.try_with(|current| current.client.set(Some(client)));
}

/// Does something that goes on in a task of its own for the request that this task answers.
pub fn for_request<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let current = Current::of_request();
    async move {
        match current {
            Some(current) => current.scope(work).await,
            None => work.await,
        }
    }
}

impl Current {
    const fn new(id: RequestId, parent: Option<Arc<Parent>>) -> Self {
        Self { id, parent, client: Cell::new(None), whose: RefCell::new(None) }
    }

    /// That of this task, where it answers one.
    pub(super) fn of_request() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The recorded span that this task is in.
    pub(super) fn parent() -> Option<Arc<Parent>> {
        CURRENT.try_with(|current| current.parent.clone()).ok().flatten()
    }

    /// Notes whose session it uses.
    pub(super) fn belongs_to(names: impl FnOnce() -> Names) {
        let _ = CURRENT.try_with(|current| current.whose.replace(Some(names())));
    }

    pub(super) fn id(&self) -> &str {
        self.id.as_str()
    }

    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client.get()
    }

    pub(super) fn whose(&self) -> Option<Names> {
        self.whose.borrow().clone()
    }

    /// The same request, in another span.
    pub(super) fn under(self, parent: Arc<Parent>) -> Self {
        Self { parent: Some(parent), ..self }
    }

    pub(super) async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A format whose lines name the request they belong to.
#[derive(Debug)]
pub(super) struct OfRequest<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for OfRequest<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(id) = RequestId::current() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(members) => write!(writer, "{{\"request_id\":\"{id}\",{members}"),
            None => writeln!(writer, "{} request_id={id}", line.trim_end()),
        }
    }
}

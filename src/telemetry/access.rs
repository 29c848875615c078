//! What becomes of each request, noted once its answer's body has been sent or has broken off: in the metrics, in the
//! access log where there is one, and in the trace where it is recorded.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, Version};
use http_body::Frame;
use tokio::time::Instant;

use super::access_log::Entry;
use super::metrics::Site;
use super::request::RequestId;
use super::trace::{Parent, Span, Tracer};
use crate::body::{self, Body, BodyError, Watch};
use crate::clock::Timestamp;

/// What is noted of a request while it is answered.
#[derive(Debug)]
pub struct Access<'a> {
    site: &'a Site,
    began: Instant,
    entry: Option<Entry>,
    recorded: Option<Box<Recorded>>,
}

/// What is noted besides of a request that is recorded.
#[derive(Debug)]
struct Recorded {
    span: Span,
    uri: Uri,
}

impl<'a> Access<'a> {
    /// Begins to note a request that nothing was found for so far.
    pub fn begin<B>(
        request: &Request<B>,
        id: RequestId,
        client: IpAddr,
        now: Timestamp,
        nowhere: &'a Site,
        tracer: Option<&Tracer>,
    ) -> Self {
        let recorded = tracer.and_then(|tracer| tracer.begin(request, now)).map(|mut span| {
            span.note("cloakroom.request_id", id.as_str());
            span.note("network.protocol.version", version(request.version()));
            Box::new(Recorded { span, uri: request.uri().clone() })
        });
        let entry = Entry::begin(request, id, client, now);
        Self { site: nowhere, began: Instant::now(), entry, recorded }
    }

    /// The request's span, where it is recorded, for those under it.
    pub fn parent(&self) -> Option<Arc<Parent>> {
        self.recorded.as_ref().map(|recorded| recorded.span.as_parent())
    }

    /// Whom it comes from, where proxies stand in between. That is for the access log alone.
    pub fn comes_from(&mut self, client: impl FnOnce() -> IpAddr) {
        if let Some(entry) = &mut self.entry {
            entry.client = client();
        }
    }

    /// What answers it.
    pub fn is_for(&mut self, site: &'a Site) {
        self.site = site;
    }

    /// The answer's body, whose end is the end of the request.
    pub fn until_sent(self, status: StatusCode, body: Body) -> Body {
        let Self { site, began, entry, recorded } = self;
        body::watched(body, Sending { bytes: 0, status, site: site.clone(), began, entry, recorded })
    }
}

/// What is noted of an answer on its way, and at its end, however that comes: the client may have gone.
struct Sending {
    bytes: u64,
    status: StatusCode,
    site: Site,
    began: Instant,
    entry: Option<Entry>,
    recorded: Option<Box<Recorded>>,
}

impl Watch for Sending {
    fn see(&mut self, frame: Option<Result<&Frame<Bytes>, &BodyError>>, _is_last: bool) {
        let data = frame.and_then(Result::ok).and_then(Frame::data_ref);
        self.bytes += data.map_or(0, |data| data.len() as u64);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.site.count_request(self.status, took);
        if let Some(entry) = &self.entry {
            entry.write(&self.site, self.status, self.bytes, took);
        }
        if let Some(mut recorded) = self.recorded.take() {
            recorded.conclude(&self.site, self.status);
        }
    }
}

impl Recorded {
    fn conclude(&mut self, site: &Site, status: StatusCode) {
        if let Some((scheme, authority)) = site.app().split_once("://") {
            self.span.note("url.scheme", scheme);
            self.span.note("server.address", authority.rsplit_once(':').map_or(authority, |(host, _)| host));
        }
        self.span.conclude(site.route(), self.uri.path(), status);
    }
}

/// As OpenTelemetry names it.
fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

//! Forms, and what else is posted to an endpoint.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, header};
use http_body_util::{BodyExt, Collected};

use super::{Endpoints, Parameters};
use crate::body::Body;
use crate::error::{Reason, Refusal};

impl Endpoints {
    /// The parameters of a request: those of its query, or of the form that was posted, and of nothing else.
    pub(super) async fn parameters(&self, head: &Parts, body: Body) -> Result<Parameters, Refusal> {
        if head.method != Method::POST {
            return Parameters::of(head);
        }
        if !is_form(head) {
            return Err(Refusal::new(Reason::FormType));
        }
        Parameters::read(&self.collect(body).await?)
    }

    /// The whole of a body, whose size is bounded already.
    pub(super) async fn collect(&self, body: Body) -> Result<Bytes, Refusal> {
        // All of it has its time: a byte now and then would keep its place for ever.
        let collected = tokio::time::timeout(self.form_timeout, body.collect()).await.map_err(|error| {
            Refusal::new(Reason::FormSlow)
                .with_header(header::CONNECTION, HeaderValue::from_static("close"))
                .because(error)
        })?;
        collected.map(Collected::to_bytes).map_err(|error| Refusal::new(Reason::FormBroken).because(error))
    }
}

/// Whether a request says that it brings a form.
pub(super) fn is_form(head: &Parts) -> bool {
    is_of_type(head, "application/x-www-form-urlencoded")
}

/// Whether a request says that its body is of this media type, and says so once.
pub(super) fn is_of_type(head: &Parts, wanted: &str) -> bool {
    let mut types = head.headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let media_type = only.to_str().ok().and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(wanted)
}

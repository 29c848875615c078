//! `client.js`, the module that an app's scripts import, with its types and the source map that holds its source. All
//! three are built from `client/src/index.ts` by `client/build.mjs`; a test holds them to that.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::body::{Body, full};
use crate::fields::members;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

static SCRIPT: LazyLock<File> =
    LazyLock::new(|| File::new("text/javascript; charset=utf-8", include_str!("client_js/client.js")));
static MAP: LazyLock<File> =
    LazyLock::new(|| File::new("application/json", include_str!("client_js/client.js.map")));
static TYPES: LazyLock<File> =
    LazyLock::new(|| File::new("text/plain; charset=utf-8", include_str!("client_js/client.d.ts")));

struct File {
    content_type: HeaderValue,
    content: &'static str,
    /// RFC 9110 §8.8.3.
    entity_tag: String,
}

impl File {
    fn new(content_type: &'static str, content: &'static str) -> Self {
        let digest = URL_SAFE_NO_PAD.encode(&Sha256::digest(content)[..16]);
        Self {
            content_type: HeaderValue::from_static(content_type),
            content,
            entity_tag: format!("\"{digest}\""),
        }
    }
}

/// The file that a request names.
pub(super) fn file(head: &Parts) -> Response<Body> {
    let path = head.uri.path();
    let file: &File = if path.ends_with(".map") {
        &MAP
    } else if path.ends_with(".d.ts") {
        &TYPES
    } else {
        &SCRIPT
    };
    let is_known = members(&head.headers, &header::IF_NONE_MATCH)
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == file.entity_tag.as_bytes());
    let content = if is_known || head.method == Method::HEAD { "" } else { file.content };
    let mut response = Response::new(full(content));
    let headers = response.headers_mut();
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(header::CONTENT_TYPE, file.content_type.clone());
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(file.content.len()));
    }
    let headers = response.headers_mut();
    if let Ok(entity_tag) = HeaderValue::try_from(&file.entity_tag) {
        headers.insert(header::ETAG, entity_tag);
    }
    // Asked for anew each time: a new version of the gateway may bring another one.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

//! An SPA's static files: one folder, served under one route.
//!
//! [`ServeDir`] does the reading: content types, entity tags, ranges (RFC 9110 §13, §14) and the choice
//! of a `.br` or `.gz` variant that lies beside a file. This room decides what a path may name, when
//! `index.html` stands in for a page that the SPA's own router knows, and what browsers are told about
//! caching and framing.
//!
//! Symbolic links are followed, out of the folder too: deployments switch releases by them, and whoever
//! may put a link into the folder may as well put a file there. A folder is never listed.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
    REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use percent_encoding::percent_decode_str;
use tower_http::services::ServeDir;

use crate::fields::accepts;

/// The body of an answer: a file, part of one, or nothing.
pub use tower_http::services::fs::ServeFileSystemResponseBody as Body;

/// Which scripts an app loads only the app knows; it says so in a `<meta>` policy of its own, and the
/// browser keeps both. Said here is what breaks no app: nobody else frames it (which a `<meta>` can't
/// say, CSP 3 §3.3), and an injected `<base>` sends no relative URL to another host.
const CONTENT_SECURITY: HeaderValue = HeaderValue::from_static("base-uri 'self'; frame-ancestors 'self'");

/// Without `includeSubDomains`: other hosts under the app's domain are not the app's to decide on.
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// A folder of static files.
#[derive(Clone, Debug)]
pub struct Files {
    folder: ServeDir,
    secure: bool,
}

impl Files {
    /// Serves `folder`; `secure` says whether the app's origin is https.
    pub fn new(folder: &Path, secure: bool) -> Self {
        let folder = ServeDir::new(folder)
            .append_index_html_on_directories(false)
            .redirect_to_trailing_slash(false)
            .ignore_multi_range_requests(true)
            .precompressed_br()
            .precompressed_gzip();
        Self { folder, secure }
    }

    /// Answers a request. `path_under_route` is what the request's path has left once the route's is
    /// taken off: empty, or a slash and what follows; on the route `/` it is the whole path. Answers
    /// that are no file have an empty body.
    pub async fn serve<B>(&self, request: Request<B>, path_under_route: &str) -> Response<Body> {
        let (head, _) = request.into_parts();
        let mut response = self.answer(&head, path_under_route).await;
        let headers = response.headers_mut();
        // Stored, but asked for anew each time: from a file's name nobody can tell whether its content
        // ever changes, and a new index.html with last week's unhashed script is a broken app.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_SECURITY_POLICY, CONTENT_SECURITY);
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.secure {
            headers.insert(STRICT_TRANSPORT_SECURITY, ONE_YEAR);
        }
        response
    }

    async fn answer(&self, head: &Parts, path: &str) -> Response<Body> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        if path.is_empty() {
            return redirect_to_folder(&head.uri);
        }
        if !names_a_public_file(path) {
            return empty(StatusCode::NOT_FOUND);
        }
        let file = match path.strip_suffix('/') {
            Some(folder) => format!("{folder}/index.html"),
            None => path.to_owned(),
        };
        let found = self.open(&head.method, &head.headers, &file).await;
        if found.status() != StatusCode::NOT_FOUND {
            return found;
        }
        if self.exists(&format!("{file}/index.html")).await {
            return redirect_to_folder(&head.uri);
        }
        if accepts(&head.headers, "text/html") {
            let mut page = self.open(&head.method, &head.headers, "/index.html").await;
            page.headers_mut().append(VARY, HeaderValue::from_static("accept"));
            return page;
        }
        found
    }

    async fn exists(&self, path: &str) -> bool {
        self.open(&Method::HEAD, &HeaderMap::new(), path).await.status() == StatusCode::OK
    }

    /// The file at this path, and nothing in its place.
    async fn open(&self, method: &Method, headers: &HeaderMap, path: &str) -> Response<Body> {
        let Ok(uri) = Uri::try_from(path) else { return empty(StatusCode::NOT_FOUND) };
        let is_html = path.ends_with(".html");
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = relevant_headers(method, headers, is_html);

        let mut response = match self.folder.clone().try_call(request).await {
            Ok(response) => response,
            Err(error) => empty(status_of(&error)),
        };
        if is_html {
            response.headers_mut().remove(ETAG);
            response.headers_mut().remove(LAST_MODIFIED);
        } else if response.status() == StatusCode::NOT_MODIFIED {
            // A 304 repeats the 200's `Vary` (RFC 9110 §15.4.5), which `ServeDir` leaves out.
            response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        response
    }
}

/// What `ServeDir` is to see of a request.
///
/// HTML is never compared, always sent: its entity tag is made of time and size, builds that are
/// reproducible set every time alike, and two builds' index.html differ in nothing but hashes of one
/// length. It would be "not modified" for ever.
///
/// `Range` means something on GET alone and in bytes alone (RFC 9110 §14.2). `If-Range`, which
/// `ServeDir` does not know, is kept by leaving the range out (§13.1.5): the whole file is always right.
fn relevant_headers(method: &Method, headers: &HeaderMap, is_html: bool) -> HeaderMap {
    let validators = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    let may_be_ranged = !is_html && method == Method::GET && !headers.contains_key(IF_RANGE);
    let mut relevant = HeaderMap::new();
    for (name, value) in headers {
        let is_relevant = name == ACCEPT_ENCODING
            || (name == RANGE && may_be_ranged && value.as_bytes().starts_with(b"bytes="))
            || (!is_html && validators.contains(name));
        if is_relevant {
            relevant.append(name, value.clone());
        }
    }
    relevant
}

/// Whether a path names something that may be served. Dot-files (`.git`, `.env`) are secrets that were
/// copied along; `/.well-known/` (RFC 8615) is public by definition. A separator inside a segment is
/// read differently by different file systems.
fn names_a_public_file(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let segments = path.strip_suffix('/').unwrap_or(path).split('/');
    path.is_empty()
        || segments.enumerate().all(|(position, segment)| {
            let Ok(segment) = percent_decode_str(segment).decode_utf8() else { return false };
            let hidden = segment.starts_with('.') && !(position == 0 && segment == ".well-known");
            !segment.is_empty() && !hidden && !segment.contains(['/', '\\', '\0'])
        })
}

/// To the same path with a slash at its end, or the page's relative links would miss its folder. The
/// location is relative to the last segment, so whatever the path holds, it can't leave the origin.
fn redirect_to_folder(uri: &Uri) -> Response<Body> {
    let last_segment = uri.path().rsplit('/').next().unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(location) = HeaderValue::try_from(format!("./{last_segment}/{query}")) else {
        return empty(StatusCode::NOT_FOUND);
    };
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(LOCATION, location);
    response
}

fn method_not_allowed() -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn status_of(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename => StatusCode::NOT_FOUND,
        _ => {
            tracing::error!(event = "file.unreadable", error = %error);
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE};
    use http_body_util::BodyExt;
    use tempfile::TempDir;

    use super::*;

    const NAVIGATION: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    fn folder() -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, content) in [
            ("index.html", "<h1>app</h1>"),
            ("app.js", "plain script"),
            ("app.js.br", "brotli"),
            ("app.js.gz", "gzip!"),
            ("style.css", "0123456789"),
            ("docs/index.html", "<h1>docs</h1>"),
            ("assets/logo.svg", "<svg/>"),
            (".env", "PASSWORD=1"),
            (".git/config", "[core]"),
            (".well-known/security.txt", "Contact: us"),
            (".well-known/.hidden", "no"),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri(path);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    async fn get(folder: &TempDir, path: &str, headers: &[(&str, &str)]) -> Response<String> {
        send(folder, "GET", path, headers).await
    }

    async fn send(folder: &TempDir, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<String> {
        let files = Files::new(folder.path(), false);
        read(files.serve(request(method, path, headers), path).await).await
    }

    async fn read(response: Response<Body>) -> Response<String> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_file_is_served_with_its_type_and_without_caching_it_unasked() {
        let response = get(&folder(), "/app.js", &[]).await;
        assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "plain script"));
        assert_eq!(response.headers()[CONTENT_TYPE], "text/javascript");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache");
    }

    #[tokio::test]
    async fn only_get_and_head_are_answered() {
        let folder = folder();
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let response = send(&folder, method, "/app.js", &[]).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
            assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        }
        let response = send(&folder, "HEAD", "/app.js", &[]).await;
        assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, ""));
        assert_eq!(response.headers()["content-length"], "12");
    }

    #[tokio::test]
    async fn index_html_answers_unknown_paths_for_pages_alone() {
        let folder = folder();
        for path in ["/", "/orders/17", "/orders/", "/assets/", "/assets", "/missing.js"] {
            let response = get(&folder, path, &[NAVIGATION]).await;
            assert_eq!(
                (response.status(), response.body().as_str()),
                (StatusCode::OK, "<h1>app</h1>"),
                "{path}"
            );
            assert_eq!(response.headers()[CONTENT_TYPE], "text/html");
        }
        for accept in ["*/*", "image/avif,image/webp,*/*;q=0.8", "application/json, text/plain", ""] {
            for path in ["/missing.js", "/logo.png", "/orders/17", "/assets/", "/assets", "/app.js/more"] {
                let response = get(&folder, path, &[("accept", accept)]).await;
                assert_eq!(
                    (response.status(), response.body().as_str()),
                    (StatusCode::NOT_FOUND, ""),
                    "{path} {accept}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_folder_without_index_html_gives_404_to_everybody() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("notes.txt"), "notes").unwrap();
        for path in ["/", "/unknown"] {
            assert_eq!(get(&folder, path, &[NAVIGATION]).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn precompressed_variants_go_to_clients_that_accept_them() {
        let folder = folder();
        for (accepted, encoding, body) in [
            ("gzip, deflate, br, zstd", Some("br"), "brotli"),
            ("gzip", Some("gzip"), "gzip!"),
            ("br;q=0, gzip;q=0.5", Some("gzip"), "gzip!"),
            ("identity", None, "plain script"),
        ] {
            let response = get(&folder, "/app.js", &[("accept-encoding", accepted)]).await;
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!((header(CONTENT_ENCODING), response.body().as_str()), (encoding, body), "{accepted}");
            assert_eq!(header(CONTENT_TYPE), Some("text/javascript"));
            assert_eq!(header(VARY), Some("accept-encoding"));
        }
        let response = get(&folder, "/style.css", &[("accept-encoding", "br")]).await;
        assert_eq!(response.body(), "0123456789");
    }

    #[tokio::test]
    async fn an_asset_is_revalidated_by_its_entity_tag() {
        let folder = folder();
        let first = get(&folder, "/app.js", &[("accept-encoding", "br")]).await;
        let tag = first.headers()[ETAG].to_str().unwrap();
        let validators = [("accept-encoding", "br"), ("if-none-match", tag)];
        let second = get(&folder, "/app.js", &validators).await;
        assert_eq!((second.status(), second.body().as_str()), (StatusCode::NOT_MODIFIED, ""));
        assert_eq!(second.headers()[VARY], "accept-encoding");
        assert_eq!(second.headers()[CACHE_CONTROL], "no-cache");
        fs::write(folder.path().join("app.js.br"), "another build").unwrap();
        assert_eq!(get(&folder, "/app.js", &validators).await.body(), "another build");
    }

    #[tokio::test]
    async fn html_is_always_sent_since_reproducible_builds_share_time_and_size() {
        let folder = folder();
        for path in ["/", "/index.html", "/deep/link", "/docs/"] {
            let conditions =
                [NAVIGATION, ("if-none-match", "*"), ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")];
            let response = get(&folder, path, &conditions).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert!(
                !response.headers().contains_key(ETAG) && !response.headers().contains_key(LAST_MODIFIED)
            );
            assert_eq!(response.headers()[CACHE_CONTROL], "no-cache");
        }
    }

    #[tokio::test]
    async fn a_range_is_served_and_one_that_may_not_be_honoured_is_ignored() {
        let folder = folder();
        let response = get(&folder, "/style.css", &[("range", "bytes=2-4")]).await;
        assert_eq!((response.status(), response.body().as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes 2-4/10");
        let response = get(&folder, "/style.css", &[("range", "bytes=20-")]).await;
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        let ignored: [&[_]; 3] = [
            &[("range", "lines=1-2")],
            &[("range", "bytes=0-1,3-4")],
            &[("range", "bytes=2-4"), ("if-range", "\"of-another-build\"")],
        ];
        for headers in ignored {
            let response = get(&folder, "/style.css", headers).await;
            assert_eq!(
                (response.status(), response.body().as_str()),
                (StatusCode::OK, "0123456789"),
                "{headers:?}"
            );
        }
        let response = send(&folder, "HEAD", "/style.css", &[("range", "bytes=2-4")]).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn r35_traversal_and_hidden_files_are_not_found_even_for_pages() {
        let folder = folder();
        let served = TempDir::new_in(folder.path()).unwrap();
        fs::write(served.path().join("index.html"), "inner").unwrap();
        for path in [
            "/../app.js",
            "/%2e%2e/app.js",
            "/.%2E/app.js",
            "/x/../../app.js",
            "/..%2fapp.js",
            "/..%5capp.js",
            "/..\\app.js",
            "/a%2fb",
            "/a%5Cb",
            "/app.js%00",
            "/%00",
            "/%ff",
            "//app.js",
            "/assets//logo.svg",
            "//evil.example/",
            "/./app.js",
            "/assets/.",
            "/.env",
            "/%2eenv",
            "/.git/config",
            "/.git",
            "/assets/.well-known/x",
            "/.well-known/.hidden",
            "/.well-known/../.env",
        ] {
            for method in ["GET", "HEAD"] {
                for folder in [&folder, &served] {
                    let files = Files::new(folder.path(), false);
                    let response = read(files.serve(request(method, "/", &[NAVIGATION]), path).await).await;
                    let answer = (response.status(), response.body().as_str());
                    assert_eq!(answer, (StatusCode::NOT_FOUND, ""), "{method} {path}");
                }
            }
        }
    }

    #[tokio::test]
    async fn well_known_is_public() {
        assert_eq!(get(&folder(), "/.well-known/security.txt", &[]).await.body(), "Contact: us");
    }

    #[tokio::test]
    async fn a_name_longer_than_file_systems_know_is_not_found() {
        let response = get(&folder(), &format!("/{}.js", "x".repeat(4000)), &[]).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_folder_is_served_by_its_own_index_html_and_reached_by_a_relative_redirect() {
        let folder = folder();
        assert_eq!(get(&folder, "/docs/", &[]).await.body(), "<h1>docs</h1>");
        let files = Files::new(folder.path(), false);
        let response = files.serve(request("GET", "/docs?page=2", &[]), "/docs").await;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.headers()[LOCATION], "./docs/?page=2");
    }

    #[tokio::test]
    async fn a_route_serves_the_folder_under_its_own_path() {
        let folder = folder();
        let files = Files::new(folder.path(), false);
        let response = files.serve(request("GET", "/app", &[NAVIGATION]), "").await;
        assert_eq!(response.headers()[LOCATION], "./app/");
        for (path, under_route, body) in [
            ("/app/", "/", "<h1>app</h1>"),
            ("/app/app.js", "/app.js", "plain script"),
            ("/app/docs/", "/docs/", "<h1>docs</h1>"),
            ("/app/deep/link", "/deep/link", "<h1>app</h1>"),
        ] {
            let response = read(files.serve(request("GET", path, &[NAVIGATION]), under_route).await).await;
            assert_eq!(response.body(), body, "{path}");
        }
    }

    #[tokio::test]
    async fn r50_every_answer_carries_the_security_headers() {
        let folder = folder();
        for (method, path) in
            [("GET", "/"), ("GET", "/app.js"), ("GET", "/missing.js"), ("POST", "/"), ("GET", "/docs")]
        {
            for secure in [true, false] {
                let files = Files::new(folder.path(), secure);
                let response = files.serve(request(method, path, &[]), path).await;
                let headers = response.headers();
                let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
                assert!(policy.contains("frame-ancestors 'self'"), "{policy}");
                assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
                assert!(headers.contains_key(REFERRER_POLICY));
                assert_eq!(headers.contains_key(STRICT_TRANSPORT_SECURITY), secure);
            }
        }
    }

    #[tokio::test]
    async fn r50_the_policy_leaves_the_choice_of_sources_to_the_app() {
        let response = get(&folder(), "/", &[]).await;
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for source in ["default-src", "script-src", "style-src", "connect-src", "object-src", "form-action"] {
            assert!(!policy.contains(source), "{source} would break apps");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn symbolic_links_are_followed() {
        let (folder, elsewhere) = (folder(), TempDir::new().unwrap());
        fs::write(elsewhere.path().join("release.js"), "release").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("current")).unwrap();
        assert_eq!(get(&folder, "/current/release.js", &[]).await.body(), "release");
    }
}

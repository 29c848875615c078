//! Pages for people: in their language, and an app's own in place of ours.

use std::fs;
use std::path::Path;

use cloakroom::config;
use http::Method;
use http::header::{CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY};
use serde_json::json;
use tempfile::TempDir;

use crate::support::browser::Answer;
use crate::support::chromium;
use crate::support::gateway::{NO_ISSUER, ORIGIN, Setup, environment, program};
use crate::support::issuer::Issuer;
use crate::support::port::Reserved;
use crate::support::reloadable::Reloadable;
use crate::support::shop::{Shop, bare, location, parameter};

/// A person's browser asks, whose languages these are.
async fn page(shop: &Shop, target: &str, languages: &str) -> Answer {
    shop.bare(Method::GET, target, &[("accept", "text/html"), ("accept-language", languages)]).await
}

fn is_in(answer: &Answer, tag: &str) {
    assert!(answer.text().contains(&format!("<html lang=\"{tag}\">")), "{}", answer.text());
    assert_eq!(answer.headers[CONTENT_LANGUAGE], tag);
    assert_eq!(answer.headers[VARY], "Accept-Language");
}

/// A folder with these files.
fn folder_of(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// The app's own pages lie there.
fn pages_in(setup: &mut Setup, folder: &Path) {
    setup.further_apps = format!("    pages: {}\n", folder.display());
}

async fn shop_with(folder: &TempDir) -> Shop {
    Shop::open_with(|_, setup| pages_in(setup, folder.path())).await
}

#[tokio::test]
async fn a_page_is_in_the_browser_s_language_and_a_problem_document_in_english() {
    let shop = Shop::open().await;
    for (languages, tag, title) in [
        ("de-AT,de;q=0.9,en;q=0.8", "de", "Hier ist nichts"),
        ("en-GB,en;q=0.9,de;q=0.8", "en", "There is nothing here"),
        ("fr", "en", "There is nothing here"),
    ] {
        let answer = page(&shop, "/bff/nothing", languages).await;
        assert_eq!(answer.status, 404);
        is_in(&answer, tag);
        assert!(answer.text().contains(&format!("<h1>{title}</h1>")), "{}", answer.text());
        assert!(answer.text().contains("no-route"), "the reason, for whoever is asked for help");
        let request_id = answer.headers["x-request-id"].to_str().unwrap();
        assert!(answer.text().contains(request_id), "{}", answer.text());
    }
    is_in(&page(&shop, "/bff/logout", "de").await, "de");
    let problem = shop.bare(Method::GET, "/bff/nothing", &[("accept-language", "de")]).await;
    assert_eq!(problem.headers[CONTENT_TYPE], "application/problem+json");
    assert_eq!(problem.json()["title"], "There is nothing here");
}

#[tokio::test]
async fn the_pages_of_a_login_are_in_its_ui_locales() {
    let shop = Shop::open().await;
    let english = [("accept", "text/html"), ("accept-language", "en")];
    for (error, title) in [("access_denied", "Die Anmeldung ist nicht gelungen"), ("", "Sie sind angemeldet")]
    {
        let sent = shop.bare(Method::GET, "/bff/login?ui_locales=fr%20de-CH", &english).await;
        let authorization = location(&sent);
        assert_eq!(
            parameter(&authorization, "ui_locales").as_deref(),
            Some("fr de-CH"),
            "as the app said it"
        );
        let cookie = sent.set_cookies().pop().unwrap();
        let cookie = format!("{}={}", cookie.name(), cookie.value());
        let mut response = shop.issuer.authorize(&authorization);
        if !error.is_empty() {
            response.retain(|(name, _)| name != "code");
            response.push(("error".to_owned(), error.to_owned()));
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(response).finish();
        let fields = [english[0], english[1], ("cookie", cookie.as_str())];
        let answer = shop.bare(Method::GET, &format!("/bff/callback?{query}"), &fields).await;
        is_in(&answer, "de");
        assert!(answer.text().contains(title), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_login_passes_on_what_the_browser_likes_best_of_what_the_issuer_has() {
    let asked = async |supported: serde_json::Value, parameters: &str, query: &str| {
        let shop = Shop::open_with(|issuer, setup| {
            issuer.behave(|behaviour| {
                behaviour.metadata.insert("ui_locales_supported".to_owned(), supported);
            });
            setup.oidc.push_str(parameters);
        })
        .await;
        let sent = page(&shop, &format!("/bff/login?{query}"), "fr-CA,fr;q=0.9,de;q=0.5,*;q=0.1").await;
        parameter(&location(&sent), "ui_locales")
    };
    let best = async |supported| asked(supported, "", "").await;
    assert_eq!(best(json!(["en", "de", "fr"])).await.as_deref(), Some("fr"));
    assert_eq!(best(json!(["en", "de-DE"])).await.as_deref(), Some("de-DE"));
    assert_eq!(best(json!(["en"])).await, None, "the issuer chooses");
    assert_eq!(best(json!(null)).await, None, "an issuer that does not say");
    let supported = json!(["en", "de", "fr"]);
    assert_eq!(
        asked(supported.clone(), "", "ui_locales=de").await.as_deref(),
        Some("de"),
        "the app's word stands"
    );
    let configured = "\nauthorization_parameters: {ui_locales: en}";
    assert_eq!(asked(supported, configured, "").await.as_deref(), Some("en"), "and the configured one");
}

#[tokio::test]
async fn an_app_s_page_is_shown_in_place_of_ours_and_the_status_stays() {
    let folder = folder_of(&[
        ("error.html", "<p>any {{ lang }} {{ status }} {{ code }} {{ reason }} {{ request_id }}</p>"),
        ("error.de.html", "<p>deutsch</p>"),
        ("not-found.html", "<p>gone {{ lang }}</p>"),
        (
            "logout.html",
            "<form method={{ action.method }} action=\"{{ action.url }}\"></form>{{ back.label }}",
        ),
        ("style.css", "no page"),
    ]);
    let shop = shop_with(&folder).await;
    let answer = page(&shop, "/bff/login?return_to=//x", "en").await;
    assert_eq!(answer.status, 400);
    let request_id = answer.headers["x-request-id"].to_str().unwrap();
    assert_eq!(answer.text(), format!("<p>any en 400 bad-request return-to {request_id}</p>"));
    assert_eq!(answer.headers[CONTENT_LANGUAGE], "en");
    assert_eq!(page(&shop, "/bff/login?return_to=//x", "de").await.text(), "<p>deutsch</p>");
    let gone = page(&shop, "/bff/nothing", "de").await;
    assert_eq!(
        (gone.status.as_u16(), gone.text().as_str()),
        (404, "<p>gone de</p>"),
        "the code before the language"
    );

    let asked = page(&shop, "/bff/logout", "de").await;
    assert_eq!(asked.text(), "<form method=post action=\"/bff/logout\"></form>Angemeldet bleiben");
    assert_eq!(asked.headers[REFERRER_POLICY], "same-origin", "browsers say where the form is from");
    let problem = shop.bare(Method::GET, "/bff/nothing", &[]).await;
    assert_eq!(problem.problem(), "not-found", "scripts are told as ever");

    let without_app =
        bare(shop.gateway.address, "https://other.test", Method::GET, "/", &[("accept", "text/html")]).await;
    assert_eq!(without_app.status, 421);
    assert!(without_app.text().contains("No app answers"), "no app's page where no app is");
}

#[tokio::test]
async fn a_page_of_an_app_runs_no_script_and_loads_from_the_app_alone() {
    let style = "<style>p { color: red }</style>";
    let folder = folder_of(&[(
        "error.html",
        &format!("{style}\r\n<style media=print>\r\na {{}}\r\n</style>{{{{ title }}}}"),
    )]);
    let shop = shop_with(&folder).await;
    let policy = |answer: &Answer| answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    let own = policy(&page(&shop, "/bff/nothing", "en").await);
    let directives: Vec<_> = own.split("; ").collect();
    assert!(directives.contains(&"default-src 'none'") && directives.contains(&"base-uri 'none'"), "{own}");
    assert!(
        directives.contains(&"frame-ancestors 'none'") && directives.contains(&"img-src 'self'"),
        "{own}"
    );
    assert!(!own.contains("script") && !own.contains("unsafe"), "{own}");
    let styles = directives.iter().find(|directive| directive.starts_with("style-src 'self' ")).unwrap();
    // By `printf 'p { color: red }' | openssl dgst -sha256 -binary | base64`, and of "\na {}\n": browsers read no CR.
    for hash in [
        "'sha256-ngewhhP73WDIbgwseeu52VAAJgKdGUsu1IUQQsAm8m4='",
        "'sha256-jVPldBGrPC7qrYjIG6PdM906CUhmBTqUeg9TWXg4s1o='",
    ] {
        assert!(styles.contains(hash), "{styles}");
    }
    let ours = policy(&page(&shop, "/bff/logout", "en").await);
    assert!(!ours.contains("'self'") && ours.starts_with("default-src 'none'; style-src 'sha256-"), "{ours}");
}

#[tokio::test]
async fn what_stands_in_a_value_cannot_leave_its_place() {
    let folder = folder_of(&[("login-failed.html", "<a href=\"{{ action.url }}\">{{ action.label }}</a>")]);
    let shop = shop_with(&folder).await;
    let html = [("accept", "text/html")];
    let sent =
        shop.bare(Method::GET, "/bff/login?return_to=/%3F%22%3E%3Cscript%3Ealert(%27x%27)", &html).await;
    let cookie = sent.set_cookies().pop().unwrap();
    let cookie = format!("{}={}", cookie.name(), cookie.value());
    let state = parameter(&location(&sent), "state").unwrap();
    let target = format!("/bff/callback?error=access_denied&state={state}&iss={}", shop.issuer.url());
    let answer = shop.bare(Method::GET, &target, &[html[0], ("cookie", &cookie)]).await;
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(text.starts_with("<a href=\"/bff/login?return_to=") && text.ends_with("\">Log in</a>"), "{text}");
    assert_eq!(text.matches(['<', '"']).count(), 4, "{text}");
}

#[tokio::test]
async fn a_changed_page_is_shown_after_a_reload_and_a_broken_one_is_not() {
    let folder = folder_of(&[("error.html", "<p>before</p>")]);
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", NO_ISSUER);
    pages_in(&mut setup, folder.path());
    let reloadable = Reloadable::start(&setup).await;
    let shown = async || {
        let fields = [("accept", "text/html")];
        bare(reloadable.gateway.address, ORIGIN, Method::GET, "/bff/nothing", &fields).await.text()
    };
    assert_eq!(shown().await, "<p>before</p>");
    fs::write(folder.path().join("error.html"), "<p>after</p>").unwrap();
    reloadable.serve_by(&setup.yaml()).await;
    assert_eq!(shown().await, "<p>after</p>");
    fs::write(folder.path().join("error.html"), "<p>{{ broken</p>").unwrap();
    reloadable.refuse(&setup.yaml()).await;
    assert_eq!(shown().await, "<p>after</p>", "what was in force stays in force");
    fs::write(folder.path().join("error.html"), "<p>mended</p>").unwrap();
    fs::write(folder.path().join("not-found.html"), "<p>new</p>").unwrap();
    reloadable.serve_by(&setup.yaml()).await;
    assert_eq!(shown().await, "<p>new</p>");
}

/// What is wrong with this file of a folder of pages: line, column, text and problem.
fn fault(name: &str, content: &str) -> (usize, usize, String, String) {
    let folder = folder_of(&[(name, content)]);
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", NO_ISSUER);
    pages_in(&mut setup, folder.path());
    let faults = config::parse("test.yaml", &setup.yaml(), &environment).unwrap_err();
    let [fault] = faults.diagnostics() else { panic!("{faults}") };
    assert!(fault.file.starts_with(folder.path().to_str().unwrap()), "{fault}");
    assert!(!fault.remedy.is_empty());
    (fault.position.line, fault.position.column, fault.text.clone(), fault.problem.clone())
}

#[test]
fn a_broken_page_is_a_fault_with_its_place_in_the_file() {
    let place = |content| {
        let (line, column, text, problem) = fault("error.html", content);
        (line, column, text, problem.contains("not a template"))
    };
    let no_end = place("<h1>{{ title }}</h1>\n<p>{% if detail %}</p>\n");
    assert!(no_end.0 >= 2 && no_end.3, "{no_end:?}");
    assert_eq!(
        place("<p>\n  {{ title | upper }}"),
        (2, 14, "upper".to_owned(), true),
        "there are no filters"
    );
    let (line, column, text, problem) =
        fault("error.html", "titel\n<p>ä {% if code %}{{ titel }}{% endif %}</p>");
    assert_eq!((line, column, text.as_str()), (2, 22, "titel"), "{problem}");
    assert!(problem.contains("no such value"), "{problem}");
    let (.., text, _) = fault("logout.html", "{{ action.href }}");
    assert_eq!(text, "action.href");
}

#[test]
fn a_page_that_nobody_would_be_shown_is_a_fault() {
    for (name, content, problem) in [
        ("session-over.html", "", "no page has this name"),
        ("error.fr.html", "", "no text is in this language"),
        ("error.html", &*" ".repeat(64 * 1024 + 1), "more than 65536 bytes"),
        ("style.css", "", "holds no page"),
    ] {
        let (.., found) = fault(name, content);
        assert!(found.contains(problem), "{name}: {found}");
    }
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", NO_ISSUER);
    pages_in(&mut setup, Path::new("/nowhere"));
    let faults = config::parse("test.yaml", &setup.yaml(), &environment).unwrap_err();
    assert!(faults.to_string().starts_with("/nowhere:1:1: this folder cannot be read"), "{faults}");
}

#[tokio::test]
async fn the_program_does_not_start_with_a_broken_page() {
    let folder = folder_of(&[("error.html", "\n<p>{{ titel }}</p>")]);
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", NO_ISSUER);
    pages_in(&mut setup, folder.path());
    let (code, said) = setup.refused_process(program(&[])).await;
    assert_eq!(code, Some(78), "{said}");
    let place =
        format!("{}:2:7: a page has no such value: `titel`", folder.path().join("error.html").display());
    assert!(said.contains(&place), "{said}");
}

#[tokio::test]
async fn each_page_is_accessible_in_chromium() {
    in_chromium(None).await;
}

#[tokio::test]
async fn each_page_of_the_examples_is_accessible_in_chromium() {
    in_chromium(Some(Path::new("examples/pages"))).await;
}

async fn in_chromium(own: Option<&Path>) {
    let (issuer, port) = (Issuer::start().await, Reserved::new());
    let origin = format!("http://localhost:{}", port.address().port());
    let mut setup = Setup::new(&issuer.url());
    setup.add_route("path: /gone, upstream: \"http://127.0.0.1:9\", auth: none");
    setup.add_route("path: /, files: tests/real/spa");
    setup.listen = port.address().to_string();
    setup.origin.clone_from(&origin);
    setup.other_issuers = vec![("partners", "https://partners.test".to_owned())];
    if let Some(folder) = own {
        pages_in(&mut setup, folder);
    }
    let _gateway = setup.start().await;
    let name = if own.is_some() { "app" } else { "ours" };
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages").join(name);
    fs::create_dir_all(&pictures).unwrap();
    let arguments = json!({"gateway": origin, "folder": pictures, "own": own.is_some()});
    chromium::run_of("pages.mjs", "every_page", &arguments).await;
}

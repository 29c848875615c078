//! The issuer's pages, each of which says what this issuer is for.

use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use crate::issuer::grants::USERS;
use crate::web::{Answer, with_type};

/// The pages' style sheet.
pub const STYLE: &str = include_str!("style.css");

/// The page that asks for a password; `refused` is the name of one that was just refused.
pub fn login(authorization: &str, refused: Option<&str>) -> Answer {
    let authorization = escape(authorization);
    let name = escape(refused.unwrap_or_default());
    let message = match refused {
        Some(_) => "<p class=error role=alert id=message>Wrong user name or password. Please try again.</p>",
        None => "",
    };
    let users: String = USERS
        .iter()
        .map(|user| format!("<li><b>{}</b>, password <b>{}</b>", escape(user.name), escape(user.password)))
        .collect();
    // Where the wrong one of the two most likely is.
    let (in_name, in_password) = if refused.is_some() { ("", "autofocus") } else { ("autofocus", "") };
    let status = if refused.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
    page(
        status,
        "Log in",
        &format!(
            r#"{message}
<form method=post action=/login>
<input type=hidden name=authorization value="{authorization}">
<label for=username>User name</label>
<input id=username name=username value="{name}" autocomplete=username autocapitalize=none required {in_name}>
<label for=password>Password</label>
<input id=password name=password type=password autocomplete=current-password required {in_password}>
<button>Log in</button>
</form>
<p>Who can log in:</p><ul>{users}</ul>"#
        ),
    )
}

/// The page at `/`.
pub fn about() -> Answer {
    page(StatusCode::OK, "Demo issuer", "<p>Nothing to see here; open the demo's own page.</p>")
}

/// The page that asks whether to log out.
pub fn confirm_logout(name: &str) -> Answer {
    let name = escape(name);
    let form = format!(
        "<p>Log {name} out of the demo issuer?</p><form method=post action=/end-session><button>Log out</button></form>"
    );
    page(StatusCode::OK, "Log out", &form)
}

/// The page after a logout that leads nowhere else.
pub fn logged_out() -> Answer {
    page(StatusCode::OK, "Logged out", "<p>You are logged out of the demo issuer.</p>")
}

/// The page for a request that makes no sense.
pub fn refused(reason: &str) -> Answer {
    page(StatusCode::BAD_REQUEST, "This does not work", &format!("<p role=alert>{}</p>", escape(reason)))
}

/// No `form-action`: Chromium holds it against the redirect that follows the login form, too. The
/// referrer policy is not `no-referrer`, or browsers would send `Origin: null`.
fn page(status: StatusCode, title: &str, content: &str) -> Answer {
    let html = format!(
        r#"<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>{title} · Demo issuer</title>
<link rel=stylesheet href=/style.css>
</head>
<body>
<main>
<p class=note>This OpenID provider is part of Cloakroom's demo, and for nothing else.</p>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"#
    );
    let mut answer = with_type(status, "text/html; charset=utf-8", html);
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

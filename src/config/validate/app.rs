//! Apps: their origins, issuers and cookies.

use std::path::Path;
use std::time::Duration;

use crate::config::Position;
use crate::config::decode::{At, List, Optional, Required};
use crate::config::raw::app as raw;
use crate::config::reading::{Place, Reading, Reported};
use crate::config::scalar::{CookieName, Scope, Text};
use crate::config::validate::token::Tokens;
use crate::config::validate::upstream::rate_limits;
use crate::config::validate::{SessionTimes, client_auth, distinct, issuers, route, signals, texts, times};
use crate::config::web::ResourceUri;
use crate::config::{App, Authorization, Oidc, Origin, RateLimitKey, Session};
use crate::pages::{InvalidPage, Pages};

/// Of introspections: as long as a replaced token is not replaced again.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(30);

/// All apps; no two answer to the same host.
pub(super) fn apps(
    apps: List<raw::App, 1>,
    times: &Result<SessionTimes, Reported>,
    reading: &mut Reading<'_>,
) -> Result<Vec<App>, Reported> {
    let mut origins: Vec<At<Origin>> = Vec::new();
    let mut unique = Ok(());
    for origin in apps.0.iter().filter_map(|app| app.as_ref().ok()?.value.origin.as_ref().ok()) {
        // By host and port, not by scheme: what tells a request's app is its `Host`.
        if let Some(other) = origins.iter().find(|other| other.value.authority() == origin.value.authority())
        {
            let remedy = format!(
                "an origin of its own, or its routes in the app of line {}",
                other.place.position.line
            );
            unique = Err(reading.fault(&origin.place, "another app has this host already", remedy));
        }
        origins.push(origin.clone());
    }
    let apps: Vec<_> =
        apps.0.into_iter().map(|app| app.and_then(|app| self::app(app.value, times, reading))).collect();
    let apps = apps.into_iter().collect::<Result<Vec<_>, _>>()?;
    unique?;
    warn_of_shared_cookies(&apps, &origins, reading);
    Ok(apps)
}

fn app(
    app: raw::App,
    times: &Result<SessionTimes, Reported>,
    reading: &mut Reading<'_>,
) -> Result<App, Reported> {
    let oidc = app.oidc.and_then(|oidc| issuers::issuers(oidc.value, reading));
    let origin = app.origin.as_ref().map(|origin| &origin.value).map_err(|reported| *reported);
    let session = app.session.and_then(|session| self::session(session.value, origin, times, reading));
    let base_path = app.base_path.as_ref().ok().map(|path| path.value.0.as_str());
    let tokens = Tokens::new(oidc.as_deref().map_err(|reported| *reported));
    let routes = app.routes.and_then(|routes| route::routes(routes.value, base_path, tokens, reading));
    let shared_signals = app.shared_signals.and_then(|written| {
        written.map(|written| signals::shared_signals(written.value, reading)).transpose()
    });
    let pages = app.pages.and_then(|folder| match folder {
        Some(folder) => read_pages(&folder, reading),
        None => Ok(Pages::ours().clone()),
    });
    let login_rate_limits = rate_limits(app.login_rate_limits).and_then(|limits| {
        match limits.iter().find(|limit| limit.value.by == RateLimitKey::Session) {
            Some(limit) => {
                let problem = "logins counted by session, which none of them has yet";
                Err(reading.fault(&limit.place, problem, "`by: client`"))
            }
            None => Ok(limits.into_iter().map(|limit| limit.value).collect()),
        }
    });
    Ok(App {
        origin: app.origin?.value,
        base_path: app.base_path?.value.0,
        pages: pages?,
        oidc: oidc?,
        session: session?,
        shared_signals: shared_signals?,
        login_rate_limits: login_rate_limits?,
        routes: routes?,
    })
}

/// What is wrong with a page is told with its own place in it.
fn read_pages(folder: &At<Text>, reading: &mut Reading<'_>) -> Result<Pages, Reported> {
    Pages::read(Path::new(&folder.value.0)).map_err(|invalid| {
        let mut reported = None;
        for InvalidPage { path, line, column, text, problem, remedy } in invalid {
            let place = Place { position: Position { line, column }, text };
            let file = path.display().to_string();
            reported = Some(reading.fault_in(file, &place, problem, remedy));
        }
        reported.unwrap_or_else(|| reading.fault(&folder.place, "no pages", "a folder with pages"))
    })
}

/// The client at one issuer, which has no name yet.
pub(super) fn oidc(oidc: raw::Oidc, reading: &mut Reading<'_>) -> Result<Oidc, Reported> {
    let proof = client_auth::proof(
        oidc.issuer.as_ref().ok().map(|issuer| &issuer.value),
        oidc.client_auth,
        oidc.tls,
        oidc.tls_client_certificate_bound_access_tokens,
        reading,
    );
    let client_id = oidc.client_id.and_then(|client_id| {
        // VSCHAR (RFC 6749 appendix A.1).
        if client_id.value.0.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            Ok(client_id.value.0)
        } else {
            Err(reading.fault(
                &client_id.place,
                "not a client_id",
                "printable ASCII characters (RFC 6749 appendix A.1)",
            ))
        }
    });
    let scopes = scopes(oidc.scopes, reading);
    let trusted_audiences = audiences(oidc.trusted_audiences, reading);
    let resource = resource(oidc.resource, reading);
    let parameters = oidc.authorization_parameters?.value;
    let claims = oidc.claims?;
    if claims.value.names_acr() && parameters.others.contains_key("acr_values") {
        let problem =
            "`acr` is asked for here, and by `acr_values` of `authorization_parameters` in another way";
        return Err(reading.fault(&claims.place, problem, "one of the two (OpenID Connect Core §5.5.1.1)"));
    }
    let request_object = oidc.request_object.and_then(|signed| {
        signed.map(|signed| client_auth::signing_key(signed.value.0, reading)).transpose()
    });
    let authorization = Authorization {
        pushed: oidc.pushed_authorization_requests?.value,
        response_mode: oidc.response_mode?.value,
        request_object: request_object?,
        resource: resource?,
        claims: claims.value,
    };
    let proof = proof?;
    Ok(Oidc {
        name: None,
        issuer: oidc.issuer?.value,
        client_id: client_id?,
        client_auth: proof.client_auth,
        ca: proof.ca,
        identity: proof.identity,
        tls_client_certificate_bound_access_tokens: proof.is_bound,
        scopes: scopes?,
        authorization_parameters: parameters.others,
        max_age: parameters.max_age,
        authorization,
        end_session_parameters: oidc.end_session_parameters?.value.0,
        trusted_audiences: trusted_audiences?,
        id_token_signed_response_alg: oidc.id_token_signed_response_alg?.map(|alg| alg.value.0),
        timeout: oidc.timeout?.value,
        userinfo: oidc.userinfo?.value,
        dpop_bound_access_tokens: oidc.dpop_bound_access_tokens?.value,
        introspection: oidc.introspection?.map(|at| introspection(at.value, reading)).transpose()?,
        device_authorization: oidc.device_authorization?.value,
    })
}

/// A token found dead sooner could not be replaced.
fn introspection(introspection: raw::Introspection, reading: &mut Reading<'_>) -> Result<Duration, Reported> {
    let At { value, place, .. } = introspection.interval?;
    if value < SHORTEST_INTERVAL {
        return Err(reading.fault(&place, "too short for an interval", "`30s` or more"));
    }
    Ok(value)
}

/// Each once: issuers refuse a resource that is named twice.
fn resource(list: Required<List<ResourceUri>>, reading: &mut Reading<'_>) -> Result<Vec<String>, Reported> {
    let resources = list?.value.0.into_iter();
    distinct(resources.map(|at| at.map(|at| (at.value.0, at.place))), "resource", reading)
}

/// Scopes of a login: with `openid`, or it is no OpenID Connect (Core §3.1.2.1).
fn scopes(scopes: Required<List<Scope, 1>>, reading: &mut Reading<'_>) -> Result<Vec<String>, Reported> {
    let At { value, place, .. } = scopes?;
    let scopes = distinct(texts(value), "scope", reading)?;
    if scopes.iter().any(|scope| scope == "openid") {
        Ok(scopes)
    } else {
        Err(reading.fault(&place, "the scope `openid` is missing", "`openid` and the rest"))
    }
}

fn audiences(audiences: Required<List<Text>>, reading: &mut Reading<'_>) -> Result<Vec<String>, Reported> {
    let texts = audiences?.value.0.into_iter();
    distinct(texts.map(|text| text.map(|text| (text.value.0, text.place))), "audience", reading)
}

fn session(
    session: raw::Session,
    origin: Result<&Origin, Reported>,
    shared: &Result<SessionTimes, Reported>,
    reading: &mut Reading<'_>,
) -> Result<Session, Reported> {
    let cookie = session.cookie.map(|cookie| cookie.value);
    let cookie = cookie.and_then(|cookie| {
        let name = origin.and_then(|origin| cookie_name(cookie.name, origin, reading));
        Ok((name?, cookie.same_site?.value))
    });
    let times = shared.clone().and_then(|shared| {
        times(
            own_or_shared(session.idle_timeout, shared.idle_timeout),
            own_or_shared(session.lifetime, shared.lifetime),
            own_or_shared(session.refresh_before_expiry, shared.refresh_before_expiry),
            reading,
        )
    });
    let ((cookie_name, same_site), times) = (cookie?, times?);
    Ok(Session {
        cookie_name,
        same_site,
        idle_timeout: times.idle_timeout.value,
        lifetime: times.lifetime.value,
        refresh_before_expiry: times.refresh_before_expiry.value.0,
    })
}

fn own_or_shared<T>(own: Optional<T>, shared: At<T>) -> Required<T> {
    own.map(|own| own.unwrap_or(shared))
}

/// `__Host-` makes the browser insist on `Secure`, `Path=/` and no `Domain`, so that no neighbour can set
/// the cookie; without TLS the browser refuses such a cookie.
fn cookie_name(
    name: Optional<CookieName>,
    origin: &Origin,
    reading: &mut Reading<'_>,
) -> Result<String, Reported> {
    let default = if origin.is_secure() { "__Host-cloakroom" } else { "cloakroom" };
    let Some(At { value: CookieName(name), place, .. }) = name? else { return Ok(default.to_owned()) };
    let lower = name.to_ascii_lowercase();
    let has_prefix = lower.starts_with("__host-") || lower.starts_with("__secure-");
    if origin.is_secure() && !(name.starts_with("__Host-") && name.len() > "__Host-".len()) {
        let problem = "a cookie on https whose name does not start with `__Host-`";
        return Err(reading.fault(&place, problem, format!("`{default}`")));
    }
    if !origin.is_secure() && has_prefix {
        let problem = "a cookie on http that asks for TLS by its name";
        return Err(reading.fault(&place, problem, format!("`{default}`")));
    }
    Ok(name)
}

/// Cookies ignore ports (RFC 6265 §8.5).
fn warn_of_shared_cookies(apps: &[App], origins: &[At<Origin>], reading: &mut Reading<'_>) {
    let cookie = |app: &App| {
        let authority = app.origin.authority();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned();
        (host, app.session.cookie_name.clone())
    };
    for (index, app) in apps.iter().enumerate() {
        if apps[..index].iter().any(|earlier| cookie(earlier) == cookie(app)) {
            let problem = "two apps on one host share a cookie, for cookies ignore ports: a login at one ends the other's session";
            let place: &Place = &origins[index].place;
            reading.warn(place, problem, "another host, or another `session.cookie.name`");
        }
    }
}

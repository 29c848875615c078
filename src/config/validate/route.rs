//! Routes: their paths, and what goes together in one.

use std::path::PathBuf;

use http::Method;

use crate::config::decode::{At, List, Optional, Required};
use crate::config::raw::route as raw;
use crate::config::raw::token::Token as RawToken;
use crate::config::reading::{Place, Reading, Reported};
use crate::config::scalar::{Scope, Text};
use crate::config::validate::token::{Tokens, required_claims};
use crate::config::validate::upstream::{self, rate_limits};
use crate::config::validate::{distinct, texts};
use crate::config::web::{Path, is_under};
use crate::config::{Auth, Csrf, Route, Target, Timeouts};

/// All routes of one app; no two have the same path, and none is below the gateway's own endpoints. Their tokens
/// are to fit `tokens`.
pub(super) fn routes(
    routes: List<raw::Route, 1>,
    base_path: Option<&str>,
    mut tokens: Tokens,
    reading: &mut Reading<'_>,
) -> Result<Vec<Route>, Reported> {
    let mut seen: Vec<String> = Vec::new();
    let routes: Vec<_> = routes
        .0
        .into_iter()
        .map(|route| {
            let route = route?.value;
            let path = path(&route.path, &mut seen, base_path, reading);
            self::route(route, path, &mut tokens, reading)
        })
        .collect();
    routes.into_iter().collect()
}

fn path(
    path: &Required<Path>,
    seen: &mut Vec<String>,
    base_path: Option<&str>,
    reading: &mut Reading<'_>,
) -> Result<String, Reported> {
    let At { value: Path(text), place, .. } = path.as_ref().map_err(|reported| *reported)?;
    if seen.contains(text) {
        return Err(reading.fault(place, "another route has this path already", "each path once"));
    }
    seen.push(text.clone());
    if base_path.is_some_and(|base_path| is_under(text, base_path)) {
        let problem = "a route where the gateway's own endpoints are";
        return Err(reading.fault(place, problem, "another path, or another `base_path`"));
    }
    Ok(text.clone())
}

fn route(
    route: raw::Route,
    path: Result<String, Reported>,
    tokens: &mut Tokens,
    reading: &mut Reading<'_>,
) -> Result<Route, Reported> {
    let path_place = route.path.as_ref().ok().map(|path| path.place.clone());
    let is_files = matches!(route.target, Ok(raw::Target::Files(_)));
    let nothing_foreign = if is_files { refuse_upstream_keys(&route, reading) } else { Ok(()) };
    let auth = route.auth.map(|auth| auth.map(|auth| auth.value));
    let auth = auth.map(|auth| auth.unwrap_or(if is_files { Auth::None } else { Auth::Required }));
    let csrf = route.csrf.map(|csrf| csrf.map(|csrf| csrf.value));
    let csrf = csrf.map(|csrf| csrf.unwrap_or(if is_files { Csrf::Off } else { Csrf::Header }));
    let sends_token = match (&auth, &route.token) {
        (Ok(auth), Ok(token)) => token.value.is_sent(*auth),
        (Err(_), _) | (_, Err(_)) => false,
    };
    let dpop = route.dpop.and_then(|dpop| {
        if is_files {
            return Ok(false);
        }
        let sent = route.token.as_ref().ok().filter(|_| sends_token).map(|token| &token.value);
        self::dpop(&dpop, sent, tokens, path_place.as_ref(), reading)
    });
    let target = route.target.and_then(|target| self::target(target, &path, reading));
    if sends_token
        && let (Ok(true), Ok(target), Some(path)) = (tokens.binds_to_certificate, &target, &path_place)
    {
        warn_of_no_certificate(target, path, reading);
    }
    let methods = methods(route.methods, reading);
    let token = tokens.token(route.token, auth, reading);
    let required_scopes = required_scopes(route.required_scopes, auth, reading);
    let required_claims = required_claims(route.required_claims, auth, reading);
    let timeouts = route.timeouts.and_then(|timeouts| self::timeouts(timeouts.value));
    let attempts = route.retry.and_then(|retry| Ok(retry.value.attempts?.value.0));
    let rate_limits = rate_limits(route.rate_limits);
    nothing_foreign?;
    Ok(Route {
        path: path?,
        target: target?,
        methods: methods?,
        auth: auth?,
        token: token?,
        dpop: dpop?,
        csrf: csrf?,
        required_scopes: required_scopes?,
        required_claims: required_claims?,
        timeouts: timeouts?,
        attempts: attempts?,
        rate_limits: rate_limits?.into_iter().map(|limit| limit.value).collect(),
        websocket: route.websocket?.value,
        allow_encoded_slash: route.allow_encoded_slash?.value,
    })
}

/// What means something for upstreams alone would be ignored in silence on a folder.
fn refuse_upstream_keys(route: &raw::Route, reading: &mut Reading<'_>) -> Result<(), Reported> {
    let foreign = [
        ("allow_encoded_slash", written(&route.allow_encoded_slash)),
        ("dpop", written(&route.dpop)),
        ("retry", written(&route.retry)),
        ("timeouts", written(&route.timeouts)),
        ("token", written(&route.token)),
        ("websocket", written(&route.websocket)),
    ];
    let mut result = Ok(());
    for (key, place) in foreign {
        if let Some(place) = place {
            let problem = format!("{key} on a route of files, which has no upstream");
            result = Err(reading.fault(place, problem, "the route without it"));
        }
    }
    result
}

fn written<T>(value: &Required<T>) -> Option<&Place> {
    value.as_ref().ok().filter(|value| value.written).map(|value| &value.place)
}

fn target(
    target: raw::Target,
    path: &Result<String, Reported>,
    reading: &mut Reading<'_>,
) -> Result<Target, Reported> {
    match target {
        raw::Target::Files(folder) => files(folder, reading).map(Target::Files),
        raw::Target::Upstream(upstream) => upstream::upstream(upstream.value, path, reading)
            .map(|upstream| Target::Upstream(Box::new(upstream))),
    }
}

fn files(folder: At<Text>, reading: &mut Reading<'_>) -> Result<PathBuf, Reported> {
    let path = PathBuf::from(folder.value.0);
    let problem = match path.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(path),
        Ok(_) => "not a folder".to_owned(),
        Err(error) => format!("this folder cannot be read ({error})"),
    };
    Err(reading.fault(&folder.place, problem, "a folder, absolute or relative to the working directory"))
}

fn methods(
    methods: Optional<List<Method, 1>>,
    reading: &mut Reading<'_>,
) -> Result<Option<Vec<Method>>, Reported> {
    let Some(methods) = methods? else { return Ok(None) };
    let methods = methods.value.0.into_iter().map(|method| method.map(|method| (method.value, method.place)));
    distinct(methods, "method", reading).map(Some)
}

fn required_scopes(
    scopes: Required<List<Scope>>,
    auth: Result<Auth, Reported>,
    reading: &mut Reading<'_>,
) -> Result<Vec<String>, Reported> {
    let At { value, place, .. } = scopes?;
    let problem = match auth {
        Ok(Auth::None) => "required_scopes on a route that looks at no session",
        Ok(Auth::Optional) => {
            "required_scopes on a route with `auth: optional`, which lets anybody in but users without the scope"
        }
        Ok(Auth::Required) | Err(_) => return distinct(texts(value), "scope", reading),
    };
    if value.0.is_empty() {
        return Ok(Vec::new());
    }
    Err(reading.fault(&place, problem, "`auth: required` beside it, or the route without it"))
}

/// A proof goes with a token that is bound to its key and with nothing else, and such a token should have one.
fn dpop(
    dpop: &At<bool>,
    sent: Option<&RawToken>,
    tokens: &Tokens,
    path: Option<&Place>,
    reading: &mut Reading<'_>,
) -> Result<bool, Reported> {
    if dpop.value && sent.is_none() {
        let problem = "a proof of possession on a route that sends no access token";
        let remedy = "`auth: required` and a `token` beside it, or the route without it";
        return Err(reading.fault(&dpop.place, problem, remedy));
    }
    match (dpop.value, tokens.binds_to_key, path) {
        (true, Ok(false), _) => {
            let problem = "a proof of possession for tokens that are bound to no key";
            Err(reading.fault(&dpop.place, problem, "`dpop_bound_access_tokens: true` in `oidc`"))
        }
        (true, Ok(true), _) if sent.is_some_and(|token| !tokens.always_binds_to_key(token)) => {
            let problem =
                "an issuer here binds its tokens to no key, and this upstream gets them as bearer tokens";
            reading.warn(&dpop.place, problem, "`dpop_bound_access_tokens: true` at each issuer");
            Ok(true)
        }
        (false, Ok(true), Some(path)) if sent.is_some() => {
            let problem = "tokens that are bound to a key go to this upstream without a proof, and it should refuse them";
            reading.warn(path, problem, "`dpop: true`, or `token: none`");
            Ok(false)
        }
        (value, ..) => Ok(value),
    }
}

/// Whoever takes a token that is bound to a certificate wants to see that on the connection (RFC 8705 §3).
fn warn_of_no_certificate(target: &Target, path: &Place, reading: &mut Reading<'_>) {
    if let Target::Upstream(upstream) = target
        && upstream.tls.identity.is_none()
    {
        let problem = "tokens that are bound to a certificate go to this upstream without it, and it should refuse them";
        reading.warn(
            path,
            problem,
            "the client's `certificate` and `private_key` in its `tls`, or `token: none`",
        );
    }
}

fn timeouts(timeouts: raw::Timeouts) -> Result<Timeouts, Reported> {
    Ok(Timeouts {
        connect: timeouts.connect?.value,
        response: timeouts.response?.value,
        idle: timeouts.idle?.value,
    })
}

//! The issuers of one app: of several, each has a name of its own.

use super::app::oidc;
use crate::config::Oidc;
use crate::config::decode::At;
use crate::config::raw::issuers as raw;
use crate::config::reading::{Reading, Reported};
use crate::config::validate::distinct;

/// All issuers of an app. No two have the same name, nor are they the same issuer: by its `iss` alone is it known
/// whose an answer, a session or a logout token is.
pub(super) fn issuers(issuers: raw::Issuers, reading: &mut Reading<'_>) -> Result<Vec<Oidc>, Reported> {
    let several = match issuers {
        raw::Issuers::One(only) => return oidc(*only, reading).map(|oidc| vec![oidc]),
        raw::Issuers::Several(list) => list.0,
    };
    let readable = || several.iter().filter_map(|named| named.as_ref().ok()).map(|named| &named.value);
    let names = readable().filter_map(|named| named.name.as_ref().ok());
    let names = names.map(|At { value, place, .. }| Ok((value.0.clone(), place.clone())));
    let names = distinct(names.collect::<Vec<_>>(), "name", reading);
    let urls = readable().filter_map(|named| named.oidc.issuer.as_ref().ok());
    let urls = urls.map(|At { value, place, .. }| Ok((value.clone(), place.clone())));
    let urls = distinct(urls.collect::<Vec<_>>(), "issuer", reading);
    let all: Vec<_> = several
        .into_iter()
        .map(|named| {
            let named = named?.value;
            let oidc = oidc(named.oidc, reading);
            let name = Some(named.name?.value.0);
            Ok(Oidc { name, ..oidc? })
        })
        .collect();
    names?;
    urls?;
    all.into_iter().collect()
}

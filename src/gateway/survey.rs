//! How things stand behind the routes, for people who look.

use super::Gateway;
use super::app::{Answers, App};
use crate::config;
use crate::proxy::KnownServer;

/// A route, and what is behind it at this moment.
#[derive(Debug)]
pub struct RouteSurvey<'a> {
    /// The origin of its app.
    pub app: &'a str,
    /// What it was told.
    pub rules: &'a config::Route,
    /// The servers of its upstream, where it has one; or why a name leads to none.
    pub servers: Option<Result<Vec<KnownServer>, String>>,
}

impl Gateway {
    /// Every route, by app and path.
    pub fn survey(&self) -> Vec<RouteSurvey<'_>> {
        let mut routes: Vec<_> = self.hosts.all().flat_map(App::survey).collect();
        routes.sort_by_key(|route| (route.app, &route.rules.path));
        // An app may answer to several hosts.
        routes.dedup_by_key(|route| (route.app, &route.rules.path));
        routes
    }
}

impl App {
    fn survey(&self) -> impl Iterator<Item = RouteSurvey<'_>> {
        self.routes.all().map(|route| RouteSurvey {
            app: self.origin.as_str(),
            rules: &route.rules,
            servers: match &route.answers {
                Answers::Upstream(upstream, _) => Some(upstream.known_servers()),
                Answers::Files(..) => None,
            },
        })
    }
}

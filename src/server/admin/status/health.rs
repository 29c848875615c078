//! Who answers and who does not: the store, the issuers, the servers behind each route.

use std::time::Duration;

use crate::config::{Setting, Target};
use crate::gateway::RouteSurvey;
use crate::oidc::Availability;
use crate::proxy::{KnownServer, Standing};
use crate::respond::escape;

/// How good a state is. Each has a sign and words: nobody has to tell colours apart.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Grade {
    Good,
    Fair,
    Bad,
    Unknown,
}

/// How something does, in words.
pub(super) struct State {
    pub(super) grade: Grade,
    pub(super) words: String,
}

impl State {
    pub(super) fn new(grade: Grade, words: impl Into<String>) -> Self {
        Self { grade, words: words.into() }
    }

    pub(super) fn badge(&self) -> String {
        let (class, sign) = match self.grade {
            Grade::Good => ("good", "\u{25cf}"),
            Grade::Fair => ("fair", "\u{25b2}"),
            Grade::Bad => ("bad", "\u{2715}"),
            Grade::Unknown => ("unknown", "\u{25cb}"),
        };
        let words = escape(&self.words);
        format!("<span class=\"state {class}\"><span aria-hidden=\"true\">{sign}</span> {words}</span>")
    }
}

pub(super) fn issuer(availability: Availability) -> State {
    match availability {
        Availability::Unknown => State::new(Grade::Unknown, "not asked so far"),
        Availability::Available => State::new(Grade::Good, "available"),
        Availability::Unavailable => State::new(Grade::Bad, "unavailable"),
    }
}

pub(super) fn store(answers: bool, is_within_grace: bool) -> State {
    match (answers, is_within_grace) {
        (true, _) => State::new(Grade::Good, "available"),
        (false, true) => State::new(Grade::Fair, "unavailable; known sessions are still served"),
        (false, false) => State::new(Grade::Bad, "unavailable"),
    }
}

/// How the certificate of the listener stands, which is good for so long.
pub(super) fn certificate(left: Duration) -> State {
    let days = left.as_secs() / 86_400;
    match days {
        _ if left.is_zero() => State::new(Grade::Bad, "expired"),
        0..7 => State::new(Grade::Bad, format!("expires in {}", duration(left))),
        7..21 => State::new(Grade::Fair, format!("expires in {days} days")),
        _ => State::new(Grade::Good, format!("good for {days} days")),
    }
}

fn server(standing: Standing) -> State {
    match standing {
        Standing::Up => State::new(Grade::Good, "up"),
        Standing::Failing(1) => State::new(Grade::Fair, "the last request had no answer"),
        Standing::Failing(times) => {
            State::new(Grade::Fair, format!("the last {times} requests had no answer"))
        }
        Standing::Ejected(left) => {
            State::new(Grade::Bad, format!("ejected; asked again in {:.0}\u{a0}s", left.as_secs_f64().ceil()))
        }
        Standing::Returning(share) => {
            State::new(Grade::Fair, format!("returning, with {:.0}\u{a0}% of its share", share * 100.0))
        }
        Standing::Unhealthy => State::new(Grade::Bad, "unhealthy, by its checks"),
    }
}

/// What `sessions.store` is: the first key in it.
pub(super) fn kind_of_store(settings: &[Setting]) -> &str {
    let store = settings.iter().skip_while(|setting| (setting.depth, &*setting.name) != (1, "store"));
    store.skip(1).map(|setting| &*setting.name).next().unwrap_or_default()
}

/// A row for each server, below its route.
pub(super) fn servers(routes: &[RouteSurvey<'_>]) -> String {
    let rows: String = routes.iter().map(rows).collect();
    if rows.is_empty() {
        return "<p>No route has an upstream.</p>".to_owned();
    }
    format!(
        "<table><caption>Upstreams</caption><thead><tr><th scope=\"col\">Server</th><th scope=\"col\">State</th>\
         <th scope=\"col\">Waiting</th></tr></thead>{rows}</table>"
    )
}

/// What is wrong with a route, if no server of it can be asked.
pub(super) fn trouble(route: &RouteSurvey<'_>) -> Option<String> {
    let is_away = match route.servers.as_ref()? {
        Ok(servers) => !servers.is_empty() && servers.iter().all(|known| !is_up(known)),
        Err(_) => true,
    };
    is_away.then(|| format!("{}{}: no server of its upstream answers.", route.app, route.rules.path))
}

fn is_up(known: &KnownServer) -> bool {
    match known.standing {
        Standing::Up | Standing::Returning(_) => true,
        // One or two may be the fault of what was asked.
        Standing::Failing(times) => times < 3,
        Standing::Ejected(_) | Standing::Unhealthy => false,
    }
}

fn rows(route: &RouteSurvey<'_>) -> String {
    let (Some(servers), Target::Upstream(upstream)) = (&route.servers, &route.rules.target) else {
        return String::new();
    };
    let row = |address: &str, state: &State, waiting: &str| {
        let address = escape(address);
        format!("<tr><td>{address}</td><td>{}</td><td>{waiting}</td></tr>", state.badge())
    };
    let rows: String = match servers {
        Err(why) => row("\u{2013}", &State::new(Grade::Bad, why), "\u{2013}"),
        Ok(servers) if servers.is_empty() => {
            row("\u{2013}", &State::new(Grade::Unknown, "not looked up so far"), "\u{2013}")
        }
        Ok(servers) => servers
            .iter()
            .map(|known| row(&known.address, &server(known.standing), &known.under_way.to_string()))
            .collect(),
    };
    format!(
        "<tbody><tr><th scope=\"rowgroup\" colspan=\"3\">{} <small>{} to {}</small></th></tr>{rows}</tbody>",
        escape(&route.rules.path),
        escape(route.app),
        escape(upstream.url.as_str()),
    )
}

/// The two largest units of a time.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}\u{a0}s"),
        (0, 0, _) => format!("{minutes}\u{a0}min {}\u{a0}s", seconds % 60),
        (0, _, _) => format!("{hours}\u{a0}h {minutes}\u{a0}min"),
        (_, _, _) => format!("{days}\u{a0}d {hours}\u{a0}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_words_and_a_sign_of_its_own() {
        let standings = [
            Standing::Up,
            Standing::Failing(1),
            Standing::Failing(2),
            Standing::Ejected(Duration::from_millis(2_300)),
            Standing::Returning(0.34),
            Standing::Unhealthy,
        ];
        let words: Vec<_> = standings.map(|standing| server(standing).words).to_vec();
        let expected = [
            "up",
            "the last request had no answer",
            "the last 2 requests had no answer",
            "ejected; asked again in 3\u{a0}s",
            "returning, with 34\u{a0}% of its share",
            "unhealthy, by its checks",
        ];
        assert_eq!(words, expected);
        assert!(server(Standing::Unhealthy).badge().contains("\u{2715}"));
    }

    #[test]
    fn a_certificate_is_spoken_of_in_time() {
        let words = |hours: u64| certificate(Duration::from_secs(hours * 3600)).words;
        let told = [0, 5, 24 * 3, 24 * 20 + 1, 24 * 90].map(words);
        assert_eq!(
            told,
            [
                "expired",
                "expires in 5\u{a0}h 0\u{a0}min",
                "expires in 3\u{a0}d 0\u{a0}h",
                "expires in 20 days",
                "good for 90 days"
            ]
        );
    }
}

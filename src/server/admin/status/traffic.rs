//! What passes through: plots of the last while, and what each route has come to.

use std::collections::BTreeMap;

use super::counts::{Counts, FAMILIES, LOOKUPS, Outcomes, Site};
use super::history::{Step, View};
use super::plot::{Line, Plot, Unit, count, seconds};
use crate::respond::escape;

const NOTHING: &str = "\u{2013}";

/// The plots.
pub(super) fn plots(view: &View) -> String {
    let mut figures = vec![family(view, 0), latency(view), connections(view)];
    figures.extend((1..FAMILIES.len()).map(|index| family(view, index)));
    format!("<h2>Traffic</h2><div class=\"plots\">{}</div>", figures.concat())
}

/// What stands in the overview.
pub(super) fn tiles(counts: &Counts, view: &View) -> Vec<(&'static str, String)> {
    let lookups =
        view.last_minute().map(|step| of_family(&step, LOOKUPS)).filter(|lookups| lookups.all > 0.0);
    let hits = lookups.map(|lookups| format!("{:.0}\u{a0}%", 100.0 * (1.0 - lookups.failed / lookups.all)));
    vec![
        ("Open connections", count(counts.connections)),
        ("Open tunnels", count(counts.tunnels)),
        ("Sessions in memory", count(counts.sessions)),
        ("Look-ups answered from memory", hits.unwrap_or_else(|| NOTHING.to_owned())),
        ("Revocations waiting", count(counts.outbox)),
    ]
}

/// How long the store took in the last minute.
pub(super) fn store_times(view: &View) -> String {
    let store = view.last_minute().map(|step| step.after.store.since(&step.before.store));
    let quantile = |quantile| store.as_ref()?.quantile(quantile).map(seconds);
    match (quantile(0.5), quantile(0.99)) {
        (Some(half), Some(most)) => format!("half within {half}, 99\u{a0}% within {most}"),
        (_, _) => String::new(),
    }
}

/// What each route of an app has come to since the start.
pub(super) fn sites(sites: &BTreeMap<(String, String), Site>) -> String {
    let rows: String = sites
        .iter()
        .filter(|(_, site)| site.outcomes.all > 0.0)
        .map(|((app, route), site)| {
            let quantile = |quantile| site.requests.quantile(quantile).map_or_else(|| NOTHING.to_owned(), seconds);
            let (app, route) = if app.is_empty() { ("", "no app has this host") } else { (&**app, &**route) };
            let route = if route.is_empty() { "no route has this path" } else { route };
            format!(
                "<tr><th scope=\"row\">{} <small>{}</small></th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(route),
                escape(app),
                count(site.outcomes.all),
                count(site.outcomes.failed),
                quantile(0.5),
                quantile(0.99),
            )
        })
        .collect();
    if rows.is_empty() {
        return "<h2>Routes</h2><p>No request was answered so far.</p>".to_owned();
    }
    format!(
        "<h2>Routes</h2><table class=\"numbers\"><caption>Since the start</caption><thead><tr><th scope=\"col\">Route</th>\
         <th scope=\"col\">Requests</th><th scope=\"col\">5xx</th><th scope=\"col\">Half within</th>\
         <th scope=\"col\">99\u{a0}% within</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}

fn family(view: &View, index: usize) -> String {
    let family = &FAMILIES[index];
    let unit = if family.is_frequent { Unit::PerSecond } else { Unit::PerMinute };
    let in_time = if family.is_frequent { 1.0 } else { 60.0 };
    let rate =
        |step: &Step<'_>, of: fn(Outcomes) -> f64| Some(of(of_family(step, index)) / step.seconds * in_time);
    let line = |name, of: fn(Outcomes) -> f64| Line {
        name,
        now: view.last_minute().and_then(|step| rate(&step, of)),
        points: view.points(|step| rate(step, of)),
    };
    let lines = [line("all", |outcomes| outcomes.all), line(family.failed, |outcomes| outcomes.failed)];
    Plot { id: index, title: family.title, minutes: view.minutes(), unit, lines }.figure()
}

fn latency(view: &View) -> String {
    let line = |name, quantile| {
        let value = |step: &Step<'_>| step.after.requests.since(&step.before.requests).quantile(quantile);
        Line { name, now: view.last_minute().as_ref().and_then(value), points: view.points(value) }
    };
    let lines = [line("half within", 0.5), line("99\u{a0}% within", 0.99)];
    let (id, unit) = (FAMILIES.len(), Unit::Seconds);
    Plot { id, title: "Time of a request", minutes: view.minutes(), unit, lines }.figure()
}

fn connections(view: &View) -> String {
    let line = |name, of: fn(&Counts) -> f64| Line {
        name,
        now: view.last_minute().map(|step| of(step.after)),
        points: view.points(|step| Some(of(step.after))),
    };
    let lines = [line("connections", |counts| counts.connections), line("tunnels", |counts| counts.tunnels)];
    let (id, unit) = (FAMILIES.len() + 1, Unit::Count);
    Plot { id, title: "Open connections", minutes: view.minutes(), unit, lines }.figure()
}

fn of_family(step: &Step<'_>, index: usize) -> Outcomes {
    step.after.outcomes[index].since(step.before.outcomes[index])
}

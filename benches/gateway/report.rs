//! What was measured, as tables and plots, and whether it is what was promised.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use crate::Plan;
use crate::client::{Protocol, STREAMS};
use crate::connections::{Connections, Kind};
use crate::goals::{self, Goal};
use crate::latency::{Latency, quantile_of_all};
use crate::load::{IN_FLIGHT, Taken};
use crate::machine;
use crate::plot::{self, Bar, Curve};
use crate::saturated::Row;
use crate::sessions::{ACCESS_TOKEN, OTHER_TOKENS};
use crate::storm::Storm;
use crate::tables::{Table, put_into};
use crate::upstream::ANSWER;

const DOCUMENT: &str = "docs/performance.md";

/// The table that the README has too.
const GOALS: &str = "goals";

pub struct Report {
    /// By the name of their place in the document.
    tables: Vec<(&'static str, String)>,
    plots: Vec<(&'static str, String)>,
}

impl Report {
    pub fn new(
        plan: &Plan,
        rows: &[Row],
        latency: Option<&Latency>,
        connections: &Connections,
        storm: Option<&Storm>,
    ) -> Self {
        let mut report = Self { tables: Vec::new(), plots: Vec::new() };
        let goals = goals::all(rows, latency, connections);
        report.tables.push((GOALS, goals_table(&goals)));
        if !rows.is_empty() {
            report.tables.push(("requests", requests_table(rows)));
            report.plots.push(("docs/performance-cpu.svg", cpu_plot(rows)));
        }
        if let Some(latency) = latency {
            report.tables.push(("latency", latency_table(latency)));
            report.plots.push(("docs/performance-latency.svg", latency_plot(latency)));
        }
        if !connections.resting.is_empty() {
            report.tables.push(("connections", connections_table(connections)));
        }
        if let Some(storm) = storm {
            report.tables.push(("storm", storm_table(storm)));
        }
        report.tables.push(("how", how(plan, rows)));
        report
    }

    /// Puts everything into the documents.
    pub fn write(&self) {
        for (name, table) in &self.tables {
            put_into(DOCUMENT, name, table);
            if *name == GOALS {
                put_into("README.md", name, table);
            }
        }
        for (file, plot) in &self.plots {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), plot).unwrap();
        }
    }
}

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|(_, table)| writeln!(formatter, "\n{table}"))
    }
}

fn goals_table(goals: &[Goal]) -> String {
    let mut table = Table::new(&["work", "goal", "measured", "verdict"]);
    for goal in goals {
        table.row(vec![goal.work.clone(), goal.limit(), goal.measured(), goal.verdict().to_owned()]);
    }
    table.markdown()
}

fn requests_table(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "proxy",
        "CPU per request",
        "to nginx",
        "requests/s",
        "p50",
        "p99",
        "p99.9",
        "RSS",
        "PSS",
        "core busy",
    ]);
    for row in rows {
        let against = goals::row(rows, nginx_of(row.contestant.protocol));
        table.row(vec![
            row.contestant.title.to_owned(),
            format!("{:.1} µs", row.median(Taken::cpu_per_request)),
            against.map_or("—".to_owned(), |nginx| format!("{:.2}", row.cpu_against(nginx))),
            format!("{:.0}", row.median(Taken::throughput)),
            microseconds(row.median(|taken| taken.quantile(0.5))),
            microseconds(row.median(|taken| taken.quantile(0.99))),
            microseconds(row.median(|taken| taken.quantile(0.999))),
            mebibytes(row.memory.resident),
            mebibytes(row.memory.proportional),
            format!("{:.0} %", row.median(|taken| taken.busy) * 100.0),
        ]);
    }
    let failures: u64 = rows.iter().flat_map(|row| &row.turns).map(|taken| taken.failures).sum();
    format!("{}\nRequests that failed, of all in this table: {failures}.\n", table.markdown())
}

/// Against whom a protocol is compared.
fn nginx_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "nginx",
        Protocol::Http1OverTls => "nginx-tls",
        Protocol::Http2OverTls => "nginx-http2",
    }
}

fn latency_table(latency: &Latency) -> String {
    let mut table =
        Table::new(&["way", "p50", "p99", "added at p50", "added at p99", "p99 of all", "p99.9 of all"]);
    let mut row = |title: &str, turns: &[Taken], added: [String; 2]| {
        let usual = |share| crate::saturated::median(turns.iter().map(|taken| taken.quantile(share)));
        let [p50, p99] = [0.5, 0.99].map(|share| microseconds(usual(share)));
        let of_all = [0.99, 0.999].map(|share| microseconds(quantile_of_all(turns, share)));
        table.row([vec![title.to_owned(), p50, p99], added.into(), of_all.into()].concat());
    };
    row("without a proxy", &latency.direct, ["—", "—"].map(str::to_owned));
    for (key, turns) in &latency.proxied {
        let added = [0.5, 0.99].map(|share| microseconds(latency.added(key, share)));
        row(crate::contestants::named(key).title, turns, added);
    }
    format!("{:.0} requests a second.\n\n{}", latency.rate, table.markdown())
}

fn connections_table(connections: &Connections) -> String {
    let mut table = Table::new(&["proxy", "connections", "PSS before", "PSS with them", "each"]);
    for resting in &connections.resting {
        let kind = match resting.kind {
            Kind::KeepAlive => "that rest after a request",
            Kind::WebSocket => "open WebSockets",
        };
        table.row(vec![
            resting.key.to_owned(),
            format!("{} {kind}", resting.count),
            mebibytes(resting.before.proportional),
            mebibytes(resting.after.proportional),
            format!("{:.1} KB", resting.bytes_each() / 1e3),
        ]);
    }
    let mut busy = Table::new(&["proxy", "connections", "CPU per request", "to few connections"]);
    for many in &connections.busy {
        let cpu = |place: usize| {
            let turns = many.turns.iter().map(|turns| turns[place].cpu_per_request());
            format!("{:.1} µs", crate::saturated::median(turns))
        };
        busy.row(vec![many.key.to_owned(), IN_FLIGHT.to_string(), cpu(0), "—".to_owned()]);
        busy.row(vec![many.key.to_owned(), many.count.to_string(), cpu(1), format!("{:.2}", many.ratio())]);
    }
    format!("{}\n{}", table.markdown(), busy.markdown())
}

fn storm_table(storm: &Storm) -> String {
    let mut table =
        Table::new(&["time", "requests/s", "failed", "p50", "p99", "p99.9", "slowest", "token requests"]);
    for (name, (taken, refreshes)) in [("calm", &storm.calm), ("storm", &storm.storm)] {
        let quantiles = [0.5, 0.99, 0.999, 1.0].map(|share| microseconds(taken.quantile(share)));
        let counted = vec![name.to_owned(), format!("{:.0}", taken.throughput()), taken.failures.to_string()];
        table.row([counted, quantiles.into(), vec![refreshes.to_string()]].concat());
    }
    format!(
        "{} sessions whose tokens are due within the same second; the issuer takes {} ms for each token request.\n\n{}",
        storm.sessions,
        storm.issuer_takes.as_millis(),
        table.markdown()
    )
}

/// What the numbers stand on.
fn how(plan: &Plan, rows: &[Row]) -> String {
    let turns = || rows.iter().flat_map(|row| &row.turns);
    let stolen = turns().map(|taken| taken.stolen).fold(0.0, f64::max);
    let mut table = Table::new(&["", ""]);
    let programs = [
        ("nginx", machine::version("nginx", "-v")),
        ("haproxy", machine::version("haproxy", "-v")),
        ("Apache", machine::version("apache2", "-v")),
        ("Redis", machine::version("redis-server", "--version")),
    ];
    for (name, fact) in machine::facts(&programs) {
        table.row(vec![name.to_owned(), fact]);
    }
    let facts = [
        ("rounds", plan.rounds.to_string()),
        (
            "a turn",
            format!(
                "{:.1} s, after {:.1} s of warming up",
                plan.turn.as_secs_f64(),
                plan.warm_up.as_secs_f64()
            ),
        ),
        ("requests under way at a time", format!("{IN_FLIGHT}; over HTTP/2, {STREAMS} on each connection")),
        ("answer", format!("{ANSWER} bytes")),
        ("sessions in Redis", plan.sessions.to_string()),
        (
            "tokens of a session",
            format!("{ACCESS_TOKEN} bytes of access token, {OTHER_TOKENS} each of refresh and ID token"),
        ),
        ("most of a turn that the hypervisor took away", format!("{:.1} %", stolen * 100.0)),
    ];
    for (name, fact) in facts {
        table.row(vec![name.to_owned(), fact]);
    }
    table.markdown()
}

fn cpu_plot(rows: &[Row]) -> String {
    let bars = rows.iter().map(|row| {
        let turns = row.turns.iter().map(Taken::cpu_per_request);
        Bar {
            label: row.contestant.title.replace('`', ""),
            value: row.median(Taken::cpu_per_request),
            least: turns.clone().fold(f64::INFINITY, f64::min),
            most: turns.fold(0.0, f64::max),
            ours: row.contestant.is_ours(),
        }
    });
    plot::bars(
        "CPU per request, in µs: medians, with the least and the most of all rounds",
        &bars.collect::<Vec<_>>(),
    )
}

fn latency_plot(latency: &Latency) -> String {
    let curve = |label: &str, turns: &[Taken], ours| {
        let values = plot::SHARES.map(|share| quantile_of_all(turns, share));
        Curve { label: label.replace('`', ""), values, ours }
    };
    let mut curves = vec![curve("without a proxy", &latency.direct, false)];
    for (key, turns) in &latency.proxied {
        let contestant = crate::contestants::named(key);
        curves.push(curve(contestant.title, turns, contestant.is_ours()));
    }
    plot::quantiles("Latency at half of saturation, in µs", &curves)
}

fn microseconds(value: f64) -> String {
    if value.abs() < 1000.0 { format!("{value:.0} µs") } else { format!("{:.2} ms", value / 1e3) }
}

#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

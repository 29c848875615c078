//! What the gateway is held to: ratios within one run, and bytes for each connection.

use crate::connections::{Connections, Kind};
use crate::latency::Latency;
use crate::saturated::Row;

#[derive(Debug)]
pub struct Goal {
    pub work: String,
    measured: f64,
    bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    /// A ratio.
    AtMost(f64),
    /// A ratio that is to be reached, and then another.
    AtMostThenBelow(f64, f64),
    /// So many times less.
    AtLeastTimesLess(f64),
    /// Thousands of bytes.
    KilobytesEach(f64),
}

use Bound::{AtLeastTimesLess, AtMost, AtMostThenBelow, KilobytesEach};

impl Goal {
    pub fn limit(&self) -> String {
        match self.bound {
            AtMost(limit) => format!("at most {limit:.2}"),
            AtMostThenBelow(limit, next) => format!("at most {limit:.2}, then below {next:.2}"),
            AtLeastTimesLess(limit) => format!("at least {limit:.0} times less"),
            KilobytesEach(limit) => format!("at most {limit:.0} KB each"),
        }
    }

    pub fn measured(&self) -> String {
        match self.bound {
            AtMost(_) | AtMostThenBelow(..) => format!("{:.2}", self.measured),
            AtLeastTimesLess(_) => format!("{:.1} times less", self.measured),
            KilobytesEach(_) => format!("{:.1} KB each", self.measured),
        }
    }

    pub fn verdict(&self) -> &'static str {
        let is_met = |is_met: bool| if is_met { "met" } else { "**missed**" };
        match self.bound {
            AtMost(limit) | KilobytesEach(limit) => is_met(self.measured <= limit),
            AtMostThenBelow(_, next) if self.measured < next => "met, and the next",
            AtMostThenBelow(limit, _) => is_met(self.measured <= limit),
            AtLeastTimesLess(limit) => is_met(self.measured >= limit),
        }
    }
}

/// Those of which everything was measured.
pub fn all(rows: &[Row], latency: Option<&Latency>, connections: &Connections) -> Vec<Goal> {
    // Key, key of the other, work, bound.
    let ratios = [
        ("gateway", "nginx", "CPU, authenticated, one warm session, to nginx", AtMostThenBelow(1.1, 1.0)),
        ("gateway-none", "nginx", "CPU, `auth: none`, to nginx", AtMost(1.0)),
        ("gateway-tls", "nginx-tls", "CPU, TLS, authenticated, to nginx with TLS", AtMost(1.1)),
        ("apache", "gateway", "CPU, authenticated, to Apache with mod_auth_openidc", AtLeastTimesLess(20.0)),
        ("gateway-many", "gateway", "CPU, all sessions at random, to one session", AtMost(1.15)),
        ("gateway-redis", "nginx", "CPU, Redis asked on each request, to nginx", AtMost(1.35)),
    ];
    let mut goals = Vec::new();
    for (key, other, work, bound) in ratios {
        if let (Some(own), Some(other)) = (row(rows, key), row(rows, other)) {
            goals.push(Goal { work: work.to_owned(), measured: own.cpu_against(other), bound });
        }
    }
    if let Some(latency) = latency {
        let measured = latency.added("gateway", 0.99) / latency.added("nginx", 0.99);
        let work = "latency added at p99, at half of saturation, authenticated, to nginx".to_owned();
        goals.push(Goal { work, measured, bound: AtMost(1.2) });
    }
    for resting in connections.resting.iter().filter(|resting| resting.key == "gateway") {
        let (kind, limit) = match resting.kind {
            Kind::KeepAlive => ("resting connections", 10.0),
            Kind::WebSocket => ("open WebSockets", 20.0),
        };
        let work = format!("memory of {} {kind}", resting.count);
        goals.push(Goal { work, measured: resting.bytes_each() / 1e3, bound: KilobytesEach(limit) });
    }
    for many in connections.busy.iter().filter(|many| many.key == "gateway") {
        let work = format!("CPU with {} connections, to few", many.count);
        goals.push(Goal { work, measured: many.ratio(), bound: AtMost(1.3) });
    }
    goals
}

/// A contestant's row.
pub fn row<'a>(rows: &'a [Row], key: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.contestant.key == key)
}

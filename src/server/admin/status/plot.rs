//! Small plots as inline SVG, and numbers as people read them.

use std::fmt::Write;

use super::history::POINTS;
use crate::respond::escape;

/// Some lines over the same time.
pub(super) struct Plot<'a> {
    /// Tells this one from the others of the page.
    pub(super) id: usize,
    pub(super) title: &'a str,
    pub(super) minutes: u64,
    /// How its values are written.
    pub(super) unit: Unit,
    /// The first is filled, the second dashed.
    pub(super) lines: [Line<'a>; 2],
}

/// One of its lines.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// As it is now.
    pub(super) now: Option<f64>,
    pub(super) points: Vec<Option<f64>>,
}

#[derive(Clone, Copy)]
pub(super) enum Unit {
    Count,
    PerSecond,
    PerMinute,
    Seconds,
}

impl Unit {
    pub(super) fn write(self, value: f64) -> String {
        match self {
            Self::Count => count(value),
            Self::PerSecond => format!("{} per second", count(value)),
            Self::PerMinute => format!("{} per minute", count(value)),
            Self::Seconds => seconds(value),
        }
    }
}

impl Plot<'_> {
    /// A figure with its heading, what it shows in words, and what its lines mean.
    pub(super) fn figure(&self) -> String {
        let Self { id, title, minutes, .. } = self;
        let highest =
            self.lines.iter().flat_map(|line| line.points.iter().flatten()).copied().fold(0.0, f64::max);
        let top = if highest > 0.0 { highest } else { 1.0 };
        let [first, second] = self.lines.each_ref().map(|line| path(&line.points, top));
        let keys: String =
            self.lines.iter().zip(["first", "second"]).map(|(line, class)| self.key(line, class)).collect();
        let said: Vec<_> =
            self.lines.iter().map(|line| format!("{} {}", line.name, self.written(line.now))).collect();
        let highest = if highest > 0.0 { self.unit.write(highest) } else { "0".to_owned() };
        let label = escape(&format!(
            "{title}, the last {minutes} minutes. Now: {}. Highest: {highest}.",
            said.join("; ")
        ));
        let title = escape(title);
        format!(
            "<figure><figcaption><h3>{title}</h3><ul class=\"key\">{keys}</ul></figcaption>\
             <svg role=\"img\" aria-labelledby=\"plot-{id}\" viewBox=\"0 0 59 100\" preserveAspectRatio=\"none\">\
             <title id=\"plot-{id}\">{label}</title>\
             <path class=\"grid\" d=\"M0 0H59M0 50H59M0 100H59\"/>{}\
             <path class=\"first\" d=\"{first}\"/><path class=\"second\" d=\"{second}\"/></svg>\
             <p class=\"axis\"><span>{minutes} min ago</span><span>highest: {highest}</span><span>now</span></p></figure>",
            area(&self.lines[0].points, top),
        )
    }

    fn key(&self, line: &Line<'_>, class: &str) -> String {
        format!(
            "<li><svg class=\"swatch\" viewBox=\"0 0 20 4\" aria-hidden=\"true\"><path class=\"{class}\" d=\"M0 2H20\"/></svg>\
             <span>{}</span> <strong>{}</strong></li>",
            escape(line.name),
            self.written(line.now)
        )
    }

    fn written(&self, value: Option<f64>) -> String {
        value.map_or_else(|| "\u{2013}".to_owned(), |value| self.unit.write(value))
    }
}

/// A number of things, in few signs.
pub(super) fn count(value: f64) -> String {
    let (scaled, sign) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let decimals = match scaled {
        scaled if scaled.fract() == 0.0 || scaled >= 100.0 => 0,
        scaled if scaled >= 1.0 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{sign}")
}

/// A time that something took.
pub(super) fn seconds(value: f64) -> String {
    match value {
        value if value < 0.001 => format!("{:.0}\u{a0}µs", value * 1e6),
        value if value < 0.01 => format!("{:.1}\u{a0}ms", value * 1e3),
        value if value < 1.0 => format!("{:.0}\u{a0}ms", value * 1e3),
        value => format!("{value:.1}\u{a0}s"),
    }
}

/// What lies under a line.
fn area(points: &[Option<f64>], top: f64) -> String {
    let mut areas = String::new();
    for run in runs(points) {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let line: String = run.iter().map(|(x, value)| format!("L{x} {:.1}", height(*value, top))).collect();
        let _ = write!(areas, "<path class=\"area\" d=\"M{first} 100{line}L{last} 100Z\"/>");
    }
    areas
}

/// Broken where nothing is known.
fn path(points: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    for run in runs(points) {
        for (index, (x, value)) in run.iter().enumerate() {
            let verb = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{x} {:.1}", height(*value, top));
        }
        if run.len() == 1 {
            path.push_str("h0.01");
        }
    }
    path
}

/// The points that are known, as far as they lie side by side.
fn runs(points: &[Option<f64>]) -> Vec<Vec<(u64, f64)>> {
    let placed = (0..POINTS).zip(points).map(|(x, value)| value.map(|value| (x, value)));
    let placed: Vec<_> = placed.collect();
    placed
        .split(Option::is_none)
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().flatten().copied().collect())
        .collect()
}

/// From the top down, as SVG counts.
fn height(value: f64, top: f64) -> f64 {
    100.0 - 100.0 * value / top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, written) in [
            (0.0, "0"),
            (0.034, "0.03"),
            (3.25, "3.2"),
            (12.0, "12"),
            (123.4, "123"),
            (9_999.0, "9999"),
            (12_345.0, "12.3k"),
        ] {
            assert_eq!(count(value), written);
        }
        for (value, written) in
            [(0.00025, "250\u{a0}µs"), (0.0034, "3.4\u{a0}ms"), (0.25, "250\u{a0}ms"), (2.5, "2.5\u{a0}s")]
        {
            assert_eq!(seconds(value), written);
        }
    }

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let points = [None, Some(0.0), Some(2.0), None, Some(1.0)];
        assert_eq!(path(&points, 2.0), "M1 100.0L2 0.0M4 50.0h0.01");
        assert_eq!(area(&points[..3], 2.0), "<path class=\"area\" d=\"M1 100L1 100.0L2 0.0L2 100Z\"/>");
        assert_eq!(path(&[], 1.0), "");
    }

    #[test]
    fn what_a_plot_is_called_cannot_leave_its_place() {
        let line = |name| Line { name, now: Some(1.0), points: vec![Some(1.0)] };
        let lines = [line("<i>"), line("b\"")];
        let plot = Plot { id: 1, title: "<script>", minutes: 10, unit: Unit::Count, lines };
        let figure = plot.figure();
        assert!(
            !figure.contains("<script>") && !figure.contains("<i>") && !figure.contains("b\""),
            "{figure}"
        );
    }
}

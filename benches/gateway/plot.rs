//! Plots in SVG. Their few colours can be read on light and on dark ground alike: which of the two a page has,
//! an image in it cannot know for certain.

use std::fmt::Write;

/// A bar, and how far it has varied.
#[derive(Debug)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub least: f64,
    pub most: f64,
    pub ours: bool,
}

/// The values at each of [`SHARES`].
#[derive(Debug)]
pub struct Curve {
    pub label: String,
    pub values: [f64; SHARES.len()],
    pub ours: bool,
}

/// The quantiles that a curve goes through.
pub const SHARES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995];

/// Which of them are named below the axis.
const NAMED: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

const WIDTH: f64 = 860.0;
/// Where values begin, and how much room there is for them.
const LEFT: f64 = 370.0;
const ROOM: f64 = 410.0;

/// One below the other. A bar that would make all others short is cut, and says what it stands for.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    const STEP: f64 = 26.0;
    let mut values: Vec<f64> = bars.iter().map(|bar| bar.most).collect();
    values.sort_unstable_by(f64::total_cmp);
    let usual = values.get(values.len().saturating_sub(2)).copied().unwrap_or(1.0);
    let end = values.last().copied().unwrap_or(1.0).min(2.0 * usual);
    let x = |value: f64| LEFT + ROOM * (value / end).min(1.0);
    let mut drawn = String::new();
    for (number, bar) in bars.iter().enumerate() {
        let y = 44.0 + STEP * place(number);
        let class = if bar.ours { "ours" } else { "other" };
        text(&mut drawn, LEFT - 8.0, y + 13.0, "end", &bar.label);
        writeln!(
            drawn,
            r#"<rect class="{class}" x="{LEFT}" y="{y}" width="{:.1}" height="18"/>"#,
            x(bar.value) - LEFT
        )
        .unwrap();
        line(&mut drawn, "range", [(x(bar.least), y + 9.0), (x(bar.most), y + 9.0)].as_slice());
        let cut = if bar.value > end { " (cut)" } else { "" };
        text(&mut drawn, x(bar.most) + 6.0, y + 13.0, "start", &format!("{:.1}{cut}", bar.value));
    }
    document(title, 56.0 + STEP * place(bars.len()), &drawn)
}

/// One curve each, over a scale on which each further nine takes as much room.
pub fn quantiles(title: &str, curves: &[Curve]) -> String {
    const TOP: f64 = 50.0;
    const BOTTOM: f64 = 360.0;
    let (left, room) = (60.0, 780.0);
    let last = SHARES[SHARES.len() - 1];
    let nines = |share: f64| -(1.0 - share).log10();
    let x = |share: f64| left + room * nines(share) / nines(last);
    let most = curves.iter().flat_map(|curve| curve.values).fold(1.0, f64::max);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / most;
    let mut drawn = String::new();
    for (share, name) in NAMED {
        line(&mut drawn, "grid", &[(x(share), TOP), (x(share), BOTTOM)]);
        text(&mut drawn, x(share), BOTTOM + 18.0, "middle", name);
    }
    for part in 0..=4 {
        let value = most * place(part) / 4.0;
        line(&mut drawn, "grid", &[(left, y(value)), (left + room, y(value))]);
        text(&mut drawn, left - 6.0, y(value) + 4.0, "end", &format!("{value:.0}"));
    }
    for (number, curve) in curves.iter().enumerate() {
        let class = format!("curve {} dash{number}", if curve.ours { "ours" } else { "other" });
        let points: Vec<_> =
            SHARES.iter().zip(curve.values).map(|(share, value)| (x(*share), y(value))).collect();
        line(&mut drawn, &class, &points);
        let height = BOTTOM + 44.0 + 22.0 * place(number);
        line(&mut drawn, &class, &[(left, height), (left + 40.0, height)]);
        text(&mut drawn, left + 48.0, height + 4.0, "start", &curve.label);
    }
    document(title, BOTTOM + 48.0 + 22.0 * place(curves.len()), &drawn)
}

fn document(title: &str, height: f64, drawn: &str) -> String {
    let mut document = String::new();
    writeln!(
        document,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{0}">
<style>
text {{ font: 13px system-ui, sans-serif; fill: #737b85 }}
.title {{ font-weight: 600; font-size: 15px }}
rect.ours {{ fill: #2f81f7 }} rect.other {{ fill: #a0a8b1 }}
.range {{ stroke: #737b85; stroke-width: 1.5 }}
.grid {{ stroke: #737b85; stroke-opacity: .35 }}
.curve {{ fill: none; stroke-width: 2.5 }} .curve.ours {{ stroke: #2f81f7 }} .curve.other {{ stroke: #a0a8b1 }}
.dash0 {{ stroke-dasharray: 1 4 }} .dash3 {{ stroke-dasharray: 7 4 }}
</style>
<text class="title" x="12" y="24">{0}</text>
{drawn}</svg>"#,
        escaped(title),
    )
    .unwrap();
    document
}

fn text(drawn: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    writeln!(drawn, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escaped(text))
        .unwrap();
}

fn line(drawn: &mut String, class: &str, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(drawn, r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")).unwrap();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "a place in a short list")]
fn place(number: usize) -> f64 {
    number as f64
}

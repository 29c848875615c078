//! Tables of what was measured, put into the documents that explain them.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// A table in Markdown.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|---", self.columns.join(" | "));
        text += &"|--:".repeat(self.columns.len() - 1);
        text += "|\n";
        for row in &self.rows {
            writeln!(text, "| {} |", row.join(" | ")).unwrap();
        }
        text
    }
}

/// Puts a text in the place of what stands between the marks of this name in a document.
pub fn put_into(document: &str, name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let before = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- measured: {name} -->\n"), "<!-- end -->");
    let (head, rest) = before.split_once(&begin).expect("the mark where it begins");
    let (_, tail) = rest.split_once(end).expect("the mark where it ends");
    std::fs::write(&path, format!("{head}{begin}\n{text}\n{end}{tail}")).unwrap();
}

/// Milliseconds, or seconds where those say enough.
pub fn spelled(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0".to_owned(),
        millis @ 1..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// The value that this share of all does not exceed; `values` are in order.
pub fn quantile<T: Copy>(values: &[T], share: f64) -> T {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    let place = (share * (values.len() - 1) as f64).round() as usize;
    values[place]
}

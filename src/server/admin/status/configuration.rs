//! The configuration in force, written as YAML would have it.

use crate::config::Setting;
use crate::respond::escape;

/// All settings, behind a summary.
pub(super) fn section(settings: &[Setting]) -> String {
    format!(
        "<h2>Configuration</h2><details id=\"settings\"><summary id=\"settings-summary\">All that is in force, defaults included</summary>\
         <p>A secret is told by where it is, and never shown.</p><pre>{}</pre></details>",
        lines(settings)
    )
}

fn lines(settings: &[Setting]) -> String {
    let (mut text, mut item) = (String::new(), None);
    for setting in settings {
        // What is in a list stands behind its dash.
        let indent = match item.take() {
            Some(depth) if depth + 1 == setting.depth => format!("{}- ", "  ".repeat(depth)),
            Some(_) | None => "  ".repeat(setting.depth),
        };
        let is_item = setting.name.starts_with('[');
        let line = match (&setting.value, is_item) {
            (None, true) => {
                item = Some(setting.depth);
                continue;
            }
            (Some(value), true) => format!("{indent}- {}", shown(value)),
            (None, false) => format!("{indent}{}:", escape(&setting.name)),
            (Some(value), false) => format!("{indent}{}: {}", escape(&setting.name), shown(value)),
        };
        if setting.is_default {
            text.push_str(&format!("<span class=\"default\">{line} # default</span>\n"));
        } else {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// One line, whatever it holds.
fn shown(value: &str) -> String {
    let needs_quotes = value.is_empty() || value.contains(char::is_control) || value.trim() != value;
    escape(&if needs_quotes { format!("{value:?}") } else { value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_look_as_in_the_file() {
        let setting = |depth, name: &str, value: Option<&str>| Setting {
            depth,
            name: name.to_owned(),
            value: value.map(str::to_owned),
            is_default: name == "auth",
        };
        let settings = [
            setting(0, "apps", None),
            setting(1, "[0]", None),
            setting(2, "origin", Some("https://a.test")),
            setting(2, "keys", None),
            setting(3, "[0]", Some("<one>")),
            setting(3, "[1]", None),
            setting(4, "[0]", Some(" two\n")),
            setting(2, "auth", Some("none")),
        ];
        let expected = "apps:\n  - origin: https://a.test\n    keys:\n      - &lt;one&gt;\n      - - &quot; two\\n&quot;\n\
             <span class=\"default\">    auth: none # default</span>\n";
        assert_eq!(lines(&settings), expected);
    }
}

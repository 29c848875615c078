//! Pages for people, as templates: ours, and those that an app has in their place.
//!
//! A template is HTML with `{{ value }}`, `{% if value %}` and `{% for value in values %}`. Each value is written so that it
//! cannot leave its place, between tags or in an attribute in quotes. A template is tried out when it is read: one that asks
//! for a value that there is not is as wrong as one that cannot be parsed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Environment, Output, State, UndefinedBehavior, Value};
use sha2::{Digest, Sha256};

mod invalid;
mod language;
mod values;

pub use invalid::InvalidPage;
pub use language::Language;
pub use values::{Action, Choice, Field, Values};

/// Our own page, for all there is to say.
const OURS: &str = include_str!("pages/page.html");

/// The page for each refusal that has none of its own.
const ERROR: &str = "error";

/// What an app may have pages of its own for, by the file's name: refusals by their code, all others of them, the question
/// whether to log out, and where to log in. What is misdirected is for no app.
pub const NAMES: [&str; 18] = [
    "bad-request",
    "csrf",
    ERROR,
    "forbidden",
    "insufficient-user-authentication",
    "issuer-unavailable",
    "issuers",
    "login-failed",
    "logout",
    "not-found",
    "overloaded",
    "rate-limited",
    "session-ended",
    "store-unavailable",
    "too-large",
    "unauthenticated",
    "upstream-timeout",
    "upstream-unavailable",
];

/// How large a template may be, in bytes.
const LARGEST: u64 = 64 * 1024;

/// How many steps a template may take: loops in loops come to an end.
const MOST_STEPS: u64 = 100_000;

/// The pages of one app. Those that it does not have are ours.
#[derive(Clone)]
pub struct Pages(Arc<Templates>);

struct Templates {
    environment: Environment<'static>,
    /// By file name.
    sources: BTreeMap<String, Source>,
}

#[derive(PartialEq, Eq)]
struct Source {
    text: String,
    /// What the page may load and show, as its Content-Security-Policy says it.
    allowed: String,
}

/// A page to be sent.
#[derive(Debug)]
pub struct Page {
    /// The document.
    pub html: String,
    /// The directives of its Content-Security-Policy that say what it may load and show.
    pub allowed: String,
}

static OUR_PAGES: LazyLock<Pages> = LazyLock::new(|| {
    let mut templates = Templates::new();
    // A test renders it.
    let _ = templates.add(String::new(), OURS.to_owned(), format!("style-src {}", hashes_of_styles(OURS)));
    Pages(Arc::new(templates))
});

impl Pages {
    /// Ours.
    pub fn ours() -> &'static Self {
        &OUR_PAGES
    }

    /// Those of an app, which has files of its own in this folder, such as `error.html`, and `error.de.html` for one language.
    /// Files that are no HTML may lie beside them.
    ///
    /// # Errors
    /// What is wrong with each file; never empty.
    pub fn read(folder: &Path) -> Result<Self, Vec<InvalidPage>> {
        let unreadable =
            |error| vec![InvalidPage::whole(folder, format!("this folder cannot be read ({error})"))];
        let entries =
            fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "html"));
        paths.sort();
        let (mut templates, mut invalid) = (Templates::new(), Vec::new());
        for path in &paths {
            if let Err(fault) = templates.read(path) {
                invalid.push(fault);
            }
        }
        if paths.is_empty() {
            invalid.push(InvalidPage::whole(folder, "this folder holds no page"));
        }
        if invalid.is_empty() { Ok(Self(Arc::new(templates))) } else { Err(invalid) }
    }

    /// The page of this name in the language of the values. Where the app has none, refusals get its `error.html`; where it
    /// has that neither, and for what apps have no pages for, it is ours.
    pub fn render(&self, name: Option<&str>, values: &Values<'_>) -> Page {
        let is_refusal = values.status.is_some();
        let names = name.into_iter().chain(is_refusal.then_some(ERROR));
        let files = names.flat_map(|name| [format!("{name}.{}.html", values.lang), format!("{name}.html")]);
        let own = files.filter_map(|file| self.0.render(&file, values)).next();
        own.or_else(|| OUR_PAGES.0.render("", values)).unwrap_or_else(|| Page {
            html: format!("<!doctype html><title>{}</title>", escape(values.title)),
            allowed: String::new(),
        })
    }
}

impl PartialEq for Pages {
    fn eq(&self, other: &Self) -> bool {
        self.0.sources == other.0.sources
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Pages").field(&self.0.sources.keys().collect::<Vec<_>>()).finish()
    }
}

impl Templates {
    fn new() -> Self {
        // Without filters and functions: what a page is to say is said before.
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(write_escaped);
        environment.set_debug(true);
        environment.set_fuel(Some(MOST_STEPS));
        Self { environment, sources: BTreeMap::new() }
    }

    fn read(&mut self, path: &Path) -> Result<(), InvalidPage> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let stem = name.strip_suffix(".html").unwrap_or(&name);
        let (stem, language) = stem.split_once('.').map_or((stem, None), |(stem, tag)| (stem, Some(tag)));
        if !NAMES.contains(&stem) {
            let problem = format!("no page has this name, which is one of {}", NAMES.join(", "));
            return Err(InvalidPage::whole(path, problem));
        }
        if language.is_some_and(|tag| Language::of_tag(tag).is_none()) {
            let tags = Language::ALL.map(Language::tag).join(", ");
            return Err(InvalidPage::whole(
                path,
                format!("no text is in this language, which is one of {tags}"),
            ));
        }
        // Before it is opened: to open a named pipe would wait for its writer.
        let size = fs::metadata(path).and_then(|file| match file.is_file() {
            true => Ok(file.len()),
            false => Err(std::io::Error::other("it is not a file")),
        });
        let unreadable = |error| InvalidPage::whole(path, format!("this file cannot be read ({error})"));
        if size.map_err(unreadable)? > LARGEST {
            return Err(InvalidPage::whole(path, format!("this file has more than {LARGEST} bytes")));
        }
        // Browsers read line ends so, and a style's hash is that of what they read.
        let text = fs::read_to_string(path).map_err(unreadable)?.replace("\r\n", "\n");
        let styles = hashes_of_styles(&text);
        let allowed = format!("style-src 'self' {styles}; img-src 'self'; font-src 'self'");
        let added = self.add(name.clone(), text.clone(), allowed.replace(" ;", ";"));
        added.map_err(|error| InvalidPage::in_template(path, &text, &error))?;
        self.try_out(&name).map_err(|fault| fault.at(path, &text))
    }

    fn add(&mut self, name: String, text: String, allowed: String) -> Result<(), minijinja::Error> {
        self.environment.add_template_owned(name.clone(), text.clone())?;
        self.sources.insert(name, Source { text, allowed });
        Ok(())
    }

    /// With what there is to say on it; what stands in an `if` that does not hold then is looked at by its names.
    fn try_out(&self, name: &str) -> Result<(), invalid::Fault> {
        let template = self.environment.get_template(name)?;
        let mut unknown: Vec<_> = template.undeclared_variables(true).into_iter().collect();
        unknown.retain(|value| !values::NAMES.contains(&value.as_str()));
        unknown.sort();
        if let Some(value) = unknown.into_iter().next() {
            return Err(invalid::Fault::UnknownValue(value));
        }
        let stem = name.split('.').next().unwrap_or_default();
        template.render(Values::sample(stem).to_value())?;
        Ok(())
    }

    fn render(&self, file: &str, values: &Values<'_>) -> Option<Page> {
        let source = self.sources.get(file)?;
        let rendered =
            self.environment.get_template(file).and_then(|template| template.render(values.to_value()));
        let rendered = rendered.inspect_err(|error| tracing::error!(event = "page.failed", file, %error));
        Some(Page { html: rendered.ok()?, allowed: source.allowed.clone() })
    }
}

/// A text from anywhere, as it stands in HTML: between tags, or in an attribute in quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn write_escaped(
    output: &mut Output<'_>,
    _: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let text = value.to_string();
    let written = match (value.is_none(), value.is_safe()) {
        (true, _) => Ok(()),
        (false, true) => output.write_str(&text),
        (false, false) => output.write_str(&escape(&text)),
    };
    written.map_err(minijinja::Error::from)
}

/// By these hashes a policy lets the page's own style sheets pass, and no other that stands in it.
fn hashes_of_styles(html: &str) -> String {
    let sheets = html.split("<style").skip(1).filter_map(|rest| {
        let (_, rest) = rest.split_once('>')?;
        Some(rest.split_once("</style")?.0)
    });
    sheets.map(|sheet| format!("'sha256-{}'", hash(sheet))).collect::<Vec<_>>().join(" ")
}

/// What a policy knows an inline style or script by.
pub fn hash(inline: &str) -> String {
    STANDARD.encode(Sha256::digest(inline))
}

//! What a template can say.

use minijinja::{Value, context};

/// What a page says. What does not apply is none, and false in an `if`.
#[derive(Clone, Debug, Default)]
pub struct Values<'a> {
    /// The language's tag.
    pub lang: &'static str,
    /// What happened, in a few words.
    pub title: &'a str,
    /// What that means, and what to do next.
    pub detail: Option<&'a str>,
    /// Of a refusal: the status.
    pub status: Option<u16>,
    /// Of a refusal: the `CODE` of `urn:cloakroom:CODE`.
    pub code: Option<&'a str>,
    /// Of a refusal: why, as `docs/refusals.md` names it.
    pub reason: Option<&'a str>,
    /// By which the log knows the request.
    pub request_id: Option<&'a str>,
    /// The reason and the request's name, for whoever is asked for help.
    pub reference: Option<&'a str>,
    /// What to do next.
    pub action: Option<Action<'a>>,
    /// What to do instead.
    pub back: Option<Action<'a>>,
    /// Which issuers to choose from.
    pub choices: Vec<Choice<'a>>,
    /// Where the browser goes on by itself.
    pub refresh: Option<&'a str>,
    /// What our own pages run; no app's page does.
    pub script: Option<&'static str>,
}

/// A link, or a form with one button.
#[derive(Clone, Debug, Default)]
pub struct Action<'a> {
    /// Where it leads.
    pub url: &'a str,
    /// What it says.
    pub label: &'a str,
    /// The form's method; none for a link.
    pub method: Option<&'static str>,
    /// What the form sends along.
    pub fields: Vec<Field<'a>>,
}

/// A field that a form sends along unseen.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: &'a str,
}

/// An issuer to log in at.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where a login at it begins.
    pub url: &'a str,
}

/// The names of all values, and of the parts of those that have some.
pub(super) const NAMES: [&str; 22] = [
    "lang",
    "title",
    "detail",
    "status",
    "code",
    "reason",
    "request_id",
    "reference",
    "action",
    "action.url",
    "action.label",
    "action.method",
    "action.fields",
    "back",
    "back.url",
    "back.label",
    "back.method",
    "back.fields",
    "choices",
    "refresh",
    "script",
    "loop",
];

impl Action<'_> {
    fn to_value(&self) -> Value {
        let fields = self.fields.iter().map(|field| context! { name => field.name, value => field.value });
        context! { url => self.url, label => self.label, method => self.method, fields => fields.collect::<Vec<_>>() }
    }
}

impl Values<'_> {
    pub(super) fn to_value(&self) -> Value {
        let choices = self.choices.iter().map(|choice| context! { name => choice.name, url => choice.url });
        context! {
            lang => self.lang,
            title => self.title,
            detail => self.detail,
            status => self.status,
            code => self.code,
            reason => self.reason,
            request_id => self.request_id,
            reference => self.reference,
            action => self.action.as_ref().map(Action::to_value),
            back => self.back.as_ref().map(Action::to_value),
            choices => choices.collect::<Vec<_>>(),
            refresh => self.refresh,
            script => self.script.map(|script| Value::from_safe_string(script.to_owned())),
        }
    }

    /// What there is to say on the page of this name.
    pub(super) fn sample(name: &str) -> Self {
        let (lang, title) = ("en", "What happened");
        let form = Action { url: "/", label: "Go on", method: Some("post"), fields: Vec::new() };
        let link = Action { method: None, ..form.clone() };
        match name {
            "logout" => Self { lang, title, action: Some(form), back: Some(link), ..Self::default() },
            "issuers" => {
                Self { lang, title, choices: vec![Choice { name: "Staff", url: "/" }], ..Self::default() }
            }
            _ => Self {
                lang,
                title,
                detail: Some("What to do next."),
                status: Some(500),
                reason: Some("gateway-failed"),
                request_id: Some("AbCdEfGhIjKlMnOp"),
                reference: Some("Reference: gateway-failed AbCdEfGhIjKlMnOp"),
                action: Some(link),
                ..Self::default()
            },
        }
    }
}

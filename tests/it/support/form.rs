//! The first form of an HTML page, read as far as the pages of these tests need it.

/// Where a form goes, and what goes with it unseen.
pub struct Form {
    /// As it is written; `None` for the page's own address.
    pub action: Option<String>,
    /// Names and values of the hidden inputs.
    pub hidden: Vec<(String, String)>,
}

impl Form {
    /// The first form of a page; fails the test where there is none.
    pub fn of(page: &str) -> Self {
        let (_, form) = page.split_once("<form").unwrap_or_else(|| panic!("no form in {page}"));
        let (form, _) = form.split_once("</form>").unwrap();
        let (tag, content) = form.split_once('>').unwrap();
        let inputs = content.split("<input").skip(1).filter_map(|input| input.split_once('>'));
        let hidden = inputs
            .filter(|(input, _)| attribute(input, "type").as_deref() == Some("hidden"))
            .filter_map(|(input, _)| Some((attribute(input, "name")?, attribute(input, "value")?)));
        Self { action: attribute(tag, "action"), hidden: hidden.collect() }
    }
}

/// An attribute's value, with or without quotes.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, value) = tag.split_once(&format!(" {name}="))?;
    let value = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].split(quote).next()?,
        _ => value.split([' ', '>']).next()?,
    };
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    Some(entities.iter().fold(value.to_owned(), |text, (entity, meant)| text.replace(entity, meant)))
}

//! Reads the one form of a page in the development server's own markup: attributes in double quotes, as maud writes them.

/// A form, without its buttons.
pub(super) struct Form {
    pub(super) id: String,
    pub(super) action: String,
    /// The hidden fields.
    pub(super) fields: Vec<(String, String)>,
}

impl Form {
    pub(super) fn first_of(page: &str) -> Option<Self> {
        let (_, rest) = page.split_once("<form ")?;
        let (form, _) = rest.split_once("</form>")?;
        let (tag, inside) = form.split_once('>')?;
        let hidden = inside.split("<input ").skip(1).filter_map(|input| {
            let (tag, _) = input.split_once('>')?;
            Some((attribute(tag, "name")?, attribute(tag, "value")?))
        });
        Some(Self { id: attribute(tag, "id")?, action: attribute(tag, "action")?, fields: hidden.collect() })
    }
}

/// `>` cannot stand inside a value: it is escaped there.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
    // `&amp;` last, or an escaped `&amp;quot;` would be unescaped twice.
    Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use maud::html;

    use super::*;

    #[test]
    fn a_form_comes_back_as_it_was_written() {
        let nasty = r#"a=<b>&c="d"&e=&amp;quot;"#;
        let page = html! {
            p { "before" }
            form id="login" method="post" action="/login?x=1&y=2" {
                input type="hidden" name="csrf" value="token";
                input type="hidden" name="request" value=(nasty);
                button name="user" value="alice" { "Alice" }
            }
        };
        let form = Form::first_of(&page.into_string()).unwrap();
        assert_eq!(form.id, "login");
        assert_eq!(form.action, "/login?x=1&y=2");
        assert_eq!(form.fields, [("csrf".to_owned(), "token".to_owned()), ("request".to_owned(), nasty.to_owned())]);
    }

    #[test]
    fn a_page_without_a_form_has_none() {
        assert!(Form::first_of("<h1>Refused</h1>").is_none());
    }
}

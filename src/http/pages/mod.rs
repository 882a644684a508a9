//! What people see: escaped by maud, without scripts, readable without the style sheet.
//!
//! - [`mod@consent`]: the question, and the way to the provider · [`outcome`]: how a flow ended · [`mod@trouble`]: why it does not
//!   go on · [`scopes`]: what a scope may mean

mod consent;
mod outcome;
mod scopes;
mod trouble;

use axum::{
    http::{StatusCode, header},
    response::{Html, IntoResponse},
};
use maud::{DOCTYPE, Markup, html};

pub(super) use consent::{consent, leaving};
pub(super) use outcome::{ended, settling};
pub(super) use trouble::{Trouble, trouble};

pub(super) const STYLE_SHEET: &str = "/style.css";
const STYLE: &str = include_str!("style.css");

pub(super) async fn style_sheet() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

pub(super) async fn not_found() -> impl IntoResponse {
    (StatusCode::NOT_FOUND, trouble(Trouble::NotFound, None))
}

pub(super) async fn method_not_allowed() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, trouble(Trouble::Malformed, None))
}

/// A whole document.
pub(super) type Page = Html<String>;

fn page(title: &str, body: &Markup) -> Page {
    leading_page(title, body, None)
}

/// `next`: where the browser goes by itself. A redirect after a form would be held against `form-action` as far as the
/// provider redirects on; this is a navigation of its own.
fn leading_page(title: &str, body: &Markup, next: Option<&str>) -> Page {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                @if let Some(next) = next {
                    meta http-equiv="refresh" content=(format!("0; url={next}"));
                }
                title { (title) " – Claviger" }
                link rel="stylesheet" href=(STYLE_SHEET);
            }
            body {
                header { p class="brand" { "Claviger" } }
                main { (body) }
            }
        }
    };
    Html(document.into_string())
}

/// A name that others chose, kept from turning the text around it (it may be written right to left).
fn name(text: &str) -> Markup {
    html! { strong { bdi { (text) } } }
}

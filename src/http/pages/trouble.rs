//! Why it does not go on, and what to do about it. Nothing here comes from a request.

use maud::html;

use super::{Page, page};
use crate::domain::{FlowId, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Trouble {
    NotFound,
    WrongUser,
    OtherBrowser,
    /// From another issuer than the flow's (RFC 9207).
    Untrusted,
    Expired,
    UsedBefore,
    Over,
    Malformed,
    SignInFailed(Reason),
    NoSignIn,
    NotAllowed,
    TooMany,
    TryAgain,
    Provider,
    Failed,
}

/// With `flow`, the way back to its page.
pub(in crate::http) fn trouble(trouble: Trouble, flow: Option<FlowId>) -> Page {
    let (title, said) = said(trouble);
    let body = html! {
        h1 { (title) }
        p { (said) }
        @if let Some((flow, (label, path))) = flow.zip(way_on(trouble)) {
            p { a class="button" href=(format!("/connect/{flow}{path}")) { (label) } }
        }
        @if let Trouble::SignInFailed(reason) = trouble {
            p class="note" { "For whoever runs this installation: " code { (reason) } "." }
        }
    };
    page(title, &body)
}

fn said(trouble: Trouble) -> (&'static str, &'static str) {
    match trouble {
        Trouble::NotFound => {
            ("Not found", "There is nothing here, or not any more. Let your agent ask again: it gives you a new link.")
        }
        Trouble::WrongUser => (
            "This is somebody else’s request",
            "You are signed in as somebody else than the person who began it. Nothing was connected. If you did not begin it yourself, close this page: somebody may have sent you a link to connect your account to their agent.",
        ),
        Trouble::OtherBrowser => (
            "Not from this browser",
            "This answer does not belong to anything that you began in this browser, so it was not taken. Nothing was connected. Begin in the browser that you want to use, and keep cookies allowed for this site.",
        ),
        Trouble::Untrusted => (
            "Not from the right place",
            "The answer did not come from the provider that you were sent to, so it was not taken. Nothing was connected. If it happens again, tell whoever runs this installation.",
        ),
        Trouble::Expired => (
            "Too late",
            "This request was open for ten minutes, and they are over. Let your agent ask again: it gives you a new link.",
        ),
        Trouble::UsedBefore => ("Already used", "This answer was taken before, and is good only once."),
        Trouble::Over => ("Already over", "This request has ended. Let your agent ask again if you still need it."),
        Trouble::Malformed => {
            ("Not understood", "The request is not one that these pages send or expect. Nothing was done.")
        }
        Trouble::SignInFailed(Reason::FlowDenied) => {
            ("Not signed in", "The sign-in was declined or broken off. Nothing was connected.")
        }
        Trouble::SignInFailed(_) => ("Not signed in", "The sign-in did not succeed. Nothing was connected."),
        Trouble::NoSignIn => (
            "No sign-in here",
            "People of your organisation cannot sign in on these pages. Tell whoever runs this installation.",
        ),
        Trouble::NotAllowed => ("Not allowed", "This may not be connected, or not any more. Nothing was connected."),
        Trouble::TooMany => ("Too many tries", "This was tried too often. Let your agent ask again in a few minutes."),
        Trouble::TryAgain => {
            ("Not now", "Something that is needed cannot be reached. Load this page again in a moment.")
        }
        Trouble::Provider => (
            "The provider cannot be used",
            "The provider’s answer cannot be used. Tell whoever runs this installation.",
        ),
        Trouble::Failed => (
            "It did not work",
            "Something went wrong here. Load this page again; if it fails once more, tell whoever runs this installation.",
        ),
    }
}

/// The label of a link, and where it leads below the flow's page.
fn way_on(trouble: Trouble) -> Option<(&'static str, &'static str)> {
    match trouble {
        Trouble::WrongUser => Some(("Sign in as somebody else", "/sign-in")),
        Trouble::OtherBrowser | Trouble::SignInFailed(_) => Some(("Begin again", "")),
        Trouble::UsedBefore | Trouble::Over | Trouble::Expired => Some(("See how it ended", "")),
        _ => None,
    }
}

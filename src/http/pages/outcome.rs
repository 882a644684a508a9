//! How a flow ended.

use axum::http::StatusCode;
use maud::{Markup, html};
use url::Url;

use super::{Page, name, page};
use crate::{
    broker::{Ended, Outcome},
    domain::{FlowId, Reason},
};

pub(in crate::http) fn ended(ended: &Ended) -> (StatusCode, Page) {
    let provider = ended.provider.as_deref().unwrap_or("the provider");
    let (status, title, said) = match &ended.outcome {
        Outcome::Completed { account } => (StatusCode::OK, "Connected", connected(provider, account.as_deref())),
        Outcome::Denied => (StatusCode::OK, "Denied", denied(provider)),
        Outcome::Expired => (StatusCode::GONE, "Too late", expired()),
        Outcome::Failed(reason) => (StatusCode::OK, "Not connected", failed(provider, *reason)),
        Outcome::Over => (StatusCode::GONE, "Already used", over()),
    };
    let body = html! {
        h1 { (title) }
        (said)
        (way_back(ended.return_url.as_ref()))
    };
    (status, page(title, &body))
}

pub(in crate::http) fn settling(flow: FlowId) -> Page {
    let body = html! {
        h1 { "One moment" }
        p { "The provider’s answer is being worked on." }
        p { a class="button" href=(format!("/connect/{flow}")) { "See how it went" } }
    };
    page("One moment", &body)
}

fn connected(provider: &str, account: Option<&str>) -> Markup {
    html! {
        p {
            "Your account "
            @if let Some(account) = account { (name(account)) " " }
            "at " (name(provider)) " is connected. Your agent can go on by itself."
        }
        p { "You can close this page." }
    }
}

fn denied(provider: &str) -> Markup {
    html! {
        p { "Nothing was connected at " (name(provider)) ". Your agent is told that you said no." }
        p { "If that was a mistake, let your agent ask again." }
    }
}

fn expired() -> Markup {
    html! {
        p { "This request was open for ten minutes, and they are over. Nothing was connected." }
        p { "Let your agent ask again: it gives you a new link." }
    }
}

fn over() -> Markup {
    html! {
        p { "This request is over. Whoever began it can see how it ended where they began it." }
        p { "If you still want to connect something, let your agent ask again." }
    }
}

fn failed(provider: &str, reason: Reason) -> Markup {
    let why = match reason {
        Reason::AccountMismatch => "You agreed with another account than the one that was to be connected.",
        Reason::ProviderUnreachable | Reason::ExchangeInterrupted => "The provider could not finish it.",
        Reason::ProviderSuspended => {
            "The provider does not accept this installation’s registration: tell whoever runs it."
        }
        _ => "The provider’s answer could not be used.",
    };
    html! {
        p { "Nothing was connected at " (name(provider)) ". " (why) }
        p { "Let your agent ask again: it gives you a new link. If it fails once more, tell whoever runs this installation: " code { (reason) } "." }
    }
}

fn way_back(url: Option<&Url>) -> Markup {
    html! {
        @if let Some(url) = url {
            p { a class="button" href=(url) rel="noreferrer" { "Return to " bdi { (url.host_str().unwrap_or_default()) } } }
        }
    }
}

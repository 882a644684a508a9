//! The question, and the way to the provider.

use maud::{Markup, html};

use super::{Page, leading_page, name, page, scopes};
use crate::{
    broker::{ConsentRequest, SentToProvider},
    domain::FlowId,
};

/// Who asks for what, what changes, and how to take it back.
pub(in crate::http) fn consent(flow: FlowId, request: &ConsentRequest) -> Page {
    let provider = request.provider.as_str();
    let verb = if request.renews { "Reconnect" } else { "Connect" };
    let body = html! {
        h1 { (verb) " " bdi { (provider) } "?" }
        p { (asker(request)) " asks for access to your account at " (name(provider)) (for_plugin(request)) "." }
        @if let Some(account) = &request.account {
            p { "It must be the account " (name(account)) "; with another one this fails." }
        }
        (wanted(request))
        h2 { "What changes" }
        ul {
            li { "You go on to " bdi { (provider) } ", sign in there and agree once more." }
            li { "Claviger keeps the access that you give, encrypted, and renews it while you are away." }
            li { (asker(request)) " receives tokens that expire soon. It never sees your password there." }
        }
        h2 { "How to take it back" }
        p { "Revoke the connection where you manage your agents, or in your account settings at " bdi { (provider) } ". It ends at once." }
        form method="post" action=(format!("/connect/{flow}")) {
            input type="hidden" name="token" value=(request.form_token.expose());
            div class="choice" {
                button type="submit" name="decision" value="approve" class="yes" { "Continue to " bdi { (provider) } }
                button type="submit" name="decision" value="deny" { "Deny" }
            }
        }
        p class="note" { "You did not ask for this? Then deny: nothing is connected." }
    };
    page(&format!("{verb} {provider}"), &body)
}

/// On to the provider, by itself or by the link.
pub(in crate::http) fn leaving(sent: &SentToProvider) -> Page {
    let url = sent.url.as_str();
    let body = html! {
        h1 { "On to " bdi { (sent.provider) } }
        p { "You are being sent to " (name(&sent.provider)) " to sign in and agree there." }
        p { a class="button" href=(url) rel="noreferrer" { "Continue to " bdi { (sent.provider) } } }
    };
    leading_page(&format!("On to {}", sent.provider), &body, Some(url))
}

fn asker(request: &ConsentRequest) -> Markup {
    match &request.agent {
        Some(agent) => html! { "The agent " (name(agent.as_str())) },
        None => html! { "An application of yours" },
    }
}

fn for_plugin(request: &ConsentRequest) -> Markup {
    html! { @if let Some(plugin) = &request.plugin { ", for " (name(plugin)) } }
}

fn wanted(request: &ConsentRequest) -> Markup {
    html! {
        @if request.scopes.is_empty() {
            p { "It names no single permission: the provider decides what it may do." }
        } @else {
            h2 { "It wants to" }
            ul {
                @for (scope, words) in &request.scopes {
                    li { (words.clone().unwrap_or_else(|| scopes::reading(scope.as_str()))) " " code { (scope) } }
                }
            }
        }
    }
}

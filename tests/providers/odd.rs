//! What only one provider does.

use claviger::{
    dev::{self, ENTRA_DIRECTORY, Endpoint, Fault},
    domain::{RemoteRevocation, ReplyClass, ScopeSet},
};
use serde_json::json;

use crate::world::{World, entra_account, failure, parameter, tokens};

#[tokio::test]
async fn google_gives_a_refresh_token_only_to_those_who_ask_for_it_anew() {
    let world = World::start().await;
    let provider = world.provider("google");
    for left_out in ["access_type", "prompt"] {
        let mut careless = provider.clone();
        assert!(careless.definition.authorization_parameters.remove(left_out).is_some());
        assert!(world.connect(&careless, "alice", "email").await.refresh.is_none(), "{left_out}");
    }
    assert!(world.connect(&provider, "alice", "email").await.refresh.is_some());
}

#[tokio::test]
async fn google_ends_every_connection_of_the_grant_with_either_token() {
    let world = World::start().await;
    let provider = world.provider("google");
    let tokens = world.connect(&provider, "alice", "email").await;
    let revoked = world.servers.revoke(&provider, Some(&tokens.access), None).await;
    assert_eq!(revoked, Ok(RemoteRevocation::Confirmed));
    assert!(!world.dev.is_refresh_token_live(&tokens.refresh.unwrap()));
}

#[tokio::test]
async fn a_scope_that_a_google_user_unticked_is_missing_from_the_answer() {
    let world = World::start().await;
    let provider = world.provider("google");
    let edit = json!({ "scope": "https://www.googleapis.com/auth/userinfo.email openid" });
    let set = edit.as_object().unwrap().clone();
    world.dev.faults().arm(Endpoint::Token, Fault::Edit { set, remove: Vec::new() }, 1);
    let tokens = world.connect(&provider, "alice", "email https://www.googleapis.com/auth/drive").await;
    assert_eq!(tokens.scopes, Some(ScopeSet::parse("email openid", ' ').unwrap()));
}

#[tokio::test]
async fn entra_answers_for_one_directory_as_for_many() {
    let world = World::start().await;
    let alice = entra_account("00000000-0000-0000-66f3-3332eca7ea81");
    for directory in ["organizations", "common", ENTRA_DIRECTORY] {
        let provider = world.provider_in("microsoft", Some(directory));
        let sent = world.authorization_url(&provider, "Mail.Read").await;
        assert_eq!(sent.server.issuer.is_some(), directory == ENTRA_DIRECTORY, "{directory}");
        let tokens = world.connect(&provider, "alice", "Mail.Read").await;
        assert_eq!(world.account(&provider, &tokens).await.as_ref(), Some(&alice), "{directory}");
    }
}

#[tokio::test]
async fn entra_does_not_mention_pkce_and_only_the_definition_vouches_for_it() {
    let world = World::start().await;
    let mut provider = world.provider("microsoft");
    provider.definition.pkce_asserted = false;
    assert!(world.servers.endpoints(&provider).await.is_err());
    assert!(world.servers.endpoints(&world.provider("microsoft")).await.is_ok());
}

#[tokio::test]
async fn an_entra_refresh_that_forgets_its_scopes_is_refused() {
    let world = World::start().await;
    let mut provider = world.provider("microsoft");
    let refresh = world.connect(&provider, "alice", "Mail.Read").await.refresh.unwrap();
    let refreshed = tokens(world.refresh(&provider, &refresh, "Mail.Read openid profile").await);
    assert_eq!(refreshed.scopes, Some(ScopeSet::parse("Mail.Read openid profile", ' ').unwrap()));
    provider.definition.refresh_repeats_scopes = false;
    let forgetful = failure(world.refresh(&provider, &refresh, "Mail.Read").await);
    assert_eq!(forgetful.class, ReplyClass::Configuration);
}

#[tokio::test]
async fn consent_that_entra_misses_is_the_users_turn() {
    let world = World::start().await;
    let provider = world.provider("microsoft");
    let refresh = world.connect(&provider, "alice", "Mail.Read").await.refresh.unwrap();
    let missing = failure(world.refresh(&provider, &refresh, "Mail.Send").await);
    assert_eq!((missing.class, missing.code.unwrap().as_str()), (ReplyClass::Reauthorize, "consent_required"));
}

#[tokio::test]
async fn slack_tokens_without_rotation_do_not_lapse_and_fall_whole() {
    let world = World::with(dev::Options { slack_token_rotation: false, ..dev::Options::default() }).await;
    for (definition, scopes) in [("slack", "search:read"), ("slack-bot", "chat:write")] {
        let provider = world.provider(definition);
        let tokens = world.connect(&provider, "alice", scopes).await;
        assert!(tokens.refresh.is_none() && tokens.expires_in.is_none(), "{definition}");
        world.clock.advance(std::time::Duration::from_secs(365 * 24 * 3600));
        assert!(world.dev.is_access_token_live(&tokens.access), "{definition}");
        let revoked = world.servers.revoke(&provider, Some(&tokens.access), None).await;
        assert_eq!(revoked, Ok(RemoteRevocation::Confirmed), "{definition}");
        assert!(!world.dev.is_access_token_live(&tokens.access), "{definition}");
    }
}

#[tokio::test]
async fn a_revoked_slack_bot_takes_everybodys_along_and_a_users_token_nobodys() {
    let world = World::start().await;
    let (user, bot) = (world.provider("slack"), world.provider("slack-bot"));
    let of_alice = world.connect(&user, "alice", "search:read").await;
    let (installed, again) =
        (world.connect(&bot, "alice", "chat:write").await, world.connect(&bot, "bob", "chat:write").await);
    assert!(world.servers.revoke(&bot, Some(&installed.access), None).await.is_ok());
    assert!(!world.dev.is_access_token_live(&again.access));
    assert!(world.dev.is_access_token_live(&of_alice.access));
}

#[tokio::test]
async fn slack_scopes_go_out_with_commas_in_the_parameter_of_their_kind() {
    let world = World::start().await;
    for (definition, used, unused) in [("slack", "user_scope", "scope"), ("slack-bot", "scope", "user_scope")] {
        let sent = world.authorization_url(&world.provider(definition), "chat:write users:read").await;
        assert_eq!(parameter(&sent.url, used).as_deref(), Some("chat:write,users:read"));
        assert_eq!(parameter(&sent.url, unused), None);
    }
}

//! What every provider has to stand, in one suite over all of them.

use claviger::{
    dev::Realm,
    domain::{ClientSecret, Provider, RefreshToken, RemoteRevocation, ReplyClass, Rotation, ScopeSet},
    oauth::Tokens,
};

use crate::world::{LIFETIME, World, entra_account, failure, parameter, tokens};

/// What differs between the providers.
struct Played {
    definition: &'static str,
    realm: Realm,
    /// As an operator writes them for a plugin.
    scopes: &'static str,
    /// Alice's and Bob's.
    accounts: [String; 2],
    /// What a revocation comes to, and whether access and refresh token outlive it.
    revocation: (RemoteRevocation, bool, bool),
    /// A word of what the user is told of it.
    side_effect: &'static str,
    names_issuer: bool,
}

fn google() -> Played {
    Played {
        definition: "google",
        realm: Realm::Google,
        scopes: "email https://www.googleapis.com/auth/calendar.readonly",
        accounts: ["alice".to_owned(), "bob".to_owned()],
        revocation: (RemoteRevocation::Confirmed, false, false),
        side_effect: "other connections",
        names_issuer: true,
    }
}

fn microsoft() -> Played {
    Played {
        definition: "microsoft",
        realm: Realm::Entra,
        scopes: "Mail.Read User.Read",
        accounts: ["00000000-0000-0000-66f3-3332eca7ea81", "00000000-0000-0000-0b0b-0b0b0b0b0b0b"].map(entra_account),
        revocation: (RemoteRevocation::Unsupported, true, true),
        side_effect: "myapplications.microsoft.com",
        names_issuer: false,
    }
}

fn slack() -> Played {
    Played {
        definition: "slack",
        realm: Realm::Slack,
        scopes: "chat:write search:read",
        accounts: ["T9TK3CUKW/U0ALICE".to_owned(), "T9TK3CUKW/U0BOB".to_owned()],
        revocation: (RemoteRevocation::Unsupported, false, true),
        side_effect: "remove the app",
        names_issuer: false,
    }
}

fn slack_bot() -> Played {
    Played {
        definition: "slack-bot",
        // One bot for the whole workspace, whoever installed the app.
        accounts: ["T9TK3CUKW/U0BOT".to_owned(), "T9TK3CUKW/U0BOT".to_owned()],
        scopes: "chat:write users:read",
        revocation: (RemoteRevocation::Unsupported, false, false),
        side_effect: "deactivates",
        ..slack()
    }
}

macro_rules! suite {
    ($($provider:ident)*) => { $(
        mod $provider {
            #[tokio::test]
            async fn an_authorization_becomes_tokens_of_the_scopes_asked_for() {
                super::an_authorization_becomes_tokens_of_the_scopes_asked_for(&super::$provider()).await;
            }

            #[tokio::test]
            async fn the_authorization_response_is_held_against_what_the_server_announces() {
                super::the_authorization_response_is_held_against_what_the_server_announces(&super::$provider()).await;
            }

            #[tokio::test]
            async fn each_user_has_his_own_account() {
                super::each_user_has_his_own_account(&super::$provider()).await;
            }

            #[tokio::test]
            async fn a_refresh_rotates_as_the_definition_says() {
                super::a_refresh_rotates_as_the_definition_says(&super::$provider()).await;
            }

            #[tokio::test]
            async fn a_code_and_a_refresh_token_that_are_worth_nothing_are_terminal() {
                super::a_code_and_a_refresh_token_that_are_worth_nothing_are_terminal(&super::$provider()).await;
            }

            #[tokio::test]
            async fn a_wrong_secret_blames_the_configuration_and_no_token() {
                super::a_wrong_secret_blames_the_configuration_and_no_token(&super::$provider()).await;
            }

            #[tokio::test]
            async fn a_revocation_does_what_is_said_of_it() {
                super::a_revocation_does_what_is_said_of_it(&super::$provider()).await;
            }
        }
    )* };
}

suite! { google microsoft slack slack_bot }

async fn connected(played: &Played) -> (World, Provider, Tokens, RefreshToken) {
    let world = World::start().await;
    let provider = world.provider(played.definition);
    let mut tokens = world.connect(&provider, "alice", played.scopes).await;
    let refresh = tokens.refresh.take().expect("the definition asks for a refresh token");
    (world, provider, tokens, refresh)
}

async fn an_authorization_becomes_tokens_of_the_scopes_asked_for(played: &Played) {
    let (world, provider, tokens, refresh) = connected(played).await;
    let asked = ScopeSet::parse(played.scopes, ' ').unwrap();
    let granted = tokens.scopes.expect("all of them say what they granted");
    assert!(granted.contains_all(&asked), "{granted:?}");
    assert_eq!(granted.minus(&asked).minus(&provider.definition.always_scopes), ScopeSet::default());
    assert_eq!(tokens.expires_in, Some(LIFETIME));
    assert!(world.dev.is_access_token_live(&tokens.access) && world.dev.is_refresh_token_live(&refresh));
    let grants = world.dev.grants();
    assert_eq!((grants.len(), grants[0].realm, grants[0].user.as_str()), (1, played.realm, "alice"));
}

async fn the_authorization_response_is_held_against_what_the_server_announces(played: &Played) {
    let world = World::start().await;
    let provider = world.provider(played.definition);
    let sent = world.authorization_url(&provider, played.scopes).await;
    let answer = world.approved(&sent.url, "alice").await;
    assert_eq!(parameter(&answer, "state").as_deref(), Some("st4te"));
    assert_eq!(parameter(&answer, "iss").is_some(), played.names_issuer);
    // RFC 9207 §2.4: what is not announced may come, and then it must be the recorded one.
    assert_eq!(parameter(&answer, "iss"), sent.server.issuer.map(|issuer| issuer.to_string()));
    assert!(!sent.server.iss_parameter_supported);
    assert_eq!(parameter(&sent.url, "code_challenge_method").as_deref(), Some("S256"));
    for never in ["resource", "include_granted_scopes", "client_secret"] {
        assert_eq!(parameter(&sent.url, never), None, "{never}");
    }
}

async fn each_user_has_his_own_account(played: &Played) {
    let (world, provider, tokens, _) = connected(played).await;
    assert_eq!(world.account(&provider, &tokens).await.as_ref(), Some(&played.accounts[0]));
    let other = world.connect(&provider, "bob", played.scopes).await;
    assert_eq!(world.account(&provider, &other).await.as_ref(), Some(&played.accounts[1]));
}

async fn a_refresh_rotates_as_the_definition_says(played: &Played) {
    let (world, provider, first, refresh) = connected(played).await;
    let second = tokens(world.refresh(&provider, &refresh, played.scopes).await);
    assert!(world.dev.is_access_token_live(&second.access));
    assert_ne!(first.access.expose(), second.access.expose());
    assert_eq!(world.dev.is_access_token_live(&first.access), !provider.definition.refresh_invalidates_access_token);
    match provider.definition.rotation {
        Rotation::None => {
            assert!(second.refresh.is_none());
            tokens(world.refresh(&provider, &refresh, played.scopes).await);
        }
        Rotation::Reuse => {
            assert!(world.dev.is_refresh_token_live(&second.refresh.unwrap()));
            tokens(world.refresh(&provider, &refresh, played.scopes).await);
        }
        Rotation::Strict | Rotation::Grace { .. } => {
            let next = second.refresh.unwrap();
            tokens(world.refresh(&provider, &next, played.scopes).await);
            assert_eq!(failure(world.refresh(&provider, &refresh, played.scopes).await).class, ReplyClass::Terminal);
        }
    }
}

async fn a_code_and_a_refresh_token_that_are_worth_nothing_are_terminal(played: &Played) {
    let world = World::start().await;
    let provider = world.provider(played.definition);
    let sent = world.authorization_url(&provider, played.scopes).await;
    let code = parameter(&world.approved(&sent.url, "alice").await, "code").unwrap();
    let failed = failure(world.exchange(&provider, &sent.server.token, "c4n4ry").await);
    assert_eq!(failed.class, ReplyClass::Terminal, "{failed:?}");
    assert!(!format!("{failed} {failed:?}").contains("c4n4ry"));
    let elsewhere = "https://elsewhere.example/".parse().unwrap();
    let failed = failure(world.exchange_for(&provider, &sent.server.token, &code, &elsewhere).await);
    assert_eq!(failed.class, ReplyClass::Terminal, "{failed:?}");
    tokens(world.exchange(&provider, &sent.server.token, &code).await);
    let again = failure(world.exchange(&provider, &sent.server.token, &code).await);
    assert_eq!(again.class, ReplyClass::Terminal, "{again:?}");
    let unknown = RefreshToken::new("c4n4ry".to_owned());
    let failed = failure(world.refresh(&provider, &unknown, played.scopes).await);
    assert_eq!(failed.class, ReplyClass::Terminal, "{failed:?}");
    assert!(!format!("{failed} {failed:?}").contains("c4n4ry"));
}

async fn a_wrong_secret_blames_the_configuration_and_no_token(played: &Played) {
    let (world, provider, _, refresh) = connected(played).await;
    let wrong = Provider { client_secret: Some(ClientSecret::new("wrong".to_owned())), ..provider.clone() };
    let failed = failure(world.refresh(&wrong, &refresh, played.scopes).await);
    assert_eq!(failed.class, ReplyClass::Configuration, "{failed:?}");
    tokens(world.refresh(&provider, &refresh, played.scopes).await);
}

async fn a_revocation_does_what_is_said_of_it(played: &Played) {
    let (world, provider, tokens, refresh) = connected(played).await;
    let (outcome, access_stays, refresh_stays) = played.revocation;
    for _ in 0..2 {
        let revoked = world.servers.revoke(&provider, Some(&tokens.access), Some(&refresh)).await;
        assert_eq!(revoked, Ok(outcome), "a revocation is safe to repeat");
    }
    assert_eq!(world.dev.is_access_token_live(&tokens.access), access_stays);
    assert_eq!(world.dev.is_refresh_token_live(&refresh), refresh_stays);
    if !refresh_stays {
        assert_eq!(failure(world.refresh(&provider, &refresh, played.scopes).await).class, ReplyClass::Terminal);
    }
    let told = &provider.definition.revocation_side_effects;
    assert!(told.contains(played.side_effect), "{told}");
}

//! `claviger token`: the token goes to standard output, what to know about it to standard error. Several are asked for
//! in one call; each is printed or said to be refused.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    ClientOptions, Failure, Session, failure,
    output::{bare, harmless, next_step, note, or_dash, time},
};
use crate::{
    client::ClientError,
    proto::v1::{
        GetPluginTokenRequest, GetPluginTokenResponse, GetPluginTokensRequest, plugin_token_result::Result as Outcome,
    },
};

#[derive(Debug, Args)]
pub struct Token {
    /// The plugin that the token is for; several get a line each, its name and its token with a tab between
    #[arg(required = true, value_name = "PLUGIN")]
    plugins: Vec<String>,
    /// Which account, when you have several [default: the only one]
    #[arg(long)]
    account: Option<String>,
    /// A scope that is needed; may be repeated [default: the plugin's]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long the token must still live, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS")]
    min_remaining: Option<u32>,
    /// Print the whole header line, as `curl --header @-` reads it; for one plugin
    #[arg(long)]
    header: bool,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

impl Token {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self.plugins.as_slice() {
            [plugin] => self.print_one(session, plugin).await,
            _ if self.header => Err(Failure::SeveralHeaders),
            plugins => self.print_several(session, plugins).await,
        }
    }

    async fn print_one(&self, session: &Session, plugin: &str) -> Result<(), Failure> {
        let answer = session.client.get_plugin_token(self.request(plugin)).await?;
        let text = if self.header {
            header_line(&answer)
        } else if session.printer.is_json() {
            Zeroizing::new(format!("{:#}", document(&answer)))
        } else {
            Zeroizing::new(answer.access_token.clone())
        };
        session.printer.line(&text)?;
        // Only for eyes: whoever captures the token gets nothing else with it.
        if io::stdout().is_terminal() && !session.printer.is_json() {
            io::stderr().write_all(facts(&answer).as_bytes())?;
        }
        Ok(())
    }

    /// Whatever there is, is printed, also when something is refused.
    async fn print_several(&self, session: &Session, plugins: &[String]) -> Result<(), Failure> {
        let requests = plugins.iter().map(|plugin| self.request(plugin)).collect();
        let answer = session.client.get_plugin_tokens(GetPluginTokensRequest { requests }).await?;
        let outcomes = answer.results.into_iter().filter_map(|result| result.result);
        let (mut documents, mut refused) = (Vec::new(), 0);
        for (plugin, outcome) in plugins.iter().zip(outcomes) {
            match outcome {
                Outcome::Token(token) if session.printer.is_json() => {
                    documents.push(json!({ "plugin": plugin, "token": document(&token) }));
                }
                Outcome::Token(token) => {
                    session.printer.line(&Zeroizing::new(format!("{plugin}\t{}", token.access_token)))?;
                }
                Outcome::Error(error) => {
                    refused += 1;
                    let error = ClientError::from(error);
                    documents.push(json!({ "plugin": plugin, "error": failure::refusal(&error) }));
                    if !session.printer.is_json() {
                        let next = error.authentication_required.as_deref().map(next_step).unwrap_or_default();
                        note(format!("{plugin}: {}\n{next}", harmless(&error.to_string())).trim_end())?;
                    }
                }
            }
        }
        if session.printer.is_json() {
            session.printer.line(&Zeroizing::new(format!("{:#}", json!({ "results": documents }))))?;
        }
        if refused > 0 { Err(Failure::SomeRefused { refused, of: plugins.len() }) } else { Ok(()) }
    }

    fn request(&self, plugin: &str) -> GetPluginTokenRequest {
        GetPluginTokenRequest {
            plugin: plugin.to_owned(),
            account: self.account.clone().unwrap_or_default(),
            scopes: self.scopes.clone(),
            min_remaining: self
                .min_remaining
                .map(|seconds| prost_types::Duration { seconds: seconds.into(), nanos: 0 }),
            ..Default::default()
        }
    }
}

fn header_line(answer: &GetPluginTokenResponse) -> Zeroizing<String> {
    let (header, scheme) =
        answer.usage.as_ref().map_or(("authorization", "Bearer"), |usage| (&*usage.header, &*usage.scheme));
    let gap = if scheme.is_empty() { "" } else { " " };
    Zeroizing::new(format!("{header}: {scheme}{gap}{}", answer.access_token))
}

fn facts(answer: &GetPluginTokenResponse) -> String {
    let usage = answer.usage.clone().unwrap_or_default();
    let expires = time(answer.expires_at.as_ref()).unwrap_or_else(|| "the provider does not say".to_owned());
    format!(
        "account: {}\nscopes: {}\nexpires: {expires}\ngeneration: {}\nheader: {}: {} <token>\nbase URL: {}\n",
        harmless(&or_dash(&answer.account)),
        harmless(&answer.scopes.join(" ")),
        answer.generation,
        harmless(&usage.header),
        harmless(&usage.scheme),
        harmless(&or_dash(&usage.base_url)),
    )
}

fn document(answer: &GetPluginTokenResponse) -> Value {
    json!({
        "access_token": answer.access_token,
        "token_type": answer.token_type,
        "expires_at": time(answer.expires_at.as_ref()),
        "expires_in": answer.expires_in.map(|left| left.seconds),
        "scopes": answer.scopes,
        "connection_id": answer.connection_id,
        "credential_id": answer.credential_id,
        "account": answer.account,
        "generation": answer.generation,
        "usage": answer.usage.as_ref().map(|usage| json!({
            "header": usage.header, "scheme": usage.scheme, "base_url": usage.base_url,
        })),
        "scope_enforcement": bare(answer.scope_enforcement().as_str_name(), "SCOPE_ENFORCEMENT_"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::TokenUsage;

    #[test]
    fn the_header_line_follows_the_plugins_usage() {
        let mut answer = GetPluginTokenResponse { access_token: "t".to_owned(), ..Default::default() };
        assert_eq!(*header_line(&answer), "authorization: Bearer t");
        answer.usage = Some(TokenUsage { header: "x-api-key".to_owned(), ..Default::default() });
        assert_eq!(*header_line(&answer), "x-api-key: t");
    }
}

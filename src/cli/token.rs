//! `claviger token`: the token goes to standard output, what to know about it to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    ClientOptions, Failure, Session,
    output::{bare, harmless, or_dash, time},
};
use crate::proto::v1::{GetPluginTokenRequest, GetPluginTokenResponse};

#[derive(Debug, Args)]
pub struct Token {
    /// The plugin that the token is for
    plugin: String,
    /// Which account, when you have several [default: the only one]
    #[arg(long)]
    account: Option<String>,
    /// A scope that is needed; may be repeated [default: the plugin's]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long the token must still live, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS")]
    min_remaining: Option<u32>,
    /// Print the whole header line, as `curl --header @-` reads it
    #[arg(long)]
    header: bool,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

impl Token {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let request = GetPluginTokenRequest {
            plugin: self.plugin.clone(),
            account: self.account.clone().unwrap_or_default(),
            scopes: self.scopes.clone(),
            min_remaining: self
                .min_remaining
                .map(|seconds| prost_types::Duration { seconds: seconds.into(), nanos: 0 }),
            ..Default::default()
        };
        let answer = session.client.get_plugin_token(request).await?;
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

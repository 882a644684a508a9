//! `claviger revoke`

use clap::Args;
use serde_json::{Value, json};

use super::{
    ClientOptions, Failure, Session,
    output::{bare, holder_document, or_dash},
    words,
};
use crate::proto::v1::{RevokeRequest, RevokeResult, revoke_request::Target};

#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    target: TargetOptions,
    /// Say what would happen and do nothing
    #[arg(long)]
    preview: bool,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TargetOptions {
    /// One connection
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// Every connection that serves this plugin
    #[arg(long, value_name = "PLUGIN")]
    plugin: Option<String>,
    /// All your connections
    #[arg(long)]
    all: bool,
}

impl Revoke {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let request = RevokeRequest { target: self.target.target(), preview: self.preview };
        let results = session.client.revoke(request).await?.results;
        if session.printer.is_json() {
            let documents: Vec<Value> = results.iter().map(document).collect();
            session.printer.document(&json!({ "preview": self.preview, "results": documents }))?;
        } else {
            let header = ["CONNECTION", "PROVIDER", "ACCOUNT", "HERE", "PROVIDER SAYS", "HELD BY", "SIDE EFFECTS"];
            session.printer.table(&header, results.iter().map(row), "nothing to revoke")?;
        }
        Ok(())
    }
}

impl TargetOptions {
    /// clap has made sure that exactly one was given.
    fn target(&self) -> Option<Target> {
        let connection = self.connection.clone().map(Target::ConnectionId);
        let plugin = self.plugin.clone().map(Target::Plugin);
        connection.or(plugin).or(self.all.then_some(Target::AllMine(true)))
    }
}

fn row(result: &RevokeResult) -> Vec<String> {
    vec![
        result.connection_id.clone(),
        result.provider.clone(),
        or_dash(&result.account),
        bare(result.local_outcome().as_str_name(), "LOCAL_OUTCOME_").to_owned(),
        bare(result.remote_outcome().as_str_name(), "REMOTE_OUTCOME_").to_owned(),
        or_dash(&words::holders(&result.holders, result.holders_forgotten)),
        or_dash(&result.side_effects),
    ]
}

fn document(result: &RevokeResult) -> Value {
    json!({
        "connection_id": result.connection_id,
        "provider": result.provider,
        "account": result.account,
        "local_outcome": bare(result.local_outcome().as_str_name(), "LOCAL_OUTCOME_"),
        "remote_outcome": bare(result.remote_outcome().as_str_name(), "REMOTE_OUTCOME_"),
        "side_effects": result.side_effects,
        "holders": result.holders.iter().map(holder_document).collect::<Vec<_>>(),
        "holders_forgotten": result.holders_forgotten,
    })
}

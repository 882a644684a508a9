//! `claviger connections`

use clap::Args;
use serde_json::{Value, json};

use super::{
    ClientOptions, Failure, Session,
    output::{bare, connection_document, or_dash, time},
    words,
};
use crate::{
    domain::Timestamp,
    proto::v1::{Connection, ListConnectionsRequest},
};

#[derive(Debug, Args)]
pub struct Connections {
    /// Only those at this provider
    #[arg(long)]
    provider: Option<String>,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

impl Connections {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let request = ListConnectionsRequest { provider: self.provider.clone().unwrap_or_default() };
        let connections = session.client.list_connections(request).await?.connections;
        let now = session.clock.now();
        if session.printer.is_json() {
            let documents: Vec<Value> =
                connections.iter().map(|connection| connection_document(connection, now)).collect();
            session.printer.document(&json!({ "connections": documents }))?;
        } else {
            session.printer.table(
                HEADER,
                connections.iter().map(|connection| row(connection, now)),
                "no connections; try: claviger connect PLUGIN",
            )?;
        }
        Ok(())
    }
}

pub(super) const HEADER: &[&str] =
    &["CONNECTION", "PROVIDER", "ACCOUNT", "STATUS", "STATE", "NEXT", "WHY", "EXPIRES", "HELD BY", "SCOPES"];

pub(super) fn row(connection: &Connection, now: Timestamp) -> Vec<String> {
    vec![
        connection.connection_id.clone(),
        connection.provider.clone(),
        or_dash(&connection.account),
        bare(connection.badge().as_str_name(), "CONNECTION_BADGE_").to_lowercase(),
        bare(connection.state().as_str_name(), "CREDENTIAL_STATE_").to_owned(),
        or_dash(&words::next(connection, now)),
        or_dash(&words::why(connection)),
        or_dash(&time(connection.expires_at.as_ref()).unwrap_or_default()),
        or_dash(&words::holders(&connection.holders, connection.holders_forgotten)),
        or_dash(&connection.scopes.join(" ")),
    ]
}

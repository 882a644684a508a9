//! `claviger keys`: which sealing keys there are, superseding them, and declaring one unneeded.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    ClientOptions, Failure, Session,
    output::{bare, note, or_dash, time},
    progress::Progress,
};
use crate::proto::v1::{
    KeyRotation, ListKeysRequest, RetireKeyRequest, RotateKeyRequest, SealingKey, rotate_key_request::Target,
};

/// How often a rotation is asked how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// See, supersede and retire the keys that a running broker seals with
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(Status),
    Rotate(Rotate),
    Retire(Retire),
}

/// List the keys, how many rows each still seals, and how far a rotation is
#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    options: ClientOptions,
}

/// Supersede keys while calls are served
///
/// A new root key is made by `claviger generate-key`, put first in `sealing.root_keys`, and known to the broker from its
/// next start on. A rotation goes on by itself, also in the next process; asking again asks how far it is.
#[derive(Debug, Args)]
struct Rotate {
    #[command(flatten)]
    target: TargetOptions,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    options: ClientOptions,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TargetOptions {
    /// The root key, by the first of `sealing.root_keys`
    #[arg(long)]
    root: bool,
    /// The key of one tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The key of each tenant
    #[arg(long)]
    all_tenants: bool,
}

/// Declare that a superseded root key is not needed any more
///
/// Afterwards take it out of `sealing.root_keys` and destroy its file: what was copied while it was in force does not open
/// without it, archives included.
#[derive(Debug, Args)]
struct Retire {
    /// The key, as `claviger keys status` names it
    key: String,
    #[command(flatten)]
    options: ClientOptions,
}

impl Keys {
    pub(super) fn options(&self) -> &ClientOptions {
        match &self.command {
            Command::Status(command) => &command.options,
            Command::Rotate(command) => &command.options,
            Command::Retire(command) => &command.options,
        }
    }

    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        match &self.command {
            Command::Status(_) => status(session).await,
            Command::Rotate(command) => command.run(session).await,
            Command::Retire(command) => command.run(session).await,
        }
    }
}

async fn status(session: &Session) -> Result<(), Failure> {
    let listed = session.client.list_keys(ListKeysRequest {}).await?;
    if session.printer.is_json() {
        let keys: Vec<Value> = listed.keys.iter().map(document).collect();
        let rotation = listed.rotation.as_ref().map(rotation_document);
        session.printer.document(&json!({ "keys": keys, "rotation": rotation }))?;
        return Ok(());
    }
    let header = ["KEY", "KIND", "TENANT", "STATE", "LIVE ROWS", "SINCE"];
    session.printer.table(&header, listed.keys.iter().map(row), "there are no keys")?;
    if let Some(rotation) = &listed.rotation {
        note(&format!("a rotation is under way: {}", left(rotation)))?;
    }
    Ok(())
}

impl Rotate {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        let request = RotateKeyRequest { target: self.target.target() };
        let mut rotation = session.client.rotate_key(request).await?.rotation.unwrap_or_default();
        if self.wait {
            let mut progress = Progress::new(Some(rotation.begun_rows));
            while rotation.left_rows > 0 {
                progress.show(rotation.begun_rows.saturating_sub(rotation.left_rows), &left(&rotation));
                session.clock.sleep_until(session.clock.now().plus(LOOK)).await;
                let now = session.client.list_keys(ListKeysRequest {}).await?.rotation;
                rotation = now.unwrap_or(KeyRotation { left_rows: 0, ..rotation });
            }
        }
        if session.printer.is_json() {
            session.printer.document(&rotation_document(&rotation))?;
        } else {
            let cells = [
                rotation.begun_rows.to_string(),
                rotation.left_rows.to_string(),
                time(rotation.started_at.as_ref()).unwrap_or_default(),
            ];
            session.printer.table(&["ROWS", "LEFT", "BEGUN"], [cells.to_vec()], "")?;
        }
        Ok(())
    }
}

impl TargetOptions {
    /// clap has made sure that exactly one was given.
    fn target(&self) -> Option<Target> {
        let tenant = self.tenant.clone().map(Target::Tenant);
        let root = self.root.then_some(Target::Root(true));
        tenant.or(root).or(self.all_tenants.then_some(Target::AllTenants(true)))
    }
}

impl Retire {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        session.client.retire_key(RetireKeyRequest { key_id: self.key.clone() }).await?;
        if session.printer.is_json() {
            session.printer.document(&json!({ "retired": self.key }))?;
        } else {
            session.printer.line(&format!(
                "{} is retired: take it out of sealing.root_keys, restart the broker, and destroy the key's file and its copies",
                self.key
            ))?;
        }
        Ok(())
    }
}

fn left(rotation: &KeyRotation) -> String {
    format!("{} of {} rows are left", rotation.left_rows, rotation.begun_rows)
}

fn row(key: &SealingKey) -> Vec<String> {
    vec![
        key.key_id.clone(),
        bare(key.kind().as_str_name(), "SEALING_KEY_KIND_").to_owned(),
        or_dash(&key.tenant),
        bare(key.state().as_str_name(), "SEALING_KEY_STATE_").to_owned(),
        key.live_rows.to_string(),
        or_dash(&time(key.made_at.as_ref()).unwrap_or_default()),
    ]
}

fn document(key: &SealingKey) -> Value {
    json!({
        "key_id": key.key_id,
        "kind": bare(key.kind().as_str_name(), "SEALING_KEY_KIND_"),
        "tenant": (!key.tenant.is_empty()).then_some(&key.tenant),
        "state": bare(key.state().as_str_name(), "SEALING_KEY_STATE_"),
        "live_rows": key.live_rows,
        "made_at": time(key.made_at.as_ref()),
    })
}

fn rotation_document(rotation: &KeyRotation) -> Value {
    json!({
        "begun_rows": rotation.begun_rows,
        "left_rows": rotation.left_rows,
        "started_at": time(rotation.started_at.as_ref()),
    })
}

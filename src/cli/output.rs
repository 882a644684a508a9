//! Tables for people, JSON for scripts.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::{options::Format, words};
use crate::{
    domain::Timestamp as Now,
    proto::v1::{AuthenticationRequired, Connection, CredentialHolder, ErrorReason, NextAction},
};

/// Standard output in the format that was asked for.
#[derive(Clone, Copy)]
pub(super) struct Printer(Format);

impl Printer {
    pub(super) fn new(format: Format) -> Self {
        Self(format)
    }

    pub(super) fn is_json(self) -> bool {
        self.0 == Format::Json
    }

    pub(super) fn line(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    pub(super) fn document(self, document: &Value) -> io::Result<()> {
        self.line(&format!("{document:#}"))
    }

    /// Rows under a header, or `nothing` when there are none.
    pub(super) fn table(
        self,
        header: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
        nothing: &str,
    ) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(header);
        for row in rows {
            table.add_row(row.iter().map(|cell| harmless(cell)));
        }
        if table.row_count() == 0 {
            return note(nothing);
        }
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 2));
        });
        self.line(&table.trim_fmt())
    }
}

/// Says something to the person at the terminal, beside the output.
pub(super) fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{text}")
}

/// In red on a terminal.
pub(super) fn alarm(text: &str) -> String {
    if io::stderr().is_terminal() { format!("\x1b[1;31m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text from elsewhere without what would steer a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// What the user has to do, as lines for the terminal.
pub(super) fn next_step(required: &AuthenticationRequired) -> String {
    let mut text = String::new();
    if !required.missing_scopes.is_empty() {
        text.push_str(&format!("  scopes: {}\n", harmless(&required.missing_scopes.join(" "))));
    }
    if !required.auth_url.is_empty() {
        text.push_str(&format!("  authorize at: {}\n", harmless(&required.auth_url)));
    }
    if let Some(at) = &required.expires_at {
        text.push_str(&format!("  open until: {at}\n"));
    }
    if !required.plugin.is_empty() {
        text.push_str(&format!("  or run: claviger connect {}\n", harmless(&required.plugin)));
    }
    text
}

pub(super) fn required_document(required: &AuthenticationRequired) -> Value {
    json!({
        "auth_url": required.auth_url,
        "flow_id": required.flow_id,
        "expires_at": time(required.expires_at.as_ref()),
        "session_id": required.session_id,
        "task_id": required.task_id,
        "platform_request_id": required.platform_request_id,
        "missing_scopes": required.missing_scopes,
        "provider": required.provider,
        "plugin": required.plugin,
        "claims": required.claims,
        "acr_values": required.acr_values,
        "max_age": required.max_age.as_ref().map(|age| age.seconds),
    })
}

pub(super) fn connection_document(connection: &Connection, now: Now) -> Value {
    json!({
        "connection_id": connection.connection_id,
        "provider": connection.provider,
        "account": connection.account,
        "state": bare(connection.state().as_str_name(), "CREDENTIAL_STATE_"),
        "badge": bare(connection.badge().as_str_name(), "CONNECTION_BADGE_"),
        "generation": connection.generation,
        "scopes": connection.scopes,
        "expires_at": time(connection.expires_at.as_ref()),
        "created_at": time(connection.created_at.as_ref()),
        "credential_id": connection.credential_id,
        "reason": reason(connection.reason()),
        "authorization_ends_at": time(connection.authorization_ends_at.as_ref()),
        "next_action": next_action(connection.next_action()),
        "next_action_at": time(connection.next_action_at.as_ref()),
        "failures": connection.failures,
        "words": words::sentence(connection, now),
        "holders": connection.holders.iter().map(holder_document).collect::<Vec<_>>(),
        "holders_forgotten": connection.holders_forgotten,
    })
}

pub(super) fn holder_document(holder: &CredentialHolder) -> Value {
    json!({
        "holder": holder.holder,
        "generation": holder.generation,
        "outcome": bare(holder.outcome().as_str_name(), "APPLY_OUTCOME_"),
        "reported_generation": holder.reported_generation,
        "reported_at": time(holder.reported_at.as_ref()),
    })
}

/// An enum's value without the prefix that the contract's style asks for.
pub(super) fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// `None`: nothing.
fn next_action(next: NextAction) -> Option<&'static str> {
    (next != NextAction::Unspecified).then(|| bare(next.as_str_name(), "NEXT_ACTION_"))
}

/// `None` for no reason.
pub(super) fn reason(reason: ErrorReason) -> Option<&'static str> {
    (reason != ErrorReason::Unspecified).then(|| bare(reason.as_str_name(), "ERROR_REASON_"))
}

/// RFC 3339; `None` where the provider never said.
pub(super) fn time(at: Option<&Timestamp>) -> Option<String> {
    at.map(ToString::to_string)
}

/// For a cell: what is absent is a dash.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
    }

    #[test]
    fn who_must_authorize_is_told_where_and_how() {
        let required = AuthenticationRequired {
            auth_url: "https://broker.example/connect/flw_1".to_owned(),
            plugin: "calendar".to_owned(),
            missing_scopes: vec!["read".to_owned(), "write".to_owned()],
            expires_at: Some(Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            ..Default::default()
        };
        let expected = "  scopes: read write\n  authorize at: https://broker.example/connect/flw_1\n  \
                        open until: 2027-01-15T08:00:00Z\n  or run: claviger connect calendar\n";
        assert_eq!(next_step(&required), expected);
    }
}

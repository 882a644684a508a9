//! What every client command takes.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::{Failure, output::Printer};
use crate::{
    app::SystemClock,
    client::{Client, ClientCertificate, Connect, Jitter},
    domain::{Clock, PresentedToken},
    sealing::Random,
};

/// The variable that holds the platform token.
const TOKEN_VARIABLE: &str = "CLAVIGER_TOKEN";

/// The token comes from `CLAVIGER_TOKEN` or from a file: arguments are visible to every process of the machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(super) struct ClientOptions {
    /// Where the broker listens for gRPC
    #[arg(long, env = "CLAVIGER_ENDPOINT", default_value = "http://127.0.0.1:50051", value_name = "URL")]
    endpoint: String,
    /// File with your platform token [default: the variable CLAVIGER_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the authorities to trust [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Name in the broker's certificate [default: the endpoint's host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// PEM file with your certificate, for a broker that asks its clients for one
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    client_certificate_file: Option<PathBuf>,
    /// PEM file with your certificate's private key
    #[arg(long, value_name = "FILE", requires = "client_certificate_file")]
    client_key_file: Option<PathBuf>,
    /// Allow http:// beyond this machine
    #[arg(long)]
    allow_plaintext: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For scripts: one document, or one a line where there is no end
    Json,
}

/// What a client command works with.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) printer: Printer,
    pub(super) clock: Arc<dyn Clock>,
}

impl ClientOptions {
    pub(super) fn session(&self) -> Result<Session, Failure> {
        let read = |path: &PathBuf| fs::read(path).map_err(|source| Failure::File { path: path.clone(), source });
        let certificate = match (&self.client_certificate_file, &self.client_key_file) {
            (Some(chain), Some(key)) => Some(ClientCertificate { chain: read(chain)?, key: read(key)?.into() }),
            _ => None,
        };
        let connect = Connect {
            endpoint: self.endpoint.clone(),
            ca: self.ca_file.as_ref().map(read).transpose()?,
            server_name: self.server_name.clone(),
            certificate,
            allow_plaintext: self.allow_plaintext,
        };
        Ok(Session {
            client: connect.with_token(&self.token()?)?,
            printer: Printer::new(self.output),
            clock: Arc::new(SystemClock),
        })
    }

    /// As it stands now: whoever keeps the file fresh keeps long commands alive.
    pub(super) fn token(&self) -> Result<PresentedToken, Failure> {
        let text = match &self.token_file {
            Some(path) => fs::read_to_string(path).map_err(|source| Failure::File { path: path.clone(), source })?,
            None => variable(TOKEN_VARIABLE).ok_or(Failure::TokenMissing)?,
        };
        let text = Zeroizing::new(text);
        match text.trim() {
            "" => Err(Failure::TokenMissing),
            token => Ok(PresentedToken::new(token.to_owned())),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a token that clap reads would be an argument too")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Evenly distributed; zero, the eager end, should the random source fail.
pub(super) fn jitter() -> Jitter {
    let random = Random::system();
    Box::new(move |ceiling: Duration| {
        let fraction = random.bytes().map_or(0, u32::from_be_bytes);
        ceiling.mul_f64(f64::from(fraction) / f64::from(u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_ceiling_and_varies() {
        let mut jitter = jitter();
        let waits: Vec<_> = (0..64).map(|_| jitter(Duration::from_secs(30))).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(30)));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}

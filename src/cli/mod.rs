//! The command line.
//!
//! - [`options`]: what every client command takes, and the [`Session`] it makes of that
//! - [`connect`] (with [`loopback`]), [`token`], [`connections`], [`watch`], [`revoke`]: one file a command
//! - [`backup`], [`keys`]: for operators of a running broker · [`restore`], [`store`]: of one that is stopped
//! - [`serve`]: the broker · [`check_config`], [`doctor`], [`generate_key`]
//! - [`dev`]: the broker with a provider, for development · [`signals`]: what ends both
//! - [`output`]: tables, JSON, colour · [`progress`]: long work · [`failure`]: what went wrong and the exit code

mod backup;
mod check_config;
mod connect;
mod connections;
mod dev;
mod doctor;
mod failure;
mod generate_key;
mod keys;
mod loopback;
mod options;
mod output;
mod progress;
mod restore;
mod revoke;
mod serve;
mod signals;
mod store;
mod token;
mod watch;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;
use options::{ClientOptions, Session};

/// Fresh OAuth tokens for AI agents, sealed, audited and watched.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    Serve(serve::Serve),
    /// Say everything that is wrong with a configuration file
    CheckConfig(check_config::CheckConfig),
    /// Connect an account for a plugin
    Connect(connect::Connect),
    /// Print a fresh access token for a plugin
    Token(token::Token),
    /// List your connections
    Connections(connections::Connections),
    /// Run the broker with a development authorization server, on this machine alone
    Dev(dev::Dev),
    Doctor(doctor::Doctor),
    /// Make a root key
    GenerateKey(generate_key::GenerateKey),
    /// Follow what happens to your credentials
    Watch(watch::Watch),
    /// End connections, here and at their providers
    Revoke(revoke::Revoke),
    Keys(keys::Keys),
    Backup(backup::Backup),
    Restore(restore::Restore),
    /// Write a store's files anew
    Store(store::Store),
}

/// Runs the command of this process's arguments, says what went wrong, and turns it into an exit code.
pub async fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Backup(command) => client(&command.options, async |session| command.run(session).await).await,
        Command::Serve(command) => edge(command.run().await),
        Command::CheckConfig(command) => edge(command.run()),
        Command::Connect(command) => client(&command.options, async |session| command.run(session).await).await,
        Command::Token(command) => client(&command.options, async |session| command.run(session).await).await,
        Command::Connections(command) => client(&command.options, async |session| command.run(session).await).await,
        Command::Dev(command) => edge(command.run().await),
        Command::Doctor(command) => command.run().await,
        Command::GenerateKey(command) => edge(command.run()),
        Command::Keys(command) => client(command.options(), async |session| command.run(session).await).await,
        Command::Restore(command) => edge(command.run().await),
        Command::Store(command) => edge(command.run()),
        Command::Watch(command) => client(&command.options, async |session| command.run(session).await).await,
        Command::Revoke(command) => client(&command.options, async |session| command.run(session).await).await,
    }
}

/// For commands that run something here, rather than ask a broker.
fn edge(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claviger: {error:#}");
            failure::exit_code_of(&error)
        }
    }
}

async fn client(options: &ClientOptions, command: impl AsyncFnOnce(&Session) -> Result<(), Failure>) -> ExitCode {
    let result = match options.session() {
        Ok(session) => command(&session).await,
        Err(failure) => Err(failure),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(options.output);
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_option_takes_a_token() {
        for command in Cli::command().get_subcommands() {
            let names: Vec<_> = command.get_arguments().filter_map(|option| option.get_long()).collect();
            assert!(!names.contains(&"token"), "{}: arguments are visible to every process", command.get_name());
        }
    }
}

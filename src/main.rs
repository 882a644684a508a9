//! The one binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use claviger::cli::{self, Cli};

/// Gives memory back under load that comes and goes, which the C library's does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}

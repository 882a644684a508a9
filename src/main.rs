//! The one binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use claviger::cli::{self, Cli};
use tokio::runtime::Builder;

/// Gives memory back under load that comes and goes, which the C library's does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("claviger: no threads can be had: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::run(cli));
    // Without waiting for blocking calls: one that hangs, on a disk or a resolver, must not keep the process alive.
    runtime.shutdown_background();
    code
}

//! Keeps the process's memory, which holds keys, out of files.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Core dumps could not be switched off.
#[derive(Debug, thiserror::Error)]
#[error("core dumps could not be switched off")]
pub struct CoreDumpsNotDisabled {
    #[from]
    source: io::Error,
}

/// Switches core dumps off for the life of the process, and on Linux also debuggers of the same user. Called once,
/// before the first key is read.
pub fn disable_core_dumps() -> Result<(), CoreDumpsNotDisabled> {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, nothing).map_err(io::Error::from)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(io::Error::from)?;
    Ok(())
}

/// Whether [`disable_core_dumps`] is in force.
pub fn core_dumps_are_disabled() -> bool {
    let limit = getrlimit(Resource::Core);
    let limited = limit.current == Some(0) && limit.maximum == Some(0);
    #[cfg(target_os = "linux")]
    let limited = limited
        && rustix::process::dumpable_behavior()
            .is_ok_and(|behavior| behavior == rustix::process::DumpableBehavior::NotDumpable);
    limited
}

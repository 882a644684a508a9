//! The program as a process: what a stranger sees who starts it, calls it, stops it and kills it.
//!
//! - `configured`: `serve` and `check-config` · `reloading`: SIGHUP · `dev`: the harness · `starting`, `stopping`: good
//!   and bad starts, ends · `tour` · `pasted`: the quick start's lines · `killed`: what a kill leaves
//! - `faults`: a provider that fails · `recovery`: backups and what is made of them · `commands`: the client commands · `doctor` · `secrets`: what nobody may find

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

mod commands;
mod configured;
mod dev;
mod doctor;
mod faults;
mod killed;
mod pasted;
mod process;
mod recovery;
mod reloading;
mod secrets;
mod starting;
mod stopping;
mod tour;

#[path = "../support/emitted/mod.rs"]
mod emitted;
#[path = "../support/tools.rs"]
mod tools;

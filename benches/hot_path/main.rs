//! What a warm GetPluginToken and ValidatePlatformToken cost beside a bare tonic call with the same messages and
//! metadata, as ratios measured in one run. `docs/performance.md` says how it is measured and why.
//!
//! Three processes: this one; [`broker`], the whole broker; [`bare`], tonic alone. The two servers stand on one core, and
//! one of them is asked at a time; h2load stands on the other, and this process waits for it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails ends the run")]

mod bare;
mod broker;
mod load;
mod servers;
mod setting;
mod table;

use std::{env, path::Path};

use load::{Load, Measured, Target};
use table::Row;

/// Like the binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 9;
const SERVERS: &str = "0";
const CLIENTS: &str = "1";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve-bare", directory] => bare::serve(Path::new(directory)),
        ["serve-broker", directory, issuer] => broker::serve(Path::new(directory), issuer),
        // cargo adds `--bench`; a name picks the rows that contain it
        _ => measure(arguments.iter().find(|argument| !argument.starts_with("--")).map(String::as_str)),
    }
}

fn measure(only: Option<&str>) {
    let processors = std::thread::available_parallelism().unwrap().get();
    assert!(processors >= 2, "servers and clients need a processor each, and there is only one");
    let setting = setting::Setting::prepare();
    table::head(&setting, ROUNDS);
    for load in load::ALL.iter().filter(|load| only.is_none_or(|only| load.name.contains(only))) {
        println!("{}", compare(&setting, load));
    }
    setting.end();
}

/// Alternating rounds, so that what the machine does meanwhile meets both sides.
fn compare(setting: &setting::Setting, load: &Load) -> Row {
    let (bare, broker) = (Target::of(&setting.bare), Target::of(&setting.broker));
    // The first round warms connections and caches on both sides.
    load.run(setting, &bare);
    load.run(setting, &broker);
    let rounds: Vec<(Measured, Measured)> = (0..ROUNDS)
        .map(|round| {
            // Who comes second may find the machine in another state.
            let pair = if round % 2 == 0 {
                let bare = load.run(setting, &bare);
                (bare, load.run(setting, &broker))
            } else {
                let broker = load.run(setting, &broker);
                (load.run(setting, &bare), broker)
            };
            setting.check();
            pair
        })
        .collect();
    Row::of(load, &rounds)
}

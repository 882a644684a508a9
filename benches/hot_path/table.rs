//! The table, as `docs/performance.md` holds it.

use std::fmt;

use super::{
    load::{Load, Measured},
    setting::Setting,
};

/// One load over all rounds.
pub(super) struct Row {
    name: String,
    bare: Sides,
    broker: Sides,
    ratio: Spread,
    cpu_ratio: Spread,
}

/// Medians.
struct Sides {
    calls_per_second: f64,
    cpu_per_call: f64,
}

/// Of the ratios of the single rounds.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

pub(super) fn head(setting: &Setting, rounds: usize) {
    let ((get, get_answer), (validate, validate_answer)) =
        (setting.get_plugin_token(), setting.validate_platform_token());
    println!(
        "Bytes: platform token {}; GetPluginToken {} in, {get_answer} out; ValidatePlatformToken {} in, {validate_answer} out.",
        setting.token.expose().len(),
        get.len(),
        validate.len()
    );
    println!("Medians of {rounds} paired rounds; ratios as median (least to most).\n");
    println!(
        "| call | bare, calls/s | broker, calls/s | **ratio** | bare, CPU µs/call | broker, CPU µs/call | CPU ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
}

impl Row {
    pub(super) fn of(load: &Load, rounds: &[(Measured, Measured)]) -> Self {
        let sides = |side: fn(&(Measured, Measured)) -> &Measured| Sides {
            calls_per_second: Spread::of(rounds.iter().map(|round| side(round).calls_per_second)).median,
            cpu_per_call: Spread::of(rounds.iter().map(|round| side(round).cpu_per_call)).median,
        };
        Self {
            name: format!("{}, {} × {}", load.name, load.connections, load.streams),
            bare: sides(|(bare, _)| bare),
            broker: sides(|(_, broker)| broker),
            ratio: Spread::of(rounds.iter().map(|(bare, broker)| broker.calls_per_second / bare.calls_per_second)),
            cpu_ratio: Spread::of(rounds.iter().map(|(bare, broker)| bare.cpu_per_call / broker.cpu_per_call)),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bare, broker, ratio, cpu_ratio } = self;
        write!(f, "| {name} | {:.0} | {:.0} | **{ratio}** ", bare.calls_per_second, broker.calls_per_second)?;
        write!(f, "| {:.1} | {:.1} | {cpu_ratio} |", bare.cpu_per_call, broker.cpu_per_call)
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { least: values[0], median: values[values.len() / 2], most: values[values.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

//! The tables, as `docs/performance.md` holds them.

use std::fmt::Display;

/// What a figure must not be above.
pub(super) struct Goal {
    pub(super) most: f64,
    pub(super) unit: &'static str,
}

pub(super) fn head() {
    println!("| what | measured | goal | |");
    println!("|---|---|---|---|");
}

/// A figure that says something and has no goal.
pub(super) fn told(what: &str, measured: impl Display) {
    println!("| {what} | {measured} | | |");
}

/// `decides` is held against the goal.
pub(super) fn judged(what: &str, measured: impl Display, decides: f64, goal: &Goal) {
    let Goal { most, unit } = goal;
    let verdict = if decides <= *most { "met" } else { "**missed**" };
    println!("| {what} | **{measured}** | ≤ {most} {unit} | {verdict} |");
}

//! What it costs to seal and to open a field of 2 KiB.

use std::hint::black_box;

use claviger::sealing::{AssociatedData, Key, Random};

use super::measure::{Spread, micros, timed};

const ROUNDS: usize = 9;
const TIMES: u32 = 5_000;
const SIZE: usize = 2048;

pub(super) fn measure() {
    let random = Random::system();
    let key = Key::generate("acme".parse().unwrap(), &random).unwrap();
    let place = AssociatedData { kind: 5, record: &[7; 16], field: 2, generation: 1 };
    let plain = vec![b'x'; SIZE];
    let sealed = key.seal(&place, &plain, &random).unwrap();
    let each = |run: &dyn Fn()| {
        Spread::of((0..=ROUNDS).map(|_| micros(timed(|| (0..TIMES).for_each(|_| run())).1) / f64::from(TIMES)).skip(1))
    };
    let sealing = each(&|| drop(black_box(key.seal(&place, &plain, &random))));
    let opening = each(&|| drop(black_box(key.open(&place, &sealed))));
    println!("\n## Sealing\n\nMedians of {ROUNDS} rounds of {TIMES}.\n");
    println!("| {SIZE} bytes | µs |\n|---|---|\n| sealed | {sealing} |\n| opened | {opening} |");
}

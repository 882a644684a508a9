//! What must come of a cell. This is the rule in a second hand: nothing of it is taken from the broker.

use claviger::domain::Rotation;

use crate::{
    cell::{Cell, Point},
    modes::{Learns, Mode},
};

/// How a connection ends up, with no more faults to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Works,
    /// The provider itself said so.
    Dead,
    /// A lost answer has cost the refresh token, or may have.
    Lost,
    /// The provider's registration is refused; the connection is untouched.
    Suspended,
    /// It is tried again, but not within the hour.
    Waits,
}

/// The end, and how many refreshes the provider may see until then.
pub(crate) fn expected(cell: &Cell) -> (End, u64) {
    let mode = cell.mode;
    match cell.point {
        Point::Never | Point::Committed => after_first(mode, mode.learns),
        Point::Posted | Point::Answered => after_first(mode, Learns::Nothing),
        Point::Intent => after_second(mode),
    }
}

/// The first request met the fault; those behind it meet none.
fn after_first(mode: &Mode, learned: Learns) -> (End, u64) {
    match learned {
        Learns::Tokens => (End::Works, 1),
        Learns::Dead => (End::Dead, 1),
        Learns::Refused => (End::Suspended, 1),
        Learns::Later => (End::Works, 2),
        Learns::MuchLater => (End::Waits, 1),
        // One more try tells whether the provider took the first.
        Learns::Nothing if mode.rotation == Rotation::Strict && mode.replaces => (End::Lost, 2),
        Learns::Nothing => (End::Works, 2),
    }
}

/// The first request never took effect, and the broker cannot know; the second met the fault.
fn after_second(mode: &Mode) -> (End, u64) {
    let single_use = matches!(mode.rotation, Rotation::Strict | Rotation::Grace { .. });
    match mode.learns {
        Learns::Tokens => (End::Works, 2),
        Learns::Dead if single_use => (End::Lost, 2),
        Learns::Dead => (End::Dead, 2),
        Learns::Refused => (End::Suspended, 2),
        Learns::Later => (End::Works, 3),
        Learns::MuchLater => (End::Waits, 2),
        // Never a third one.
        Learns::Nothing if mode.rotation == Rotation::Strict => (End::Lost, 2),
        Learns::Nothing => (End::Works, 3),
    }
}

//! What happens in a world, and when: drawn from its seed before it begins.

use claviger::domain::Rotation;

use crate::draw::Draw;

/// Milliseconds.
pub(crate) const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;

pub(crate) struct Plan {
    pub(crate) rotation: Rotation,
    /// Of an access token, in seconds; `None`: the server does not say.
    pub(crate) lifetime: Option<u64>,
    pub(crate) people: usize,
    /// Requests of a hundred that meet a fault on their way.
    pub(crate) faults: u64,
    /// Store calls of a hundred that take a while.
    pub(crate) slowness: u64,
    pub(crate) refreshes_per_second: u32,
    /// For how many seconds one audit record covers repeated reads.
    pub(crate) audit_window: u64,
    /// Where each process is killed; those that come after live on.
    pub(crate) kills: Vec<Kill>,
    /// By time, the latest first.
    pub(crate) actions: Vec<(u64, Action)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect(usize),
    Read(Read),
    Revoke(usize),
    Erase(usize),
    /// Their user ends the grant at the server.
    EndGrant(usize),
    Server(Mood),
    Store {
        up: bool,
    },
    /// Sets the wall clock off by milliseconds.
    SetClock(i64),
    /// Stops the process in good order.
    Stop,
}

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    AfterSteps(u64),
    /// At the `nth` time that a refresh comes to this step.
    InRefresh {
        step: &'static str,
        nth: u64,
    },
}

/// One GetPluginToken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) person: usize,
    /// `min_remaining` in seconds.
    pub(crate) remaining: Option<u64>,
    /// With `min_generation`: the newest that anybody was given.
    pub(crate) newest: bool,
    /// Says that the last token was rejected.
    pub(crate) rejects: bool,
    /// After so many milliseconds the caller goes away.
    pub(crate) patience: Option<u64>,
}

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Cannot be reached.
    Away,
    /// Answers everything with 503.
    Overloaded,
    /// Our registration is refused.
    Misconfigured,
}

impl Plan {
    pub(crate) fn draw(draw: &Draw) -> Self {
        let rotation = match draw.within(0..=5) {
            0 => Rotation::None,
            1 => Rotation::Reuse,
            2 => Rotation::Grace { seconds: draw.one_of(&[10, 60]) },
            _ => Rotation::Strict,
        };
        let lifetime = draw.one_of(&[Some(90), Some(300), Some(300), Some(3600), None]);
        let people = draw.within(1..=3) as usize;
        let end = lifetime.unwrap_or(300) * SECOND * draw.within(2..=4);
        let mut actions: Vec<_> = (0..people).map(|person| (draw.within(0..=50), Action::Connect(person))).collect();
        let mut busy = Vec::new();
        for _ in 0..draw.within(2..=8) {
            busy.push(moment(draw, end));
            actions.extend(burst(draw, people, busy[busy.len() - 1]));
        }
        for person in 0..people {
            for (share, action) in [
                (25, Action::Revoke(person)),
                (8, Action::Erase(person)),
                (12, Action::EndGrant(person)),
                (50, Action::Connect(person)),
            ] {
                if draw.percent(share) {
                    // Half of them while somebody reads: that is when a refresh may be under way.
                    let near = draw.one_of(&busy) + draw.within(0..=200);
                    actions.push((if draw.percent(50) { near } else { moment(draw, end) }, action));
                }
            }
        }
        if draw.percent(30) {
            actions.extend(spell(draw, end, [Action::Store { up: false }, Action::Store { up: true }]));
        }
        if draw.percent(40) {
            let mood = draw.one_of(&[Mood::Away, Mood::Overloaded, Mood::Overloaded, Mood::Misconfigured]);
            actions.extend(spell(draw, end, [Action::Server(mood), Action::Server(Mood::Well)]));
        }
        if draw.percent(15) {
            let by = draw.one_of(&[-3600, -30, 30, 3600]) * SECOND as i64;
            actions.push((moment(draw, end), Action::SetClock(by)));
        }
        if draw.percent(15) {
            actions.push((moment(draw, end), Action::Stop));
        }
        actions.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Self {
            rotation,
            lifetime,
            people,
            faults: draw.one_of(&[0, 5, 20, 50]),
            slowness: draw.one_of(&[0, 10, 50]),
            refreshes_per_second: draw.one_of(&[1, 2, 50]),
            audit_window: draw.one_of(&[0, 10]),
            kills: (0..draw.one_of(&[0, 0, 1, 1, 2, 4])).map(|_| kill(draw)).collect(),
            actions,
        }
    }
}

fn kill(draw: &Draw) -> Kill {
    if draw.percent(50) {
        return Kill::AfterSteps(draw.within(1..=200));
    }
    Kill::InRefresh { step: draw.one_of(&["sent", "acted", "answered"]), nth: draw.within(1..=4) }
}

/// Reads that come together.
fn burst(draw: &Draw, people: usize, at: u64) -> Vec<(u64, Action)> {
    let person = draw.within(0..=people as u64 - 1) as usize;
    let reads = (0..draw.within(1..=4)).map(|_| {
        let read = Read {
            person,
            remaining: draw.percent(20).then(|| draw.one_of(&[0, 30, 100_000])),
            newest: draw.percent(20),
            rejects: draw.percent(15),
            patience: draw.percent(25).then(|| draw.within(0..=3 * SECOND)),
        };
        (at + draw.one_of(&[0, 0, 1, 20]), Action::Read(read))
    });
    reads.collect()
}

/// Something begins and ends again.
fn spell(draw: &Draw, end: u64, [begin, finish]: [Action; 2]) -> [(u64, Action); 2] {
    let from = moment(draw, end);
    let long = draw.one_of(&[50, 5 * SECOND, MINUTE, 10 * MINUTE]);
    [(from, begin), (from + draw.within(1..=long), finish)]
}

fn moment(draw: &Draw, end: u64) -> u64 {
    draw.within(100..=end)
}

//! The authorization server, and the oracle: it knows which refresh token it holds valid, and what it told whom.

use std::collections::{BTreeMap, BTreeSet};

use claviger::domain::Rotation;

/// What one user agreed to once.
pub(crate) struct Grant {
    /// All that were ever issued, the newest last, each with the time at which it was first spent.
    refresh: Vec<Option<u64>>,
    access: usize,
    pub(crate) ended: Option<Ended>,
}

/// Why a grant has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    ByItsUser,
    /// A spent refresh token was used again.
    AsReused,
    ByRevocation,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Tokens { grant: usize, access: String, refresh: Option<String> },
    Error(&'static str),
    Done,
}

pub(crate) struct Oracle {
    rotation: Rotation,
    grants: Vec<Grant>,
    codes: BTreeMap<String, usize>,
    /// Refresh tokens of which a live process was told that they are no good.
    pub(crate) refused: BTreeSet<String>,
}

impl Oracle {
    pub(crate) fn new(rotation: Rotation) -> Self {
        Self { rotation, grants: Vec::new(), codes: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// A user agrees: the code that their browser brings back.
    pub(crate) fn agree(&mut self) -> String {
        let grant = self.grants.len();
        self.grants.push(Grant { refresh: Vec::new(), access: 0, ended: None });
        let code = format!("code-{grant}");
        self.codes.insert(code.clone(), grant);
        code
    }

    pub(crate) fn exchange(&mut self, code: &str) -> Answer {
        let Some(grant) = self.codes.remove(code) else { return Answer::Error("invalid_grant") };
        self.grants[grant].refresh.push(None);
        self.issue(grant)
    }

    /// RFC 6749 §6, by the rotation policy.
    pub(crate) fn refresh(&mut self, token: &str, now: u64) -> Answer {
        let Some((grant, place)) = self.find(token) else { return Answer::Error("invalid_grant") };
        let Grant { refresh, ended, .. } = &mut self.grants[grant];
        if ended.is_some() {
            return Answer::Error("invalid_grant");
        }
        let newest = place + 1 == refresh.len();
        match self.rotation {
            Rotation::None => {}
            Rotation::Reuse => refresh.push(None),
            // A parent within its grace gets what its child is.
            Rotation::Grace { seconds } if !newest => {
                if refresh[place].is_none_or(|spent| now >= spent + seconds * 1000) {
                    *ended = Some(Ended::AsReused);
                    return Answer::Error("invalid_grant");
                }
            }
            Rotation::Strict if !newest => {
                *ended = Some(Ended::AsReused);
                return Answer::Error("invalid_grant");
            }
            Rotation::Grace { .. } | Rotation::Strict => {
                refresh[place] = Some(now);
                refresh.push(None);
            }
        }
        self.issue(grant)
    }

    /// RFC 7009: with any token of a grant all of it falls.
    pub(crate) fn revoke(&mut self, token: &str) -> Answer {
        let access = token.strip_prefix("at-").and_then(|rest| rest.split('-').next()?.parse().ok());
        if let Some(grant) = self.find(token).map(|(grant, _)| grant).or(access) {
            self.end(grant, Ended::ByRevocation);
        }
        Answer::Done
    }

    pub(crate) fn end(&mut self, grant: usize, why: Ended) {
        if let Some(grant) = self.grants.get_mut(grant) {
            grant.ended.get_or_insert(why);
        }
    }

    pub(crate) fn ended(&self, grant: usize) -> Option<Ended> {
        self.grants[grant].ended
    }

    /// Whether the grant has ever brought tokens.
    pub(crate) fn is_used(&self, grant: usize) -> bool {
        !self.grants[grant].refresh.is_empty()
    }

    /// Whether a refresh with this token would succeed.
    pub(crate) fn is_valid(&self, token: &str, now: u64) -> bool {
        let Some((grant, place)) = self.find(token) else { return false };
        let Grant { refresh, ended, .. } = &self.grants[grant];
        ended.is_none()
            && match self.rotation {
                Rotation::None | Rotation::Reuse => true,
                Rotation::Strict => place + 1 == refresh.len(),
                Rotation::Grace { seconds } => refresh[place].is_none_or(|spent| now < spent + seconds * 1000),
            }
    }

    fn issue(&mut self, number: usize) -> Answer {
        let grant = &mut self.grants[number];
        grant.access += 1;
        let refresh = match self.rotation {
            Rotation::None if grant.access > 1 => None,
            _ => Some(format!("rt-{number}-{}", grant.refresh.len() - 1)),
        };
        Answer::Tokens { grant: number, access: format!("at-{number}-{}", grant.access), refresh }
    }

    fn find(&self, token: &str) -> Option<(usize, usize)> {
        let (grant, place) = token.strip_prefix("rt-")?.split_once('-')?;
        let (grant, place): (usize, usize) = (grant.parse().ok()?, place.parse().ok()?);
        (place < self.grants.get(grant)?.refresh.len()).then_some((grant, place))
    }
}

/// Which grant a token of this server belongs to.
pub(crate) fn grant_of(token: &str) -> Option<usize> {
    token.split('-').nth(1)?.parse().ok()
}

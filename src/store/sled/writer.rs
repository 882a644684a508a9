//! The thread that owns every write: it takes what is waiting as one group, makes it durable, then answers.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    OpenError, SledOptions,
    cache::HotRows,
    directory::Directory,
    engine::{Engine, EngineError, guarded},
    group::{Group, Refusal},
    shared::Shared,
    tail::{self, Tail},
};
use crate::{
    domain::{AuditLinker, Revision},
    store::{
        CommitError, Head,
        change::{ChangeSet, Receipt},
        codec::{CommitPart, Meta},
    },
};

pub(super) enum Request {
    Commit(Waiting),
    /// A reader saw the files fail.
    Reopen,
    /// Finish what is waiting, then end. The end of all senders does the same.
    Close,
}

/// A change set and who waits for it.
pub(super) struct Waiting {
    pub(super) change: ChangeSet,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Bounds the memory of all who wait.
    pub(super) room: OwnedSemaphorePermit,
}

type Answer = Result<Receipt, CommitError>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    directory: Directory,
    options: SledOptions,
    linker: Box<dyn AuditLinker>,
    inbox: Receiver<Request>,
    tail: Tail,
}

impl Writer {
    pub(super) fn open(
        options: SledOptions,
        linker: Box<dyn AuditLinker>,
        inbox: Receiver<Request>,
    ) -> Result<Self, OpenError> {
        let directory = Directory::acquire(&options.directory)?;
        directory.leave_half_filled()?;
        let (engine, tail) = open_engine(&directory, &options)?;
        let shared = Shared::new(engine, HotRows::new(options.row_cache), tail.head());
        Ok(Self { shared, directory, options, linker, inbox, tail })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn run(mut self) {
        while let Ok(request) = self.inbox.recv() {
            let mut group = Vec::new();
            let closing = self.gather(request, &mut group);
            let failed = self.commit(group).is_err();
            if closing {
                if !failed {
                    self.drain();
                }
                return;
            }
            if failed && self.recover().is_none() {
                return;
            }
        }
    }

    /// Takes what is waiting into the group, up to its limit; true when the store is to close.
    fn gather(&self, first: Request, group: &mut Vec<Waiting>) -> bool {
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Commit(waiting) => group.push(waiting),
                Request::Reopen => {}
                Request::Close => return true,
            }
            next = (group.len() < GROUP).then(|| self.inbox.try_recv().ok()).flatten();
        }
        false
    }

    /// Commits what was sent before the store was closed.
    fn drain(&mut self) {
        while let Ok(request) = self.inbox.try_recv() {
            let mut group = Vec::new();
            self.gather(request, &mut group);
            if self.commit(group).is_err() {
                return;
            }
        }
    }

    /// Commits the group and answers everyone in it, after it is durable. An error means that the handle is gone.
    fn commit(&mut self, group: Vec<Waiting>) -> Result<(), EngineError> {
        let (changes, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|Waiting { change, answer, room }| (change, (answer, room))).unzip();
        let judged = guarded(|| self.write(changes));
        // even a refusal waits: it may rest on a set of this group that the disk then does not take
        match judged {
            Ok(judged) => {
                for ((answer, room), judged) in answers.into_iter().zip(judged) {
                    drop(room);
                    // whoever asked may be gone; the change set stays
                    let _ = answer.send(judged);
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, cause = cause(&error), "the store failed while writing; it will be reopened");
                self.shared.set_available(false);
                answers.into_iter().for_each(|(answer, _)| refuse(answer));
                Err(error)
            }
        }
    }

    fn write(&mut self, changes: Vec<ChangeSet>) -> Result<Vec<Answer>, EngineError> {
        let shared = self.shared();
        if !shared.head.borrow().available {
            return Err(io::Error::other("a reader saw the store fail").into());
        }
        let slot = shared.reading();
        let engine = slot.as_ref().ok_or_else(closed)?;
        let mut group = Group::new(engine, &shared.hot, &*self.linker, self.tail.clone());
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            match group.add(change) {
                Ok(receipt) => answers.push(Ok(receipt)),
                Err(Refusal::Refused(error)) => answers.push(Err(error)),
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        let changed = group.finish();
        drop(slot);
        if changed.values.is_empty() {
            return Ok(answers);
        }
        let mut slot = shared.writing();
        let engine = slot.as_ref().ok_or_else(closed)?;
        let rows = changed.values.iter().map(|(place, value)| (&place[..], value.as_deref()));
        if let Err(error) = engine.apply(rows) {
            // still under the lock: nobody may read what was applied and is not durable
            self.discard(slot.take());
            return Err(error);
        }
        shared.copies.note(&changed.values.keys());
        // The revision is announced before anything of it can be read, or a reader would take newer rows for older
        // ones; and who hears of it reads nothing older, because what changed is in memory no more and the lock is held.
        shared.hot.forget(changed.rows.keys(), changed.entries);
        self.tail = changed.tail;
        shared.head.send_modify(|head| *head = Head { available: head.available, ..self.tail.head() });
        shared.hot.keep(changed.rows);
        drop(slot);
        Ok(answers)
    }

    /// Lets go of a handle that failed, and of everything that was read through it.
    fn discard(&self, engine: Option<Engine>) {
        self.shared.set_available(false);
        self.shared.hot.clear();
        self.shared.copies.end();
        self.directory.distrust_cached_pages();
        if let Some(engine) = engine {
            engine.close(&self.directory);
        }
    }

    /// Opens the files anew, as often as it takes; `None` when the store is to close first. Whoever asks in the
    /// meantime is refused.
    fn recover(&mut self) -> Option<()> {
        let shared = self.shared();
        let mut slot = shared.writing();
        self.discard(slot.take());
        drop(slot);
        let mut pause = FIRST_PAUSE;
        loop {
            self.refuse_waiting(Duration::ZERO)?;
            match self.reopen() {
                Ok(()) => return Some(()),
                Err(error) => {
                    tracing::error!(%error, cause = cause(&error), retry = ?pause, "the store could not be reopened");
                }
            }
            self.refuse_waiting(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        let durable = self.tail.revision;
        let (engine, tail) = open_engine(&self.directory, &self.options)?;
        if tail.revision < durable {
            engine.close(&self.directory);
            return Err(OpenError::Lost { durable, found: tail.revision });
        }
        let Revision(revision) = tail.revision;
        tracing::info!(store.revision = revision, "the store was reopened");
        self.tail = tail;
        *self.shared.writing() = Some(engine);
        self.shared.head.send_modify(|head| *head = self.tail.head());
        Ok(())
    }

    /// Refuses whoever asks until nobody has for as long as `pause`; `None` when the store is to close.
    fn refuse_waiting(&self, pause: Duration) -> Option<()> {
        loop {
            match self.inbox.recv_timeout(pause) {
                Ok(Request::Commit(waiting)) => refuse(waiting.answer),
                Ok(Request::Reopen) => {}
                Err(RecvTimeoutError::Timeout) => return Some(()),
                Ok(Request::Close) | Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let shared = self.shared();
        if let Some(engine) = shared.writing().take() {
            engine.close(&self.directory);
        }
        shared.set_available(false);
    }
}

fn open_engine(directory: &Directory, options: &SledOptions) -> Result<(Engine, Tail), OpenError> {
    let engine = Engine::open(directory, options.page_cache)?;
    let checked = guarded(|| {
        let new = (!directory.has_store()?).then(|| Meta::new(options.installation, options.epoch));
        tail::read(&engine, new)
    });
    match checked.and_then(|checked| directory.trust().map(|()| checked)) {
        Ok(tail) => Ok((engine, tail)),
        Err(error) => {
            engine.close(directory);
            Err(error)
        }
    }
}

fn refuse(answer: oneshot::Sender<Answer>) {
    let _ = answer.send(Err(CommitError::Unavailable));
}

fn cause(error: &dyn Error) -> Option<String> {
    error.source().map(ToString::to_string)
}

pub(super) fn closed() -> EngineError {
    io::Error::other("the store is not open").into()
}

/// Change sets that share one flush.
const GROUP: usize = CommitPart::SLOTS as usize;
/// Between the first two attempts to open failed files anew; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

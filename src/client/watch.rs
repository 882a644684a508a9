//! The status stream, kept open: reconnects, resumes, and puts fragments together.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Streaming};

use super::{Client, ClientError};
use crate::{
    domain::{Clock, Timestamp},
    proto::v1::{
        CredentialEvent, WatchCredentialStatusRequest, WatchCredentialStatusResponse as Message,
        watch_credential_status_request::Start, watch_credential_status_response::Body,
    },
};

const SHORTEST_CEILING: Duration = Duration::from_millis(200);
const LONGEST_CEILING: Duration = Duration::from_secs(30);
/// A stream that lived this long was a success: the next failure counts as the first.
const STABLE: Duration = Duration::from_secs(60);
/// A peer that misses this many progress messages is gone, whatever its TCP connection says.
const MISSED_INTERVALS: u32 = 3;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
/// The broker's own bound; what claims to be more silent is believed no further.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// The request's field, as a refusal names it.
const RESUME_TOKEN: &str = "resume_token";

/// A random duration between zero and the given one, evenly distributed.
pub type Jitter = Box<dyn FnMut(Duration) -> Duration + Send>;

/// An endless sequence of messages over as many streams as it takes, each resumed where the one before broke off.
///
/// A message may come twice across streams, never out of order. `opened` comes with each stream; the snapshot after
/// one that did not resume replaces the view, as after `resync`.
pub struct Watch {
    client: Client,
    request: WatchCredentialStatusRequest,
    clock: Arc<dyn Clock>,
    jitter: Jitter,
    stream: Option<Streaming<Message>>,
    /// Events of a revision whose last fragment has not come yet.
    fragments: Vec<CredentialEvent>,
    /// Whether this stream has said when to open the next.
    drained: bool,
    /// In a row, for back-off.
    failures: u32,
    opened_at: Timestamp,
    /// No stream is opened before this time.
    reopen_at: Timestamp,
    silence: Duration,
    silent_until: Timestamp,
}

/// What [`Watch::hear`] gives.
#[derive(Debug)]
pub enum Heard {
    Message(Message),
    Interrupted(Interruption),
}

/// There is no stream for a while; the next one goes on where this one ended.
#[derive(Debug)]
pub struct Interruption {
    /// `None`: it ended in good order.
    pub cause: Option<ClientError>,
    /// After which time the next one is opened.
    pub reopens_after: Duration,
}

enum Received {
    Message(Message),
    End,
    Broken(ClientError),
}

impl Watch {
    /// Watches what `request` says, from where it says; later streams resume.
    pub fn new(client: Client, request: WatchCredentialStatusRequest, clock: Arc<dyn Clock>, jitter: Jitter) -> Self {
        Self {
            client,
            request,
            clock,
            jitter,
            stream: None,
            fragments: Vec::new(),
            drained: false,
            failures: 0,
            opened_at: Timestamp::EPOCH,
            reopen_at: Timestamp::EPOCH,
            silence: DEFAULT_INTERVAL * MISSED_INTERVALS,
            silent_until: Timestamp::NEVER,
        }
    }

    /// The next message. A batch is whole: fragments have been put together. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Only what waiting cannot cure: the token, the rights, the request, or a lost position. Calling again tries
    /// again from the same place; after a position that is lost or refused, with a snapshot.
    pub async fn next(&mut self) -> Result<Message, ClientError> {
        loop {
            if let Heard::Message(message) = self.hear().await? {
                return Ok(message);
            }
        }
    }

    /// As [`Self::next`], and says when the stream is away.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn hear(&mut self) -> Result<Heard, ClientError> {
        loop {
            let interruption = match self.receive().await {
                Received::Message(message) => match self.take(message) {
                    Some(message) => return Ok(Heard::Message(message)),
                    None => continue,
                },
                Received::End => self.close(),
                Received::Broken(error) => self.fail(error)?,
            };
            return Ok(Heard::Interrupted(interruption));
        }
    }

    async fn receive(&mut self) -> Received {
        if self.stream.is_none() {
            self.clock.sleep_until(self.reopen_at).await;
            match self.client.watch_credential_status(self.request.clone()).await {
                Ok(stream) => self.begin(stream),
                Err(error) => return Received::Broken(error),
            }
        }
        let Some(stream) = &mut self.stream else { return Received::End };
        tokio::select! {
            biased;
            received = stream.message() => match received {
                Ok(Some(message)) => Received::Message(message),
                Ok(None) => Received::End,
                Err(status) => Received::Broken(status.into()),
            },
            () = self.clock.sleep_until(self.silent_until) => Received::Broken(silent()),
        }
    }

    fn begin(&mut self, stream: Streaming<Message>) {
        self.stream = Some(stream);
        self.drained = false;
        self.opened_at = self.clock.now();
        // Until `opened` says otherwise.
        self.silence = DEFAULT_INTERVAL * MISSED_INTERVALS;
        self.silent_until = self.opened_at.plus(self.silence);
    }

    fn take(&mut self, mut message: Message) -> Option<Message> {
        match &mut message.body {
            Some(Body::Opened(opened)) => {
                let interval = opened.progress_interval.and_then(positive).unwrap_or(DEFAULT_INTERVAL);
                self.silence = interval.min(LONGEST_INTERVAL) * MISSED_INTERVALS;
            }
            // What comes next is a snapshot: a stream that breaks before its end must not go on from the lost position,
            // which the log may reach again with other content.
            Some(Body::Resync(_)) => self.request.start = Some(Start::Snapshot(true)),
            Some(Body::Batch(batch)) => {
                self.fragments.append(&mut batch.events);
                if !batch.more_follows {
                    batch.events = std::mem::take(&mut self.fragments);
                }
            }
            Some(Body::Drain(drain)) => {
                let wait = drain.reconnect_after.and_then(positive);
                self.drained = wait.is_some();
                self.reopen_at = self.clock.now().plus(wait.unwrap_or_default());
            }
            _ => {}
        }
        self.silent_until = self.clock.now().plus(self.silence);
        if !message.resume_token.is_empty() {
            self.request.start = Some(Start::ResumeToken(message.resume_token.clone()));
        }
        let incomplete = matches!(&message.body, Some(Body::Batch(batch)) if batch.more_follows);
        (!incomplete).then_some(message)
    }

    fn close(&mut self) -> Interruption {
        self.put_off(None);
        self.interrupted(None)
    }

    fn fail(&mut self, error: ClientError) -> Result<Interruption, ClientError> {
        self.put_off(error.retry_after);
        if is_passing(&error) {
            return Ok(self.interrupted(Some(error)));
        }
        if error.code == Code::OutOfRange || error.violations.iter().any(|violation| violation.field == RESUME_TOKEN) {
            self.request.start = Some(Start::Snapshot(true));
        }
        Err(error)
    }

    fn interrupted(&self, cause: Option<ClientError>) -> Interruption {
        Interruption { cause, reopens_after: self.reopen_at - self.clock.now() }
    }

    /// When the next stream may be opened. An end in good order is no better than a failure: a server that accepts and
    /// ends at once must not be asked in a tight loop.
    fn put_off(&mut self, at_least: Option<Duration>) {
        let was_open = self.stream.take().is_some();
        self.fragments.clear();
        if was_open && self.clock.now() - self.opened_at >= STABLE {
            self.failures = 0;
        }
        // Who was told when to come back comes then, whatever the stream ended with: each was told another time.
        if !(was_open && self.drained) {
            self.back_off(at_least);
        }
    }

    /// Full jitter: a herd that broke together does not come back together.
    fn back_off(&mut self, at_least: Option<Duration>) {
        let ceiling = SHORTEST_CEILING.saturating_mul(1 << self.failures.min(16)).min(LONGEST_CEILING);
        self.failures += 1;
        let wait = (self.jitter)(ceiling).max(at_least.unwrap_or_default());
        self.reopen_at = self.reopen_at.max(self.clock.now().plus(wait));
    }
}

/// For a stream it makes no difference who ended it so: the next one may live.
fn is_passing(error: &ClientError) -> bool {
    error.is_passing() || matches!(error.code, Code::Internal | Code::Unknown | Code::Cancelled)
}

fn positive(duration: prost_types::Duration) -> Option<Duration> {
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero())
}

fn silent() -> ClientError {
    tonic::Status::new(Code::Unavailable, "the stream fell silent").into()
}

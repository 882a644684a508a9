//! Watches what happens to one caller's credentials, and waits for it.

use std::{collections::VecDeque, future::Future, time::Duration};

use claviger::proto::v1::{
    self, CredentialEvent, CredentialEventKind, watch_credential_status_request::Start,
    watch_credential_status_response::Body,
};

use crate::heard::{Client, Listening};

/// Bounds what would hang in real time, so that it fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Observer {
    client: Client,
    stream: Listening,
    resume_token: Vec<u8>,
    waiting: VecDeque<CredentialEvent>,
}

impl Observer {
    /// Sees everything from now on.
    pub(crate) async fn of(client: &Client) -> Self {
        Self::open(client, Start::Now(true)).await
    }

    /// Continues where `before` stopped, at a broker that was started anew.
    pub(crate) async fn after(before: Self, client: &Client) -> Self {
        assert!(before.waiting.is_empty(), "events were left unseen");
        Self::open(client, Start::ResumeToken(before.resume_token)).await
    }

    async fn open(client: &Client, start: Start) -> Self {
        let request = v1::WatchCredentialStatusRequest { start: Some(start), ..Default::default() };
        let stream = client.watch_credential_status(request).await.unwrap();
        let (client, waiting) = (client.clone(), VecDeque::new());
        let mut observer = Self { client, stream, resume_token: Vec::new(), waiting };
        while observer.resume_token.is_empty() {
            observer.hear().await;
        }
        observer
    }

    pub(crate) async fn next(&mut self) -> CredentialEvent {
        in_time(async {
            loop {
                match self.waiting.pop_front() {
                    Some(event) => return event,
                    None => self.hear().await,
                }
            }
        })
        .await
    }

    /// Everything up to the first event of this kind, which is the last.
    pub(crate) async fn until(&mut self, kind: CredentialEventKind) -> Vec<CredentialEvent> {
        let mut seen = vec![self.next().await];
        while seen.last().is_none_or(|event| event.kind() != kind) {
            seen.push(self.next().await);
        }
        seen
    }

    /// One message; a stream that has lived long enough is opened anew.
    async fn hear(&mut self) {
        let Some(message) = self.stream.message().await.unwrap() else {
            let start = Some(Start::ResumeToken(self.resume_token.clone()));
            let request = v1::WatchCredentialStatusRequest { start, ..Default::default() };
            self.stream = self.client.watch_credential_status(request).await.unwrap();
            return;
        };
        if !message.resume_token.is_empty() {
            self.resume_token = message.resume_token;
        }
        if let Some(Body::Batch(batch)) = message.body {
            self.waiting.extend(batch.events);
        }
    }
}

pub(crate) fn kinds(events: &[CredentialEvent]) -> Vec<CredentialEventKind> {
    events.iter().map(CredentialEvent::kind).collect()
}

pub(crate) async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waiting).await.expect("it did not happen")
}

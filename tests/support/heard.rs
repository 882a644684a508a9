//! Clients whose status streams are written down, so that a world can hold all of them against the log when it ends.

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger::{
    client::{self, ClientError},
    domain::PresentedToken,
    proto::v1,
    vault::Vault,
};
use tonic::{Status, Streaming};

use crate::{
    event_log,
    watch_validator::{History, violations},
};

/// Everything that was heard on any stream of one world, in the order in which they were opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    /// The user's name stands for the subject until there is a log to ask.
    histories: Vec<History>,
    /// How many messages of each were judged already.
    judged: Vec<usize>,
}

/// The library's client; what it hears is written down.
#[derive(Clone)]
pub(crate) struct Client {
    client: client::Client,
    user: String,
    heard: Heard,
}

/// One stream, written down as it is read.
#[derive(Debug)]
pub(crate) struct Listening {
    stream: Streaming<v1::WatchCredentialStatusResponse>,
    heard: Heard,
    number: usize,
}

impl Heard {
    pub(crate) fn by(&self, client: client::Client, token: &PresentedToken) -> Client {
        Client { client, user: user_of(token), heard: self.clone() }
    }

    pub(crate) fn on(
        &self,
        stream: Streaming<v1::WatchCredentialStatusResponse>,
        request: v1::WatchCredentialStatusRequest,
        token: &PresentedToken,
    ) -> Listening {
        self.listening(stream, request, user_of(token))
    }

    fn listening(
        &self,
        stream: Streaming<v1::WatchCredentialStatusResponse>,
        request: v1::WatchCredentialStatusRequest,
        subject: String,
    ) -> Listening {
        let mut streams = self.0.lock().unwrap();
        streams.histories.push(History { subject, request, messages: Vec::new(), must_reach: None });
        Listening { stream, heard: self.clone(), number: streams.histories.len() - 1 }
    }

    /// Whether something was heard that nobody has judged.
    pub(crate) fn is_new(&self) -> bool {
        let streams = self.0.lock().unwrap();
        let judged = streams.judged.iter().chain(std::iter::repeat(&0));
        streams.histories.iter().zip(judged).any(|(history, judged)| history.messages.len() > *judged)
    }

    /// Holds what was heard since the last time against the log; what came before says where tokens stand.
    ///
    /// # Panics
    /// If a guarantee was broken.
    pub(crate) async fn hold_against(&self, vault: &Vault) {
        // Taken before the log is read: all of it must be there.
        let (mut histories, judged) = {
            let mut streams = self.0.lock().unwrap();
            let lengths = streams.histories.iter().map(|history| history.messages.len()).collect();
            (streams.histories.clone(), std::mem::replace(&mut streams.judged, lengths))
        };
        let family = "platform".parse().unwrap();
        for history in &mut histories {
            history.subject = vault.keys().subject_id(&family, "", &[&history.subject]).to_string();
        }
        let mut broken = violations(&event_log::read(vault).await, &histories);
        broken.retain(|one| histories[one.stream].messages.len() > judged.get(one.stream).copied().unwrap_or(0));
        assert!(broken.is_empty(), "{broken:#?}");
    }
}

impl Client {
    pub(crate) async fn watch_credential_status(
        &self,
        request: v1::WatchCredentialStatusRequest,
    ) -> Result<Listening, ClientError> {
        let stream = self.client.watch_credential_status(request.clone()).await?;
        Ok(self.heard.listening(stream, request, self.user.clone()))
    }
}

impl Deref for Client {
    type Target = client::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Listening {
    pub(crate) async fn message(&mut self) -> Result<Option<v1::WatchCredentialStatusResponse>, Status> {
        let message = self.stream.message().await?;
        if let Some(message) = &message {
            self.heard.0.lock().unwrap().histories[self.number].messages.push(message.clone());
        }
        Ok(message)
    }
}

/// Whom the token names, whether or not it is any good.
fn user_of(token: &PresentedToken) -> String {
    let claims = token.expose().split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<serde_json::Value>(&claims).ok());
    claims.and_then(|claims| Some(claims.get("sub")?.as_str()?.to_owned())).unwrap_or_default()
}

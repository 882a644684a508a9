//! `claviger connect`: the terminal is the application of RFC 8252, the browser goes to the provider.

use std::{io, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;
use url::Url;

use super::{
    ClientOptions, Failure, Session, connections,
    loopback::{Loopback, ProviderAnswer, parse_answer},
    output::{connection_document, harmless, note},
};
use crate::{
    domain::FlowSecret,
    proto::v1::{
        AuthorizationBinding, Connection, FlowCode, StartAuthorizationRequest, StoreAuthCodeRequest,
        start_authorization_request::Target, store_auth_code_request::Flow,
    },
};

/// As long as the broker keeps a flow.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the browser may take to read the last page.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct Connect {
    /// The plugin to connect an account for
    plugin: String,
    /// The account to connect or reconnect [default: whichever you pick]
    #[arg(long)]
    account: Option<String>,
    /// A scope to ask for; may be repeated [default: the plugin's]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Where the provider sends the browser; port 0 takes any
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:0/callback")]
    redirect_uri: Url,
    /// Do not listen: read the address that the browser was sent to from standard input
    #[arg(long)]
    no_listen: bool,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

impl Connect {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let connection = if self.no_listen { self.by_hand(session).await? } else { self.listening(session).await? };
        let now = session.clock.now();
        if session.printer.is_json() {
            session.printer.document(&json!({ "connection": connection_document(&connection, now) }))?;
        } else {
            session.printer.table(connections::HEADER, [connections::row(&connection, now)], "")?;
        }
        Ok(())
    }

    async fn listening(&self, session: &Session) -> Result<Connection, Failure> {
        let loopback = Loopback::bind(&self.redirect_uri).await?;
        let expected = self.start(session, loopback.redirect_uri()).await?;
        let mut server = loopback.serve(expected);
        let answer = self.patiently(session, server.answer()).await?;
        let stored = store(session, answer?).await;
        let farewell = session.clock.now().plus(FAREWELL);
        tokio::select! {
            () = server.finish() => {}
            () = session.clock.sleep_until(farewell) => {}
        }
        stored
    }

    async fn by_hand(&self, session: &Session) -> Result<Connection, Failure> {
        let expected = self.start(session, &self.redirect_uri).await?;
        note("Then paste the address that the browser was sent to:")?;
        let line = self.patiently(session, read_line()).await??;
        let query = Url::parse(line.trim()).ok().and_then(|url| url.query().map(str::to_owned));
        let answer = parse_answer(&query.ok_or(Failure::NoAnswer("query"))?, expected.as_ref())?;
        store(session, answer).await
    }

    /// Opens the flow and says where to go. Returns the state that the answer must carry, unless the URL hides it.
    async fn start(&self, session: &Session, redirect_uri: &Url) -> Result<Option<FlowSecret>, Failure> {
        let request = StartAuthorizationRequest {
            target: Some(Target::Plugin(self.plugin.clone())),
            scopes: self.scopes.clone(),
            account: self.account.clone().unwrap_or_default(),
            redirect_uri: redirect_uri.to_string(),
            binding: AuthorizationBinding::Caller.into(),
            ..Default::default()
        };
        let started = session.client.start_authorization(request).await?;
        note(&format!("Open this page and allow access:\n\n  {}\n", harmless(&started.authorization_url)))?;
        let url = Url::parse(&started.authorization_url).ok();
        let state =
            url.and_then(|url| url.query_pairs().find(|(name, _)| name == "state").map(|(_, state)| state.into()));
        Ok(state.map(FlowSecret::new))
    }

    async fn patiently<T>(&self, session: &Session, wait: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            outcome = wait => Ok(outcome),
            () = session.clock.sleep_until(session.clock.now().plus(PATIENCE)) => Err(Failure::TimedOut),
        }
    }
}

async fn store(session: &Session, answer: ProviderAnswer) -> Result<Connection, Failure> {
    let flow = FlowCode {
        state: answer.state.expose().to_owned(),
        code: answer.code.expose().to_owned(),
        iss: answer.iss.unwrap_or_default(),
    };
    let request = StoreAuthCodeRequest { flow: Some(Flow::FlowCode(flow)) };
    Ok(session.client.store_auth_code(request).await?.connection.unwrap_or_default())
}

/// On a thread of its own: a runtime would wait for the read before it ends.
async fn read_line() -> Result<String, Failure> {
    let (sender, line) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // Nobody listens any more once the time is up.
        sender.send(io::stdin().read_line(&mut line).map(|_| line)).ok();
    });
    Ok(line.await.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()))?)
}

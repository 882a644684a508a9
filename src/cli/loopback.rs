//! The loopback redirect of RFC 8252 §7.3: a port of this machine that takes one answer.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use url::{Host, Url, form_urlencoded};

use super::Failure;
use crate::domain::{AuthorizationCode, FlowSecret};

/// What the provider sent back through the browser.
pub(super) struct ProviderAnswer {
    pub(super) state: FlowSecret,
    pub(super) code: AuthorizationCode,
    pub(super) iss: Option<String>,
}

/// A bound port.
pub(super) struct Loopback {
    listener: TcpListener,
    redirect_uri: Url,
}

/// A port that is listened on.
pub(super) struct Server {
    answers: mpsc::Receiver<Result<ProviderAnswer, Failure>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

struct Awaited {
    state: Option<FlowSecret>,
    answers: mpsc::Sender<Result<ProviderAnswer, Failure>>,
}

impl Loopback {
    pub(super) async fn bind(redirect_uri: &Url) -> Result<Self, Failure> {
        let host = match redirect_uri.host() {
            Some(Host::Ipv4(address)) if address.is_loopback() => address.to_string(),
            Some(Host::Ipv6(address)) if address.is_loopback() => address.to_string(),
            Some(Host::Domain("localhost")) => "127.0.0.1".to_owned(),
            _ => return Err(Failure::NotLoopback),
        };
        let port = redirect_uri.port_or_known_default().filter(|_| redirect_uri.scheme() == "http");
        let address = (host, port.ok_or(Failure::NotLoopback)?);
        let listen = |source| Failure::Listen { address: redirect_uri.to_string(), source };
        let listener = TcpListener::bind((&*address.0, address.1)).await.map_err(listen)?;
        let mut redirect_uri = redirect_uri.clone();
        let bound = listener.local_addr().map_err(listen)?.port();
        redirect_uri.set_port(Some(bound)).map_err(|()| Failure::NotLoopback)?;
        Ok(Self { listener, redirect_uri })
    }

    /// With the port that was bound.
    pub(super) fn redirect_uri(&self) -> &Url {
        &self.redirect_uri
    }

    pub(super) fn serve(self, state: Option<FlowSecret>) -> Server {
        let (sender, answers) = mpsc::channel(1);
        let (stop, mut stopped) = watch::channel(false);
        // A path of the user's own may have segments that begin with ':' or '*', and captures nothing.
        let router = Router::new()
            .without_v07_checks()
            .route(self.redirect_uri.path(), get(take))
            .with_state(Arc::new(Awaited { state, answers: sender }));
        let serving = axum::serve(self.listener, router).with_graceful_shutdown(async move {
            stopped.wait_for(|stopped| *stopped).await.ok();
        });
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%error, "the loopback listener ended");
            }
        });
        Server { answers, stop, task }
    }
}

impl Server {
    /// The first answer that belongs to this attempt.
    pub(super) async fn answer(&mut self) -> Result<ProviderAnswer, Failure> {
        self.answers.recv().await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Waits until the browser has its page.
    pub(super) async fn finish(self) {
        self.stop.send_replace(true);
        self.task.await.ok();
    }
}

/// Any page and any program of the machine can call this: what does not carry our state changes nothing.
async fn take(State(awaited): State<Arc<Awaited>>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let answer = parse_answer(&query.unwrap_or_default(), awaited.state.as_ref());
    let (status, text) = match answer {
        Err(Failure::NoAnswer(_) | Failure::ForeignAnswer) => {
            (StatusCode::BAD_REQUEST, "This is not the answer that is awaited.")
        }
        answer => {
            // A second answer finds the channel full or closed; the first one counts.
            awaited.answers.try_send(answer).ok();
            (StatusCode::OK, "The terminal says how it went. You can close this window.")
        }
    };
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];
    (status, headers, Html(format!("<!doctype html><title>claviger</title><p>{text}</p>")))
}

/// Reads an authorization response (RFC 6749 §4.1.2, RFC 9207). A parameter that comes twice voids it (§3.1).
pub(super) fn parse_answer(query: &str, expected: Option<&FlowSecret>) -> Result<ProviderAnswer, Failure> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Failure::NoAnswer("single value for each parameter"));
        }
    }
    let state = FlowSecret::new(parameters.remove("state").ok_or(Failure::NoAnswer("state"))?);
    if expected.is_some_and(|expected| *expected != state) {
        return Err(Failure::ForeignAnswer);
    }
    if let Some(unverified_error) = parameters.remove("error") {
        return Err(Failure::Denied { error: error_code(unverified_error) });
    }
    let code = AuthorizationCode::new(parameters.remove("code").ok_or(Failure::NoAnswer("code"))?);
    Ok(ProviderAnswer { state, code, iss: parameters.remove("iss") })
}

/// Codes are words; anything else did not come from an authorization server and is not repeated.
fn error_code(unverified_error: String) -> String {
    let is_word = (1..=64).contains(&unverified_error.len())
        && unverified_error.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_word { unverified_error } else { "with an error".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ProviderAnswer, Failure> {
        parse_answer(query, Some(&FlowSecret::new("sent".to_owned())))
    }

    #[test]
    fn an_answer_is_read() {
        let answer = parse("code=a%2Fb&state=sent&iss=https%3A%2F%2Fprovider.example").ok().unwrap();
        assert_eq!(answer.code.expose(), "a/b");
        assert_eq!(answer.state.expose(), "sent");
        assert_eq!(answer.iss.as_deref(), Some("https://provider.example"));
    }

    #[test]
    fn a_foreign_doubled_or_partial_answer_is_refused() {
        assert!(matches!(parse("code=a&state=other"), Err(Failure::ForeignAnswer)));
        assert!(matches!(parse("error=access_denied&state=other"), Err(Failure::ForeignAnswer)));
        assert!(matches!(parse("code=a"), Err(Failure::NoAnswer("state"))));
        assert!(matches!(parse("state=sent"), Err(Failure::NoAnswer("code"))));
        assert!(matches!(parse("code=a&state=sent&code=b"), Err(Failure::NoAnswer(_))));
        assert!(matches!(parse(""), Err(Failure::NoAnswer(_))));
    }

    #[test]
    fn only_a_word_of_the_providers_error_is_repeated() {
        let denied = |query| match parse(query) {
            Err(Failure::Denied { error }) => error,
            _ => String::new(),
        };
        assert_eq!(denied("error=access_denied&error_description=x&state=sent"), "access_denied");
        assert_eq!(denied("error=%1B%5B2J&state=sent"), "with an error");
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on() {
        for elsewhere in ["https://127.0.0.1/callback", "http://10.0.0.1/callback", "http://provider.example/"] {
            let uri = elsewhere.parse().unwrap();
            assert!(matches!(Loopback::bind(&uri).await, Err(Failure::NotLoopback)), "{elsewhere}");
        }
        let bound = Loopback::bind(&"http://127.0.0.1:0/callback".parse().unwrap()).await.ok().unwrap();
        assert_ne!(bound.redirect_uri().port(), Some(0));
    }

    #[tokio::test]
    async fn every_path_is_listened_on_as_it_is_written() {
        for path in ["/", "/:callback", "/*", "/{x}", "/a//b", "/%7Bx%7D"] {
            let uri = format!("http://127.0.0.1:0{path}").parse().unwrap();
            Loopback::bind(&uri).await.ok().unwrap().serve(None).finish().await;
        }
    }
}

//! The way to the authorization server and back, and what goes wrong on it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claviger::{
    domain::BoxFuture,
    outbound::{Failure, OutboundError, Reply, Request, Wire},
};
use http::{
    HeaderMap, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    draw::Draw,
    oracle::Answer,
    plan::{Mood, SECOND},
    world::{Post, World},
};

pub(crate) struct FaultyWire(pub(crate) Arc<World>);

/// What a request asks the server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Exchange(String),
    Refresh(String),
    /// A refresh without a refresh token.
    Nothing,
    Revoke(String),
}

/// How a request fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    NotSent,
    /// Never arrives; the client waits in vain.
    Swallowed,
    /// Answered by something before the server: a status, HTML, and `Retry-After` in seconds.
    Gateway(u16, Option<u64>),
    /// The server acts; its answer is reset, or never comes.
    AnswerLost,
    AnswerLate,
    /// The server acts; a gateway makes 502 of it, or cuts it off.
    AnswerSpoiled,
    AnswerCut,
}

impl Wire for FaultyWire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, OutboundError>> {
        Box::pin(carry(Arc::clone(&self.0), request))
    }
}

impl Fate {
    pub(crate) fn draw(draw: &Draw, faults: u64, mood: Mood) -> Self {
        match mood {
            Mood::Away => return draw.one_of(&[Self::NotSent, Self::NotSent, Self::Swallowed]),
            Mood::Overloaded => return Self::Gateway(503, draw.one_of(&[None, Some(7), Some(1_000_000_000)])),
            Mood::Well | Mood::Misconfigured if !draw.percent(faults) => return Self::Answered,
            Mood::Well | Mood::Misconfigured => {}
        }
        draw.one_of(&[
            Self::NotSent,
            Self::Swallowed,
            Self::Gateway(500, None),
            Self::Gateway(503, None),
            Self::Gateway(503, Some(7)),
            Self::Gateway(429, None),
            Self::Gateway(429, Some(30)),
            Self::Gateway(403, None),
            Self::AnswerLost,
            Self::AnswerLost,
            Self::AnswerLate,
            Self::AnswerSpoiled,
            Self::AnswerCut,
        ])
    }

    /// Whether the answer tells the client that the server did not spend the token, or that it did.
    fn tells(self) -> bool {
        match self {
            Self::Answered | Self::NotSent => true,
            Self::Gateway(status, wait) => status == 429 || status == 403 || wait.is_some(),
            Self::Swallowed | Self::AnswerLost | Self::AnswerLate | Self::AnswerSpoiled | Self::AnswerCut => false,
        }
    }

    fn arrives(self) -> bool {
        !matches!(self, Self::NotSent | Self::Swallowed | Self::Gateway(..))
    }
}

async fn carry(world: Arc<World>, request: Request) -> Result<Reply, OutboundError> {
    let host = request.url.host_str().unwrap_or_default().to_owned();
    let timeout = request.timeout.map_or(30 * SECOND, |time| time.as_millis() as u64);
    let asked = asked(&request);
    let (fate, there, back) = world.fate();
    world.trace(|| format!("request {asked:?}: {fate:?}"));
    if fate == Fate::NotSent {
        world.time.pause(there).await;
        return Err(OutboundError::NotSent { host, failure: Failure::Connect });
    }
    let refresh = matches!(asked, Asked::Refresh(_));
    let mut post = Post::begin(&world, asked, fate.arrives(), there);
    world.step("sent", refresh).await;
    if matches!(fate, Fate::Swallowed | Fate::AnswerLate) {
        world.time.pause(timeout - SECOND).await;
        let _ = fate.arrives().then(|| post.arrive());
        world.time.pause(SECOND).await;
        post.end(fate.tells(), None);
        return Err(OutboundError::AnswerLost { host });
    }
    world.time.pause(there).await;
    let answer = fate.arrives().then(|| post.arrive());
    world.step("acted", refresh).await;
    world.time.pause(back).await;
    world.step("answered", refresh).await;
    let reply = match (fate, answer) {
        (Fate::Answered, Some(answer)) => {
            post.end(true, Some(&answer));
            return Ok(reply_of(&world, answer));
        }
        (Fate::AnswerLost, _) => Err(OutboundError::AnswerLost { host }),
        (Fate::AnswerCut, Some(answer)) => {
            let mut reply = reply_of(&world, answer);
            let half = reply.body.len() / 2;
            reply.body.truncate(half);
            reply.status = StatusCode::OK;
            Ok(reply)
        }
        (Fate::Gateway(status, wait), _) => Ok(html(status, wait)),
        _ => Ok(html(502, None)),
    };
    post.end(fate.tells(), None);
    reply
}

fn asked(request: &Request) -> Asked {
    let body = request.body.as_ref().map(|body| body.as_slice()).unwrap_or_default();
    let form: BTreeMap<_, _> = url::form_urlencoded::parse(body).into_owned().collect();
    let value = |name: &str| form.get(name).cloned();
    match (request.url.path(), value("grant_type").as_deref()) {
        ("/revoke", _) => Asked::Revoke(value("token").unwrap_or_default()),
        (_, Some("authorization_code")) => Asked::Exchange(value("code").unwrap_or_default()),
        _ => value("refresh_token").map_or(Asked::Nothing, Asked::Refresh),
    }
}

fn reply_of(world: &World, answer: Answer) -> Reply {
    match answer {
        Answer::Tokens { access, refresh, .. } => {
            let mut body = json!({ "access_token": access, "token_type": "Bearer" });
            if let Some(lifetime) = world.plan.lifetime {
                body["expires_in"] = lifetime.into();
            }
            match refresh {
                Some(refresh) => body["refresh_token"] = refresh.into(),
                // Providers that do not rotate say so in three ways.
                None => match world.coin(3) {
                    0 => body["refresh_token"] = "".into(),
                    1 => body["refresh_token"] = serde_json::Value::Null,
                    _ => {}
                },
            }
            structured(200, &body)
        }
        Answer::Error(code) => structured(if code == "invalid_client" { 401 } else { 400 }, &json!({ "error": code })),
        Answer::Done => structured(200, &json!({})),
    }
}

fn structured(status: u16, body: &serde_json::Value) -> Reply {
    reply(status, body.to_string())
}

fn html(status: u16, wait: Option<u64>) -> Reply {
    let mut reply = reply(status, "<html><body>Error</body></html>".to_owned());
    if let Some(wait) = wait {
        reply.headers.insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    reply
}

fn reply(status: u16, body: String) -> Reply {
    let status = StatusCode::from_u16(status).unwrap();
    Reply { status, headers: HeaderMap::new(), body: Zeroizing::new(body.into_bytes()) }
}

/// The client's own patience, in milliseconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

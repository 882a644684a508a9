//! Whether issuers and providers can be reached and used as they are configured, and what time it is there. Everything
//! goes through the client that the broker itself would use.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use http::header::DATE;
use url::Url;

use super::{About, Finding};
use crate::{
    app::build,
    config::Config,
    domain::{Clock, Provider},
    identity::{Issuer, KeysProbe},
    oauth::AuthorizationServers,
    outbound::{Failure, Outbound, OutboundError, Request},
};

/// Platform tokens are judged with 60 s of leeway; half of it is gone then.
const MOST_SKEW: Duration = Duration::from_secs(30);

struct Network {
    outbound: Outbound,
    servers: AuthorizationServers,
    clock: Arc<dyn Clock>,
}

/// One request to a server.
struct Answered {
    took: Duration,
    /// By how many milliseconds this machine's clock is ahead of the server's `Date`, which counts whole seconds.
    ahead: Option<i64>,
}

pub(super) async fn examine(config: &Config, clock: Arc<dyn Clock>) -> Vec<Finding> {
    let about = About::new("outbound", "configuration");
    let (Ok(outbound), Ok(catalog)) = (build::outbound(config), build::catalog(config)) else {
        return vec![about.fail("no provider can be called as configured", "run `claviger check-config`")];
    };
    let servers = AuthorizationServers::new(outbound.clone(), Arc::clone(&clock));
    let network = Network { outbound, servers, clock };
    let issuers = config.identity.iter().flat_map(|family| &family.issuers).map(|issuer| network.issuer(issuer));
    let providers = config.providers.iter().filter_map(|section| catalog.providers.get(&section.id));
    let (issuers, providers) =
        join(join_all(issuers), join_all(providers.map(|provider| network.provider(provider)))).await;
    let (mut findings, times): (Vec<_>, Vec<_>) = issuers.into_iter().chain(providers).unzip();
    findings.push(time(times.into_iter().flatten().collect()));
    findings
}

impl Network {
    async fn issuer(&self, issuer: &Issuer) -> (Finding, Option<i64>) {
        let about = About::new("issuer", issuer.issuer.as_str());
        let Ok(probe) = KeysProbe::new(issuer, self.outbound.clone(), Arc::clone(&self.clock)) else {
            return (about.fail("its address cannot be made", "run `claviger check-config`"), None);
        };
        let answered = match self.ask(probe.location()).await {
            Ok(answered) => answered,
            Err(error) => return (unreachable(&about, &error), None),
        };
        let finding = match probe.fetch().await {
            Ok(()) => about.ok(format!("its keys are there; answered in {} ms", answered.took.as_millis())),
            Err(error) => about.fail(
                format!("its keys cannot be used: {error}"),
                "compare issuer, algorithms and keys of this identity with the issuer's own metadata",
            ),
        };
        (finding, answered.ahead)
    }

    async fn provider(&self, provider: &Provider) -> (Finding, Option<i64>) {
        let about = About::new("provider", &provider.id);
        let definition = &provider.definition;
        let published = definition.issuer.as_ref().map(|issuer| {
            format!("{}/.well-known/openid-configuration", issuer.as_str().trim_end_matches('/')).parse().ok()
        });
        let Some(address) = published.unwrap_or_else(|| definition.endpoints.token.clone()) else {
            return (about.fail("it has no address", "run `claviger check-config`"), None);
        };
        let answered = match self.ask(&address).await {
            Ok(answered) => answered,
            Err(error) => return (unreachable(&about, &error), None),
        };
        let finding = match self.servers.endpoints(provider).await {
            Ok(_) => about.ok(format!("its endpoints are known; answered in {} ms", answered.took.as_millis())),
            Err(error) => about.fail(
                format!("nobody can be sent there: {error}"),
                "compare issuer and definition of this provider with what its metadata says",
            ),
        };
        (finding, answered.ahead)
    }

    /// Any answer will do, whatever its status.
    async fn ask(&self, address: &Url) -> Result<Answered, OutboundError> {
        let began = self.clock.now();
        let reply = self.outbound.send(Request::get(address.clone()).accept_json()).await?;
        let ended = self.clock.now();
        let took = ended - began;
        let date = reply.headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let there = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        let there = there.and_then(|since| i64::try_from(since.as_millis()).ok());
        // Written somewhere between the two, in a second of which the middle is the best guess.
        let here = i64::midpoint(began.as_millis(), ended.as_millis());
        Ok(Answered { took, ahead: there.map(|there| here - (there + 500)) })
    }
}

fn unreachable(about: &About, error: &OutboundError) -> Finding {
    let cure = match error {
        OutboundError::NotSent { failure: Failure::Dns, .. } => "check the name, and this machine's resolver",
        OutboundError::NotSent { failure: Failure::Tls, .. } => {
            "check its certificate, and the authorities that this machine trusts"
        }
        OutboundError::NotSent { .. } | OutboundError::AnswerLost { .. } => {
            "check whether a firewall lets this machine out, and whether the server is up"
        }
        OutboundError::UrlRefused { .. } | OutboundError::AddressRefused { .. } => {
            "only public addresses are called, over https; see the section [outbound]"
        }
        OutboundError::TooLarge { .. } => "check whether the address is the right one",
        OutboundError::TrustAnchors => "install the system's certificate authorities",
    };
    about.fail(error.to_string(), cure)
}

/// Against the server in the middle: one whose own clock is wrong decides nothing.
fn time(mut ahead: Vec<i64>) -> Finding {
    let about = About::new("clock", "this machine");
    ahead.sort_unstable();
    let Some(middle) = ahead.get(ahead.len() / 2) else {
        return about.warn("no server said what time it is", "mend what cannot be reached first");
    };
    let apart = Duration::from_millis(middle.unsigned_abs());
    let direction = if *middle > 0 { "ahead of" } else { "behind" };
    let detail = format!("{} s {direction} the Date of {} server(s)", apart.as_secs(), ahead.len());
    if apart > MOST_SKEW {
        about.fail(detail, "have the clock set by NTP: tokens are refused as not yet valid, or lapse unnoticed")
    } else {
        about.ok(detail)
    }
}

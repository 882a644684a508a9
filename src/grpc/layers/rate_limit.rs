//! How often one principal may call.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::{
    domain::{Call, Clock, SubjectId, TenantId, Timestamp},
    grpc::status,
};

/// Principals that are remembered. One whose calls were all paid back is as good as forgotten, so the number is
/// reached only by that many that call above their rate at the same time.
const MOST_PRINCIPALS: usize = 100_000;
const FIRST_SWEEP: usize = 1024;

/// A token bucket's size and flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: NonZeroU32,
    /// Calls that may come at once.
    pub burst: NonZeroU32,
}

/// Limits the calls of each (tenant, subject); calls without a principal pass.
#[derive(Clone)]
pub(in crate::grpc) struct RateLimit {
    buckets: Arc<Mutex<Buckets>>,
    clock: Arc<dyn Clock>,
}

impl RateLimit {
    pub(in crate::grpc) fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        Self { buckets: Arc::new(Mutex::new(Buckets::new(rate))), clock }
    }

    /// Pays for one call; else says when there is room for it.
    pub(in crate::grpc) fn check(&self, call: &Call) -> Result<(), Duration> {
        let principal = (call.caller.tenant.clone(), call.caller.subject);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(principal, self.clock.now())
    }
}

impl<S> Layer<S> for RateLimit {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> RateLimited<S> {
        RateLimited { layer: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(in crate::grpc) struct RateLimited<S> {
    layer: RateLimit,
    inner: S,
}

impl<S> Service<Request<Body>> for RateLimited<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.extensions().get::<Call>().map_or(Ok(()), |call| self.layer.check(call)) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(retry_after) => Either::Left(ready(Ok(status::rate_limited(retry_after).into_http()))),
        }
    }
}

/// Token buckets by the generic cell rate algorithm: of each only the time at which it is full again is kept.
struct Buckets {
    /// Microseconds: what one call costs, and how far ahead a full bucket may be drained.
    cost: i64,
    depth: i64,
    full_again: HashMap<(TenantId, SubjectId), i64>,
    sweep_at: usize,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        let cost = (1_000_000 / i64::from(rate.per_second.get())).max(1);
        let depth = cost * i64::from(rate.burst.get());
        Self { cost, depth, full_again: HashMap::new(), sweep_at: FIRST_SWEEP }
    }

    /// Takes one token; else says when there is one.
    fn take(&mut self, principal: (TenantId, SubjectId), now: Timestamp) -> Result<(), Duration> {
        let now = now.as_millis().saturating_mul(1000);
        if self.full_again.len() >= self.sweep_at {
            self.full_again.retain(|_, full_again| *full_again > now);
            self.sweep_at = (self.full_again.len() * 2).clamp(FIRST_SWEEP, MOST_PRINCIPALS);
        }
        if self.full_again.len() >= MOST_PRINCIPALS && !self.full_again.contains_key(&principal) {
            return Err(micros(self.cost));
        }
        let full_again = self.full_again.entry(principal).or_insert(now);
        // No further ahead than it can be: a clock that was set back must not lock anybody out.
        *full_again = (*full_again).clamp(now, now.saturating_add(self.depth));
        let after = full_again.saturating_add(self.cost);
        let short = after.saturating_sub(now.saturating_add(self.depth));
        if short > 0 {
            return Err(micros(short));
        }
        *full_again = after;
        Ok(())
    }
}

/// Whole milliseconds, as the clock counts, so that the next try does not come a moment too soon.
fn micros(micros: i64) -> Duration {
    Duration::from_millis(u64::try_from(micros).unwrap_or(0).div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(number: u8) -> (TenantId, SubjectId) {
        ("acme".parse().unwrap(), SubjectId::from_bytes([number; 32]))
    }

    fn buckets(per_second: u32, burst: u32) -> Buckets {
        Buckets::new(Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() })
    }

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn a_burst_passes_and_the_next_call_is_told_when_to_come() {
        let mut buckets = buckets(4, 3);
        for _ in 0..3 {
            assert_eq!(buckets.take(principal(1), NOW), Ok(()));
        }
        assert_eq!(buckets.take(principal(1), NOW), Err(Duration::from_millis(250)));
        assert_eq!(buckets.take(principal(1), NOW.plus(Duration::from_millis(249))), Err(Duration::from_millis(1)));
        assert_eq!(buckets.take(principal(1), NOW.plus(Duration::from_millis(250))), Ok(()));
        assert_eq!(buckets.take(principal(1), NOW.plus(Duration::from_millis(250))), Err(Duration::from_millis(250)));
    }

    #[test]
    fn a_refused_call_costs_nothing() {
        let mut buckets = buckets(1, 1);
        assert_eq!(buckets.take(principal(1), NOW), Ok(()));
        for _ in 0..100 {
            assert!(buckets.take(principal(1), NOW).is_err());
        }
        assert_eq!(buckets.take(principal(1), NOW.plus(Duration::from_secs(1))), Ok(()));
    }

    #[test]
    fn principals_do_not_pay_for_each_other() {
        let mut buckets = buckets(1, 1);
        assert_eq!(buckets.take(principal(1), NOW), Ok(()));
        assert_eq!(buckets.take(principal(2), NOW), Ok(()));
        let elsewhere = ("globex".parse().unwrap(), SubjectId::from_bytes([1; 32]));
        assert_eq!(buckets.take(elsewhere, NOW), Ok(()));
    }

    #[test]
    fn who_has_paid_back_is_forgotten() {
        let mut buckets = buckets(1, 1);
        for number in 0..FIRST_SWEEP {
            let subject =
                SubjectId::from_bytes(std::array::from_fn(|at| number.to_be_bytes().get(at).copied().unwrap_or(0)));
            assert_eq!(buckets.take(("acme".parse().unwrap(), subject), NOW), Ok(()));
        }
        assert_eq!(buckets.full_again.len(), FIRST_SWEEP);
        assert_eq!(buckets.take(principal(0xff), NOW.plus(Duration::from_secs(2))), Ok(()));
        assert_eq!(buckets.full_again.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut buckets = buckets(10, 10);
        assert_eq!(buckets.take(principal(1), NOW.plus(Duration::from_secs(3600))), Ok(()));
        assert_eq!(buckets.take(principal(1), NOW), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take(principal(1), NOW.plus(Duration::from_millis(100))), Ok(()));
    }
}

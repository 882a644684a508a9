//! Tokens for several plugins in one call.

use futures_util::future::join_all;

use super::{Broker, BrokerError, GetPluginToken, PluginToken};
use crate::domain::Call;

/// Requests that one call may carry. They all run at once, so this bounds what one call has in the air; in smaller
/// groups, one silent provider would cost the others its time-out once more for each group.
pub const MOST_TOKENS: usize = 32;

impl Broker {
    /// One outcome for each request, in their order. Each runs as a call of its own: it is authorized, audited and
    /// refused as if it had come alone, so none can fail another. Those that need the same refresh share its flight.
    ///
    /// Returns when the last is done, which no provider can delay by more than its time-out.
    pub async fn get_plugin_tokens(
        &self,
        requests: Vec<(Call, GetPluginToken)>,
    ) -> Vec<Result<PluginToken, BrokerError>> {
        debug_assert!(requests.len() <= MOST_TOKENS, "the edge refuses more");
        join_all(requests.into_iter().map(|(call, request)| async move { self.get_plugin_token(&call, request).await }))
            .await
    }
}

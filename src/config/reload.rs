//! What another configuration changes without a restart, and what not.

use super::Config;

impl Config {
    /// The parts of `fresh` that differ and are only read at the start.
    pub fn wants_restart(&self, fresh: &Self) -> Vec<&'static str> {
        let parts = [
            ("grpc", self.grpc != fresh.grpc),
            ("http", self.http != fresh.http),
            ("limits", self.limits != fresh.limits),
            ("store", self.store != fresh.store),
            ("sealing", self.sealing != fresh.sealing),
            ("outbound", self.outbound != fresh.outbound),
            ("audit", self.audit != fresh.audit),
            ("events", self.events != fresh.events),
            ("watch", self.watch != fresh.watch),
            ("log.format", self.log.format != fresh.log.format),
            ("metrics", self.metrics != fresh.metrics),
            ("traces", self.traces != fresh.traces),
            ("identity", self.identity != fresh.identity),
        ];
        parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

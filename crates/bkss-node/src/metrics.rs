//! What a node counts, for Prometheus (docs/operating.md, "Metrics").

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// Upper bounds of the finality histogram, seconds.
const FINALITY_S: [f64; 12] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];

/// A message and what was answered.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct Answered {
    /// Its kind.
    pub kind: &'static str,
    /// `accepted`, `overloaded` or the reason of the refusal.
    pub answer: &'static str,
}

/// A request to the API and its status.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub struct Served {
    /// The route, not the path.
    pub route: String,
    /// The HTTP status.
    pub status: u16,
}

/// The metrics of a node. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// `bkss_height`
    pub height: Gauge,
    /// `bkss_head_age_seconds`
    pub head_age_s: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// `bkss_round`
    pub round: Gauge,
    /// `bkss_view_changes`
    pub view_changes: Gauge,
    /// `bkss_faults`
    pub faults: Gauge,
    /// `bkss_committee_members`
    pub committee: Gauge,
    /// `bkss_votes`
    pub votes: Gauge,
    /// `bkss_votes_needed`
    pub votes_needed: Gauge,
    /// `bkss_votes_reachable`
    pub votes_reachable: Gauge,
    /// `bkss_members_silent`
    pub silent: Gauge,
    /// `bkss_peers`
    pub peers: Gauge,
    /// `bkss_pool_transactions`
    pub pool: Gauge,
    /// `bkss_invalid_batches`
    pub invalid_batches: Gauge,
    /// `bkss_gateways_passed_over`
    pub passed_over: Gauge,
    /// `bkss_checks_dropped_total`
    pub checks_dropped: Counter,
    /// `bkss_gateway_oldest_seconds`
    pub oldest_s: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// `bkss_gateway_held`
    pub held: Gauge,
    /// `bkss_gateway_held_bytes`
    pub held_bytes: Gauge,
    /// `bkss_gateway_lost`
    pub lost: Gauge,
    /// `bkss_gateway_journal_sections`
    pub sections: Gauge,
    /// `bkss_messages_total`
    pub messages: Family<Answered, Counter>,
    /// `bkss_finality_seconds`
    pub finality_s: Histogram,
    /// `bkss_block_bytes_total`
    pub block_bytes: Counter,
    /// `bkss_stored_bytes`
    pub stored_bytes: Gauge,
    /// `bkss_readings_total`
    pub readings: Counter,
    /// `bkss_meters`
    pub meters: Gauge,
    /// `bkss_meters_silent`
    pub meters_silent: Gauge,
    /// `bkss_api_requests_total`
    pub requests: Family<Served, Counter>,
    /// `bkss_api_connections`
    pub connections: Gauge,
    /// `bkss_api_connections_refused_total`
    pub connections_refused: Counter,
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        let mut r = Registry::with_prefix("bkss");
        let mut metrics = Self {
            registry: Arc::default(),
            height: add(&mut r, "height", "Height of the newest final block", Gauge::default()),
            head_age_s: add(
                &mut r,
                "head_age_seconds",
                "Seconds since a block became final here",
                Gauge::default(),
            ),
            round: add(&mut r, "round", "Round of the newest final block", Gauge::default()),
            view_changes: add(
                &mut r,
                "view_changes",
                "Views that a quorum ended without a block, since the start",
                Gauge::default(),
            ),
            faults: add(
                &mut r,
                "faults",
                "Proofs of members that voted twice, since the start",
                Gauge::default(),
            ),
            committee: add(
                &mut r,
                "committee_members",
                "Providers that vote in this round",
                Gauge::default(),
            ),
            votes: add(
                &mut r,
                "votes",
                "1 while this node casts votes in its round",
                Gauge::default(),
            ),
            votes_needed: add(
                &mut r,
                "votes_needed",
                "Votes of the committee that make a block final",
                Gauge::default(),
            ),
            votes_reachable: add(
                &mut r,
                "votes_reachable",
                "Members of the committee this node is connected to, itself included if it votes",
                Gauge::default(),
            ),
            silent: add(
                &mut r,
                "members_silent",
                "Members of the committee of whom no vote has come for 15 seconds",
                Gauge::default(),
            ),
            peers: add(
                &mut r,
                "peers",
                "Providers this node exchanges messages with",
                Gauge::default(),
            ),
            pool: add(
                &mut r,
                "pool_transactions",
                "Transactions that wait for a block",
                Gauge::default(),
            ),
            invalid_batches: add(
                &mut r,
                "invalid_batches",
                "Batches with links that are not of their chains, since the start",
                Gauge::default(),
            ),
            passed_over: add(
                &mut r,
                "gateways_passed_over",
                "Gateways whose batches are not taken in this round, for such a batch",
                Gauge::default(),
            ),
            checks_dropped: add(
                &mut r,
                "checks_dropped",
                "Calls and messages with transactions that were dropped because too many waited",
                Counter::default(),
            ),
            oldest_s: add(
                &mut r,
                "gateway_oldest_seconds",
                "Seconds since the oldest batch that is not final was made",
                Gauge::default(),
            ),
            held: add(
                &mut r,
                "gateway_held",
                "Accepted messages that are not settled",
                Gauge::default(),
            ),
            held_bytes: add(
                &mut r,
                "gateway_held_bytes",
                "Bytes of bodies held until their openings are final",
                Gauge::default(),
            ),
            lost: add(
                &mut r,
                "gateway_lost",
                "Accepted messages that the journal had lost at the last start",
                Gauge::default(),
            ),
            sections: add(
                &mut r,
                "gateway_journal_sections",
                "Sections of the gateway's journal",
                Gauge::default(),
            ),
            messages: add(&mut r, "messages", "Messages by kind and answer", Family::default()),
            finality_s: add(
                &mut r,
                "finality_seconds",
                "Seconds from a block's time to its finality here, blocks with transactions",
                Histogram::new(FINALITY_S),
            ),
            block_bytes: add(&mut r, "block_bytes", "Bytes of final blocks", Counter::default()),
            stored_bytes: add(
                &mut r,
                "stored_bytes",
                "Bytes of the files of the store",
                Gauge::default(),
            ),
            readings: add(&mut r, "readings", "Accepted openings", Counter::default()),
            meters: add(&mut r, "meters", "Registered meters", Gauge::default()),
            meters_silent: add(
                &mut r,
                "meters_silent",
                "Own meters without an accepted opening in their last two slots",
                Gauge::default(),
            ),
            requests: add(
                &mut r,
                "api_requests",
                "Requests to the API by route and status",
                Family::default(),
            ),
            connections: add(&mut r, "api_connections", "Open connections", Gauge::default()),
            connections_refused: add(
                &mut r,
                "api_connections_refused",
                "Connections closed because too many were open",
                Counter::default(),
            ),
        };
        metrics.registry = Arc::new(r);
        metrics
    }
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, kind: &'static str, answer: &'static str) {
        self.messages.get_or_create(&Answered { kind, answer }).inc();
    }

    /// All metrics as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

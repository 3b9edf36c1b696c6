//! The HTTP interface of a node: CBOR for meters, JSON for people.
//!
//! Everything that comes in is bounded: connections, headers, bodies, the time each may take and
//! the requests under way. What is too much is answered with when to come again. Errors are one
//! JSON object that names what was expected, what was found and where.

mod archive;
mod body;
mod cache;
mod document;
mod error;
mod get;
mod hex;
mod lengths;
mod lists;
mod post;
mod server;
mod shares;
mod snapshot;
mod timed;
mod types;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get as route,
};
use bkss_ledger as ledger;
use bkss_scheme::ProviderId;
use commonware_runtime::tokio::Context;
use error::ApiError;
use lengths::Lengths;
use server::Peer;
use tokio::{sync::Semaphore, time::Instant};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Status,
    chain::Shared,
    gateway::Mailbox,
    metrics::{Metrics, Served},
    plan::Plan,
    receipts::Prover,
    snapshots::Snapshots,
    status::Snapshot,
};

pub use error::ErrorBody;
pub use lists::{MAX_ROWS, MAX_WAIT, MAX_WAITS};
pub use server::{HEADER_TIMEOUT, serve};
pub use shares::{Address, Listed, Room, Shares, What};
pub use timed::LEAST_READ;
pub use types::{
    AnswerBody, BlockBody, BlocksBody, ChainBody, HeadBody, HealthBody, MemberBody, MembersBody,
    MeterBody, MetersBody, OpenedBody, OpeningsBody, PeerBody, ProofBody, ProvidersBody, ReadyBody,
    RequestedBody, SdiBody, SlotBody, SlotsBody, StatusBody,
};

/// How long a request may take, its body included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Proofs that are built at the same time, so that the node's own work comes in between.
pub const MAX_PROOFS: usize = 8;

pub use body::MAX_BODY;

/// What the handlers share.
pub struct Api {
    provider: ProviderId,
    mailbox: Mailbox,
    shared: Shared,
    prover: Prover<Context>,
    snapshots: (Context, Snapshots),
    metrics: Metrics,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    status: Status,
    started: SystemTime,
    /// A head older than this is not healthy.
    stale_after: Duration,
    shares: Shares,
    /// Of the archive's sections.
    lengths: Lengths,
    proofs: Semaphore,
    waits: Semaphore,
    /// How many requests there have been.
    requests: AtomicU64,
}

/// What an [`Api`] is made of.
pub struct Parts {
    /// Whose node it is.
    pub provider: ProviderId,
    /// The gateway.
    pub mailbox: Mailbox,
    /// The ledger.
    pub shared: Shared,
    /// Builds proofs.
    pub prover: Prover<Context>,
    /// The snapshots, and the storage they are in.
    pub snapshots: (Context, Snapshots),
    /// What is counted.
    pub metrics: Metrics,
    /// The node's clock.
    pub now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    /// The node's condition.
    pub status: Status,
    /// A head older than this is not healthy.
    pub stale_after: Duration,
    /// What each address may have.
    pub shares: Shares,
}

impl Api {
    /// The interface of a node that starts now.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            provider,
            mailbox,
            shared,
            prover,
            snapshots,
            metrics,
            now,
            status,
            stale_after,
            shares,
        } = parts;
        Arc::new(Self {
            provider,
            mailbox,
            shared,
            prover,
            snapshots,
            metrics,
            started: now(),
            now,
            status,
            stale_after,
            shares,
            lengths: Lengths::default(),
            proofs: Semaphore::new(MAX_PROOFS),
            waits: Semaphore::new(MAX_WAITS),
            requests: AtomicU64::new(0),
        })
    }

    /// Builds proofs from what the node has stored.
    pub const fn prover(&self) -> &Prover<Context> {
        &self.prover
    }

    /// How long ago a block was applied here, or the node started.
    pub fn head_age(&self) -> Duration {
        let seen = self.status.read().head_seen.unwrap_or(self.started);
        (self.now)().duration_since(seen).unwrap_or_default()
    }

    /// Whether the head is younger than the bound.
    pub fn is_healthy(&self) -> bool {
        self.head_age() <= self.stale_after
    }

    /// How the node stands.
    pub fn status(&self) -> StatusBody {
        let now = self.status.read();
        let (needed, peers) = {
            let chain = self.shared.chain();
            (chain.state().round().committee.quorum(), self.peers(&now, chain.state()))
        };
        let reached = |member: &&ProviderId| {
            if **member == self.provider { now.votes } else { now.connected.contains(*member) }
        };
        let reachable = now.committee.iter().filter(reached).count();
        StatusBody {
            height: now.height,
            head_age_ms: millis(self.head_age()),
            head_time_ms: now.head_time.0,
            round: now.round,
            leader: now.leader.map(|provider| provider.0),
            committee: now.committee.iter().map(|provider| provider.0).collect(),
            votes_needed: u32::try_from(needed).unwrap_or(u32::MAX),
            votes_reachable: u32::try_from(reachable).unwrap_or(u32::MAX),
            votes: now.votes,
            votes_next: now.votes_next,
            peers,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Api {
    /// The other providers, those included that have left and still have a seat.
    fn peers(&self, now: &Snapshot, state: &ledger::State) -> Vec<PeerBody> {
        let plan = Plan::of(state);
        let others: BTreeSet<_> = plan.peers().iter().map(|peer| peer.provider).collect();
        let others = others.into_iter().filter(|provider| *provider != self.provider);
        let body = |provider: ProviderId| PeerBody {
            provider: provider.0,
            name: state
                .members()
                .provider_ever(provider)
                .map_or_else(String::new, |it| it.name.to_string()),
            connected: now.connected.contains(&provider),
            seat: now.committee.contains(&provider),
            silent: now.silent.contains(&provider),
        };
        others.map(body).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "bkss node",
    description = "Interface of a service provider's node. Bodies are canonical CBOR \
                   (application/cbor) or JSON (application/json); answers follow the Accept header.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
))]
struct Document;

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(post::submit))
        .routes(routes!(post::release))
        .routes(routes!(post::registration))
        .routes(routes!(post::change))
        .routes(routes!(post::batch))
        .routes(routes!(get::slot))
        .routes(routes!(get::receipt))
        .routes(routes!(get::registration_proof))
        .routes(routes!(get::time))
        .routes(routes!(get::head))
        .routes(routes!(get::block))
        .routes(routes!(lists::blocks))
        .routes(routes!(lists::openings))
        .routes(routes!(lists::meters))
        .routes(routes!(lists::meter))
        .routes(routes!(lists::slots))
        .routes(routes!(lists::providers))
        .routes(routes!(get::genesis))
        .routes(routes!(archive::archive))
        .routes(routes!(snapshot::snapshot))
        .routes(routes!(get::members))
        .routes(routes!(get::status))
        .routes(routes!(get::health))
        .routes(routes!(get::ready))
        .routes(routes!(get::metrics))
}

/// The `OpenAPI` document, as it is served at `/v1/openapi.json`.
///
/// # Panics
///
/// Never: the document has string keys only.
pub fn openapi() -> String {
    let (_, document) = routes().split_for_parts();
    let mut text =
        document::complete(document).to_pretty_json().expect("the document has string keys");
    text.push('\n');
    text
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    let (router, _) = routes().split_for_parts();
    let document = async || ([(header::CONTENT_TYPE, "application/json")], openapi());
    router
        .route("/v1/openapi.json", route(document))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(middleware::from_fn_with_state(api.clone(), watch))
        .with_state(api)
}

/// Whom a request counts against.
#[derive(Clone, Copy, Debug)]
struct Caller(IpAddr);

/// What operators and balancers ask has room of its own: it is cheap, and matters most when there is
/// too much of all else.
const ALWAYS: [&str; 4] = ["/v1/health", "/v1/ready", "/v1/status", "/metrics"];

/// What takes a body.
const POSTS: [&str; 5] =
    ["/v1/submit", "/v1/release", "/v1/registration", "/v1/change", "/v1/batch"];

/// Bounds requests under way and their time, and counts them.
async fn watch(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map(|path| path.as_str().to_owned());
    let (id, method, began) = (api.request_id(&request), request.method().clone(), Instant::now());
    let answered = answer(&api, route.as_deref(), request, next);
    let mut response = match tokio::time::timeout(REQUEST_TIMEOUT, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(_) => error::too_slow(REQUEST_TIMEOUT).into_response(),
    };
    let (route, status) = (route.unwrap_or_else(|| "none".into()), response.status().as_u16());
    tracing::debug!(
        request = id,
        %method,
        route,
        status,
        milliseconds = millis(began.elapsed()),
        "request"
    );
    api.metrics.requests.get_or_create(&Served { route, status }).inc();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// What a request is called in the log and in the answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest name that a caller may give it.
const MAX_REQUEST_ID: usize = 64;

impl Api {
    /// The caller's name for a request, if it has a plain one; else one that this node makes up.
    fn request_id(&self, request: &Request) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let fits = |id: &&str| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.chars().all(plain);
        given.filter(fits).map_or_else(
            || {
                let started = self.started.duration_since(SystemTime::UNIX_EPOCH);
                let started = started.unwrap_or_default().as_secs();
                format!("{started:x}-{:x}", self.requests.fetch_add(1, Ordering::Relaxed))
            },
            str::to_owned,
        )
    }
}

/// Reads the body, which costs the node nothing but memory; only then a request is under way.
async fn answer(
    api: &Api,
    route: Option<&str>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, mut body) = request.into_parts();
    let hosts = parts.headers.get_all(header::HOST).iter().count();
    if hosts != 1 && parts.version == Version::HTTP_11 {
        let found = if hosts == 0 { "none" } else { "several" };
        return Err(error::malformed("one Host", found, "Host"));
    }
    // Without a connection, as in tests of the router, nobody is known.
    let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0);
    let caller = api.shares.caller(peer, &parts.headers);
    parts.extensions.insert(Caller(caller));
    let mut long = None;
    if route.is_some_and(|route| POSTS.contains(&route)) && parts.method == Method::POST {
        let (bytes, share) = body::read(&api.shares, caller, &parts.headers, body).await?;
        (body, long) = (bytes.into(), share);
    }
    let under_way = match route {
        Some(route) if ALWAYS.contains(&route) => None,
        _ => Some(api.shares.take(caller, What::Request)?),
    };
    let response = next.run(Request::from_parts(parts, body)).await;
    drop((long, under_way));
    Ok(response)
}

//! What the ledger says, and how the node stands.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State, rejection::PathRejection, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bkss_ledger::{self as ledger, Block};
use bkss_scheme::{
    Digest, LedgerTime, LinkIndex, MeterId, ProviderIdentity, TreeHead, codec, hash,
};
use serde::Deserialize;

use super::{
    Api,
    body::{self, Encoding},
    cache::{self, Keep},
    error::{ApiError, ErrorBody, malformed},
    hex, millis,
    types::{
        BlockBody, HeadBody, HealthBody, MemberBody, MembersBody, PeerBody, ProofBody, ReadyBody,
        RequestedBody, SdiBody, SlotBody, StatusBody, link_index,
    },
};
use crate::{receipts::SlotStatus, status::Snapshot};

type Link = Result<Path<(u32, u32)>, PathRejection>;
pub(super) type Number<T> = Result<Path<T>, PathRejection>;

pub(super) fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, ApiError> {
    path.map(|Path(value)| value).map_err(|rejection| {
        use axum::extract::path::ErrorKind;

        let PathRejection::FailedToDeserializePathParams(failed) = &rejection else {
            return malformed("whole numbers", rejection.body_text(), "path");
        };
        match failed.kind() {
            ErrorKind::ParseErrorAtIndex { index, value, .. } => {
                malformed("a whole number", value, format!("number {} of the path", index + 1))
            }
            ErrorKind::ParseError { value, .. } => {
                malformed("a whole number", value, "the number of the path")
            }
            kind => malformed("whole numbers", kind, "path"),
        }
    })
}

fn proof(headers: &HeaderMap, kind: &str, bytes: Vec<u8>) -> Response {
    let cbor = hex::encode;
    match Encoding::accepted(headers) {
        Encoding::Cbor => {
            body::answer(StatusCode::OK, Encoding::Cbor, || bytes, || body::json(&()))
        }
        Encoding::Json => {
            body::json(&ProofBody { kind: kind.to_owned(), cbor: cbor(&bytes) }).into_response()
        }
    }
}

/// What has become of a slot of a meter.
#[utoipa::path(
    get,
    path = "/v1/slots/{meter}/{index}",
    params(
        ("meter" = u32, Path, description = "the meter's number"),
        ("index" = u32, Path, description = "the link, from 1", minimum = 1, maximum = 1_048_576),
    ),
    responses(
        (status = 200, description = "its status", body = SlotBody),
        (status = 404, description = "no such meter or link", body = ErrorBody),
        (status = 410, description = "the records of that time are not kept here", body = ErrorBody),
    )
)]
pub(super) async fn slot(State(api): State<Arc<Api>>, link: Link) -> Result<Response, ApiError> {
    let (meter, index) = path(link)?;
    let _turn = api.proofs.acquire().await;
    let (meter, index) = (MeterId(meter), link_index(index)?);
    let found = api.prover.slot(meter, index).await?;
    Ok(body::json(&slot_body(meter, index, &found)).into_response())
}

/// What has become of a slot.
pub(super) fn slot_body(meter: MeterId, index: LinkIndex, found: &SlotStatus) -> SlotBody {
    let (meter, index) = (meter.0, index.get());
    let status = match (found.opened, found.requested.is_empty()) {
        (Some(_), _) => "opened",
        (None, false) => "requested",
        (None, true) => "unknown",
    };
    let requested = found.requested.iter().map(|request| RequestedBody {
        height: request.height,
        gateway: request.gateway.0,
        value: hex::encode(&request.value.0),
    });
    let (requested, opened) = (requested.collect(), found.opened);
    let chain = found.chain.map(|chain| hex::encode(&chain.0));
    SlotBody { meter, index, chain, status: status.to_owned(), requested, opened }
}

/// Of which chain of a meter.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfChain {
    /// The chain's id, as `/v1/meters/{meter}` shows it. Without it the newest chain counts that has
    /// opened this link: once a meter's next chain has opened it, that is another reading.
    #[param(pattern = "^[0-9a-f]{64}$")]
    chain: Option<String>,
}

/// The receipt of an opened reading.
#[utoipa::path(
    get,
    path = "/v1/receipts/{meter}/{index}",
    params(
        ("meter" = u32, Path, description = "the meter's number"),
        ("index" = u32, Path, description = "the link, from 1", minimum = 1, maximum = 1_048_576),
        OfChain,
    ),
    responses(
        (
            status = 200,
            description = "the receipt",
            content((ProofBody = "application/json"), (Vec<u8> = "application/cbor")),
        ),
        (status = 404, description = "not opened", body = ErrorBody),
        (status = 410, description = "no longer kept", body = ErrorBody),
    )
)]
pub(super) async fn receipt(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    link: Link,
    query: Result<Query<OfChain>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (meter, index) = path(link)?;
    let Query(OfChain { chain }) =
        query.map_err(|error| malformed("chain=ID", error.body_text(), "query"))?;
    let id = |text: String| {
        let bytes = hex::decode_array(&text);
        bytes.map(Digest).ok_or_else(|| malformed("32 bytes as hexadecimal", text, "chain"))
    };
    let chain = chain.map(id).transpose()?;
    let _turn = api.proofs.acquire().await;
    let bytes = api.prover.receipt(MeterId(meter), link_index(index)?, chain).await?;
    let tag = cache::tag(&hash::plain(&bytes).0, Encoding::accepted(&headers));
    Ok(cache::tagged(&headers, &tag, Keep::Ask, || proof(&headers, "receipt", bytes)))
}

/// What a meter checks before its first release.
#[utoipa::path(
    get,
    path = "/v1/registrations/{meter}",
    params(("meter" = u32, Path, description = "the meter's number")),
    responses(
        (
            status = 200,
            description = "the proof",
            content((ProofBody = "application/json"), (Vec<u8> = "application/cbor")),
        ),
        (status = 404, description = "not registered", body = ErrorBody),
    )
)]
pub(super) async fn registration_proof(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    meter: Number<u32>,
) -> Result<Response, ApiError> {
    let _turn = api.proofs.acquire().await;
    let bytes = api.prover.registration(MeterId(path(meter)?)).await?;
    Ok(proof(&headers, "registration", bytes))
}

/// From when on time is to be proven.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct After {
    /// Ledger time in milliseconds: the first block from then on; without it the newest.
    after: Option<u64>,
}

/// Proof of ledger time: what a meter needs before it releases.
#[utoipa::path(
    get,
    path = "/v1/time",
    params(After),
    responses(
        (
            status = 200,
            description = "the proof",
            content((ProofBody = "application/json"), (Vec<u8> = "application/cbor")),
        ),
        (status = 404, description = "no such block yet", body = ErrorBody),
    )
)]
pub(super) async fn time(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(After { after }) =
        query.map_err(|error| malformed("after=MILLISECONDS", error.body_text(), "query"))?;
    let _turn = api.proofs.acquire().await;
    let bytes = api.prover.time_proof(after.map(LedgerTime)).await?;
    Ok(proof(&headers, "time", bytes))
}

/// The newest final block; in CBOR the newest that has a certificate of its own, with it, to be
/// compared with an archive later.
#[utoipa::path(
    get,
    path = "/v1/head",
    responses(
        (
            status = 200,
            description = "it",
            content((HeadBody = "application/json"), (Vec<u8> = "application/cbor")),
        ),
        (status = 410, description = "no block has a certificate yet", body = ErrorBody),
    )
)]
pub(super) async fn head(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if Encoding::accepted(&headers) == Encoding::Cbor {
        let _turn = api.proofs.acquire().await;
        let bytes = api.prover.head().await?;
        return Ok(body::answer(StatusCode::OK, Encoding::Cbor, || bytes, || body::json(&())));
    }
    let head = api.shared.chain().state().head();
    let head = HeadBody {
        height: head.height,
        id: head.id.to_string(),
        time_ms: head.time.0,
        age_ms: millis(api.head_age()),
    };
    Ok(body::json(&head).into_response())
}

/// A final block.
#[utoipa::path(
    get,
    path = "/v1/blocks/{height}",
    params(("height" = u64, Path, description = "its height, from 1")),
    responses(
        (
            status = 200,
            description = "the block",
            content((BlockBody = "application/json"), (Vec<u8> = "application/cbor")),
        ),
        (status = 404, description = "not final yet", body = ErrorBody),
        (status = 410, description = "no longer kept", body = ErrorBody),
    )
)]
pub(super) async fn block(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    height: Number<u64>,
) -> Result<Response, ApiError> {
    let height = path(height)?;
    let head = api.shared.chain().state().head().height;
    if height == 0 || height > head {
        let expected = format!("a height from 1 to {head}");
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no such block",
            expected,
            height,
            "height",
        ));
    }
    let _turn = api.proofs.acquire().await;
    let block = api.prover.block(height).await;
    let block = block.ok_or(crate::receipts::NoProof::NotKept(height))?;
    let encoding = Encoding::accepted(&headers);
    // The id is the same where bodies have been erased.
    let (id, keep) = match block.has_all_bodies() {
        true => (block.id(), Keep::ForGood),
        false => (hash::plain(&block.encode()), Keep::Ask),
    };
    let tag = cache::tag(&id.0, encoding);
    Ok(cache::tagged(&headers, &tag, keep, || {
        let summary = || body::json(&block_body(&block));
        body::answer(StatusCode::OK, encoding, || block.encode(), summary)
    }))
}

/// What a block is, without its transactions.
pub(super) fn block_body(block: &Block) -> BlockBody {
    let header = block.header();
    let count = |tree: Option<TreeHead>| tree.map_or(0, |tree| tree.count.into());
    BlockBody {
        height: header.height,
        id: block.id().to_string(),
        previous: header.previous.to_string(),
        time_ms: header.time.0,
        transactions: block.transactions().len() as u64,
        requests: count(header.requests),
        openings: count(header.openings),
        bytes: block.encoded_length() as u64,
    }
}

/// The genesis file: the genesis and every handover since, with which all of the ledger's
/// certificates can be checked.
#[utoipa::path(
    get,
    path = "/v1/genesis",
    responses((
            status = 200,
            description = "the file",
            content((ProofBody = "application/json"), (Vec<u8> = "application/cbor")),
        ))
)]
pub(super) async fn genesis(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let bytes = api.prover.records().directory().genesis_file();
    match Encoding::accepted(&headers) {
        Encoding::Cbor => ([(header::CONTENT_TYPE, body::CBOR)], bytes).into_response(),
        Encoding::Json => proof(&headers, "genesis", bytes.to_vec()),
    }
}

/// Who is in the consortium; in CBOR with everybody who ever was, as the ledger's rules need it.
#[utoipa::path(
    get,
    path = "/v1/members",
    responses((
        status = 200,
        description = "they",
        content((MembersBody = "application/json"), (Vec<u8> = "application/cbor")),
    ))
)]
pub(super) async fn members(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let chain = api.shared.chain();
    let state = chain.state();
    let members = state.members();
    if Encoding::accepted(&headers) == Encoding::Cbor {
        let mut bytes = Vec::new();
        codec::encode_infallible(members, &mut bytes);
        return body::answer(StatusCode::OK, Encoding::Cbor, || bytes, || body::json(&()));
    }
    let providers = members.present().map(|provider| provider_body(state, provider));
    let sdis = members.sdis().map(|sdi| SdiBody {
        id: sdi.id.0,
        name: sdi.name.to_string(),
        key: hex::encode(&sdi.key.0),
    });
    body::json(&MembersBody {
        providers: providers.collect(),
        sdis: sdis.collect(),
        quorum: members.quorum() as u64,
    })
    .into_response()
}

/// A provider of the consortium.
pub(super) fn provider_body(state: &ledger::State, provider: &ProviderIdentity) -> MemberBody {
    MemberBody {
        id: provider.id.0,
        name: provider.name.to_string(),
        address: provider.address.to_string(),
        key: hex::encode(&provider.key.0),
        vote_key: hex::encode(&provider.vote_key.0),
        accounting: state.round().nodes.iter().any(|(id, _)| *id == provider.id),
    }
}

/// How the node stands.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, description = "its status", body = StatusBody))
)]
pub(super) async fn status(State(api): State<Arc<Api>>) -> Response {
    body::json(&api.status()).into_response()
}

/// Whether blocks become final here.
#[utoipa::path(
    get,
    path = "/v1/health",
    responses(
        (status = 200, description = "the head is younger than the bound", body = HealthBody),
        (status = 503, description = "it is older", body = HealthBody),
    )
)]
pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let healthy = api.is_healthy();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let health = HealthBody {
        healthy,
        head_age_ms: millis(api.head_age()),
        bound_ms: millis(api.stale_after),
    };
    (status, body::json(&health)).into_response()
}

/// Whether the node takes messages.
#[utoipa::path(
    get,
    path = "/v1/ready",
    responses(
        (status = 200, description = "it does", body = ReadyBody),
        (status = 503, description = "it is still reading in its ledger", body = ErrorBody),
    )
)]
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    if api.mailbox.is_open() {
        let Snapshot { votes, votes_next, .. } = api.status.read();
        Ok(body::json(&ReadyBody { ready: true, votes, votes_next }).into_response())
    } else {
        Err(crate::message::NotTaken::NotReady.into())
    }
}

/// What the node counts, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((
        status = 200,
        description = "metrics",
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8",
        body = String,
    ))
)]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    api.refresh();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.metrics.text()).into_response()
}

impl Api {
    /// Brings the gauges up to date that are read, not counted.
    fn refresh(&self) {
        let status = self.status();
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.height.set(signed(status.height));
        self.metrics.head_age_s.set(self.head_age().as_secs_f64());
        self.metrics.round.set(signed(status.round));
        self.metrics.committee.set(signed(status.committee.len() as u64));
        let count = |is: fn(&PeerBody) -> bool| {
            signed(status.peers.iter().filter(|peer| is(peer)).count() as u64)
        };
        self.metrics.peers.set(count(|peer| peer.connected));
        self.metrics.votes.set(status.votes.into());
        self.metrics.votes_needed.set(status.votes_needed.into());
        self.metrics.votes_reachable.set(status.votes_reachable.into());
        let now = self.status.read();
        self.metrics.silent.set(signed(now.silent.len() as u64));
        self.metrics.view_changes.set(signed(now.view_changes));
        self.metrics.faults.set(signed(now.faults));
        self.metrics.pool.set(signed(self.shared.candidates() as u64));
        let (invalid, passed_over) = self.shared.invalid_batches();
        self.metrics.invalid_batches.set(signed(invalid));
        self.metrics.passed_over.set(signed(passed_over as u64));
        self.metrics.meters.set(self.shared.chain().state().chain_count().into());
    }
}

//! Lists, a page at a time: each page says where the next one begins.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use bkss_ledger::{View, chain::End, transaction_batch::Row};
use bkss_scheme::{LinkIndex, MeterId, ProviderId};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{
    Api, body,
    error::{ApiError, ErrorBody, malformed},
    get::{Number, block_body, path, provider_body, slot_body},
    hex,
    types::{
        BlocksBody, ChainBody, MAX_LINK, MeterBody, MetersBody, OpenedBody, OpeningsBody,
        ProvidersBody, SlotsBody, link_index,
    },
};
use crate::receipts::NoProof;

/// Most rows of a page.
pub const MAX_ROWS: usize = 100;
/// Chains that are looked at for one page.
const MAX_LOOKS: Row = 16_384;
/// Longest wait for a block.
pub const MAX_WAIT: Duration = Duration::from_secs(25);
/// Requests that wait for a block at the same time; what is more is answered at once, so that those
/// who wait leave room for those who do not.
pub const MAX_WAITS: usize = 64;
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(50);

type Asked<T> = Result<Query<T>, QueryRejection>;

fn query<T>(query: Asked<T>) -> Result<T, ApiError> {
    let known = "the parameters that the interface's document names";
    query.map(|Query(asked)| asked).map_err(|error| malformed(known, error.body_text(), "query"))
}

fn rows(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(MAX_ROWS);
    if (1..=MAX_ROWS).contains(&limit) {
        Ok(limit)
    } else {
        Err(malformed(format!("from 1 to {MAX_ROWS} rows"), limit, "limit"))
    }
}

/// Which blocks.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Blocks {
    /// Height of the first, from 1.
    #[param(minimum = 1)]
    from: Option<u64>,
    /// Most rows, up to 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// Seconds to wait for the first if it is not final yet, up to 25.
    #[param(maximum = 25)]
    wait: Option<u64>,
}

/// Final blocks from a height on. With `wait` the answer comes as soon as there is one.
#[utoipa::path(
    get,
    path = "/v1/blocks",
    params(Blocks),
    responses(
        (status = 200, description = "they; none if none is final yet", body = BlocksBody),
        (status = 410, description = "no longer kept", body = ErrorBody),
    )
)]
pub(super) async fn blocks(
    State(api): State<Arc<Api>>,
    asked: Asked<Blocks>,
) -> Result<Response, ApiError> {
    let Blocks { from, limit, wait } = query(asked)?;
    let (from, limit) = (from.unwrap_or(1), rows(limit)?);
    if from == 0 {
        return Err(malformed("a height from 1", from, "from"));
    }
    let wait = Duration::from_secs(wait.unwrap_or(0));
    if wait > MAX_WAIT {
        let most = MAX_WAIT.as_secs();
        return Err(malformed(format!("at most {most} seconds"), wait.as_secs(), "wait"));
    }
    let until = Instant::now() + wait;
    let newest = || api.shared.chain().state().head().height;
    if let Ok(_waits) = api.waits.try_acquire() {
        while newest() < from && Instant::now() < until {
            sleep(LOOK).await;
        }
    }
    let _turn = api.proofs.acquire().await;
    let last = newest().min(from.saturating_add(limit as u64 - 1));
    let mut blocks = Vec::new();
    for height in from..=last {
        let block = api.prover.block(height).await.ok_or(NoProof::NotKept(height))?;
        blocks.push(block_body(&block));
    }
    let next = from.saturating_add(blocks.len() as u64);
    Ok(body::json(&BlocksBody { blocks, next }).into_response())
}

/// Which providers.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Providers {
    /// The number of the first; without it the lowest.
    #[param(maximum = 65_535)]
    from: Option<u16>,
    /// Most rows, up to 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

/// The providers of the consortium, by ascending number.
#[utoipa::path(
    get,
    path = "/v1/providers",
    params(Providers),
    responses((status = 200, description = "they", body = ProvidersBody))
)]
pub(super) async fn providers(
    State(api): State<Arc<Api>>,
    asked: Asked<Providers>,
) -> Result<Response, ApiError> {
    let Providers { from, limit } = query(asked)?;
    let (from, limit) = (ProviderId(from.unwrap_or(0)), rows(limit)?);
    let (providers, next) = {
        let chain = api.shared.chain();
        let state = chain.state();
        let mut present = state.members().present().filter(|provider| provider.id >= from);
        let page: Vec<_> =
            present.by_ref().take(limit).map(|provider| provider_body(state, provider)).collect();
        (page, present.next().map(|provider| provider.id.0))
    };
    Ok(body::json(&ProvidersBody { providers, next }).into_response())
}

/// Which chains.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Meters {
    /// Only those of this provider.
    #[param(maximum = 65_535)]
    owner: Option<u16>,
    /// The number in the registry of the first; without it 0.
    from: Option<u32>,
    /// Most rows, up to 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

/// Chains of meters in the order of their registration, all or those of an owner. A page may have
/// fewer rows than asked for, or none, where others lie between: the list ends where there is no
/// `next`.
#[utoipa::path(
    get,
    path = "/v1/meters",
    params(Meters),
    responses((status = 200, description = "they", body = MetersBody))
)]
pub(super) async fn meters(
    State(api): State<Arc<Api>>,
    asked: Asked<Meters>,
) -> Result<Response, ApiError> {
    let Meters { owner, from, limit } = query(asked)?;
    let (owner, limit) = (owner.map(ProviderId), rows(limit)?);
    let (chains, next) = {
        let chain = api.shared.chain();
        let view = chain.state().view();
        let from = from.unwrap_or(0);
        let end = view.chain_count().min(from.saturating_add(MAX_LOOKS));
        let (mut chains, mut next) = (Vec::new(), from);
        while next < end && chains.len() < limit {
            let of_owner = view
                .chain(next)
                .is_some_and(|chain| owner.is_none_or(|owner| chain.owner == owner));
            chains.extend(of_owner.then(|| chain_body(&view, next)).flatten());
            next += 1;
        }
        (chains, (next < view.chain_count()).then_some(next))
    };
    Ok(body::json(&MetersBody { chains, next }).into_response())
}

/// A meter with all chains that it has or had, newest first.
#[utoipa::path(
    get,
    path = "/v1/meters/{meter}",
    params(("meter" = u32, Path, description = "the meter's number")),
    responses(
        (status = 200, description = "it", body = MeterBody),
        (status = 404, description = "not registered", body = ErrorBody),
    )
)]
pub(super) async fn meter(
    State(api): State<Arc<Api>>,
    meter: Number<u32>,
) -> Result<Response, ApiError> {
    let meter = MeterId(path(meter)?);
    let chains: Vec<_> = {
        let chain = api.shared.chain();
        let view = chain.state().view();
        view.chains(meter).into_iter().filter_map(|row| chain_body(&view, row)).collect()
    };
    let newest = chains.first().ok_or(NoProof::UnknownMeter(meter))?;
    let (owner, device) = (newest.owner, newest.device.clone());
    Ok(body::json(&MeterBody { meter: meter.0, owner, device, chains }).into_response())
}

/// Which slots.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Slots {
    /// The first link, from 1.
    #[param(minimum = 1, maximum = 1_048_576)]
    from: Option<u32>,
    /// Most rows, up to 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

/// What has become of the slots of a meter, from a link on: of each as `/v1/slots` says it.
#[utoipa::path(
    get,
    path = "/v1/meters/{meter}/slots",
    params(("meter" = u32, Path, description = "the meter's number"), Slots),
    responses(
        (status = 200, description = "it", body = SlotsBody),
        (status = 404, description = "no such meter or link", body = ErrorBody),
        (status = 410, description = "the records of that time are not kept here", body = ErrorBody),
    )
)]
pub(super) async fn slots(
    State(api): State<Arc<Api>>,
    meter: Number<u32>,
    asked: Asked<Slots>,
) -> Result<Response, ApiError> {
    let meter = MeterId(path(meter)?);
    let Slots { from, limit } = query(asked)?;
    let (from, limit) = (link_index(from.unwrap_or(1))?, rows(limit)?);
    let longest = {
        let chain = api.shared.chain();
        let view = chain.state().view();
        let chains = view.chains(meter).into_iter().filter_map(|row| view.chain(row));
        chains.map(|chain| chain.schedule.slots).max().ok_or(NoProof::UnknownMeter(meter))?
    };
    if from.get() > longest {
        return Err(NoProof::OutsideChain(from).into());
    }
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let last = longest.min(from.get().saturating_add(limit - 1));
    let _turn = api.proofs.acquire().await;
    let mut slots = Vec::new();
    for index in (from.get()..=last).filter_map(|index| LinkIndex::new(index, MAX_LINK)) {
        slots.push(slot_body(meter, index, &api.prover.slot(meter, index).await?));
    }
    let next = (last < longest).then(|| last + 1);
    Ok(body::json(&SlotsBody { slots, next }).into_response())
}

/// Which openings.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Openings {
    /// Only those of this provider's meters.
    #[param(maximum = 65_535)]
    owner: Option<u16>,
    /// Height of the first block, from 1.
    #[param(minimum = 1)]
    from: Option<u64>,
    /// So many openings of that block are left out: `skip` of the page before.
    skip: Option<u32>,
    /// Most rows, up to 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

/// Accepted openings in the order of their blocks, all or those of an owner's meters: of each reading
/// that has become final since a height. The next page begins at `next` and `skip`, also where this
/// one has no rows; at the newest block it is asked for again later.
#[utoipa::path(
    get,
    path = "/v1/openings",
    params(Openings),
    responses(
        (status = 200, description = "they", body = OpeningsBody),
        (status = 410, description = "the records of that time are not kept here", body = ErrorBody),
    )
)]
pub(super) async fn openings(
    State(api): State<Arc<Api>>,
    asked: Asked<Openings>,
) -> Result<Response, ApiError> {
    let Openings { owner, from, skip, limit } = query(asked)?;
    let (from, limit) = (from.unwrap_or(1), rows(limit)?);
    if from == 0 {
        return Err(malformed("a height from 1", from, "from"));
    }
    let owner = owner.map(ProviderId);
    let _turn = api.proofs.acquire().await;
    let page = api.prover.openings((from, skip.unwrap_or(0)), owner, limit).await?;
    let row = |opened: &crate::receipts::Opened| OpenedBody {
        height: opened.height,
        meter: opened.meter.0,
        index: opened.index.get(),
        chain: hex::encode(&opened.chain.0),
    };
    let openings = page.opened.iter().map(row).collect();
    let (next, skip) = page.next;
    Ok(body::json(&OpeningsBody { openings, next, skip }).into_response())
}

fn chain_body(view: &View<'_>, row: Row) -> Option<ChainBody> {
    let (chain, live) = (view.chain(row)?, view.live(row)?);
    let schedule = &chain.schedule;
    let (ended, ends_ms) = match live.end {
        None => {
            let last = LinkIndex::new(schedule.slots, schedule.slots)?;
            (None, schedule.ends(last).0)
        }
        Some(End::Replaced(then)) => (Some("replaced"), then.0),
        Some(End::Revoked(then)) => (Some("revoked"), then.0),
    };
    Some(ChainBody {
        row,
        meter: chain.meter.0,
        owner: chain.owner.0,
        chain: hex::encode(&chain.id.0),
        device: hex::encode(&chain.device.0),
        slot_s: schedule.slot_s,
        window_s: schedule.window_s,
        slots: schedule.slots,
        begins_ms: schedule.begins().0,
        ends_ms,
        ended: ended.map(str::to_owned),
        last_opened: live.last_index,
    })
}

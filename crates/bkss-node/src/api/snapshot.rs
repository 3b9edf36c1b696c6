//! The newest snapshot that others can check, written while it is read.

use std::{io, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bkss_ledger::beginning;
use bkss_scheme::codec;
use bytes::Bytes;
use commonware_runtime::{Blob, ReadOptions};
use futures::{StreamExt, stream};

use super::{
    Api, Caller,
    error::{ApiError, ErrorBody},
    shares::{Share, What},
};
use crate::{receipts::NoProof, snapshots::PIECE};

/// How far a snapshot is written.
struct Progress<B> {
    blob: B,
    next: u64,
    length: u64,
    _share: Share,
}

/// The state at the end of a round, with what a late joiner checks it by.
#[utoipa::path(
    get,
    path = "/v1/snapshot",
    responses(
        (status = 200, description = "the snapshot", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, description = "there is none yet", body = ErrorBody),
        (status = 429, description = "too many of the caller's are under way, see Retry-After", body = ErrorBody),
        (status = 503, description = "too many are under way, see Retry-After", body = ErrorBody),
    )
)]
pub(super) async fn snapshot(
    State(api): State<Arc<Api>>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<Response, ApiError> {
    let share = api.shares.take(caller, What::File)?;
    let (blocks, head) = {
        let chain = api.shared.chain();
        let blocks = u64::from(chain.state().genesis().charter().rounds.blocks);
        (blocks, chain.state().head().height)
    };
    // The header that certifies the state is at the end of the round after it.
    let (storage, snapshots) = &api.snapshots;
    let found = snapshots.newest_up_to(storage, head.saturating_sub(blocks)).await;
    let (height, blob, length) = found.ok_or_else(|| none(head))?;
    let certifying = height + blocks;
    let proof = api.prover.time_proof_of(certifying).await?;
    let proof = codec::decode("proof", &proof).map_err(|_| NoProof::Broken(certifying))?;
    let mut first = Vec::new();
    beginning::write_proof(&proof, &mut first).map_err(|_| NoProof::Broken(certifying))?;
    let progress = Progress { blob, next: 0, length, _share: share };
    let pieces = stream::once(async { Ok::<_, io::Error>(Bytes::from(first)) });
    let pieces = pieces.chain(stream::unfold(progress, piece));
    let name = format!("attachment; filename=\"snapshot-{height}.bkss\"");
    let kind = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((kind, Body::from_stream(pieces.boxed())).into_response())
}

/// The next bytes. A snapshot that cannot be read is cut, which its reader notices.
async fn piece<B: Blob>(mut progress: Progress<B>) -> Option<(io::Result<Bytes>, Progress<B>)> {
    let left = progress.length - progress.next;
    let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    if wanted == 0 {
        return None;
    }
    let read = progress.blob.read_at(progress.next, wanted, ReadOptions::default()).await;
    // After an error there is nothing more to say.
    progress.next = if read.is_ok() { progress.next + wanted as u64 } else { progress.length };
    let bytes = read.map(|read| Bytes::copy_from_slice(read.coalesce().as_ref()));
    Some((bytes.map_err(io::Error::other), progress))
}

fn none(head: u64) -> ApiError {
    let expected = "a snapshot, and the end of the round after it";
    let found = format!("the newest block is {head}");
    ApiError::new(StatusCode::NOT_FOUND, "no snapshot", expected, found, "store")
}

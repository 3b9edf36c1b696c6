//! The ledger as a file, written while it is read.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bkss_ledger::archive::Writer;
use bkss_scheme::codec;
use bytes::Bytes;
use futures::{StreamExt, stream};

use super::{
    Api, Caller,
    error::{ApiError, ErrorBody},
    shares::{Share, What},
};
use crate::receipts::NoProof;

/// What the writer has written and nobody has fetched.
#[derive(Clone, Debug, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn fetch(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far an archive is written.
struct Progress {
    api: Arc<Api>,
    sink: Sink,
    /// `None` once it has ended.
    writer: Option<Writer<Sink>>,
    next: u64,
    last: u64,
    _share: Share,
}

/// All final blocks, as `bkss audit` takes them.
#[utoipa::path(
    get,
    path = "/v1/archive",
    responses(
        (status = 200, description = "the archive", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 410, description = "the first blocks are no longer kept", body = ErrorBody),
        (status = 429, description = "too many of the caller's are under way, see Retry-After", body = ErrorBody),
        (status = 503, description = "too many are under way, see Retry-After", body = ErrorBody),
    )
)]
pub(super) async fn archive(
    State(api): State<Arc<Api>>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<Response, ApiError> {
    let share = api.shares.take(caller, What::File)?;
    let (network, head) = {
        let chain = api.shared.chain();
        (chain.state().genesis().network(), chain.state().head().height)
    };
    // The newest blocks may not have a certificate yet; without one they are not final to others.
    let mut last = head;
    while last > 0 && api.prover.certificate(last).await.is_none() {
        last -= 1;
    }
    if last > 0 && api.prover.block(1).await.is_none() {
        return Err(NoProof::NotKept(1).into());
    }
    let sink = Sink::default();
    let writer = Writer::new(sink.clone(), network).ok();
    let progress = Progress { api, sink, writer, next: 1, last, _share: share };
    let pieces = stream::unfold(progress, piece);
    let kind = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"archive.bkss\""),
    ];
    Ok((kind, Body::from_stream(pieces.boxed())).into_response())
}

/// The next block's bytes. A block that cannot be read cuts the archive, which its reader notices.
async fn piece(mut progress: Progress) -> Option<(io::Result<Bytes>, Progress)> {
    let mut writer = progress.writer.take()?;
    if progress.next > progress.last {
        let ended = writer.finish().map(|_| progress.sink.fetch());
        return Some((ended, progress));
    }
    let height = progress.next;
    let written = match progress.api.prover.block(height).await {
        Some(block) => {
            let bytes = progress.api.prover.certificate(height).await;
            let certificate =
                bytes.as_ref().and_then(|bytes| codec::decode("certificate", bytes).ok());
            writer.block(&block, certificate)
        }
        None => Err(io::Error::other(NoProof::NotKept(height).to_string())),
    };
    if let Err(error) = written {
        return Some((Err(error), progress));
    }
    progress.writer = Some(writer);
    progress.next += 1;
    Some((Ok(progress.sink.fetch()), progress))
}

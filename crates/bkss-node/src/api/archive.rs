//! The ledger as a file, written while it is read.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bkss_ledger::archive::Writer;
use bkss_scheme::{Network, codec};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    Api, Caller,
    error::{ApiError, ErrorBody, malformed},
    hex,
    lengths::SECTION,
    shares::{Share, What},
};
use crate::{message::RETRY_AFTER, receipts::NoProof};

/// So long a caller waits while it is measured what comes before a part.
const MEASURING: Duration = Duration::from_secs(10);

/// What the writer has written and nobody has fetched.
#[derive(Clone, Debug, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn fetch(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }

    fn length(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
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
    /// Bytes that are left out, and that follow then.
    skip: u64,
    left: u64,
    /// Bytes of the section so far.
    of_section: u64,
    /// Whether it is a part, of an archive whose sections have the lengths that are known.
    is_part: bool,
    _share: Share,
}

/// Up to where.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UpTo {
    /// Height of the newest block; without it the newest that has a certificate. An archive up to a
    /// height stays what it is, so that it can be fetched in parts.
    #[param(minimum = 1)]
    to: Option<u64>,
}

/// All final blocks, as `bkss audit` takes them. A `Range` is served of an archive up to a height that
/// is asked for, or whose tag `If-Range` has.
#[utoipa::path(
    get,
    path = "/v1/archive",
    params(UpTo),
    responses(
        (status = 200, description = "the archive", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "a part of it", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, description = "no such block, or it has no certificate of its own", body = ErrorBody),
        (status = 410, description = "the first blocks are no longer kept", body = ErrorBody),
        (status = 416, description = "it has not so many bytes", body = ErrorBody),
    )
)]
pub(super) async fn archive(
    State(api): State<Arc<Api>>,
    Extension(Caller(caller)): Extension<Caller>,
    headers: HeaderMap,
    asked: Result<Query<UpTo>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(UpTo { to }) =
        asked.map_err(|error| malformed("to=HEIGHT", error.body_text(), "query"))?;
    let share = api.shares.take(caller, What::File)?;
    let (network, head) = {
        let chain = api.shared.chain();
        (chain.state().genesis().network(), chain.state().head().height)
    };
    if let Some(to) = to
        && (to == 0 || to > head || api.prover.certificate(to).await.is_none())
    {
        let expected = format!("a block up to {head} that has a certificate of its own");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no such archive", expected, to, "to"));
    }
    // The newest blocks may not have a certificate yet; without one they are not final to others.
    let mut last = to.unwrap_or(head);
    while last > 0 && api.prover.certificate(last).await.is_none() {
        last -= 1;
    }
    // A node that has lost its blocks is fetching them.
    if head > 0 && (last == 0 || api.prover.block(1).await.is_none()) {
        return Err(NoProof::NotKept(1).into());
    }
    let started = api.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (since, changes) = (started.as_millis(), api.lengths.changes());
    let tag = format!("\"{}-{last}-{since}-{changes}\"", hex::encode(&network.0));
    let field = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let same = field(header::IF_RANGE).map_or(to.is_some(), |known| known == tag);
    let range = field(header::RANGE).filter(|_| same).and_then(Range::of);
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let name = HeaderValue::from_static("attachment; filename=\"archive.bkss\"");
    fields.insert(header::CONTENT_DISPOSITION, name);
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    let (mut status, mut skip, mut left, mut next) = (StatusCode::OK, 0, u64::MAX, 1);
    if let Some(Range { first, last: end }) = range {
        let Layout { sections, total } = Layout::measure(&api, network, last).await?;
        if first >= total {
            let expected = format!("a byte before {total}");
            let at = "Range";
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            return Err(ApiError::new(status, "no such bytes", expected, first, at));
        }
        let end = end.map_or(total - 1, |end| end.min(total - 1));
        (status, left) = (StatusCode::PARTIAL_CONTENT, end - first + 1);
        // Of the first section there is more: the archive's first frame.
        (skip, next) = (first, 1);
        for (start, section) in sections.into_iter().zip(0..).skip(1) {
            if start <= first {
                (skip, next) = (first - start, section * SECTION + 1);
            }
        }
        let range = HeaderValue::from_str(&format!("bytes {first}-{end}/{total}"));
        fields.extend(range.ok().map(|range| (header::CONTENT_RANGE, range)));
        fields.insert(header::CONTENT_LENGTH, left.into());
    }
    let sink = Sink::default();
    let writer = Writer::new(sink.clone(), network).ok();
    if next > 1 {
        // What stands before all blocks has been served.
        sink.fetch();
    }
    let is_part = status == StatusCode::PARTIAL_CONTENT;
    let progress = Progress {
        api,
        sink,
        writer,
        next,
        last,
        skip,
        left,
        of_section: 0,
        is_part,
        _share: share,
    };
    let pieces = stream::unfold(progress, piece);
    Ok((status, fields, Body::from_stream(pieces.boxed())).into_response())
}

/// Bytes that are asked for, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range {
    first: u64,
    last: Option<u64>,
}

impl Range {
    /// One range from a first byte on; others are not served.
    fn of(field: &str) -> Option<Self> {
        let (first, last) = field.strip_prefix("bytes=")?.split_once('-')?;
        let first = first.trim().parse().ok()?;
        let last = match last.trim() {
            "" => None,
            last => Some(last.parse().ok()?),
        };
        last.is_none_or(|last| first <= last).then_some(Self { first, last })
    }
}

/// Where the sections of an archive begin, and how long it is.
struct Layout {
    sections: Vec<u64>,
    total: u64,
}

impl Layout {
    /// Of the archive up to a block. What is not known yet is written to nowhere; if that takes long
    /// the caller is to come again, and finds more of it known.
    async fn measure(api: &Api, network: Network, last: u64) -> Result<Self, ApiError> {
        let began = Instant::now();
        let sink = Sink::default();
        let mut writer = Writer::new(sink.clone(), network).map_err(|_| NoProof::Broken(0))?;
        let mut total = sink.fetch().len() as u64;
        let mut sections = Vec::new();
        for section in 0..last.div_ceil(SECTION) {
            sections.push(total);
            let end = (section + 1) * SECTION;
            // The last block is always read: its head ends the archive.
            if let Some(known) = api.lengths.of(section).filter(|_| end < last) {
                total += known;
                continue;
            }
            for height in section * SECTION + 1..=end.min(last) {
                write(api, &mut writer, height).await.map_err(|_| NoProof::NotKept(height))?;
            }
            let length = sink.fetch().len() as u64;
            total += length;
            let same = end > last || api.lengths.wrote(section, length, head(api));
            if !same || began.elapsed() > MEASURING {
                let (status, expected) = (StatusCode::SERVICE_UNAVAILABLE, "a measured archive");
                let found = format!("one measured up to block {}", end.min(last));
                let error = ApiError::new(status, "node is busy", expected, found, "Range");
                return Err(error.retry_after(RETRY_AFTER));
            }
        }
        writer.finish().map_err(|_| NoProof::Broken(last))?;
        Ok(Self { sections, total: total + sink.fetch().len() as u64 })
    }
}

/// Height of the newest block.
fn head(api: &Api) -> u64 {
    api.shared.chain().state().head().height
}

/// Writes a block with its certificate.
async fn write(api: &Api, writer: &mut Writer<Sink>, height: u64) -> io::Result<()> {
    let block = api.prover.block(height).await;
    let block = block.ok_or_else(|| io::Error::other(NoProof::NotKept(height).to_string()))?;
    let bytes = api.prover.certificate(height).await;
    let certificate = bytes.as_ref().and_then(|bytes| codec::decode("certificate", bytes).ok());
    writer.block(&block, certificate)
}

/// The next block's bytes. A block that cannot be read cuts the archive, which its reader notices.
async fn piece(mut progress: Progress) -> Option<(io::Result<Bytes>, Progress)> {
    let mut writer = progress.writer.take()?;
    if progress.left == 0 {
        return None;
    }
    if progress.next > progress.last {
        let ended = writer.finish().map(|_| progress.fetch());
        return Some((ended, progress));
    }
    let before = progress.sink.length();
    if let Err(error) = write(&progress.api, &mut writer, progress.next).await {
        return Some((Err(error), progress));
    }
    progress.of_section += progress.sink.length() - before;
    if !progress.is_as_known() {
        let error = io::Error::other("the archive has changed since its length was measured");
        return Some((Err(error), progress));
    }
    progress.writer = Some(writer);
    progress.next += 1;
    Some((Ok(progress.fetch()), progress))
}

impl Progress {
    /// Notes the length of a section at its end; false if this is a part of an archive in which it had
    /// another.
    fn is_as_known(&mut self) -> bool {
        if !self.next.is_multiple_of(SECTION) {
            return true;
        }
        let (section, length) = (self.next / SECTION - 1, std::mem::take(&mut self.of_section));
        self.api.lengths.wrote(section, length, head(&self.api)) || !self.is_part
    }

    /// What has been written of what is asked for.
    fn fetch(&mut self) -> Bytes {
        let mut bytes = self.sink.fetch();
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        let mut bytes = bytes.split_off(skipped);
        bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        self.left -= bytes.len() as u64;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_from_a_byte_on_is_served() {
        for (field, expected) in [
            ("bytes=0-", Some((0, None))),
            ("bytes=5-9", Some((5, Some(9)))),
            ("bytes=9-9", Some((9, Some(9)))),
            ("bytes=9-5", None),
            ("bytes=-5", None),
            ("bytes=1-2,4-5", None),
            ("bytes=-", None),
            ("items=1-2", None),
            ("bytes=99999999999999999999-", None),
        ] {
            let range = expected.map(|(first, last)| Range { first, last });
            assert_eq!(Range::of(field), range, "{field}");
        }
    }
}

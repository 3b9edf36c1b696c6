//! What has been sent once and need not be sent again.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{body::Encoding, hex};

/// How long an answer may be kept by whoever has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Keep {
    /// For good: it never changes.
    ForGood,
    /// It may change: whoever has it asks whether it has.
    Ask,
}

impl Keep {
    const fn field(self) -> HeaderValue {
        match self {
            Self::ForGood => HeaderValue::from_static("public, max-age=31536000, immutable"),
            Self::Ask => HeaderValue::from_static("public, no-cache"),
        }
    }
}

/// The tag of an answer: a digest of what it says, and how it is encoded.
pub(super) fn tag(digest: &[u8; 32], encoding: Encoding) -> String {
    let suffix = match encoding {
        Encoding::Cbor => "cbor",
        Encoding::Json => "json",
    };
    format!("\"{}-{suffix}\"", hex::encode(digest))
}

/// An answer with a tag: 304 for whoever has it.
pub(super) fn tagged(
    headers: &HeaderMap,
    tag: &str,
    keep: Keep,
    answer: impl FnOnce() -> Response,
) -> Response {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
    let mut known = known.flat_map(|tags| tags.split(',')).map(str::trim);
    let same = |known: &str| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag;
    let mut response =
        if known.any(same) { StatusCode::NOT_MODIFIED.into_response() } else { answer() };
    let fields = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        fields.insert(header::ETAG, tag);
    }
    fields.insert(header::CACHE_CONTROL, keep.field());
    fields.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

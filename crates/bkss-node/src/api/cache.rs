//! What never changes, and need not be sent again.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{body::Encoding, hex};

/// For good, by anybody.
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The tag of an answer: a digest of what it says, and how it is encoded.
pub(super) fn tag(digest: &[u8; 32], encoding: Encoding) -> String {
    let suffix = match encoding {
        Encoding::Cbor => "cbor",
        Encoding::Json => "json",
    };
    format!("\"{}-{suffix}\"", hex::encode(digest))
}

/// An answer that stays what it is: 304 for whoever has it.
pub(super) fn immutable(
    headers: &HeaderMap,
    tag: &str,
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
    fields.insert(header::CACHE_CONTROL, FOR_GOOD);
    fields.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

//! Bodies: read within bounds, in the encoding their header names; answers in the one that was
//! asked for.

use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Api,
    error::{ApiError, busy, malformed},
};

/// Most bytes of a body.
pub const MAX_BODY: usize = 4 << 20;
/// Bodies up to here are read without asking.
const SMALL: usize = 64 << 10;
/// Longer bodies that are read at the same time.
pub const MAX_LARGE: usize = 16;

pub(super) const CBOR: &str = "application/cbor";

/// How a body is encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    Cbor,
    Json,
}

impl Encoding {
    /// Of a request's body.
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = found.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence {
            CBOR => Ok(Self::Cbor),
            "application/json" => Ok(Self::Json),
            _ => Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unknown encoding",
                "application/cbor or application/json",
                found.unwrap_or("nothing"),
                "Content-Type",
            )),
        }
    }

    /// Of the answer: CBOR only if it is asked for.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        if accepts.is_some_and(|accepts| accepts.contains(CBOR)) { Self::Cbor } else { Self::Json }
    }
}

/// A request's body.
pub(super) struct Received {
    pub(super) encoding: Encoding,
    pub(super) answer: Encoding,
    pub(super) bytes: Vec<u8>,
}

impl Received {
    /// Reads a body. The longest are read only a few at a time, so that memory is bounded however
    /// slowly they come.
    pub(super) async fn read(api: &Api, request: Request) -> Result<Self, ApiError> {
        let headers = request.headers();
        let (encoding, answer) = (Encoding::of(headers)?, Encoding::accepted(headers));
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let announced = announced.and_then(|length| length.parse::<u64>().ok());
        if announced.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(too_long(announced.unwrap_or_default()));
        }
        let bytes = collect(api, request.into_body()).await?;
        Ok(Self { encoding, answer, bytes })
    }

    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, expected: &str) -> Result<T, ApiError> {
        serde_json::from_slice(&self.bytes).map_err(|error| {
            let at = format!("body, line {} column {}", error.line(), error.column());
            malformed(expected, error, at)
        })
    }
}

async fn collect(api: &Api, mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut permit = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| malformed("a whole body", error, "body"))?;
        let Ok(piece) = frame.into_data() else { continue };
        let length = bytes.len() + piece.len();
        if length > MAX_BODY {
            return Err(too_long(length as u64));
        }
        if length > SMALL && permit.is_none() {
            let large = api.large_bodies.try_acquire();
            permit = Some(large.map_err(|_| busy("long bodies", MAX_LARGE))?);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn too_long(found: u64) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body is too long",
        format!("at most {MAX_BODY} bytes"),
        format!("{found} bytes or more"),
        "body",
    )
}

/// An answer in CBOR or JSON.
pub(super) fn answer(
    status: StatusCode,
    encoding: Encoding,
    cbor: impl FnOnce() -> Vec<u8>,
    json: impl FnOnce() -> Json<serde_json::Value>,
) -> Response {
    match encoding {
        Encoding::Cbor => (status, [(header::CONTENT_TYPE, CBOR)], cbor()).into_response(),
        Encoding::Json => (status, json()).into_response(),
    }
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Json<serde_json::Value> {
    Json(serde_json::to_value(value).unwrap_or_default())
}

//! Bodies: read within bounds, in the encoding their header names; answers in the one that was
//! asked for.

use std::{net::IpAddr, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::{
    error::{ApiError, malformed},
    shares::{Share, Shares, What},
};

/// Most bytes of a body.
pub const MAX_BODY: usize = 4 << 20;
/// Bodies up to here need no share.
const SMALL: usize = 64 << 10;
/// How long a body may take, beside the time that its bytes earn.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that earn a second.
const LEAST_SENT: u64 = 32 << 10;

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
    pub(super) bytes: Bytes,
}

impl Received {
    /// The body of a request that has been read whole.
    pub(super) async fn of(request: Request) -> Result<Self, ApiError> {
        let headers = request.headers();
        let (encoding, answer) = (Encoding::of(headers)?, Encoding::accepted(headers));
        let whole = request.into_body().collect().await;
        let bytes = whole.map_err(|error| malformed("a whole body", error, "body"))?.to_bytes();
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

/// Reads a body that a caller sends, in an encoding that is known: no longer than is allowed, and not
/// too slowly. The share of a long one is held as long as the bytes are.
pub(super) async fn read(
    shares: &Shares,
    caller: IpAddr,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<(Bytes, Option<Share>), ApiError> {
    Encoding::of(headers)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_long(announced.unwrap_or_default()));
    }
    let began = Instant::now();
    let (mut bytes, mut share) = (BytesMut::new(), None);
    loop {
        let earned = Duration::from_secs_f64(bytes.len() as f64 / LEAST_SENT as f64);
        let frame = timeout_at(began + BODY_PATIENCE + earned, body.frame());
        let Some(frame) = frame.await.map_err(|_| too_slow())? else { break };
        let frame = frame.map_err(|error| malformed("a whole body", error, "body"))?;
        let Ok(piece) = frame.into_data() else { continue };
        let length = bytes.len() + piece.len();
        if length > MAX_BODY {
            return Err(too_long(length as u64));
        }
        if length > SMALL && share.is_none() {
            share = Some(shares.take(caller, What::LongBody)?);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes.freeze(), share))
}

fn too_slow() -> ApiError {
    let seconds = BODY_PATIENCE.as_secs();
    ApiError::new(
        StatusCode::REQUEST_TIMEOUT,
        "body comes too slowly",
        format!("{LEAST_SENT} bytes a second, after the first {seconds} s"),
        "less",
        "body",
    )
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

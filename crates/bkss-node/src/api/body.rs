//! Bodies: read within bounds, in the encoding their header names; answers in the one that was
//! asked for.

use std::{fmt, marker::PhantomData, net::IpAddr, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
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
pub(super) const JSON: &str = "application/json";

/// How a body is encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    Cbor,
    Json,
}

impl Encoding {
    /// Of a request's body.
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let unknown = |expected, found, at| {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Err(ApiError::new(status, "unknown encoding", expected, found, at))
        };
        let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let coding = field(header::CONTENT_ENCODING).unwrap_or("identity");
        if !coding.eq_ignore_ascii_case("identity") {
            return unknown("identity", coding, "Content-Encoding");
        }
        let found = field(header::CONTENT_TYPE).unwrap_or("nothing");
        match essence(found) {
            kind if kind.eq_ignore_ascii_case(CBOR) => Ok(Self::Cbor),
            kind if kind.eq_ignore_ascii_case(JSON) => Ok(Self::Json),
            _ => unknown("application/cbor or application/json", found, "Content-Type"),
        }
    }

    /// Of the answer: CBOR only if it is asked for by name, and JSON is not asked for more.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let accepts =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = accepts.flat_map(|accepts| accepts.split(',')).collect();
        let weight = |kind: &str| {
            let named = ranges.iter().filter(|range| essence(range).eq_ignore_ascii_case(kind));
            named.map(|range| weight(range)).fold(0.0, f32::max)
        };
        let cbor = weight(CBOR);
        if cbor > 0.0 && cbor >= weight(JSON) { Self::Cbor } else { Self::Json }
    }
}

/// A media type without its parameters.
fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

/// The weight of a range of media types (RFC 9110, 12.4.2): 1 unless it says otherwise.
fn weight(range: &str) -> f32 {
    let mut parameters = range.split(';').skip(1).map(str::trim);
    let q = parameters.find_map(|it| it.strip_prefix("q=").or_else(|| it.strip_prefix("Q=")));
    q.map_or(1.0, |q| q.parse().unwrap_or(0.0))
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
        let bytes = whole.map_err(|error| malformed("a whole body", error, "request"))?.to_bytes();
        Ok(Self { encoding, answer, bytes })
    }

    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, expected: &str) -> Result<T, ApiError> {
        serde_json::from_slice(&self.bytes).map_err(|error| {
            let at = format!("request, line {} column {}", error.line(), error.column());
            malformed(expected, error, at)
        })
    }
}

/// What is written as an object, not as an array of its fields in some order.
#[derive(Debug, Serialize)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
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
        let frame = frame.map_err(|error| malformed("a whole body", error, "request"))?;
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
        "request",
    )
}

fn too_long(found: u64) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body is too long",
        format!("at most {MAX_BODY} bytes"),
        format!("{found} bytes or more"),
        "request",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn media_types_have_no_case_and_answers_follow_weights() {
        for (kind, encoding) in [
            ("application/cbor", Some(Encoding::Cbor)),
            ("APPLICATION/JSON", Some(Encoding::Json)),
            ("Application/Cbor ; x=1", Some(Encoding::Cbor)),
            ("text/plain", None),
            ("", None),
        ] {
            let found = Encoding::of(&headers(&[(header::CONTENT_TYPE, kind)]));
            assert_eq!(found.ok(), encoding, "{kind}");
        }
        let coded = headers(&[(header::CONTENT_TYPE, CBOR), (header::CONTENT_ENCODING, "gzip")]);
        assert!(Encoding::of(&coded).is_err(), "it would be taken for something else");
        for (accepts, encoding) in [
            (&[][..], Encoding::Json),
            (&["*/*"], Encoding::Json),
            (&["application/cbor"], Encoding::Cbor),
            (&["APPLICATION/cbor"], Encoding::Cbor),
            (&["application/cbor;q=0"], Encoding::Json),
            (&["application/cbor; q=0.5, application/json"], Encoding::Json),
            (&["application/json;q=0.1", "application/cbor"], Encoding::Cbor),
            (&["application/cbor-seq"], Encoding::Json),
            (&["application/cbor;q=x"], Encoding::Json),
        ] {
            let fields: Vec<_> = accepts.iter().map(|it| (header::ACCEPT, *it)).collect();
            assert_eq!(Encoding::accepted(&headers(&fields)), encoding, "{accepts:?}");
        }
    }
}

//! What goes wrong, as one JSON object.

use std::{fmt::Display, time::Duration};

use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shares::NoRoom;
use crate::{
    message::{NotTaken, RETRY_AFTER},
    receipts::NoProof,
};

/// The media type of an error.
pub(super) const PROBLEM: &str = "application/problem+json";

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Where: a part of the request.
    pub at: String,
}

/// An error with its status.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Box<ErrorBody>,
    retry_after: Option<Duration>,
}

impl ApiError {
    #[allow(clippy::needless_pass_by_value, reason = "callers pass what they have at hand")]
    pub(super) fn new(
        status: StatusCode,
        error: &str,
        expected: impl ToString,
        found: impl ToString,
        at: impl ToString,
    ) -> Self {
        let body = ErrorBody {
            title: error.to_owned(),
            status: status.as_u16(),
            expected: expected.to_string(),
            found: found.to_string(),
            at: at.to_string(),
        };
        Self { status, body: body.into(), retry_after: None }
    }

    /// Says in which part of the request the place is.
    pub(super) fn within(mut self, part: impl Display) -> Self {
        self.body.at = format!("{part}, {}", self.body.at);
        self
    }

    /// Says when to come again.
    pub(super) const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, PROBLEM)];
        let mut response = (self.status, kind, Json(*self.body)).into_response();
        if let Some(after) = self.retry_after {
            set_retry_after(&mut response, after);
        }
        response
    }
}

/// Sets the header, in whole seconds.
pub(super) fn set_retry_after(response: &mut Response, after: Duration) {
    let seconds = after.as_millis().div_ceil(1000).max(1);
    if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
}

impl From<NoRoom> for ApiError {
    fn from(NoRoom { what, most, address }: NoRoom) -> Self {
        let (status, whose) = if address {
            (StatusCode::TOO_MANY_REQUESTS, " of one address")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "")
        };
        let expected = format!("at most {most} {}{whose}", what.name());
        Self::new(status, "node is busy", expected, "more", "request").retry_after(RETRY_AFTER)
    }
}

/// It has taken too long.
pub(super) fn too_slow(limit: Duration) -> ApiError {
    let expected = format!("a request within {} s", limit.as_secs());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "request timed out", expected, "more", "request")
}

/// A malformed part of a request.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn malformed(
    expected: impl ToString,
    found: impl ToString,
    at: impl ToString,
) -> ApiError {
    let found = found.to_string();
    // The words of the library in front of what is wrong.
    let found = found.strip_prefix("Failed to deserialize query string: ").unwrap_or(&found);
    ApiError::new(StatusCode::BAD_REQUEST, "malformed request", expected, found, at)
}

pub(super) async fn no_route(request: Request) -> ApiError {
    let found = request.uri().path().chars().take(200).collect::<String>();
    let expected = "a path of /v1/openapi.json";
    ApiError::new(StatusCode::NOT_FOUND, "unknown route", expected, found, "path")
}

pub(super) async fn no_method(request: Request) -> ApiError {
    let (found, expected) = (request.method().clone(), "a method of /v1/openapi.json");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "unknown method", expected, found, "method")
}

impl From<NotTaken> for ApiError {
    fn from(error: NotTaken) -> Self {
        let status = match error {
            NotTaken::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            NotTaken::NotReady | NotTaken::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        let expected = "a gateway that takes messages";
        Self::new(status, "not taken", expected, error, "gateway").retry_after(RETRY_AFTER)
    }
}

impl From<NoProof> for ApiError {
    fn from(error: NoProof) -> Self {
        let (status, at) = match error {
            NoProof::UnknownMeter(_) | NoProof::NotRecorded(_) => (StatusCode::NOT_FOUND, "meter"),
            NoProof::OutsideChain(_) => (StatusCode::NOT_FOUND, "index"),
            NoProof::NotOpened(_) => (StatusCode::NOT_FOUND, "index"),
            NoProof::NotYet(_) => (StatusCode::NOT_FOUND, "after"),
            NoProof::Erased
            | NoProof::NotKept(_)
            | NoProof::Uncertified(_)
            | NoProof::RecordsAfter(_) => (StatusCode::GONE, "store"),
            NoProof::Broken(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store"),
        };
        Self::new(status, "no proof", "something final and kept here", error, at)
    }
}

//! What is left at the gateway.
//!
//! An answer in CBOR is `[0]` accepted, `[1, reason, sentence]` refused, `[2, ms]` come again; of a
//! batch an array of them.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use bkss_ledger::Transaction;
use serde::de::DeserializeOwned;

use super::{
    Api,
    body::{self, Encoding, Object, Received},
    error::{ApiError, ErrorBody, malformed, set_retry_after},
    types::{AnswerBody, ItemBody, ReleaseBody, SubmitBody, TransactionBody},
};
use crate::{
    gateway::MAX_IN_CALL,
    message::{Answer, Message},
};

/// Most messages of a batch.
pub(super) const MAX_ITEMS: usize = 16_384;

fn append(answer: &Answer, bytes: &mut Vec<u8>) {
    let mut encoder = minicbor::Encoder::new(bytes);
    // A vector takes everything.
    let _ = match answer {
        Answer::Accepted => encoder.encode((0_u8,)),
        Answer::Refused(reason) => encoder.encode((1_u8, reason.code(), reason.to_string())),
        Answer::Overloaded { retry_after } => encoder.encode((2_u8, super::millis(*retry_after))),
    };
}

/// What is expected of a message of each kind, in CBOR and in JSON.
const SUBMIT: (&str, &str) = (
    "a submit, [16, meter, index, value, body]",
    "a submit, {\"meter\": 1, \"index\": 1, \"value\": \"..\", \"body\": \"..\"}",
);
const RELEASE: (&str, &str) = (
    "a release, [17, meter, index, link]",
    "a release, {\"meter\": 1, \"index\": 1, \"link\": \"..\"}",
);
const REGISTRATION: (&str, &str) = ("a registration", "{\"transaction\": \"..\"}, a registration");
const CHANGE: (&str, &str) =
    ("a change of the membership", "{\"transaction\": \"..\"}, a change of the membership");

/// Takes one message of a kind.
async fn one<J>(
    api: &Api,
    request: Request,
    (expected, keys): (&str, &str),
    fits: impl FnOnce(&Message) -> bool,
) -> Result<Response, ApiError>
where
    J: DeserializeOwned + TryInto<Message, Error = ApiError>,
{
    let received = Received::of(request).await?;
    let message = match received.encoding {
        Encoding::Cbor => Message::decode(&received.bytes)
            .map_err(|error| malformed(expected, error, "request"))?,
        Encoding::Json => received.json::<Object<J>>(keys)?.0.try_into()?,
    };
    if !fits(&message) {
        return Err(malformed(expected, format!("a {}", message.kind()), "request"));
    }
    let answer = api.mailbox.take_one(message).await?;
    let status = match answer {
        Answer::Accepted => StatusCode::OK,
        Answer::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Answer::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
    };
    let cbor = || {
        let mut bytes = Vec::new();
        append(&answer, &mut bytes);
        bytes
    };
    let json = || body::json(&AnswerBody::from(&answer));
    let mut response = body::answer(status, received.answer, cbor, json);
    if let Answer::Overloaded { retry_after } = answer {
        set_retry_after(&mut response, retry_after);
    }
    Ok(response)
}

/// What whoever brings one message is answered, for the document.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "read by the derive alone")]
enum Answered {
    #[response(status = 200, description = "accepted: it is on disk here")]
    Accepted(AnswerBody),
    #[response(status = 400, description = "malformed")]
    Malformed(ErrorBody),
    #[response(status = 413, description = "too long")]
    TooLong(ErrorBody),
    #[response(status = 422, description = "refused, with the reason")]
    Refused(AnswerBody),
    #[response(status = 429, description = "overloaded, see Retry-After")]
    Overloaded(AnswerBody),
    #[response(status = 503, description = "not ready or busy, see Retry-After")]
    Busy(ErrorBody),
}

/// Step 1 of a meter: a sealed reading and its request value.
#[utoipa::path(
    post,
    path = "/v1/submit",
    request_body(content((SubmitBody = "application/json"), (Vec<u8> = "application/cbor"))),
    responses(Answered)
)]
pub(super) async fn submit(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, ApiError> {
    let fits = |message: &Message| matches!(message, Message::Submit { .. });
    one::<SubmitBody>(&api, request, SUBMIT, fits).await
}

/// Step 3 of a meter: the link of a slot whose window has closed.
#[utoipa::path(
    post,
    path = "/v1/release",
    request_body(content((ReleaseBody = "application/json"), (Vec<u8> = "application/cbor"))),
    responses(Answered)
)]
pub(super) async fn release(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, ApiError> {
    let fits = |message: &Message| matches!(message, Message::Release(_));
    one::<ReleaseBody>(&api, request, RELEASE, fits).await
}

/// Registration of a meter, signed by its SDI and its owner.
#[utoipa::path(
    post,
    path = "/v1/registration",
    request_body(content((TransactionBody = "application/json"), (Vec<u8> = "application/cbor"))),
    responses(Answered)
)]
pub(super) async fn registration(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, ApiError> {
    let fits = |message: &Message| message.kind() == "registration";
    one::<TransactionBody>(&api, request, REGISTRATION, fits).await
}

/// A change of the membership, a vote, evidence or a revocation, signed by whom it needs.
#[utoipa::path(
    post,
    path = "/v1/change",
    request_body(content((TransactionBody = "application/json"), (Vec<u8> = "application/cbor"))),
    responses(Answered)
)]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, ApiError> {
    let fits = |message: &Message| match message {
        Message::Transaction(transaction) => !matches!(
            **transaction,
            Transaction::Registration(_) | Transaction::Requests(_) | Transaction::Openings(_)
        ),
        _ => false,
    };
    one::<TransactionBody>(&api, request, CHANGE, fits).await
}

/// Many messages in one call, at most 64 of them registrations or changes, with one answer for each,
/// in their order. CBOR: the messages one after the other.
#[utoipa::path(
    post,
    path = "/v1/batch",
    request_body(content((Vec<ItemBody> = "application/json"), (Vec<u8> = "application/cbor"))),
    responses(
        (status = 200, description = "one answer per message", body = Vec<AnswerBody>),
        (status = 400, description = "malformed: nothing was taken", body = ErrorBody),
        (status = 413, description = "too long", body = ErrorBody),
        (status = 429, description = "overloaded, see Retry-After", body = ErrorBody),
        (status = 503, description = "not ready or busy, see Retry-After", body = ErrorBody),
    )
)]
pub(super) async fn batch(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = Received::of(request).await?;
    let messages = match received.encoding {
        Encoding::Cbor => sequence(&received.bytes)?,
        Encoding::Json => {
            let items: Vec<ItemBody> = received.json(
                "an array of objects {\"submit\": ..}, {\"release\": ..} or {\"transaction\": ..}",
            )?;
            too_many(items.len())?;
            let items = (0..).zip(items).map(|(at, item): (u32, ItemBody)| {
                Message::try_from(item).map_err(|error| error.within(format!("item {at}")))
            });
            items.collect::<Result<Vec<Message>, ApiError>>()?
        }
    };
    too_many_transactions(&messages)?;
    let answers = api.mailbox.take(messages).await?;
    let cbor = || {
        let mut bytes = Vec::new();
        let _ = minicbor::Encoder::new(&mut bytes).array(answers.len() as u64);
        answers.iter().for_each(|answer| append(answer, &mut bytes));
        bytes
    };
    let json = || body::json(&answers.iter().map(AnswerBody::from).collect::<Vec<_>>());
    Ok(body::answer(StatusCode::OK, received.answer, cbor, json))
}

fn too_many(found: usize) -> Result<(), ApiError> {
    if found > MAX_ITEMS {
        return Err(malformed(format!("at most {MAX_ITEMS} messages"), found, "request"));
    }
    Ok(())
}

/// Their signatures cost more than all else that a caller can ask for.
fn too_many_transactions(messages: &[Message]) -> Result<(), ApiError> {
    let of_kind = |message: &&Message| matches!(message, Message::Transaction(_));
    let found = messages.iter().filter(of_kind).count();
    if found > MAX_IN_CALL {
        let expected = format!("at most {MAX_IN_CALL} registrations or changes in one call");
        return Err(malformed(expected, found, "request"));
    }
    Ok(())
}

fn sequence(bytes: &[u8]) -> Result<Vec<Message>, ApiError> {
    let mut rest = bytes;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let message = Message::decode_first(&mut rest).map_err(|error| {
            malformed("a message", error, format!("item {}, byte {at}", messages.len()))
        })?;
        messages.push(message);
        too_many(messages.len())?;
    }
    Ok(messages)
}

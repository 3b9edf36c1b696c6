//! What is left at a gateway, and what it answers.
//!
//! A message is answered "accepted" only when it is on the gateway's disk; from then on the gateway
//! sees it onto the ledger, also after a crash.

use std::time::Duration;

use bkss_ledger::{Transaction, pool::PoolError};
use bkss_scheme::{
    Digest, LinkIndex, Malformed, MeterId, codec,
    transaction::{Release, Submit},
};
use minicbor::Decoder;

/// First element of a [`Submit`].
const SUBMIT: u8 = 16;
/// First element of a [`Release`].
const RELEASE: u8 = 17;

/// A message for a gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Step 1 of a meter.
    Submit {
        /// The meter.
        meter: MeterId,
        /// The link of this slot.
        index: LinkIndex,
        /// `q`.
        value: Digest,
        /// The sealed body, encoded.
        body: Box<[u8]>,
    },
    /// Step 3 of a meter.
    Release(Release),
    /// A registration or a change of the membership, signed by whom it concerns.
    Transaction(Box<Transaction>),
}

impl From<Submit<'_>> for Message {
    fn from(submit: Submit<'_>) -> Self {
        let Submit { meter, index, value, body } = submit;
        Self::Submit { meter, index, value, body: body.into() }
    }
}

impl From<Release> for Message {
    fn from(release: Release) -> Self {
        Self::Release(release)
    }
}

impl From<Transaction> for Message {
    fn from(transaction: Transaction) -> Self {
        Self::Transaction(transaction.into())
    }
}

impl Message {
    /// Appends the canonical bytes.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Submit { meter, index, value, body } => {
                let submit = Submit { meter: *meter, index: *index, value: *value, body };
                codec::encode_infallible(&submit, bytes);
            }
            Self::Release(release) => codec::encode_infallible(release, bytes),
            Self::Transaction(transaction) => codec::encode_infallible(&**transaction, bytes),
        }
    }

    /// Decodes one message from the front of `bytes` and leaves the rest there.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode_first(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(bytes);
        let number = decoder.array().ok().and_then(|_| decoder.u8().ok());
        Ok(match number {
            Some(SUBMIT) => codec::decode_first::<Submit<'_>>("submit", bytes)?.into(),
            Some(RELEASE) => codec::decode_first::<Release>("release", bytes)?.into(),
            _ => codec::decode_first::<Transaction>("message", bytes)?.into(),
        })
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let length = bytes.len();
        let message = Self::decode_first(&mut bytes)?;
        if bytes.is_empty() {
            Ok(message)
        } else {
            Err(Malformed::Spelling { what: "message", offset: length - bytes.len(), length })
        }
    }

    /// Its kind, as metrics name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Submit { .. } => "submit",
            Self::Release(_) => "release",
            Self::Transaction(transaction) => match **transaction {
                Transaction::Registration(_) => "registration",
                _ => "change",
            },
        }
    }
}

/// What a gateway says to a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It is on disk, or already final.
    Accepted,
    /// It cannot get onto the ledger through this gateway.
    Refused(Reason),
    /// Not now: nothing of it is kept.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
}

/// A message that was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotTaken {
    /// Too many messages wait; try again later or at another provider.
    #[error("gateway is overloaded")]
    Overloaded,
    /// The node has stopped.
    #[error("gateway has stopped")]
    Stopped,
    /// The node has not read in its ledger yet.
    #[error("node is still reading in its ledger")]
    NotReady,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// The body is no sealed body.
    #[error("body is not a sealed reading")]
    Body,
    /// The meter is not registered here.
    #[error("meter {0} is not registered")]
    UnknownMeter(MeterId),
    /// The chain has no such link.
    #[error("link {index} is outside the meter's chain of {slots} slots")]
    OutsideChain {
        /// The link.
        index: LinkIndex,
        /// Slots of the chain.
        slots: u32,
    },
    /// The slot has not begun.
    #[error("slot begins at {begins} ms, the ledger is at {ledger} ms")]
    TooEarly {
        /// Start of the slot.
        begins: u64,
        /// Time of the newest block.
        ledger: u64,
    },
    /// The slot's window is over.
    #[error("window closed at {closed} ms, the ledger is at {ledger} ms")]
    WindowClosed {
        /// End of the window.
        closed: u64,
        /// Time of the newest block.
        ledger: u64,
    },
    /// The chain was replaced or revoked.
    #[error("the meter's chain has ended")]
    Ended,
    /// The time for openings of the slot is over.
    #[error("openings ended {reveal_s} s after the slot's start")]
    OpeningsOver {
        /// `R`.
        reveal_s: u32,
    },
    /// This gateway has brought, or is bringing, another value for this link.
    #[error("another value was requested for this slot through this gateway")]
    SecondRequest,
    /// No body that was left here is opened by this link.
    #[error("no body left at this gateway is opened by this link")]
    NoBody,
    /// The ledger has no pending request of this value.
    #[error("no request of this value is pending on the ledger")]
    NoRequest,
    /// The link does not lead to the last accepted one.
    #[error("link is not of this meter's chain")]
    ForeignLink,
    /// The meter has as many readings here as a gateway holds for one meter.
    #[error("meter has {held} readings waiting here, no more are taken")]
    MeterFull {
        /// How many.
        held: usize,
    },
    /// The ledger has as many requests of this chain through this gateway as may wait.
    #[error("{most} requests of this chain through this gateway are not opened, no more may wait")]
    PendingFull {
        /// How many.
        most: u32,
    },
    /// Gateways exchange their batches among themselves.
    #[error("batches are not taken here, only what they are made of")]
    Batch,
    /// The ledger's rules refuse the transaction.
    #[error(transparent)]
    Rule(#[from] bkss_ledger::execute::TransactionRefusal),
}

impl Reason {
    /// A word for programs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::UnknownMeter(_) => "unknown_meter",
            Self::OutsideChain { .. } => "outside_chain",
            Self::TooEarly { .. } => "too_early",
            Self::WindowClosed { .. } => "window_closed",
            Self::Ended => "ended",
            Self::OpeningsOver { .. } => "openings_over",
            Self::SecondRequest => "second_request",
            Self::NoBody => "no_body",
            Self::NoRequest => "no_request",
            Self::ForeignLink => "foreign_link",
            Self::MeterFull { .. } => "meter_full",
            Self::PendingFull { .. } => "pending_full",
            Self::Batch => "batch",
            Self::Rule(_) => "rule",
        }
    }
}

/// When to come again to a gateway that has too much to do.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Answer {
    /// What an overloaded gateway says.
    pub const fn overloaded() -> Self {
        Self::Overloaded { retry_after: RETRY_AFTER }
    }

    /// A word for programs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(reason) => reason.code(),
            Self::Overloaded { .. } => "overloaded",
        }
    }
}

impl From<Result<(), Reason>> for Answer {
    fn from(result: Result<(), Reason>) -> Self {
        result.map_or_else(Self::Refused, |()| Self::Accepted)
    }
}

impl From<PoolError> for Answer {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Refused(refusal) => Self::Refused(Reason::Rule(refusal)),
            PoolError::Full { .. } => Self::overloaded(),
            PoolError::PassedOver { .. } | PoolError::Invalid { .. } => {
                Self::Refused(Reason::Batch)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bkss_scheme::Link;

    #[test]
    fn messages_have_one_spelling_and_follow_each_other() {
        let index = LinkIndex::new(3, 9).unwrap();
        let messages = [
            Message::Submit {
                meter: MeterId(7),
                index,
                value: Digest([1; 32]),
                body: vec![2; 40].into(),
            },
            Message::Release(Release { meter: MeterId(7), index, link: Link::from_bytes([3; 32]) }),
        ];
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for message in &messages {
            starts.push(bytes.len());
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes[starts[starts.len() - 1]..]).as_ref(), Ok(message));
        }
        let mut rest = &bytes[..];
        for message in &messages {
            assert_eq!(Message::decode_first(&mut rest).as_ref(), Ok(message));
        }
        assert!(rest.is_empty());
        assert!(Message::decode(&bytes).is_err(), "two are not one");
        for cut in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..cut]).is_ok(), cut == starts[1], "cut at {cut}");
        }
    }
}

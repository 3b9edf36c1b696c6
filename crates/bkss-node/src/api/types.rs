//! What the interface takes and gives as JSON.

use bkss_ledger::Transaction;
use bkss_scheme::{Digest, Link, LinkIndex, MeterId, hash_chain::MAX_SLOTS, transaction::Release};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    body::Object,
    error::{ApiError, malformed},
    hex,
};
use crate::message::{Answer, Message};

/// Step 1 of a meter.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitBody {
    /// The meter's number.
    pub(super) meter: u32,
    /// The link of this slot, from 1.
    #[schema(minimum = 1, maximum = 1_048_576)]
    pub(super) index: u32,
    /// The request value, 32 bytes as hexadecimal.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pub(super) value: String,
    /// The sealed body, at most 1024 bytes as hexadecimal.
    #[schema(pattern = "^([0-9a-fA-F]{2})*$", max_length = 2048)]
    pub(super) body: String,
}

/// Step 3 of a meter.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseBody {
    /// The meter's number.
    pub(super) meter: u32,
    /// Which link, from 1.
    #[schema(minimum = 1, maximum = 1_048_576)]
    pub(super) index: u32,
    /// The link, 32 bytes as hexadecimal.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pub(super) link: String,
}

/// A registration or a change of the membership.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransactionBody {
    /// Its canonical CBOR as hexadecimal.
    #[schema(pattern = "^([0-9a-fA-F]{2})*$")]
    pub(super) transaction: String,
}

/// One message of many.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ItemBody {
    /// Step 1 of a meter.
    #[schema(value_type = SubmitBody)]
    Submit(Object<SubmitBody>),
    /// Step 3 of a meter.
    #[schema(value_type = ReleaseBody)]
    Release(Object<ReleaseBody>),
    /// A registration or a change of the membership.
    #[schema(value_type = TransactionBody)]
    Transaction(Object<TransactionBody>),
}

/// What bytes are expected as.
const HEX: &str = "an even number of hexadecimal digits";

/// What is there in place of hexadecimal digits.
fn not_hex(text: &str) -> String {
    match text.chars().position(|c| !c.is_ascii_hexdigit()) {
        Some(at) => format!("a character that is none, at place {at}"),
        None => format!("{} digits", text.len()),
    }
}

fn bytes<const N: usize>(text: &str, at: &str) -> Result<[u8; N], ApiError> {
    let expected = format!("{} hexadecimal digits", 2 * N);
    hex::decode_array(text).ok_or_else(|| malformed(expected, not_hex(text), at))
}

/// The highest number that a link may have.
pub(super) const MAX_LINK: u32 = MAX_SLOTS;

/// A link's number.
pub(super) fn link_index(index: u32) -> Result<LinkIndex, ApiError> {
    LinkIndex::new(index, MAX_LINK)
        .ok_or_else(|| malformed(format!("a link from 1 to {MAX_LINK}"), index, "index"))
}

impl TryFrom<SubmitBody> for Message {
    type Error = ApiError;

    fn try_from(json: SubmitBody) -> Result<Self, ApiError> {
        let body =
            hex::decode(&json.body).ok_or_else(|| malformed(HEX, not_hex(&json.body), "body"))?;
        Ok(Self::Submit {
            meter: MeterId(json.meter),
            index: link_index(json.index)?,
            value: Digest(bytes(&json.value, "value")?),
            body: body.into(),
        })
    }
}

impl TryFrom<ReleaseBody> for Message {
    type Error = ApiError;

    fn try_from(json: ReleaseBody) -> Result<Self, ApiError> {
        Ok(Self::Release(Release {
            meter: MeterId(json.meter),
            index: link_index(json.index)?,
            link: Link::from_bytes(bytes(&json.link, "link")?),
        }))
    }
}

impl TryFrom<TransactionBody> for Message {
    type Error = ApiError;

    fn try_from(json: TransactionBody) -> Result<Self, ApiError> {
        let bytes = hex::decode(&json.transaction)
            .ok_or_else(|| malformed(HEX, not_hex(&json.transaction), "transaction"))?;
        let transaction = Transaction::decode(&bytes)
            .map_err(|error| malformed("a transaction", error, "transaction"))?;
        Ok(transaction.into())
    }
}

impl TryFrom<ItemBody> for Message {
    type Error = ApiError;

    fn try_from(json: ItemBody) -> Result<Self, ApiError> {
        match json {
            ItemBody::Submit(submit) => submit.0.try_into(),
            ItemBody::Release(release) => release.0.try_into(),
            ItemBody::Transaction(transaction) => transaction.0.try_into(),
        }
    }
}

/// What became of a message.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct AnswerBody {
    /// `accepted`: it is on disk here and on its way to the ledger; `refused`; `overloaded`.
    #[schema(pattern = "^(accepted|refused|overloaded)$")]
    pub answer: String,
    /// Why it is refused: a word for programs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Why it is refused: a sentence for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// When to come again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
}

impl From<&Answer> for AnswerBody {
    fn from(answer: &Answer) -> Self {
        let plain = |answer: &str| Self {
            answer: answer.to_owned(),
            reason: None,
            message: None,
            retry_after_ms: None,
        };
        match answer {
            Answer::Accepted => plain("accepted"),
            Answer::Refused(reason) => Self {
                reason: Some(reason.code().to_owned()),
                message: Some(reason.to_string()),
                ..plain("refused")
            },
            Answer::Overloaded { retry_after } => {
                Self { retry_after_ms: Some(super::millis(*retry_after)), ..plain("overloaded") }
            }
        }
    }
}

/// What has become of a slot of a meter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct SlotBody {
    /// The meter's number.
    pub meter: u32,
    /// The link.
    pub index: u32,
    /// The chain of the meter that has this link, the newest of which anything is known: `mr`,
    /// hexadecimal.
    pub chain: Option<String>,
    /// `unknown`, `requested` or `opened`.
    #[schema(pattern = "^(unknown|requested|opened)$")]
    pub status: String,
    /// Accepted requests. Anybody may have had something requested: a meter knows its own by the
    /// value.
    pub requested: Vec<RequestedBody>,
    /// Height of the block that accepted the opening.
    pub opened: Option<u64>,
}

/// An accepted request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct RequestedBody {
    /// Height of its block.
    pub height: u64,
    /// The provider whose gateway submitted it.
    pub gateway: u16,
    /// `q`, hexadecimal.
    pub value: String,
}

/// The newest final block.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct HeadBody {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub id: String,
    /// Its ledger time.
    pub time_ms: u64,
    /// Milliseconds since it became final here.
    pub age_ms: u64,
}

/// A final block in short.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct BlockBody {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub id: String,
    /// The block before.
    pub previous: String,
    /// Its ledger time.
    pub time_ms: u64,
    /// Its transactions.
    pub transactions: u64,
    /// Requests it accepts.
    pub requests: u64,
    /// Openings it accepts.
    pub openings: u64,
    /// Its length as it travels.
    pub bytes: u64,
}

/// A proof or a file: canonical CBOR.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct ProofBody {
    /// What it is.
    pub kind: String,
    /// The bytes as hexadecimal; `Accept: application/cbor` gives them as they are.
    pub cbor: String,
}

/// A provider of the consortium.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct MemberBody {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
    /// Its identity key.
    pub key: String,
    /// Its vote key.
    pub vote_key: String,
    /// Whether it keeps the ledger in this round.
    pub accounting: bool,
}

/// An SDI.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct SdiBody {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// Who is in the consortium.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct MembersBody {
    /// The providers.
    pub providers: Vec<MemberBody>,
    /// The SDIs.
    pub sdis: Vec<SdiBody>,
    /// Approvals that a change needs.
    pub quorum: u64,
}

/// Some blocks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct BlocksBody {
    /// They.
    pub blocks: Vec<BlockBody>,
    /// The height with which the next page begins; it may not be final yet.
    pub next: u64,
}

/// Some providers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct ProvidersBody {
    /// They.
    pub providers: Vec<MemberBody>,
    /// The number with which the next page begins, if there is one.
    pub next: Option<u16>,
}

/// A chain of a meter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct ChainBody {
    /// Its number in the registry.
    pub row: u32,
    /// The meter's number.
    pub meter: u32,
    /// The provider that owns the meter.
    pub owner: u16,
    /// `mr`, hexadecimal.
    pub chain: String,
    /// Digest of the device, hexadecimal.
    pub device: String,
    /// Length of a slot, seconds.
    pub slot_s: u32,
    /// Length of the window for requests, seconds.
    pub window_s: u32,
    /// How many slots it has.
    pub slots: u32,
    /// When its first slot begins, ledger time in milliseconds.
    pub begins_ms: u64,
    /// When its last slot ends, or it was ended.
    pub ends_ms: u64,
    /// `replaced` by the meter's next chain, or `revoked`.
    #[schema(pattern = "^(replaced|revoked)$")]
    pub ended: Option<String>,
    /// The newest link that was opened; 0 for none.
    pub last_opened: u32,
}

/// Some chains.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct MetersBody {
    /// They.
    pub chains: Vec<ChainBody>,
    /// The number in the registry with which the next page begins, if there is one.
    pub next: Option<u32>,
}

/// A meter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct MeterBody {
    /// Its number.
    pub meter: u32,
    /// The provider that owns it.
    pub owner: u16,
    /// Digest of the device, hexadecimal.
    pub device: String,
    /// Its chains, newest first.
    pub chains: Vec<ChainBody>,
}

/// Some slots of a meter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct SlotsBody {
    /// They.
    pub slots: Vec<SlotBody>,
    /// The link with which the next page begins, if there is one.
    pub next: Option<u32>,
}

/// An accepted opening.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct OpenedBody {
    /// Height of the block that accepted it.
    pub height: u64,
    /// The meter's number.
    pub meter: u32,
    /// The link.
    pub index: u32,
    /// The chain, `mr`, hexadecimal.
    pub chain: String,
}

/// Some openings.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct OpeningsBody {
    /// They.
    pub openings: Vec<OpenedBody>,
    /// The height with which the next page begins; it may not be final yet.
    pub next: u64,
    /// How many openings of that block the next page leaves out.
    pub skip: u32,
}

/// Another provider, as a node sees it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct PeerBody {
    /// Its number.
    pub provider: u16,
    /// Its name.
    pub name: String,
    /// Whether this node is connected to it.
    pub connected: bool,
    /// Whether it keeps the ledger in this round.
    pub seat: bool,
    /// Whether it has a seat and no vote of it has come for 15 seconds.
    pub silent: bool,
}

/// How a node stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct StatusBody {
    /// Height of the newest final block.
    pub height: u64,
    /// Milliseconds since it was applied here, or since the node's start. A node that reads in old
    /// blocks applies them all the time: how far behind it is the time of the block says.
    pub head_age_ms: u64,
    /// Ledger time of the newest final block.
    pub head_time_ms: u64,
    /// The round that this node is in; 0 until it has entered one.
    pub round: u64,
    /// The provider whose turn it is to lead.
    pub leader: Option<u16>,
    /// The providers that keep the ledger in this round, ascending.
    pub committee: Vec<u16>,
    /// Votes of the committee that make a block final.
    pub votes_needed: u32,
    /// Members of the committee that this node is connected to, and itself if it casts votes: as many
    /// votes it can bring together.
    pub votes_reachable: u32,
    /// Whether this node casts votes in this round.
    pub votes: bool,
    /// Whether it will cast votes in the round that begins next, if it has a seat then. False for the
    /// first moments after a start, and while the node is behind.
    pub votes_next: bool,
    /// The other providers, ascending.
    pub peers: Vec<PeerBody>,
    /// The node's version.
    pub version: String,
}

/// That a node takes messages.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct ReadyBody {
    /// True.
    pub ready: bool,
    /// Whether the node casts votes in this round. A node that has a seat and casts none follows
    /// without voting until the next round.
    pub votes: bool,
    /// Whether it will cast votes in the round that begins next, if it has a seat then. Once this and
    /// `votes` are true, another node may be restarted.
    pub votes_next: bool,
}

/// Whether a node is healthy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct HealthBody {
    /// Whether the head is younger than the bound.
    pub healthy: bool,
    /// Milliseconds since a block became final here.
    pub head_age_ms: u64,
    /// The bound.
    pub bound_ms: u64,
}

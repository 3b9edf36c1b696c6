//! What a network is founded on: its members, its terms, its limits (scheme s4.2, s4.3).
//!
//! `[[2, name, h(Am), start, time_scale, terms, rounds, limits, [* M_ident], [* SDI]], [* sp_sig],
//! [* sdi_sig]]`
//!
//! The network's name `net` is the digest of the first part, and every founder signs its own entry
//! under that name: whoever signs has agreed to all of it.

use bkss_scheme::{
    Committee, Digest, Era, Eras, Header, LedgerTime, Malformed, Network, ProviderId,
    ProviderIdentity, SdiId, SdiIdentity, SecretKey, Signature,
    codec::{self, Encoded},
    finality::RoundLength,
    hash,
    hash_chain::MAX_SLOTS,
    identity::{Name, SignatureError, signed_digest},
    receipt::Anchors,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{accounting_nodes::first_committee, members::distinct};

/// Number of the format.
const FORMAT: u8 = 2;
/// Fewest founding SPs: below four no fault can be survived.
pub const MIN_PROVIDERS: usize = 4;
/// Most founding SPs, and most SDIs.
pub const MAX_FOUNDERS: usize = 64;
/// Most alternates of a round (the paper's k).
pub const MAX_ALTERNATES: u16 = 10;

/// Rules of time that every party relies on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
    /// Shortest slot that may be registered, seconds.
    pub min_slot_s: u32,
    /// `R`: how long after the start of its slot an opening is accepted, seconds.
    pub reveal_s: u32,
    /// `G`, seconds: leaders propose a block soon after every multiple of this, even an empty one.
    /// Slots and windows should be multiples of it; no rule checks that.
    pub grid_s: u32,
    /// How far a header's time may be from a validator's clock, milliseconds of real time.
    pub precision_ms: u32,
    /// `K`: how long after its slot the founders agree to keep a sealed body at least, seconds; not
    /// less than `R`. No rule of the ledger and no node enforces it.
    pub keep_s: u32,
    /// `E`: how long before an erasure the founders agree to announce it, seconds. No rule of the
    /// ledger and no node enforces it.
    pub notice_s: u32,
    /// How long after its registration a chain may begin, seconds.
    pub ahead_s: u32,
}

impl Default for Terms {
    /// Slots of a quarter of an hour and more, a week to open them, a block at least each minute.
    fn default() -> Self {
        Self {
            min_slot_s: 900,
            reveal_s: 7 * DAY_S,
            grid_s: 60,
            precision_ms: 500,
            keep_s: 7 * DAY_S,
            notice_s: 14 * DAY_S,
            ahead_s: 366 * DAY_S,
        }
    }
}

/// Seconds of a day.
const DAY_S: u32 = 86_400;

/// Rounds of Algorithm 3 and tenures of Algorithm 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rounds {
    /// Blocks of a round: round r is heights `r * blocks` to `(r + 1) * blocks - 1`.
    pub blocks: u32,
    /// Accounting nodes of a round, all providers if there are no more.
    pub committee: u16,
    /// Alternates of a round.
    pub alternates: u16,
    /// Views of a tenure: how long a leader stays.
    pub tenure_views: u32,
    /// What a provider's vote for accounting nodes weighs.
    pub votes: Weighing,
}

/// What a provider's vote for accounting nodes weighs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Weighing {
    /// As much as any other's.
    #[default]
    Members,
    /// As many meters as it has with openings of late, the paper's rule: whoever has SDIs that
    /// register meters which nobody installed can buy weight.
    Meters,
}

impl Default for Rounds {
    /// The paper's 21 accounting nodes and 10 alternates; at a block a second five minutes.
    fn default() -> Self {
        let votes = Weighing::Members;
        Self { blocks: 300, committee: 21, alternates: 10, tenure_views: 1, votes }
    }
}

impl Rounds {
    /// How long a round is.
    pub const fn length(&self) -> RoundLength {
        RoundLength::new(self.blocks)
    }

    /// The round of a height.
    pub const fn of(&self, height: u64) -> u64 {
        self.length().of(height)
    }

    /// Whether a block ends its round.
    pub const fn ends(&self, height: u64) -> bool {
        self.length().ends(height)
    }
}

/// What nobody may exceed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of a block as it travels, bodies included.
    pub block_bytes: u32,
    /// Items of one batch.
    pub batch_items: u32,
    /// Registered chains.
    pub meters: u32,
    /// Registered chains of one owner.
    pub owner_meters: u32,
    /// Steps that the links opened by one block are walked together; at least the longest chain.
    pub steps: u32,
    /// Requests of one gateway for one chain that wait for their openings.
    pub pending: u32,
}

/// Most requests of one gateway for one chain that a network may allow: a full chain of a snapshot
/// fits the frame of its reader.
pub const MAX_PENDING: u32 = 1024;

/// Most items of a batch that a network may allow: no reader takes more.
#[expect(clippy::cast_possible_truncation, reason = "65 536")]
const MAX_BATCH_ITEMS: u32 = crate::transaction_batch::MAX_ITEMS as u32;

impl Default for Limits {
    /// A quarter of the registry for one owner; pending requests for a day of quarter hours.
    fn default() -> Self {
        Self {
            block_bytes: 4 << 20,
            batch_items: 16_384,
            meters: 1 << 24,
            owner_meters: 1 << 22,
            steps: MAX_SLOTS,
            pending: 96,
        }
    }
}

/// The founding document, checked. Only [`Genesis::found`] and [`Genesis::decode`] make one.
#[derive(Clone, Debug)]
pub struct Genesis {
    charter: Charter,
    provider_signatures: Vec<Signature>,
    sdi_signatures: Vec<Signature>,
    network: Network,
    first: [Era; 1],
}

/// The part of a genesis that is named and signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Charter {
    /// Name for people.
    pub name: Name,
    /// `h(Am)`: hash of the agreement.
    pub agreement: Digest,
    /// Ledger time of the genesis block.
    pub start: LedgerTime,
    /// Ledger seconds per second: 1 in production, more only in demonstrations and tests.
    pub time_scale: u32,
    /// Rules of time.
    pub terms: Terms,
    /// Rounds and tenures.
    pub rounds: Rounds,
    /// Limits.
    pub limits: Limits,
    /// Founding SPs, by ascending number.
    pub providers: Vec<ProviderIdentity>,
    /// SDIs, by ascending number.
    pub sdis: Vec<SdiIdentity>,
}

/// Why a genesis founds nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum GenesisError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{found} founding providers, expected {MIN_PROVIDERS} to {MAX_FOUNDERS}")]
    Providers { found: usize },
    #[error("provider and SDI numbers, vote keys and identity keys are not distinct and ascending")]
    NotDistinct,
    #[error("vote key of provider {0} is not the canonical spelling of a point of prime order")]
    VoteKey(ProviderId),
    #[error("provider {provider} agreed to {found}, the agreement is {expected}")]
    Agreement { provider: ProviderId, expected: Digest, found: Digest },
    #[error("{found} signatures for {expected} founders")]
    Signatures { expected: usize, found: usize },
    #[error("signature of provider {provider}: {reason}")]
    ProviderSignature { provider: ProviderId, reason: SignatureError },
    #[error("signature of SDI {sdi}: {reason}")]
    SdiSignature { sdi: SdiId, reason: SignatureError },
    #[error("{name} is {found}, expected {expected}")]
    Terms { name: &'static str, expected: &'static str, found: u64 },
}

impl Genesis {
    /// Founds a network: every founder signs its own entry. Keys in the order of the charter.
    ///
    /// # Errors
    ///
    /// [`GenesisError`] if the charter breaks a rule or a key is not the founder's.
    pub fn found(
        charter: Charter,
        provider_keys: &[SecretKey],
        sdi_keys: &[SecretKey],
    ) -> Result<Self, GenesisError> {
        let network = charter.network();
        let sign = |key: &SecretKey, digest| key.sign(&digest);
        let provider_signatures = charter
            .providers
            .iter()
            .zip(provider_keys)
            .map(|(provider, key)| sign(key, signed_digest(network, provider)))
            .collect();
        let sdi_signatures = charter
            .sdis
            .iter()
            .zip(sdi_keys)
            .map(|(sdi, key)| sign(key, signed_digest(network, sdi)))
            .collect();
        Self::assemble(charter, provider_signatures, sdi_signatures)
    }

    /// Parses and checks a genesis file.
    ///
    /// # Errors
    ///
    /// [`GenesisError`], naming the first thing that does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, GenesisError> {
        let Parts { charter, provider_signatures, sdi_signatures } =
            codec::decode("genesis", bytes)?;
        Self::assemble(charter, provider_signatures, sdi_signatures)
    }

    /// Parses and checks the genesis at the front of a file; the rest is what follows it there.
    ///
    /// # Errors
    ///
    /// [`GenesisError`], naming the first thing that does not hold.
    pub fn decode_first(bytes: &[u8]) -> Result<(Self, &[u8]), GenesisError> {
        let mut rest = bytes;
        let Parts { charter, provider_signatures, sdi_signatures } =
            codec::decode_first("genesis", &mut rest)?;
        Ok((Self::assemble(charter, provider_signatures, sdi_signatures)?, rest))
    }

    /// The bytes of the genesis file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let parts = Parts {
            charter: self.charter.clone(),
            provider_signatures: self.provider_signatures.clone(),
            sdi_signatures: self.sdi_signatures.clone(),
        };
        codec::encode_infallible(&parts, &mut bytes);
        bytes
    }

    /// Founds a network from signatures that the founders made where their keys are, each over
    /// [`Charter::provider_digest`] or [`Charter::sdi_digest`]; in the order of the charter.
    ///
    /// # Errors
    ///
    /// [`GenesisError`] if the charter breaks a rule or a signature does not hold.
    pub fn assemble(
        charter: Charter,
        provider_signatures: Vec<Signature>,
        sdi_signatures: Vec<Signature>,
    ) -> Result<Self, GenesisError> {
        let committee = check_charter(&charter)?;
        let Charter { providers, sdis, .. } = &charter;
        let found = providers.len();
        let (expected, found) =
            (found + sdis.len(), provider_signatures.len() + sdi_signatures.len());
        if providers.len() != provider_signatures.len() || expected != found {
            return Err(GenesisError::Signatures { expected, found });
        }
        let network = charter.network();
        for (provider, signature) in providers.iter().zip(&provider_signatures) {
            let checked = provider.key.verify(&signed_digest(network, provider), signature);
            checked.map_err(|reason| GenesisError::ProviderSignature {
                provider: provider.id,
                reason,
            })?;
        }
        for (sdi, signature) in sdis.iter().zip(&sdi_signatures) {
            sdi.key
                .verify(&signed_digest(network, sdi), signature)
                .map_err(|reason| GenesisError::SdiSignature { sdi: sdi.id, reason })?;
        }
        let first = [Era::new(0, committee)];
        Ok(Self { network, first, charter, provider_signatures, sdi_signatures })
    }

    /// What was signed.
    pub const fn charter(&self) -> &Charter {
        &self.charter
    }

    /// `net`.
    pub const fn network(&self) -> Network {
        self.network
    }

    /// The vote keys of the first round's accounting nodes.
    pub const fn committee(&self) -> &Committee {
        &self.first[0].committee
    }

    /// A founding SP by its number.
    pub fn provider(&self, id: ProviderId) -> Option<&ProviderIdentity> {
        self.charter.providers.iter().find(|provider| provider.id == id)
    }

    /// An SDI by its number.
    pub fn sdi(&self, id: SdiId) -> Option<&SdiIdentity> {
        self.charter.sdis.iter().find(|sdi| sdi.id == id)
    }

    /// What an offline verifier trusts in the rounds of the first committee; for later ones see
    /// [`crate::Trust`].
    pub fn anchors(&self) -> Anchors<'_> {
        Anchors {
            eras: Eras {
                network: self.network,
                rounds: self.charter.rounds.length(),
                eras: &self.first,
            },
            providers: &self.charter.providers,
            sdis: &self.charter.sdis,
            reveal_s: self.charter.terms.reveal_s,
        }
    }

    /// Header of block 0: follows from the genesis, is proposed and certified by nobody.
    pub fn header(&self) -> Header {
        Header {
            height: 0,
            previous: self.charter.digest(),
            time: self.charter.start,
            committee: self.committee().digest(),
            next_committee: None,
            members: None,
            state: None,
            transactions: None,
            requests: None,
            openings: None,
        }
    }
}

impl Charter {
    /// Checks everything but the signatures, so that founders see an error before they sign.
    ///
    /// # Errors
    ///
    /// [`GenesisError`]: the first rule that does not hold.
    pub fn check(&self) -> Result<(), GenesisError> {
        check_charter(self).map(|_| ())
    }

    /// What a founding provider signs: its entry, under the network's name. `None` if it has none.
    pub fn provider_digest(&self, id: ProviderId) -> Option<Digest> {
        let entry = self.providers.iter().find(|provider| provider.id == id)?;
        Some(signed_digest(self.network(), entry))
    }

    /// What an SDI signs: its entry, under the network's name. `None` if it has none.
    pub fn sdi_digest(&self, id: SdiId) -> Option<Digest> {
        let entry = self.sdis.iter().find(|sdi| sdi.id == id)?;
        Some(signed_digest(self.network(), entry))
    }

    /// What names the network.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        codec::encode_infallible(self, &mut bytes);
        hash::plain(&bytes)
    }

    /// `net`: the first 16 bytes of the charter's digest.
    pub fn network(&self) -> Network {
        let mut network = [0; 16];
        network.copy_from_slice(&self.digest().0[..16]);
        Network(network)
    }
}

/// The rules of a charter; returns the first committee.
fn check_charter(charter: &Charter) -> Result<Committee, GenesisError> {
    let Charter { providers, sdis, .. } = charter;
    let found = providers.len();
    if !(MIN_PROVIDERS..=MAX_FOUNDERS).contains(&found) || sdis.len() > MAX_FOUNDERS {
        return Err(GenesisError::Providers { found });
    }
    check_numbers(charter)?;
    let ascending = providers.windows(2).all(|pair| pair[0].id < pair[1].id)
        && sdis.windows(2).all(|pair| pair[0].id < pair[1].id);
    let keys = providers.iter().map(|provider| provider.key);
    let distinct = distinct(keys.chain(sdis.iter().map(|sdi| sdi.key)))
        && distinct(providers.iter().map(|provider| provider.vote_key));
    if let Some(provider) = providers.iter().find(|provider| !provider.vote_key.is_point()) {
        return Err(GenesisError::VoteKey(provider.id));
    }
    let committee = first_committee(charter).filter(|_| ascending && distinct);
    let committee = committee.ok_or(GenesisError::NotDistinct)?;
    if let Some(other) = providers.iter().find(|other| other.agreement != charter.agreement) {
        let (expected, found) = (charter.agreement, other.agreement);
        return Err(GenesisError::Agreement { provider: other.id, expected, found });
    }
    Ok(committee)
}

/// Checks terms, rounds and limits, each against its range.
fn check_numbers(charter: &Charter) -> Result<(), GenesisError> {
    let Terms { min_slot_s, reveal_s, grid_s, precision_ms, keep_s, notice_s: _, ahead_s } =
        charter.terms;
    let Rounds { blocks, committee, alternates, tenure_views, votes: _ } = charter.rounds;
    let Limits { block_bytes, batch_items, meters, owner_meters, steps, pending } = charter.limits;
    for (name, number, least, most, expected) in [
        ("time_scale", charter.time_scale, 1, u32::MAX, "at least 1"),
        ("min_slot_s", min_slot_s, 1, u32::MAX, "at least 1"),
        ("reveal_s", reveal_s, min_slot_s, u32::MAX, "at least min_slot_s"),
        ("grid_s", grid_s, 1, u32::MAX, "at least 1"),
        ("precision_ms", precision_ms, 1, u32::MAX, "at least 1"),
        ("keep_s", keep_s, reveal_s, u32::MAX, "at least reveal_s"),
        ("ahead_s", ahead_s, 1, u32::MAX, "at least 1"),
        ("round blocks", blocks, 2, u32::MAX, "at least 2"),
        ("committee", committee.into(), 4, 32, "4 to 32"),
        ("alternates", alternates.into(), 0, MAX_ALTERNATES.into(), "0 to 10"),
        ("tenure_views", tenure_views, 1, u32::MAX, "at least 1"),
        // A smaller block could not hold one full item; a larger one could not be broadcast.
        ("block_bytes", block_bytes, 65_536, 64 << 20, "65536 to 67108864"),
        ("batch_items", batch_items, 1, MAX_BATCH_ITEMS, "1 to 65536"),
        ("meters", meters, 1, u32::MAX, "at least 1"),
        ("owner_meters", owner_meters, 1, meters, "1 to meters"),
        ("steps", steps, MAX_SLOTS, u32::MAX, "at least 1048576"),
        ("pending", pending, 1, MAX_PENDING, "1 to 1024"),
    ] {
        if !(least..=most).contains(&number) {
            return Err(GenesisError::Terms { name, expected, found: number.into() });
        }
    }
    Ok(())
}

impl<C> Encode<C> for Charter {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let Terms { min_slot_s, reveal_s, grid_s, precision_ms, keep_s, notice_s, ahead_s } =
            self.terms;
        let Limits { block_bytes, batch_items, meters, owner_meters, steps, pending } = self.limits;
        encoder
            .array(10)?
            .u8(FORMAT)?
            .str(&self.name)?
            .encode(self.agreement)?
            .encode(self.start)?;
        encoder.u32(self.time_scale)?;
        encoder.array(7)?.u32(min_slot_s)?.u32(reveal_s)?.u32(grid_s)?.u32(precision_ms)?;
        encoder.u32(keep_s)?.u32(notice_s)?.u32(ahead_s)?;
        let Rounds { blocks, committee, alternates, tenure_views, votes } = self.rounds;
        encoder.array(5)?.u32(blocks)?.u16(committee)?.u16(alternates)?.u32(tenure_views)?;
        encoder.u8(votes as u8)?;
        encoder.array(6)?.u32(block_bytes)?.u32(batch_items)?.u32(meters)?;
        encoder.u32(owner_meters)?.u32(steps)?.u32(pending)?;
        encoder.encode(&self.providers)?.encode(&self.sdis)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Charter {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 10)?;
        codec::format(decoder, FORMAT)?;
        let at = decoder.position();
        let name = Name::try_from(decoder.str()?);
        let name = name.map_err(|_| decode::Error::message("name too long").at(at))?;
        let (agreement, start) = (decoder.decode()?, decoder.decode()?);
        let time_scale = decoder.u32()?;
        codec::array(decoder, 7)?;
        let terms = Terms {
            min_slot_s: decoder.u32()?,
            reveal_s: decoder.u32()?,
            grid_s: decoder.u32()?,
            precision_ms: decoder.u32()?,
            keep_s: decoder.u32()?,
            notice_s: decoder.u32()?,
            ahead_s: decoder.u32()?,
        };
        codec::array(decoder, 5)?;
        let rounds = Rounds {
            blocks: decoder.u32()?,
            committee: decoder.u16()?,
            alternates: decoder.u16()?,
            tenure_views: decoder.u32()?,
            votes: weighing(decoder)?,
        };
        codec::array(decoder, 6)?;
        let limits = Limits {
            block_bytes: decoder.u32()?,
            batch_items: decoder.u32()?,
            meters: decoder.u32()?,
            owner_meters: decoder.u32()?,
            steps: decoder.u32()?,
            pending: decoder.u32()?,
        };
        let (providers, sdis) = (founders(decoder)?, founders(decoder)?);
        Ok(Self { name, agreement, start, time_scale, terms, rounds, limits, providers, sdis })
    }
}

fn weighing(decoder: &mut Decoder<'_>) -> Result<Weighing, decode::Error> {
    let at = decoder.position();
    match decoder.u8()? {
        0 => Ok(Weighing::Members),
        1 => Ok(Weighing::Meters),
        _ => Err(decode::Error::message("unknown weight of votes").at(at)),
    }
}

fn founders<'b, T: Decode<'b, ()>>(decoder: &mut Decoder<'b>) -> Result<Vec<T>, decode::Error> {
    let count = codec::array_of_at_most(decoder, MAX_FOUNDERS)?;
    (0..count).map(|_| decoder.decode()).collect()
}

/// A genesis file as it is parsed, before it is checked.
struct Parts {
    charter: Charter,
    provider_signatures: Vec<Signature>,
    sdi_signatures: Vec<Signature>,
}

impl<C> Encode<C> for Parts {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.encode(&self.charter)?;
        encoder.encode(&self.provider_signatures)?.encode(&self.sdi_signatures)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Parts {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        Ok(Self {
            charter: decoder.decode()?,
            provider_signatures: founders(decoder)?,
            sdi_signatures: founders(decoder)?,
        })
    }
}

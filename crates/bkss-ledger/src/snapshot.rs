//! The ledger's state as a file: where a restart or a late joiner begins.
//!
//! Frames of a length (4 bytes, big-endian) and that many bytes of CBOR: the sheet
//! `[3, net, height, id, t_ms, members, round, [* [sp, epoch, view]], chains]`, lists of up to 256
//! chains (see [`crate::chain`]), fewer where many requests wait, last the digest of all of it. The
//! digest is that of [`State::seal`]; a certified header of the next round carries it, and whoever
//! gets a snapshot from others checks it against that header (see [`crate::beginning`]).

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    sync::Arc,
};

use bkss_scheme::{
    Certified, Digest, Malformed, Network,
    codec::{self, Encoded},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Genesis, Head, Members, State,
    accounting_nodes::Round,
    chain::{self, Chain, Live},
    evidence::{MAX_RECORDS, Offence},
    members::MAX_MEMBERS,
    seal::PAGE,
};

/// Most bytes of a frame: one chain with all the requests that may wait, or the sheet of a ledger
/// that has had all the members and vote keys it may have.
const MAX_FRAME: usize = 64 << 20;
/// A list of chains ends behind so many bytes.
const LIST_BYTES: usize = 1 << 20;

/// Why a snapshot is none.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SnapshotError {
    #[error("snapshot at byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
    #[error("snapshot at byte {offset}: frame of {found} bytes, at most {limit} are expected")]
    TooLong { offset: u64, found: usize, limit: usize },
    #[error("snapshot at byte {offset}: {source}")]
    Malformed { offset: u64, source: Malformed },
    #[error("snapshot of network {found}, the genesis is of {expected}")]
    Network { expected: Network, found: Network },
    #[error("snapshot says it has {claimed} chains, the list at byte {offset} does not fit")]
    Count { claimed: u32, offset: u64 },
    #[error("the snapshot claims {claimed} chains, the ledger has room for {limit}")]
    TooManyChains { claimed: u32, limit: u32 },
    #[error("snapshot says its digest is {claimed}, what it holds has {found}")]
    Altered { claimed: Digest, found: Digest },
    #[error("block {height} certifies state {expected:?}, the snapshot is {found}")]
    NotCertified { height: u64, expected: Option<Digest>, found: Digest },
    #[error("snapshot of the end of round {found}, block {height} certifies that of another round")]
    OtherRound { height: u64, found: u64 },
}

/// Writes a state; it must be that of the end of a round to be of use to others.
///
/// # Errors
///
/// Those of the sink.
pub fn write(state: &mut State, mut sink: impl Write) -> io::Result<()> {
    let digest = state.seal();
    frame(&mut sink, &Sheet::of(state))?;
    let mut from = 0;
    while from < state.chain_count() {
        let list = List::from(state, from);
        from = list.to;
        frame(&mut sink, &list)?;
    }
    frame(&mut sink, &digest)?;
    sink.flush()
}

/// A state that was read: what it says hangs together, but who says so is not known yet.
#[derive(Debug)]
pub struct Snapshot {
    state: State,
    digest: Digest,
}

impl Snapshot {
    /// Reads a snapshot and computes its digest again.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], naming the byte where it is torn, or both digests if it is altered.
    pub fn read(genesis: &Arc<Genesis>, source: impl Read) -> Result<Self, SnapshotError> {
        Self::read_from(genesis, &mut Frames::new(source))
    }

    /// Reads a snapshot that has something before it.
    pub(crate) fn read_from(
        genesis: &Arc<Genesis>,
        reader: &mut Frames<impl Read>,
    ) -> Result<Self, SnapshotError> {
        let bytes = reader.next()?;
        let sheet: OwnedSheet = reader.decode("sheet of a snapshot", &bytes)?;
        let (expected, found) = (genesis.network(), sheet.network);
        if expected != found {
            return Err(SnapshotError::Network { expected, found });
        }
        let OwnedSheet { head, members, round, offences, chains, .. } = sheet;
        let limit = genesis.charter().limits.meters;
        if chains > limit {
            return Err(SnapshotError::TooManyChains { claimed: chains, limit });
        }
        let mut state = State::of_parts(genesis.clone(), head, members, round, offences);
        while state.chain_count() < chains {
            let offset = reader.offset;
            let bytes = reader.next()?;
            let list: OwnedList = reader.decode("chains of a snapshot", &bytes)?;
            let left = (chains - state.chain_count()) as usize;
            if !(1..=left).contains(&list.0.len()) {
                return Err(SnapshotError::Count { claimed: chains, offset });
            }
            for (chain, live) in list.0 {
                state.push_chain(chain, live);
            }
        }
        let bytes = reader.next()?;
        let claimed: Digest = reader.decode("digest of a snapshot", &bytes)?;
        let digest = state.seal();
        if claimed != digest {
            return Err(SnapshotError::Altered { claimed, found: digest });
        }
        state.seals.keep(digest);
        Ok(Self { state, digest })
    }

    /// The newest block of the state.
    pub const fn head(&self) -> Head {
        self.state.head()
    }

    /// Digest of the state.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The state, if a certified header of the round after it carries its digest.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotCertified`] or [`SnapshotError::OtherRound`].
    pub fn certified(self, header: &Certified) -> Result<State, SnapshotError> {
        let rounds = self.state.genesis().charter().rounds;
        let (height, expected) = (header.header().height, header.header().state);
        let found = rounds.of(self.state.head().height);
        if rounds.of(height) != found + 1 {
            return Err(SnapshotError::OtherRound { height, found });
        }
        if expected != Some(self.digest) {
            return Err(SnapshotError::NotCertified { height, expected, found: self.digest });
        }
        Ok(self.state)
    }

    /// The state, for whoever wrote the snapshot itself.
    pub fn of_own_disk(self) -> State {
        self.state
    }
}

/// Writes a length and that many bytes of CBOR.
pub(crate) fn frame(sink: &mut impl Write, value: &impl Encode<()>) -> io::Result<()> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    sink.write_all(&length.to_be_bytes())?;
    sink.write_all(&bytes)
}

/// Reads what [`frame`] writes.
pub(crate) struct Frames<R> {
    source: R,
    offset: u64,
}

impl<R: Read> Frames<R> {
    /// From the beginning.
    pub(crate) const fn new(source: R) -> Self {
        Self { source, offset: 0 }
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let offset = self.offset;
        let failed = |source| SnapshotError::Io { offset, source };
        let mut length = [0; 4];
        self.source.read_exact(&mut length).map_err(failed)?;
        let found = u32::from_be_bytes(length) as usize;
        if found > MAX_FRAME {
            return Err(SnapshotError::TooLong { offset, found, limit: MAX_FRAME });
        }
        // A length that lies costs what is there, not what it says.
        let mut bytes = Vec::new();
        self.source.by_ref().take(found as u64).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() < found {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.offset += 4 + found as u64;
        Ok(bytes)
    }

    /// Decodes the frame that was read last.
    pub(crate) fn decode<'b, T>(
        &self,
        what: &'static str,
        bytes: &'b [u8],
    ) -> Result<T, SnapshotError>
    where
        T: Decode<'b, ()> + Encode<()>,
    {
        let offset = self.offset - bytes.len() as u64;
        codec::decode(what, bytes).map_err(|source| SnapshotError::Malformed { offset, source })
    }
}

/// What a state holds beside its chains.
pub(crate) struct Sheet<'a> {
    network: Network,
    head: Head,
    members: &'a Members,
    round: &'a Round,
    offences: &'a BTreeSet<Offence>,
    chains: u32,
}

impl<'a> Sheet<'a> {
    /// The sheet of a state.
    pub(crate) fn of(state: &'a State) -> Self {
        Self {
            network: state.genesis.network(),
            head: state.head,
            members: &state.members,
            round: &state.round,
            offences: &state.offences,
            chains: state.chain_count(),
        }
    }
}

impl<C> Encode<C> for Sheet<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(9)?.u8(3)?.encode(self.network)?;
        encoder.u64(self.head.height)?.encode(self.head.id)?.encode(self.head.time)?;
        encoder.encode(self.members)?.encode(self.round)?.array(self.offences.len() as u64)?;
        for Offence { provider, epoch, view } in self.offences {
            encoder.array(3)?.encode(provider)?.u64(*epoch)?.u64(*view)?;
        }
        encoder.u32(self.chains)?.ok()
    }
}

/// A sheet as it is parsed.
struct OwnedSheet {
    network: Network,
    head: Head,
    members: Members,
    round: Round,
    offences: BTreeSet<Offence>,
    chains: u32,
}

impl<C> Encode<C> for OwnedSheet {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let Self { network, head, members, round, offences, chains } = self;
        let (network, head, chains) = (*network, *head, *chains);
        encoder.encode(Sheet { network, head, members, round, offences, chains })?.ok()
    }
}

impl<'b, C> Decode<'b, C> for OwnedSheet {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 9)?;
        codec::format(decoder, 3)?;
        let network = decoder.decode()?;
        let head = Head { height: decoder.u64()?, id: decoder.decode()?, time: decoder.decode()? };
        let (members, round) = (decoder.decode()?, decoder.decode()?);
        let count = codec::array_of_at_most(decoder, MAX_MEMBERS * MAX_RECORDS)?;
        let offence = |_| {
            codec::array(decoder, 3)?;
            let provider = decoder.decode()?;
            Ok(Offence { provider, epoch: decoder.u64()?, view: decoder.u64()? })
        };
        let offences = (0..count).map(offence).collect::<Result<_, decode::Error>>()?;
        Ok(Self { network, head, members, round, offences, chains: decoder.u32()? })
    }
}

/// A page of a state's chains.
pub(crate) struct Page<'a> {
    pub(crate) state: &'a State,
    pub(crate) number: u32,
}

impl<C> Encode<C> for Page<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let first = (self.number * PAGE) as usize;
        let chains = self.state.registry.chains();
        let end = chains.len().min(first + PAGE as usize);
        let range = first.min(end)..end;
        encoder.array(range.len() as u64)?;
        for (chain, live) in chains[range.clone()].iter().zip(&self.state.live[range]) {
            encoder.encode(chain::Entry(chain, live))?;
        }
        Ok(())
    }
}

/// Chains that travel together.
struct List<'a> {
    state: &'a State,
    from: u32,
    to: u32,
}

impl<'a> List<'a> {
    /// The chains from a number on, as many as go into a list: at least one.
    fn from(state: &'a State, from: u32) -> Self {
        let mut bytes = 0;
        let mut to = from;
        while to < state.chain_count() && to - from < PAGE && bytes < LIST_BYTES {
            let at = to as usize;
            bytes += codec::length(&chain::Entry(&state.registry.chains()[at], &state.live[at]));
            to += 1;
        }
        Self { state, from, to }
    }
}

impl<C> Encode<C> for List<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        let range = self.from as usize..self.to as usize;
        encoder.array(range.len() as u64)?;
        for at in range {
            let (chain, live) = (&self.state.registry.chains()[at], &self.state.live[at]);
            encoder.encode(chain::Entry(chain, live))?;
        }
        Ok(())
    }
}

struct OwnedList(Vec<(Chain, Live)>);

impl<C> Encode<C> for OwnedList {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(self.0.len() as u64)?;
        for (chain, live) in &self.0 {
            encoder.encode(chain::Entry(chain, live))?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for OwnedList {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let count = codec::array_of_at_most(decoder, PAGE as usize)?;
        (0..count).map(|_| chain::decode_entry(decoder)).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use bkss_scheme::{
        LedgerTime, Link, LinkIndex, MeterId, ProviderId, ProviderIdentity, RootMessage, SdiId,
        SecretKey, Slot,
        certificate::VoteKey,
        hash_chain::MAX_SLOTS,
        identity::Name,
        root_message::SaltNonce,
        seal::{KeyId, OpeningKey},
        slot::Schedule,
    };
    use ed25519_zebra::{SigningKey, VerificationKeyBytes};
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

    use super::*;
    use crate::{
        Limits, Rounds, Terms,
        accounting_nodes::MAX_PICKS,
        chain::{End, Pending},
        genesis::{Charter, MAX_PENDING},
        members::MAX_VOTE_KEYS,
    };

    fn genesis() -> Arc<Genesis> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let keys: Vec<_> = (0..4).map(|_| SecretKey::generate(&mut rng)).collect();
        let agreement = Digest([1; 32]);
        let providers = (0..).zip(&keys).map(|(number, key)| ProviderIdentity {
            id: ProviderId(number),
            name: Name::new(),
            key: key.public(),
            agreement,
            sealing_key: OpeningKey::generate(KeyId(1), &mut rng).public(),
            vote_key: VoteKey(VerificationKeyBytes::from(&SigningKey::new(&mut rng)).into()),
            address: Name::new(),
        });
        let charter = Charter {
            name: Name::new(),
            agreement,
            start: LedgerTime(0),
            time_scale: 1,
            terms: Terms::default(),
            rounds: Rounds::default(),
            limits: Limits::default(),
            providers: providers.collect(),
            sdis: Vec::new(),
        };
        Genesis::found(charter, &keys, &[]).unwrap().into()
    }

    /// Adds a chain for which each of `gateways` has so many requests waiting, all as long as they
    /// can be.
    fn push(state: &mut State, number: u32, gateways: u16, requests: u32) {
        let message = RootMessage {
            meter: MeterId(u32::MAX - number),
            owner: ProviderId(u16::MAX),
            sdi: SdiId(u16::MAX),
            nonce: SaltNonce([1; 16]),
            anchor: Link::from_bytes([2; 32]),
            root: Digest([3; 32]),
            schedule: Schedule {
                first: Slot(u64::MAX / 1_000_000),
                slot_s: u32::MAX,
                window_s: u32::MAX - 1,
                slots: MAX_SLOTS,
            },
            device: Digest([4; 32]),
            revocation_lock: Some(Digest([5; 32])),
        };
        let of_slot = |request: u32| {
            (0..gateways).map(move |gateway| Pending {
                index: LinkIndex::new(MAX_SLOTS - requests + 1 + request, MAX_SLOTS).unwrap(),
                submitter: ProviderId(u16::MAX - gateway),
                value: Digest([6; 32]),
            })
        };
        let live = Live {
            last_index: MAX_SLOTS,
            counts_until: u32::MAX,
            end: Some(End::Replaced(LedgerTime(u64::MAX))),
            pending: (0..requests).flat_map(of_slot).collect(),
            ..Live::new(&message)
        };
        state.push_chain(Chain::new(&message, Digest([7; 32])), live);
    }

    /// Writes a state and reads it again; the lengths of its lists of chains.
    fn lists_of(genesis: &Arc<Genesis>, mut state: State) -> Vec<usize> {
        let mut bytes = Vec::new();
        write(&mut state, &mut bytes).unwrap();
        let read = Snapshot::read(genesis, &bytes[..]).unwrap();
        assert_eq!(read.digest(), state.seal());
        let back = read.of_own_disk();
        assert_eq!(back.registry.chains(), state.registry.chains());
        assert!(back.live == state.live);
        let (mut frames, mut lengths) = (Frames::new(&bytes[..]), Vec::new());
        while let Ok(frame) = frames.next() {
            lengths.push(frame.len());
        }
        lengths[1..lengths.len() - 1].to_vec()
    }

    #[test]
    fn a_chain_for_which_all_that_may_wait_waits_is_written_and_read_again() {
        let genesis = genesis();
        let mut state = State::new(genesis.clone());
        let gateways = u16::try_from(MAX_MEMBERS).unwrap();
        push(&mut state, 0, gateways, MAX_PENDING);
        assert_eq!(state.live[0].pending.len(), 1 << 20);
        let lists = lists_of(&genesis, state);
        println!("the longest chain of a snapshot: {lists:?} bytes of {MAX_FRAME}");
        // One byte before it of a list, and more than a list of shorter ones may have.
        assert!(lists.len() == 1 && lists[0] + LIST_BYTES <= MAX_FRAME, "{lists:?}");
    }

    #[test]
    fn chains_for_which_much_waits_travel_a_few_at_a_time() {
        let genesis = genesis();
        let mut state = State::new(genesis.clone());
        // Each some 400 kB long, then one page and a half of short ones.
        (0..7).for_each(|number| push(&mut state, number, 10, 1000));
        (7..391).for_each(|number| push(&mut state, number, 0, 0));
        let one = codec::length(&chain::Entry(&state.registry.chains()[0], &state.live[0]));
        let lists = lists_of(&genesis, state);
        // Three and three, one and 255, and 129.
        assert_eq!(lists.len(), 4, "{lists:?}");
        assert!(lists.iter().all(|length| *length < LIST_BYTES + one + 8), "{lists:?}");
        assert!(lists[..2].iter().all(|length| *length > LIST_BYTES), "{lists:?}");
    }

    #[test]
    fn the_sheet_of_all_the_members_and_keys_there_can_be_fits_a_frame() {
        let genesis = genesis();
        let mut members = Members::founders(&genesis);
        let provider = genesis.charter().providers[0].clone();
        let name = || Name::try_from("x".repeat(codec::MAX_NAME).as_str()).unwrap();
        let numbers = (0..u16::try_from(MAX_MEMBERS).unwrap()).map(|number| u16::MAX - number);
        for id in numbers.clone().map(ProviderId) {
            let (name, address) = (name(), name());
            members.add_provider(ProviderIdentity { id, name, address, ..provider.clone() });
        }
        let mut key = [0xFF; 32];
        for number in 0..u32::try_from(MAX_VOTE_KEYS * MAX_MEMBERS).unwrap() {
            key[..4].copy_from_slice(&number.to_be_bytes());
            members.change_provider(ProviderId(u16::MAX), |provider| {
                provider.vote_key = VoteKey(key);
            });
        }
        let mut round = Round::first(&genesis);
        let picks: Vec<_> = numbers.clone().take(MAX_PICKS).map(ProviderId).collect();
        round.votes = numbers.clone().map(|id| (ProviderId(id), picks.clone())).collect();
        round.weights = numbers.clone().map(|id| (ProviderId(id), u32::MAX)).collect();
        let offence = |id| {
            let provider = ProviderId(id);
            let views = 0..MAX_RECORDS as u64;
            views.map(move |view| Offence { provider, epoch: u64::MAX, view: u64::MAX - view })
        };
        let sheet = Sheet {
            network: genesis.network(),
            head: Head { height: u64::MAX, id: Digest::ZERO, time: LedgerTime(u64::MAX) },
            members: &members,
            round: &round,
            offences: &numbers.flat_map(offence).collect(),
            chains: u32::MAX,
        };
        let found = codec::length(&sheet);
        println!("the longest sheet of a snapshot: {found} bytes of {MAX_FRAME}");
        // What is left is more than SDIs and activity take: a hundred bytes and less of each.
        assert!(found + (4 << 20) < MAX_FRAME, "{found} bytes");
    }
}

//! Four vote keys that certify, and meters with chains, all from one seed.

use bkss_meter::{Journal, KeyStore, Meter, Parameters, journal::MemoryFlash};
use bkss_scheme::{
    Certificate, Committee, Digest, Header, LedgerTime, Link, LinkIndex, MeterId, Network,
    ProviderId, Reading, RootMessage, SdiId, SecretKey, Slot, TreeHead,
    certificate::{VoteKey, vote_namespace},
    codec,
    finality::{Finality, RoundLength},
    hash_chain::{Blocks, last_link},
    merkle,
    reading::{Channel, Interval},
    root_message::{Registration, SaltNonce, salt},
    seal::{KeyId, OpeningKey},
    slot::Schedule,
    timestamp::{Inclusion, RegistrationProof, TimeProof},
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use minicbor::Encode;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;

pub(crate) const NETWORK: Network = Network([3; 16]);
pub(crate) const SCHEDULE: Schedule =
    Schedule { first: Slot(2_000_000), slot_s: 900, window_s: 300, slots: 200 };
/// Blocks of a round.
pub(crate) const ROUNDS: RoundLength = RoundLength::new(100);
/// Three of four.
pub(crate) const QUORUM: [usize; 3] = [0, 1, 3];

/// A meter in software.
pub(crate) type SoftwareMeter = Meter<MemoryFlash<128>, Vec<Link>>;

/// Vote keys in the committee's order.
pub(crate) struct Consortium {
    pub(crate) committee: Committee,
    votes: Vec<SigningKey>,
}

impl Consortium {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut votes: Vec<_> = (0..4)
            .map(|_| {
                let mut secret = [0; 32];
                rng.fill_bytes(&mut secret);
                SigningKey::from(secret)
            })
            .collect();
        votes.sort_by_key(vote_key);
        Self { committee: Committee::new(votes.iter().map(vote_key)).unwrap(), votes }
    }

    /// A header of some block of this committee in the first round.
    pub(crate) fn header(&self, time: LedgerTime, transactions: Option<TreeHead>) -> Header {
        Header {
            height: 50,
            previous: Digest([1; 32]),
            time,
            committee: self.committee.digest(),
            next_committee: None,
            members: None,
            state: None,
            transactions,
            requests: None,
            openings: None,
        }
    }

    /// The header of the last block of an epoch.
    pub(crate) fn last_of(&self, epoch: u8, time: LedgerTime) -> Header {
        let height = (u64::from(epoch) + 1) * u64::from(ROUNDS.blocks()) - 1;
        Header { height, ..self.header(time, None) }
    }

    /// Signatures of these members, ascending, on a block of a network, as votes to finalize sign.
    pub(crate) fn sign(&self, network: Network, block: Digest, members: &[usize]) -> Votes {
        self.sign_in(0, network, block, members)
    }

    /// The same in an epoch below 128.
    pub(crate) fn sign_in(
        &self,
        epoch: u8,
        network: Network,
        block: Digest,
        members: &[usize],
    ) -> Votes {
        let mut message = vec![30]; // length of the namespace
        message.extend_from_slice(&vote_namespace(network));
        message.extend_from_slice(b"_FINALIZE");
        message.extend_from_slice(&[epoch, 7, 6]); // epoch, view, view of the parent
        message.extend_from_slice(&block.0);
        let signature = |member: &usize| <[u8; 64]>::from(self.votes[*member].sign(&message));
        Votes {
            epoch: epoch.into(),
            signers: members.iter().map(|member| 1 << member).sum(),
            signatures: members.iter().flat_map(signature).collect(),
        }
    }

    /// Encoded proof that ledger time has reached `time`.
    pub(crate) fn time_proof(&self, time: LedgerTime) -> Vec<u8> {
        let header = self.header(time, None);
        let votes = self.sign(NETWORK, header.id(), &QUORUM);
        encoded(&TimeProof { finality: votes.finality(), header })
    }

    /// Encoded proof that a registration is in a final block.
    pub(crate) fn registration_proof(&self, registration: &Registration) -> Vec<u8> {
        let leaf = registration.leaf(NETWORK);
        let leaves = [Digest([1; 32]), leaf, Digest([2; 32])];
        let root = merkle::root(&leaves).unwrap();
        let header = self.header(LedgerTime::from_seconds(1), Some(TreeHead { count: 3, root }));
        let votes = self.sign(NETWORK, header.id(), &QUORUM);
        let finality = votes.finality();
        let path = merkle::path(&leaves, 1).unwrap();
        let inclusion = Inclusion { index: 1, path, header, finality };
        encoded(&RegistrationProof { registration: registration.clone(), inclusion })
    }
}

/// Signers and signatures of a certificate.
pub(crate) struct Votes {
    epoch: u64,
    pub(crate) signers: u32,
    pub(crate) signatures: Vec<u8>,
}

impl Votes {
    pub(crate) fn finality(&self) -> Finality<'_> {
        let Self { epoch, signers, signatures } = self;
        let (epoch, signers) = (*epoch, *signers);
        let certificate = Certificate { epoch, view: 7, parent_view: 6, signers, signatures };
        Finality { descendants: &[], certificate }
    }
}

/// What a meter was provisioned with, kept to switch it on again and to look behind its back.
pub(crate) struct Provisioned {
    pub(crate) consortium: Consortium,
    pub(crate) parameters: Parameters,
    pub(crate) owner: OpeningKey,
    pub(crate) last: Link,
    pub(crate) rng: ChaCha8Rng,
}

impl Provisioned {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let consortium = Consortium::new(seed);
        let owner = OpeningKey::generate(KeyId(1), &mut rng);
        let (meter, owner_id, sdi, nonce) =
            (MeterId(5), ProviderId(1), SdiId(0), SaltNonce([7; 16]));
        let salt = salt(owner_id, sdi, meter, nonce);
        let last = last_link(salt, &[8; 32], &[9; 32], NETWORK, 0);
        let ends = bkss_scheme::hash_chain::build(salt, blocks(), &last, |_| ());
        let root_message = RootMessage {
            meter,
            owner: owner_id,
            sdi,
            nonce,
            anchor: ends.anchor,
            root: ends.root,
            schedule: SCHEDULE,
            device: Digest([4; 32]),
            revocation_lock: None,
        };
        let parameters = Parameters {
            network: NETWORK,
            rounds: ROUNDS,
            committee: consortium.committee.clone(),
            from_epoch: 0,
            owner: owner.public(),
            root_message,
        };
        Self { consortium, parameters, owner, last, rng }
    }

    /// The meter with an empty journal.
    pub(crate) fn meter(&self) -> SoftwareMeter {
        let blank = vec![Link::from_bytes([0; 32]); blocks().count() as usize];
        let salt = self.parameters.root_message.salt();
        let made = KeyStore::make(salt, blocks(), &self.last, blank, |_, _| ());
        let journal = Journal::open(MemoryFlash::default()).unwrap();
        Meter::new(self.parameters.clone(), journal, made.unwrap().0)
    }

    /// The meter with its registration confirmed.
    pub(crate) fn confirmed_meter(&self) -> SoftwareMeter {
        let mut meter = self.meter();
        self.confirm(&mut meter);
        meter
    }

    pub(crate) fn confirm(&self, meter: &mut SoftwareMeter) {
        let registration = registration(self.parameters.root_message.clone());
        let bytes = self.consortium.registration_proof(&registration);
        meter.confirm_registration(&codec::decode("proof", &bytes).unwrap()).unwrap();
    }

    /// Power off and on again.
    pub(crate) fn restarted(&self, meter: SoftwareMeter) -> SoftwareMeter {
        let (journal, keys) = meter.switch_off();
        let anchor = &self.parameters.root_message.anchor;
        let (salt, blocks, checksum) = (keys.salt(), keys.blocks(), keys.checksum());
        let keys = KeyStore::load(salt, blocks, anchor, keys.into_checkpoints(), checksum);
        let journal = Journal::open(journal.into_flash()).unwrap();
        Meter::new(self.parameters.clone(), journal, keys.unwrap())
    }

    /// Brings certified ledger time to the meter.
    pub(crate) fn bring_time(&self, meter: &mut SoftwareMeter, time: LedgerTime) {
        let bytes = self.consortium.time_proof(time);
        meter.on_time(time, &codec::decode("proof", &bytes).unwrap()).unwrap();
    }
}

/// A root message under both signatures.
pub(crate) fn registration(message: RootMessage) -> Registration {
    let [sdi, owner] = [1, 2].map(|byte| SecretKey::from_bytes(&[byte; 32]).unwrap());
    Registration::sign(message, NETWORK, &sdi, &owner)
}

pub(crate) fn blocks() -> Blocks {
    Blocks::new(SCHEDULE.slots, 4).unwrap()
}

pub(crate) fn index(index: u32) -> LinkIndex {
    LinkIndex::new(index, SCHEDULE.slots).unwrap()
}

/// Milliseconds after the start of a link's slot; may be negative.
pub(crate) fn at(link: u32, milliseconds: i64) -> LedgerTime {
    LedgerTime(SCHEDULE.opens(index(link)).0.checked_add_signed(milliseconds).unwrap())
}

pub(crate) fn reading(value: i32) -> Reading {
    Reading::single(Channel::net_energy(900), 1_800_000_000, 0, Interval::measured(value))
}

pub(crate) fn encoded(value: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = vec![0; codec::length(value)];
    codec::encode_into(value, &mut bytes).unwrap();
    bytes
}

fn vote_key(key: &SigningKey) -> VoteKey {
    VoteKey(VerificationKeyBytes::from(key).into())
}

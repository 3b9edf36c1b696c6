//! Whatever is shown to a verifier, it answers.

use bkss_scheme::{
    Certificate, Committee, Digest, Era, Eras, Handover, Head, Header, LedgerTime, Link, LinkIndex,
    MeterId, Network, ProviderId, ProviderIdentity, RootMessage, SdiId, SdiIdentity, SecretKey,
    Slot, Timestamp, TreeHead,
    certificate::VoteContent,
    codec,
    finality::{EraEnd, Finality, RoundLength},
    hash, hash_chain,
    identity::SdiMode,
    merkle::{self, Path},
    receipt::{Anchors, Receipt},
    request,
    root_message::{Registration, SaltNonce},
    seal::{KeyId, OpeningKey, Session},
    slot::Schedule,
    timestamp::{Inclusion, RegistrationProof, TimeProof, request_leaf},
    transaction::opening_leaf,
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use minicbor::Encode;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::mutation;

const NETWORK: Network = Network([3; 16]);
const ROUNDS: RoundLength = RoundLength::new(10);
const SCHEDULE: Schedule = Schedule { first: Slot(1000), slot_s: 900, window_s: 300, slots: 8 };

fn encoded(value: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = vec![0; codec::length(value)];
    codec::encode_into(value, &mut bytes).unwrap();
    bytes
}

/// A network of four voters, one provider, one SDI and one meter.
struct World {
    votes: Vec<SigningKey>,
    committee: Committee,
    owner: SecretKey,
    sdi: SecretKey,
    providers: Vec<ProviderIdentity>,
    sdis: Vec<SdiIdentity>,
}

/// A header with its certificate.
struct Final {
    header: Header,
    signatures: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let public = |key: &SigningKey| {
            bkss_scheme::certificate::VoteKey(VerificationKeyBytes::from(key).into())
        };
        let mut votes: Vec<_> = (1..5).map(|byte| SigningKey::from([byte; 32])).collect();
        votes.sort_by_key(public);
        let committee = Committee::new(votes.iter().map(public)).unwrap();
        let [owner, sdi] = [1, 2].map(|byte| SecretKey::from_bytes(&[byte; 32]).unwrap());
        let providers = vec![ProviderIdentity {
            id: ProviderId(1),
            name: "provider".try_into().unwrap(),
            key: owner.public(),
            agreement: Digest([7; 32]),
            sealing_key: OpeningKey::from_bytes(KeyId(1), [6; 32]).public(),
            vote_key: public(&votes[0]),
            address: "host:1".try_into().unwrap(),
        }];
        let sdis = vec![SdiIdentity {
            id: SdiId(0),
            name: "sdi".try_into().unwrap(),
            key: sdi.public(),
            mode: SdiMode::Shared,
        }];
        Self { votes, committee, owner, sdi, providers, sdis }
    }

    fn header(&self, height: u64, time: LedgerTime) -> Header {
        Header {
            height,
            previous: Digest([1; 32]),
            time,
            committee: self.committee.digest(),
            next_committee: None,
            members: None,
            state: None,
            transactions: None,
            requests: None,
            openings: None,
        }
    }

    fn finalize(&self, header: Header) -> Final {
        let block = header.id();
        let content = VoteContent::Finalize { parent_view: 6, block };
        let message = content.message(NETWORK, ROUNDS.of(header.height), 7).unwrap();
        let sign = |key: &SigningKey| <[u8; 64]>::from(key.sign(&message));
        Final { header, signatures: self.votes[..3].iter().flat_map(sign).collect() }
    }
}

impl Final {
    fn finality(&self) -> Finality<'_> {
        let epoch = ROUNDS.of(self.header.height);
        let (signers, signatures) = (0b111, &self.signatures[..]);
        let certificate = Certificate { epoch, view: 7, parent_view: 6, signers, signatures };
        Finality { descendants: &[], certificate }
    }

    /// The only leaf of a tree of this header.
    fn inclusion(&self) -> Inclusion<'_> {
        let (path, header) = (Path::default(), self.header.clone());
        Inclusion { index: 0, path, header, finality: self.finality() }
    }
}

/// What a verifier is shown, each thing valid.
fn inputs(world: &World) -> [Vec<u8>; 5] {
    let last = Link::from_bytes([9; 32]);
    let mut message = RootMessage {
        meter: MeterId(5),
        owner: ProviderId(1),
        sdi: SdiId(0),
        nonce: SaltNonce([7; 16]),
        anchor: last.clone(),
        root: Digest::ZERO,
        schedule: SCHEDULE,
        device: Digest([4; 32]),
        revocation_lock: None,
    };
    let blocks = hash_chain::Blocks::new(SCHEDULE.slots, 3).unwrap();
    let ends = hash_chain::build(message.salt(), blocks, &last, |_| ());
    (message.anchor, message.root) = (ends.anchor, ends.root);
    let (mr, salt) = (message.id(NETWORK), message.salt());
    let registration = Registration::sign(message, NETWORK, &world.sdi, &world.owner);
    let index = LinkIndex::new(3, SCHEDULE.slots).unwrap();
    let link = hash_chain::walk(salt, SCHEDULE.slots, 3, &last);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let session = Session::start(NETWORK, &world.providers[0].sealing_key, &mut rng).unwrap();
    let body = session.seal(&mr, index, &[1; 32], true).unwrap();
    let commitment = request::commitment(&mr, index, &hash::plain(&body));
    let value = request::request_value(&commitment, &link);
    let tree = |root| Some(TreeHead { count: 1, root });
    let opens = SCHEDULE.opens(index).0;
    let leaf = request_leaf(MeterId(5), index, ProviderId(1), &value);
    let registered = world.finalize(Header {
        transactions: tree(registration.leaf(NETWORK)),
        ..world.header(5, LedgerTime(opens - 10_000_000))
    });
    let requested = world
        .finalize(Header { requests: tree(leaf), ..world.header(6, LedgerTime(opens + 1000)) });
    let opened = world.finalize(Header {
        openings: tree(opening_leaf(MeterId(5), index, &value)),
        ..world.header(7, LedgerTime(opens + 301_000))
    });
    let leaves: Vec<_> = (1..=SCHEDULE.slots)
        .map(|i| hash_chain::leaf(salt, i, &hash_chain::walk(salt, SCHEDULE.slots, i, &last)))
        .collect();
    let receipt = Receipt {
        network: NETWORK,
        registration: registration.clone(),
        registered: registered.inclusion(),
        index,
        link,
        link_path: merkle::path(&leaves, 2),
        body: &body,
        timestamp: Timestamp { submitter: ProviderId(1), value, inclusion: requested.inclusion() },
        opened: opened.inclusion(),
    };
    // A block that is final through the one after it.
    let eighth = world.header(8, LedgerTime(opens + 400_000));
    let ninth = world
        .finalize(Header { previous: eighth.id(), ..world.header(9, LedgerTime(opens + 500_000)) });
    let descendants = encoded(&ninth.header);
    let finality = Finality { descendants: &descendants, ..ninth.finality() };
    let time = TimeProof { header: eighth, finality };
    let end = world.finalize(Header {
        next_committee: Some(world.committee.digest()),
        members: Some(Digest([2; 32])),
        ..world.header(9, LedgerTime(opens + 600_000))
    });
    let handover = Handover {
        header: end.header.clone(),
        finality: end.finality(),
        committee: Some(world.committee.clone()),
        members: Some(&[0x84, 0x80, 0x80, 0x80, 0x80]),
    };
    let certificate = opened.finality().certificate;
    let head = Head { network: NETWORK, header: opened.header.clone(), certificate };
    let proof = RegistrationProof { registration, inclusion: registered.inclusion() };
    [encoded(&receipt), encoded(&time), encoded(&handover), encoded(&head), encoded(&proof)]
}

#[test]
fn a_verifier_answers_whatever_it_is_shown() {
    let world = World::new();
    let inputs = inputs(&world);
    let end = EraEnd { height: 9, time: LedgerTime(u64::MAX) };
    let eras = [
        Era { end: Some(end), ..Era::new(0, world.committee.clone()) },
        Era::new(1, world.committee.clone()),
    ];
    let eras = Eras { network: NETWORK, rounds: ROUNDS, eras: &eras };
    let anchors =
        Anchors { eras, providers: &world.providers, sdis: &world.sdis, reveal_s: 604_800 };
    let holds = |kind: usize, bytes: &[u8]| match kind {
        0 => codec::decode::<Receipt<'_>>("receipt", bytes).is_ok_and(|receipt| {
            let verdict = receipt.verify(&anchors);
            if let Some((_, failure)) = verdict.failure() {
                // What is said of it is part of the answer.
                let _ = (failure.expected().to_string(), failure.found().to_string());
            }
            verdict.valid()
        }),
        1 => codec::decode::<TimeProof<'_>>("time", bytes)
            .is_ok_and(|proof| eras.certified(&proof.finality, &proof.header).is_ok()),
        2 => codec::decode::<Handover<'_>>("handover", bytes)
            .is_ok_and(|handover| handover.verify(NETWORK, ROUNDS, &eras.eras[0]).is_ok()),
        3 => codec::decode::<Head<'_>>("head", bytes)
            .is_ok_and(|head| head.network == NETWORK && head.verify(&eras).is_ok()),
        _ => codec::decode::<RegistrationProof<'_>>("registration", bytes).is_ok_and(|proof| {
            let RegistrationProof { registration, inclusion } = proof;
            let leaf = registration.leaf(NETWORK);
            eras.certified(&inclusion.finality, &inclusion.header).is_ok()
                && inclusion.contains(inclusion.header.transactions, leaf)
        }),
    };
    for (kind, bytes) in inputs.iter().enumerate() {
        assert!(holds(kind, bytes), "kind {kind} as it was made");
    }
    let mut survived = [0_u32; 5];
    mutation::each(1, &inputs, |kind, bytes| {
        let altered = *bytes != *inputs[kind];
        let held = holds(kind, bytes);
        // The members in a handover are the ledger's to check.
        assert!(!held || !altered || kind == 2, "kind {kind} holds although it was altered");
        survived[kind] += u32::from(held);
    });
}

//! Where a late joiner begins: the certified state and the boundary block under it, nothing else.

use bkss_ledger::{
    Beginning, Boundary, FinalBlock, State, Transaction, Trust, Vote,
    beginning::{self, BeginningError},
    propose, snapshot,
};
use bkss_scheme::{
    LedgerTime, ProviderId, certificate::NotFinal, finality::Finality, timestamp::TimeProof,
};

use crate::consortium::{Consortium, SHORT};

/// A ledger of three rounds whose committees differ, and what a node could hand out of it.
struct Ledger {
    consortium: Consortium,
    blocks: Vec<FinalBlock>,
    /// States at the ends of the rounds.
    ends: Vec<State>,
    file: Vec<u8>,
}

fn ledger(seed: u64) -> Ledger {
    let consortium = Consortium::with(seed, 6, SHORT);
    let mut state = consortium.state();
    let (mut blocks, mut ends, mut file) = (Vec::new(), Vec::new(), consortium.genesis.encode());
    while ends.len() < 3 {
        let round = state.round().clone();
        let time = LedgerTime(state.head().time.0 + 1);
        let begins = state.head().height == 0 || SHORT.ends(state.head().height);
        let votes = (0..6).filter(|_| begins).map(|provider: u16| {
            let picks = (0..4).map(|pick| (2 * u16::try_from(round.number).unwrap() + pick) % 6);
            let picks = picks.filter(|pick| *pick != provider).map(ProviderId).collect();
            let key = &consortium.keys[usize::from(provider)];
            let network = consortium.genesis.network();
            Transaction::Vote(Vote::sign(network, ProviderId(provider), key, round.number, picks))
        });
        let verified = propose(&state.view(), time, votes).unwrap();
        state.apply(&verified).unwrap();
        let block = consortium.finalize_in(round.number, &round.committee, verified);
        file.extend(block.handover().unwrap_or_default());
        blocks.push(block);
        if state.round().number > round.number {
            ends.push(state.clone());
        }
    }
    Ledger { consortium, blocks, ends, file }
}

impl Ledger {
    fn block(&self, height: u64) -> &FinalBlock {
        &self.blocks[usize::try_from(height).unwrap() - 1]
    }

    fn committee(&self, round: usize) -> bkss_scheme::Committee {
        let before = round.checked_sub(1).map(|before| self.ends[before].round());
        before.map_or_else(|| self.consortium.genesis.committee().clone(), |r| r.committee.clone())
    }

    /// The file of a state at the end of a round, with the parts that a liar may choose.
    fn hand_out(&self, round: usize, proven_by: u64, boundary: &Boundary<'_>) -> Vec<u8> {
        let proof = self.block(proven_by);
        let (header, finality) = (proof.header().clone(), proof.finality().unwrap());
        let proof = TimeProof { header, finality };
        let mut bytes = Vec::new();
        beginning::write_proof(&proof, &mut bytes).unwrap();
        beginning::write_boundary(boundary, &mut bytes).unwrap();
        snapshot::write(&mut self.ends[round].clone(), &mut bytes).unwrap();
        bytes
    }

    fn boundary(&self, height: u64, committee: usize) -> Boundary<'_> {
        let block = self.block(height);
        let (header, finality) = (block.header().clone(), block.finality().unwrap());
        Boundary { header, finality, committee: self.committee(committee) }
    }

    fn trust(&self) -> Trust {
        Trust::decode(&self.file).unwrap()
    }
}

#[test]
fn a_late_joiner_begins_with_the_certified_state() {
    let ledger = ledger(11);
    assert!(ledger.committee(1) != ledger.committee(2), "handovers matter here");
    for (round, end, proven_by) in [(0, 3, 7), (1, 7, 11)] {
        let bytes = ledger.hand_out(round, proven_by, &ledger.boundary(end, round));
        let begun = Beginning::read(&ledger.trust(), &bytes[..]).unwrap();
        assert_eq!(begun.state().head(), ledger.ends[round].head());
        assert_eq!(begun.digest(), ledger.ends[round].clone().seal());
        assert_eq!(begun.boundary(), ledger.boundary(end, round));
        // On its own disk it needs no proof.
        let proof = 4 + u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        let own = Beginning::of_own_disk(&ledger.consortium.genesis, &bytes[proof..]).unwrap();
        assert_eq!(own.into_state().head(), ledger.ends[round].head());
    }
}

#[test]
fn every_altered_or_missing_byte_is_found() {
    let ledger = ledger(12);
    let trust = ledger.trust();
    let bytes = ledger.hand_out(1, 11, &ledger.boundary(7, 1));
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 1;
        let read = Beginning::read(&trust, &altered[..]);
        assert!(read.is_err(), "byte {position} of {}", bytes.len());
    }
    for length in (0..bytes.len()).step_by(7) {
        assert!(Beginning::read(&trust, &bytes[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn what_does_not_belong_together_is_refused_with_its_reason() {
    let ledger = ledger(13);
    let trust = ledger.trust();
    let read = |bytes: Vec<u8>| Beginning::read(&trust, &bytes[..]).err().unwrap();
    let good = ledger.boundary(7, 1);

    let error = read(ledger.hand_out(0, 7, &good));
    assert!(matches!(error, BeginningError::OtherBlock { height: 7, .. }), "{error}");
    let error = read(ledger.hand_out(1, 7, &good));
    assert!(error.to_string().contains("certifies that of another round"), "{error}");
    let error = read(ledger.hand_out(1, 10, &good));
    assert!(error.to_string().contains("block 10 certifies state None"), "{error}");
    let error = read(ledger.hand_out(1, 11, &ledger.boundary(6, 1)));
    assert!(matches!(error, BeginningError::NotBoundary { height: 6 }), "{error}");

    // A committee of one's own, which signs whatever it is asked to.
    let error = read(ledger.hand_out(1, 11, &ledger.boundary(7, 2)));
    let not_final = |error: &BeginningError| match error {
        BeginningError::NotFinal { height: 7, source } => Some(*source),
        _ => None,
    };
    assert!(matches!(not_final(&error), Some(NotFinal::Committee { .. })), "{error}");

    // Certified through the block behind it only: the engine could not go on from there.
    let mut header = Vec::new();
    bkss_scheme::codec::encode_infallible(ledger.block(8).header(), &mut header);
    let finality = Finality { descendants: &header, ..ledger.block(8).finality().unwrap() };
    let error = read(ledger.hand_out(1, 11, &Boundary { finality, ..good.clone() }));
    assert!(matches!(error, BeginningError::NoCertificate { height: 7 }), "{error}");
    let finality = ledger.block(6).finality().unwrap();
    let error = read(ledger.hand_out(1, 11, &Boundary { finality, ..good.clone() }));
    assert!(matches!(not_final(&error), Some(NotFinal::Signature { .. })), "{error}");
    let mut certificate = good.finality.certificate;
    certificate.epoch = 2;
    let finality = Finality { descendants: &[], certificate };
    let error = read(ledger.hand_out(1, 11, &Boundary { finality, ..good.clone() }));
    let other_round = Some(NotFinal::Round { height: 7, expected: 1, found: 2 });
    assert_eq!(not_final(&error), other_round, "{error}");

    // Whoever has not followed the handovers cannot tell a committee from a stranger's.
    let old = Trust::new(trust.genesis().clone());
    let error = Beginning::read(&old, &ledger.hand_out(1, 11, &good)[..]).err().unwrap();
    assert!(matches!(error, BeginningError::NotFinal { height: 11, .. }), "{error}");
}

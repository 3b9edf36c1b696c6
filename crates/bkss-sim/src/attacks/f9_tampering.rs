//! F9: what is on the ledger cannot be changed.

use bkss_ledger::{Block, verify};
use bkss_scheme::{
    codec,
    receipt::{Check, Receipt, Status},
    timestamp::Inclusion,
};
use ct_merkle::{InclusionProof, RootHash};
use sha2::Sha256;

use super::{
    Attack, Effort, Feature, Side, Story, Tried,
    f1_impersonation::sealed_by,
    opened,
    printed::{
        encryption::{KeyPair, encrypt},
        scheme,
        validation::validate,
    },
};
use crate::{
    Broken,
    scene::{Home, Scene, WINDOW_S, at, reading},
};

pub(super) const STORIES: [Story; 5] =
    [every_bit, other_body, rewritten, erased, independent_proofs];

/// A ledger with three readings of one meter, and their receipts.
fn written(seed: u64) -> Result<(Scene, Vec<Home>), Broken> {
    let (mut scene, mut homes) = Scene::with_meters(seed, 3)?;
    for index in 1..4 {
        for home in &mut homes[..1] {
            scene.reading(home, index, 42)?;
        }
    }
    Ok((scene, homes))
}

/// T9.1. Every bit of a receipt and of a stored block is flipped.
fn every_bit(effort: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("only bits of En(m): the paper's one check of it is none");
    let honest = printed_transaction();
    for bit in 0..8 * honest.encrypted.len() {
        let mut flipped = honest.clone();
        flipped.encrypted[bit / 8] ^= 1 << (bit % 8);
        printed.attempt(validate(&flipped, 1).map_err(|invalid| format!("{invalid:?}")));
    }

    let mut ours = Tried::new("bits of a receipt and of a block with an opening in it");
    let (scene, _) = written(91)?;
    let anchors = scene.genesis.anchors();
    let receipt = &scene.receipts[1].receipt;
    for bit in (0..8 * receipt.len()).step_by(effort.every_bit) {
        let mut flipped = receipt.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let verdict = codec::decode::<Receipt<'_>>("receipt", &flipped)
            .map_or(Some("not a receipt"), |receipt| {
                receipt.verify(&anchors).failure().map(|(check, _)| check.name())
            });
        ours.attempt(verdict.map_or(Ok(()), Err));
    }
    block_bits(&scene, effort, &mut ours)?;
    Ok(attack("T9.1", "flip any bit of a receipt or a block", "A4", printed.into(), ours.into()))
}

/// A stored block with a bit flipped is another block, or none; the same id means the same bytes.
fn block_bits(scene: &Scene, effort: &Effort, ours: &mut Tried) -> Result<(), Broken> {
    let place = scene.blocks.iter().rposition(|block| !block.verified().openings().is_empty());
    let place = place.ok_or(Broken::DoesNotHold("a block with an opening"))?;
    let block = &scene.blocks[place];
    let mut before = bkss_ledger::State::new(scene.genesis.clone());
    for earlier in &scene.blocks[..place] {
        before.apply(earlier.verified())?;
    }
    let finality = block.finality().ok_or(Broken::DoesNotHold("finality"))?;
    let bytes = block.verified().block().encode();
    let limit = scene.genesis.charter().limits.block_bytes as usize;
    for bit in (0..8 * bytes.len()).step_by(effort.every_bit) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(other) = Block::decode(scene.network(), &flipped, limit) else {
            ours.attempt(Err("not a block"));
            continue;
        };
        // What still parses has another id, which no certificate names, or breaks a rule.
        let certified = scene.certified(&finality, other.header());
        ours.attempt_if(
            certified.is_ok() && verify(&before.view(), other).is_ok(),
            "not the block that is certified",
        );
    }
    Ok(())
}

fn printed_transaction() -> scheme::Transaction {
    let chain = scheme::Chain::new(b"alice", 16);
    let meter = scheme::Meter { id: 7, chain, t0: 100, sdi: 1 };
    let stamp = scheme::stamp(&meter.request(102, b"42 kWh"), 102);
    meter.release(102, stamp, encrypt(&KeyPair::new(1).public(), 2, b"42 kWh"))
}

/// T9.2. The leader keeps signature and link, and puts another ciphertext beside them.
fn other_body(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("q is neither sent nor recomputed: any En(m) fits any signature");
    let mut forged = printed_transaction();
    forged.encrypted = encrypt(&KeyPair::new(1).public(), 3, b"99 kWh");
    printed.attempt(validate(&forged, 1).map_err(|invalid| format!("{invalid:?}")));

    let mut ours = Tried::new("the ledger recomputes q from body and link");
    let (mut scene, mut homes) = Scene::with_meters(92, 4)?;
    let mut signed = Vec::new();
    for home in &mut homes {
        signed.push(home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?);
    }
    let values = (0..).zip(signed.iter().map(|signed| signed.message().value));
    let request = scene.requests(0, 2, values);
    scene.block(at(2, 1), &[request])?;
    for home in &homes {
        let body = sealed_by(&mut scene, home, 2)?;
        let opening = scene.openings(0, 2, &[(home.row, home.link(2), body)])?;
        ours.attempt(opened(scene.offered(at(2, WINDOW_S.into()), &[opening])));
    }
    Ok(attack(
        "T9.2",
        "exchange the ciphertext after the release",
        "A4",
        printed.into(),
        ours.into(),
    ))
}

/// T9.3. f members rewrite history with their old keys.
fn rewritten(_: &Effort) -> Result<Attack, Broken> {
    let printed = Side::NotRun("a leader's word adds a block (A2.3); nothing printed replaces one");
    let mut ours = Tried::new(
        "other histories under the signatures of f members, and of one less than a quorum",
    );
    for providers in [4, 7, 21] {
        let scene = Scene::new(93, providers)?;
        let quorum = scene.committee().quorum();
        for liars in [usize::from((providers - 1) / 3), quorum - 1] {
            for second in 1..9 {
                let header = scene.header(at(1, second))?;
                let members: Vec<_> = (0..liars).collect();
                let votes = scene.votes_of(&members, scene.network(), header.id());
                let verdict = scene.certified(&votes.finality(), &header);
                ours.attempt(verdict.map(drop).map_err(|_| "fewer signatures than a quorum"));
            }
        }
    }
    Ok(attack("T9.3", "rewrite history with f members' keys", "B3", printed, ours.into()))
}

/// T9.4. Bodies are erased and put back; nothing that is signed or proven may change.
fn erased(_: &Effort) -> Result<Attack, Broken> {
    let mut ours = Tried::new("bodies erased; deriving links and roots again (s8.4) is not built");
    let (scene, _) = written(94)?;
    for block in &scene.blocks {
        let mut copy = block.verified().block().clone();
        let (id, leaves) = (copy.id(), copy.leaves());
        let bodies = copy.take_bodies();
        ours.attempt_if(copy.id() != id || copy.leaves() != leaves, "the block stays what it was");
        let restored = copy.restore_bodies(bodies);
        let same = restored && copy.encode() == block.verified().block().encode();
        ours.attempt_if(!same, "the same bytes again");
    }
    let printed = Side::NotRun("the printed scheme erases nothing");
    Ok(attack("T9.4", "change something by pruning", "", printed, ours.into()))
}

/// T9.5. Receipts, checked by somebody else's implementation of RFC 9162.
fn independent_proofs(_: &Effort) -> Result<Attack, Broken> {
    let mut ours =
        Tried::new("paths of receipts under the roots of certified headers, by ct-merkle");
    let (scene, _) = written(95)?;
    let anchors = scene.genesis.anchors();
    for issued in &scene.receipts {
        let receipt: Receipt<'_> = codec::decode("receipt", &issued.receipt)?;
        let verdict = receipt.verify(&anchors);
        let path = verdict.checks().any(|(check, status)| {
            matches!((check, status), (Check::TimestampPath, Status::Passed))
        });
        ours.attempt_if(!path, "our verifier agrees");
        let leaf = (
            receipt.registration.message.meter,
            receipt.index,
            receipt.timestamp.submitter,
            receipt.timestamp.value,
        );
        let holds = elsewhere(&receipt.timestamp.inclusion, &crate::scene::encoded(&leaf));
        ours.attempt_if(!holds, "the other implementation agrees");
        let mut other = leaf;
        other.3.0[0] ^= 1;
        let holds = elsewhere(&receipt.timestamp.inclusion, &crate::scene::encoded(&other));
        ours.attempt_if(holds, "the other implementation refuses another value");
    }
    let printed = Side::NotRun("the printed T_s proves nothing that could be checked");
    Ok(attack("T9.5", "find a proof on which two implementations differ", "", printed, ours.into()))
}

fn elsewhere(inclusion: &Inclusion<'_>, leaf: &[u8]) -> bool {
    let Some(tree) = inclusion.header.requests else { return false };
    let root = RootHash::<Sha256>::new(tree.root.0.into(), tree.count.into());
    let siblings: Vec<u8> =
        inclusion.path.siblings().iter().flat_map(|sibling| sibling.0).collect();
    let Ok(proof) = InclusionProof::<Sha256>::try_from_bytes(siblings) else { return false };
    root.verify_inclusion(&leaf, inclusion.index.into(), &proof).is_ok()
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Side,
    ours: Side,
) -> Attack {
    Attack { test, feature: Feature::F9, what, flaw, printed, ours }
}

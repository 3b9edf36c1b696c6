//! Genesis files whose members are others, snapshots that say something else.

use bkss_ledger::{
    Beginning, Boundary, Genesis, Snapshot, State, Trust,
    beginning::{write_boundary, write_proof},
    snapshot::{self, SnapshotError},
};
use bkss_scheme::{Handover, codec, timestamp::TimeProof};

use super::{certificates::all, refused};
use crate::world::{chain::Chain, invariants::Violation};

pub(super) fn check(chain: &Chain) -> Result<(), Violation> {
    other_members(chain)?;
    other_state(chain)
}

/// Handovers that leave out what they say about the members, or say what another said.
fn other_members(chain: &Chain) -> Result<(), Violation> {
    let decoded = chain.handovers.iter().map(|bytes| codec::decode("handover", bytes));
    let Ok(handovers) = decoded.collect::<Result<Vec<Handover<'_>>, _>>() else { return Ok(()) };
    let mut trust = Trust::new(Genesis::clone(&chain.genesis));
    for handover in &handovers {
        let others = handovers.iter().map(|other| other.members);
        for members in others.chain([None]).filter(|members| *members != handover.members) {
            let forged = Handover { members, ..handover.clone() };
            let taken = trust.clone().follow(&forged).is_ok();
            refused(taken, "a verifier", "a handover with other members")?;
        }
        if trust.follow(handover).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A snapshot with something in it altered, and all that it says of itself altered with it.
fn other_state(chain: &Chain) -> Result<(), Violation> {
    let rounds = chain.genesis.charter().rounds;
    for state in &chain.boundaries {
        let (mut bytes, mut altered) = (Vec::new(), Vec::new());
        let proven = snapshot_before(chain, state, &mut bytes).is_some();
        if !proven || state.chain_count() == 0 || !rounds.ends(state.head().height) {
            continue;
        }
        altered.clone_from(&bytes);
        if snapshot::write(&mut state.clone(), &mut bytes).is_err() {
            continue;
        }
        // The negative control: as it is, it is taken.
        let as_it_is = Beginning::read(&chain.trust, &bytes[..]);
        if let Err(error) = as_it_is {
            return Err(Violation::Archive { provider: 0, finding: error.to_string() });
        }
        let Some(forged) = alter(chain, state) else { continue };
        altered.extend_from_slice(&forged);
        let taken = Beginning::read(&chain.trust, &altered[..]).is_ok();
        refused(taken, "a late joiner", "a snapshot that nobody has certified")?;
    }
    Ok(())
}

/// What stands before the snapshot of a state that goes to others; `None` if the ledger does not have
/// it yet.
fn snapshot_before(chain: &Chain, state: &State, bytes: &mut Vec<u8>) -> Option<()> {
    let blocks = all(chain);
    let rounds = chain.genesis.charter().rounds.length();
    let height = state.head().height;
    let last_of_next = height + u64::from(rounds.blocks());
    let (boundary, proof) = (blocks.get(&height)?, blocks.get(&last_of_next)?);
    let header = proof.header().clone();
    write_proof(&TimeProof { header, finality: proof.finality()? }, &mut *bytes).ok()?;
    let finality = boundary.finality()?;
    let era = chain.trust.eras().of(finality.certificate.epoch).ok()?;
    let (header, committee) = (boundary.header().clone(), era.committee.clone());
    write_boundary(&Boundary { header, finality, committee }, bytes).ok()
}

/// The snapshot of a state with another newest link of its first meter.
fn alter(chain: &Chain, state: &State) -> Option<Vec<u8>> {
    let link = *state.view().live(0)?.last_link.as_bytes();
    let mut bytes = Vec::new();
    snapshot::write(&mut state.clone(), &mut bytes).ok()?;
    let at = bytes.windows(link.len()).position(|window| window == link)?;
    bytes[at] ^= 1;
    // What it comes to is said by who refuses it.
    let refusal = Snapshot::read(&chain.genesis, &bytes[..]).err()?;
    let SnapshotError::Altered { found, .. } = refusal else { return None };
    let end = bytes.len() - found.0.len();
    bytes[end..].copy_from_slice(&found.0);
    Some(bytes)
}

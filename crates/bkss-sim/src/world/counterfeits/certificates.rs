//! Certificates: of too few, of those who have left office, of another round.

use std::collections::BTreeMap;

use bkss_ledger::FinalBlock;
use bkss_meter::LedgerWatch;
use bkss_scheme::{
    Certificate, Committee, Era, Header, LedgerTime,
    certificate::{VoteContent, VoteKey},
    finality::Finality,
    timestamp::TimeProof,
};
use ed25519_zebra::SigningKey;

use super::refused;
use crate::{
    scene::{encoded, vote_key},
    world::{
        chain::{Chain, archive_of},
        founding::Founding,
        invariants::Violation,
    },
};

/// Views of what is forged.
const VIEW: u64 = 3;

pub(super) fn check(chain: &Chain, founding: &Founding) -> Result<(), Violation> {
    let blocks = all(chain);
    too_few(chain, &blocks)?;
    another_round(chain, &blocks)?;
    out_of_office(chain, founding)
}

/// The blocks of the ledger, by height, as one provider or another has shown them.
pub(super) fn all(chain: &Chain) -> BTreeMap<u64, FinalBlock> {
    let shown = chain.shown.iter().flat_map(|shown| shown.iter());
    let mut blocks = BTreeMap::new();
    for (height, block) in shown {
        blocks.entry(*height).or_insert_with(|| block.clone());
    }
    blocks
}

/// A certificate with one vote less than a quorum proves nothing, to nobody.
fn too_few(chain: &Chain, blocks: &BTreeMap<u64, FinalBlock>) -> Result<(), Violation> {
    const WHAT: &str = "a certificate of less than a quorum";
    // A block with descendants in its proof has no certificate of its own.
    let own = |block: &&FinalBlock| {
        block.finality().is_some_and(|finality| finality.descendants.is_empty())
    };
    let Some(block) = blocks.values().find(own) else { return Ok(()) };
    let Some(mut finality) = block.finality() else { return Ok(()) };
    let certificate = &mut finality.certificate;
    // The lowest signer is left out; a world's committee has more than one.
    certificate.signers &= certificate.signers - 1;
    certificate.signatures = &certificate.signatures[64..];
    let header = block.header();
    let verified = chain.trust.eras().certified(&finality, header);
    refused(verified.is_ok(), "a verifier", WHAT)?;
    refused(takes(chain, header, finality), "a meter", WHAT)?;
    let forged = FinalBlock::new(block.verified().clone(), &finality);
    let before = blocks.range(..header.height).map(|(_, block)| block.clone());
    let archive: Vec<_> = before.chain([forged]).collect();
    refused(audited(chain, archive.iter()), "an auditor", WHAT)
}

/// Whether a meter takes a block's time.
fn takes(chain: &Chain, header: &Header, finality: Finality<'_>) -> bool {
    let rounds = chain.genesis.charter().rounds.length();
    let era = Era::new(0, chain.genesis.committee().clone());
    let mut watch = LedgerWatch::new(chain.genesis.network(), rounds, era);
    let proof = TimeProof { header: header.clone(), finality };
    watch.advance(&proof, header.time).is_ok()
}

/// Whether an auditor takes blocks.
fn audited<'a>(
    chain: &Chain,
    blocks: impl DoubleEndedIterator<Item = &'a FinalBlock> + Clone,
) -> bool {
    archive_of(&chain.genesis, blocks).is_ok_and(|bytes| super::archives::passes(chain, &bytes))
}

/// The last block of a round is not final through one of the next.
fn another_round(chain: &Chain, blocks: &BTreeMap<u64, FinalBlock>) -> Result<(), Violation> {
    let rounds = chain.genesis.charter().rounds.length();
    for (height, block) in blocks.iter().filter(|(height, _)| rounds.ends(**height)) {
        let Some(next) = blocks.get(&(height + 1)) else { continue };
        let Some(of_next) = next.finality() else { continue };
        let mut descendants = encoded(next.header());
        descendants.extend_from_slice(of_next.descendants);
        let finality = Finality { descendants: &descendants, certificate: of_next.certificate };
        let verified = chain.trust.eras().certified(&finality, block.header());
        let what = "a certificate of the next round for the last block of a round";
        refused(verified.is_ok(), "a verifier", what)?;
    }
    Ok(())
}

/// Members of a committee that has handed over sign a block of a later time.
fn out_of_office(chain: &Chain, founding: &Founding) -> Result<(), Violation> {
    let eras = chain.trust.eras();
    let rounds = chain.genesis.charter().rounds.length();
    for era in eras.eras {
        let Some(end) = era.end else { continue };
        let later = LedgerTime(end.time.0 + 1000);
        let last_round = rounds.of(end.height);
        let last = u64::from(rounds.blocks());
        for (height, epoch) in [(end.height, last_round), (end.height + last, last_round + 1)] {
            let header = Header {
                height,
                time: later,
                committee: era.committee.digest(),
                next_committee: None,
                members: None,
                state: None,
                ..chain.genesis.header()
            };
            let Some((signers, signatures)) = sign(chain, founding, &era.committee, &header, epoch)
            else {
                continue;
            };
            let parent_view = VIEW - 1;
            let certificate =
                Certificate { epoch, view: VIEW, parent_view, signers, signatures: &signatures };
            let finality = Finality { descendants: &[], certificate };
            let verified = eras.certified(&finality, &header);
            let what = "a block of a committee that is out of office";
            refused(verified.is_ok(), "a verifier", what)?;
        }
    }
    Ok(())
}

/// Votes of a whole committee on a header; `None` if somebody's key is not known.
fn sign(
    chain: &Chain,
    founding: &Founding,
    committee: &Committee,
    header: &Header,
    epoch: u64,
) -> Option<(u32, Vec<u8>)> {
    let content = VoteContent::Finalize { parent_view: VIEW - 1, block: header.id() };
    let message = content.message(chain.genesis.network(), epoch, VIEW)?;
    let keys: BTreeMap<VoteKey, SigningKey> = founding
        .seats
        .iter()
        .map(|seat| SigningKey::from(seat.secret))
        .map(|key| (vote_key(&key), key))
        .collect();
    let mut signatures = Vec::new();
    for key in committee.keys() {
        signatures.extend_from_slice(&<[u8; 64]>::from(keys.get(key)?.sign(&message)));
    }
    let signers = u32::MAX >> (32 - committee.keys().len());
    Some((signers, signatures))
}

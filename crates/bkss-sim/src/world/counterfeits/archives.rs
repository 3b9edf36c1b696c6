//! Archives: cut, and with a certificate less than they need.

use bkss_ledger::{
    archive::Writer,
    audit::{Known, audit},
};

use super::{certificates::all, refused};
use crate::world::{
    chain::{Chain, archive_of},
    invariants::Violation,
};

pub(super) fn check(chain: &Chain) -> Result<(), Violation> {
    let blocks = all(chain);
    let Ok(whole) = archive_of(&chain.genesis, blocks.values()) else { return Ok(()) };
    cut(chain, &whole)?;
    round_without_certificate(chain)
}

/// Whether an auditor finds nothing wrong with it.
pub(super) fn passes(chain: &Chain, bytes: &[u8]) -> bool {
    audit(&chain.genesis, bytes, Known::default()).valid()
}

/// The places where the frames of an archive end.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(at) = ends.last().copied()
        && let Some(length) = bytes.get(at..at + 4)
    {
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        ends.push(at + 4 + length);
    }
    ends
}

/// Its last frames are missing, or what stands for an archive without blocks is in their place.
fn cut(chain: &Chain, whole: &[u8]) -> Result<(), Violation> {
    const WHO: &str = "an auditor";
    let ends = ends(whole);
    // The name, at least one block, the head.
    for missing in 1..ends.len().saturating_sub(2) {
        let kept = &whole[..ends[ends.len() - 1 - missing]];
        refused(passes(chain, kept), WHO, "an archive that is cut")?;
        let mut closed = kept.to_vec();
        closed.extend_from_slice(&[0, 0, 0, 1, 0xF6]);
        refused(passes(chain, &closed), WHO, "an archive that says it has no blocks")?;
        if missing == 3 {
            break;
        }
    }
    Ok(())
}

/// The last block of a round has no certificate of its own.
fn round_without_certificate(chain: &Chain) -> Result<(), Violation> {
    let blocks = all(chain);
    let rounds = chain.genesis.charter().rounds.length();
    let end = u64::from(rounds.blocks()) - 1;
    let next = |height: u64| blocks.get(&height).and_then(|block| block.finality());
    // The one behind it that has one is of the next round.
    let Some(last) = (end + 1..end + 30)
        .find(|height| next(*height).is_some_and(|finality| finality.descendants.is_empty()))
    else {
        return Ok(());
    };
    let Ok(mut writer) = Writer::new(Vec::new(), chain.genesis.network()) else { return Ok(()) };
    for (height, block) in blocks.range(..=last) {
        let own = next(*height).filter(|finality| finality.descendants.is_empty());
        let own = own.filter(|_| *height != end).map(|finality| finality.certificate);
        if writer.block(block.verified().block(), own).is_err() {
            return Ok(());
        }
    }
    let Ok(bytes) = writer.finish() else { return Ok(()) };
    let what = "a round whose last block has no certificate of its own";
    refused(passes(chain, &bytes), "an auditor", what)
}

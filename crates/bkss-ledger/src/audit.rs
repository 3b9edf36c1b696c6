//! Replays an archive from genesis: whether every block follows by the rules and is final.
//!
//! Nothing but the genesis is trusted. The audit knows nothing of the engine.

use std::{io::Read, sync::Arc};

use bkss_scheme::{Certificate, Digest, Network, certificate::NotFinal};

use crate::{
    Genesis, Refusal, Round, State,
    archive::{ArchiveError, Reader},
    evidence::Offence,
    verify::verify,
};

/// What an audit found.
#[derive(Debug, Default)]
pub struct Report {
    /// Blocks that follow by the rules.
    pub blocks: u64,
    /// Openings they accepted.
    pub readings: u64,
    /// Requests they accepted.
    pub requests: u64,
    /// Registered meters.
    pub meters: u32,
    /// Providers that are on record for having voted twice, and where.
    pub offences: Vec<Offence>,
    /// Everything that does not hold.
    pub refusals: Vec<Finding>,
}

/// Something that does not hold.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Finding {
    /// The file cannot be read on; nothing behind this was looked at.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A block breaks a rule; nothing behind this was looked at.
    #[error("block at byte {offset}: {reason}")]
    Rule { offset: u64, reason: Refusal },
    /// A certificate does not hold.
    #[error("certificate of block {height}: {reason}")]
    Certificate { height: u64, reason: NotFinal },
    /// Nothing makes the newest blocks final.
    #[error("blocks {from} to {to} have no certificate")]
    NotFinal { from: u64, to: u64 },
}

impl Report {
    /// Whether everything holds.
    pub const fn valid(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// Replays an archive. Errors end up in the report.
pub fn audit(genesis: &Arc<Genesis>, source: impl Read) -> Report {
    let mut report = Report::default();
    let mut state = State::new(genesis.clone());
    if let Err(finding) = replay(genesis, source, &mut state, &mut report) {
        report.refusals.push(finding);
    }
    report.meters = state.meters();
    report.offences = state.offences().iter().copied().collect();
    report
}

/// The committee of the block's round must have signed, in its round.
fn check_certificate(
    certificate: &Certificate<'_>,
    network: Network,
    round: &Round,
    block: Digest,
) -> Result<(), NotFinal> {
    let (first, found) = (round.number, certificate.epoch);
    if first != found {
        return Err(NotFinal::Epoch { first, found });
    }
    certificate.verify(network, &round.committee, block)
}

fn replay(
    genesis: &Arc<Genesis>,
    source: impl Read,
    state: &mut State,
    report: &mut Report,
) -> Result<(), Finding> {
    let network = genesis.network();
    let limit = genesis.charter().limits.block_bytes as usize;
    let mut reader = Reader::new(source, network, state.head().id, limit)?;
    // Height of the oldest block that no certificate covers yet.
    let mut uncovered: Option<u64> = None;
    loop {
        let offset = reader.offset();
        let Some(record) = reader.next_block()? else { break };
        let id: Digest = record.block.id();
        let height = record.block.header().height;
        let round = state.round().clone();
        let holds = record
            .certificate
            .map(|certificate| check_certificate(&certificate, network, &round, id));
        let verified = verify(&state.view(), record.block)
            .map_err(|reason| Finding::Rule { offset, reason })?;
        report.readings += verified.openings().len() as u64;
        report.requests += verified.requests().len() as u64;
        report.blocks += 1;
        let applied = state.apply(&verified);
        debug_assert!(applied.is_ok(), "it was verified on this state");
        match holds {
            Some(Ok(())) => uncovered = None,
            Some(Err(reason)) => {
                report.refusals.push(Finding::Certificate { height, reason });
                uncovered = None;
            }
            None => uncovered = uncovered.or(Some(height)),
        }
    }
    if let Some(from) = uncovered {
        report.refusals.push(Finding::NotFinal { from, to: state.head().height });
    }
    Ok(())
}

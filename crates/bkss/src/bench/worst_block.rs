//! `bkss bench worst-block`: how long the most expensive blocks that are valid take to verify.
//!
//! Blocks are as full as the default limits of a network allow, each of one kind. Measured is what a
//! validator does before it votes, as processor time of one core: parse the block, and check it on top
//! of the state, if it knows none of the transactions.

mod network;

use std::{hint::black_box, process::ExitCode, time::Duration};

use bkss_ledger::{Block, State, Transaction, Verified, propose, verify};
use bkss_scheme::LedgerTime;
use serde_json::{Value, json};

use super::{SetupError, hundredths, usage::thread_cpu};
use crate::{explain::Plain, output};
use network::{GAP, LONGEST, Network, WINDOW_S, at};

/// Times that each block is verified; odd, so that the median is one of them.
const PASSES: usize = 3;

/// Options of `bkss bench worst-block`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Number of service providers
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..=64))]
    providers: u16,
}

/// Measures and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    output::note(&format!("making blocks of {} providers, then measuring ..", args.providers));
    let size = Size { providers: args.providers, ..Size::FULL };
    match measure(size, PASSES) {
        Ok(blocks) => report(args, &blocks),
        Err(error) => {
            output::failed(&Plain("failed", &error));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// How many transactions are tried; a block takes those that fit.
#[derive(Clone, Copy, Debug)]
struct Size {
    providers: u16,
    /// Changes of membership.
    changes: u16,
    /// Double votes of each provider.
    offences: u16,
    /// Meters with short gaps.
    meters: u32,
    /// Steps of the longest gap.
    longest: u32,
}

impl Size {
    /// More than fits, or as many as are allowed: of members, records, transactions, steps.
    const FULL: Self =
        Self { providers: 64, changes: 959, offences: 64, meters: 16_384, longest: LONGEST };
}

/// A block that was measured.
#[derive(Debug)]
struct Measured {
    kind: &'static str,
    transactions: usize,
    /// Requests and openings that it accepts.
    accepted: usize,
    bytes: usize,
    decode: Duration,
    verify: Duration,
}

impl Measured {
    fn total(&self) -> Duration {
        self.decode + self.verify
    }
}

/// Makes each block in turn, on the state that it needs.
fn measure(size: Size, passes: usize) -> Result<Vec<Measured>, SetupError> {
    let mut network = Network::new(size.providers)?;
    let mut blocks = Vec::new();
    let mut take = |state: &State, kind, time, transactions| {
        let (measured, verified) = block(state, kind, (time, transactions), passes)?;
        blocks.push(measured);
        Ok::<_, SetupError>(verified)
    };

    let changes = network.changes(size.changes);
    take(&network.state, "changes that all providers approve", at(0, 1), changes)?;
    take(&network.state, "votes for accounting nodes", at(0, 1), network.votes())?;
    let evidence = network.evidence(size.offences)?;
    take(&network.state, "evidence of double votes", at(0, 1), evidence)?;

    let meters = network.meters(size.meters, size.longest)?;
    let mut left = network.registrations(&meters);
    let mut first = true;
    for second in 1.. {
        let kind = "registrations of meters";
        let verified = if std::mem::take(&mut first) {
            take(&network.state, kind, at(0, second), left.clone())?
        } else {
            propose(&network.state.view(), at(0, second), left.clone())?
        };
        network.state.apply(&verified)?;
        left.drain(..verified.registered().len());
        if left.is_empty() {
            break;
        }
    }
    let revocations = network.revocations(&meters);
    take(&network.state, "revocations of meters", at(1, 1), revocations)?;

    let (long, short) = meters.split_last().ok_or(SetupError::Shape)?;
    let requests = network.requests(short, GAP, 1);
    let verified = take(&network.state, "requests, one in a batch", at(GAP, 1), requests)?;
    network.state.apply(&verified)?;
    let (end, window) = (u64::from(WINDOW_S), at(GAP, WINDOW_S.into()));
    let openings = network.openings(short, GAP, 1)?;
    take(&network.state, "openings, one in a batch, all steps", window, openings)?;
    let openings = network.openings(short, GAP, short.len())?;
    take(&network.state, "openings in one batch, all steps", window, openings)?;

    let one = std::slice::from_ref(long);
    let requests = network.requests(one, size.longest, 1);
    let verified = propose(&network.state.view(), at(size.longest, 1), requests)?;
    network.state.apply(&verified)?;
    let opening = network.openings(one, size.longest, 1)?;
    let time = at(size.longest, end);
    take(&network.state, "one opening behind the longest gap", time, opening)?;
    Ok(blocks)
}

/// Builds a block and verifies it so many times.
fn block(
    state: &State,
    kind: &'static str,
    (time, transactions): (LedgerTime, Vec<Transaction>),
    passes: usize,
) -> Result<(Measured, Verified), SetupError> {
    let view = state.view();
    let built = propose(&view, time, transactions)?;
    let genesis = state.genesis();
    let (network, limit) = (genesis.network(), genesis.charter().limits.block_bytes as usize);
    let bytes = built.block().encode();
    let (mut decoding, mut verifying) = (Vec::new(), Vec::new());
    for _ in 0..passes {
        let began = thread_cpu();
        let block = Block::decode(network, black_box(&bytes), limit)
            .map_err(|_| SetupError::DoesNotHold("block"))?;
        decoding.push(thread_cpu().saturating_sub(began));
        let began = thread_cpu();
        black_box(verify(&view, block)?);
        verifying.push(thread_cpu().saturating_sub(began));
    }
    let accepted = built.requests().len() + built.openings().len();
    let transactions = built.block().transactions().len();
    let (decode, verify) = (median(decoding), median(verifying));
    let measured = Measured { kind, transactions, accepted, bytes: bytes.len(), decode, verify };
    Ok((measured, built))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn report(args: &Args, blocks: &[Measured]) {
    let worst = blocks.iter().max_by_key(|block| block.total());
    output::object(&json!({
        "providers": args.providers,
        "blocks": blocks.iter().map(as_json).collect::<Vec<_>>(),
        "worst": worst.map(as_json),
    }));
    output::result("milliseconds of one core to parse and to verify a block, medians:");
    for block in blocks {
        let Measured { kind, transactions, bytes, decode, verify, .. } = block;
        output::result(&format!(
            "  {kind:36} {transactions:>6} transactions {bytes:>8} bytes {:>8.1} {:>8.1}",
            ms(*decode),
            ms(*verify)
        ));
    }
    if let Some(worst) = worst {
        output::result(&format!("the worst: {}, {:.1} ms", worst.kind, ms(worst.total())));
    }
}

fn as_json(block: &Measured) -> Value {
    let Measured { kind, transactions, accepted, bytes, decode, verify } = block;
    json!({
        "kind": kind,
        "transactions": transactions,
        "accepted": accepted,
        "bytes": bytes,
        "decode_ms": hundredths(ms(*decode)),
        "verify_ms": hundredths(ms(*verify)),
        "ms": hundredths(ms(block.total())),
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_is_full_of_what_it_is_named_after() {
        let size = Size { providers: 4, changes: 3, offences: 2, meters: 8, longest: 5000 };
        let blocks = measure(size, 1).unwrap();
        let found: Vec<_> =
            blocks.iter().map(|block| (block.transactions, block.accepted)).collect();
        let expected = [(3, 0), (4, 0), (8, 0), (9, 0), (9, 0), (8, 8), (8, 8), (1, 8), (1, 1)];
        assert_eq!(found, expected, "{blocks:?}");
    }
}

//! Blocks as leaders build them and validators verify them.

use bkss_ledger::{
    Block, Pool, Refusal, State, Transaction, Verified, build,
    execute::{SkipReason, TransactionRefusal},
    propose, verify,
    verify::Built,
};
use bkss_scheme::LedgerTime;

/// Verifies a block of these transactions as a validator would, its header being honest about
/// everything else.
pub(crate) fn offered(
    state: &State,
    time: LedgerTime,
    transactions: &[Transaction],
) -> Result<Verified, Refusal> {
    let network = state.genesis().network();
    let empty = propose(&state.view(), time, []).unwrap();
    let mut header = empty.block().header().clone();
    loop {
        let block = Block::new(network, header.clone(), transactions.to_vec());
        match verify(&state.view(), block) {
            Err(Refusal::Tree { tree: "requests", expected, .. }) => header.requests = expected,
            Err(Refusal::Tree { expected, .. }) => header.openings = expected,
            Err(Refusal::Handover { what: "to members", expected, .. }) => {
                header.members = expected;
            }
            Err(Refusal::Handover { what: "to committee", expected, .. }) => {
                header.next_committee = expected;
            }
            other => return other,
        }
    }
}

/// Why a validator refuses a block of this transaction alone; a proposer leaves it out.
pub(crate) fn refusal(
    state: &State,
    time: LedgerTime,
    transaction: &Transaction,
) -> TransactionRefusal {
    let proposed = propose(&state.view(), time, [transaction.clone()]).unwrap();
    assert!(proposed.block().transactions().is_empty(), "a proposer leaves it out");
    match offered(state, time, std::slice::from_ref(transaction)) {
        Err(Refusal::Transaction { position: 0, reason }) => reason,
        other => unreachable!("{other:?}"),
    }
}

/// What a node does for a block: builds it from its pool and passes over who has lied.
pub(crate) fn turn(state: &mut State, pool: &mut Pool, time: LedgerTime) -> Built {
    let built = build(&state.view(), time, pool.candidates()).unwrap();
    let round = state.round().number;
    for (gateway, leaf) in &built.invalid {
        pool.pass_over(*gateway, round, *leaf);
    }
    let (network, limits) = (state.genesis().network(), state.genesis().charter().limits);
    let bytes = built.verified.block().encode();
    let travelled = Block::decode(network, &bytes, limits.block_bytes as usize).unwrap();
    assert!(travelled.has_all_bodies());
    state.apply(&verify(&state.view(), travelled).unwrap()).unwrap();
    pool.prune(&state.view());
    built
}

/// Why items are skipped.
pub(crate) fn reasons(verified: &Verified) -> Vec<SkipReason> {
    verified.skipped().iter().map(|skipped| skipped.reason).collect()
}

/// Builds and applies a block.
pub(crate) fn block(
    state: &mut State,
    time: LedgerTime,
    transactions: impl IntoIterator<Item = Transaction>,
) -> Verified {
    let verified = propose(&state.view(), time, transactions).unwrap();
    state.apply(&verified).unwrap();
    verified
}

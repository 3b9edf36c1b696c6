//! What only looks like a proof: made at a world's end from what its ledger has, to be refused by
//! verifiers, meters, auditors and late joiners.

mod archives;
mod certificates;
mod files;
mod receipts;

use super::{chain::Chain, founding::Founding, invariants::Violation};

/// Tries all of it; what a ledger is too short for is left out.
pub(super) fn check(chain: &Chain, founding: &Founding) -> Result<(), Violation> {
    certificates::check(chain, founding)?;
    archives::check(chain)?;
    receipts::check(chain)?;
    files::check(chain)
}

/// Fails if somebody takes something that is none.
fn refused(taken: bool, who: &'static str, what: &'static str) -> Result<(), Violation> {
    if taken { Err(Violation::Forgery { who, what }) } else { Ok(()) }
}

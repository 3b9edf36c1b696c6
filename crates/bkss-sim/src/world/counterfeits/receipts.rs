//! Receipts with one thing in them exchanged.

use bkss_scheme::{
    Digest, LinkIndex, codec,
    receipt::{Check, Receipt},
};

use super::refused;
use crate::world::{chain::Chain, invariants::Violation};

pub(super) fn check(chain: &Chain) -> Result<(), Violation> {
    let Some(issued) = chain.receipts.last() else { return Ok(()) };
    let Ok(receipt) = codec::decode::<Receipt<'_>>("receipt", &issued.receipt) else {
        return Ok(());
    };
    let others: Vec<Receipt<'_>> = chain
        .receipts
        .iter()
        .rev()
        .skip(1)
        .filter_map(|issued| codec::decode("receipt", &issued.receipt).ok())
        .take(4)
        .collect();
    let refuses = |forged: &Receipt<'_>, what: &'static str| {
        // Where the two have the same in that place, nothing was exchanged.
        let same = *forged == receipt;
        let taken = !same && forged.verify(&chain.trust.anchors()).valid();
        refused(taken, "a verifier", what)
    };
    let mut body = receipt.body.to_vec();
    if let Some(last) = body.last_mut() {
        *last ^= 1;
    }
    let body = Receipt { body: &body, ..receipt.clone() };
    refuses(&body, "a receipt with another body")?;
    let mut value = receipt.clone();
    value.timestamp.value = Digest([7; 32]);
    refuses(&value, "a receipt of another request")?;
    let slots = receipt.registration.message.schedule.slots;
    if let Some(index) = LinkIndex::new(receipt.index.get() + 1, slots) {
        refuses(&Receipt { index, ..receipt.clone() }, "a receipt of another slot")?;
    }
    for other in &others {
        let opened = Receipt { opened: other.opened.clone(), ..receipt.clone() };
        refuses(&opened, "a receipt with another opening's place on the ledger")?;
        let mut stamped = receipt.clone();
        stamped.timestamp.inclusion = other.timestamp.inclusion.clone();
        refuses(&stamped, "a receipt with another request's place on the ledger")?;
        let registered = Receipt { registered: other.registered.clone(), ..receipt.clone() };
        refuses(&registered, "a receipt with another registration's place on the ledger")?;
        let link = Receipt { link: other.link.clone(), ..receipt.clone() };
        refuses(&link, "a receipt with another link")?;
    }
    // Of the block of its own request, where no opening is.
    let opened = Receipt { opened: receipt.timestamp.inclusion.clone(), ..receipt.clone() };
    refuses(&opened, "a receipt whose opening is not on the ledger")?;
    debug_assert_eq!(Check::ALL.len(), 9, "each is tried above, or by what certificates are for");
    Ok(())
}

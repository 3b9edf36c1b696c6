//! How long sealed bodies are kept. Blocks and certificates stay for ever: boundary blocks, which
//! late joiners begin at, receipts' proofs and audits need no bodies.

use bkss_ledger::Head;
use bkss_scheme::LedgerTime;
use commonware_consensus::types::Height;

use crate::delivery::{Marshal, first_from};

/// Erases bodies that are old enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Milliseconds of ledger time; `None` for ever.
    keep_ms: Option<u64>,
    /// Bodies below this height are erased.
    erased: u64,
}

impl Retention {
    /// Keeps bodies for so many days of ledger time; `None` for ever.
    pub fn days(days: Option<u32>) -> Self {
        Self { keep_ms: days.map(|days| u64::from(days) * 86_400_000), erased: 0 }
    }

    /// Erases what has become too old when `head` is the newest block. Whole sections go at once
    /// (see [`crate::store::ITEMS_PER_SECTION`]), so a body stays a little longer than it has to.
    pub async fn erase(&mut self, marshal: &Marshal, head: Head) {
        let Some(expired) = self.keep_ms.and_then(|keep| head.time.0.checked_sub(keep)) else {
            return;
        };
        let kept = first_from(marshal, self.erased..head.height, LedgerTime(expired)).await;
        if kept > self.erased {
            self.erased = kept;
            marshal.prune(Height::new(kept));
        }
    }
}

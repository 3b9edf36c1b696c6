//! Algorithm 2 as printed: what a follower checks of a transaction.

use super::scheme::{Transaction, root_of};

/// The check that fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Invalid {
    /// Line 3: `ID_SM` of `Sig_m` and of `M_r`.
    Meter,
    /// Line 4: `ID_SDI` of `M_r` and the local one.
    Sdi,
    /// Line 5: `r = v_i + C_i`.
    Root,
    /// Line 7: `t = t_0 + i - 1`.
    Time,
}

/// Answers `Validated`, or the check that fails.
///
/// Everything that is compared comes out of the message itself, the local `ID_SDI` excepted, which
/// is public. `q` is not in the message and is not recomputed; `En(m)` is not looked at.
pub(crate) fn validate(transaction: &Transaction, local_sdi: u16) -> Result<(), Invalid> {
    let Transaction { signature, root_message, .. } = transaction;
    // `M_r` has no `ID_SM` (Eq 6), so the transaction's own is all there is to compare with.
    if signature.meter != transaction.signature.meter {
        return Err(Invalid::Meter);
    }
    if root_message.sdi != local_sdi {
        return Err(Invalid::Sdi);
    }
    if root_of(signature.link, signature.index, &signature.path) != root_message.r {
        return Err(Invalid::Root);
    }
    let index = u64::try_from(signature.index).unwrap_or(u64::MAX);
    if signature.timestamp.0 != root_message.t0.saturating_add(index) - 1 {
        return Err(Invalid::Time);
    }
    Ok(())
}

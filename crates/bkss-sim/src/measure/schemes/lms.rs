//! LMS, the stateful hash-based signature of RFC 8554.

use std::{hint::black_box, time::Duration};

use lms_signature::lms::{LmsMode, Signature, SigningKey};
use p256::ecdsa::signature::{RandomizedSignerMut, SignatureEncoding, Verifier};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{Messages, SchemeCost, all, cost};
use crate::{
    Broken,
    measure::{Pass, Timer},
};

/// How many readings one key signs: `2^height`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LmsSize {
    /// 32: made at once, for tests.
    H5,
    /// 1024: three weeks of half hours.
    H10,
}

/// Measures one mode. Each measurement signs once and no longer, so that a key lasts for all.
pub(super) fn measure<Mode: LmsMode>(
    timer: Timer<'_>,
    messages: &Messages,
) -> Result<SchemeCost, Broken>
where
    Signature<Mode>: SignatureEncoding,
{
    let exhausted = |_| Broken::DoesNotHold("an LMS key with signatures left");
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let mut key = SigningKey::<Mode>::new(&mut rng);
    let public = key.public();
    let some = &messages[..4];
    let mut signed = Vec::new();
    for message in some {
        signed.push(key.try_sign_with_rng(&mut rng, message).map_err(exhausted)?);
    }
    let bytes = signed.first().map_or(0, |signature: &Signature<Mode>| signature.to_vec().len());
    let (id, seed) = ([7; 16], [8; 32]);
    let fresh = SigningKey::<Mode>::new_from_seed(id, seed);
    let mut fresh = fresh.map_err(|_| Broken::DoesNotHold("an LMS key"))?;
    let sign: Pass<'_> = Box::new(|| {
        for message in some {
            black_box(fresh.try_sign_with_rng(&mut rng, black_box(message)).map_err(exhausted)?);
        }
        Ok(some.len())
    });
    let check: Pass<'_> = Box::new(|| {
        all(some.iter().zip(&signed), |(message, signature)| {
            public.verify(message, signature).is_ok()
        })
    });
    let timer = Timer { slice: Duration::ZERO, ..timer };
    let seconds = timer.seconds_per_item(vec![sign, check])?;
    let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    let cannot = "a meter whose state is lost or restored signs twice with one key, and is forged; \
                  says nothing of when";
    Ok(cost("LMS (SHA-256, w = 8)", &seconds, bytes, cannot, "F3 F4 F7 F8"))
}

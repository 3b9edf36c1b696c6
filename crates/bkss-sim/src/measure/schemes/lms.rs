//! LMS, the stateful hash-based signature of RFC 8554.

use std::hint::black_box;

use lms_signature::lms::{LmsMode, Signature, SigningKey};
use p256::ecdsa::signature::{RandomizedSignerMut, SignatureEncoding, Verifier};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{Messages, Scheme, all, scheme as named};
use crate::{Broken, measure::Pass};

/// How many readings one key signs: `2^height`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LmsSize {
    /// 32: made at once, for tests.
    H5,
    /// 1024: three weeks of half hours.
    H10,
}

/// Readings of a pass.
const SOME: usize = 4;

/// One mode. A key that is used up is made anew, which falls into one measurement of many; the
/// median does not see it.
pub(super) fn scheme<Mode: LmsMode + 'static>(messages: &Messages) -> Result<Scheme<'_>, Broken>
where
    Signature<Mode>: SignatureEncoding,
{
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let mut key = SigningKey::<Mode>::new(&mut rng);
    let public = key.public();
    let some = &messages[..SOME];
    let mut signed = Vec::new();
    for message in some {
        let signature = key.try_sign_with_rng(&mut rng, message);
        signed.push(signature.map_err(|_| Broken::DoesNotHold("a fresh LMS key"))?);
    }
    let bytes = signed.first().map_or(0, |signature: &Signature<Mode>| signature.to_vec().len());
    let sign: Pass<'_> = Box::new(move || {
        for message in some {
            if key.try_sign_with_rng(&mut rng, black_box(message)).map(black_box).is_err() {
                key = SigningKey::<Mode>::new(&mut rng);
            }
        }
        Ok(some.len())
    });
    let check: Pass<'_> = Box::new(move || {
        all(some.iter().zip(&signed), |(message, signature)| {
            public.verify(message, signature).is_ok()
        })
    });
    let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    let cannot = "a meter whose state is lost or restored signs twice with one key, and is forged; \
                  says nothing of when";
    Ok(named("LMS (SHA-256, w = 8)", [sign, check], bytes, cannot, "F3 F4 F7 F8"))
}

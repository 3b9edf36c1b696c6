//! What a user would pick instead, measured beside ours in the same run (Figure 12).
//!
//! All sign the same bytes: a sealed body of one reading. Ours is what the ledger needs for a
//! reading, request and opening together; the others are one signature per reading and know neither
//! slot nor ledger.

use std::hint::black_box;

use ed25519_zebra::batch;
use hmac::{Hmac, KeyInit, Mac};
use lms_signature::{
    lms::{LmsSha256M32H5, LmsSha256M32H10},
    ots::LmsOtsSha256N32W8,
};
use p256::ecdsa::signature::{Signer, Verifier};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;
use sha2::Sha256;

use super::{Pass, Timer};
use crate::Broken;

mod lms;

pub use lms::LmsSize;

/// Bytes that are signed: a sealed reading.
const MESSAGE: usize = 53;
/// Messages of a pass, and of a batch.
const MESSAGES: usize = 64;

/// One way to sign readings.
#[derive(Clone, Debug)]
pub struct SchemeCost {
    /// Its name.
    pub name: &'static str,
    /// Signing one reading, microseconds.
    pub sign_us: f64,
    /// Checking one reading, microseconds.
    pub verify_us: f64,
    /// Bytes per reading beside the reading itself.
    pub bytes: f64,
    /// What it cannot do.
    pub cannot: &'static str,
    /// Rows of Table 4 that it does not have by itself.
    pub lacks: &'static str,
}

/// A scheme about to be measured.
pub(crate) struct Scheme<'a> {
    pub(crate) name: &'static str,
    /// Signing, and checking.
    pub(crate) passes: [Pass<'a>; 2],
    pub(crate) bytes: f64,
    pub(crate) cannot: &'static str,
    pub(crate) lacks: &'static str,
}

/// Measures ours, given its passes and bytes, and all others, in turns.
///
/// # Errors
///
/// [`Broken`] if a signature does not hold.
pub(crate) fn measure<'a>(
    timer: Timer<'_>,
    passes: [Pass<'a>; 2],
    bytes: f64,
    lms: LmsSize,
) -> Result<Vec<SchemeCost>, Broken> {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let messages: Vec<_> = (0..MESSAGES)
        .map(|_| {
            let mut message = [0; MESSAGE];
            rng.fill_bytes(&mut message);
            message
        })
        .collect();
    let cannot = "needs the ledger within each window; counts only after it";
    let mut schemes = vec![Scheme { name: "BKSS (ours)", passes, bytes, cannot, lacks: "" }];
    schemes.push(ecdsa_p256(&messages, &mut rng)?);
    schemes.push(ecdsa_secp256k1(&messages, &mut rng)?);
    schemes.extend(ed25519(&messages, &mut rng));
    schemes.push(hmac(&messages, &mut rng)?);
    schemes.push(match lms {
        LmsSize::H5 => lms::scheme::<LmsSha256M32H5<LmsOtsSha256N32W8>>(&messages)?,
        LmsSize::H10 => lms::scheme::<LmsSha256M32H10<LmsOtsSha256N32W8>>(&messages)?,
    });
    let mut costs = Vec::new();
    let mut passes = Vec::new();
    for Scheme { name, passes: both, bytes, cannot, lacks } in schemes {
        passes.extend(both);
        costs.push(SchemeCost { name, sign_us: 0.0, verify_us: 0.0, bytes, cannot, lacks });
    }
    let seconds = timer.seconds_per_item(passes)?;
    let (pairs, _) = seconds.as_chunks::<2>();
    for (cost, [sign, check]) in costs.iter_mut().zip(pairs) {
        (cost.sign_us, cost.verify_us) = (sign * 1e6, check * 1e6);
    }
    Ok(costs)
}

type Messages = [[u8; MESSAGE]];

const STOLEN: &str = "who has the key signs the past anew; says nothing of when; falls to a quantum \
                      computer";

fn ecdsa_p256<'a>(messages: &'a Messages, rng: &mut ChaCha8Rng) -> Result<Scheme<'a>, Broken> {
    use p256::ecdsa::{Signature, SigningKey, VerifyingKey};

    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    let key = SigningKey::from_slice(&secret).map_err(|_| Broken::DoesNotHold("P-256 key"))?;
    let public = VerifyingKey::from(&key);
    let signed: Vec<Signature> = messages.iter().map(|message| key.sign(message)).collect();
    let sign: Pass<'_> = Box::new(move || {
        for message in messages {
            black_box::<Signature>(key.sign(black_box(message)));
        }
        Ok(messages.len())
    });
    let check: Pass<'_> = Box::new(move || {
        all(messages.iter().zip(&signed), |(message, signature)| {
            public.verify(message, signature).is_ok()
        })
    });
    Ok(scheme("ECDSA P-256", [sign, check], 64.0, STOLEN, "F3 F4 F5 F7 F8"))
}

fn ecdsa_secp256k1<'a>(messages: &'a Messages, rng: &mut ChaCha8Rng) -> Result<Scheme<'a>, Broken> {
    use secp256k1::{Message, PublicKey, SecretKey, ecdsa::Signature};

    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    let key =
        SecretKey::from_secret_bytes(secret).map_err(|_| Broken::DoesNotHold("secp256k1 key"))?;
    let public = PublicKey::from_secret_key(&key);
    let digest = |message: &[u8; MESSAGE]| {
        Message::from_digest(<Sha256 as sha2::Digest>::digest(message).into())
    };
    let signed: Vec<Signature> =
        messages.iter().map(|message| secp256k1::ecdsa::sign(digest(message), &key)).collect();
    let sign: Pass<'_> = Box::new(move || {
        for message in messages {
            black_box(secp256k1::ecdsa::sign(digest(black_box(message)), &key));
        }
        Ok(messages.len())
    });
    let check: Pass<'_> = Box::new(move || {
        all(messages.iter().zip(&signed), |(message, signature)| {
            secp256k1::ecdsa::verify(signature, digest(message), &public).is_ok()
        })
    });
    Ok(scheme("ECDSA secp256k1", [sign, check], 64.0, STOLEN, "F3 F4 F5 F7 F8"))
}

fn ed25519<'a>(messages: &'a Messages, rng: &mut ChaCha8Rng) -> [Scheme<'a>; 2] {
    use ed25519_zebra::{SigningKey, VerificationKey, VerificationKeyBytes};

    // A key per meter: a batch checks the readings of many.
    let keys: Vec<_> = messages.iter().map(|_| SigningKey::new(&mut *rng)).collect();
    let signed: Vec<_> =
        keys.iter().zip(messages).map(|(key, message)| key.sign(message)).collect();
    let public: Vec<VerificationKeyBytes> = keys.iter().map(VerificationKeyBytes::from).collect();
    let parsed: Vec<VerificationKey> = keys.iter().map(VerificationKey::from).collect();
    let sign = move || {
        for (key, message) in keys.iter().zip(messages) {
            black_box(key.sign(black_box(message)));
        }
        Ok(messages.len())
    };
    let known = signed.clone();
    let single: Pass<'_> = Box::new(move || {
        all(parsed.iter().zip(messages).zip(&known), |((key, message), signature)| {
            key.verify(signature, message).is_ok()
        })
    });
    let mut coins = ChaCha8Rng::seed_from_u64(13);
    let many: Pass<'_> = Box::new(move || {
        let mut verifier = batch::Verifier::new();
        for ((key, message), signature) in public.iter().zip(messages).zip(&signed) {
            verifier.queue((*key, *signature, message));
        }
        let holds = verifier.verify(&mut coins).is_ok();
        if holds { Ok(messages.len()) } else { Err(Broken::DoesNotHold("a batch")) }
    });
    let lacks = "F3 F4 F5 F7 F8";
    let (alone, again) = (sign.clone(), sign);
    let cannot = "as Ed25519; and one wrong signature leaves 64 to be checked one by one";
    [
        scheme("Ed25519", [Box::new(alone), single], 64.0, STOLEN, lacks),
        scheme("Ed25519, batch of 64", [Box::new(again), many], 64.0, cannot, lacks),
    ]
}

fn hmac<'a>(messages: &'a Messages, rng: &mut ChaCha8Rng) -> Result<Scheme<'a>, Broken> {
    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    let keyed = Hmac::<Sha256>::new_from_slice(&secret);
    let keyed = keyed.map_err(|_| Broken::DoesNotHold("an HMAC key"))?;
    let tag = move |message: &[u8; MESSAGE]| keyed.clone().chain_update(message);
    let tags: Vec<_> = messages.iter().map(|message| tag(message).finalize()).collect();
    let again = tag.clone();
    let sign: Pass<'_> = Box::new(move || {
        for message in messages {
            black_box(again(black_box(message)).finalize());
        }
        Ok(messages.len())
    });
    let check: Pass<'_> = Box::new(move || {
        all(messages.iter().zip(&tags), |(message, known)| {
            tag(message).verify(known.as_bytes()).is_ok()
        })
    });
    let cannot = "only who shares the key can check, and who can check can forge: proves nothing \
                  to anybody else";
    Ok(scheme("HMAC-SHA256, shared key", [sign, check], 32.0, cannot, "F1 F3 F4 F5 F7 F8 F9"))
}

fn scheme<'a>(
    name: &'static str,
    passes: [Pass<'a>; 2],
    bytes: f64,
    cannot: &'static str,
    lacks: &'static str,
) -> Scheme<'a> {
    Scheme { name, passes, bytes, cannot, lacks }
}

/// Checks all items and counts them.
fn all<T>(
    items: impl Iterator<Item = T>,
    mut holds: impl FnMut(T) -> bool,
) -> Result<usize, Broken> {
    let mut count = 0;
    for item in items {
        if !holds(black_box(item)) {
            return Err(Broken::DoesNotHold("a signature"));
        }
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::with_timer;

    #[test]
    fn all_schemes_sign_and_check_the_same_readings() {
        let costs = with_timer(|timer| {
            let passes: [Pass<'_>; 2] = [Box::new(|| Ok(1)), Box::new(|| Ok(1))];
            measure(timer, passes, 67.0, LmsSize::H5)
        });
        let costs = costs.unwrap();
        let bytes: Vec<_> = costs.iter().map(|cost| (cost.name, cost.bytes)).collect();
        assert_eq!(
            bytes,
            [
                ("BKSS (ours)", 67.0),
                ("ECDSA P-256", 64.0),
                ("ECDSA secp256k1", 64.0),
                ("Ed25519", 64.0),
                ("Ed25519, batch of 64", 64.0),
                ("HMAC-SHA256, shared key", 32.0),
                // RFC 8554: 4 + 4 + 32 * 35 of the one-time signature, 4 + 32 * 5 of the path.
                ("LMS (SHA-256, w = 8)", 1292.0),
            ]
        );
        assert!(costs.iter().all(|cost| cost.sign_us > 0.0 && cost.verify_us > 0.0));
    }

    #[test]
    fn a_signature_that_does_not_hold_is_no_measurement() {
        assert!(all([true, false].into_iter(), |holds| holds).is_err());
    }
}

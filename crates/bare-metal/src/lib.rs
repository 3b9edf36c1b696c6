//! Proof by compilation that meter and verifier need neither std nor an allocator.
//!
//! A static library is the last step before a linker, so the compiler asks for everything that a
//! program must have once: a panic handler, which is here and which std would have a second of, and
//! a global allocator if any dependency allocates, which is not here. That the build succeeds is
//! the test; nothing runs.

#![no_std]

use bkss_meter::{Journal, KeyStore, Meter, Parameters, journal::MemoryFlash};
use bkss_scheme::{
    Committee, Digest, Era, Eras, LedgerTime, Link, Network, Reading,
    certificate::VoteKey,
    codec,
    finality::RoundLength,
    hash_chain::Blocks,
    receipt::{Anchors, Receipt},
    timestamp::{RegistrationProof, TimeProof},
};
use rand_core::CryptoRng;

/// Checkpoints of a chain of a year of half hours in blocks of 256.
type Checkpoints = [Link; 69];

/// A meter from the last link of its chain.
pub fn switch_on(
    parameters: Parameters,
    blocks: Blocks,
    last: &Link,
    checkpoints: Checkpoints,
) -> Option<Meter<MemoryFlash<4096>, Checkpoints>> {
    let salt = parameters.root_message.salt();
    let (keys, ends) = KeyStore::make(salt, blocks, last, checkpoints, |_, _| ()).ok()?;
    if ends.anchor != parameters.root_message.anchor {
        return None;
    }
    let journal = Journal::open(MemoryFlash::default()).ok()?;
    Some(Meter::new(parameters, journal, keys))
}

/// A slot of a meter, from the messages of its gateway: registration, reading, time, release.
pub fn slot(
    meter: &mut Meter<MemoryFlash<4096>, Checkpoints>,
    registration: &[u8],
    now: LedgerTime,
    reading: &Reading,
    time: &[u8],
    mut rng: &mut dyn CryptoRng,
) -> Option<(Digest, Link)> {
    let proof: RegistrationProof<'_> = codec::decode("registration", registration).ok()?;
    meter.confirm_registration(&proof).ok()?;
    let signed = meter.sign(now, reading, &mut rng).ok()?;
    let proof: TimeProof<'_> = codec::decode("time", time).ok()?;
    meter.on_time(now, &proof).ok()?;
    Some((signed.message().value, meter.release()?.link))
}

/// A verifier: whether the bytes are a receipt that holds under this committee.
pub fn verify_receipt(
    bytes: &[u8],
    network: Network,
    rounds: RoundLength,
    committee: &[VoteKey],
) -> bool {
    let Some(committee) = Committee::new(committee.iter().copied()) else { return false };
    let eras = [Era::new(0, committee)];
    let eras = Eras { network, rounds, eras: &eras };
    let anchors = Anchors { eras, providers: &[], sdis: &[], reveal_s: 604_800 };
    codec::decode::<Receipt<'_>>("receipt", bytes)
        .is_ok_and(|receipt| receipt.verify(&anchors).valid())
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

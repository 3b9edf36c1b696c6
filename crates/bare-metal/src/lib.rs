//! Proof by compilation that meter and verifier need neither std nor an allocator.
//!
//! A static library is the last step before a linker, so the compiler asks for everything that a
//! program must have once: a panic handler, which is here and which std would have a second of, and
//! a global allocator if any dependency allocates, which is not here. That the build succeeds is
//! the test; nothing runs.

#![no_std]

use bkss_scheme::{
    Committee, Digest, LinkIndex, Network, Salt, SecretKey, Signature,
    certificate::VoteKey,
    codec,
    hash::plain,
    hash_chain,
    receipt::{Anchors, Receipt},
    request,
    seal::{SealingKey, Session},
};
use rand_core::CryptoRng;

/// What a meter is given when it is made.
pub struct Provisioned {
    /// The network.
    pub network: Network,
    /// Salt of the chain.
    pub salt: Salt,
    /// Entropy of meter and SDI.
    pub entropies: [[u8; 32]; 2],
    /// Number of links.
    pub slots: u32,
    /// The owner's sealing key.
    pub owner: SealingKey,
    /// `mr`.
    pub root_message: Digest,
}

/// A meter's slot: derives the link, seals the reading and makes the request value `q`, which it
/// returns with a signature as an SDI would give one.
pub fn sign_reading(
    provisioned: &Provisioned,
    index: LinkIndex,
    reading: &[u8],
    sdi: &SecretKey,
    mut rng: &mut dyn CryptoRng,
) -> Option<(Digest, Signature)> {
    let Provisioned { network, salt, entropies: [meter, by_sdi], slots, owner, root_message } =
        provisioned;
    let last = hash_chain::last_link(*salt, meter, by_sdi, *network, 0);
    let link = hash_chain::walk(*salt, *slots, index.get(), &last);
    let session = Session::start(*network, owner, &mut rng).ok()?;
    let body = session.seal(root_message, index, reading, true).ok()?;
    let commitment = request::commitment(root_message, index, &plain(&body));
    let value = request::request_value(&commitment, &link);
    Some((value, sdi.sign(&value)))
}

/// A verifier: whether the bytes are a receipt that holds under this committee.
pub fn verify_receipt(bytes: &[u8], network: Network, committee: &[VoteKey]) -> bool {
    let Some(committee) = Committee::new(committee.iter().copied()) else { return false };
    let anchors =
        Anchors { network, providers: &[], sdis: &[], committee: &committee, reveal_s: 604_800 };
    codec::decode::<Receipt<'_>>("receipt", bytes)
        .is_ok_and(|receipt| receipt.verify(&anchors).valid())
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

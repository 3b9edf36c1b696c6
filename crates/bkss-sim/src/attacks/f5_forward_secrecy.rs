//! F5: who breaks in today learns nothing of before.
//!
//! What is reached is forward security: of signatures from slot to slot, of readings from session to
//! session. It is not secrecy per message, and is not called so.

use bkss_ledger::{Change, Transaction, change::Body};
use bkss_scheme::{
    LedgerTime, Link, ProviderId, codec, hash_chain,
    seal::{Body as Sealed, KeyId, OpeningKey, OpeningSession, SealError, Session},
};

use super::{
    Attack, Effort, Feature, Side, Story, Tried,
    f1_impersonation::{sealed_by, value_of},
    opened,
    printed::{
        encryption::{KeyPair, encrypt},
        scheme::{Chain, Meter, Timestamp, h},
        validation::validate,
    },
    requested,
};
use crate::{
    Broken,
    scene::{Home, Scene, WINDOW_S, at, encoded, link_index, reading},
};

pub(super) const STORIES: [Story; 3] = [meter_memory, provider_memory, next_link];

/// T5.1. Mallory reads out a whole meter in slot 6.
fn meter_memory(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("a leader stamps the past: every slot the meter ever had is forged");
    let alice = Meter { id: 7, chain: Chain::new(b"alice", 16), t0: 100, sdi: 1 };
    for past in 102..107 {
        let encrypted = encrypt(&KeyPair::new(1).public(), 2, b"0 kWh");
        let forged = alice.release(past, Timestamp(past), encrypted);
        printed.attempt(validate(&forged, 1).map_err(|invalid| format!("{invalid:?}")));
    }

    let mut ours = Tried::new(
        "past slots stay as they are; readings of the running session, a day at most, can be read",
    );
    let (mut scene, mut homes) = Scene::with_meters(51, 1)?;
    let yesterday = readings(&mut scene, &mut homes[0], 1..6)?;
    homes[0].meter.start_session(at(6, 0), &mut scene.rng)?;
    // The whole chain is hers: v_n and all that follows from it.
    for past in 1..6 {
        let (link, body) = (homes[0].link(past), sealed_by(&mut scene, &homes[0], past)?);
        let value = value_of(&homes[0], past, &body, &link)?;
        for time in [at(6, 1), at(6, WINDOW_S.into()), at(7, 1)] {
            let request = scene.requests(3, past, [(0, value)]);
            ours.attempt(requested(scene.offered(time, &[request])));
            let opening = scene.openings(3, past, &[(0, link.clone(), body.clone())])?;
            ours.attempt(opened(scene.offered(time, &[opening])));
        }
    }
    // Her copy of the session in memory seals like the meter: zeros give its key stream.
    let owner = homes[0].parameters.owner;
    let session = Session::start(scene.network(), &owner, &mut scene.rng)?;
    for (index, body) in &yesterday {
        let read = by_key_stream(&session, &homes[0], *index, body)?;
        ours.attempt_if(read == plaintext(42)?, "another session's key stream");
    }
    Ok(attack("T5.1", "read out a whole meter", "A7", printed.into(), ours.into()))
}

fn readings(
    scene: &mut Scene,
    home: &mut Home,
    slots: std::ops::Range<u32>,
) -> Result<Vec<(u32, Vec<u8>)>, Broken> {
    let mut bodies = Vec::new();
    for index in slots {
        let signed = scene.reading(home, index, 42)?;
        bodies.push((index, signed.message().body.to_vec()));
    }
    Ok(bodies)
}

fn plaintext(value: i32) -> Result<Vec<u8>, Broken> {
    let mut bytes = reading(value).to_bytes().ok_or(Broken::DoesNotHold("a reading"))?.to_vec();
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    Ok(bytes)
}

/// Decrypts with a sender's session: the key stream of zeros, laid over a ciphertext.
fn by_key_stream(
    session: &Session,
    home: &Home,
    index: u32,
    body: &[u8],
) -> Result<Vec<u8>, Broken> {
    let body: Sealed<'_> = codec::decode("body", body)?;
    let zeros = vec![0; body.ciphertext.len() - 16];
    let stream = session.seal(&home.id(), link_index(index)?, &zeros, false)?;
    let stream: Sealed<'_> = codec::decode("body", &stream)?;
    Ok(zeros
        .iter()
        .zip(body.ciphertext)
        .zip(stream.ciphertext)
        .map(|((_, sealed), mask)| sealed ^ mask)
        .collect())
}

/// T5.2. Mallory gets a provider's keys after they were exchanged.
fn provider_memory(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("one static key, and a ledger that keeps every ciphertext for ever");
    let provider = KeyPair::new(1);
    for (slot, ephemeral) in (0..9_u8).zip(10..) {
        let recorded = encrypt(&provider.public(), ephemeral, &[slot; 6]);
        let read = provider.decrypt(&recorded);
        printed.attempt_if(read.as_deref() == Some(&[slot; 6][..]), "not readable");
    }

    let mut ours = Tried::new("that memory holds no copy of an erased key was not searched for");
    let (mut scene, mut homes) = Scene::with_meters(52, 1)?;
    let recorded = readings(&mut scene, &mut homes[0], 1..6)?;
    for number in 2..5 {
        // The owner shows its next key on the ledger and erases the one before.
        let next = OpeningKey::generate(KeyId(number), &mut scene.rng);
        let mut change = Change::new(Body::SealingKey(ProviderId(0), next.public()), 0);
        change.sign(scene.network(), &scene.keys[0]);
        let time = LedgerTime(scene.state.head().time.0 + 1000);
        scene.block(time, &[Transaction::Change(change)])?;
        scene.opening_keys[0] = next;
        for (index, body) in &recorded {
            ours.attempt(read_by_owner(&scene, &homes[0], *index, body)?);
        }
    }
    let (printed, ours) = (printed.into(), ours.into());
    Ok(attack("T5.2", "read out a provider after its keys were exchanged", "A17", printed, ours))
}

/// What the owner's present key makes of a recorded body.
fn read_by_owner(
    scene: &Scene,
    home: &Home,
    index: u32,
    body: &[u8],
) -> Result<Result<(), SealError>, Broken> {
    let body: Sealed<'_> = codec::decode("body", body)?;
    let enc = body.encapsulated.unwrap_or_default();
    let session = match OpeningSession::start(scene.network(), &scene.opening_keys[0], &enc) {
        Ok(session) => session,
        Err(refused) => return Ok(Err(refused)),
    };
    let index = link_index(index)?;
    Ok(session.slot_key(index).open(&home.id(), index, body.ciphertext).map(drop))
}

/// T5.3. All that is public up to slot i is searched for the link of slot i + 1.
fn next_link(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("the next link stands in the path of each odd one");
    let chain = Chain::new(b"alice", 16);
    for index in (3..15).step_by(2) {
        let public: Vec<u8> = chain.path(index).concat();
        let found = public.windows(32).any(|window| {
            window.try_into().is_ok_and(|link: [u8; 32]| h(&[&link]) == chain.link(index))
        });
        printed.attempt_if(found, "not there");
    }

    let mut ours = Tried::new("every 32 bytes in a row of all blocks and receipts");
    let (mut scene, mut homes) = Scene::with_meters(53, 1)?;
    readings(&mut scene, &mut homes[0], 1..6)?;
    let blocks = scene.blocks.iter().map(|block| block.verified().block().encode());
    let receipts = scene.receipts.iter().map(|issued| issued.receipt.clone());
    let mut public: Vec<u8> = blocks.chain(receipts).flatten().collect();
    public.extend(encoded(&homes[0].registration));
    public.extend(homes[0].blocks.1.iter().flat_map(|root| root.0));
    let (salt, newest) = (homes[0].registration.message.salt(), homes[0].link(5));
    for window in public.windows(32) {
        let Ok(bytes) = window.try_into() else { continue };
        let leads = hash_chain::step(salt, 6, &Link::from_bytes(bytes)) == newest;
        ours.attempt_if(leads, "does not lead to the newest link");
    }
    Ok(attack(
        "T5.3",
        "search all public bytes for the next link",
        "A9",
        printed.into(),
        ours.into(),
    ))
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Side,
    ours: Side,
) -> Attack {
    Attack { test, feature: Feature::F5, what, flaw, printed, ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_session_is_the_limit_that_is_stated() {
        let (mut scene, homes) = Scene::with_meters(54, 1).unwrap();
        let owner = homes[0].parameters.owner;
        let session = Session::start(scene.network(), &owner, &mut scene.rng).unwrap();
        let index = link_index(3).unwrap();
        let plain = plaintext(42).unwrap();
        let body = session.seal(&homes[0].id(), index, &plain, true).unwrap();
        assert_eq!(by_key_stream(&session, &homes[0], 3, &body).unwrap(), plain);
        let later = Session::start(scene.network(), &owner, &mut scene.rng).unwrap();
        assert_ne!(by_key_stream(&later, &homes[0], 3, &body).unwrap(), plain);
    }
}

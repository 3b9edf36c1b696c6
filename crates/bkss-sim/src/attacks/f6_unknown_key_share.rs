//! F6: meter and owner agree on whose reading it is, and nobody can make them disagree.

use bkss_scheme::{
    Digest, Network, codec,
    seal::{Body, KeyId, OpeningKey, OpeningSession, Session},
};
use rand_core::Rng;

use super::{
    Attack, Effort, Feature, Side, Story, Tried,
    printed::encryption::{KeyPair, encrypt},
};
use crate::{
    Broken,
    scene::{Scene, at, link_index, reading},
};

pub(super) const STORIES: [Story; 3] = [relayed, transcripts, copied_key];

/// T6.1. A sealed reading is passed on as another meter's, slot's, key's or network's.
fn relayed(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("En(m) names neither meter nor slot: it decrypts wherever it is put");
    let owner = KeyPair::new(1);
    let passed_on = encrypt(&owner.public(), 2, b"42 kWh");
    let read = owner.decrypt(&passed_on);
    printed.attempt_if(read.as_deref() == Some(&b"42 kWh"[..]), "not readable");

    let mut ours = Tried::new("meter, slot, key number and network are part of key and tag");
    let (mut scene, mut homes) = Scene::with_meters(61, 8)?;
    let signed = homes[0].meter.sign(at(3, 0), &reading(42), &mut scene.rng)?;
    let body: Body<'_> = codec::decode("body", signed.message().body)?;
    let enc = body.encapsulated.ok_or(Broken::DoesNotHold("session key"))?;
    let (network, key) = (scene.network(), scene.opening_keys[0].clone());
    let mut open = |network: Network, key: &OpeningKey, mr: &Digest, index: u32| {
        let session = OpeningSession::start(network, key, &enc)?;
        let index = link_index(index)?;
        ours.attempt(session.slot_key(index).open(mr, index, body.ciphertext).map(drop));
        Ok::<_, Broken>(())
    };
    let (mr, index) = (homes[0].id(), 3);
    for other in &homes[1..] {
        open(network, &key, &other.id(), index)?;
    }
    for other in (1..20).filter(|other| *other != index) {
        open(network, &key, &mr, other)?;
    }
    for number in [0, 2, 3, u16::MAX] {
        let renumbered = OpeningKey::from_bytes(KeyId(number), *key.secret());
        open(network, &renumbered, &mr, index)?;
    }
    for byte in 0..16 {
        let mut other = network;
        other.0[byte] ^= 1;
        open(other, &key, &mr, index)?;
    }
    for other in &scene.opening_keys[1..] {
        open(network, other, &mr, index)?;
    }
    Ok(attack("T6.1", "pass a sealed reading on as another's", "A14", printed.into(), ours))
}

/// T6.2. Random pairs of transcripts `mr | i | kid | enc` that differ somewhere.
fn transcripts(effort: &Effort) -> Result<Attack, Broken> {
    let mut ours = Tried::new("what one seals in a transcript opens in no other");
    let (mut scene, homes) = Scene::with_meters(62, 4)?;
    let network = scene.network();
    for _ in 0..effort.subsets {
        let [sealed, tried] = [0; 2].map(|_| {
            let draw = scene.rng.next_u32();
            (draw as usize & 3, (draw >> 2 & 7) + 1, draw as usize >> 5 & 3)
        });
        if sealed == tried {
            continue;
        }
        let (home, index, owner) = sealed;
        let key = scene.opening_keys[owner].public();
        let session = Session::start(network, &key, &mut scene.rng)?;
        let plain = reading(42).to_bytes().ok_or(Broken::DoesNotHold("a reading"))?;
        let body = session.seal(&homes[home].id(), link_index(index)?, &plain, true)?;
        let body: Body<'_> = codec::decode("body", &body)?;
        let enc = body.encapsulated.ok_or(Broken::DoesNotHold("session key"))?;
        let (home, index, owner) = tried;
        let opening = OpeningSession::start(network, &scene.opening_keys[owner], &enc)?;
        let slot_key = opening.slot_key(link_index(index)?);
        ours.attempt(
            slot_key.open(&homes[home].id(), link_index(index)?, body.ciphertext).map(drop),
        );
    }
    let printed = Side::NotRun("there is no transcript in the printed scheme to disagree on");
    Ok(attack("T6.2", "find two transcripts with one key", "", printed, ours))
}

/// T6.3. A provider registers another's public sealing key as its own.
fn copied_key(_: &Effort) -> Result<Attack, Broken> {
    let mut ours = Tried::new("who shows a key it does not have receives readings it cannot open");
    let (mut scene, homes) = Scene::with_meters(63, 4)?;
    let network = scene.network();
    // Provider 3 shows provider 0's key; its own meter seals to that.
    let copied = scene.opening_keys[0].public();
    let session = Session::start(network, &copied, &mut scene.rng)?;
    let plain = reading(42).to_bytes().ok_or(Broken::DoesNotHold("a reading"))?;
    for index in 1..9 {
        let index = link_index(index)?;
        let body = session.seal(&homes[3].id(), index, &plain, true)?;
        let body: Body<'_> = codec::decode("body", &body)?;
        let enc = body.encapsulated.ok_or(Broken::DoesNotHold("session key"))?;
        let opening = OpeningSession::start(network, &scene.opening_keys[3], &enc)?;
        ours.attempt(
            opening.slot_key(index).open(&homes[3].id(), index, body.ciphertext).map(drop),
        );
        // And provider 0, whose key it is, cannot be made to take it for its own meter's.
        let opening = OpeningSession::start(network, &scene.opening_keys[0], &enc)?;
        ours.attempt(
            opening.slot_key(index).open(&homes[0].id(), index, body.ciphertext).map(drop),
        );
    }
    let printed = Side::NotRun("the printed scheme has one key per provider and no claim on it");
    Ok(attack("T6.3", "show another provider's key as one's own", "", printed, ours))
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Side,
    ours: Tried,
) -> Attack {
    Attack { test, feature: Feature::F6, what, flaw, printed, ours: ours.into() }
}

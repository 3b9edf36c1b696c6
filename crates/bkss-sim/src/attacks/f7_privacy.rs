//! F7: nobody but the owner learns a reading.

use bkss_scheme::{
    Digest, codec, hash, request,
    seal::{Body, OpeningSession},
};

use super::{
    Attack, Effort, Feature, Side, Story, Tried,
    printed::{
        encryption::{KeyPair, encrypt},
        scheme,
    },
};
use crate::{
    Broken,
    scene::{Scene, WINDOW_S, at, link_index, reading},
};

pub(super) const STORIES: [Story; 3] = [dictionary, pooled_keys, swapped];

/// T7.1. A reading has about 20 bits: all are tried against everything that is published.
fn dictionary(effort: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("q and v_i are public, and p = h(m): the reading is found by trying");
    let chain = scheme::Chain::new(b"alice", 16);
    for (slot, secret) in [(2, 123_u32), (3, 1_234), (4, 1_999)] {
        let (link, value) = (chain.link(slot), u32::to_be_bytes(secret));
        let public = scheme::request_value(&value, &link);
        let guessed = (0..effort.guesses)
            .find(|guess| scheme::request_value(&guess.to_be_bytes(), &link) == public);
        printed.attempt_if(guessed == Some(secret), "not among the guesses");
    }

    let mut ours = Tried::new("every published value of the slot, against every guess");
    let (mut scene, mut homes) = Scene::with_meters(71, 1)?;
    let signed = scene.reading(&mut homes[0], 2, 1_234)?;
    // What the ledger shows of the slot: body, v_i, q.
    let (value, body) = (signed.message().value, signed.message().body);
    let decoded: Body<'_> = codec::decode("body", body)?;
    let published = Published { value, body_hash: hash::plain(body), link: homes[0].link(2) };
    for guess in 0..effort.guesses {
        let value = i32::try_from(guess).unwrap_or(i32::MAX);
        let plain = reading(value).to_bytes().ok_or(Broken::DoesNotHold("a reading"))?;
        let hit = published.confirms(&homes[0].id(), &plain)? || decoded.ciphertext == &plain[..];
        ours.attempt_if(hit, "no published value confirms the guess");
    }
    Ok(attack(
        "T7.1",
        "guess a reading and check it against the ledger",
        "A5",
        printed.into(),
        ours,
    ))
}

struct Published {
    value: Digest,
    body_hash: Digest,
    link: bkss_scheme::Link,
}

impl Published {
    /// Whether a guess can be recognised: plain, padded, as `p`, as `q`.
    fn confirms(&self, mr: &Digest, guess: &[u8]) -> Result<bool, Broken> {
        let mut padded = guess.to_vec();
        padded.resize(guess.len().next_multiple_of(32), 0);
        for plain in [guess, &padded] {
            let digest = hash::plain(plain);
            let commitment = request::commitment(mr, link_index(2)?, &digest);
            let value = request::request_value(&commitment, &self.link);
            let bare = request::request_value(&digest, &self.link);
            if digest == self.body_hash || value == self.value || bare == self.value {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// T7.2. All providers but the owner put their keys together.
fn pooled_keys(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("whoever leads decrypts: every leader reads every customer");
    for leader in 1..4 {
        // The meter encrypts to PK of whoever leads now (step 2).
        let key = KeyPair::new(leader);
        let sent = encrypt(&key.public(), 9, b"42 kWh");
        printed.attempt_if(key.decrypt(&sent).as_deref() == Some(&b"42 kWh"[..]), "not readable");
    }

    let mut ours = Tried::new("every session key, every slot key of everybody but the owner");
    let (mut scene, mut homes) = Scene::with_meters(72, 4)?;
    for home in &mut homes {
        let signed = home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
        let body: Body<'_> = codec::decode("body", signed.message().body)?;
        let enc = body.encapsulated.ok_or(Broken::DoesNotHold("session key"))?;
        let owner = usize::from(home.registration.message.owner.0);
        for (number, key) in scene.opening_keys.iter().enumerate() {
            if number == owner {
                continue;
            }
            let session = OpeningSession::start(scene.network(), key, &enc)?;
            for index in 1..9 {
                let index = link_index(index)?;
                let read = session.slot_key(index).open(&home.id(), index, body.ciphertext);
                ours.attempt(read.map(drop));
            }
        }
    }
    Ok(attack("T7.2", "pool the keys of all providers but the owner", "A14", printed.into(), ours))
}

/// T7.3. Two homes swap what they used; can the ledger's bytes tell?
fn swapped(_: &Effort) -> Result<Attack, Broken> {
    let mut ours =
        Tried::new("lengths, order and time of all messages and blocks, both ways round");
    for (low, high) in [(0, 1), (7, 4_200), (-9, 9), (1, 100_000), (0, i32::MAX >> 3)] {
        let (one, other) = (trace(low, high)?, trace(high, low)?);
        ours.attempt_if(one != other, "the traces look the same");
    }
    let printed = Side::NotRun("the printed scheme does not say how long En(m) is");
    Ok(attack("T7.3", "tell two swapped readings apart by the ledger", "A28", printed, ours))
}

/// What an observer sees that is not ciphertext, hash or signature: lengths, order, times.
fn trace(first: i32, second: i32) -> Result<Vec<(u64, usize)>, Broken> {
    let (mut scene, mut homes) = Scene::with_meters(73, 2)?;
    let mut seen = Vec::new();
    let mut signed = Vec::new();
    for (home, value) in homes.iter_mut().zip([first, second]) {
        let one = home.meter.sign(at(2, 0), &reading(value), &mut scene.rng)?;
        seen.push((2, one.message().body.len()));
        signed.push(one);
    }
    let values = (0..).zip(signed.iter().map(|signed| signed.message().value));
    let request = scene.requests(0, 2, values);
    scene.block(at(2, 1), &[request])?;
    scene.block(at(2, WINDOW_S.into()), &[])?;
    for (home, signed) in homes.iter_mut().zip(&signed) {
        scene.open(home, 2, signed)?;
    }
    let blocks = scene.blocks.iter();
    seen.extend(blocks.map(|b| (b.header().time.0, b.verified().block().encoded_length())));
    seen.extend(scene.receipts.iter().map(|issued| (0, issued.receipt.len())));
    Ok(seen)
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Side,
    ours: Tried,
) -> Attack {
    Attack { test, feature: Feature::F7, what, flaw, printed, ours: ours.into() }
}

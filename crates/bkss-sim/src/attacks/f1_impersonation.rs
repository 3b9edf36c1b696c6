//! F1: nobody signs in another meter's name.

use bkss_ledger::{Transaction, membership::RegistrationRefusal};
use bkss_scheme::{
    Link, MeterId, RootMessage, hash,
    hash_chain::{self, Blocks},
    request,
    root_message::{Registration, SaltNonce},
    timestamp::RegistrationProof,
};
use rand_core::Rng;

use super::{
    Attack, Effort, Feature, Side, Story, Tried, opened,
    printed::{
        encryption, scheme,
        validation::{Invalid, validate},
    },
    requested,
};
use crate::{
    Broken,
    scene::{Home, SLOTS, Scene, WINDOW_S, at, link_index, reading},
};

pub(super) const STORIES: [Story; 7] =
    [own_chain, late_request, sibling, unused_slot, random_reveals, second_chain, split_parameters];

/// `ID_SDI` of the printed network.
const SDI: u16 = 1;
/// `t_0` of the printed meters, in slots.
const T0: u64 = 100;

fn printed_meter(seed: &[u8]) -> scheme::Meter {
    scheme::Meter { id: 7, chain: scheme::Chain::new(seed, 16), t0: T0, sdi: SDI }
}

/// Runs steps 1 to 3 at a clock and returns what goes to the followers.
fn printed_reading(meter: &scheme::Meter, clock: u64, message: &[u8]) -> scheme::Transaction {
    let stamp = scheme::stamp(&meter.request(clock, message), clock);
    let key = encryption::KeyPair::new(1).public();
    meter.release(clock, stamp, encryption::encrypt(&key, 2, message))
}

/// T1.1. Mallory makes a chain of her own and puts Alice's number on it.
fn own_chain(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("a chain made by anybody signs for any meter: all four checks hold");
    // Her root message says nothing of whose chain it is, and nothing on the ledger does.
    let mallory = printed_meter(b"mallory");
    for clock in T0 + 1..T0 + 9 {
        printed.attempt(validate(&printed_reading(&mallory, clock, b"0 kWh"), SDI).map_err(name));
    }

    let mut ours = Tried::new("the ledger knows whose chain is whose");
    let (mut scene, homes) = Scene::with_meters(11, 1)?;
    let last = Link::from_bytes([66; 32]);
    // She registers it as Alice's: without the keys of SDI and owner, and after Alice.
    let nonce = SaltNonce([66; 16]);
    let message = RootMessage { nonce, ..homes[0].registration.message.clone() };
    let salt = message.salt();
    let own = scene.keys[3].clone();
    let forged = Registration::sign(message, scene.network(), &own, &own);
    ours.attempt(registered(&scene, forged));
    // She signs with it all the same, through a gateway of her own.
    for index in 1..9 {
        let sealed = sealed_by(&mut scene, &homes[0], index)?;
        let link = hash_chain::walk(salt, SLOTS, index, &last);
        let value = value_of(&homes[0], index, &sealed, &link)?;
        let requests = scene.requests(3, index, [(0, value)]);
        scene.block(at(index, 1), &[requests])?;
        let opening = scene.openings(3, index, &[(0, link, sealed)])?;
        ours.attempt(opened(scene.offered(at(index, WINDOW_S.into()), &[opening])));
    }
    Ok(attack("T1.1", "sign for the victim with a chain of one's own", "A1", printed, ours))
}

/// T1.2. The leader waits until the meter has shown its link, then stamps its own reading with it.
fn late_request(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("the link is shown inside its own slot, and the slot is still open");
    let alice = printed_meter(b"alice");
    let honest = printed_reading(&alice, T0 + 3, b"42 kWh");
    // The slot lasts 10 to 50 minutes more: the leader has all it needs.
    let key = encryption::KeyPair::new(1).public();
    let mut forged = honest.clone();
    let request = scheme::Request {
        value: scheme::request_value(b"0 kWh", &honest.signature.link),
        v0: honest.root_message.v0,
        meter: honest.signature.meter,
    };
    forged.signature.timestamp = scheme::stamp(&request, T0 + 3);
    forged.encrypted = encryption::encrypt(&key, 3, b"0 kWh");
    printed.attempt(validate(&forged, SDI).map_err(name));

    let mut ours = Tried::new("a link leaves only when no request can enter its window any more");
    let (mut scene, mut homes) = Scene::with_meters(12, 1)?;
    let signed = homes[0].meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
    let request = scene.requests(0, 2, [(0, signed.message().value)]);
    scene.block(at(2, 1), &[request])?;
    scene.block(at(2, WINDOW_S.into()), &[])?;
    scene.bring_time(&mut homes[0].meter)?;
    let released = homes[0].meter.release().ok_or(Broken::DoesNotHold("release"))?;
    // Mallory, gateway and leader, has the link before anybody else and tries every later block.
    let body = sealed_by(&mut scene, &homes[0], 2)?;
    let value = value_of(&homes[0], 2, &body, &released.link)?;
    for second in (u64::from(WINDOW_S) + 1..1200).step_by(13) {
        let request = scene.requests(3, 2, [(0, value)]);
        ours.attempt(requested(scene.offered(at(2, second), &[request])));
        let opening = scene.openings(3, 2, &[(0, released.link.clone(), body.clone())])?;
        ours.attempt(opened(scene.offered(at(2, second), &[opening])));
    }
    Ok(attack("T1.2", "stamp another reading with a link just shown", "A6", printed, ours))
}

/// T1.3. The path of an odd link has the next link for its first sibling.
fn sibling(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("C_3 begins with v_4: whoever reads slot 3 signs slot 4");
    let alice = printed_meter(b"alice");
    for index in [3, 5, 7] {
        let public = printed_reading(&alice, T0 + index - 1, b"42 kWh").signature;
        // From here on the adversary has public values only.
        let next = public.path[0];
        let leads = scheme::h(&[&next]) == public.link;
        printed.attempt_if(leads, "the sibling is not the next link");
    }

    let mut ours =
        Tried::new("every 32 bytes of every path and every link, tried as the next link");
    let (_, homes) = Scene::with_meters(13, 1)?;
    let home = &homes[0];
    let leaves = (1..=SLOTS).map(|index| leaf(home, index)).collect::<Vec<_>>();
    let mut public = Vec::new();
    for index in 1..SLOTS {
        let path = bkss_scheme::merkle::path(&leaves, index as usize - 1);
        let path = path.ok_or(Broken::DoesNotHold("C_i"))?;
        public.extend(path.siblings().iter().map(|sibling| sibling.0));
        public.push(*home.link(index).as_bytes());
        let (salt, newest) = (home.registration.message.salt(), home.link(index));
        for string in &public {
            let leads = hash_chain::step(salt, index + 1, &Link::from_bytes(*string)) == newest;
            ours.attempt_if(leads, "does not lead to the newest link");
        }
    }
    Ok(attack("T1.3", "find the next link in public paths", "A9", printed, ours))
}

/// T1.4. Alice was off in a slot; her later links give away the link of that slot.
fn unused_slot(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("a leader stamps any past slot it likes");
    let alice = printed_meter(b"alice");
    let (early, late) =
        (printed_reading(&alice, T0 + 1, b"41 kWh"), printed_reading(&alice, T0 + 9, b"42 kWh"));
    // v_10 gives away all links before it; half of the tree's top is in every path of the left half.
    let mut links = vec![late.signature.link];
    for _ in 1..late.signature.index {
        links.extend(links.last().map(|link| scheme::h(&[link])));
    }
    links.reverse();
    for unused in [3, 4, 5, 6] {
        let mut forged = early.clone();
        forged.signature.index = unused;
        forged.signature.link = links[unused - 1];
        forged.signature.path = left_path(&links[..8], unused, &early.signature.path);
        forged.signature.timestamp = scheme::Timestamp(T0 + unused as u64 - 1);
        forged.encrypted = encryption::encrypt(&encryption::KeyPair::new(1).public(), 3, b"0 kWh");
        printed.attempt(validate(&forged, SDI).map_err(name));
    }

    let mut ours = Tried::new("requests for another slot than the block's do not exist");
    let (mut scene, mut homes) = Scene::with_meters(14, 1)?;
    scene.reading(&mut homes[0], 1, 42)?;
    scene.reading(&mut homes[0], 6, 43)?;
    for unused in 2..6 {
        let body = sealed_by(&mut scene, &homes[0], unused)?;
        let link =
            hash_chain::walk(homes[0].registration.message.salt(), 6, unused, &homes[0].link(6));
        let value = value_of(&homes[0], unused, &body, &link)?;
        for time in [at(6, 400), at(7, 1), at(7, 400), at(8, 1)] {
            let request = scene.requests(3, unused, [(0, value)]);
            ours.attempt(requested(scene.offered(time, &[request])));
            let opening = scene.openings(3, unused, &[(0, link.clone(), body.clone())])?;
            ours.attempt(opened(scene.offered(time, &[opening])));
        }
    }
    Ok(attack("T1.4", "sign for a slot the meter missed", "A18", printed, ours))
}

/// The path of a link of the left half: its own levels from the links, the top one from any path.
fn left_path(left: &[scheme::Hash], index: usize, known: &[scheme::Hash]) -> Vec<scheme::Hash> {
    let (mut level, mut position) = (left.to_vec(), index - 1);
    let mut path = Vec::new();
    while level.len() > 1 {
        path.push(level[position ^ 1]);
        level = level.chunks(2).map(|pair| scheme::h(&[&pair[0], &pair[1]])).collect();
        position /= 2;
    }
    path.extend(known.last());
    path
}

/// T1.5. Somebody tries at random, and bit by bit.
fn random_reveals(effort: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("every flipped bit of En(m) is accepted: nothing looks at it");
    let honest = printed_reading(&printed_meter(b"alice"), T0 + 3, b"42 kWh");
    for bit in 0..8 * honest.encrypted.len() {
        let mut flipped = honest.clone();
        flipped.encrypted[bit / 8] ^= 1 << (bit % 8);
        printed.attempt(validate(&flipped, SDI).map_err(name));
    }

    let mut ours = Tried::new("random links, and links and bodies with one bit flipped");
    let meters = (effort.reveals / 16).clamp(16, 1024);
    let (mut scene, mut homes) = Scene::with_meters(15, meters)?;
    let mut signed = Vec::new();
    for home in &mut homes {
        signed.push(home.meter.sign(at(1, 0), &reading(42), &mut scene.rng)?);
    }
    let values = (0..).zip(signed.iter().map(|signed| signed.message().value));
    let request = scene.requests(0, 1, values);
    scene.block(at(1, 1), &[request])?;
    let mut left = effort.reveals;
    while left > 0 {
        let count = left.min(meters) as usize;
        let mut items = Vec::new();
        for (home, signed) in homes.iter().zip(&signed).take(count) {
            items.push(spoiled(&mut scene, home, signed.message().body));
        }
        let opening = scene.openings(3, 1, &items)?;
        let verified = scene.offered(at(1, WINDOW_S.into()), &[opening])?;
        for _ in verified.openings() {
            ours.attempt(Ok::<_, &str>(()));
        }
        for skipped in verified.skipped() {
            ours.attempt(Err(skipped.reason));
        }
        left -= u32::try_from(count).unwrap_or(left);
    }
    Ok(attack("T1.5", "random and bit-flipped reveals", "A4", printed, ours))
}

/// A random link, or the right one with a bit flipped in it or in the body.
fn spoiled(scene: &mut Scene, home: &Home, body: &[u8]) -> (u32, Link, Vec<u8>) {
    let mut link = *home.link(1).as_bytes();
    let mut body = body.to_vec();
    let draw = scene.rng.next_u32();
    match draw % 3 {
        0 => scene.rng.fill_bytes(&mut link),
        1 => link[draw as usize / 3 % 32] ^= 1 << (draw >> 24 & 7),
        // The last bytes are the ciphertext's, so that the body stays well formed.
        _ => {
            let place = body.len() - 1 - draw as usize / 3 % 48;
            body[place] ^= 1 << (draw >> 24 & 7);
        }
    }
    (home.row, Link::from_bytes(link), body)
}

/// T1.6. An SDI alone, then a provider alone, registers a second chain for Alice's meter.
fn second_chain(_: &Effort) -> Result<Attack, Broken> {
    let mut printed =
        Tried::new("registering takes no signature: a second root message is as good");
    let mallory = printed_meter(b"the SDI's copy");
    printed.attempt(validate(&printed_reading(&mallory, T0 + 1, b"0 kWh"), SDI).map_err(name));

    let mut ours = Tried::new("it takes SDI and owner, and a meter is registered once");
    let (scene, homes) = Scene::with_meters(16, 2)?;
    let (network, mallory) = (scene.network(), scene.keys[3].clone());
    let mut second = homes[0].registration.message.clone();
    second.nonce = SaltNonce([66; 16]);
    let blocks = Blocks::usual(SLOTS).ok_or(Broken::DoesNotHold("chain"))?;
    let ends = hash_chain::build(second.salt(), blocks, &Link::from_bytes([66; 32]), |_| ());
    (second.anchor, second.root) = (ends.anchor, ends.root);
    let mut new_number = second.clone();
    new_number.meter = MeterId(99);
    for message in [second.clone(), new_number] {
        // The SDI's key is out: it signs for itself, and what it likes in the owner's place.
        let by_sdi = Registration::sign(message.clone(), network, &scene.sdi_key, &scene.sdi_key);
        ours.attempt(registered(&scene, by_sdi));
        // The owner's key is out.
        let by_owner = Registration::sign(message.clone(), network, &scene.keys[0], &scene.keys[0]);
        ours.attempt(registered(&scene, by_owner));
        // Another provider with the SDI's help: not its meter.
        let by_other = Registration::sign(message, network, &scene.sdi_key, &mallory);
        ours.attempt(registered(&scene, by_other));
    }
    // Both together may give a meter a new chain, but not its number to another device.
    second.device = bkss_scheme::Digest([66; 32]);
    let by_both = Registration::sign(second, network, &scene.sdi_key, &scene.keys[0]);
    ours.attempt(registered(&scene, by_both));
    Ok(attack("T1.6", "register a second chain alone", "A26", printed, ours))
}

/// T1.7. The SDI writes other times into the meter than it registers.
fn split_parameters(_: &Effort) -> Result<Attack, Broken> {
    let printed = Side::NotRun("in the paper the meter itself determines t_0 and makes M_r");
    let mut ours = Tried::new("a meter compares every field with what is on the ledger first");
    type Change = fn(&mut RootMessage);
    let changes: [Change; 4] = [
        |message| message.schedule.slot_s += 1,
        |message| message.schedule.first.0 += 1,
        |message| message.schedule.window_s = 30,
        |message| message.anchor = Link::from_bytes([1; 32]),
    ];
    for change in changes {
        let mut scene = Scene::new(17, 4)?;
        let mut home = scene.provision(0)?;
        // What the SDI registers with the owner, who knows no better.
        let mut message = home.registration.message.clone();
        change(&mut message);
        let network = scene.network();
        home.registration = Registration::sign(message, network, &scene.sdi_key, &scene.keys[0]);
        scene.register(std::slice::from_ref(&home))?;
        home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
        scene.block(at(3, 0), &[])?;
        scene.bring_time(&mut home.meter)?;
        let proof = scene.registration_proof(&home)?;
        let proof: RegistrationProof<'_> = bkss_scheme::codec::decode("proof", &proof)?;
        let refused = home.meter.confirm_registration(&proof).err();
        ours.attempt(match home.meter.release() {
            Some(_) => Ok(()),
            None => Err(refused.map_or_else(String::new, |refused| refused.to_string())),
        });
    }
    let what = "register other times than the meter was given";
    let ours = ours.into();
    Ok(Attack { test: "T1.7", feature: Feature::F1, what, flaw: "A29", printed, ours })
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Tried,
    ours: Tried,
) -> Attack {
    let feature = Feature::F1;
    Attack { test, feature, what, flaw, printed: printed.into(), ours: ours.into() }
}

fn name(invalid: Invalid) -> String {
    format!("{invalid:?}")
}

/// `Ok` if the ledger would take a registration.
fn registered(scene: &Scene, registration: Registration) -> Result<(), String> {
    let view = scene.state.view();
    let time = bkss_scheme::LedgerTime(view.head().time.0 + 1);
    let checked: Result<_, RegistrationRefusal> =
        bkss_ledger::membership::check_registration(&view, view.members(), time, &registration);
    let offered = scene.offered(time, &[Transaction::Registration(registration)]);
    match (checked, offered) {
        (Err(refusal), Err(_)) => Err(refusal.to_string()),
        _ => Ok(()),
    }
}

fn leaf(home: &Home, index: u32) -> bkss_scheme::Digest {
    hash_chain::leaf(home.registration.message.salt(), index, &home.link(index))
}

/// `q` of a body and a link, for a meter.
pub(super) fn value_of(
    home: &Home,
    index: u32,
    body: &[u8],
    link: &Link,
) -> Result<bkss_scheme::Digest, Broken> {
    let commitment = request::commitment(&home.id(), link_index(index)?, &hash::plain(body));
    Ok(request::request_value(&commitment, link))
}

/// A body that anybody can make: sealed to the owner's public key, of a reading of nothing.
pub(super) fn sealed_by(scene: &mut Scene, home: &Home, index: u32) -> Result<Vec<u8>, Broken> {
    let owner = home.parameters.owner;
    let session = bkss_scheme::seal::Session::start(scene.network(), &owner, &mut scene.rng)?;
    let plaintext = reading(0).to_bytes().ok_or(Broken::DoesNotHold("a reading"))?;
    Ok(session.seal(&home.id(), link_index(index)?, &plaintext, true)?.to_vec())
}

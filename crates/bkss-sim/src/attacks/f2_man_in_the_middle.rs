//! F2: whoever sits on every line reads nothing and changes nothing.

use bkss_meter::signer::Signed;
use bkss_scheme::{
    LedgerTime, codec,
    seal::{Body, OpeningSession},
    timestamp::TimeProof,
    transaction::{Release, Submit},
};

use super::{
    Attack, Effort, Feature, Story, Tried,
    printed::{
        encryption::{KeyPair, encrypt},
        scheme,
        validation::validate,
    },
};
use crate::{
    Broken,
    scene::{Home, Scene, WINDOW_S, at, encoded, link_index, reading},
};

pub(super) const STORIES: [Story; 4] = [other_key, every_message, fake_time, clock_forward];

const SDI: u16 = 1;
const T0: u64 = 100;

fn printed_meter() -> scheme::Meter {
    scheme::Meter { id: 7, chain: scheme::Chain::new(b"alice", 16), t0: T0, sdi: SDI }
}

/// T2.1. Mallory answers a request with her own key in place of the provider's.
fn other_key(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("the key comes with T_s, vouched for by nobody");
    let (meter, mallory) = (printed_meter(), KeyPair::new(66));
    // {T_s, PK_SP} on its way to the meter becomes {T_s, PK_Mallory}.
    let stamp = scheme::stamp(&meter.request(T0 + 2, b"42 kWh"), T0 + 2);
    let sent = meter.release(T0 + 2, stamp, encrypt(&mallory.public(), 2, b"42 kWh"));
    let read = mallory.decrypt(&sent.encrypted);
    printed.attempt_if(read.as_deref() == Some(&b"42 kWh"[..]), "not readable");

    let mut ours = Tried::new("the key is provisioned; no message of the network carries one");
    let (mut scene, mut homes) = Scene::with_meters(21, 1)?;
    let network = scene.network();
    for index in 1..9 {
        let signed = homes[0].meter.sign(at(index, 0), &reading(42), &mut scene.rng)?;
        let body: Body<'_> = codec::decode("body", signed.message().body)?;
        let enc = body.encapsulated.ok_or(Broken::DoesNotHold("session key"))?;
        // Mallory owns every key but the owner's.
        for key in &scene.opening_keys[1..] {
            let session = OpeningSession::start(network, key, &enc)?;
            let slot_key = session.slot_key(link_index(index)?);
            ours.attempt(
                slot_key.open(&homes[0].id(), link_index(index)?, body.ciphertext).map(drop),
            );
        }
    }
    Ok(attack(
        "T2.1",
        "put another encryption key in place of the provider's",
        "A13",
        printed,
        ours,
    ))
}

/// What the man in the middle does to a message.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Flip(usize),
    Cut(usize),
    Drop,
    Repeat,
    Delay,
}

/// T2.2. Every step of a reading, every kind of change: the outcome is the reading or none.
fn every_message(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("En(m) can be exchanged on its way: another reading is accepted");
    let meter = printed_meter();
    let owner = KeyPair::new(1);
    let stamp = scheme::stamp(&meter.request(T0 + 2, b"42 kWh"), T0 + 2);
    let mut sent = meter.release(T0 + 2, stamp, encrypt(&owner.public(), 2, b"42 kWh"));
    sent.encrypted = encrypt(&owner.public(), 3, b"00 kWh");
    let accepted = validate(&sent, SDI).is_ok() && owner.decrypt(&sent.encrypted).is_some();
    printed.attempt_if(accepted, "not accepted");

    let mut ours =
        Tried::new("a byte flipped at each place of both messages, cuts, drops, repeats, delays");
    let lengths = honest_lengths()?;
    for (step, length) in [(1, lengths.0), (3, lengths.1)] {
        let flips = (0..length).map(Deed::Flip);
        let cuts = (0..length).step_by(16).map(Deed::Cut);
        for deed in flips.chain(cuts).chain([Deed::Drop, Deed::Repeat, Deed::Delay]) {
            let outcome = walk(step, deed)?;
            ours.attempt(match outcome {
                Outcome::Other => Ok(()),
                Outcome::Genuine => Err("the genuine reading"),
                Outcome::None => Err("no reading"),
            });
        }
    }
    Ok(attack(
        "T2.2",
        "change, reorder, delay or drop any message at any step",
        "A4",
        printed,
        ours,
    ))
}

/// What ended up on the ledger.
enum Outcome {
    Genuine,
    None,
    Other,
}

fn honest_lengths() -> Result<(usize, usize), Broken> {
    let (mut scene, mut homes) = Scene::with_meters(22, 1)?;
    let signed = homes[0].meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
    let release =
        Release { meter: signed.message().meter, index: signed.index(), link: homes[0].link(2) };
    Ok((encoded(&signed.message()).len(), encoded(&release).len()))
}

/// One reading with the man in the middle at one step.
fn walk(step: u8, deed: Deed) -> Result<Outcome, Broken> {
    let (mut scene, mut homes) = Scene::with_meters(22, 1)?;
    let home = &mut homes[0];
    let signed = home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
    let submit = mangled(step == 1, deed, encoded(&signed.message()));
    // The gateway parses what arrives, late or twice, and puts it into a block.
    let late = matches!(deed, Deed::Delay);
    for bytes in &submit {
        let Ok(submit) = codec::decode::<Submit<'_>>("submit", bytes) else { continue };
        let (row, index) = (submit.meter.0, submit.index.get());
        if index > 13 {
            continue;
        }
        let request = scene.requests(0, index, [(row, submit.value)]);
        let time = if late && step == 1 { at(2, 299) } else { later(&scene, at(2, 1)) };
        scene.block(time, &[request])?;
    }
    let time = later(&scene, at(2, WINDOW_S.into()));
    scene.block(time, &[])?;
    scene.bring_time(&mut home.meter)?;
    let released = home.meter.release().ok_or(Broken::DoesNotHold("release"))?;
    for bytes in mangled(step == 3, deed, encoded(&released)) {
        let Ok(release) = codec::decode::<Release>("release", &bytes) else { continue };
        open(&mut scene, &release, &submit, late)?;
    }
    Ok(outcome(&scene, home, &signed))
}

fn mangled(here: bool, deed: Deed, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    match deed {
        _ if !here => vec![bytes],
        Deed::Flip(at) => {
            bytes[at] ^= 1 << (at % 8);
            vec![bytes]
        }
        Deed::Cut(at) => {
            bytes.truncate(at);
            vec![bytes]
        }
        Deed::Drop => vec![],
        Deed::Repeat => vec![bytes.clone(), bytes],
        Deed::Delay => vec![bytes],
    }
}

/// The gateway joins a release with the body it was sent and offers both to the ledger.
fn open(
    scene: &mut Scene,
    release: &Release,
    submitted: &[Vec<u8>],
    late: bool,
) -> Result<(), Broken> {
    for bytes in submitted {
        let Ok(submit) = codec::decode::<Submit<'_>>("submit", bytes) else { continue };
        if codec::decode::<Body<'_>>("body", submit.body).is_err() || release.index.get() > 13 {
            continue;
        }
        let items = [(release.meter.0, release.link.clone(), submit.body.to_vec())];
        let opening = scene.openings(0, release.index.get(), &items)?;
        let time = if late { at(13, 0) } else { at(2, 400) };
        let time = later(scene, time);
        scene.block(time, &[opening])?;
    }
    Ok(())
}

fn later(scene: &Scene, time: LedgerTime) -> LedgerTime {
    time.max(LedgerTime(scene.state.head().time.0 + 1))
}

fn outcome(scene: &Scene, home: &Home, signed: &Signed) -> Outcome {
    let body = bkss_scheme::hash::plain(signed.message().body);
    let openings: Vec<_> =
        scene.blocks.iter().flat_map(|block| block.verified().openings()).collect();
    let genuine = |opening: &&bkss_ledger::execute::AcceptedOpening| {
        let opening = &opening.opening;
        opening.body_hash == body
            && opening.index == signed.index()
            && opening.meter == home.registration.message.meter
    };
    match openings.as_slice() {
        [] => Outcome::None,
        [one] if genuine(one) => Outcome::Genuine,
        _ => Outcome::Other,
    }
}

/// T2.3. A minority of the committee, and whoever kept old proofs, tells the meter a later time.
fn fake_time(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("any T_s makes the meter show its link");
    let meter = printed_meter();
    // No provider has seen the request; the stamp is Mallory's own word.
    let sent = meter.release(T0 + 2, scheme::Timestamp(0), vec![]);
    printed.attempt_if(sent.signature.link == meter.chain.link(3), "no link");

    let mut ours = Tried::new("f members collude; old proofs are played again");
    for providers in [4, 7, 21] {
        let mut scene = Scene::new(23, providers)?;
        let mut home = scene.provision(0)?;
        scene.register(std::slice::from_ref(&home))?;
        let proof = scene.registration_proof(&home)?;
        home.meter.confirm_registration(&codec::decode("proof", &proof)?)?;
        let old = scene.blocks[0].time_proof().ok_or(Broken::DoesNotHold("a proof of time"))?;
        home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
        let faults = usize::from((providers - 1) / 3);
        for first in 0..=usize::from(providers) - faults {
            let liars: Vec<_> = (first..first + faults).collect();
            let bytes = scene.time_proof(&liars, at(2, 3000))?;
            let proof: TimeProof<'_> = codec::decode("proof", &bytes)?;
            let refused = home.meter.on_time(at(2, 3000), &proof).map(|_| ());
            ours.attempt(released(&home, refused.err().map(|_| "fewer signatures than a quorum")));
        }
        let proof: TimeProof<'_> = codec::decode("proof", &old)?;
        home.meter.on_time(at(2, 3000), &proof)?;
        ours.attempt(released(&home, Some("an old time")));
    }
    Ok(attack("T2.3", "make the meter believe that its window has closed", "A6", printed, ours))
}

/// T2.4. Mallory runs the time server the meter listens to, and sets it a year ahead.
fn clock_forward(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("one link of the future is all links before it");
    let meter = printed_meter();
    let ahead = meter.release(T0 + 12, scheme::Timestamp(T0 + 12), vec![]).signature;
    for index in 3..12 {
        let link = (index..ahead.index).fold(ahead.link, |link, _| scheme::h(&[&link]));
        printed.attempt_if(link == meter.chain.link(index), "another link");
    }

    let mut ours = Tried::new("links follow certified ledger time, never the meter's clock");
    let (mut scene, mut homes) = Scene::with_meters(24, 1)?;
    let home = &mut homes[0];
    scene.block(at(1, 400), &[])?;
    scene.bring_time(&mut home.meter)?;
    // A year does not fit the scene's short chain; every slot that does is tried, then the year.
    for index in (2..crate::scene::SLOTS).step_by(7) {
        home.meter.sign(at(index, 0), &reading(42), &mut scene.rng)?;
        ours.attempt(released(home, Some("the ledger's time is behind its window")));
    }
    let year = LedgerTime::from_seconds(at(1, 0).seconds() + 31_536_000);
    let refused = home.meter.sign(year, &reading(42), &mut scene.rng).err();
    let reason = refused.map(|refused| refused.to_string());
    ours.attempt(released(home, reason.as_deref()));
    Ok(attack("T2.4", "set the meter's clock a year ahead", "A19", printed, ours))
}

/// `Ok` if the meter shows a link.
fn released<'a>(home: &Home, reason: Option<&'a str>) -> Result<(), &'a str> {
    match home.meter.release() {
        Some(_) => Ok(()),
        None => Err(reason.unwrap_or("no link leaves")),
    }
}

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Tried,
    ours: Tried,
) -> Attack {
    let feature = Feature::F2;
    Attack { test, feature, what, flaw, printed: printed.into(), ours: ours.into() }
}

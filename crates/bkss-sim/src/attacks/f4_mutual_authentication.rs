//! F4: meters and providers know each other, and no authority has to be there for it.

use bkss_scheme::{codec, timestamp::TimeProof};
use rand_core::Rng;

use super::{
    Attack, Effort, Feature, Side, Story, Tried,
    printed::scheme::{Chain, Meter, Timestamp},
};
use crate::{
    Broken,
    scene::{Home, LONG_ROUND, Scene, WINDOW_S, at, reading},
};

pub(super) const STORIES: [Story; 4] =
    [without_sdi, without_one_provider, random_minorities, fake_network];

/// T4.1. The SDI is gone once the meters are registered.
fn without_sdi(_: &Effort) -> Result<Attack, Broken> {
    let mut ours = Tried::new("renewal of a chain without the SDI is not built and was not tried");
    let (mut scene, mut homes) = Scene::with_meters(41, 4)?;
    scene.sdi = None;
    for index in 1..9 {
        every_home_reads(&mut scene, &mut homes, index, &mut ours)?;
    }
    Ok(attack("T4.1", "take the SDI away after registration", "", NO_PRINTED, ours))
}

/// One slot of all meters; the adversary has its way if a reading does not get through.
fn every_home_reads(
    scene: &mut Scene,
    homes: &mut [Home],
    index: u32,
    ours: &mut Tried,
) -> Result<(), Broken> {
    let mut signed = Vec::new();
    for home in &mut *homes {
        signed.push(home.meter.sign(at(index, 0), &reading(42), &mut scene.rng)?);
    }
    let values = (0..).zip(signed.iter().map(|signed| signed.message().value));
    let request = scene.requests(0, index, values);
    scene.block(at(index, 1), &[request])?;
    scene.block(at(index, WINDOW_S.into()), &[])?;
    for (home, signed) in homes.iter_mut().zip(&signed) {
        let through = scene.open(home, index, signed);
        ours.attempt_if(through.is_err(), "the reading got through");
    }
    Ok(())
}

/// T4.2. One provider after the other is gone, as gateway and as member of the committee.
fn without_one_provider(_: &Effort) -> Result<Attack, Broken> {
    let mut ours =
        Tried::new("certificates of the others; whole nodes are stopped in the node's tests");
    for gone in 0..4_usize {
        let (mut scene, mut homes) = Scene::with_meters(42, 1)?;
        let others: Vec<_> = (0..4).filter(|member| *member != gone).collect();
        let home = &mut homes[0];
        let signed = home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
        let gateway = others[0];
        let request = scene.requests(gateway, 2, [(0, signed.message().value)]);
        scene.block(at(2, 1), &[request])?;
        let bytes = scene.time_proof(&others, at(2, WINDOW_S.into()))?;
        home.meter
            .on_time(at(2, WINDOW_S.into()), &codec::decode::<TimeProof<'_>>("proof", &bytes)?)?;
        let released = home.meter.release().ok_or(Broken::DoesNotHold("release"))?;
        let body = signed.message().body.to_vec();
        let opening = scene.openings(gateway, 2, &[(0, released.link, body)])?;
        let through = scene.offered(at(2, WINDOW_S.into()), &[opening])?.openings().len() == 1;
        ours.attempt_if(!through, "the reading got through");
    }
    Ok(attack("T4.2", "take any one provider away", "", NO_PRINTED, ours))
}

/// T4.3. Random sets of members, none a quorum, some with foreign signatures added, certify a time.
fn random_minorities(effort: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("a meter takes T_s from anybody");
    let meter = Meter { id: 7, chain: Chain::new(b"alice", 16), t0: 100, sdi: 1 };
    let shown = meter.release(102, Timestamp(999), vec![]);
    printed.attempt_if(shown.signature.link == meter.chain.link(3), "no link");

    let mut ours = Tried::new("fewer than a quorum, or signatures that are not the members'");
    for providers in [4, 7, 21] {
        let mut scene = Scene::new(43, providers)?;
        let mut home = confirmed(&mut scene)?;
        let stranger = Scene::new(44, providers)?;
        home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
        let (members, quorum) = (usize::from(providers), scene.committee().quorum());
        for _ in 0..effort.subsets {
            let size = scene.rng.next_u32() as usize % quorum;
            let some = subset(&mut scene, members, size);
            let bytes = scene.time_proof(&some, at(2, 800))?;
            ours.attempt(taken(&mut home, &bytes)?);
            // A full set of signatures, made by strangers for this very network.
            let header = scene.header(at(2, 800))?;
            let all: Vec<_> = (0..quorum).collect();
            let votes = stranger.votes_of(&all, scene.network(), header.id());
            let proof = TimeProof { header, finality: votes.finality() };
            ours.attempt(taken(&mut home, &crate::scene::encoded(&proof))?);
        }
    }
    Ok(attack("T4.3", "certify a time with less than a quorum", "A7", printed.into(), ours))
}

/// T4.4. f providers simulate a whole network for the meter, with blocks of its registration.
fn fake_network(_: &Effort) -> Result<Attack, Broken> {
    let mut printed = Tried::new("one node that answers is a network");
    let meter = Meter { id: 7, chain: Chain::new(b"alice", 16), t0: 100, sdi: 1 };
    let shown = meter.release(102, Timestamp(0), vec![]);
    printed.attempt_if(shown.signature.link == meter.chain.link(3), "no link");

    let mut ours = Tried::new("committee and network are in the firmware");
    for providers in [4, 7, 21] {
        let mut scene = Scene::new(45, providers)?;
        let mut home = confirmed(&mut scene)?;
        home.meter.sign(at(2, 0), &reading(42), &mut scene.rng)?;
        // The liars found a network of their own with the meter's registration in it.
        let mut fake = Scene::founded(46, providers, "fake", LONG_ROUND)?;
        fake.block(at(0, 1), &[])?;
        fake.block(at(2, 800), &[])?;
        for block in &fake.blocks {
            let proof = block.time_proof().ok_or(Broken::DoesNotHold("a proof of time"))?;
            ours.attempt(taken(&mut home, &proof)?);
        }
        let faults: Vec<_> = (0..usize::from((providers - 1) / 3)).collect();
        let bytes = scene.time_proof(&faults, at(2, 800))?;
        ours.attempt(taken(&mut home, &bytes)?);
    }
    Ok(attack("T4.4", "simulate a network of f providers for a meter", "A29", printed.into(), ours))
}

fn confirmed(scene: &mut Scene) -> Result<Home, Broken> {
    let mut home = scene.provision(0)?;
    scene.register(std::slice::from_ref(&home))?;
    let proof = scene.registration_proof(&home)?;
    home.meter.confirm_registration(&codec::decode("proof", &proof)?)?;
    Ok(home)
}

/// `Ok` if a proof makes the meter show a link; the kind of refusal otherwise.
fn taken(home: &mut Home, proof: &[u8]) -> Result<Result<(), &'static str>, Broken> {
    use bkss_meter::ledger_time::TimeRefusal;
    use bkss_scheme::certificate::NotFinal;

    let refused = home.meter.on_time(at(2, 800), &codec::decode("proof", proof)?).err();
    if home.meter.release().is_some() {
        return Ok(Ok(()));
    }
    Ok(Err(match refused {
        Some(TimeRefusal::NotFinal(NotFinal::Quorum { .. })) => "fewer signatures than a quorum",
        Some(TimeRefusal::NotFinal(NotFinal::Signature { .. })) => {
            "a signature is not its member's"
        }
        Some(TimeRefusal::NotFinal(NotFinal::Committee { .. })) => "another committee",
        Some(_) => "not a certificate",
        None => "no link leaves",
    }))
}

fn subset(scene: &mut Scene, members: usize, size: usize) -> Vec<usize> {
    let mut pool: Vec<_> = (0..members).collect();
    for place in 0..size {
        let other = place + scene.rng.next_u32() as usize % (members - place);
        pool.swap(place, other);
    }
    pool.truncate(size);
    pool
}

const NO_PRINTED: Side = Side::NotRun("it is about what must keep working, not about a hole");

fn attack(
    test: &'static str,
    what: &'static str,
    flaw: &'static str,
    printed: Side,
    ours: Tried,
) -> Attack {
    Attack { test, feature: Feature::F4, what, flaw, printed, ours: ours.into() }
}

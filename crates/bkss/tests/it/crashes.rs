//! Crashes under load: whatever was answered "accepted" is on the ledger afterwards.

use std::time::{Duration, SystemTime};

use bkss_ledger::Trust;
use bkss_scheme::{
    Digest, LedgerTime, Link, LinkIndex, MeterId, ProviderId, Reading, RootMessage, SdiId,
    SecretKey, Slot, codec, hash,
    hash_chain::{self, Blocks},
    reading::{Channel, Interval},
    request,
    root_message::{self, Registration, SaltNonce},
    seal::Session,
    slot::Schedule,
    transaction::{Release, Submit},
};
use minicbor::{Decoder, Encode};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::providers::{Providers, agent};

const SLOT_S: u32 = 24;
const WINDOW_S: u32 = 16;
const SLOTS: u32 = 8;
const METERS: u32 = 40;
/// Short slots and rounds, so that a test sees several.
const TERMS: [&str; 6] = ["--min-slot", "1", "--grid", "1", "--round-blocks", "12"];

/// Meters with their chains, and the clock of the test.
struct Fleet {
    meters: Vec<Meter>,
    schedule: Schedule,
}

struct Meter {
    registration: Registration,
    chain: Digest,
    last: Link,
    session: Session,
}

impl Fleet {
    /// Meters of all providers, by the keys that `init` has made; their first slot begins soon.
    fn of(providers: &Providers) -> Self {
        let net = providers.dir.path().join("net");
        let trust = Trust::decode(&std::fs::read(net.join("genesis.bkss")).unwrap()).unwrap();
        let (network, charter) = (trust.genesis().network(), trust.genesis().charter());
        let sdi = secret(&std::fs::read(net.join("sdi/keys.bkss")).unwrap());
        let owners: Vec<_> = (0..providers.running.len())
            .map(|provider| {
                let keys = providers.directory(provider).join("keys.bkss");
                secret(&std::fs::read(keys).unwrap())
            })
            .collect();
        let first = Slot(now().seconds() / u64::from(SLOT_S) + 2);
        let schedule = Schedule { first, slot_s: SLOT_S, window_s: WINDOW_S, slots: SLOTS };
        let meters = (0..METERS).map(|number| {
            let mut rng = ChaCha8Rng::seed_from_u64(number.into());
            let owner = number as usize % owners.len();
            let owner_id = ProviderId(u16::try_from(owner).unwrap());
            let nonce = SaltNonce(hash::plain(&number.to_be_bytes()).0[..16].try_into().unwrap());
            let salt = root_message::salt(owner_id, SdiId(0), MeterId(number), nonce);
            let last = hash_chain::last_link(salt, &[1; 32], &[2; 32], network, 0);
            let blocks = Blocks::new(SLOTS, 2).unwrap();
            let ends = hash_chain::build(salt, blocks, &last, |_| ());
            let message = RootMessage {
                meter: MeterId(number),
                owner: owner_id,
                sdi: SdiId(0),
                nonce,
                anchor: ends.anchor,
                root: ends.root,
                schedule,
                device: Digest([7; 32]),
                revocation_lock: None,
            };
            let chain = message.id(network);
            let registration = Registration::sign(message, network, &sdi, &owners[owner]);
            let sealing = charter.providers[owner].sealing_key;
            let session = Session::start(network, &sealing, &mut rng).unwrap();
            Meter { registration, chain, last, session }
        });
        Self { meters: meters.collect(), schedule }
    }

    fn link(&self, meter: &Meter, index: u32) -> (LinkIndex, Link) {
        let salt = meter.registration.message.salt();
        let link = hash_chain::walk(salt, SLOTS, index, &meter.last);
        (LinkIndex::new(index, SLOTS).unwrap(), link)
    }

    fn registrations(&self) -> Vec<Vec<u8>> {
        self.meters.iter().map(|meter| encoded(&meter.registration)).collect()
    }

    fn submits(&self, index: u32) -> Vec<Vec<u8>> {
        let submit = |meter: &Meter| {
            let (index, link) = self.link(meter, index);
            let start = self.schedule.opens(index).seconds();
            let channel = Channel::net_energy(SLOT_S);
            let reading = Reading::single(channel, start, 1, Interval::measured(7));
            let plain = reading.to_bytes().unwrap();
            let body = meter.session.seal(&meter.chain, index, &plain, true).unwrap();
            let commitment = request::commitment(&meter.chain, index, &hash::plain(&body));
            let value = request::request_value(&commitment, &link);
            let meter = meter.registration.message.meter;
            encoded(&Submit { meter, index, value, body: &body })
        };
        self.meters.iter().map(submit).collect()
    }

    fn releases(&self, index: u32) -> Vec<Vec<u8>> {
        let release = |meter: &Meter| {
            let (index, link) = self.link(meter, index);
            encoded(&Release { meter: meter.registration.message.meter, index, link })
        };
        self.meters.iter().map(release).collect()
    }

    /// Sends one message per meter to its owner's node until each was accepted once.
    fn send(&self, providers: &Providers, messages: &[Vec<u8>]) {
        let count = providers.running.len();
        for owner in 0..count {
            let own: Vec<_> = messages.iter().skip(owner).step_by(count).collect();
            providers.until("acceptance", |providers| {
                let bytes: Vec<u8> = own.iter().flat_map(|bytes| (*bytes).clone()).collect();
                let url = format!("{}/v1/batch", providers.url(owner));
                let answer = agent()
                    .post(&url)
                    .header("content-type", "application/cbor")
                    .header("accept", "application/json")
                    .send(&bytes[..]);
                let Ok(mut answer) = answer else { return false };
                let text = answer.body_mut().read_to_vec().unwrap_or_default();
                let Ok(answers) = serde_json::from_slice::<Vec<serde_json::Value>>(&text) else {
                    return false;
                };
                assert_eq!(answers.len(), own.len());
                answers.iter().all(|answer| answer["answer"] == "accepted")
            });
        }
    }

    /// Waits until every meter's slot has this status at a node.
    fn until_all(&self, providers: &Providers, at: usize, index: u32, status: &str) {
        for meter in &self.meters {
            let path = format!("/v1/slots/{}/{index}", meter.registration.message.meter);
            providers.until(&format!("{status} at {path}"), |providers| {
                providers.json(at, &path).is_some_and(|slot| slot["status"] == status)
            });
        }
    }

    fn wait_for(&self, time: LedgerTime) {
        while now() < time {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The only byte strings of 32 bytes that come first in a file of keys are its identity key.
fn secret(bytes: &[u8]) -> SecretKey {
    let mut decoder = Decoder::new(bytes);
    decoder.array().unwrap();
    loop {
        if decoder.datatype().unwrap() == minicbor::data::Type::Bytes {
            return SecretKey::from_bytes(decoder.bytes().unwrap().try_into().unwrap()).unwrap();
        }
        decoder.skip().unwrap();
    }
}

fn encoded(value: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    bytes
}

fn now() -> LedgerTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    LedgerTime(u64::try_from(since.as_millis()).unwrap())
}

#[test]
fn what_was_accepted_survives_kill_9_of_all_four_at_once() {
    let mut providers = Providers::found(4, &TERMS);
    providers.start_all();
    providers.wait(0, 2);
    let fleet = Fleet::of(&providers);
    let crash = |providers: &mut Providers| {
        (0..4).for_each(|provider| providers.kill(provider));
        // In another order than they were founded in.
        [2, 0, 3, 1].into_iter().for_each(|provider| providers.start(provider));
    };
    fleet.send(&providers, &fleet.registrations());
    crash(&mut providers);
    for index in 1..=2 {
        let (of_slot, _) = fleet.link(&fleet.meters[0], index);
        fleet.wait_for(LedgerTime(fleet.schedule.opens(of_slot).0 + 1000));
        fleet.send(&providers, &fleet.submits(index));
        crash(&mut providers);
        fleet.until_all(&providers, 1, index, "requested");
        providers.until("the end of the window", |providers| {
            let head = providers.json(0, "/v1/head");
            let time = head.and_then(|head| head["time_ms"].as_u64());
            time.is_some_and(|time| LedgerTime(time) >= fleet.schedule.closes(of_slot))
        });
        fleet.send(&providers, &fleet.releases(index));
        crash(&mut providers);
        (0..4).for_each(|at| fleet.until_all(&providers, at, index, "opened"));
    }
    providers.assert_same_blocks();
}

#[test]
fn one_of_four_is_killed_at_any_moment_and_the_others_go_on() {
    let mut providers = Providers::found(4, &TERMS);
    providers.start_all();
    (0..4).for_each(|provider| providers.reach(provider, 3));
    for (killed, pause_ms) in [(3, 0), (0, 130), (1, 410), (2, 770)] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        providers.kill(killed);
        let witness = (killed + 1) % 4;
        let took = providers.progress(witness, 2);
        println!("provider {killed} killed: two more blocks after {took:?}");
        providers.progress(witness, 5);
        providers.start(killed);
        let height = providers.height(witness);
        let took = providers.wait(killed, height + 2);
        println!("provider {killed} is at the head {took:?} after its start");
        // One that started a moment before the end of a round does not vote in the next.
        let took = providers.until("its votes, also after the end of the round", |providers| {
            let ready = providers.json(killed, "/v1/ready");
            ready.is_some_and(|ready| ready["votes"] == true && ready["votes_next"] == true)
        });
        println!("another may go {took:?} later");
    }
    providers.assert_same_blocks();
}

#[test]
fn of_seven_two_may_be_dead_and_three_stop_the_ledger_until_one_returns() {
    let mut providers = Providers::found(7, &TERMS);
    providers.start_all();
    (0..7).for_each(|provider| providers.reach(provider, 3));
    providers.kill(6);
    providers.kill(5);
    let took = providers.progress(0, 3);
    println!("two of seven killed: three more blocks after {took:?}");
    providers.kill(4);
    // What was under way when the third died may still become final.
    std::thread::sleep(Duration::from_secs(3));
    let before: Vec<_> = (0..4).map(|provider| providers.height(provider)).collect();
    std::thread::sleep(Duration::from_secs(6));
    let after: Vec<_> = (0..4).map(|provider| providers.height(provider)).collect();
    assert_eq!(before, after, "four of seven are no quorum");
    providers.start(5);
    let took = providers.progress(0, 3);
    println!("one of three returned: three more blocks after {took:?}");
    let height = providers.height(0);
    [4, 6].into_iter().for_each(|provider| providers.start(provider));
    (0..7).for_each(|provider| providers.reach(provider, height));
    providers.assert_same_blocks();
}

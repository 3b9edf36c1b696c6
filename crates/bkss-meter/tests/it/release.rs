//! When a link leaves: behind its window by certified time, and never by the meter's own clock.

use std::collections::BTreeSet;

use bkss_meter::signer::MAX_PENDING;
use bkss_scheme::{codec, hash_chain, transaction::Release};
use proptest::prelude::*;

use crate::consortium::{Provisioned, SCHEDULE, SoftwareMeter, at, encoded, index, reading};

fn signed(provisioned: &mut Provisioned, links: &[u32]) -> SoftwareMeter {
    let mut meter = provisioned.confirmed_meter();
    for link in links {
        meter.sign(at(*link, 10), &reading(1), &mut provisioned.rng).unwrap();
    }
    meter
}

fn released(meter: &SoftwareMeter) -> Option<u32> {
    meter.release().map(|release| release.index.get())
}

#[test]
fn a_link_leaves_from_the_certified_end_of_its_window_on() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = signed(&mut provisioned, &[3]);
    assert_eq!(meter.release(), None, "no time is certified");
    provisioned.bring_time(&mut meter, at(3, 299_999));
    assert_eq!(meter.release(), None, "one millisecond early");
    provisioned.bring_time(&mut meter, at(3, 300_000));
    let release = meter.release().unwrap();
    let message = &provisioned.parameters.root_message;
    assert_eq!((release.meter, release.index), (message.meter, index(3)));
    assert!(hash_chain::walk(message.salt(), 3, 0, &release.link) == message.anchor);
    let bytes = encoded(&release);
    assert_eq!(codec::decode::<Release>("release", &bytes).as_ref(), Ok(&release));
}

/// A19: whoever pushes the meter's clock ahead gets no link; that costs slots.
#[test]
fn a_clock_that_is_ahead_releases_nothing() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = signed(&mut provisioned, &[3]);
    provisioned.bring_time(&mut meter, at(3, 10));
    for ahead in [4, 50, SCHEDULE.slots] {
        meter.sign(at(ahead, 0), &reading(1), &mut provisioned.rng).unwrap();
        assert_eq!(meter.release(), None, "clock in slot {ahead}");
    }
    let year_ms = 365 * 86_400_000;
    let outside = meter.sign(at(3, year_ms), &reading(1), &mut provisioned.rng);
    assert!(outside.is_err());
    assert_eq!(meter.release(), None, "clock a year ahead");
    provisioned.bring_time(&mut meter, at(3, 300_000));
    assert_eq!(released(&meter), Some(3));
    meter.acknowledged(index(3));
    assert_eq!(meter.release(), None, "links of slots to come stay");
}

#[test]
fn readings_are_opened_oldest_first_each_until_it_is_settled() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = signed(&mut provisioned, &[2, 3, 5, 6]);
    provisioned.bring_time(&mut meter, at(5, 300_000));
    for settled in [2, 3, 5] {
        assert_eq!(meter.release(), meter.release());
        assert_eq!(released(&meter), Some(settled));
        meter.acknowledged(index(6)); // not this one
        meter.acknowledged(index(4)); // never signed
        assert_eq!(released(&meter), Some(settled));
        if settled == 3 {
            meter.give_up(index(3));
        } else {
            meter.acknowledged(index(settled));
        }
    }
    assert_eq!(meter.release(), None);
}

#[test]
fn of_too_many_pending_readings_the_oldest_is_dropped() {
    let mut provisioned = Provisioned::new(1);
    let links: Vec<u32> = (1..=u32::try_from(MAX_PENDING).unwrap() + 2).collect();
    let mut meter = signed(&mut provisioned, &links);
    provisioned.bring_time(&mut meter, at(20, 0));
    for link in &links[2..] {
        assert_eq!(released(&meter), Some(*link));
        meter.acknowledged(index(*link));
    }
    assert_eq!(meter.release(), None);
}

#[test]
fn after_a_restart_the_registration_is_asked_for_again_and_nothing_is_pending() {
    let mut provisioned = Provisioned::new(1);
    let meter = signed(&mut provisioned, &[3]);
    let mut meter = provisioned.restarted(meter);
    provisioned.bring_time(&mut meter, at(3, 300_000));
    assert_eq!(meter.release(), None);
    meter.sign(at(4, 0), &reading(1), &mut provisioned.rng).unwrap();
    provisioned.bring_time(&mut meter, at(4, 300_000));
    assert_eq!(meter.release(), None, "registration not seen since the restart");
    provisioned.confirm(&mut meter);
    assert_eq!(released(&meter), Some(4));
}

#[test]
fn a_reading_that_is_taken_up_after_a_restart_is_released_behind_its_window() {
    let mut provisioned = Provisioned::new(1);
    let meter = signed(&mut provisioned, &[3, 5]);
    let mut meter = provisioned.restarted(meter);
    provisioned.confirm(&mut meter);
    assert!(meter.resume(index(3)) && meter.resume(index(5)) && meter.resume(index(3)));
    assert!(!meter.resume(index(6)), "never reserved");
    provisioned.bring_time(&mut meter, at(3, 299_999));
    assert_eq!(released(&meter), None, "one millisecond early");
    provisioned.bring_time(&mut meter, at(5, 300_000));
    for link in [3, 5] {
        assert_eq!(released(&meter), Some(link));
        meter.acknowledged(index(link));
    }
    assert_eq!(released(&meter), None);
}

#[test]
fn what_was_dropped_for_others_is_taken_up_once_there_is_room() {
    let mut provisioned = Provisioned::new(1);
    let links: Vec<u32> = (1..=u32::try_from(MAX_PENDING).unwrap() + 1).collect();
    let mut meter = signed(&mut provisioned, &links);
    assert!(!meter.resume(index(1)), "as many as there is room for are pending");
    meter.acknowledged(index(2));
    assert!(meter.resume(index(1)));
    provisioned.bring_time(&mut meter, at(20, 0));
    assert_eq!(released(&meter), Some(1));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Sign(u32, i64),
    Time(u32, i64),
    Acknowledge(u32),
    GiveUp(u32),
    Resume(u32),
    Restart,
    Confirm,
}

fn event() -> impl Strategy<Value = Event> {
    let moment = (1..40_u32, 0..900_000_i64);
    prop_oneof![
        6 => moment.clone().prop_map(|(link, ms)| Event::Sign(link, ms / 3)),
        4 => moment.prop_map(|(link, ms)| Event::Time(link, ms)),
        2 => (1..40_u32).prop_map(Event::Acknowledge),
        1 => (1..40_u32).prop_map(Event::GiveUp),
        1 => (1..40_u32).prop_map(Event::Resume),
        1 => Just(Event::Restart),
        2 => Just(Event::Confirm),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_no_link_leaves_early_and_no_index_twice(
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut provisioned = Provisioned::new(1);
        let mut meter = provisioned.meter();
        let (mut signed, mut newest, mut confirmed) = (BTreeSet::new(), None, false);
        let mut resumed = BTreeSet::new();
        for event in events {
            match event {
                Event::Sign(link, ms) => {
                    if let Ok(sent) = meter.sign(at(link, ms), &reading(1), &mut provisioned.rng) {
                        prop_assert!(signed.insert(sent.index()), "{} twice", sent.index());
                        prop_assert_eq!(sent.index(), index(link));
                    }
                }
                Event::Time(link, ms) => {
                    provisioned.bring_time(&mut meter, at(link, ms));
                    newest = newest.max(Some(at(link, ms)));
                }
                Event::Acknowledge(link) => meter.acknowledged(index(link)),
                Event::GiveUp(link) => meter.give_up(index(link)),
                Event::Resume(link) => {
                    let reserved = signed.last().is_some_and(|last| index(link) <= *last);
                    if meter.resume(index(link)) {
                        prop_assert!(reserved, "{link} was never reserved");
                        resumed.insert(index(link));
                    }
                }
                Event::Restart => {
                    meter = provisioned.restarted(meter);
                    (newest, confirmed) = (None, false);
                }
                Event::Confirm => {
                    provisioned.confirm(&mut meter);
                    confirmed = true;
                }
            }
            if let Some(release) = meter.release() {
                let known = signed.contains(&release.index) || resumed.contains(&release.index);
                prop_assert!(confirmed && known);
                prop_assert!(Some(SCHEDULE.closes(release.index)) <= newest);
            }
        }
    }
}

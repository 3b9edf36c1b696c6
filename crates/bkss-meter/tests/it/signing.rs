//! From a reading to a request value: slots, indices, sessions.

use bkss_meter::{journal::JournalError, signer::SignError};
use bkss_scheme::{
    LedgerTime, Link, LinkIndex, Reading, codec, hash, hash_chain, request,
    seal::{Body, OpeningSession},
    transaction::Submit,
};

use crate::consortium::{
    NETWORK, Provisioned, SCHEDULE, SoftwareMeter, at, encoded, index, reading,
};

/// Signs and returns the encapsulated key in the body.
fn introduced(
    provisioned: &mut Provisioned,
    meter: &mut SoftwareMeter,
    now: LedgerTime,
) -> Option<[u8; 32]> {
    let signed = meter.sign(now, &reading(1), &mut provisioned.rng).unwrap();
    let body: Body<'_> = codec::decode("body", signed.message().body).unwrap();
    body.encapsulated
}

#[test]
fn a_request_commits_to_a_body_that_only_the_owner_opens() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = provisioned.meter();
    let signed = meter.sign(at(3, 5), &reading(-42), &mut provisioned.rng).unwrap();
    assert_eq!(signed.index(), index(3));

    let bytes = encoded(&signed.message());
    let submit: Submit<'_> = codec::decode("submit", &bytes).unwrap();
    assert_eq!(submit, signed.message());
    let message = &provisioned.parameters.root_message;
    let (id, salt) = (message.id(NETWORK), message.salt());
    let link: Link = hash_chain::walk(salt, SCHEDULE.slots, 3, &provisioned.last);
    let commitment = request::commitment(&id, index(3), &hash::plain(submit.body));
    assert_eq!(submit.value, request::request_value(&commitment, &link));

    let body: Body<'_> = codec::decode("body", submit.body).unwrap();
    let encapsulated = body.encapsulated.unwrap();
    let session = OpeningSession::start(NETWORK, &provisioned.owner, &encapsulated).unwrap();
    let opened = session.slot_key(index(3)).open(&id, index(3), body.ciphertext).unwrap();
    assert_eq!(Reading::from_padded(&opened), Ok(reading(-42)));
}

#[test]
fn a_meter_signs_inside_its_windows_only() {
    let mut provisioned = Provisioned::new(1);
    let last = SCHEDULE.slots;
    for (now, expected) in [
        (at(1, -1), Err(SignError::OutsideChain)),
        (at(1, 0), Ok(1)),
        (at(1, 299_999), Ok(1)),
        (at(1, 300_000), Err(SignError::WindowClosed { index: index(1) })),
        (at(1, 899_999), Err(SignError::WindowClosed { index: index(1) })),
        (at(2, 0), Ok(2)),
        (at(last, 299_999), Ok(last)),
        (at(last, 300_000), Err(SignError::WindowClosed { index: index(last) })),
        (at(last, 900_000), Err(SignError::OutsideChain)),
        (LedgerTime(0), Err(SignError::OutsideChain)),
        (LedgerTime(u64::MAX), Err(SignError::OutsideChain)),
    ] {
        let signed = provisioned.meter().sign(now, &reading(1), &mut provisioned.rng);
        assert_eq!(signed.map(|signed| signed.index().get()), expected, "at {now}");
    }
}

#[test]
fn a_window_that_the_ledger_has_closed_is_closed_for_a_slow_clock_too() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = provisioned.meter();
    provisioned.bring_time(&mut meter, at(4, 300_000));
    let refused = meter.sign(at(4, 100), &reading(1), &mut provisioned.rng).err();
    assert_eq!(refused, Some(SignError::WindowClosed { index: index(4) }));
    assert!(meter.sign(at(5, 100), &reading(1), &mut provisioned.rng).is_ok());
}

#[test]
fn an_index_is_signed_once_also_after_a_restart() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = provisioned.meter();
    meter.sign(at(3, 0), &reading(1), &mut provisioned.rng).unwrap();
    for _ in 0..2 {
        for used in [3, 2, 1] {
            let refused = meter.sign(at(used, 9), &reading(2), &mut provisioned.rng).err();
            assert_eq!(refused, Some(SignError::Used { index: index(used), reserved: 3 }));
        }
        meter = provisioned.restarted(meter);
    }
    assert_eq!(
        meter.sign(at(4, 0), &reading(3), &mut provisioned.rng).map(|signed| signed.index()),
        Ok(index(4))
    );
}

#[test]
fn nothing_leaves_when_the_journal_does_not_keep_the_index() {
    use bkss_meter::{Flash, Journal, Meter, journal::RECORD};
    struct Worn;
    impl Flash for Worn {
        type Error = core::convert::Infallible;
        fn sector_size(&self) -> usize {
            64
        }
        fn read(&self, _: usize, _: usize) -> Result<[u8; RECORD], Self::Error> {
            Ok([0xFF; RECORD])
        }
        fn program(&mut self, _: usize, _: usize, _: &[u8; RECORD]) -> Result<(), Self::Error> {
            Ok(())
        }
        fn erase(&mut self, _: usize) -> Result<(), Self::Error> {
            Ok(())
        }
    }
    let mut provisioned = Provisioned::new(1);
    let (_, keys) = provisioned.meter().switch_off();
    let journal = Journal::open(Worn).unwrap();
    let mut meter = Meter::new(provisioned.parameters.clone(), journal, keys);
    let refused = meter.sign(at(1, 0), &reading(1), &mut provisioned.rng).err();
    assert_eq!(refused, Some(SignError::Journal(JournalError::NotKept)));
}

#[test]
fn a_session_is_introduced_until_a_body_with_its_key_is_final() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = provisioned.meter();
    let first = introduced(&mut provisioned, &mut meter, at(1, 0));
    assert!(first.is_some());
    assert_eq!(introduced(&mut provisioned, &mut meter, at(2, 0)), first);
    meter.confirmed(index(9)); // never signed
    meter.give_up(index(1));
    assert_eq!(introduced(&mut provisioned, &mut meter, at(3, 0)), first);
    meter.confirmed(index(2));
    assert_eq!(introduced(&mut provisioned, &mut meter, at(4, 0)), None);

    meter.start_session(at(5, 0), &mut provisioned.rng).unwrap();
    let second = introduced(&mut provisioned, &mut meter, at(5, 0));
    assert!(second.is_some() && second != first);
    meter.acknowledged(index(4)); // of the session before
    assert_eq!(introduced(&mut provisioned, &mut meter, at(6, 0)), second);
    meter.acknowledged(index(5));
    assert_eq!(introduced(&mut provisioned, &mut meter, at(7, 0)), None);

    let mut meter = provisioned.restarted(meter);
    let third = introduced(&mut provisioned, &mut meter, at(8, 0));
    assert!(third.is_some() && third != first && third != second);
}

#[test]
fn each_utc_day_has_its_session_and_yesterdays_news_do_not_introduce_it() {
    let mut provisioned = Provisioned::new(1);
    let mut meter = provisioned.meter();
    let midnight = SCHEDULE.opens(index(1)).seconds().next_multiple_of(86_400);
    let today = SCHEDULE.index(SCHEDULE.slot_at(LedgerTime::from_seconds(midnight))).unwrap();
    let [before, after] = [today.get() - 1, today.get() + 1];
    let first = introduced(&mut provisioned, &mut meter, at(before, 0));
    let second = introduced(&mut provisioned, &mut meter, at(today.get(), 0));
    assert!(second.is_some() && second != first);
    meter.acknowledged(index(before));
    assert_eq!(introduced(&mut provisioned, &mut meter, at(after, 0)), second);
    meter.acknowledged(today);
    let next = LinkIndex::new(after + 1, SCHEDULE.slots).unwrap().get();
    assert_eq!(introduced(&mut provisioned, &mut meter, at(next, 0)), None);
}

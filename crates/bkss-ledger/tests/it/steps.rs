//! The work of long gaps: bounded for a block, shared by gateways, done in the end.

use bkss_ledger::{
    Pool, State, Transaction,
    execute::{SkipReason, Skipped},
};
use bkss_scheme::slot::Schedule;

use crate::{
    blocks::{block, offered, reasons, turn},
    consortium::{Consortium, FIRST, Meter, Signed, at, slots_from},
};

/// Steps that a block may walk.
const STEPS: u32 = 1 << 20;
/// A meter reports that has not reported for this many slots.
const GAP: u32 = STEPS / 2 + 1;

/// Meters whose first slots follow one another, so that in slot [`GAP`] of the first their gaps
/// differ by one, and which have requested that slot.
struct Old {
    consortium: Consortium,
    state: State,
    signed: Vec<Signed>,
}

fn meters_that_have_not_reported(seed: u64, count: u32, gap: u32) -> Old {
    let mut consortium = Consortium::new(seed);
    let long = |consortium: &mut Consortium, number: u32| {
        consortium.meter_with(number, |message| {
            let slots = gap + 8;
            message.schedule = Schedule { slots, ..slots_from(FIRST.0 + u64::from(number)) };
        })
    };
    let meters: Vec<_> = (0..count).map(|number| long(&mut consortium, number)).collect();
    let mut state = consortium.state();
    block(&mut state, at(0, 10), meters.iter().map(Meter::registers));
    let signed: Vec<_> =
        (0..).zip(&meters).map(|(number, meter)| meter.sign(gap - number, 5)).collect();
    let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    block(&mut state, at(gap, 1), [consortium.requests(0, gap, &values)]);
    Old { consortium, state, signed }
}

impl Old {
    /// An opening batch of the gateway for these.
    fn openings(&self, gateway: usize, rows: &[u32]) -> Transaction {
        let items: Vec<_> = rows.iter().map(|row| (*row, &self.signed[*row as usize])).collect();
        self.consortium.openings(gateway, &items)
    }
}

#[test]
fn a_block_walks_as_many_steps_as_allowed_and_the_rest_come_again() {
    let old = meters_that_have_not_reported(1, 3, GAP);
    let gap_of = |row: u32| GAP - row;
    // As many steps as there are, and one more.
    for (rows, skipped) in [([0, 2], &[][..]), ([0, 1], &[SkipReason::OverBudget])] {
        let (mut state, mut pool) = (old.state.clone(), Pool::default());
        assert_eq!(pool.add(&state.view(), old.openings(0, &rows)), Ok(true));
        let built = turn(&mut state, &mut pool, at(GAP, 300));
        assert_eq!(reasons(&built.verified), skipped);
        let accepted: Vec<_> = built.verified.openings().iter().map(|opened| opened.row).collect();
        assert_eq!(accepted, rows[..2 - skipped.len()]);
        assert_eq!(built.steps, accepted.into_iter().map(gap_of).sum());
        if !skipped.is_empty() {
            let built = turn(&mut state, &mut pool, at(GAP, 301));
            assert_eq!(built.steps, gap_of(rows[1]), "the other one has been opened before");
            assert_eq!(reasons(&built.verified), [SkipReason::NoRequest]);
        }
        assert!(pool.is_empty());
    }
}

#[test]
fn the_steps_of_a_block_are_counted_over_all_its_batches() {
    let old = meters_that_have_not_reported(5, 2, GAP);
    let apart = [old.openings(0, &[0]), old.openings(1, &[1])];
    let verified = offered(&old.state, at(GAP, 300), &apart).unwrap();
    assert_eq!(verified.openings().len(), 1);
    let over = Skipped { place: (1, 0), reason: SkipReason::OverBudget };
    assert_eq!(verified.skipped(), [over]);
}

#[test]
fn no_gateway_takes_the_steps_of_another() {
    let gap = STEPS / 5 * 2;
    let old = meters_that_have_not_reported(2, 3, gap);
    let mut state = old.state.clone();
    let mut pool = Pool::default();
    let [one, two, of_another] =
        [(0, 0), (0, 1), (1, 2)].map(|(gateway, row)| old.openings(gateway, &[row]));
    for batch in [&one, &two, &of_another] {
        assert_eq!(pool.add(&state.view(), batch.clone()), Ok(true));
    }
    // Two would use up four fifths of the steps: one of each gateway, not both of the first.
    let built = turn(&mut state, &mut pool, at(gap, 300));
    assert_eq!(built.verified.block().transactions(), [one, of_another]);
    let built = turn(&mut state, &mut pool, at(gap, 301));
    assert_eq!(built.verified.block().transactions(), [two]);
}

/// Meters that begin a few slots later, have requested their first one, and can open it.
fn meters_that_have_just_begun(old: &mut Old, count: u32) -> (u32, Vec<(u32, Signed)>) {
    let index = GAP + 2;
    let schedule = slots_from(FIRST.0 + u64::from(index) - 1);
    let rows = old.state.meters()..;
    let fresh = (100..100 + count)
        .map(|number| old.consortium.meter_with(number, |message| message.schedule = schedule));
    let fresh: Vec<_> = fresh.collect();
    block(&mut old.state, at(GAP, 2), fresh.iter().map(Meter::registers));
    let signed: Vec<_> = rows.zip(fresh.iter().map(|meter| meter.sign(1, 7))).collect();
    let values: Vec<_> = signed.iter().map(|(row, signed)| (*row, signed.value)).collect();
    block(&mut old.state, at(index, 1), [old.consortium.requests(1, index, &values)]);
    (index, signed)
}

#[test]
fn short_gaps_go_before_long_ones() {
    let mut old = meters_that_have_not_reported(3, 1, GAP);
    let (index, fresh) = meters_that_have_just_begun(&mut old, 1);
    let long = old.openings(0, &[0]);
    let short = old.consortium.openings(1, &[(fresh[0].0, &fresh[0].1)]);
    let mut pool = Pool::default();
    for batch in [&long, &short] {
        assert_eq!(pool.add(&old.state.view(), batch.clone()), Ok(true));
    }
    let built = turn(&mut old.state, &mut pool, at(index, 300));
    assert_eq!(built.verified.block().transactions(), [short, long]);
}

#[test]
fn a_batch_of_more_steps_than_a_block_has_is_opened_in_the_end() {
    let mut old = meters_that_have_not_reported(4, 3, GAP);
    let (index, fresh) = meters_that_have_just_begun(&mut old, 6);
    let mut pool = Pool::default();
    let long = old.openings(0, &[0, 1, 2]);
    assert_eq!(pool.add(&old.state.view(), long), Ok(true));
    // Others open something in every block meanwhile.
    for (second, (row, signed)) in (300..).zip(&fresh) {
        let short = old.consortium.openings(1, &[(*row, signed)]);
        assert_eq!(pool.add(&old.state.view(), short), Ok(true));
        let built = turn(&mut old.state, &mut pool, at(index, second));
        assert!(built.steps <= STEPS, "{}", built.steps);
    }
    assert!(pool.is_empty());
    assert!((0..3).all(|row| old.state.view().live(row).unwrap().pending.is_empty()));
}

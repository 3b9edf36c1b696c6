//! The work of long gaps: bounded for a block, shared by gateways, done in the end.

use std::sync::LazyLock;

use bkss_ledger::{
    Pool, State, Transaction,
    execute::{SkipReason, Skipped},
};
use bkss_scheme::slot::Schedule;

use crate::{
    blocks::{block, offered, reasons, turn},
    consortium::{Consortium, FIRST, Meter, Signed, at, slots_from},
    hostile_batches::invented,
};

/// Steps that a block may walk.
const STEPS: u32 = 1 << 20;
/// A meter reports that has not reported for this many slots.
const GAP: u32 = STEPS / 2 + 1;

/// Meters that all report in one slot of the first of them, each for the first time.
struct Old {
    consortium: Consortium,
    state: State,
    meters: Vec<Meter>,
    signed: Vec<Signed>,
}

/// Meters that have not reported for so many slots, the first of them for the most, and have now
/// requested one.
fn meters_with(seed: u64, gaps: &[u32]) -> Old {
    let mut consortium = Consortium::new(seed);
    let mut state = consortium.state();
    let slot = gaps[0];
    let (mut meters, mut signed) = (Vec::new(), Vec::new());
    for (number, gap) in (0..).zip(gaps) {
        let begins = slot - gap;
        let schedule = Schedule { slots: gap + 8, ..slots_from(FIRST.0 + u64::from(begins)) };
        let meter = consortium.meter_with(number, |message| message.schedule = schedule);
        block(&mut state, at(begins, 10 + u64::from(number)), [meter.registers()]);
        signed.push(meter.sign(*gap, 5));
        meters.push(meter);
    }
    let values: Vec<_> = (0..).zip(signed.iter().map(|signed| signed.value)).collect();
    block(&mut state, at(slot, 100), [consortium.requests(0, slot, &values)]);
    Old { consortium, state, meters, signed }
}

/// Gaps of half of the steps and one, of half, of one less; and some of one.
const GAPS: [u32; 8] = [GAP, GAP - 1, GAP - 2, 1, 1, 1, 1, 1];

/// What most tests begin with: it takes a while.
static OLD: LazyLock<Old> = LazyLock::new(|| meters_with(1, &GAPS));

impl Old {
    /// An opening batch of the gateway for these.
    fn openings(&self, gateway: usize, rows: &[u32]) -> Transaction {
        let items: Vec<_> = rows.iter().map(|row| (*row, &self.signed[*row as usize])).collect();
        self.consortium.openings(gateway, &items)
    }
}

#[test]
fn a_block_walks_as_many_steps_as_allowed_and_the_rest_come_again() {
    let old = &*OLD;
    // As many steps as there are, and one more.
    for (rows, skipped) in [([0, 2], &[][..]), ([0, 1], &[SkipReason::OverBudget])] {
        let (mut state, mut pool) = (old.state.clone(), Pool::default());
        assert_eq!(pool.add(&state.view(), old.openings(0, &rows)), Ok(true));
        let built = turn(&mut state, &mut pool, at(GAP, 300));
        assert_eq!(reasons(&built.verified), skipped);
        let accepted: Vec<_> = built.verified.openings().iter().map(|opened| opened.row).collect();
        assert_eq!(accepted, rows[..2 - skipped.len()]);
        assert_eq!(built.steps, accepted.into_iter().map(|row| GAPS[row as usize]).sum());
        if !skipped.is_empty() {
            let built = turn(&mut state, &mut pool, at(GAP, 301));
            assert_eq!(built.steps, GAPS[1], "the other one has been opened before");
            assert_eq!(reasons(&built.verified), [SkipReason::NoRequest]);
        }
        assert!(pool.is_empty());
    }
}

#[test]
fn the_steps_of_a_block_are_counted_over_all_its_batches() {
    let old = &*OLD;
    let apart = [old.openings(0, &[0]), old.openings(1, &[1])];
    let verified = offered(&old.state, at(GAP, 300), &apart).unwrap();
    assert_eq!(verified.openings().len(), 1);
    let over = Skipped { place: (1, 0), reason: SkipReason::OverBudget };
    assert_eq!(verified.skipped(), [over]);
}

#[test]
fn what_a_leader_walks_in_vain_is_not_missing_in_its_block() {
    let old = &*OLD;
    let (mut state, mut pool) = (old.state.clone(), Pool::default());
    let lie = invented(&old.meters[3], 1, 9);
    block(&mut state, at(GAP, 101), [old.consortium.requests(3, GAP, &[(3, lie.value)])]);
    // All the steps that there are. The lie is walked first, being short, and left out.
    let honest = old.openings(0, &[0, 2]);
    for batch in [old.consortium.openings(3, &[(3, &lie)]), honest.clone()] {
        assert_eq!(pool.add(&state.view(), batch), Ok(true));
    }
    let built = turn(&mut state, &mut pool, at(GAP, 300));
    assert_eq!((built.invalid.len(), built.steps), (1, STEPS + 1));
    assert_eq!(built.verified.block().transactions(), [honest]);
    assert_eq!(reasons(&built.verified), []);
}

#[test]
fn openings_that_make_the_gaps_of_others_long_take_no_steps_from_another_gateway() {
    // Each of its meters opens a late slot first, and then many early ones: what was short has become
    // long, and all of it together more than a block may walk.
    const OWN: u32 = 64;
    const EARLY: u32 = 60;
    const LATE: u32 = 600;
    let mut consortium = Consortium::founded(3, 4, |_| ());
    let mut state = consortium.state();
    let mut from = |number: u32, first: u32| {
        let first = FIRST.0 + u64::from(first) - 1;
        let schedule = Schedule { slots: LATE + 8, ..slots_from(first) };
        consortium.meter_with(number, |message| message.schedule = schedule)
    };
    let own: Vec<_> = (0..OWN).map(|number| from(number, 1)).collect();
    let honest: Vec<_> = (OWN..2 * OWN).map(|number| from(number, 1)).collect();
    for (second, meters) in [(1, &own), (2, &honest)] {
        block(&mut state, at(0, second), meters.iter().map(Meter::registers));
    }
    let sign = |meters: &[Meter], index| -> Vec<_> {
        meters.iter().map(|meter| meter.sign(index, 5)).collect()
    };
    let values = |first: u32, signed: &[Signed]| -> Vec<_> {
        (first..).zip(signed.iter().map(|signed| signed.value)).collect()
    };
    let mut early = Vec::new();
    for index in 1..=EARLY {
        let signed = sign(&own, index);
        block(&mut state, at(index, 1), [consortium.requests(3, index, &values(0, &signed))]);
        early.push(signed);
    }
    let (late, of_honest) = (sign(&own, LATE), sign(&honest, LATE));
    let requests = [(3, values(0, &late)), (0, values(OWN, &of_honest))]
        .map(|(gateway, values)| consortium.requests(gateway, LATE, &values));
    block(&mut state, at(LATE, 1), requests);
    let mut pool = Pool::default();
    let of_own: Vec<_> = std::iter::once(&late)
        .chain(&early)
        .map(|signed| consortium.openings(3, &(0..).zip(signed).collect::<Vec<_>>()))
        .collect();
    let of_another = consortium.openings(0, &(OWN..).zip(&of_honest).collect::<Vec<_>>());
    // Whoever wants to be first brings the late ones apart: each is a short gap.
    let apart = (0..).zip(&late).map(|(row, signed)| consortium.openings(3, &[(row, signed)]));
    for batch in apart.chain(of_own).chain([of_another.clone()]) {
        assert_eq!(pool.add(&state.view(), batch), Ok(true));
    }
    let built = turn(&mut state, &mut pool, at(LATE, 301));
    assert!(built.steps <= STEPS, "{}", built.steps);
    assert!(built.verified.block().transactions().contains(&of_another));
}

#[test]
fn no_gateway_takes_the_steps_of_another() {
    let gap = STEPS / 5 * 2;
    let old = meters_with(2, &[gap, gap - 1, gap - 2, 1]);
    let (mut state, mut pool) = (old.state.clone(), Pool::default());
    let batches =
        [(0, 0), (0, 1), (1, 2), (1, 3)].map(|(gateway, row)| old.openings(gateway, &[row]));
    for batch in &batches {
        assert_eq!(pool.add(&state.view(), batch.clone()), Ok(true));
    }
    // Short gaps first. Two long ones use up four fifths of the steps: one of each gateway.
    let [one, two, of_another, short] = batches;
    let built = turn(&mut state, &mut pool, at(gap, 300));
    assert_eq!(built.verified.block().transactions(), [short, one, of_another]);
    let built = turn(&mut state, &mut pool, at(gap, 301));
    assert_eq!(built.verified.block().transactions(), [two]);
}

#[test]
fn a_batch_that_the_next_block_can_open_whole_waits_for_it() {
    let old = &*OLD;
    let (mut state, mut pool) = (old.state.clone(), Pool::default());
    let (first, whole) = (old.openings(0, &[0]), old.openings(1, &[1, 3]));
    for batch in [&first, &whole] {
        assert_eq!(pool.add(&state.view(), batch.clone()), Ok(true));
    }
    // What the first one leaves is enough for the short gap of the other alone.
    for (second, expected) in [(300, first), (301, whole)] {
        let built = turn(&mut state, &mut pool, at(GAP, second));
        assert_eq!(built.verified.block().transactions(), [expected]);
        assert_eq!(built.verified.skipped(), []);
    }
}

#[test]
fn a_batch_of_more_steps_than_a_block_has_is_opened_in_the_end() {
    let old = &*OLD;
    let (mut state, mut pool) = (old.state.clone(), Pool::default());
    let long = old.openings(0, &[0, 1, 2]);
    assert_eq!(pool.add(&state.view(), long), Ok(true));
    // Others open something in every block meanwhile.
    for (second, row) in (300..).zip(3..8) {
        assert_eq!(pool.add(&state.view(), old.openings(1, &[row])), Ok(true));
        let built = turn(&mut state, &mut pool, at(GAP, second));
        assert!(built.steps <= STEPS, "{}", built.steps);
    }
    assert!(pool.is_empty());
    assert!((0..3).all(|row| state.view().live(row).unwrap().pending.is_empty()));
}

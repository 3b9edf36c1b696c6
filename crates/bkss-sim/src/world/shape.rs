//! How large the worlds of a campaign are: most are small, some are not.

use super::{Options, dice::Dice};

/// The options of a seed's world in a campaign that asks for no certain number of providers: most
/// have four, some seven, some more providers than seats, a few twenty-one. What else is asked for
/// stays, but worlds of many providers have fewer meters and slots: they are there for their
/// committees.
pub fn mixed(seed: u64, options: &Options) -> Options {
    let dice = &mut Dice::new(seed, 7);
    let (providers, committee) = match dice.below(100) {
        0..70 => (4, 4),
        70..80 => (7, 7),
        80..86 => (5, 5),
        86..91 => (7, 4),
        91..96 => (9, 7),
        96..98 => (21, 21),
        _ => (24, 21),
    };
    let many = providers > 9;
    let (meters, slots) = if many {
        (options.meters.min(8), options.slots.min(6))
    } else {
        (options.meters, options.slots)
    };
    Options { providers, committee, meters, slots, ..*options }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn most_worlds_are_small_and_every_shape_is_there() {
        let mut shapes = BTreeMap::new();
        for seed in 1..=400 {
            let Options { providers, committee, .. } = mixed(seed, &Options::default());
            *shapes.entry((providers, committee)).or_insert(0) += 1;
        }
        assert_eq!(shapes.len(), 7, "{shapes:?}");
        assert!(shapes[&(4, 4)] > 240, "{shapes:?}");
    }
}

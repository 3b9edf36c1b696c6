//! What seeds have planned, shown without running their worlds.

use crate::shared::{bkss, code, objects, said};

#[test]
fn a_plan_is_shown_for_each_seed_and_is_the_same_every_time() {
    let show_some = |seeds: &str, more: &[&str]| {
        let output = bkss(&[&["sim", "--plan", "--seed", "3", "--seeds", seeds], more].concat());
        assert_eq!(code(&output), 0, "{}", said(&output));
        output
    };
    let show = |more: &[&str]| show_some("4", more);
    let plans = objects(&show(&["--json"]));
    assert_eq!(plans, objects(&show(&["--json"])));
    let seeds: Vec<_> = plans.iter().map(|plan| plan["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [3, 4, 5, 6]);
    let text = said(&show(&[]));
    for plan in &plans {
        let [faults, decisions] =
            ["faults", "decisions"].map(|key| plan[key].as_array().unwrap().as_slice());
        for what in [faults, decisions].concat().iter().map(|one| one["what"].as_str().unwrap()) {
            assert!(text.contains(what), "{what}: {text}");
        }
        assert_eq!(plan["world"]["providers"], 4);
        assert!(plan["healed_ms"].as_u64().unwrap() > 0);
    }
    let mixed = objects(&show_some("40", &["--json", "--mixed"]));
    let providers = |least: u64| {
        mixed.iter().filter(|plan| plan["world"]["providers"].as_u64().unwrap() >= least).count()
    };
    assert!(providers(4) == 40 && (1..20).contains(&providers(5)));
    assert_eq!(code(&bkss(&["sim", "--plan", "--mixed", "--providers", "7"])), 2);
}

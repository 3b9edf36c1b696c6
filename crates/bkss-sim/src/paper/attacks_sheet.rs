//! Table 4 with counts: what was tried on the printed scheme and on ours, and what came of it.

use crate::{
    attacks::{Attack, Feature, Score, Side, score},
    report::{Cell, Sheet},
};

/// The table, and every attack of it.
pub(super) fn sheets(attacks: &[Attack]) -> Vec<Sheet> {
    vec![table(attacks), list(attacks)]
}

fn table(attacks: &[Attack]) -> Sheet {
    let columns = [
        "",
        "the paper claims",
        "as printed: broken by",
        "ours: broken by",
        "attempts on ours",
        "not run on ours",
    ];
    let mut sheet = Sheet::new("table-4", "F1 to F9 as executable attacks", &columns);
    for feature in Feature::ALL {
        let [printed, ours] = score(attacks, feature);
        let all = attacks.iter().filter(|attack| attack.feature == feature).count();
        sheet.rows.push(vec![
            feature.name().into(),
            feature.title().into(),
            of(printed),
            of(ours),
            Cell::Number(exact(ours.attempts), 0),
            Cell::Number(exact((all - ours.run) as u64), 0),
        ]);
    }
    for attack in attacks.iter().filter(|attack| attack.ours.broken() == Some(true)) {
        sheet.note(format!("open: {} breaks ours: {}", attack.test, attack.what));
    }
    sheet.note("an attack on ours counts only beside one that succeeds where the hole is open");
    sheet
}

fn of(score: Score) -> Cell {
    if score.run == 0 {
        "not run".into()
    } else {
        format!("{} of {}", score.broken, score.run).into()
    }
}

fn list(attacks: &[Attack]) -> Sheet {
    let columns = ["test", "what the adversary does", "flaw", "as printed", "ours"];
    let mut sheet = Sheet::new("attacks", "every attack", &columns);
    for attack in attacks {
        sheet.rows.push(vec![
            attack.test.into(),
            attack.what.into(),
            attack.flaw.into(),
            told(&attack.printed).into(),
            told(&attack.ours).into(),
        ]);
    }
    sheet
}

/// How a side fared, in a line.
fn told(side: &Side) -> String {
    let tried = match side {
        Side::NotRun(why) => return format!("not run: {why}"),
        Side::Tried(tried) => tried,
    };
    let (attempts, successes) = (tried.attempts, tried.successes);
    if successes > 0 {
        return format!("BROKEN {successes} of {attempts}: {}", tried.remark);
    }
    let main = tried.refusals.iter().max_by_key(|(_, count)| **count);
    let reason = main.map_or("", |(reason, _)| reason);
    format!("holds, {attempts} tried: {} ({reason})", tried.remark)
}

fn exact(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

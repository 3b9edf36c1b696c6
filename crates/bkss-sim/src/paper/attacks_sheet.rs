//! Table 4 with counts: what was tried on the printed scheme and on ours, and what came of it.

use crate::{
    Broken,
    attacks::{
        Attack, Feature, Score, Side, score,
        weighing::{self, Bought},
    },
    report::{Cell, Sheet},
    tables::TABLE_4,
};

/// The table, every attack of it, and what votes of each kind withstand.
pub(super) fn sheets(attacks: &[Attack]) -> Result<Vec<Sheet>, Broken> {
    Ok(vec![printed(), table(attacks), list(attacks), votes(&weighing::table()?)])
}

/// The table as the paper prints it: what it says of six schemes.
fn printed() -> Sheet {
    let names = Feature::ALL.map(Feature::name);
    // The algorithms are no feature of the table.
    let columns = [&["scheme"], &names[..9]].concat();
    let mut sheet = Sheet::new("table-4-printed", "Table 4 as the paper prints it", &columns);
    for (scheme, features) in TABLE_4 {
        let told = features.map(|has| if has { "yes" } else { "no" }.into());
        sheet.rows.push([vec![scheme.into()], told.to_vec()].concat());
    }
    sheet.note(
        "claim only: no attack of the paper is described, and the five others are not run here",
    );
    sheet
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

/// Which ways to buy seats votes of each kind withstand.
fn votes(rows: &[Bought]) -> Sheet {
    let columns = ["to buy the seats with", "votes of members", "votes weighed by meters"];
    let mut sheet = Sheet::new("votes", "what an election withstands (Algorithm 3)", &columns);
    for row in rows {
        let told = |seats: usize| {
            let verdict = if Bought::withstands(seats) { "holds" } else { "BOUGHT" };
            format!("{verdict}: {seats} of 4 seats")
        };
        sheet.rows.push(vec![row.what.into(), told(row.members).into(), told(row.meters).into()]);
    }
    sheet.note("two of seven providers are one buyer; one seat of four is their share");
    sheet.note("votes of members are the default, and what A3.1 is run on");
    sheet.note(
        "votes weighed by meters are the paper's rule: a genesis that has it trusts its SDIs",
    );
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

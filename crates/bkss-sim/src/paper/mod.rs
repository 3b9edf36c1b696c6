//! Tables and figures of the paper: its own value, what its formula gives, what our code measures.

mod attacks_sheet;
mod equations;
mod figures;
mod leader_sheet;
mod meter_sheets;
mod scale_sheet;

use std::{cell::OnceCell, time::Duration};

use crate::{
    Broken,
    attacks::{self, Attack, Effort},
    formulas::table_6,
    measure::{
        Clock, Timer,
        leader::{LeaderCost, ReadingCost, Town},
        meter::{self, MeterCost},
        schemes::{self, LmsSize, SchemeCost},
    },
    report::{Part, chart::ChartError},
    tables::{TABLE_8, TABLE_8_METERS},
};

/// An item of the paper that can be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "name() says what each is")]
pub enum Item {
    Equations,
    Table4,
    Table5,
    Table6,
    Table7,
    Table8,
    Figure9,
    Figure10,
    Figure11,
    Figure12,
    Scale,
}

impl Item {
    /// All of them, in the paper's order.
    pub const ALL: [Self; 11] = [
        Self::Equations,
        Self::Table4,
        Self::Table5,
        Self::Table6,
        Self::Table7,
        Self::Table8,
        Self::Figure9,
        Self::Figure10,
        Self::Figure11,
        Self::Figure12,
        Self::Scale,
    ];

    /// The name by which it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equations => "equations",
            Self::Table4 => "table-4",
            Self::Table5 => "table-5",
            Self::Table6 => "table-6",
            Self::Table7 => "table-7",
            Self::Table8 => "table-8",
            Self::Figure9 => "figure-9",
            Self::Figure10 => "figure-10",
            Self::Figure11 => "figure-11",
            Self::Figure12 => "figure-12",
            Self::Scale => "scale",
        }
    }

    /// The item of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|item| item.name() == name)
    }
}

/// Why an item is not made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each passes on the message of what it holds")]
pub enum PaperError {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Chart(#[from] ChartError),
}

/// How much is measured and tried.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Attempts of the attacks.
    pub effort: Effort,
    /// Settings of meters and providers of Table 8, out of the table's.
    pub leader: &'static [(u32, u32)],
    /// Settings of Tables 5 to 7, out of the tables'.
    pub meter: &'static [(u32, u32)],
    /// The LMS key that is measured.
    pub lms: LmsSize,
    /// Least time of a measurement, and how many the median is taken of.
    pub slice: Duration,
    /// Measurements of which the median is taken.
    pub rounds: usize,
}

impl Extent {
    /// Everything.
    pub const FULL: Self = Self {
        effort: Effort::FULL,
        leader: &ALL_LEADERS,
        meter: &ALL_METERS,
        lms: LmsSize::H10,
        slice: Duration::from_millis(40),
        rounds: 9,
    };
    /// A look: seconds, also without optimisation.
    pub const QUICK: Self = Self {
        effort: Effort::QUICK,
        leader: &[(1000, 5), (1000, 22)],
        meter: &[(1, 50), (1, 10)],
        lms: LmsSize::H5,
        slice: Duration::from_millis(1),
        rounds: 3,
    };
}

const ALL_METERS: [(u32, u32); 15] = {
    let (years, minutes) = (crate::formulas::CHAIN_YEARS, crate::formulas::INTERVALS_MIN);
    let mut all = [(0, 0); 15];
    let mut at = 0;
    while at < 15 {
        all[at] = (years[at / 5], minutes[at % 5]);
        at += 1;
    }
    all
};

const ALL_LEADERS: [(u32, u32); 24] = {
    let mut all = [(0, 0); 24];
    let mut at = 0;
    while at < 24 {
        all[at] = (TABLE_8_METERS[at / 6], TABLE_8[at % 6].0);
        at += 1;
    }
    all
};

/// Makes items, each measurement once.
pub struct Press<'a> {
    timer: Timer<'a>,
    extent: Extent,
    attacks: OnceCell<Vec<Attack>>,
    meters: OnceCell<Vec<MeterCost>>,
    town: OnceCell<Town>,
    leaders: OnceCell<Vec<LeaderCost>>,
    reading: OnceCell<ReadingCost>,
    schemes: OnceCell<Vec<SchemeCost>>,
}

impl<'a> Press<'a> {
    /// Nothing made yet.
    pub fn new(clock: Clock<'a>, extent: Extent) -> Self {
        Self {
            timer: Timer { clock, slice: extent.slice, rounds: extent.rounds },
            extent,
            attacks: OnceCell::new(),
            meters: OnceCell::new(),
            town: OnceCell::new(),
            leaders: OnceCell::new(),
            reading: OnceCell::new(),
            schemes: OnceCell::new(),
        }
    }

    /// Makes an item.
    ///
    /// # Errors
    ///
    /// [`PaperError`] if a scene does not stand or a picture cannot be drawn.
    pub fn make(&self, item: Item) -> Result<Part, PaperError> {
        let sheet = |sheet| Part { sheets: vec![sheet], figures: vec![] };
        Ok(match item {
            Item::Equations => sheet(equations::sheet()),
            Item::Table4 => {
                Part { sheets: attacks_sheet::sheets(self.attacks()?)?, figures: vec![] }
            }
            Item::Table5 => {
                let sheets =
                    vec![meter_sheets::what_is_stored(), meter_sheets::table_5(self.meters()?)];
                Part { sheets, figures: vec![] }
            }
            Item::Table6 => sheet(meter_sheets::table_6(self.meters()?)),
            Item::Table7 => sheet(meter_sheets::table_7(self.meters()?)),
            Item::Table8 => sheet(leader_sheet::table_8(self.leaders()?)),
            Item::Figure9 => figures::storage_by_interval(self.meters()?)?,
            Item::Figure10 => figures::storage_by_life(self.meters()?)?,
            Item::Figure11 => figures::leader(self.leaders()?)?,
            Item::Figure12 => figures::schemes(self.schemes()?)?,
            Item::Scale => sheet(scale_sheet::sheet(self.reading()?)),
        })
    }

    /// Attacks that did not end as they must: those that break ours, and those that spare the printed
    /// scheme.
    ///
    /// # Errors
    ///
    /// As [`Self::make`].
    pub fn surprises(&self) -> Result<Vec<&'static str>, PaperError> {
        let surprising = |attack: &&Attack| {
            attack.ours.broken() == Some(true) || attack.printed.broken() == Some(false)
        };
        let attacks = self.attacks()?.iter().filter(surprising);
        Ok(attacks.map(|attack| attack.test).collect())
    }

    fn attacks(&self) -> Result<&[Attack], Broken> {
        once(&self.attacks, || attacks::run_all(&self.extent.effort)).map(Vec::as_slice)
    }

    fn meters(&self) -> Result<&[MeterCost], Broken> {
        once(&self.meters, || meter::measure(self.timer, self.extent.meter)).map(Vec::as_slice)
    }

    fn town(&self) -> Result<&Town, Broken> {
        let most = |of: fn(&(u32, u32)) -> u32| self.extent.leader.iter().map(of).max();
        let (meters, providers) = (most(|(meters, _)| *meters), most(|(_, providers)| *providers));
        let providers = u16::try_from(providers.unwrap_or(4)).unwrap_or(u16::MAX);
        once(&self.town, || Town::new(meters.unwrap_or(1), providers))
    }

    fn leaders(&self) -> Result<&[LeaderCost], Broken> {
        let town = self.town()?;
        once(&self.leaders, || town.leader(self.timer, self.extent.leader)).map(Vec::as_slice)
    }

    fn reading(&self) -> Result<&ReadingCost, Broken> {
        let town = self.town()?;
        once(&self.reading, || town.reading(self.timer))
    }

    fn schemes(&self) -> Result<&[SchemeCost], Broken> {
        let (town, reading) = (self.town()?, self.reading()?);
        let bytes = reading.ledger_bytes - reading.body_bytes;
        // Five years of half hours, the middle of the paper's tables, unless less is looked at.
        let middle = (5, 30);
        let first = self.extent.meter.first().copied().unwrap_or(middle);
        let (years, minutes) = if self.extent.meter.contains(&middle) { middle } else { first };
        once(&self.schemes, || {
            let meter = meter::Setting::new(years, minutes)?;
            let passes = [meter.average(), town.validator()?];
            schemes::measure(self.timer, passes, bytes, self.extent.lms)
        })
        .map(Vec::as_slice)
    }
}

fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T, Broken>) -> Result<&T, Broken> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// Settings of the meter tables, with what was measured of each.
fn settings(costs: &[MeterCost]) -> impl Iterator<Item = (u32, u32, Option<&MeterCost>)> {
    table_6::settings().map(|(years, minutes)| {
        let of = |cost: &&MeterCost| (cost.chain_years, cost.interval_min) == (years, minutes);
        (years, minutes, costs.iter().find(of))
    })
}

#[cfg(test)]
mod tests;

//! What a run came to: checked from disk, for people, for programs, in a file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bkss_ledger::{Trust, receipts::Issued};
use bkss_scheme::{LinkIndex, RootMessage};
use serde_json::{Value, json};

use super::{
    Provisioned, RunError,
    drive::Run,
    records::{Receipts, write_whole},
};
use crate::{in_common::InCommon, output, parallel, text::shown_path, verify};

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Providers of the network.
    pub(crate) providers: usize,
    /// Meters.
    pub(crate) meters: usize,
    /// Slots, and readings of each meter.
    pub(crate) slots: usize,
    /// Ledger seconds per second.
    pub(crate) time_scale: u32,
}

/// The outcome of a run.
pub(crate) struct Summary {
    run: Run,
    dir: PathBuf,
    shape: Shape,
    first_receipt: Option<PathBuf>,
    valid_receipts: u64,
    /// Seconds it took, set by the caller.
    pub(crate) wall_s: f64,
}

impl Summary {
    /// Of a run that has ended.
    pub(crate) fn new(shape: Shape, run: Run, dir: &Path) -> Self {
        Self {
            run,
            dir: dir.to_owned(),
            shape,
            first_receipt: None,
            valid_receipts: 0,
            wall_s: 0.0,
        }
    }

    /// Reads the receipt of every opening back from disk and checks it: that it holds, and that it is of
    /// this meter's chain and link. One that is missing or does not hold is asked for once more.
    pub(crate) fn check_receipts(
        &mut self,
        trust: &Trust,
        provisioned: &[Provisioned],
        again: impl Fn(&RootMessage, LinkIndex) -> Option<Vec<u8>>,
    ) -> Result<(), RunError> {
        let receipts = Receipts::new(&self.dir, true);
        let messages = provisioned.iter().map(|meter| (meter.message().meter, meter.message()));
        let messages: BTreeMap<_, _> = messages.collect();
        let wanted: Vec<_> = self
            .run
            .opened
            .iter()
            .filter_map(|(meter, link)| Some((*messages.get(meter)?, *link)))
            .collect();
        output::note(&format!("checking {} receipts from disk ..", wanted.len()));
        let common = InCommon::default();
        let holds = |(message, link): &(&RootMessage, LinkIndex)| {
            verify::holds(trust, &common, &receipts.path(message.meter, *link), message, *link)
        };
        let mut valid = parallel::map(&wanted, holds);
        for (wanted, valid) in wanted.iter().zip(&mut valid).filter(|(_, valid)| !**valid) {
            let (message, index) = *wanted;
            let path = receipts.path(message.meter, index);
            if let Some(receipt) = again(message, index) {
                receipts.write(&Issued { meter: message.meter, index, receipt })?;
                *valid = holds(wanted);
            }
            let path = shown_path(&path);
            output::note(&if *valid {
                format!("{path}: was missing or did not verify, fetched again")
            } else {
                format!("{path}: missing, or does not verify as the receipt of this meter and slot")
            });
        }
        self.valid_receipts = valid.iter().filter(|valid| **valid).count() as u64;
        self.first_receipt =
            wanted.first().map(|(message, link)| receipts.path(message.meter, *link));
        Ok(())
    }

    /// Whether every reading is final and every receipt verifies.
    pub(crate) fn complete(&self) -> bool {
        self.run.readings_final == self.readings()
            && self.valid_receipts == self.run.opened.len() as u64
    }

    /// Writes `summary.json`.
    pub(crate) fn write(&self) -> Result<(), RunError> {
        write_whole(&self.dir.join("summary.json"), format!("{:#}\n", self.json()).as_bytes())
    }

    /// Tells people and programs.
    pub(crate) fn report(&self) {
        let run = &self.run;
        let (p50, p99) = self.finality();
        let verdict = if self.complete() { "complete" } else { "NOT complete" };
        for line in [
            String::new(),
            format!(
                "{verdict}: {} of {} readings of {} meters final on {} providers in {:.1} s",
                run.readings_final,
                self.readings(),
                self.shape.meters,
                self.shape.providers,
                self.wall_s
            ),
            match run.finality_ms.is_empty() {
                true => format!("{} blocks, nothing left to become final", run.blocks),
                false => format!(
                    "{} blocks, final {p50:.0} ms after their time stamp (99 %: {p99:.0} ms)",
                    run.blocks
                ),
            },
            format!(
                "{:.0} bytes of ledger and {:.0} bytes of messages per reading",
                self.per_reading(run.archive_bytes),
                self.per_reading(run.uplink_bytes)
            ),
            format!(
                "{} of {} receipts verify from disk; {} carry C_i, the newest links are secret",
                self.valid_receipts, run.receipts, run.with_path
            ),
            format!("everything is in {}", self.dir.display()),
        ] {
            output::result(&line);
        }
        if let Some(receipt) = &self.first_receipt {
            output::note("check one yourself, offline:");
            output::note(&format!(
                "  {} verify --genesis {} {}",
                program(),
                self.dir.join("genesis.bkss").display(),
                receipt.display()
            ));
        }
        output::object(&self.json());
    }

    fn json(&self) -> Value {
        let run = &self.run;
        let (p50, p99) = self.finality();
        json!({
            "providers": self.shape.providers,
            "meters": self.shape.meters,
            "slots": self.shape.slots,
            "readings": self.readings(),
            "requests_final": run.requests_final,
            "openings_final": run.openings_final,
            "receipts": self.valid_receipts,
            "blocks": run.blocks,
            "wall_s": round(self.wall_s),
            "readings_per_s": round(self.own_readings() as f64 / self.wall_s.max(1e-9)),
            "finality_ms": { "p50": round(p50), "p99": round(p99) },
            "ledger_bytes_per_reading": round(self.per_reading(run.archive_bytes)),
            "uplink_bytes_per_reading": round(self.per_reading(run.uplink_bytes)),
            "time_scale": self.shape.time_scale,
        })
    }

    const fn readings(&self) -> u64 {
        self.shape.meters as u64 * self.shape.slots as u64
    }

    fn per_reading(&self, bytes: u64) -> f64 {
        bytes as f64 / self.own_readings().max(1) as f64
    }

    /// Readings that have become final in this run.
    const fn own_readings(&self) -> u64 {
        self.run.readings_final.saturating_sub(self.run.readings_before)
    }

    /// Median and 99th percentile, milliseconds.
    fn finality(&self) -> (f64, f64) {
        let mut sorted = self.run.finality_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let last = sorted.len().saturating_sub(1);
            sorted.get(last * percent / 100).copied().unwrap_or(f64::NAN)
        };
        (rank(50), rank(99))
    }
}

/// How this program is called from here.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| "bkss".into());
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(&path).display().to_string()
}

/// To two decimals.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

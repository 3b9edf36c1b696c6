use std::cell::Cell as StdCell;

use super::*;
use crate::report::Cell;

/// A press whose clock goes a microsecond further each time it is read.
fn with_press<T>(work: impl FnOnce(&Press<'_>) -> T) -> T {
    let ticks = StdCell::new(0);
    let clock = || {
        ticks.set(ticks.get() + 1);
        Duration::from_micros(ticks.get())
    };
    let extent = Extent {
        slice: Duration::ZERO,
        rounds: 1,
        leader: &[(40, 5)],
        meter: &[(1, 50)],
        effort: Effort { reveals: 100, guesses: 2_000, subsets: 2, every_bit: 997 },
        ..Extent::QUICK
    };
    work(&Press::new(&clock, extent))
}

#[test]
fn every_item_is_made_with_rows_and_pictures() {
    with_press(|press| {
        assert_eq!(press.surprises().unwrap(), [""; 0]);
        for item in Item::ALL {
            let part = press.make(item).unwrap();
            assert!(!part.sheets.is_empty() || !part.figures.is_empty(), "{item:?}");
            for sheet in &part.sheets {
                assert!(!sheet.rows.is_empty(), "{}", sheet.id);
                for row in &sheet.rows {
                    assert_eq!(row.len(), sheet.columns.len(), "{}", sheet.id);
                }
            }
            for figure in &part.figures {
                assert!(figure.svg.contains("<svg") && figure.png.starts_with(b"\x89PNG"));
            }
        }
    });
}

#[test]
fn names_lead_back_to_items() {
    for item in Item::ALL {
        assert_eq!(Item::named(item.name()), Some(item));
    }
    assert_eq!(Item::named("table-9"), None);
}

#[test]
fn what_is_not_measured_or_known_is_not_available() {
    with_press(|press| {
        let table = press.make(Item::Table6).unwrap().sheets.remove(0);
        let missing = table.rows.iter().filter(|row| row.contains(&Cell::NotAvailable)).count();
        assert_eq!((table.rows.len(), missing), (15, 14), "one setting was measured");
        let table = press.make(Item::Table8).unwrap().sheets.remove(0);
        let column = |at: usize| table.rows.iter().filter(move |row| row[at] == Cell::NotAvailable);
        let missing = (column(2).count(), column(7).count());
        assert_eq!(missing, (0, 24), "the paper prints all cells, none was measured");
        let table = press.make(Item::Table7).unwrap().sheets.remove(0);
        let printed = table.rows.iter().filter(|row| row[3] != Cell::NotAvailable);
        assert_eq!(printed.count(), 6, "of fifteen settings");
        let table = press.make(Item::Table4).unwrap().sheets.remove(0);
        let ticks = table.rows.iter().flatten().filter(|cell| **cell == "yes".into()).count();
        assert_eq!((table.rows.len(), ticks), (6, 38));
    });
}

//! `bkss paper`: what the 2019 paper says, what its formulas give, what our code does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bkss_sim::{
    paper::{Extent, Item, PaperError, Press},
    report::{self, Part},
};
use serde_json::{Value, json};

use crate::{clock, explain::Plain, output};

/// Where pictures and the report go unless told otherwise.
const FOLDER: &str = "bkss-paper";

/// Options of `bkss paper`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// equations, table-4 to table-8, figure-9 to figure-12, scale, or all
    #[arg(default_value = "all", value_parser = which)]
    item: Which,
    /// Folder for pictures and the report [default: bkss-paper]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Fewer attempts and settings: a look in seconds
    #[arg(long)]
    quick: bool,
}

/// One item, or all.
#[derive(Clone, Copy, Debug)]
enum Which {
    One(Item),
    All,
}

fn which(name: &str) -> Result<Which, String> {
    if name == "all" {
        return Ok(Which::All);
    }
    Item::named(name).map(Which::One).ok_or_else(|| {
        let names = Item::ALL.map(Item::name).join(", ");
        format!("no such item; there are {names} and all")
    })
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Paper(#[from] PaperError),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("attacks that did not end as they must: {0}")]
    Surprise(String),
}

/// Makes and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    match make(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let kind = if matches!(error, Error::Write { .. }) { "unwritable" } else { "failed" };
            output::failed(&Plain(kind, &error));
            match error {
                Error::Write { .. } => ExitCode::from(2),
                Error::Paper(_) | Error::Surprise(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn make(args: &Args) -> Result<(), Error> {
    if cfg!(debug_assertions) {
        output::note("built without optimisation: times are not those of the product");
    }
    let began = clock::now();
    let clock = || began.elapsed();
    let extent = if args.quick { Extent::QUICK } else { Extent::FULL };
    let press = Press::new(&clock, extent);
    let items = match args.item {
        Which::One(item) => vec![item],
        Which::All => Item::ALL.to_vec(),
    };
    let mut parts = Vec::new();
    for item in &items {
        if items.len() > 1 {
            output::note(&format!("{} ..", item.name()));
        }
        let part = press.make(*item)?;
        part.sheets.iter().for_each(|sheet| output::result(&format!("{}\n", sheet.text())));
        parts.push(part);
    }
    let written = write(args, &parts)?;
    written.iter().for_each(|path| output::note(&format!("written: {}", path.display())));
    output::object(&for_programs(&parts, &written));
    if items.contains(&Item::Table4) {
        let surprises = press.surprises()?;
        if !surprises.is_empty() {
            return Err(Error::Surprise(surprises.join(", ")));
        }
    }
    Ok(())
}

/// Writes pictures, and the page if all was made or a folder was named.
fn write(args: &Args, parts: &[Part]) -> Result<Vec<PathBuf>, Error> {
    let all = matches!(args.item, Which::All);
    let pictures = parts.iter().any(|part| !part.figures.is_empty());
    if !all && !pictures && args.out.is_none() {
        return Ok(Vec::new());
    }
    let folder = args.out.as_deref().unwrap_or(Path::new(FOLDER));
    fs::create_dir_all(folder)
        .map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    let mut written = Vec::new();
    let mut put = |name: String, bytes: &[u8]| -> Result<(), Error> {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|source| Error::Write { path: path.clone(), source })?;
        written.push(path);
        Ok(())
    };
    for figure in parts.iter().flat_map(|part| &part.figures) {
        put(format!("{}.svg", figure.id), figure.svg.as_bytes())?;
        put(format!("{}.png", figure.id), &figure.png)?;
    }
    let about = "H. Zhang, J. Wang, Y. Ding, Energy, 2019: what the paper prints, what its own \
                 formula gives, and what our code does on this machine.";
    let page = report::page("The paper, executed", about, parts);
    put("report.html".to_owned(), page.as_bytes())?;
    Ok(written)
}

fn for_programs(parts: &[Part], written: &[PathBuf]) -> Value {
    let sheets: Vec<_> =
        parts.iter().flat_map(|part| &part.sheets).map(report::Sheet::json).collect();
    let written: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
    json!({ "sheets": sheets, "written": written })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_asked_for_by_name() {
        assert!(matches!(which("table-6"), Ok(Which::One(Item::Table6))));
        assert!(matches!(which("all"), Ok(Which::All)));
        assert!(which("table-9").unwrap_err().contains("figure-12"));
    }

    #[test]
    fn a_report_is_written_with_its_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let item = Which::One(Item::Figure9);
        let args = Args { item, out: Some(folder.path().join("new")), quick: true };
        make(&args).unwrap();
        for name in ["figure-9.svg", "figure-9.png", "report.html"] {
            assert!(folder.path().join("new").join(name).exists(), "{name}");
        }
        let occupied = folder.path().join("new/figure-9.svg");
        let args = Args { out: Some(occupied), ..args };
        assert!(matches!(make(&args), Err(Error::Write { .. })));
    }
}

//! What a run leaves on disk: receipts, the archive.
//!
//! A file has its final name only when it is complete.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use bkss_ledger::{FinalBlock, Genesis, archive::Writer, receipts::Issued};
use bkss_scheme::{LinkIndex, MeterId, finality::Finality};

use super::RunError;
use crate::files::{self, Readers};

/// Names the file that failed.
pub(crate) fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> RunError + use<> {
    let path = path.to_owned();
    move |source| RunError::File { path, source }
}

/// Writes a file under a temporary name, then renames it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let partial = path.with_extension("partial");
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&partial, path));
    written.map_err(failed(path))
}

/// The directory of receipts: one directory per meter, one file per slot.
#[derive(Clone, Debug)]
pub(crate) struct Receipts {
    root: PathBuf,
    /// Whether a receipt is on the disk when it is written: a run that is stopped goes on there.
    durable: bool,
}

impl Receipts {
    /// Below a run's directory.
    pub(crate) fn new(dir: &Path, durable: bool) -> Self {
        Self { root: dir.join("receipts"), durable }
    }

    /// File of a receipt.
    pub(crate) fn path(&self, meter: MeterId, index: LinkIndex) -> PathBuf {
        self.root.join(meter.to_string()).join(format!("{:06}.receipt", index.get()))
    }

    /// Writes a receipt.
    pub(crate) fn write(&self, issued: &Issued) -> Result<(), RunError> {
        let path = self.path(issued.meter, issued.index);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        if self.durable {
            return Ok(files::replace(&path, &issued.receipt, Readers::All)?);
        }
        write_whole(&path, &issued.receipt)
    }
}

/// The archive while it grows, under a temporary name.
pub(crate) struct Archive {
    path: PathBuf,
    partial: PathBuf,
    writer: Writer<BufWriter<File>>,
    /// The newest blocks that have no certificate of their own: they come into the archive with the
    /// next one that has.
    waiting: Vec<FinalBlock>,
}

impl Archive {
    /// Starts an archive.
    pub(crate) fn create(dir: &Path, genesis: &Genesis) -> Result<Self, RunError> {
        let path = dir.join("archive.bkss");
        let partial = path.with_extension("partial");
        let file = File::create(&partial).map_err(failed(&partial))?;
        let writer = Writer::new(BufWriter::new(file), genesis.network());
        let writer = writer.map_err(failed(&partial))?;
        Ok(Self { writer, path, partial, waiting: Vec::new() })
    }

    /// Appends a final block.
    pub(crate) fn append(&mut self, block: &FinalBlock) -> Result<(), RunError> {
        // A block with descendants in its proof has no certificate of its own.
        let own = block.finality().filter(|finality| finality.descendants.is_empty());
        let Some(Finality { certificate, .. }) = own else {
            self.waiting.push(block.clone());
            return Ok(());
        };
        for waiting in self.waiting.drain(..) {
            let written = self.writer.block(waiting.verified().block(), None);
            written.map_err(failed(&self.partial))?;
        }
        let written = self.writer.block(block.verified().block(), Some(certificate));
        written.map_err(failed(&self.partial))
    }

    /// Whether all blocks so far are in it.
    pub(crate) const fn is_whole(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Ends the archive with its newest block that has a certificate of its own, gives it its name and returns its length in bytes.
    pub(crate) fn finish(self) -> Result<u64, RunError> {
        let finished = self
            .writer
            .finish()
            .and_then(|buffer| buffer.into_inner().map_err(std::io::IntoInnerError::into_error))
            .and_then(|file| {
                file.sync_all()?;
                std::fs::rename(&self.partial, &self.path)?;
                file.metadata().map(|metadata| metadata.len())
            });
        finished.map_err(failed(&self.path))
    }
}

//! Meters in software: the firmware's code with households behind it, against any gateways.
//!
//! The demonstration and `bkss replay` run the same meters by the same driver. They differ in the
//! gateways alone: providers in this process, or nodes that are called over HTTP.

mod drive;
mod flash;
mod progress;
mod provision;
mod records;
mod software_meter;
mod summary;

pub(crate) use drive::{Drive, Gateways, News};
pub(crate) use flash::SoftwareFlash;
pub(crate) use progress::Progress;
pub(crate) use provision::{Issued, Plan, Provisioned, issue, provision};
pub(crate) use records::{Archive, write_whole};
pub(crate) use software_meter::SoftwareMeter;
pub(crate) use summary::{Shape, Summary};

use std::{path::PathBuf, process::ExitCode};

use crate::{
    client::ClientError,
    command::CommandError,
    explain::{Details, Explain},
    files::FileError,
    households,
};

/// Links per block of a chain, as a power of two: the links of a block are public after 64 slots,
/// and its receipts can then carry `C_i`.
pub(crate) const CHAIN_BLOCK_LOG2: u8 = 6;

/// Why a run does not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Data(#[from] households::DataError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}: {1}")]
    Step(&'static str, String),
    #[error("stopped; {0} holds what was final until then")]
    Stopped(PathBuf),
}

impl Explain for RunError {
    fn explain(&self) -> Details {
        match self {
            Self::Data(error) => error.explain(),
            Self::Command(error) => error.explain(),
            Self::File { path, .. } => Details::new("unwritable").file(path),
            Self::Step(..) => Details::new("failed"),
            Self::Stopped(path) => Details::new("stopped").file(path),
        }
    }
}

impl From<FileError> for RunError {
    fn from(error: FileError) -> Self {
        Self::Command(error.into())
    }
}

impl From<ClientError> for RunError {
    fn from(error: ClientError) -> Self {
        Self::Command(error.into())
    }
}

impl RunError {
    /// Names the step that failed.
    pub(crate) fn step<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Step(step, error.to_string())
    }

    /// Usage and unreadable files are 2, what goes wrong later 1, Ctrl-C as shells expect.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Data(_) | Self::File { .. } => 2.into(),
            Self::Command(error) => error.exit_code(),
            Self::Step(..) => 1.into(),
            Self::Stopped(_) => 130.into(),
        }
    }
}

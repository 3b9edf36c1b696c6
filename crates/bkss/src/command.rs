//! How a command ends that does not end well.

use std::{fmt::Display, path::PathBuf, process::ExitCode};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    client::ClientError,
    explain::{Details, Explain},
    files::FileError,
    output,
    provider::ProviderError,
    text::shown_path,
};

/// Why a command stops.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    File(#[from] FileError),
    /// Without this file nothing was looked at.
    #[error(transparent)]
    Needed(FileError),
    /// A line of a file is not what it should be.
    #[error("{}, line {line}: {reason}", shown_path(path))]
    Line { path: PathBuf, line: u64, reason: String },
    #[error("{0}")]
    Usage(String),
    #[error("no randomness from the operating system: {0}")]
    Entropy(#[from] getrandom::Error),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Node(#[from] ClientError),
}

impl Explain for CommandError {
    fn explain(&self) -> Details {
        match self {
            Self::File(error) | Self::Needed(error) => error.explain(),
            Self::Line { path, line, .. } => Details::new("malformed").file(path).line(*line),
            Self::Usage(_) => Details::new("usage"),
            Self::Entropy(_) => Details::new("failed"),
            Self::Refused(_) => Details::new("refused"),
            Self::Node(error) => error.explain(),
        }
    }
}

impl From<ProviderError> for CommandError {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::File(error) => Self::File(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl CommandError {
    /// Names the step that was refused.
    pub(crate) fn refused<E: Display>(step: &str) -> impl FnOnce(E) -> Self {
        move |error| Self::Refused(format!("{step}: {error}"))
    }

    /// Usage and files that the disk does not give are 2, what is wrong with them 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::File(
                FileError::Unreadable { .. }
                | FileError::Unwritable { .. }
                | FileError::NotEmpty(_)
                | FileError::NoReceipt { .. },
            )
            | Self::Usage(_)
            | Self::Needed(_)
            | Self::Line { .. } => ExitCode::from(2),
            Self::Node(error) => error.exit_code(),
            Self::File(_) | Self::Refused(_) | Self::Entropy(_) => ExitCode::from(1),
        }
    }
}

/// Reports an outcome and turns it into an exit code. People have been told already; programs are
/// told what was done.
pub(crate) fn exit(outcome: Result<Value, CommandError>) -> ExitCode {
    match outcome {
        Ok(done) => {
            output::object(&done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::failed(&error);
            error.exit_code()
        }
    }
}

/// A generator for keys, seeded by the operating system.
///
/// # Errors
///
/// [`CommandError::Entropy`].
pub(crate) fn rng() -> Result<ChaCha20Rng, CommandError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

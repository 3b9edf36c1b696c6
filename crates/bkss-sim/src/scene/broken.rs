//! What goes wrong in a scene that stands on its own feet: nothing.

use std::convert::Infallible;

use bkss_ledger::{Refusal, genesis::GenesisError, receipts::PathError, state::NotNext};
use bkss_meter::{
    key_store::KeyStoreError,
    ledger_time::TimeRefusal,
    signer::{RegistrationMismatch, SignError},
};
use bkss_scheme::{Malformed, certificate::NotFinal, seal::SealError};
use bkss_sdi::issue::IssueError;

/// The scene does not stand: an error of this program, never the outcome of an attack.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each passes on the message of what it holds")]
pub enum Broken {
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    NotNext(#[from] NotNext),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Sign(#[from] SignError<Infallible>),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    KeyStore(#[from] KeyStoreError),
    #[error(transparent)]
    NotFinal(#[from] NotFinal),
    #[error(transparent)]
    Time(#[from] TimeRefusal),
    #[error(transparent)]
    Registration(#[from] RegistrationMismatch),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("disk: {0}")]
    Disk(String),
    #[error("{0} does not hold in the scene")]
    DoesNotHold(&'static str),
}

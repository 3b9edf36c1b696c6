//! Where a node's ledger begins: at the genesis, or at the newest snapshot.
//!
//! Most nodes have all blocks: a snapshot saves them the replay, nothing else. A node that has
//! adopted a snapshot of others has no blocks before it, so its engine begins at the boundary block
//! of that snapshot, or of a later one of its own.

use std::sync::Arc;

use bkss_ledger::{Beginning, Boundary, Genesis, State};
use bkss_scheme::certificate::vote_namespace;
use commonware_consensus::simplex::scheme::ed25519::Scheme;
use commonware_runtime::{Clock, Error, Metrics, Storage, Supervisor};
use commonware_storage::archive;

use crate::{
    plan::participants,
    records::Records,
    snapshots::Snapshots,
    store::{Certificate, certificate_of, names_in},
};

/// A node's beginning.
pub struct Origin {
    /// The state there.
    pub state: State,
    /// The block that the engine begins at; `None` for the genesis.
    pub floor: Option<Floor>,
    /// The round that ends with the state, and what checks its certificates; `None` for the genesis.
    pub ended: Option<(u64, Scheme)>,
}

/// The last block of a round, as the engine knows it.
pub struct Floor {
    /// Its height.
    pub height: u64,
    /// Its round.
    pub round: u64,
    /// Checks certificates of that round.
    pub scheme: Scheme,
    /// Why it is final.
    pub certificate: Certificate,
}

impl Origin {
    /// Finds it; the next block is `before` at the latest. `None` if a vote key is no key.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn find<E: Storage>(
        ctx: &E,
        genesis: &Arc<Genesis>,
        snapshots: &Snapshots,
        before: u64,
    ) -> Result<Option<Self>, Error> {
        let adopted = snapshots.is_adopted(ctx).await?;
        let Some(beginning) = snapshots.newest(ctx, genesis, before).await? else {
            if adopted {
                tracing::warn!("no good snapshot is left: all blocks are fetched from peers");
                // If the mark stays, the next start comes here again.
                let _ = snapshots.unadopt(ctx).await;
            }
            let state = State::new(genesis.clone());
            return Ok(Some(Self { state, floor: None, ended: None }));
        };
        let Some(at) = Floor::at(genesis, &beginning.boundary()) else { return Ok(None) };
        let ended = Some((at.round, at.scheme.clone()));
        let floor = adopted.then_some(at);
        Ok(Some(Self { state: beginning.into_state(), floor, ended }))
    }

    /// From where on the store has to have every block.
    pub fn first(&self) -> u64 {
        self.floor.as_ref().map_or(1, |floor| floor.height)
    }
}

/// Why a snapshot of others is not adopted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum AdoptError {
    #[error("the store has a ledger already, which a snapshot would only shorten")]
    NotEmpty,
    #[error("snapshots: {0}")]
    Snapshots(#[from] Error),
    #[error("records: {0}")]
    Records(#[from] archive::Error),
}

/// Lets an empty store begin at a snapshot of others; on disk when this returns.
///
/// # Errors
///
/// [`AdoptError`].
pub async fn adopt<E: Storage + Metrics + Clock + Supervisor>(
    ctx: &E,
    partition: &str,
    records: &Records<E>,
    beginning: Beginning,
) -> Result<(), AdoptError> {
    let snapshots = Snapshots::new(partition);
    let blocks = names_in(ctx, &format!("{partition}-blocks-values")).await?;
    if !blocks.is_empty() || snapshots.is_adopted(ctx).await? {
        return Err(AdoptError::NotEmpty);
    }
    records.begin_behind(beginning.state().head()).await?;
    Ok(snapshots.adopt(ctx, beginning).await?)
}

impl Floor {
    fn at(genesis: &Genesis, boundary: &Boundary<'_>) -> Option<Self> {
        let committee = participants(&boundary.committee)?;
        Some(Self {
            height: boundary.header.height,
            round: boundary.finality.certificate.epoch,
            scheme: Scheme::verifier(&vote_namespace(genesis.network()), committee),
            certificate: certificate_of(boundary)?,
        })
    }
}

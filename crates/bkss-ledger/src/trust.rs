//! What an offline verifier trusts: the genesis, and what has followed from it.
//!
//! A genesis file is the genesis and then any number of handovers, each certified by the committee
//! that the ones before it have put in office. All committees and members that it names follow from
//! the genesis alone. A file that ends earlier than a receipt's round is of no use for it, and does
//! no harm.

use bkss_scheme::{
    Committee, Digest, Era, Handover, ProviderIdentity, SdiIdentity, codec,
    handover::HandoverError, receipt::Anchors,
};

use crate::{FinalBlock, Genesis, GenesisError, members::Roster};

/// Most bytes of a genesis file: years of rounds.
pub const MAX_BYTES: u64 = 1 << 30;

/// The genesis with the handovers behind it, checked.
#[derive(Clone, Debug)]
pub struct Trust {
    genesis: Genesis,
    eras: Vec<Era>,
    providers: Vec<ProviderIdentity>,
    sdis: Vec<SdiIdentity>,
    /// Encoded, in order.
    handovers: Vec<Vec<u8>>,
    newest: u64,
}

/// Why a genesis file is not trusted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TrustError {
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error("handover at byte {offset}: {source}")]
    Malformed { offset: usize, source: bkss_scheme::Malformed },
    #[error("handover of block {height}: {source}")]
    Handover { height: u64, source: HandoverError },
    #[error("handover of block {height} after that of block {newest}")]
    Order { height: u64, newest: u64 },
    #[error("handover of block {height}: certificate of round {found}, the block is of {expected}")]
    Round { height: u64, expected: u64, found: u64 },
    #[error("handover of block {height}: members {found:?}, the header says {expected:?}")]
    Members { height: u64, expected: Option<Digest>, found: Option<Digest> },
}

impl Trust {
    /// A genesis alone.
    pub fn new(genesis: Genesis) -> Self {
        let charter = genesis.charter();
        Self {
            eras: vec![Era { from_epoch: 0, committee: genesis.committee().clone() }],
            providers: charter.providers.clone(),
            sdis: charter.sdis.clone(),
            handovers: Vec::new(),
            newest: 0,
            genesis,
        }
    }

    /// Parses and checks a genesis file.
    ///
    /// # Errors
    ///
    /// [`TrustError`], naming the first thing that does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, TrustError> {
        let (genesis, mut rest) = Genesis::decode_first(bytes)?;
        let mut trust = Self::new(genesis);
        while !rest.is_empty() {
            let offset = bytes.len() - rest.len();
            let handover: Handover<'_> = codec::decode_first("handover", &mut rest)
                .map_err(|source| TrustError::Malformed { offset, source })?;
            trust.follow(&handover)?;
        }
        Ok(trust)
    }

    /// Takes in the next handover.
    ///
    /// # Errors
    ///
    /// [`TrustError`] unless the committee in office has certified it; nothing has changed then.
    pub fn follow(&mut self, handover: &Handover<'_>) -> Result<(), TrustError> {
        let height = handover.header.height;
        if height <= self.newest {
            return Err(TrustError::Order { height, newest: self.newest });
        }
        let rounds = self.genesis.charter().rounds;
        let (expected, found) = (rounds.of(height), handover.finality.certificate.epoch);
        if expected != found {
            return Err(TrustError::Round { height, expected, found });
        }
        let failed = |source| TrustError::Handover { height, source };
        let era = Era::of(&self.eras, found).map_err(|reason| failed(reason.into()))?;
        let next = handover.verify(self.genesis.network(), era).map_err(failed)?;
        let roster = handover.members.map(Roster::decode).transpose();
        let roster = roster.map_err(|source| TrustError::Malformed { offset: 0, source })?;
        let (expected, found) = (handover.header.members, roster.as_ref().map(Roster::digest));
        if expected != found {
            return Err(TrustError::Members { height, expected, found });
        }
        self.eras.extend(next);
        for provider in roster.iter().flat_map(|roster| &roster.providers) {
            match self.providers.iter_mut().find(|known| known.id == provider.id) {
                Some(known) => known.clone_from(provider),
                None => self.providers.push(provider.clone()),
            }
        }
        for sdi in roster.iter().flat_map(|roster| &roster.sdis) {
            if !self.sdis.iter().any(|known| known.id == sdi.id) {
                self.sdis.push(sdi.clone());
            }
        }
        let mut bytes = Vec::new();
        codec::encode_infallible(handover, &mut bytes);
        self.handovers.push(bytes);
        self.newest = height;
        Ok(())
    }

    /// The genesis file: the genesis, then each handover.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.genesis.encode();
        self.handovers.iter().for_each(|handover| bytes.extend_from_slice(handover));
        bytes
    }

    /// The genesis.
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The committees, oldest first.
    pub fn eras(&self) -> &[Era] {
        &self.eras
    }

    /// The newest committee that is known.
    pub fn committee(&self) -> &Committee {
        &self.eras[self.eras.len() - 1].committee
    }

    /// What receipts are checked against.
    pub fn anchors(&self) -> Anchors<'_> {
        Anchors {
            network: self.genesis.network(),
            providers: &self.providers,
            sdis: &self.sdis,
            eras: &self.eras,
            reveal_s: self.genesis.charter().terms.reveal_s,
        }
    }
}

impl FinalBlock {
    /// The handover that this block makes, encoded; `None` if it changes neither the committee nor
    /// the members.
    pub fn handover(&self) -> Option<Vec<u8>> {
        let header = self.header();
        if header.next_committee.is_none() && header.members.is_none() {
            return None;
        }
        let delta = self.verified().delta();
        let members = header.members.map(|_| delta.members.roster().encode());
        let handover = Handover {
            header: header.clone(),
            finality: self.finality(),
            committee: header.next_committee.map(|_| delta.round.committee.clone()),
            members: members.as_deref(),
        };
        let mut bytes = Vec::new();
        codec::encode_infallible(&handover, &mut bytes);
        Some(bytes)
    }
}

//! What an offline verifier trusts: the genesis, and what has followed from it.
//!
//! A genesis file is the genesis and then any number of handovers, each certified by the committee
//! that the ones before it have put in office. All committees and members that it names follow from
//! the genesis alone. A file that ends earlier than a receipt's round serves it as long as the
//! committee is the same; after a change it refuses honest receipts, and would take those of the
//! former committee.

use bkss_scheme::{
    Committee, Digest, Era, Eras, Handover, ProviderIdentity, SdiIdentity, codec,
    handover::HandoverError, receipt::Anchors,
};

use crate::{FinalBlock, Genesis, GenesisError, Members, members::MembersChange};

/// Most bytes of a genesis file: years of rounds.
pub const MAX_BYTES: u64 = 1 << 30;

/// The genesis with the handovers behind it, checked.
#[derive(Clone, Debug)]
pub struct Trust {
    genesis: Genesis,
    eras: Vec<Era>,
    /// Who takes part and has taken part; the same in two lists.
    members: Members,
    providers: Vec<ProviderIdentity>,
    sdis: Vec<SdiIdentity>,
    /// Encoded, in order.
    handovers: Vec<Vec<u8>>,
    /// The headers of the handovers, in order.
    headers: Vec<(u64, Digest)>,
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
    #[error("handover of block {height}: members {found:?}, the header says {expected:?}")]
    Members { height: u64, expected: Option<Digest>, found: Option<Digest> },
    #[error(
        "handover of block {height} does not say what changes about the members, and that alone"
    )]
    NoDifference { height: u64 },
}

impl Trust {
    /// A genesis alone.
    pub fn new(genesis: Genesis) -> Self {
        let charter = genesis.charter();
        Self {
            eras: vec![Era::new(0, genesis.committee().clone())],
            members: Members::founders(&genesis),
            providers: charter.providers.clone(),
            sdis: charter.sdis.clone(),
            handovers: Vec::new(),
            headers: Vec::new(),
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
        let failed = |source| TrustError::Handover { height, source };
        let rounds = self.genesis.charter().rounds.length();
        let newest = self.eras.last().ok_or(TrustError::Order { height, newest: 0 })?;
        let next = handover.verify(self.genesis.network(), rounds, newest).map_err(failed)?;
        let change = handover.members.map(MembersChange::decode).transpose();
        let change = change.map_err(|source| TrustError::Malformed { offset: 0, source })?;
        let mut members = self.members.clone();
        let found = change.as_ref().map(|change| {
            change.apply(&mut members);
            members.digest()
        });
        let expected = handover.header.members;
        if expected != found {
            return Err(TrustError::Members { height, expected, found });
        }
        // The header names those who are present: nobody may say anything of others.
        let difference = change.is_some().then(|| MembersChange::between(&self.members, &members));
        if difference != change {
            return Err(TrustError::NoDifference { height });
        }
        self.members = members;
        if let Some((end, next)) = next {
            if let Some(era) = self.eras.last_mut() {
                era.end = Some(end);
            }
            self.eras.push(next);
        }
        let change = change.unwrap_or_default();
        for provider in change.providers {
            match self.providers.iter_mut().find(|known| known.id == provider.id) {
                Some(known) => *known = provider,
                None => self.providers.push(provider),
            }
        }
        for sdi in change.sdis {
            if !self.sdis.iter().any(|known| known.id == sdi.id) {
                self.sdis.push(sdi);
            }
        }
        let mut bytes = Vec::new();
        codec::encode_infallible(handover, &mut bytes);
        self.handovers.push(bytes);
        self.headers.push((height, handover.header.id()));
        self.newest = height;
        Ok(())
    }

    /// Whether another one says all that this one says, and nothing before that or between.
    pub fn is_continued_by(&self, other: &Self) -> bool {
        self.genesis.network() == other.genesis.network()
            && other.headers.starts_with(&self.headers)
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

    /// Who takes part, as of the newest block that the file knows, and its height.
    pub const fn members(&self) -> (&Members, u64) {
        (&self.members, self.newest)
    }

    /// The committees, oldest first, each with its end but the last.
    pub fn eras(&self) -> Eras<'_> {
        Eras {
            network: self.genesis.network(),
            rounds: self.genesis.charter().rounds.length(),
            eras: &self.eras,
        }
    }

    /// The newest committee that is known.
    pub fn committee(&self) -> &Committee {
        &self.eras[self.eras.len() - 1].committee
    }

    /// What receipts are checked against.
    pub fn anchors(&self) -> Anchors<'_> {
        Anchors {
            eras: self.eras(),
            providers: &self.providers,
            sdis: &self.sdis,
            reveal_s: self.genesis.charter().terms.reveal_s,
        }
    }
}

impl FinalBlock {
    /// The handover that this block makes, encoded; `None` if it changes neither the committee nor
    /// the members, or cannot be shown to be final.
    pub fn handover(&self) -> Option<Vec<u8>> {
        let header = self.header();
        if header.next_committee.is_none() && header.members.is_none() {
            return None;
        }
        let delta = self.verified().delta();
        let members = self.verified().members_change().map(MembersChange::encode);
        let handover = Handover {
            header: header.clone(),
            finality: self.finality()?,
            committee: header.next_committee.map(|_| delta.round.committee.clone()),
            members: members.as_deref(),
        };
        let mut bytes = Vec::new();
        codec::encode_infallible(&handover, &mut bytes);
        Some(bytes)
    }
}

//! Votes to finalize under the committee's real keys, for whoever is given them.

use bkss_ledger::Refusal;
use bkss_scheme::{
    Certificate, Digest, LedgerTime, Network, certificate::VoteContent, finality::Finality,
    timestamp::TimeProof,
};

use super::{Scene, encoded, vote_key};

/// The view of every block of a scene.
const VIEW: u64 = 7;

/// Signers and signatures of a certificate.
pub(crate) struct Votes {
    epoch: u64,
    signers: u32,
    signatures: Vec<u8>,
}

impl Votes {
    /// As a certificate without descendants.
    pub(crate) fn finality(&self) -> Finality<'_> {
        let Self { epoch, signers, signatures } = self;
        let (epoch, signers, parent_view) = (*epoch, *signers, VIEW - 1);
        let certificate = Certificate { epoch, view: VIEW, parent_view, signers, signatures };
        Finality { descendants: &[], certificate }
    }
}

impl Scene {
    /// Signatures of the first members that make a quorum.
    pub(super) fn quorum_votes(&self, block: Digest) -> Votes {
        let members: Vec<_> = (0..self.committee().quorum()).collect();
        self.votes_of(&members, self.network(), block)
    }

    /// Signatures of these members on a block of this round, as the engine's votes to finalize.
    pub(crate) fn votes_of(&self, members: &[usize], network: Network, block: Digest) -> Votes {
        let content = VoteContent::Finalize { parent_view: VIEW - 1, block };
        let epoch = self.state.round().number;
        let message = content.message(network, epoch, VIEW).unwrap_or_default();
        let committee = self.committee();
        let mut members = members.to_vec();
        members.sort_unstable();
        let signer = |member: &usize| {
            self.votes.iter().find(|vote| vote_key(vote) == committee.keys()[*member])
        };
        Votes {
            epoch,
            signers: members.iter().map(|member| 1 << member).sum(),
            signatures: members
                .iter()
                .filter_map(signer)
                .flat_map(|key| <[u8; 64]>::from(key.sign(&message)))
                .collect(),
        }
    }

    /// Encoded proof of a header's time under these members' votes.
    pub(crate) fn time_proof(
        &self,
        members: &[usize],
        time: LedgerTime,
    ) -> Result<Vec<u8>, Refusal> {
        let header = self.header(time)?;
        let votes = self.votes_of(members, self.network(), header.id());
        Ok(encoded(&TimeProof { header, finality: votes.finality() }))
    }
}

//! What a node says of a meter: its newest chain, and who answers for it.

use bkss_ledger::{Chain, Members, membership::RegistrationRefusal};
use bkss_scheme::{
    LedgerTime, MeterId, Network, PublicKey, RootMessage, SdiId, codec,
    timestamp::RegistrationProof,
};

use crate::{client::Client, command::CommandError};

/// What a node says of a meter, for checks before anything is signed.
pub(crate) struct KnownMeter {
    /// The node.
    pub(crate) client: Client,
    /// Members of the consortium.
    pub(crate) members: Members,
    /// The meter's newest chain.
    pub(crate) last: RootMessage,
    /// Time of the newest block.
    pub(crate) time: LedgerTime,
}

impl KnownMeter {
    /// Asks a node.
    ///
    /// # Errors
    ///
    /// [`CommandError::Node`].
    pub(crate) fn ask(url: &str, meter: MeterId) -> Result<Self, CommandError> {
        let client = Client::new(url)?;
        let (members, time) = (client.ledger_members()?, LedgerTime(client.head()?.time_ms));
        let last = newest_chain(&client, meter)?;
        Ok(Self { client, members, last, time })
    }

    /// Its newest chain, as the ledger keeps it.
    pub(crate) fn chain(&self, network: Network) -> Chain {
        Chain::new(&self.last, self.last.id(network))
    }

    /// The key of a present SDI.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`].
    pub(crate) fn sdi_key(&self, id: SdiId) -> Result<PublicKey, CommandError> {
        let unknown = || CommandError::Refused(RegistrationRefusal::UnknownSdi(id).to_string());
        self.members.sdi(id).map(|sdi| sdi.key).ok_or_else(unknown)
    }

    /// The key of the owner; a provider that has left still answers for its meters.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`].
    pub(crate) fn owner_key(&self) -> Result<PublicKey, CommandError> {
        let id = self.last.owner;
        let unknown = || CommandError::Refused(RegistrationRefusal::UnknownOwner(id).to_string());
        self.members.provider_ever(id).map(|owner| owner.key).ok_or_else(unknown)
    }
}

/// A meter's newest chain on the ledger.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn newest_chain(client: &Client, meter: MeterId) -> Result<RootMessage, CommandError> {
    let bytes = client.registration_proof(meter)?;
    let proof: RegistrationProof<'_> =
        codec::decode("registration", &bytes).map_err(CommandError::refused(client.url()))?;
    Ok(proof.registration.message)
}

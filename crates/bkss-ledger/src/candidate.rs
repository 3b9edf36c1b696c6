//! A transaction that may go into a block, with what is known of its signatures.
//!
//! Signatures are checked once, where a transaction arrives; the keys of a member, an SDI and a chain
//! never change, so that what held once holds in any block. Who has a say there may change. Rules are
//! cheap and come first ([`admit`]); the signatures are checked apart from the ledger's state
//! ([`Admitted::check`]), so that nobody has to hold a lock meanwhile.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bkss_scheme::{Digest, Network, ProviderId, PublicKey, root_message::Registered};

use crate::{
    Block, Chain, Members, Transaction, View,
    execute::{TransactionRefusal, check_batch, check_items, check_revocation},
    membership::{Vouchers, check_room, check_rules},
    revocation::{RevocationRefusal, Right},
    transaction_batch::Row,
};

/// What is known of the signatures of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Signed {
    /// Nothing.
    Unknown,
    /// The gateway's signature of a batch holds.
    Batch,
    /// The signatures of a registration hold.
    Registration(Box<Registered>),
    /// Those of anything else hold; whether who has signed may is another question.
    Other,
}

/// A transaction that may go into a block, cheap to clone.
#[derive(Clone, Debug)]
pub struct Candidate {
    transaction: Arc<Transaction>,
    digest: Digest,
    leaf: Digest,
    signed: Signed,
}

impl Candidate {
    /// A transaction whose signatures nobody has checked.
    pub fn unchecked(network: Network, transaction: Transaction) -> Self {
        let digest = transaction.digest(network);
        let leaf = transaction.leaf(&digest);
        Self { transaction: transaction.into(), digest, leaf, signed: Signed::Unknown }
    }

    /// The transaction.
    pub const fn transaction(&self) -> &Arc<Transaction> {
        &self.transaction
    }

    /// What is signed of it.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Digest and signatures: what tells it from a copy with others.
    pub const fn leaf(&self) -> Digest {
        self.leaf
    }

    pub(crate) const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Whether it has all it needs to travel in a block: an opening batch all bodies.
    pub fn is_complete(&self) -> bool {
        match &*self.transaction {
            Transaction::Openings(batch) => batch.is_complete(),
            _ => true,
        }
    }

    /// The gateway of a batch of openings.
    pub fn openings_of(&self) -> Option<ProviderId> {
        match &*self.transaction {
            Transaction::Openings(batch) => Some(batch.submitter),
            _ => None,
        }
    }
}

/// What is known of the signatures in a block before it is executed, by leaf.
#[derive(Clone, Debug, Default)]
pub struct Checked(BTreeMap<Digest, Signed>);

impl Checked {
    /// Remembers that the signatures of a candidate hold, if that is known of it and holds in any
    /// block.
    pub fn remember(&mut self, candidate: &Candidate) {
        if !matches!(candidate.signed, Signed::Unknown) {
            self.0.insert(candidate.leaf, candidate.signed.clone());
        }
    }

    /// The transactions of a block whose signatures are not known to hold, each with the keys to check
    /// them with. What breaks a rule on top of the view is left out: executing the
    /// block says why.
    pub fn missing(&self, view: &View<'_>, block: &Block) -> Vec<Admitted> {
        let network = view.genesis().network();
        let mut missing = Vec::new();
        for (transaction, digest) in block.transactions().iter().zip(block.digests()) {
            if self.0.contains_key(&transaction.leaf(digest)) {
                continue;
            }
            let candidate = Candidate::unchecked(network, transaction.clone());
            missing.extend(admit(view, candidate).ok());
        }
        missing
    }

    pub(crate) fn signed(&self, leaf: &Digest) -> &Signed {
        self.0.get(leaf).unwrap_or(&Signed::Unknown)
    }
}

/// What is kept apart within a share.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Openings,
    Requests,
    Other,
}

impl Kind {
    pub(crate) const fn of(transaction: &Transaction) -> Self {
        match transaction {
            Transaction::Openings(_) => Self::Openings,
            Transaction::Requests(_) => Self::Requests,
            _ => Self::Other,
        }
    }
}

/// Whose share of pools and blocks a transaction counts against.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Share {
    /// A provider's.
    Of(ProviderId),
    /// That of the changes which a quorum has approved: nobody's own, whoever brings them.
    Quorum,
    /// That of the evidence.
    Evidence,
    /// That of the revocations by secret.
    Secret,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(provider) => write!(f, "provider {provider}"),
            Self::Quorum => f.write_str("approved changes"),
            Self::Evidence => f.write_str("evidence"),
            Self::Secret => f.write_str("revocations by secret"),
        }
    }
}

/// Whose share of pools and blocks a transaction counts against.
pub fn share_of(view: &View<'_>, transaction: &Transaction) -> Share {
    match transaction {
        Transaction::Registration(registration) => Share::Of(registration.message.owner),
        Transaction::Change(change) => change.made_by().map_or(Share::Quorum, Share::Of),
        Transaction::Vote(vote) => Share::Of(vote.voter),
        Transaction::Revocation(revocation) => match revocation.right {
            Right::Signed { .. } => {
                let chain = view.row(revocation.meter).and_then(|row| view.chain(row));
                // Without a chain no rule lets it through.
                chain.map_or(Share::Secret, |chain| Share::Of(chain.owner))
            }
            Right::Secret(_) => Share::Secret,
        },
        Transaction::Evidence(_) => Share::Evidence,
        Transaction::Requests(batch) => Share::Of(batch.submitter),
        Transaction::Openings(batch) => Share::Of(batch.submitter),
    }
}

/// A candidate whose rules hold; its signatures are still to be checked.
#[derive(Debug)]
pub struct Admitted {
    candidate: Candidate,
    share: Share,
    keys: Keys,
    network: Network,
}

/// With what signatures are checked.
#[derive(Debug)]
enum Keys {
    Gateway(PublicKey),
    Vouchers(Vouchers),
    Members(Arc<Members>),
    Chain(Arc<Members>, Chain),
}

/// Checks the rules of a transaction that may wait for a block on top of a view: all that is cheap.
///
/// # Errors
///
/// [`TransactionRefusal`]: the first rule that does not hold.
pub fn admit(view: &View<'_>, candidate: Candidate) -> Result<Admitted, TransactionRefusal> {
    let (members, genesis) = (view.members(), view.genesis());
    let share = share_of(view, &candidate.transaction);
    let everybody = || Keys::Members(members.clone());
    let keys = match &*candidate.transaction {
        Transaction::Registration(registration) => {
            let message = &registration.message;
            let live = |row| view.live(row);
            let vouchers = check_rules(view, members, view.head().time, message, live)?;
            let taken = (view.chain_count(), view.chains_of(message.owner));
            check_room(&genesis.charter().limits, message.owner, taken)?;
            Keys::Vouchers(vouchers)
        }
        Transaction::Change(change) => {
            change.check_rules(members, genesis.charter().agreement, view.round().number)?;
            view.round().check_own(change, view.head().time)?;
            everybody()
        }
        Transaction::Vote(vote) => {
            vote.check_rules(members, view.round())?;
            everybody()
        }
        Transaction::Evidence(evidence) => {
            view.check_offence(&evidence.offence, &[])?;
            everybody()
        }
        Transaction::Revocation(revocation) => {
            let row = check_revocation(view, revocation)?;
            let unknown = RevocationRefusal::UnknownChain(revocation.meter);
            let chain = view.chain(row).ok_or(unknown)?.clone();
            Keys::Chain(members.clone(), chain)
        }
        Transaction::Requests(batch) => {
            Keys::Gateway(check_gateway(view, batch.submitter, &batch.rows)?)
        }
        Transaction::Openings(batch) => {
            let gateway = batch.submitter;
            if !batch.is_complete() {
                return Err(TransactionRefusal::Incomplete { gateway });
            }
            Keys::Gateway(check_gateway(view, gateway, &batch.rows)?)
        }
    };
    Ok(Admitted { candidate, share, keys, network: genesis.network() })
}

/// The key of a gateway whose batch names registered chains only.
fn check_gateway(
    view: &View<'_>,
    gateway: ProviderId,
    rows: &[Row],
) -> Result<PublicKey, TransactionRefusal> {
    check_items(rows.len(), view.genesis().charter().limits.batch_items)?;
    let registered = view.chain_count();
    // They ascend.
    if let Some(row) = rows.last().copied().filter(|row| *row >= registered) {
        return Err(TransactionRefusal::UnknownRow { gateway, row, registered });
    }
    let provider = view.members().provider(gateway);
    Ok(provider.ok_or(TransactionRefusal::UnknownGateway(gateway))?.key)
}

impl Admitted {
    /// Whose share it counts against, if it is signed by whom it says.
    pub const fn share(&self) -> Share {
        self.share
    }

    /// Digest and signatures.
    pub const fn leaf(&self) -> Digest {
        self.candidate.leaf
    }

    /// Checks the signatures, and returns the candidate and whose share it counts against.
    ///
    /// # Errors
    ///
    /// [`TransactionRefusal`], naming whose signature does not hold.
    pub fn check(self) -> Result<(Candidate, Share), TransactionRefusal> {
        let Self { mut candidate, share, keys, network } = self;
        let transaction = candidate.transaction.clone();
        match (&*transaction, keys) {
            (Transaction::Registration(registration), Keys::Vouchers(vouchers)) => {
                let registered = vouchers.check(network, registration)?;
                candidate.signed = Signed::Registration(registered.into());
            }
            (Transaction::Requests(batch), Keys::Gateway(key)) => {
                let digest = &candidate.digest;
                check_batch(batch.submitter, key, digest, &batch.signature, &Signed::Unknown)?;
                candidate.signed = Signed::Batch;
            }
            (Transaction::Openings(batch), Keys::Gateway(key)) => {
                let digest = &candidate.digest;
                check_batch(batch.submitter, key, digest, &batch.signature, &Signed::Unknown)?;
                candidate.signed = Signed::Batch;
            }
            (Transaction::Change(change), Keys::Members(members)) => {
                change.check_signatures(&members, network)?;
                candidate.signed = Signed::Other;
            }
            (Transaction::Vote(vote), Keys::Members(members)) => {
                vote.check_signature(&members, network)?;
                candidate.signed = Signed::Other;
            }
            (Transaction::Evidence(evidence), Keys::Members(members)) => {
                evidence.check(&members, network)?;
                candidate.signed = Signed::Other;
            }
            (Transaction::Revocation(revocation), Keys::Chain(members, chain)) => {
                revocation.check(&members, network, &chain)?;
                candidate.signed = Signed::Other;
            }
            // `admit` pairs them.
            _ => return Err(TransactionRefusal::NoKeys),
        }
        Ok((candidate, share))
    }
}

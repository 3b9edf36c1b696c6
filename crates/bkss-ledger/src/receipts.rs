//! From final blocks to receipts (scheme s4.7).
//!
//! A [`Witness`] follows the final blocks of a ledger and issues a receipt for each accepted
//! opening. It holds what the receipts of still pending requests will need, no longer than the
//! ledger holds the requests themselves. A receipt issued before the links of its block are public
//! carries no `C_i`; [`LinkPaths::complete`] adds it later.

use std::{collections::BTreeMap, sync::Arc};

use bkss_scheme::{
    Digest, Header, LinkIndex, Malformed, MeterId, ProviderId, Timestamp,
    codec::{self, MAX_BODY},
    finality::Finality,
    hash_chain::{self, Blocks},
    merkle,
    receipt::Receipt,
    root_message::Registration,
    seal::Body,
    slot::Schedule,
    timestamp::{Inclusion, RegistrationProof, TimeProof},
};

use crate::{
    Genesis, Transaction, Verified, execute::AcceptedOpening, proof_tree::ProofTree,
    transaction_batch::Row,
};

/// A verified block and why it is final.
#[derive(Clone, Debug)]
pub struct FinalBlock {
    verified: Arc<Verified>,
    /// Encoded [`Finality`]; `None` if too many blocks lie between it and a certificate.
    finality: Option<Arc<[u8]>>,
}

impl FinalBlock {
    /// A block with its finality.
    pub fn new(verified: Arc<Verified>, finality: &Finality<'_>) -> Self {
        let mut bytes = Vec::new();
        codec::encode_infallible(finality, &mut bytes);
        Self { verified, finality: Some(bytes.into()) }
    }

    /// A block that is final, too far from a certificate for a proof of it.
    pub const fn unproven(verified: Arc<Verified>) -> Self {
        Self { verified, finality: None }
    }

    /// The block and what it did.
    pub const fn verified(&self) -> &Arc<Verified> {
        &self.verified
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        self.verified.block().header()
    }

    /// Why it is final, if that can be shown.
    ///
    /// # Panics
    ///
    /// Never: it was encoded by [`Self::new`].
    pub fn finality(&self) -> Option<Finality<'_>> {
        let bytes = self.finality.as_ref()?;
        Some(codec::decode("finality", bytes).expect("encoded by this type"))
    }

    /// What a meter takes as proof of ledger time, encoded.
    pub fn time_proof(&self) -> Option<Vec<u8>> {
        let finality = self.finality()?;
        Some(encode(&TimeProof { header: self.header().clone(), finality }))
    }
}

/// A final block with the trees its proofs are taken from.
#[derive(Debug)]
struct Provable {
    block: FinalBlock,
    transactions: ProofTree,
    requests: ProofTree,
    openings: ProofTree,
}

impl Provable {
    fn new(block: FinalBlock) -> Self {
        let verified = &block.verified;
        Self {
            transactions: ProofTree::new(verified.block().leaves()),
            requests: ProofTree::new(verified.requests().iter().map(|r| r.leaf).collect()),
            openings: ProofTree::new(verified.openings().iter().map(|o| o.leaf).collect()),
            block,
        }
    }

    fn inclusion(&self, tree: &ProofTree, index: u32) -> Option<Inclusion<'_>> {
        let header = self.block.header().clone();
        Some(Inclusion { index, path: tree.path(index)?, header, finality: self.block.finality()? })
    }
}

/// A receipt as it was issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issued {
    /// The meter.
    pub meter: MeterId,
    /// The link.
    pub index: LinkIndex,
    /// The encoded receipt.
    pub receipt: Vec<u8>,
}

/// Follows final blocks and issues receipts for the meters of one owner, or of all.
#[derive(Debug)]
pub struct Witness {
    genesis: Arc<Genesis>,
    owner: Option<ProviderId>,
    /// By registry number: a meter's chains each have readings of their own.
    chains: BTreeMap<Row, Followed>,
    /// The newest chain of each meter.
    newest: BTreeMap<MeterId, Row>,
    /// The registry number of the next chain.
    next: Row,
}

#[derive(Debug)]
struct Followed {
    registration: Registration,
    registered: (Arc<Provable>, u32),
    pending: Vec<Stamped>,
}

#[derive(Debug)]
struct Stamped {
    index: LinkIndex,
    submitter: ProviderId,
    value: Digest,
    block: Arc<Provable>,
    position: u32,
}

impl Witness {
    /// Follows a ledger from its first block; `owner` restricts it to that provider's meters.
    pub const fn new(genesis: Arc<Genesis>, owner: Option<ProviderId>) -> Self {
        Self { genesis, owner, chains: BTreeMap::new(), newest: BTreeMap::new(), next: 0 }
    }

    /// Takes in the next final block and returns the receipts it completes.
    pub fn follow(&mut self, block: FinalBlock) -> Vec<Issued> {
        let provable = Arc::new(Provable::new(block));
        let verified = provable.block.verified.clone();
        self.registrations(&provable, &verified);
        for (position, request) in (0..).zip(verified.requests()) {
            if let Some(followed) = self.chains.get_mut(&request.row) {
                let schedule = followed.registration.message.schedule;
                let (time, reveal_s) =
                    (provable.block.header().time, self.genesis.charter().terms.reveal_s);
                followed.pending.retain(|stamped| still_open(&schedule, stamped, time, reveal_s));
                followed.pending.push(Stamped {
                    index: request.index,
                    submitter: request.submitter,
                    value: request.value,
                    block: provable.clone(),
                    position,
                });
            }
        }
        let bodies: Vec<Vec<_>> = verified.block().transactions().iter().map(bodies).collect();
        let issued = (0..).zip(verified.openings()).filter_map(|(position, opening)| {
            let (transaction, item) = opening.place;
            let body = bodies.get(transaction as usize)?.get(item as usize)?;
            self.issue(&provable, position, opening, body.as_ref()?)
        });
        issued.collect()
    }

    /// What a meter checks before its first release, encoded; `None` if it is not registered or
    /// not followed.
    pub fn registration_proof(&self, meter: MeterId) -> Option<Vec<u8>> {
        let followed = self.chains.get(self.newest.get(&meter)?)?;
        let (block, position) = &followed.registered;
        let proof = RegistrationProof {
            registration: followed.registration.clone(),
            inclusion: block.inclusion(&block.transactions, *position)?,
        };
        Some(encode(&proof))
    }

    fn registrations(&mut self, provable: &Arc<Provable>, verified: &Verified) {
        let transactions = verified.block().transactions();
        for (position, transaction) in (0..).zip(transactions) {
            let Transaction::Registration(registration) = transaction else { continue };
            let row = self.next;
            self.next = row.saturating_add(1);
            if self.owner.is_some_and(|owner| owner != registration.message.owner) {
                continue;
            }
            let meter = registration.message.meter;
            let followed = Followed {
                registration: registration.clone(),
                registered: (provable.clone(), position),
                pending: Vec::new(),
            };
            self.chains.insert(row, followed);
            self.newest.insert(meter, row);
        }
    }

    fn issue(
        &mut self,
        provable: &Provable,
        position: u32,
        accepted: &AcceptedOpening,
        body: &Body<'_>,
    ) -> Option<Issued> {
        let opening = &accepted.opening;
        let followed = self.chains.get_mut(&accepted.row)?;
        let (value, submitter) = accepted.request;
        let same =
            |s: &&Stamped| s.index == opening.index && s.value == value && s.submitter == submitter;
        let stamped = followed.pending.iter().find(same)?;
        let mut buffer = [0; MAX_BODY];
        let (registered, registered_at) = &followed.registered;
        let receipt = Receipt {
            network: self.genesis.network(),
            registration: followed.registration.clone(),
            registered: registered.inclusion(&registered.transactions, *registered_at)?,
            index: opening.index,
            link: opening.link.clone(),
            link_path: None,
            body: codec::encode_into(body, &mut buffer)?,
            timestamp: Timestamp {
                submitter,
                value,
                inclusion: stamped.block.inclusion(&stamped.block.requests, stamped.position)?,
            },
            opened: provable.inclusion(&provable.openings, position)?,
        };
        let receipt = encode(&receipt);
        followed.pending.retain(|stamped| stamped.index != opening.index);
        Some(Issued { meter: opening.meter, index: opening.index, receipt })
    }
}

/// Bodies of a transaction, `None` for erased ones.
fn bodies(transaction: &Transaction) -> Vec<Option<Body<'_>>> {
    match transaction {
        Transaction::Openings(batch) => batch.bodies().iter().map(Result::ok).collect(),
        _ => Vec::new(),
    }
}

fn still_open(
    schedule: &Schedule,
    stamped: &Stamped,
    time: bkss_scheme::LedgerTime,
    reveal_s: u32,
) -> bool {
    time < schedule.closes(stamped.index) || schedule.accepts_opening(stamped.index, time, reveal_s)
}

/// The public roots of the blocks of a chain, with which `C_i` is built (scheme s5.2).
#[derive(Clone, Debug)]
pub struct LinkPaths {
    blocks: Blocks,
    roots: ProofTree,
}

/// Why `C_i` cannot be added to a receipt.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum PathError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{found} block roots, the chain has {expected} blocks")]
    Roots { expected: u32, found: usize },
    #[error("links up to {needed} are needed, {found} is the newest that is public")]
    NotPublic { needed: u32, found: u32 },
    #[error("block roots and links do not lead to the registered root")]
    Mismatch,
}

impl LinkPaths {
    /// From the block roots of a chain, in order.
    ///
    /// # Errors
    ///
    /// [`PathError::Roots`] unless there is one per block.
    pub fn new(blocks: Blocks, roots: Vec<Digest>) -> Result<Self, PathError> {
        if roots.len() != blocks.count() as usize {
            return Err(PathError::Roots { expected: blocks.count(), found: roots.len() });
        }
        Ok(Self { blocks, roots: ProofTree::new(roots) })
    }

    /// Adds `C_i` to an encoded receipt, given any link of the chain that is public and not before
    /// the end of the receipt's block.
    ///
    /// # Errors
    ///
    /// [`PathError`]; `NotPublic` as long as the block has links that are still secret.
    pub fn complete(
        &self,
        receipt: &[u8],
        public: (u32, &bkss_scheme::Link),
    ) -> Result<Vec<u8>, PathError> {
        let receipt: Receipt<'_> = codec::decode("receipt", receipt)?;
        let message = &receipt.registration.message;
        let salt = message.salt();
        if receipt.index.get() > self.blocks.slots() {
            return Err(PathError::Mismatch);
        }
        let number = self.blocks.of(receipt.index);
        let (first, last) = (self.blocks.first(number), self.blocks.last(number));
        let (found, link) = public;
        if found < last {
            return Err(PathError::NotPublic { needed: last, found });
        }
        let mut link = hash_chain::walk(salt, found, last, link);
        let mut leaves = Vec::new();
        for index in (first..=last).rev() {
            leaves.push(hash_chain::leaf(salt, index, &link));
            link = hash_chain::step(salt, index, &link);
        }
        leaves.reverse();
        let index = receipt.index.get();
        let path = merkle::path(&leaves, (index - first) as usize)
            .zip(self.roots.path(number))
            .and_then(|(lower, upper)| lower.join(&upper))
            .ok_or(PathError::Mismatch)?;
        let leaf = hash_chain::leaf(salt, index, &receipt.link);
        let slots = message.schedule.slots;
        if path.root(leaf, u64::from(index) - 1, slots.into()) != Some(message.root) {
            return Err(PathError::Mismatch);
        }
        Ok(encode(&Receipt { link_path: Some(path), ..receipt }))
    }
}

fn encode(value: &impl minicbor::Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_infallible(value, &mut bytes);
    bytes
}

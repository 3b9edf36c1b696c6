//! Blocks as they travel and are stored: a header and the transactions it commits to.
//!
//! `[header, [* transaction]]`. The bytes behind a header are bound to it while they are parsed: a
//! [`Block`] whose transactions are not those of its header cannot be made. What is not bound is
//! whether a body is still there or only its hash.

use bkss_scheme::{
    Digest, Header, Malformed, Network, TreeHead,
    codec::{self, Encoded},
    identity::signed_digest,
    merkle::{self, RootBuilder},
    root_message::Registration,
};
use minicbor::{Decode, Decoder, Encode, Encoder, data::Type, decode, encode};

use crate::{
    Change, Evidence, OpeningBatch, RequestBatch, Revocation, Vote, accounting_nodes, change,
    evidence, revocation, transaction_batch::Bodies,
};

/// Most transactions of a block.
pub const MAX_TRANSACTIONS: usize = 16_384;

/// Something that changes the ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Transaction {
    /// A meter joins: `[M_r, sdi_sig, sp_sig]`.
    Registration(Registration),
    /// Request values of one slot.
    Requests(RequestBatch),
    /// Openings of one slot.
    Openings(OpeningBatch),
    /// A provider or SDI joins, leaves, renews a key.
    Change(Change),
    /// A provider's vote for the next round's accounting nodes.
    Vote(Vote),
    /// A provider has voted twice.
    Evidence(Evidence),
    /// A meter's chain ends.
    Revocation(Revocation),
}

impl Transaction {
    /// What is signed. Two transactions with one digest say the same.
    pub fn digest(&self, network: Network) -> Digest {
        match self {
            Self::Registration(registration) => signed_digest(network, &registration.message),
            Self::Requests(batch) => batch.digest(network),
            Self::Openings(batch) => batch.digest(network),
            Self::Change(change) => change.digest(network),
            Self::Vote(vote) => vote.digest(network),
            Self::Evidence(evidence) => evidence.digest(network),
            Self::Revocation(revocation) => revocation.digest(network),
        }
    }

    /// Leaf in the block's tree of transactions: `H(00 | digest | signatures)`.
    pub fn leaf(&self, digest: &Digest) -> Digest {
        match self {
            Self::Registration(registration) => merkle::leaf(&[
                &digest.0,
                &registration.sdi_signature.0,
                &registration.owner_signature.0,
            ]),
            Self::Requests(batch) => merkle::leaf(&[&digest.0, &batch.signature.0]),
            Self::Openings(batch) => merkle::leaf(&[&digest.0, &batch.signature.0]),
            Self::Change(change) => change.leaf(digest),
            Self::Vote(vote) => vote.leaf(digest),
            Self::Evidence(evidence) => evidence.leaf(digest),
            Self::Revocation(revocation) => revocation.leaf(digest),
        }
    }

    /// Parses a transaction that travels alone.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode("transaction", bytes)
    }

    /// The bytes of a transaction that travels alone.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_infallible(self, &mut bytes);
        bytes
    }
}

impl<C> Encode<C> for Transaction {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        match self {
            Self::Registration(registration) => Encode::encode(registration, encoder, ctx),
            Self::Requests(batch) => Encode::encode(batch, encoder, ctx),
            Self::Openings(batch) => Encode::encode(batch, encoder, ctx),
            Self::Change(change) => Encode::encode(change, encoder, ctx),
            Self::Vote(vote) => Encode::encode(vote, encoder, ctx),
            Self::Evidence(evidence) => Encode::encode(evidence, encoder, ctx),
            Self::Revocation(revocation) => Encode::encode(revocation, encoder, ctx),
        }
    }
}

impl<'b, C> Decode<'b, C> for Transaction {
    fn decode(decoder: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        // A registration begins with its root message, all others with their number.
        let at = decoder.position();
        let mut probe = decoder.probe();
        probe.array()?;
        if probe.datatype()? == Type::Array {
            return Decode::decode(decoder, ctx).map(Self::Registration);
        }
        match probe.u8()? {
            3 => Decode::decode(decoder, ctx).map(Self::Requests),
            4 => Decode::decode(decoder, ctx).map(Self::Openings),
            revocation::NUMBER => Decode::decode(decoder, ctx).map(Self::Revocation),
            evidence::NUMBER => Decode::decode(decoder, ctx).map(Self::Evidence),
            accounting_nodes::NUMBER => Decode::decode(decoder, ctx).map(Self::Vote),
            change::NUMBER => Decode::decode(decoder, ctx).map(Self::Change),
            _ => Err(decode::Error::message("unknown kind of transaction").at(at)),
        }
    }
}

/// A header and exactly the transactions it commits to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    header: Header,
    id: Digest,
    transactions: Vec<Transaction>,
    digests: Vec<Digest>,
}

/// Why bytes are no block.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum BlockError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("block of {found} bytes, at most {limit} are allowed")]
    TooLong { found: usize, limit: usize },
    #[error("transactions of block {height} are not those of its header")]
    Transactions { height: u64 },
}

impl Block {
    /// A block of these transactions; their tree is put into the header.
    pub fn new(network: Network, mut header: Header, transactions: Vec<Transaction>) -> Self {
        let digests: Vec<_> = transactions.iter().map(|tx| tx.digest(network)).collect();
        header.transactions = tree_head(&transactions, &digests);
        Self { id: header.id(), header, transactions, digests }
    }

    /// Parses a block of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`BlockError`] if it is too long, malformed, or its transactions are not its header's.
    pub fn decode(network: Network, bytes: &[u8], limit: usize) -> Result<Self, BlockError> {
        if bytes.len() > limit {
            return Err(BlockError::TooLong { found: bytes.len(), limit });
        }
        let Parts { header, transactions } = codec::decode("block", bytes)?;
        Self::check(network, header, transactions)
    }

    pub(crate) fn check(
        network: Network,
        header: Header,
        transactions: Vec<Transaction>,
    ) -> Result<Self, BlockError> {
        let height = header.height;
        let claimed = header.transactions;
        let block = Self::new(network, header, transactions);
        if block.header.transactions != claimed {
            return Err(BlockError::Transactions { height });
        }
        Ok(block)
    }

    /// The bytes of the block.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_infallible(self, &mut bytes);
        bytes
    }

    /// Length of [`Self::encode`].
    pub fn encoded_length(&self) -> usize {
        codec::length(self)
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Block id.
    pub const fn id(&self) -> Digest {
        self.id
    }

    /// The transactions, in order.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// Digest of each transaction, in order.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// Leaves of the tree of transactions.
    pub fn leaves(&self) -> Vec<Digest> {
        leaves(&self.transactions, &self.digests).collect()
    }

    /// Whether every sealed body is there, none erased.
    pub fn has_all_bodies(&self) -> bool {
        self.transactions.iter().all(|transaction| match transaction {
            Transaction::Openings(batch) => batch.bodies().erased() == 0,
            _ => true,
        })
    }

    /// Takes all bodies out, to be stored apart: one column per opening batch.
    pub fn take_bodies(&mut self) -> Vec<Bodies> {
        self.opening_batches().map(OpeningBatch::take_bodies).collect()
    }

    /// Puts bodies back in; false if some are not this block's.
    pub fn restore_bodies(&mut self, bodies: Vec<Bodies>) -> bool {
        let mut bodies = bodies.into_iter();
        let restored = self
            .opening_batches()
            .all(|batch| bodies.next().is_some_and(|bodies| batch.restore_bodies(bodies)));
        restored && bodies.next().is_none()
    }

    fn opening_batches(&mut self) -> impl Iterator<Item = &mut OpeningBatch> {
        self.transactions.iter_mut().filter_map(|transaction| match transaction {
            Transaction::Openings(batch) => Some(batch),
            _ => None,
        })
    }

    /// Erases the body of an item of an opening batch. False if it is not there.
    pub fn erase_body(&mut self, transaction: usize, position: u32) -> bool {
        match self.transactions.get_mut(transaction) {
            Some(Transaction::Openings(batch)) => batch.erase(position),
            _ => false,
        }
    }
}

fn leaves<'a>(
    transactions: &'a [Transaction],
    digests: &'a [Digest],
) -> impl Iterator<Item = Digest> + 'a {
    transactions.iter().zip(digests).map(|(transaction, digest)| transaction.leaf(digest))
}

fn tree_head(transactions: &[Transaction], digests: &[Digest]) -> Option<TreeHead> {
    let mut tree = RootBuilder::default();
    for leaf in leaves(transactions, digests) {
        tree.push(leaf);
    }
    tree.root().map(|root| TreeHead { count: tree.count(), root })
}

impl<C> Encode<C> for Block {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(2)?.encode(&self.header)?.encode(&self.transactions)?.ok()
    }
}

/// A block as it is parsed, before its transactions are compared with its header.
pub(crate) struct Parts {
    pub(crate) header: Header,
    pub(crate) transactions: Vec<Transaction>,
}

impl<C> Encode<C> for Parts {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(2)?.encode(&self.header)?.encode(&self.transactions)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Parts {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 2)?;
        let header = decoder.decode()?;
        let count = codec::array_of_at_most(decoder, MAX_TRANSACTIONS)?;
        let transactions = (0..count).map(|_| decoder.decode()).collect::<Result<_, _>>()?;
        Ok(Self { header, transactions })
    }
}

//! A receipt: everything needed to check one reading offline, given the genesis alone (s4.7).
//!
//! `[1, net, [registration, inclusion], [i, v_i, C_i / null], body, T_s, inclusion]`
//!
//! The checks have names and an order. The first that fails ends the verdict with what was expected
//! and what was found; the rest are not reached. `C_i` can be built once the links of its block
//! are public; a receipt issued earlier carries none, and the link is then checked by walking down
//! to `v_0` alone.

use core::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::{
    Digest, LedgerTime, Link, LinkIndex, Network, ProviderIdentity, SdiIdentity, Timestamp,
    certificate::NotFinal,
    codec::{self, Encoded, MAX_BODY},
    finality::{Certified, Eras},
    hash, hash_chain,
    merkle::Path,
    request,
    root_message::{Registered, Registration, RegistrationError},
    timestamp::Inclusion,
    transaction::opening_leaf,
};

/// What a verifier trusts: all of it follows from the genesis and the handovers behind it.
#[derive(Clone, Copy, Debug)]
pub struct Anchors<'a> {
    /// The network, and who certifies its blocks.
    pub eras: Eras<'a>,
    /// Service providers.
    pub providers: &'a [ProviderIdentity],
    /// Signing-device infrastructures.
    pub sdis: &'a [SdiIdentity],
    /// `R`: seconds after the start of a slot in which an opening is accepted.
    pub reveal_s: u32,
}

/// One reading with its proofs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt<'a> {
    /// The network it belongs to.
    pub network: Network,
    /// The meter's registration.
    pub registration: Registration,
    /// Where it is on the ledger.
    pub registered: Inclusion<'a>,
    /// `i`.
    pub index: LinkIndex,
    /// `v_i`.
    pub link: Link,
    /// `C_i`, if it could be built when the receipt was issued.
    pub link_path: Option<Path>,
    /// The sealed body, encoded.
    pub body: &'a [u8],
    /// `T_s`.
    pub timestamp: Timestamp<'a>,
    /// The opening among those the ledger accepted.
    pub opened: Inclusion<'a>,
}

impl<C> Encode<C> for Receipt<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(7)?.u8(1)?.encode(self.network)?;
        encoder.array(2)?.encode(&self.registration)?.encode(&self.registered)?;
        encoder.array(3)?.encode(self.index)?.encode(&self.link)?.encode(&self.link_path)?;
        encoder.bytes(self.body)?.encode(&self.timestamp)?.encode(&self.opened)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Receipt<'b> {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 7)?;
        codec::constant(decoder, 1)?;
        let network = decoder.decode()?;
        codec::array(decoder, 2)?;
        let (registration, registered) = (decoder.decode()?, decoder.decode()?);
        codec::array(decoder, 3)?;
        Ok(Self {
            network,
            registration,
            registered,
            index: decoder.decode()?,
            link: decoder.decode()?,
            link_path: codec::optional(decoder, Decoder::decode)?,
            body: codec::bytes_of_at_most(decoder, MAX_BODY)?,
            timestamp: decoder.decode()?,
            opened: decoder.decode()?,
        })
    }
}

/// The checks of a receipt, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(usize)]
pub enum Check {
    /// SDI and owner signed the chain's root message, and it is on the ledger.
    Registration,
    /// Walking `v_i` down gives the registered `v_0`.
    ChainLink,
    /// `v_i` and `C_i` give the registered root `r`.
    TreePath,
    /// `q` follows from the body and `v_i`.
    Commitment,
    /// `q` is among the requests that the stamping block accepted.
    TimestampPath,
    /// The block's time lies in the slot `g_0 + i - 1`.
    SlotEquation,
    /// The request is inside the window, the opening behind it.
    Window,
    /// A quorum made every block final that this receipt rests on.
    Certificate,
    /// The opening is among those that its block accepted.
    Opening,
}

impl Check {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Registration,
        Self::ChainLink,
        Self::TreePath,
        Self::Commitment,
        Self::TimestampPath,
        Self::SlotEquation,
        Self::Window,
        Self::Certificate,
        Self::Opening,
    ];

    /// The name people and programs see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::ChainLink => "chain link",
            Self::TreePath => "tree path C_i",
            Self::Commitment => "commitment q",
            Self::TimestampPath => "time-stamp path",
            Self::SlotEquation => "slot equation",
            Self::Window => "window",
            Self::Certificate => "certificate",
            Self::Opening => "opening on the ledger",
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// It holds.
    Passed,
    /// It does not.
    Failed(Failure),
    /// An earlier check failed.
    NotReached,
    /// The receipt does not carry what it needs, and need not.
    NotCarried,
}

/// What was expected and what was found; the message of the error names both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "Display of expected and found names the fields")]
pub enum Failure {
    Network { expected: Network, found: Network },
    UnknownSdi(u16),
    UnknownOwner(u16),
    Signature(RegistrationError),
    NotInTree { tree: &'static str, block: u64 },
    IndexOutOfRange { slots: u32, found: u32 },
    Digest { what: &'static str, expected: Digest, found: Digest },
    Path { expected: Digest, found: Option<Digest> },
    Slot { expected: u64, found: u64 },
    Time { what: &'static str, from: LedgerTime, before: LedgerTime, found: LedgerTime },
    NotFinal { block: u64, reason: NotFinal },
}

impl Failure {
    /// What should have been there.
    pub fn expected(&self) -> impl fmt::Display {
        Side { failure: *self, expected: true }
    }

    /// What was there.
    pub fn found(&self) -> impl fmt::Display {
        Side { failure: *self, expected: false }
    }
}

struct Side {
    failure: Failure,
    expected: bool,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.failure, self.expected) {
            (Failure::Network { expected, .. }, true) => write!(f, "network {expected}"),
            (Failure::Network { found, .. }, false) => write!(f, "network {found}"),
            (Failure::UnknownSdi(_), true) => f.write_str("an SDI of this network"),
            (Failure::UnknownSdi(found), false) => write!(f, "SDI {found}"),
            (Failure::UnknownOwner(_), true) => f.write_str("a provider of this network"),
            (Failure::UnknownOwner(found), false) => write!(f, "provider {found}"),
            (Failure::Signature(_), true) => f.write_str("signatures of SDI and owner SP"),
            (Failure::Signature(found), false) => write!(f, "{found}"),
            (Failure::NotInTree { tree, block }, true) => {
                write!(f, "a leaf of the tree of {tree} of block {block}")
            }
            (Failure::NotInTree { .. }, false) => f.write_str("a path to another root"),
            (Failure::IndexOutOfRange { slots, .. }, true) => write!(f, "link 1 to {slots}"),
            (Failure::IndexOutOfRange { found, .. }, false) => write!(f, "link {found}"),
            (Failure::Digest { what, expected, .. }, true) => write!(f, "{what} {expected}"),
            (Failure::Digest { what, found, .. }, false) => write!(f, "{what} {found}"),
            (Failure::Path { expected, .. }, true) => write!(f, "root {expected}"),
            (Failure::Path { found: Some(found), .. }, false) => write!(f, "root {found}"),
            (Failure::Path { found: None, .. }, false) => f.write_str("a path of another length"),
            (Failure::Slot { expected, .. }, true) => write!(f, "slot {expected}"),
            (Failure::Slot { found, .. }, false) => write!(f, "slot {found}"),
            (Failure::Time { what, from, before, .. }, true) => {
                write!(f, "{what} from {from} ms to before {before} ms")
            }
            (Failure::Time { what, found, .. }, false) => write!(f, "{what} at {found} ms"),
            (Failure::NotFinal { block, .. }, true) => {
                write!(f, "block {block} signed by a quorum of the committee")
            }
            (Failure::NotFinal { reason, .. }, false) => write!(f, "{reason}"),
        }
    }
}

/// The outcome of all checks of one receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    statuses: [Status; Check::ALL.len()],
}

impl Verdict {
    /// Whether no check failed.
    pub fn valid(&self) -> bool {
        self.failure().is_none()
    }

    /// Each check with its outcome, in order.
    pub fn checks(&self) -> impl Iterator<Item = (Check, Status)> {
        Check::ALL.into_iter().zip(self.statuses)
    }

    /// The check that failed, if one did.
    pub fn failure(&self) -> Option<(Check, Failure)> {
        self.checks().find_map(|(check, status)| match status {
            Status::Failed(failure) => Some((check, failure)),
            _ => None,
        })
    }
}

/// What many receipts have in common. Whoever checks many under the same [`Anchors`] remembers what
/// held, and answers from that; what is not remembered is checked.
pub trait Common {
    /// A registration whose signatures hold.
    fn registered(&self, registration: &Registration) -> Option<Registered>;

    /// Signatures of a registration hold.
    fn remember_registered(&self, registration: &Registration, registered: &Registered);

    /// Whether a header is final by this proof.
    fn is_final(&self, inclusion: &Inclusion<'_>) -> bool;

    /// A header is final by this proof.
    fn remember_final(&self, inclusion: &Inclusion<'_>);

    /// The newest link at or before `index` that leads down to the chain's `v_0`.
    fn link_before(&self, chain: &Registered, index: u32) -> Option<(u32, Link)>;

    /// A link leads down to the chain's `v_0`.
    fn remember_link(&self, chain: &Registered, index: u32, link: &Link);
}

/// Nothing is remembered: each receipt is checked by itself.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Common for Alone {
    fn registered(&self, _: &Registration) -> Option<Registered> {
        None
    }

    fn remember_registered(&self, _: &Registration, _: &Registered) {}

    fn is_final(&self, _: &Inclusion<'_>) -> bool {
        false
    }

    fn remember_final(&self, _: &Inclusion<'_>) {}

    fn link_before(&self, _: &Registered, _: u32) -> Option<(u32, Link)> {
        None
    }

    fn remember_link(&self, _: &Registered, _: u32, _: &Link) {}
}

impl Receipt<'_> {
    /// Runs all checks.
    pub fn verify(&self, anchors: &Anchors<'_>) -> Verdict {
        self.verify_among(anchors, &Alone)
    }

    /// Runs all checks, with what other receipts under the same anchors have shown.
    pub fn verify_among(&self, anchors: &Anchors<'_>, common: &impl Common) -> Verdict {
        let mut statuses = [Status::NotReached; Check::ALL.len()];
        if let Err((check, failure)) = self.run(anchors, common, &mut statuses) {
            statuses[check as usize] = Status::Failed(failure);
        }
        Verdict { statuses }
    }

    fn run(
        &self,
        anchors: &Anchors<'_>,
        common: &impl Common,
        statuses: &mut [Status; Check::ALL.len()],
    ) -> Result<(), (Check, Failure)> {
        let mut pass = |check: Check| statuses[check as usize] = Status::Passed;
        let fail = |check: Check| move |failure| (check, failure);

        let registered =
            self.registration_among(anchors, common).map_err(fail(Check::Registration))?;
        pass(Check::Registration);
        self.chain_link_among(&registered, common).map_err(fail(Check::ChainLink))?;
        pass(Check::ChainLink);
        let carried = self.tree_path(&registered).map_err(fail(Check::TreePath))?;
        statuses[Check::TreePath as usize] =
            if carried { Status::Passed } else { Status::NotCarried };
        let mut pass = |check: Check| statuses[check as usize] = Status::Passed;
        self.commitment(&registered).map_err(fail(Check::Commitment))?;
        pass(Check::Commitment);
        self.timestamp_path(&registered).map_err(fail(Check::TimestampPath))?;
        pass(Check::TimestampPath);
        self.slot_equation(&registered).map_err(fail(Check::SlotEquation))?;
        pass(Check::SlotEquation);
        self.window(&registered, anchors.reveal_s).map_err(fail(Check::Window))?;
        pass(Check::Window);
        for inclusion in [&self.registered, &self.timestamp.inclusion, &self.opened] {
            if !common.is_final(inclusion) {
                finality(inclusion, anchors).map_err(fail(Check::Certificate))?;
                common.remember_final(inclusion);
            }
        }
        pass(Check::Certificate);
        self.opening(&registered).map_err(fail(Check::Opening))?;
        pass(Check::Opening);
        Ok(())
    }

    /// [`Check::Registration`], given who may register.
    ///
    /// # Errors
    ///
    /// [`Failure`] for another network, unknown or failing signers, or a path that ends elsewhere.
    pub fn registration(&self, anchors: &Anchors<'_>) -> Result<Registered, Failure> {
        self.registration_among(anchors, &Alone)
    }

    fn registration_among(
        &self,
        anchors: &Anchors<'_>,
        common: &impl Common,
    ) -> Result<Registered, Failure> {
        if self.network != anchors.eras.network {
            return Err(Failure::Network { expected: anchors.eras.network, found: self.network });
        }
        let message = &self.registration.message;
        let sdi = anchors.sdis.iter().find(|sdi| sdi.id == message.sdi);
        let sdi = sdi.ok_or(Failure::UnknownSdi(message.sdi.0))?;
        let owner = anchors.providers.iter().find(|sp| sp.id == message.owner);
        let owner = owner.ok_or(Failure::UnknownOwner(message.owner.0))?;
        let registered = match common.registered(&self.registration) {
            Some(registered) => registered,
            None => {
                let verified = self.registration.verify(anchors.eras.network, &sdi.key, &owner.key);
                let registered = verified.map_err(Failure::Signature)?;
                common.remember_registered(&self.registration, &registered);
                registered
            }
        };
        let header = &self.registered.header;
        let leaf = self.registration.leaf(anchors.eras.network);
        if !self.registered.contains(header.transactions, leaf) {
            return Err(Failure::NotInTree { tree: "transactions", block: header.height });
        }
        Ok(registered)
    }

    /// [`Check::ChainLink`]: at most n hashes.
    ///
    /// # Errors
    ///
    /// [`Failure`] for an index out of range or another `v_0`.
    pub fn chain_link(&self, registered: &Registered) -> Result<(), Failure> {
        self.chain_link_among(registered, &Alone)
    }

    fn chain_link_among(
        &self,
        registered: &Registered,
        common: &impl Common,
    ) -> Result<(), Failure> {
        let message = registered.message();
        let (slots, index) = (message.schedule.slots, self.index.get());
        if LinkIndex::new(index, slots).is_none() {
            return Err(Failure::IndexOutOfRange { slots, found: index });
        }
        // Where a link before this one is known the walk ends there.
        if let Some((before, known)) = common.link_before(registered, index)
            && hash_chain::walk(message.salt(), index, before, &self.link) == known
        {
            common.remember_link(registered, index, &self.link);
            return Ok(());
        }
        let reached = hash_chain::walk(message.salt(), index, 0, &self.link);
        if reached != message.anchor {
            return Err(Failure::Digest {
                what: "v_0",
                expected: Digest(*message.anchor.as_bytes()),
                found: Digest(*reached.as_bytes()),
            });
        }
        common.remember_link(registered, index, &self.link);
        Ok(())
    }

    /// [`Check::TreePath`]; false if the receipt carries no `C_i`.
    ///
    /// # Errors
    ///
    /// [`Failure::Path`].
    pub fn tree_path(&self, registered: &Registered) -> Result<bool, Failure> {
        let Some(path) = &self.link_path else { return Ok(false) };
        let message = registered.message();
        let index = self.index.get();
        let leaf = hash_chain::leaf(message.salt(), index, &self.link);
        let position = u64::from(index).wrapping_sub(1);
        let found = path.root(leaf, position, message.schedule.slots.into());
        if found == Some(message.root) {
            Ok(true)
        } else {
            Err(Failure::Path { expected: message.root, found })
        }
    }

    /// [`Check::Commitment`].
    ///
    /// # Errors
    ///
    /// [`Failure::Digest`].
    pub fn commitment(&self, registered: &Registered) -> Result<(), Failure> {
        let commitment = request::commitment(registered.id(), self.index, &hash::plain(self.body));
        let found = request::request_value(&commitment, &self.link);
        if found == self.timestamp.value {
            Ok(())
        } else {
            Err(Failure::Digest { what: "q", expected: self.timestamp.value, found })
        }
    }

    /// [`Check::TimestampPath`].
    ///
    /// # Errors
    ///
    /// [`Failure::NotInTree`].
    pub fn timestamp_path(&self, registered: &Registered) -> Result<(), Failure> {
        if self.timestamp.holds(registered.message().meter, self.index) {
            Ok(())
        } else {
            let block = self.timestamp.inclusion.header.height;
            Err(Failure::NotInTree { tree: "accepted requests", block })
        }
    }

    /// [`Check::SlotEquation`]: `g = g_0 + i - 1`.
    ///
    /// # Errors
    ///
    /// [`Failure::Slot`].
    pub fn slot_equation(&self, registered: &Registered) -> Result<(), Failure> {
        let schedule = &registered.message().schedule;
        let expected = schedule.slot(self.index).0;
        let found = schedule.slot_at(self.timestamp.inclusion.header.time).0;
        if expected == found { Ok(()) } else { Err(Failure::Slot { expected, found }) }
    }

    /// [`Check::Window`]: requests in `[start, start + W)`, openings in `[start + W, start + R)`.
    ///
    /// # Errors
    ///
    /// [`Failure::Time`].
    pub fn window(&self, registered: &Registered, reveal_s: u32) -> Result<(), Failure> {
        let schedule = &registered.message().schedule;
        let (from, before) = (schedule.opens(self.index), schedule.closes(self.index));
        let found = self.timestamp.inclusion.header.time;
        if !schedule.accepts_request(self.index, found) {
            return Err(Failure::Time { what: "request", from, before, found });
        }
        let found = self.opened.header.time;
        if !schedule.accepts_opening(self.index, found, reveal_s) {
            let end = LedgerTime(from.0.saturating_add(1000 * u64::from(reveal_s)));
            return Err(Failure::Time { what: "opening", from: before, before: end, found });
        }
        Ok(())
    }

    /// [`Check::Opening`].
    ///
    /// # Errors
    ///
    /// [`Failure::NotInTree`].
    pub fn opening(&self, registered: &Registered) -> Result<(), Failure> {
        let value = self.timestamp.value;
        let leaf = opening_leaf(registered.message().meter, self.index, &value);
        let header = &self.opened.header;
        if self.opened.contains(header.openings, leaf) {
            Ok(())
        } else {
            Err(Failure::NotInTree { tree: "accepted openings", block: header.height })
        }
    }
}

/// [`Check::Certificate`] of one of the three blocks.
///
/// # Errors
///
/// [`Failure::NotFinal`].
pub fn finality(inclusion: &Inclusion<'_>, anchors: &Anchors<'_>) -> Result<Certified, Failure> {
    let Inclusion { header, finality, .. } = inclusion;
    anchors
        .eras
        .certified(finality, header)
        .map_err(|reason| Failure::NotFinal { block: header.height, reason })
}

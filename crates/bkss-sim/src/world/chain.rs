//! The ledger as the world sees it: every final block that an honest provider has shown, and what
//! the invariants say of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bkss_ledger::{
    FinalBlock, Genesis, Head, State, Transaction, Trust, Verified, Witness,
    archive::Writer,
    audit::{Known, audit},
    change::Body,
    receipts::Issued,
    transaction_batch::Row,
};
use bkss_scheme::{
    Digest, LedgerTime, MeterId, ProviderId, Slot, codec, receipt::Receipt, request,
};

use super::{
    founding::OfMeter,
    invariants::{
        Admitted, ChangedOnce, ClosedWindow, Ended, FewChanges, InOrder, OneChain, OneChainASlot,
        OneOpening, Violation, approved_members, every_meter_weighs, every_receipt, later_time,
        walked_once,
    },
    link_of::LinkOf,
};

/// What the honest providers have shown.
pub(super) struct Chain {
    pub(super) genesis: Arc<Genesis>,
    issued: BTreeMap<Digest, OfMeter>,
    /// Blocks of each provider, by height.
    pub(super) shown: Vec<BTreeMap<u64, FinalBlock>>,
    one_chain: OneChain,
    in_order: InOrder,
    one_opening: OneOpening,
    one_chain_a_slot: OneChainASlot,
    changes: FewChanges,
    changed_once: ChangedOnce,
    /// Who may be a member.
    pub(super) admitted: Admitted,
    /// Public links.
    pub(super) windows: ClosedWindow,
    /// Revoked meters.
    pub(super) ended: Ended,
    /// The state after the newest block.
    pub(super) state: State,
    /// The states at the ends of the newest two rounds.
    pub(super) boundaries: Vec<State>,
    witness: Witness,
    pub(super) trust: Trust,
    /// Changes of committee and members, encoded, in order.
    pub(super) handovers: Vec<Vec<u8>>,
    /// Accepted request values.
    pub(super) requested: BTreeMap<LinkOf, Vec<Digest>>,
    /// Links of accepted openings.
    opened: BTreeSet<LinkOf>,
    /// Owners of the meters that have been opened.
    owners: BTreeMap<MeterId, ProviderId>,
    /// Registered chains of meters, by number.
    rows: BTreeMap<Row, OfMeter>,
    by_id: BTreeMap<Digest, Row>,
    /// Proof of each registration, by root message.
    pub(super) proofs: BTreeMap<Digest, Vec<u8>>,
    /// Proofs of what others have registered that repeats a meter's public values.
    pub(super) impostors: BTreeMap<MeterId, Vec<Vec<u8>>>,
    /// The newest block of each time behind a window, as a proof for meters.
    pub(super) time_proof: Option<(Head, Vec<u8>)>,
    /// Receipts.
    pub(super) receipts: Vec<Issued>,
}

impl Chain {
    /// Nothing is shown yet.
    pub(super) fn new(
        genesis: &Arc<Genesis>,
        issued: &BTreeMap<Digest, OfMeter>,
        providers: usize,
    ) -> Self {
        let founders: BTreeSet<_> =
            genesis.charter().providers.iter().map(|founder| founder.id).collect();
        let may_be_gone = BTreeSet::new();
        Self {
            issued: issued.clone(),
            shown: vec![BTreeMap::new(); providers],
            one_chain: OneChain::default(),
            in_order: InOrder::default(),
            one_opening: OneOpening::default(),
            one_chain_a_slot: OneChainASlot::default(),
            changes: FewChanges::default(),
            changed_once: ChangedOnce::default(),
            admitted: Admitted { may_be: founders.clone(), may_be_gone, founders },
            windows: ClosedWindow::default(),
            ended: Ended::default(),
            state: State::new(genesis.clone()),
            boundaries: Vec::new(),
            witness: Witness::new(genesis.clone(), None),
            trust: Trust::new(Genesis::clone(genesis)),
            handovers: Vec::new(),
            requested: BTreeMap::new(),
            opened: BTreeSet::new(),
            owners: BTreeMap::new(),
            rows: BTreeMap::new(),
            by_id: BTreeMap::new(),
            proofs: BTreeMap::new(),
            impostors: BTreeMap::new(),
            time_proof: None,
            receipts: Vec::new(),
            genesis: genesis.clone(),
        }
    }

    /// The newest block.
    pub(super) fn newest(&self) -> Head {
        self.state.head()
    }

    /// The first height whose block a provider has not shown.
    pub(super) fn missing(&self, provider: usize) -> u64 {
        self.shown[provider].last_key_value().map_or(1, |(height, _)| height + 1)
    }

    /// A provider begins to show blocks, again perhaps.
    pub(super) fn started(&mut self, provider: usize) {
        self.in_order.started(provider);
    }

    /// An honest provider shows a final block.
    pub(super) fn show(&mut self, provider: usize, block: FinalBlock) -> Result<(), Violation> {
        let header = block.header();
        let (height, id) = (header.height, header.id());
        self.in_order.see(provider, height)?;
        self.one_chain.see(provider, height, id)?;
        self.shown[provider].entry(height).or_insert_with(|| block.clone());
        if height == self.newest().height + 1 {
            later_time(self.newest(), height, header.time)?;
            self.follow(block)?;
        }
        Ok(())
    }

    /// Takes in the next block of the ledger.
    fn follow(&mut self, block: FinalBlock) -> Result<(), Violation> {
        let (height, time) = (block.header().height, block.header().time);
        let verified = block.verified().clone();
        let first = self.state.chain_count();
        self.see_openings(&verified, height)?;
        self.see_papers(&verified, (height, time))?;
        for (row, registered) in (first..).zip(verified.registered()) {
            self.by_id.insert(*registered.id(), row);
            let meter = registered.message().meter;
            self.ended.see(meter, height, "another chain of it")?;
            if let Some(of_meter) = self.issued.get(registered.id()) {
                self.rows.insert(row, *of_meter);
            }
        }
        for request in verified.requests() {
            self.ended.see(request.meter, height, "a request of it")?;
            let Some(of_meter) = self.rows.get(&request.row).copied() else { continue };
            let link = of_meter.link(request.index);
            self.windows.requested(link, height)?;
            let slot = of_meter.schedule.slot(request.index);
            self.one_chain_a_slot.see(request.meter, slot, request.row)?;
            self.requested.entry(link).or_default().push(request.value);
        }
        let before = self.state.round().number;
        if self.state.apply(&verified).is_err() {
            return Err(self.broken("it does not follow the block before"));
        }
        approved_members(self.state.members(), &self.admitted)?;
        if self.state.round().number != before {
            self.begin_round()?;
        }
        self.hand_over(&block)?;
        if let Some(proof) = block.time_proof() {
            self.time_proof = Some((self.state.head(), proof));
        }
        self.receipts.extend(self.witness.follow(block));
        self.prove(&verified);
        Ok(())
    }

    /// What a block opens, and what it carries that opens nothing.
    fn see_openings(&mut self, verified: &Verified, height: u64) -> Result<(), Violation> {
        for skipped in verified.skipped() {
            let (transaction, item) = skipped.place;
            let transaction = &verified.block().transactions()[transaction as usize];
            let Transaction::Openings(batch) = transaction else { continue };
            let (row, link) = (batch.rows[item as usize], &batch.links[item as usize]);
            let Some(of_meter) = self.rows.get(&row) else { continue };
            let Some(index) = of_meter.schedule.index(batch.slot) else { continue };
            let Some(chain) = self.state.view().chain(row).map(|chain| chain.id) else { continue };
            let commitment =
                request::commitment(&chain, index, &batch.body_hashes()[item as usize]);
            let value = request::request_value(&commitment, link);
            let key = of_meter.link(index);
            let requested = self.requested.get(&key).is_some_and(|all| all.contains(&value));
            let opened_before = verified.openings().iter().any(|one| {
                (one.row, one.opening.index) == (row, index) && one.place < skipped.place
            });
            let waits = requested && !self.opened.contains(&key) && !opened_before;
            walked_once(of_meter.meter, height, waits, Some(skipped.reason))?;
        }
        for accepted in verified.openings() {
            let opening = &accepted.opening;
            self.owners.extend(
                self.state.view().chain(accepted.row).map(|chain| (opening.meter, chain.owner)),
            );
            let Some(of_meter) = self.rows.get(&accepted.row) else { continue };
            let slot = of_meter.schedule.slot(opening.index);
            self.one_opening.see(opening.meter, slot, height)?;
            self.opened.insert(of_meter.link(opening.index));
        }
        Ok(())
    }

    /// Changes and revocations of a block.
    fn see_papers(
        &mut self,
        verified: &Verified,
        (height, time): (u64, LedgerTime),
    ) -> Result<(), Violation> {
        for transaction in verified.block().transactions() {
            match transaction {
                Transaction::Revocation(revocation) => {
                    self.ended.see(revocation.meter, height, "another revocation of it")?;
                    self.ended.revoked(revocation.meter, height);
                }
                Transaction::Change(change) => {
                    let digest = change.digest(self.genesis.network());
                    self.changed_once.see(digest, height)?;
                    if let Body::Leave(id)
                    | Body::VoteKey(id, ..)
                    | Body::SealingKey(id, _)
                    | Body::Address(id, _) = change.body
                    {
                        self.changes.see(id, time)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A round has begun.
    fn begin_round(&mut self) -> Result<(), Violation> {
        if self.genesis.charter().rounds.votes == bkss_ledger::genesis::Weighing::Meters {
            every_meter_weighs(self.state.round(), &self.owners)?;
        }
        self.boundaries.push(self.state.clone());
        if self.boundaries.len() > 2 {
            self.boundaries.remove(0);
        }
        Ok(())
    }

    fn hand_over(&mut self, block: &FinalBlock) -> Result<(), Violation> {
        let Some(handover) = block.handover() else { return Ok(()) };
        let followed = codec::decode("handover", &handover)
            .map_err(|error| error.to_string())
            .and_then(|known| self.trust.follow(&known).map_err(|error| error.to_string()));
        followed.map_err(|finding| self.broken(&finding))?;
        self.handovers.push(handover);
        Ok(())
    }

    /// Proofs of what the newest block has registered.
    fn prove(&mut self, verified: &Verified) {
        for registered in verified.registered() {
            let message = registered.message();
            let Some(proof) = self.witness.registration_proof(message.meter) else { continue };
            if self.issued.contains_key(registered.id()) {
                self.proofs.insert(*registered.id(), proof);
                continue;
            }
            // Whose public values it repeats.
            let victim = self.issued.values().find(|known| {
                let row = self.state.view().row(known.meter);
                row.is_some() && known.anchor == *message.anchor.as_bytes()
            });
            if let Some(victim) = victim {
                self.impostors.entry(victim.meter).or_default().push(proof);
            }
        }
    }

    fn broken(&self, finding: &str) -> Violation {
        Violation::Archive { provider: 0, finding: finding.to_owned() }
    }

    /// A provider's archive as an auditor sees it.
    pub(super) fn clean_archive(&self, provider: usize) -> Result<(), Violation> {
        let failed = |finding: String| Violation::Archive { provider, finding };
        let bytes = self.archive(provider).map_err(|error| failed(error.to_string()))?;
        let report = audit(&self.genesis, bytes.as_slice(), Known::default());
        match report.refusals.first() {
            Some(finding) => Err(failed(finding.to_string())),
            None => Ok(()),
        }
    }

    /// All blocks of a provider up to the last that has a certificate of its own.
    pub(super) fn archive(&self, provider: usize) -> std::io::Result<Vec<u8>> {
        archive_of(&self.genesis, self.shown[provider].values())
    }

    /// There is a receipt for every opening, and those that are chosen hold against the genesis
    /// and the handovers.
    pub(super) fn valid_receipts(&self, chosen: impl Fn(&Issued) -> bool) -> Result<(), Violation> {
        let mut receipts = BTreeSet::new();
        for issued in &self.receipts {
            let receipt: Receipt<'_> = codec::decode("receipt", &issued.receipt)
                .map_err(|error| self.broken(&error.to_string()))?;
            let id = receipt.registration.message.id(self.genesis.network());
            let Some(of_meter) = self.issued.get(&id) else { continue };
            let link = of_meter.link(issued.index);
            receipts.insert(link);
            if !chosen(issued) {
                continue;
            }
            let verdict = receipt.verify(&self.trust.anchors());
            if let Some((check, failure)) = verdict.failure() {
                let (name, expected, found) = (check.name(), failure.expected(), failure.found());
                let finding = format!("{name}: expected {expected}, found {found}");
                return Err(Violation::Receipt { link, finding });
            }
        }
        every_receipt(&self.opened, &receipts)
    }

    /// Number of a chain in the registry, and its slots; by root message.
    pub(super) fn is_registered(&self, id: &Digest) -> bool {
        self.by_id.contains_key(id)
    }

    /// The registered chains of a meter, newest last.
    fn chains(&self, meter: MeterId) -> impl DoubleEndedIterator<Item = (Row, &OfMeter)> {
        let of_meter = move |(_, known): &(&Row, &OfMeter)| known.meter == meter;
        self.rows.iter().filter(of_meter).map(|(row, known)| (*row, known))
    }

    /// The newest registered chain of a meter.
    pub(super) fn newest_chain(&self, meter: MeterId) -> Option<(Row, OfMeter)> {
        self.chains(meter).next_back().map(|(row, known)| (row, *known))
    }

    /// Which of its chains a meter signs with in a slot: the newest that has begun, the first if none
    /// is registered.
    pub(super) fn chain_in_charge(&self, meter: MeterId, slot: Slot) -> u32 {
        let begun = |(_, known): &(Row, &OfMeter)| known.schedule.first <= slot;
        self.chains(meter).rfind(begun).map_or(0, |(_, known)| known.chain)
    }

    /// Number and id of the registered chain that a link is of.
    pub(super) fn row_of(&self, link: LinkOf) -> Option<(Row, Digest, OfMeter)> {
        let (row, known) = self.chains(link.meter).find(|(_, known)| known.chain == link.chain)?;
        Some((row, self.state.view().chain(row)?.id, *known))
    }

    /// All registered chains of meters.
    pub(super) fn registered(&self) -> impl Iterator<Item = (Row, &OfMeter)> {
        self.rows.iter().map(|(row, known)| (*row, known))
    }

    /// Openings so far.
    pub(super) fn openings(&self) -> usize {
        self.opened.len()
    }

    /// Whether a meter's link has been opened.
    pub(super) fn is_opened(&self, link: LinkOf) -> bool {
        self.opened.contains(&link)
    }

    /// Whether a link is of a chain that takes no requests for its slot: the meter is revoked, or its
    /// next chain has begun.
    pub(super) fn is_over(&self, link: LinkOf) -> bool {
        let Some((_, _, known)) = self.row_of(link) else { return true };
        let slot = known.schedule.slot(link.index);
        self.ended.is_revoked(link.meter) || self.chain_in_charge(link.meter, slot) != link.chain
    }

    /// Whether any request with a meter's link has been accepted.
    pub(super) fn is_requested(&self, link: LinkOf) -> bool {
        self.requested.contains_key(&link)
    }
}

/// Blocks as an archive, up to the last that has a certificate of its own.
pub(super) fn archive_of<'a>(
    genesis: &Genesis,
    blocks: impl DoubleEndedIterator<Item = &'a FinalBlock> + Clone,
) -> std::io::Result<Vec<u8>> {
    // A block with descendants in its proof has no certificate of its own.
    let own = |block: &'a FinalBlock| {
        let finality = block.finality().filter(|finality| finality.descendants.is_empty());
        finality.map(|finality| finality.certificate)
    };
    let last = blocks.clone().rfind(|block| own(block).is_some());
    let last = last.map_or(0, |block| block.header().height);
    let mut writer = Writer::new(Vec::new(), genesis.network())?;
    for block in blocks.take_while(|block| block.header().height <= last) {
        writer.block(block.verified().block(), own(block))?;
    }
    writer.finish()
}

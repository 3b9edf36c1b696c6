//! The ledger as the world sees it: every final block that an honest provider has shown, and what
//! the invariants say of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bkss_ledger::{
    FinalBlock, Genesis, Head, Trust, Witness,
    archive::Writer,
    audit::{Known, audit},
    receipts::Issued,
    transaction_batch::Row,
};
use bkss_scheme::{
    Digest, Era, LinkIndex, MeterId, codec, receipt::Receipt, slot::Schedule, timestamp::TimeProof,
};

use super::invariants::{
    ClosedWindow, InOrder, OneChain, OneOpening, Violation, every_receipt, later_time,
};

/// A link of a meter.
pub(super) type Key = (MeterId, LinkIndex);

/// What the honest providers have shown.
pub(super) struct Chain {
    genesis: Arc<Genesis>,
    /// That of every meter.
    pub(super) schedule: Schedule,
    /// Blocks of each provider, by height.
    shown: Vec<BTreeMap<u64, FinalBlock>>,
    one_chain: OneChain,
    in_order: InOrder,
    one_opening: OneOpening,
    /// Public links.
    pub(super) windows: ClosedWindow,
    /// The newest block that any of them has shown, all before it included.
    newest: Head,
    witness: Witness,
    trust: Trust,
    /// Changes of the committee, encoded, with the height of each.
    pub(super) handovers: Vec<Vec<u8>>,
    /// Accepted request values, with the heights of their blocks.
    pub(super) requested: BTreeMap<Key, Vec<Digest>>,
    /// Links of accepted openings.
    opened: BTreeSet<Key>,
    /// Registered meters, with row and id of their chains.
    pub(super) registered: BTreeMap<MeterId, (Row, Digest)>,
    /// The newest block of each time behind a window, as a proof for meters.
    pub(super) time_proof: Option<(Head, Vec<u8>)>,
    /// Receipts.
    pub(super) receipts: Vec<Issued>,
}

impl Chain {
    /// Nothing is shown yet.
    pub(super) fn new(genesis: &Arc<Genesis>, schedule: Schedule, providers: usize) -> Self {
        let header = genesis.header();
        Self {
            shown: vec![BTreeMap::new(); providers],
            one_chain: OneChain::default(),
            in_order: InOrder::default(),
            one_opening: OneOpening::default(),
            windows: ClosedWindow::default(),
            newest: Head { height: 0, id: header.id(), time: header.time },
            witness: Witness::new(genesis.clone(), None),
            trust: Trust::new(Genesis::clone(genesis)),
            handovers: Vec::new(),
            requested: BTreeMap::new(),
            opened: BTreeSet::new(),
            registered: BTreeMap::new(),
            time_proof: None,
            receipts: Vec::new(),
            genesis: genesis.clone(),
            schedule,
        }
    }

    /// The newest block.
    pub(super) const fn newest(&self) -> Head {
        self.newest
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
        if height == self.newest.height + 1 {
            later_time(self.newest, height, header.time)?;
            self.newest = Head { height, id, time: header.time };
            self.follow(block)?;
        }
        Ok(())
    }

    /// Takes in the next block of the ledger.
    fn follow(&mut self, block: FinalBlock) -> Result<(), Violation> {
        let height = block.header().height;
        let verified = block.verified().clone();
        for registered in verified.registered() {
            let row = u32::try_from(self.registered.len()).unwrap_or(Row::MAX);
            self.registered.insert(registered.message().meter, (row, *registered.id()));
        }
        for request in verified.requests() {
            let key = (request.meter, request.index);
            self.windows.requested(key, height)?;
            self.requested.entry(key).or_default().push(request.value);
        }
        for accepted in verified.openings() {
            let opening = &accepted.opening;
            let key = (opening.meter, opening.index);
            self.one_opening.see(opening.meter, self.schedule.slot(opening.index), height)?;
            self.opened.insert(key);
        }
        if let Some(handover) = block.handover() {
            if let Ok(known) = codec::decode("handover", &handover) {
                self.trust.follow(&known).map_err(|error| Violation::Archive {
                    provider: 0,
                    finding: error.to_string(),
                })?;
            }
            self.handovers.push(handover);
        }
        if let Some(proof) = block.time_proof() {
            self.time_proof = Some((self.newest, proof));
        }
        self.receipts.extend(self.witness.follow(block));
        Ok(())
    }

    /// Proof for a meter that it is registered.
    pub(super) fn registration_proof(&self, meter: MeterId) -> Option<Vec<u8>> {
        self.witness.registration_proof(meter)
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
    fn archive(&self, provider: usize) -> std::io::Result<Vec<u8>> {
        let mut writer = Writer::new(Vec::new(), self.genesis.network())?;
        for block in self.shown[provider].values() {
            let finality = block.finality();
            // A block with descendants in its proof has no certificate of its own.
            let own = finality.filter(|finality| finality.descendants.is_empty());
            let own = own.map(|finality| finality.certificate);
            writer.block(block.verified().block(), own)?;
        }
        writer.finish()
    }

    /// There is a receipt for every opening, and those that are chosen hold against the genesis
    /// and the handovers.
    pub(super) fn valid_receipts(&self, chosen: impl Fn(&Issued) -> bool) -> Result<(), Violation> {
        let receipts = self.receipts.iter().map(|issued| (issued.meter, issued.index)).collect();
        every_receipt(&self.opened, &receipts)?;
        for issued in self.receipts.iter().filter(|issued| chosen(issued)) {
            let failed = |finding: String| Violation::Receipt {
                meter: issued.meter,
                index: issued.index,
                finding,
            };
            let receipt: Receipt<'_> = codec::decode("receipt", &issued.receipt)
                .map_err(|error| failed(error.to_string()))?;
            let verdict = receipt.verify(&self.trust.anchors());
            if let Some((check, failure)) = verdict.failure() {
                return Err(failed(format!(
                    "{}: expected {}, found {}",
                    check.name(),
                    failure.expected(),
                    failure.found()
                )));
            }
        }
        Ok(())
    }

    /// A certificate with one vote less than a quorum proves nothing, to nobody.
    pub(super) fn no_forgery(&self) -> Result<(), Violation> {
        let Some(block) = self.shown.iter().filter_map(|shown| shown.get(&1)).next() else {
            return Ok(());
        };
        let Some(mut finality) = block.finality() else { return Ok(()) };
        let certificate = &mut finality.certificate;
        // The lowest signer is left out; a world's committee has more than one.
        certificate.signers &= certificate.signers - 1;
        certificate.signatures = &certificate.signatures[64..];
        if self.genesis.anchors().eras.certified(&finality, block.header()).is_ok() {
            return Err(Violation::Forgery("a verifier"));
        }
        let proof = TimeProof { header: block.header().clone(), finality };
        let rounds = self.genesis.charter().rounds.length();
        let era = Era::new(0, self.genesis.committee().clone());
        let mut watch = bkss_meter::LedgerWatch::new(self.genesis.network(), rounds, era);
        if watch.advance(&proof, block.header().time).is_ok() {
            return Err(Violation::Forgery("a meter"));
        }
        let forged = FinalBlock::new(block.verified().clone(), &finality);
        let mut alone = Self::new(&self.genesis, self.schedule, 1);
        alone.shown[0].insert(1, forged);
        if alone.clean_archive(0).is_ok() {
            return Err(Violation::Forgery("an auditor"));
        }
        Ok(())
    }

    /// Row and id of a meter's chain.
    pub(super) fn registration(&self, meter: MeterId) -> Option<(Row, Digest)> {
        self.registered.get(&meter).copied()
    }

    /// Openings so far.
    pub(super) fn openings(&self) -> usize {
        self.opened.len()
    }

    /// Whether a meter's link has been opened.
    pub(super) fn is_opened(&self, key: Key) -> bool {
        self.opened.contains(&key)
    }

    /// Whether any request with a meter's link has been accepted.
    pub(super) fn is_requested(&self, key: Key) -> bool {
        self.requested.contains_key(&key)
    }
}

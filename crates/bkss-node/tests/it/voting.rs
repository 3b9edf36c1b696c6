//! What a validator votes for, beyond the ledger's rules.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, SystemTime},
};

use bkss_ledger::{Block, Transaction};
use bkss_node::{
    LedgerClock, Pacing, application::LedgerApplication, chain::Shared, engine_block::EngineBlock,
};
use bkss_scheme::LedgerTime;
use commonware_consensus::{
    Application,
    marshal::ancestry::Ancestry,
    simplex::types::Context,
    types::{Epoch, Round, View},
};
use commonware_cryptography::{Digested, Digestible, Signer, sha256};
use commonware_runtime::{Runner, Supervisor, deterministic};

use crate::{
    blocks::block,
    consortium::{Consortium, at},
};

/// A proposal and its ancestors, newest first.
#[derive(Clone)]
struct Proposal(VecDeque<Digested<EngineBlock>>);

impl Proposal {
    fn new(block: &Block) -> Self {
        let block = EngineBlock::new(Arc::new(block.clone()));
        let digest = block.digest();
        Self(VecDeque::from([Digested::precomputed(block, digest)]))
    }
}

impl futures::Stream for Proposal {
    type Item = Digested<EngineBlock>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front())
    }
}

impl Ancestry<EngineBlock> for Proposal {
    fn peek(&self) -> Option<&Digested<EngineBlock>> {
        self.0.front()
    }
}

#[test]
fn a_validator_votes_for_blocks_near_its_clock_with_all_their_bodies() {
    deterministic::Runner::seeded(1).start(|ctx| async move {
        let mut consortium = Consortium::new(1);
        let meter = consortium.meter(0);
        let signed = meter.sign(1, 26);
        let mut state = consortium.state();
        let shared = Shared::new(consortium.genesis.clone());
        for (time, transaction) in [
            (at(0, 1), Transaction::Registration(meter.registration)),
            (at(1, 1), consortium.requests(0, 1, &[(0, signed.value)])),
        ] {
            let verified = block(&mut state, time, [transaction]);
            assert!(shared.finalize(verified.block()).unwrap().is_some());
            assert!(shared.finalize(verified.block()).unwrap().is_none(), "applied once");
        }
        let opening = consortium.openings(0, &[(0, &signed)]);
        let good = block(&mut state.clone(), at(1, 300), [opening]).block().clone();
        let mut withheld = good.clone();
        assert!(withheld.erase_body(0, 0));
        assert_eq!(withheld.id(), good.id(), "the ledger's rules see no difference");
        let early = block(&mut state, at(1, 299), []).block().clone();

        let precision = 500;
        let shown = good.header().time.0;
        for (what, block, shows, expected) in [
            ("on time", &good, shown, true),
            ("at the end of the precision", &good, shown + precision, true),
            ("too old", &good, shown + precision + 1, false),
            ("at the start of the precision", &good, shown - precision, true),
            ("from the future", &good, shown - precision - 1, false),
            ("without a body", &withheld, shown, false),
            ("another block", &early, early.header().time.0, true),
        ] {
            let clock = LedgerClock::stopped(LedgerTime(shows), 1);
            clock.start(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
            let mut application = LedgerApplication::new(shared.clone(), clock, Pacing::default());
            let context = Context {
                round: Round::new(Epoch::zero(), View::new(3)),
                leader: bkss_node::config::vote_key(&[1; 32]).0.public_key(),
                parent: (View::new(2), sha256::Digest::from([0; 32])),
            };
            let voted =
                application.verify((ctx.child("verify"), context), Proposal::new(block)).await;
            assert_eq!(voted, expected, "{what}");
        }
    });
}

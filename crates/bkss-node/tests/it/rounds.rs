//! Rounds of Algorithm 3 over whole nodes: committees change, everybody follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bkss_ledger::Rounds;
use bkss_node::{Event, node::Node};
use bkss_scheme::{Digest, ProviderId};
use commonware_runtime::{
    Clock, Runner,
    deterministic::{self, Context},
};

use crate::{consortium::Consortium, network};

/// Eight providers, four seats, rounds of eight blocks.
pub(crate) const SHORT: Rounds = Rounds { blocks: 8, committee: 4, alternates: 2, tenure_views: 1 };

/// What nodes have shown of the ledger.
pub(crate) struct Ledgers {
    /// Block ids by height, of each provider.
    ids: Vec<BTreeMap<u64, Digest>>,
    /// Committees by round, of each provider.
    committees: Vec<BTreeMap<u64, Vec<ProviderId>>>,
}

impl Ledgers {
    pub(crate) fn new(nodes: usize) -> Self {
        let (ids, committees) = (vec![BTreeMap::new(); nodes], vec![BTreeMap::new(); nodes]);
        Self { ids, committees }
    }

    /// Reads what the nodes show.
    pub(crate) fn read(&mut self, nodes: &mut [Node]) {
        for (index, node) in nodes.iter_mut().enumerate() {
            while let Ok(Event::Final { block, .. }) = node.events.try_recv() {
                let (height, id) = (block.header().height, block.header().id());
                let expected = self.ids[index].len() as u64 + 1;
                assert_eq!(height, expected, "provider {index} shows blocks in order, each once");
                self.ids[index].insert(height, id);
            }
            let status = node.status.read();
            self.committees[index].insert(status.round, status.committee);
        }
    }

    /// Lets time pass until all nodes have a height, at most that many seconds.
    pub(crate) async fn until(
        &mut self,
        ctx: &Context,
        nodes: &mut [Node],
        height: u64,
        seconds: u32,
    ) {
        for _ in 0..seconds * 10 {
            self.read(nodes);
            if self.ids.iter().all(|ids| ids.len() as u64 >= height) {
                return;
            }
            ctx.sleep(Duration::from_millis(100)).await;
        }
        let heights: Vec<_> = self.ids.iter().map(BTreeMap::len).collect();
        let rounds: Vec<_> = nodes.iter().map(|node| node.status.read()).collect();
        unreachable!("height {height} is not reached: {heights:?} {rounds:?}");
    }

    /// All have the same blocks and the same committees.
    pub(crate) fn assert_same(&self) {
        for (ids, committees) in self.ids.iter().zip(&self.committees) {
            for (height, id) in ids {
                let other = self.ids[0].get(height);
                assert!(other.is_none_or(|other| other == id), "fork at {height}");
            }
            for (round, committee) in committees {
                let other = self.committees[0].get(round);
                assert!(other.is_none_or(|other| other == committee), "round {round}");
            }
        }
    }

    /// The committees that the first node has been in.
    pub(crate) fn distinct_committees(&self) -> usize {
        self.committees[0].values().collect::<BTreeSet<_>>().len()
    }
}

#[test]
fn committees_change_by_votes_and_everybody_follows() {
    let seed = 5;
    println!("seed {seed}");
    let consortium = Consortium::with(seed, 8, SHORT);
    deterministic::Runner::seeded(seed).start(|ctx| async move {
        let configs = network::configs(&consortium, network::now(&ctx));
        let mut nodes = network::start(&ctx, configs).await;
        let mut ledgers = Ledgers::new(nodes.len());
        ledgers.until(&ctx, &mut nodes, 100, 600).await;
        ledgers.assert_same();
        let committees = ledgers.distinct_committees();
        assert!(committees > 4, "{committees} committees: {:?}", ledgers.committees[0]);
        for node in &nodes {
            let status = node.status.read();
            assert!(status.round >= 12 && status.leader.is_some(), "{status:?}");
            assert_eq!(status.peers, 7, "{status:?}");
            assert_eq!(status.committee.len(), 4);
        }
        let voting = nodes.iter().filter(|node| node.status.read().votes).count();
        assert!(voting >= 4, "{voting} of 8 vote");
    });
}

//! Whatever is brought to a node, it goes on and its ledger stays right.

use std::sync::Arc;

use bkss_ledger::{
    Block, Change, Evidence, OpeningBatch, Revocation, Transaction, Vote,
    change::Body,
    evidence::{Offence, SignedVote},
    revocation::Reason,
    verify,
};
use bkss_node::Message;
use bkss_scheme::{
    Digest, Header, ProviderId, SdiId, Signature,
    certificate::VoteContent,
    transaction::{Release, Submit},
};
use commonware_runtime::{Runner, deterministic};

use crate::{
    consortium::{Consortium, at, vote_key},
    gateway::World,
    mutation,
};

/// Mutations between two deliveries to the gateway.
const SOME: usize = 10_000;

/// One message or transaction of each kind that a node takes from others, valid in slot 1.
fn inputs(consortium: &mut Consortium) -> (Vec<Vec<u8>>, Vec<Transaction>) {
    let meters: Vec<_> = (0..4).map(|number| consortium.meter(number)).collect();
    let network = consortium.genesis.network();
    let registered = &meters[0];
    let signed = registered.sign(1, 26);
    let chain = bkss_ledger::Chain::new(&registered.registration.message, registered.id);
    let (id, key) = (ProviderId(2), &consortium.keys[2]);
    let address = Body::Address(id, "elsewhere:1".try_into().unwrap());
    let mut change = Change::new(address, 9);
    change.sign(network, key);
    let vote = Vote::sign(network, id, key, 0, vec![ProviderId(0), ProviderId(1)]);
    let votes = [1, 2].map(|byte| {
        let content = VoteContent::Notarize { parent_view: 2, block: Digest([byte; 32]) };
        let message = content.message(network, 0, 3).unwrap();
        let signature = Signature(consortium.votes[2].sign(&message).into());
        SignedVote { content, signature }
    });
    let offence = Offence { provider: id, epoch: 0, view: 3 };
    let evidence = Evidence { offence, vote_key: vote_key(&consortium.votes[2]), votes };
    let owner = &consortium.keys[0];
    let revocation =
        Revocation::sign(network, &chain, Reason(1), (SdiId(0), &consortium.sdi), owner);
    let transactions = vec![
        Transaction::Registration(meters[1].registration.clone()),
        consortium.requests(1, 1, &[(0, signed.value)]),
        consortium.openings(1, &[(0, &signed)]),
        Transaction::Change(change),
        Transaction::Vote(vote),
        Transaction::Evidence(evidence),
        Transaction::Revocation(revocation),
    ];
    let meter = registered.registration.message.meter;
    let submit = Submit { meter, index: signed.index, value: signed.value, body: &signed.body };
    let release = Release { meter, index: signed.index, link: signed.link.clone() };
    let messages: [Message; 2] = [submit.into(), release.into()];
    let mut inputs: Vec<_> = messages
        .iter()
        .map(|message| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            bytes
        })
        .collect();
    inputs.extend(transactions.iter().map(Transaction::encode));
    (inputs, transactions)
}

#[test]
fn a_node_goes_on_whatever_it_is_brought() {
    deterministic::Runner::seeded(1).start(|ctx| async move {
        let mut consortium = Consortium::new(1);
        let registration = consortium.meter(0).registration;
        let mut consortium = Consortium::new(1);
        let (mut inputs, transactions) = inputs(&mut consortium);
        let world = World::start(ctx, &consortium, Arc::default()).await;
        let network = consortium.genesis.network();
        let limit = consortium.genesis.charter().limits.block_bytes as usize;
        assert_eq!(world.shared.add(Transaction::Registration(registration)), Ok(true));
        world.blocks([at(0, 1)]).await;
        // A block of all of them but the registration, which would be too late, and the opening,
        // whose window is still open.
        let view_of = |shared: &bkss_node::chain::Shared| shared.chain().state().clone();
        let state = view_of(&world.shared);
        let others = transactions.iter().filter(|t| !matches!(t, Transaction::Openings(_)));
        let block = bkss_ledger::propose(&state.view(), at(1, 1), others.cloned()).unwrap();
        assert_eq!(block.block().transactions().len(), transactions.len() - 2);
        inputs.push(block.block().encode());
        let last = inputs.len() - 1;
        let try_one = |messages: &mut Vec<Message>, kind, bytes: &[u8]| {
            if kind == last {
                if let Ok(other) = Block::decode(network, bytes, limit) {
                    // The rules allow any later time; whoever votes looks at the clock.
                    let header = block.block().header();
                    let time = header.time;
                    let same = Header { time, ..other.header().clone() } == *header;
                    let held = verify(&state.view(), other).is_ok();
                    assert!(!held || same, "an altered block follows by the rules");
                }
            } else if kind < 2 {
                messages.extend(Message::decode(bytes));
            } else if let Ok(transaction) = Transaction::decode(bytes) {
                let known = transactions.contains(&transaction);
                let bare = matches!(&transaction, Transaction::Openings(batch)
                    if !OpeningBatch::is_complete(batch));
                let taken = world.shared.add(transaction);
                assert!(taken.is_err() || known && !bare, "{taken:?}");
            }
        };
        let count = mutation::count();
        for (seed, first) in (1..).zip((0..count).step_by(SOME)) {
            let mut messages = Vec::new();
            let some = (count - first).min(SOME as u64);
            mutation::some(seed, some, &inputs, |kind, bytes| try_one(&mut messages, kind, bytes));
            // What is left of the messages goes to the gateway.
            for messages in messages.chunks(1000) {
                let answers = world.mailbox.take(messages.to_vec()).await.unwrap();
                assert_eq!(answers.len(), messages.len());
            }
        }
        world.blocks([at(1, 1), at(1, 300), at(1, 301)]).await;
        assert_eq!(world.shared.invalid_batches(), (0, 0));
    });
}

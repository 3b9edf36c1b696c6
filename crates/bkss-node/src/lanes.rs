//! The channels of consensus, split into a lane for each round.

use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    Receiver, Sender,
    utils::mux::{Builder, MuxHandle, Muxer},
};
use commonware_runtime::{IoBuf, Spawner, Supervisor};
use commonware_utils::channel::mpsc;

/// The channels on which every round has a lane of its own.
pub struct Lanes<S: Sender> {
    pub(crate) votes: MuxHandle<S>,
    pub(crate) certificates: MuxHandle<S>,
    pub(crate) resolver: MuxHandle<S>,
    /// Traffic of rounds that have no lane here.
    pub(crate) strays: [Strays; 2],
}

type Strays = mpsc::Receiver<(u64, (PublicKey, IoBuf))>;

impl<S: Sender<PublicKey = PublicKey>> Lanes<S> {
    /// Splits the channels of votes, certificates and the resolver.
    pub fn split<E, R>(ctx: &E, votes: (S, R), certificates: (S, R), resolver: (S, R)) -> Self
    where
        E: Spawner + Supervisor,
        R: Receiver<PublicKey = PublicKey>,
    {
        let (mux, votes, stray_votes) =
            Muxer::builder(ctx.child("votes"), votes.0, votes.1).with_backup().build();
        mux.start();
        let (mux, certificates, stray_certificates) =
            Muxer::builder(ctx.child("certificates"), certificates.0, certificates.1)
                .with_backup()
                .build();
        mux.start();
        let (mux, resolver) = Muxer::new(ctx.child("resolver"), resolver.0, resolver.1);
        mux.start();
        Self { votes, certificates, resolver, strays: [stray_votes, stray_certificates] }
    }
}

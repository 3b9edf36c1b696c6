//! How the delivery of blocks asks for the next round, and waits for it.

use commonware_utils::channel::{mpsc, oneshot};

use crate::plan::Plan;

/// Asks for the next round, or for other peers in this one; `done` when that is so.
pub struct Turn {
    pub(crate) plan: Plan,
    pub(crate) done: oneshot::Sender<()>,
}

/// Starts rounds.
#[derive(Clone)]
pub struct Turns(mpsc::Sender<Turn>);

impl Turns {
    /// A channel for them.
    pub fn channel() -> (Self, mpsc::Receiver<Turn>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Starts a round, or lets it have other peers, and waits until that is so; false if the node
    /// stops.
    pub async fn follow(&self, plan: Plan) -> bool {
        let (done, started) = oneshot::channel();
        self.0.send(Turn { plan, done }).await.is_ok() && started.await.is_ok()
    }
}

//! Handshakes of connections between nodes, and in the log why they fail: an operator whose clock is
//! wrong, or whose vote key nobody knows, sees it nowhere else.
//!
//! What a failed handshake says is not proven: anybody may connect in a peer's name. Each line comes
//! once in a while for each peer and kind.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bkss_scheme::ProviderId;
use commonware_cryptography::{
    ed25519::{PrivateKey, PublicKey},
    handshake::sake::Error as SakeError,
    transcript::Transcript,
};
use commonware_runtime::{Clock, Sink, Stream};
use commonware_stream::{
    Handshake,
    sake::{self, Sake},
};
use commonware_utils::SystemTimeExt;
use rand_core::CryptoRng;

/// How far ahead of this node's clock that of a peer may be, and how old its messages.
const AHEAD: Duration = Duration::from_secs(5);
/// See [`AHEAD`].
const BEHIND: Duration = Duration::from_secs(10);
/// How long nothing more is said of a peer and kind.
const QUIET: Duration = Duration::from_mins(1);

/// Why a handshake fails.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Why {
    /// The clocks differ.
    Clock,
    /// It is no peer.
    Stranger,
    /// The other side ended it.
    Ended,
    /// It is not whom it says to be, or no handshake.
    False,
}

/// Whose key it is, and what was said when.
#[derive(Debug, Default)]
struct Said {
    peers: BTreeMap<PublicKey, ProviderId>,
    when: BTreeMap<(Option<ProviderId>, Why), SystemTime>,
}

/// The failed handshakes of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures(Arc<Mutex<Said>>);

impl Failures {
    /// Knows whose these keys are from now on.
    pub(crate) fn know(&self, peers: impl Iterator<Item = (PublicKey, ProviderId)>) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.peers = peers.collect();
        let Said { peers, when } = &mut *said;
        when.retain(|(peer, _), _| {
            peer.is_none_or(|peer| peers.values().any(|known| *known == peer))
        });
    }

    /// Whose key it is, if this is to be said now.
    fn to_say(&self, peer: &PublicKey, why: Why, now: SystemTime) -> Option<Option<ProviderId>> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // All strangers together are one.
        let peer = said.peers.get(peer).copied();
        let last = said.when.get(&(peer, why));
        let quiet = |last: &SystemTime| now.duration_since(*last).is_ok_and(|past| past < QUIET);
        if last.is_some_and(quiet) {
            return None;
        }
        said.when.insert((peer, why), now);
        Some(peer)
    }

    fn say(&self, peer: &PublicKey, error: &sake::Error, now: SystemTime) {
        let why = match error {
            sake::Error::HandshakeError(SakeError::InvalidTimestamp(..)) => Why::Clock,
            sake::Error::PeerRejected(_) => Why::Stranger,
            sake::Error::Frame(_) => Why::Ended,
            _ => Why::False,
        };
        let Some(known) = self.to_say(peer, why, now) else { return };
        let provider = known.map_or_else(|| "unknown".to_owned(), |known| known.to_string());
        match error {
            sake::Error::HandshakeError(SakeError::InvalidTimestamp(theirs, _)) => {
                let ours = now.epoch();
                let theirs = Duration::from_millis(*theirs);
                let (difference, direction) = if theirs > ours {
                    (theirs - ours, "ahead of")
                } else {
                    (ours - theirs, "behind")
                };
                tracing::warn!(
                    provider,
                    "no connection: the clock of this provider, or of whoever speaks in its name, is \
                     {:.1} s {direction} that of this node; they may differ by {} s",
                    difference.as_secs_f64(),
                    AHEAD.as_secs()
                );
            }
            sake::Error::PeerRejected(_) => {
                tracing::info!(key = %peer, "no connection: somebody with this vote key is no peer");
            }
            sake::Error::Frame(_) => tracing::info!(
                provider,
                "no connection: the other side ended the handshake; it may not know this node's vote \
                 key, or its clock differs"
            ),
            error => tracing::warn!(provider, %error, "no connection"),
        }
    }
}

/// The engine's handshake, with a word in the log when it fails.
#[derive(Clone)]
pub(crate) struct Told {
    sake: Sake<PrivateKey>,
    failures: Failures,
}

impl Told {
    /// Of the node with this vote key.
    pub(crate) const fn new(signer: PrivateKey, failures: Failures) -> Self {
        let sake = Sake {
            signer,
            synchrony_bound: AHEAD,
            max_handshake_age: BEHIND,
            version: sake::Version::V1,
        };
        Self { sake, failures }
    }
}

impl Handshake for Told {
    type PublicKey = PublicKey;
    type Error = sake::Error;

    fn public_key(&self) -> PublicKey {
        self.sake.public_key()
    }

    async fn dial<E, I, O>(
        self,
        context: E,
        namespace: &[u8],
        peer: PublicKey,
        stream: &mut I,
        sink: &mut O,
    ) -> Result<Transcript, sake::Error>
    where
        E: Clock + CryptoRng,
        I: Stream,
        O: Sink,
    {
        let now = context.current();
        let done = self.sake.dial(context, namespace, peer.clone(), stream, sink).await;
        done.inspect_err(|error| self.failures.say(&peer, error, now))
    }

    async fn listen<E, I, O, B, F>(
        self,
        context: E,
        namespace: &[u8],
        bouncer: B,
        stream: &mut I,
        sink: &mut O,
    ) -> Result<(PublicKey, Transcript), sake::Error>
    where
        E: Clock + CryptoRng,
        I: Stream,
        O: Sink,
        B: FnOnce(PublicKey) -> F + Send,
        F: Future<Output = bool> + Send,
    {
        let now = context.current();
        let claimed = Mutex::new(None);
        let bouncer = |peer: PublicKey| {
            *claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer.clone());
            bouncer(peer)
        };
        let done = self.sake.listen(context, namespace, bouncer, stream, sink).await;
        let claimed = claimed.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Who says nothing, as a probe of the port does, is not worth a line.
        if let (Err(error), Some(peer)) = (&done, &claimed) {
            self.failures.say(peer, error, now);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::Signer;

    #[test]
    fn a_failure_is_told_once_in_a_while_for_each_peer_and_kind() {
        let failures = Failures::default();
        let [one, two, stranger, another] =
            [1, 2, 3, 4].map(|seed| PrivateKey::from_seed(seed).public_key());
        let peers = [(one.clone(), ProviderId(1)), (two.clone(), ProviderId(2))];
        failures.know(peers.into_iter());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(failures.to_say(&one, Why::Clock, at(0)), Some(Some(ProviderId(1))));
        assert_eq!(failures.to_say(&one, Why::Clock, at(59)), None);
        assert_eq!(failures.to_say(&one, Why::Ended, at(59)), Some(Some(ProviderId(1))));
        assert_eq!(failures.to_say(&two, Why::Clock, at(59)), Some(Some(ProviderId(2))));
        assert_eq!(failures.to_say(&one, Why::Clock, at(60)), Some(Some(ProviderId(1))));
        // However many keys a stranger has, it fills neither log nor memory.
        assert_eq!(failures.to_say(&stranger, Why::Stranger, at(60)), Some(None));
        assert_eq!(failures.to_say(&another, Why::Stranger, at(60)), None);
        failures.know(std::iter::once((two, ProviderId(2))));
        assert_eq!(failures.0.lock().unwrap().when.len(), 2);
    }
}

//! One provider on the operating system's network: authenticated TCP with the peers of the ledger.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bkss_scheme::ProviderId;
use commonware_actor::Feedback;
use commonware_cryptography::{ChaCha20Poly1305, ed25519::PublicKey};
use commonware_p2p::{
    Address, AddressableManager, AddressableTrackedPeers, BlockedSubscription, Blocker, Ingress,
    PeerSetSubscription, Provider, TrackedPeers, authenticated::lookup,
};
use commonware_runtime::{Quota, Supervisor, tokio};
use commonware_stream::cups::{self, Cups};
use commonware_utils::{
    Hostname, NZU32, NZUsize,
    ordered::{Map, Set},
};

use crate::{
    Config,
    handshake::{Failures, Told},
    node::{self, Channels, Node, StartError, max_message_size},
    plan::{Network, Peer},
};

/// Most peers of a node, itself included.
pub const MAX_PEERS: usize = 64;
/// Messages per second and peer on each channel, and how many of them at once; what is more is not
/// sent. The engine allocates two places per peer, channel and message of a burst when it starts,
/// some 2 KiB together.
const RATE: Quota = Quota::per_second(NZU32!(256)).allow_burst(NZU32!(64));
/// Connections that one address may begin per second; providers of a test share one.
const HANDSHAKES: Quota = Quota::per_second(NZU32!(64));
/// How often a peer that is not connected is dialled, and may connect again.
const DIAL: Duration = Duration::from_millis(200);
/// How long a peer that sent what no honest peer sends is not talked to.
const BLOCK: Duration = Duration::from_mins(10);

/// Starts a provider that listens at `listen`; its peers are those of the ledger, where the
/// configuration does not name another address for them.
///
/// # Errors
///
/// [`StartError`].
pub async fn start_provider(
    ctx: tokio::Context,
    config: Config,
    listen: SocketAddr,
) -> Result<Node, StartError> {
    let failures = Failures::default();
    let handshake = Told::new(config.vote_key.clone(), failures.clone());
    let mut settings = lookup::Config::recommended(
        Cups::<_, ChaCha20Poly1305>::new(handshake, cups::Version::V1),
        &[&config.namespace()[..], b"_P2P"].concat(),
        listen,
        NZUsize!(MAX_PEERS),
        max_message_size(&config),
        NZUsize!(1024),
    );
    settings.allow_private_ips = true;
    // Whoever connects proves its key; providers may sit behind other addresses than they listen at.
    settings.bypass_ip_check = true;
    settings.allowed_handshake_rate_per_ip = HANDSHAKES;
    settings.allowed_handshake_rate_per_subnet = Quota::per_second(NZU32!(256));
    settings.dial_frequency = DIAL;
    settings.dial_timeout = Duration::from_secs(5);
    settings.peer_connection_cooldown = DIAL;
    settings.ping_frequency = Duration::from_secs(5);
    settings.block_duration = BLOCK;
    let (mut network, oracle) = lookup::Network::new(ctx.child("network"), settings);
    let channels = Channels {
        votes: network.register(0, RATE),
        certificates: network.register(1, RATE),
        resolver: network.register(2, RATE),
        backfill: network.register(3, RATE),
        broadcast: network.register(4, RATE),
        batches: network.register(5, RATE),
    };
    network.start();
    let peers = Peers { oracle, addresses: Arc::new(config.addresses.clone()), failures };
    node::start(ctx, config, channels, peers).await
}

/// The network's peers and where they listen.
#[derive(Clone, Debug)]
struct Peers {
    oracle: lookup::Oracle<PublicKey>,
    /// Addresses that stand for those of the ledger.
    addresses: Arc<BTreeMap<ProviderId, String>>,
    failures: Failures,
}

impl Peers {
    fn address(&self, peer: &Peer) -> Address {
        let text = self.addresses.get(&peer.provider).unwrap_or(&peer.address);
        address(text).unwrap_or_else(|| {
            tracing::warn!(provider = %peer.provider, %text, "address is not host:port");
            // It cannot be dialled; it may dial.
            Address::Symmetric(UNKNOWN)
        })
    }
}

/// An address that nobody listens at.
const UNKNOWN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 1);

/// Parses `host:port`, the host being a name or an IP address.
fn address(text: &str) -> Option<Address> {
    if let Ok(socket) = text.parse() {
        return Some(Address::Symmetric(socket));
    }
    let (host, port) = text.rsplit_once(':')?;
    let ingress = Ingress::Dns { host: Hostname::new(host).ok()?, port: port.parse().ok()? };
    Some(Address::Asymmetric { ingress, egress: UNKNOWN })
}

impl Network for Peers {
    fn track(&mut self, height: u64, committee: &Set<PublicKey>, peers: &[Peer]) {
        let (seated, mut others): (Vec<_>, Vec<_>) =
            peers.iter().partition(|peer| committee.position(&peer.key).is_some());
        // Whoever has a seat and another key for the next round takes no place from those without.
        let has_seat = |peer: &&Peer| seated.iter().any(|other| other.provider == peer.provider);
        others.sort_by_key(|peer| has_seat(peer));
        let room = MAX_PEERS.saturating_sub(seated.len());
        if others.len() > room {
            tracing::error!(providers = peers.len(), most = MAX_PEERS, "too many providers");
        }
        self.failures.know(peers.iter().map(|peer| (peer.key.clone(), peer.provider)));
        let entry = |peer: &&Peer| (peer.key.clone(), self.address(peer));
        let primary = Map::from_iter_dedup(seated.iter().map(entry));
        let secondary = Map::from_iter_dedup(others.iter().take(room).map(entry));
        let all = primary.clone().into_iter().chain(secondary.clone());
        let moved = Map::from_iter_dedup(all);
        let _ = self.oracle.track(height, AddressableTrackedPeers::new(primary, secondary));
        // Those that are tracked already may have moved.
        let _ = self.oracle.overwrite(moved);
    }
}

impl Blocker for Peers {
    type PublicKey = PublicKey;

    fn block(&mut self, key: PublicKey) -> Feedback {
        tracing::warn!(%key, "peer is blocked: it sent what no honest peer sends");
        self.oracle.block(key)
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        self.oracle.blocked()
    }
}

impl Provider for Peers {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.oracle.peer_set(id).await
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.oracle.subscribe().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, valid) in [
            ("127.0.0.1:9000", true),
            ("[::1]:9000", true),
            ("provider.example:9000", true),
            ("provider.example", false),
            ("provider.example:99999", false),
            (":9000", false),
            ("", false),
        ] {
            assert_eq!(address(text).is_some(), valid, "{text}");
        }
    }
}

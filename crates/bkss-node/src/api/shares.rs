//! What each address may have of the interface at the same time.
//!
//! All that is limited is limited twice: in all, and per address, so that a few addresses never have
//! all of it. An IPv6 address counts with all others of its /64, which one customer has. Behind a
//! listed proxy the address counts that the proxy forwards; head-ends that are listed have larger
//! shares, since many meters speak through each.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::HeaderMap;
use ipnet::IpNet;
use tokio::sync::Notify;

/// The field in which a proxy forwards the address of whoever calls it.
const FORWARDED: &str = "x-forwarded-for";

/// What is shared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// An open connection.
    Connection,
    /// A request that is worked on.
    Request,
    /// A body longer than 64 KiB, from its first byte to the answer.
    LongBody,
    /// An archive or a snapshot that is written out.
    File,
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// For everybody together.
    pub in_all: usize,
    /// For an address.
    pub address: usize,
    /// For a head-end or a proxy that is listed.
    pub head_end: usize,
}

impl What {
    const COUNT: usize = 4;

    /// How much there is of it.
    pub const fn room(self) -> Room {
        let (in_all, address, head_end) = match self {
            Self::Connection => (512, 64, 256),
            Self::Request => (256, 32, 128),
            Self::LongBody => (16, 4, 8),
            Self::File => (8, 2, 4),
        };
        Room { in_all, address, head_end }
    }

    /// What it is called when there is no more of it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connection => "open connections",
            Self::Request => "requests under way",
            Self::LongBody => "long bodies",
            Self::File => "archives and snapshots under way",
        }
    }
}

/// Whom the operator has listed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listed {
    /// Proxies, whose forwarded addresses are believed.
    pub proxies: Vec<IpNet>,
    /// Head-ends, which have larger shares.
    pub head_ends: Vec<IpNet>,
}

/// One who has a share: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Address(IpAddr);

impl Address {
    /// Whose share it counts against.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = if self.0.is_ipv6() { "/64" } else { "" };
        write!(formatter, "{}{prefix}", self.0)
    }
}

/// Why there is no share.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NoRoom {
    pub(super) what: What,
    /// How many there are: of the address, or in all.
    pub(super) most: usize,
    /// Whether it is the address that has too many.
    pub(super) address: bool,
}

/// What one address has.
#[derive(Debug, Default)]
struct Held {
    counts: [usize; What::COUNT],
    /// Its open connections by number, and how to close them.
    connections: BTreeMap<u64, Arc<Notify>>,
}

#[derive(Debug, Default)]
struct Table {
    held: BTreeMap<Address, Held>,
    in_all: [usize; What::COUNT],
    next: u64,
}

/// The shares of all.
#[derive(Clone, Debug, Default)]
pub struct Shares(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    listed: Listed,
    table: Mutex<Table>,
}

impl Shares {
    /// Nobody has anything yet.
    pub fn new(listed: Listed) -> Self {
        Self(Arc::new(Inner { listed, table: Mutex::default() }))
    }

    /// Whom a request counts against that came over a connection from `peer`: behind a proxy the
    /// last address that no proxy has forwarded.
    pub(super) fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_proxy = |address: IpAddr| among(&self.0.listed.proxies, address);
        if !is_proxy(peer) {
            return peer;
        }
        let values = headers.get_all(FORWARDED).iter().rev();
        let forwarded = values.filter_map(|value| value.to_str().ok());
        let addresses =
            forwarded.flat_map(|value| value.rsplit(',')).map(|part| part.trim().parse());
        // What cannot be read was not forwarded by a proxy of ours.
        let known = addresses.map_while(Result::ok);
        known.take(16).find(|address| !is_proxy(*address)).unwrap_or(peer)
    }

    /// Takes one of something, until the share is dropped.
    pub(super) fn take(&self, caller: IpAddr, what: What) -> Result<Share, NoRoom> {
        let address = Address::of(caller);
        let mut table = self.table();
        table.take(address, what, self.most(caller, what))?;
        drop(table);
        Ok(Share { shares: self.clone(), address, what, number: None })
    }

    /// Takes a connection, and how it is told to close. Where there are too many in all, whoever has
    /// most gives up its oldest, if it has more than the caller would have.
    pub(super) fn connect(&self, peer: IpAddr) -> Result<(Share, Arc<Notify>), NoRoom> {
        let (address, what) = (Address::of(peer), What::Connection);
        let mut table = self.table();
        if table.in_all[what as usize] >= what.room().in_all {
            table.give_way(address);
        }
        table.take(address, what, self.most(peer, what))?;
        let number = table.next;
        table.next += 1;
        let close = Arc::new(Notify::new());
        let held = table.held.entry(address).or_default();
        held.connections.insert(number, close.clone());
        drop(table);
        Ok((Share { shares: self.clone(), address, what, number: Some(number) }, close))
    }

    fn most(&self, caller: IpAddr, what: What) -> usize {
        let Listed { proxies, head_ends } = &self.0.listed;
        let Room { address, head_end, .. } = what.room();
        if among(head_ends, caller) || among(proxies, caller) { head_end } else { address }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn among(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

impl Table {
    fn take(&mut self, address: Address, what: What, most: usize) -> Result<(), NoRoom> {
        let in_all = what.room().in_all;
        if self.in_all[what as usize] >= in_all {
            return Err(NoRoom { what, most: in_all, address: false });
        }
        let of_address = self.held.get(&address).map_or(0, |held| held.counts[what as usize]);
        if of_address >= most {
            return Err(NoRoom { what, most, address: true });
        }
        self.held.entry(address).or_default().counts[what as usize] += 1;
        self.in_all[what as usize] += 1;
        Ok(())
    }

    fn give(&mut self, address: Address, what: What, number: Option<u64>) {
        let Some(held) = self.held.get_mut(&address) else { return };
        let known = number.is_none_or(|number| held.connections.remove(&number).is_some());
        if known {
            held.counts[what as usize] = held.counts[what as usize].saturating_sub(1);
            self.in_all[what as usize] = self.in_all[what as usize].saturating_sub(1);
        }
        if held.counts.iter().all(|count| *count == 0) {
            self.held.remove(&address);
        }
    }

    /// Closes the oldest connection of whoever has most, if that is more than the newcomer would have.
    fn give_way(&mut self, newcomer: Address) {
        let what = What::Connection;
        let own = self.held.get(&newcomer).map_or(0, |held| held.connections.len());
        let most = self.held.iter().max_by_key(|(_, held)| held.connections.len());
        let Some((address, held)) = most.filter(|(_, held)| held.connections.len() > own + 1)
        else {
            return;
        };
        let Some((number, close)) = held.connections.first_key_value() else { return };
        close.notify_one();
        let (address, number) = (*address, *number);
        self.give(address, what, Some(number));
    }
}

/// One of something, held until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    address: Address,
    what: What,
    number: Option<u64>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.table().give(self.address, self.what, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn listed() -> Shares {
        let networks = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        Shares::new(Listed { proxies: networks("10.0.0.0/24"), head_ends: networks("10.1.0.7/32") })
    }

    #[test]
    fn an_address_has_its_share_and_leaves_the_rest_to_others() {
        let shares = listed();
        for (caller, most) in [("192.0.2.1", 32), ("10.1.0.7", 128)] {
            let held: Vec<_> =
                std::iter::from_fn(|| shares.take(ip(caller), What::Request).ok()).collect();
            assert_eq!(held.len(), most, "{caller}");
            let refused = shares.take(ip(caller), What::Request).unwrap_err();
            assert_eq!(refused, NoRoom { what: What::Request, most, address: true });
            assert!(shares.take(ip("192.0.2.2"), What::Request).is_ok());
            assert!(shares.take(ip(caller), What::File).is_ok(), "of other things it has none");
        }
        assert!(shares.table().held.is_empty(), "who has nothing is forgotten");
        assert_eq!(shares.table().in_all, [0; What::COUNT]);
    }

    #[test]
    fn addresses_of_one_customer_share() {
        let shares = listed();
        let own = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"].map(ip);
        let held: Vec<_> =
            (0..4).map(|at| shares.take(own[at % 2], What::LongBody).unwrap()).collect();
        for address in own {
            assert!(shares.take(address, What::LongBody).is_err());
        }
        assert!(shares.take(ip("2001:db8:1:3::1"), What::LongBody).is_ok());
        drop(held);
        assert!(shares.take(own[0], What::LongBody).is_ok());
        assert_eq!(Address::of(ip("::ffff:192.0.2.1")), Address::of(ip("192.0.2.1")));
    }

    #[test]
    fn many_addresses_together_have_no_more_than_there_is() {
        let shares = listed();
        let held: Vec<_> = (0..16_u8)
            .map(|last| shares.take(IpAddr::from([198, 51, 100, last]), What::LongBody).unwrap())
            .collect();
        let refused = shares.take(ip("192.0.2.1"), What::LongBody).unwrap_err();
        assert_eq!(refused, NoRoom { what: What::LongBody, most: 16, address: false });
        drop(held);
    }

    #[test]
    fn a_newcomer_displaces_a_connection_of_whoever_has_most() {
        let shares = listed();
        let (mut held, most) = (Vec::new(), What::Connection.room().in_all);
        'all: for last in 0..=255_u8 {
            for _ in 0..64 {
                held.push(shares.connect(IpAddr::from([198, 51, 100, last])).unwrap());
                if held.len() == most {
                    break 'all;
                }
            }
        }
        let told = |close: &Notify| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            std::pin::pin!(close.notified()).poll(&mut context).is_ready()
        };
        let newcomer = shares.connect(ip("192.0.2.1"));
        assert!(newcomer.is_ok());
        assert_eq!(held.iter().filter(|(_, close)| told(close)).count(), 1);
        assert_eq!(shares.table().in_all[What::Connection as usize], most);
        drop(held);
        drop(newcomer);
        assert!(shares.table().held.is_empty());
        assert_eq!(shares.table().in_all, [0; What::COUNT], "what was displaced counts once");
    }

    #[test]
    fn only_listed_proxies_say_for_whom_they_ask() {
        let shares = listed();
        let caller = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED, value.parse().unwrap());
            }
            shares.caller(ip(peer), &headers)
        };
        assert_eq!(caller("192.0.2.1", &["203.0.113.5"]), ip("192.0.2.1"), "no proxy of ours");
        assert_eq!(caller("10.0.0.1", &["203.0.113.5"]), ip("203.0.113.5"));
        // What the client wrote itself stands before what the proxy added.
        assert_eq!(caller("10.0.0.1", &["198.51.100.1, 203.0.113.5"]), ip("203.0.113.5"));
        assert_eq!(caller("10.0.0.1", &["198.51.100.1", "203.0.113.5"]), ip("203.0.113.5"));
        assert_eq!(caller("10.0.0.1", &["203.0.113.5, 10.0.0.2"]), ip("203.0.113.5"));
        assert_eq!(caller("10.0.0.1", &["203.0.113.5, unknown"]), ip("10.0.0.1"));
        assert_eq!(caller("10.0.0.1", &[]), ip("10.0.0.1"));
    }
}

//! Keys, tree, signature and transaction as printed (Eq 1 to 10).

use sha2::{Digest, Sha256};

/// Output of the paper's `h`, 32 bytes.
pub(crate) type Hash = [u8; 32];

/// `h(*)`: bare SHA-256, the same for links, tree nodes, `p` and `q`.
pub(crate) fn h(parts: &[&[u8]]) -> Hash {
    parts.iter().fold(Sha256::new(), |hasher, part| hasher.chain_update(part)).finalize().into()
}

/// A meter's chain `v_0 .. v_n`, all of it stored (Eq 1, 2; Table 5).
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    links: Vec<Hash>,
}

impl Chain {
    /// `v_n = h(seed)`, `v_{i-1} = h(v_i)`, for `n` a power of two. The seed is the SDI's.
    pub(crate) fn new(seed: &[u8], slots: usize) -> Self {
        let mut links = vec![h(&[seed])];
        for _ in 0..slots {
            links.extend(links.last().map(|link| h(&[link])));
        }
        links.reverse();
        Self { links }
    }

    /// `v_i`.
    pub(crate) fn link(&self, index: usize) -> Hash {
        self.links[index]
    }

    /// `r`: root over the bare links `v_1 .. v_n` (Eq 3).
    pub(crate) fn root(&self) -> Hash {
        let mut level = self.links[1..].to_vec();
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| h(&[&pair[0], &pair[1]])).collect();
        }
        level[0]
    }

    /// `C_i`: the siblings on the way from `v_i` to `r` (Eq 4).
    pub(crate) fn path(&self, index: usize) -> Vec<Hash> {
        let (mut level, mut position) = (self.links[1..].to_vec(), index - 1);
        let mut path = Vec::new();
        while level.len() > 1 {
            path.push(level[position ^ 1]);
            level = level.chunks(2).map(|pair| h(&[&pair[0], &pair[1]])).collect();
            position /= 2;
        }
        path
    }

    /// `M_r` of this chain (Eq 6).
    pub(crate) fn root_message(&self, start: u64, sdi: u16) -> RootMessage {
        RootMessage { v0: self.links[0], v1: self.links[1], r: self.root(), t0: start, sdi }
    }
}

/// `v_i + C_i`: the root that link and path lead to.
pub(crate) fn root_of(link: Hash, index: usize, path: &[Hash]) -> Hash {
    let mut position = index.wrapping_sub(1);
    path.iter().fold(link, |digest, sibling| {
        let parent =
            if position & 1 == 0 { h(&[&digest, sibling]) } else { h(&[sibling, &digest]) };
        position >>= 1;
        parent
    })
}

/// `M_r = {v_0, v_1, r, t_0, ID_SDI}` (Eq 6): no meter in it, signed by nobody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RootMessage {
    /// `v_0`.
    pub(crate) v0: Hash,
    /// `v_1`.
    pub(crate) v1: Hash,
    /// `r`.
    pub(crate) r: Hash,
    /// `t_0`, in slots.
    pub(crate) t0: u64,
    /// `ID_SDI`.
    pub(crate) sdi: u16,
}

/// `q = h(p, v_i)` with `p = h(m)` (Eq 7).
pub(crate) fn request_value(message: &[u8], link: &Hash) -> Hash {
    h(&[&h(&[message]), link])
}

/// `{q, v_0, ID_SM}` (Eq 8).
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "the printed T_s takes nothing from the request it answers")]
pub(crate) struct Request {
    /// `q`.
    pub(crate) value: Hash,
    /// `v_0`.
    pub(crate) v0: Hash,
    /// `ID_SM`.
    pub(crate) meter: u32,
}

/// `T_s`: the paper counts 10 bits for it, so it is a time, in slots, and nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Timestamp(pub(crate) u64);

/// Step 2: whoever leads stamps a request with the time it says it is.
pub(crate) fn stamp(_: &Request, now: u64) -> Timestamp {
    Timestamp(now)
}

/// `Sig_m = {ID_SM, T_s, v_i, i, C_i}` (Eq 9).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Signature {
    /// `ID_SM`.
    pub(crate) meter: u32,
    /// `T_s`.
    pub(crate) timestamp: Timestamp,
    /// `v_i`.
    pub(crate) link: Hash,
    /// `i`.
    pub(crate) index: usize,
    /// `C_i`.
    pub(crate) path: Vec<Hash>,
}

/// `Trans = {En(m)_PK, Sig_m, M_r}` (Eq 10, Table 2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Transaction {
    /// `En(m)`.
    pub(crate) encrypted: Vec<u8>,
    /// `Sig_m`.
    pub(crate) signature: Signature,
    /// `M_r`.
    pub(crate) root_message: RootMessage,
}

/// A meter as printed: it knows its chain, its `t_0` and its clock.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// `ID_SM`.
    pub(crate) id: u32,
    /// Its chain.
    pub(crate) chain: Chain,
    /// `t_0` as the SDI wrote it into the meter.
    pub(crate) t0: u64,
    /// `ID_SDI`.
    pub(crate) sdi: u16,
}

impl Meter {
    /// The link of a moment, `i = t - t_0 + 1`; counting starts at 2, `v_1` being in `M_r`.
    pub(crate) fn index_at(&self, clock: u64) -> usize {
        usize::try_from(clock - self.t0 + 1).unwrap_or(usize::MAX)
    }

    /// Step 1.
    pub(crate) fn request(&self, clock: u64, message: &[u8]) -> Request {
        let link = self.chain.link(self.index_at(clock));
        Request { value: request_value(message, &link), v0: self.chain.link(0), meter: self.id }
    }

    /// Step 3: as soon as any `T_s` has come back, the link goes out, within its slot.
    pub(crate) fn release(
        &self,
        clock: u64,
        timestamp: Timestamp,
        encrypted: Vec<u8>,
    ) -> Transaction {
        let index = self.index_at(clock);
        let (link, path) = (self.chain.link(index), self.chain.path(index));
        let signature = Signature { meter: self.id, timestamp, link, index, path };
        let root_message = self.chain.root_message(self.t0, self.sdi);
        Transaction { encrypted, signature, root_message }
    }
}

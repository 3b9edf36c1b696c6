//! Tagged SHA-256: one first byte per use, so that no two uses can be confused (scheme s1).
//!
//! The paper hashes everything with a bare `h`; then `q = h(p, v_i)` has the form of a tree node
//! and can be presented as one. Tags 00 and 01 are RFC 9162's, so that proofs can be checked with
//! Certificate Transparency tools; all others stay clear of them.

use core::fmt;

use sha2::block_api::compress256;

/// SHA-256 output, 32 bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of nothing, used where the first of a series has no predecessor.
    pub const ZERO: Self = Self([0; 32]);

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a hash is for: the first byte of its input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Tag {
    /// Leaf of an RFC 9162 tree.
    Leaf = 0x00,
    /// Inner node of an RFC 9162 tree.
    Node = 0x01,
    /// Chain step: salt, index, link.
    ChainStep = 0x02,
    /// Request value q: p, link.
    Request = 0x03,
    /// Payload commitment p: mr, index, H(body).
    Commitment = 0x04,
    /// Registration id mr: net, cbor(`M_r`).
    RootMessage = 0x06,
    /// Device commitment: nonce, serial number.
    Device = 0x07,
    /// Agreement hash h(Am).
    Agreement = 0x09,
    /// What SP and SDI keys sign: net, cbor(body).
    Signed = 0x0A,
    /// Block id: cbor(header).
    Block = 0x0B,
    /// Revocation lock: rho.
    RevocationLock = 0x0D,
    /// Draws of a round: seed, what is drawn, number.
    Draw = 0x0E,
    /// Salt of a chain: owner, SDI, meter, nonce.
    Salt = 0x16,
}

/// Tagged hash of the parts, one after the other.
///
/// Inputs of up to 118 bytes, which are all that occur per reading, take one or two calls of the
/// compression function on a padded block of the stack; longer ones go through the hasher.
#[inline]
pub fn hash(tag: Tag, parts: &[&[u8]]) -> Digest {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    if length > SHORT {
        return parts
            .iter()
            .fold(Hasher::new(tag), |mut hasher, part| {
                hasher.update(part);
                hasher
            })
            .finish();
    }
    let mut padded = [[0; 64]; 2];
    let bytes = padded.as_flattened_mut();
    bytes[0] = tag as u8;
    let mut end = 1;
    for part in parts {
        bytes[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    compress(&mut padded, length)
}

/// SHA-256 of the bytes, without a tag: `H(body)` of the payload commitment, FIPS 180-4.
#[inline]
pub fn plain(bytes: &[u8]) -> Digest {
    if bytes.len() > SHORT {
        return Digest(<sha2::Sha256 as sha2::Digest>::digest(bytes).into());
    }
    let mut padded = [[0; 64]; 2];
    padded.as_flattened_mut()[..bytes.len()].copy_from_slice(bytes);
    compress(&mut padded, bytes.len())
}

/// Tagged hash of an input that arrives in pieces.
///
/// What fits two blocks is collected and hashed as by [`hash`]; only longer inputs go through the
/// library's hasher.
#[derive(Clone)]
pub struct Hasher {
    padded: [[u8; 64]; 2],
    length: usize,
    long: Option<sha2::Sha256>,
}

impl Hasher {
    /// Starts with the tag.
    #[inline]
    pub const fn new(tag: Tag) -> Self {
        let mut padded = [[0; 64]; 2];
        padded[0][0] = tag as u8;
        Self { padded, length: 1, long: None }
    }

    /// Appends bytes.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if end <= SHORT && self.long.is_none() {
            self.padded.as_flattened_mut()[self.length..end].copy_from_slice(bytes);
            self.length = end;
        } else {
            self.update_long(bytes);
        }
    }

    fn update_long(&mut self, bytes: &[u8]) {
        use sha2::Digest as _;
        let collected = &self.padded.as_flattened()[..self.length];
        let long = self.long.get_or_insert_with(|| sha2::Sha256::new_with_prefix(collected));
        long.update(bytes);
    }

    /// The digest.
    #[inline]
    pub fn finish(mut self) -> Digest {
        match self.long {
            None => compress(&mut self.padded, self.length),
            Some(long) => Digest(sha2::Digest::finalize(long).into()),
        }
    }
}

impl minicbor::encode::Write for Hasher {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.update(bytes);
        Ok(())
    }
}

/// The longest input that fits two padded blocks.
const SHORT: usize = 119;

const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Pads `length` message bytes, the rest zero, and runs the compression function.
#[inline]
fn compress(padded: &mut [[u8; 64]; 2], length: usize) -> Digest {
    let blocks = if length <= 55 { 1 } else { 2 };
    let bytes = padded.as_flattened_mut();
    bytes[length] = 0x80;
    bytes[64 * blocks - 8..64 * blocks].copy_from_slice(&(8 * length as u64).to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &padded[..blocks]);
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Digest(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_inputs_hash_as_the_library_does() {
        let bytes = [0xA5_u8; 300];
        for length in 0..300 {
            let expected: [u8; 32] =
                <sha2::Sha256 as sha2::Digest>::digest(&bytes[..length]).into();
            assert_eq!(plain(&bytes[..length]).0, expected, "length {length}");
        }
    }

    proptest! {
        #[test]
        fn a_tagged_hash_is_the_hash_of_tag_and_parts(
            first in prop::collection::vec(any::<u8>(), 0..90),
            second in prop::collection::vec(any::<u8>(), 0..90),
        ) {
            let mut whole = std::vec![Tag::Commitment as u8];
            whole.extend_from_slice(&first);
            whole.extend_from_slice(&second);
            prop_assert_eq!(hash(Tag::Commitment, &[&first, &second]), plain(&whole));
            let mut hasher = Hasher::new(Tag::Commitment);
            hasher.update(&first);
            hasher.update(&second);
            prop_assert_eq!(hasher.finish(), plain(&whole));
        }
    }
}

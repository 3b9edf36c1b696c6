//! Batches: how a gateway SP puts the messages of many meters on the ledger (scheme s8.1).
//!
//! Columnar, one column per field, meters by their number in the registry (the order of
//! registration) in ascending order and coded as differences. A batch serves one slot number `g`.
//!
//! Sealed bodies are committed by hash: what the gateway signs contains `H(body)`, the bodies
//! travel beside it. Any of them can later be erased, its hash takes its place, and signatures and
//! proofs stay as they were.

use bkss_scheme::{
    Digest, Link, Network, ProviderId, SecretKey, Signature, Slot,
    codec::{self, Encoded, MAX_BODY},
    hash,
    identity::signed_digest,
    seal::{Body, KeyId, MAX_PLAINTEXT},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Number of a meter in the registry: 0 for the first that was registered.
pub type Row = u32;

/// Most items a decoder reads before the ledger's own limit is asked.
pub(crate) const MAX_ITEMS: usize = 1 << 16;
/// Poly1305 tag behind each ciphertext, bytes.
const TAG: usize = 16;

/// Request values of one slot: `[3, sp, g, [+ delta], qs, sig]` (Eq 8).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestBatch {
    /// The gateway that collected and signs.
    pub submitter: ProviderId,
    /// `g`: the slot all requests are for.
    pub slot: Slot,
    /// Meters, strictly ascending.
    pub rows: Vec<Row>,
    /// `q` of each.
    pub values: Vec<Digest>,
    /// Over all of the above.
    pub signature: Signature,
}

impl RequestBatch {
    /// Signs a batch of `(row, q)`, ascending by row.
    pub fn sign(
        network: Network,
        submitter: ProviderId,
        key: &SecretKey,
        slot: Slot,
        items: impl IntoIterator<Item = (Row, Digest)>,
    ) -> Self {
        let (rows, values) = items.into_iter().unzip();
        let mut batch = Self { submitter, slot, rows, values, signature: Signature([0; 64]) };
        batch.signature = key.sign(&batch.digest(network));
        batch
    }

    /// What the gateway signs.
    pub fn digest(&self, network: Network) -> Digest {
        signed_digest(network, &RequestColumns(self))
    }
}

struct RequestColumns<'a>(&'a RequestBatch);

impl RequestColumns<'_> {
    fn columns<W: encode::Write>(&self, encoder: &mut Encoder<W>) -> Encoded<W> {
        encoder.u8(3)?.encode(self.0.submitter)?.encode(self.0.slot)?;
        encode_rows(&self.0.rows, encoder)?;
        encode_column(self.0.values.iter().map(|value| &value.0), encoder)
    }
}

impl<C> Encode<C> for RequestColumns<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?;
        self.columns(encoder)
    }
}

impl<C> Encode<C> for RequestBatch {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(6)?;
        RequestColumns(self).columns(encoder)?;
        encoder.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RequestBatch {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 6)?;
        codec::constant(decoder, 3)?;
        let (submitter, slot) = (decoder.decode()?, decoder.decode()?);
        let rows = decode_rows(decoder)?;
        let values = decode_column(decoder, rows.len(), Digest)?;
        Ok(Self { submitter, slot, rows, values, signature: decoder.decode()? })
    }
}

/// Openings of one slot: `[4, sp, g, [+ delta], vs, bodies, sig]` (`Trans`, Eq 9, 10).
///
/// Signed is `[4, sp, g, [+ delta], vs, hs]` with `hs` the hashes of the bodies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpeningBatch {
    /// The gateway that collected and signs.
    pub submitter: ProviderId,
    /// `g`: the slot all openings are of.
    pub slot: Slot,
    /// Meters, strictly ascending.
    pub rows: Vec<Row>,
    /// `v_i` of each.
    pub links: Vec<Link>,
    /// Over rows, links and hashes of bodies.
    pub signature: Signature,
    bodies: Bodies,
    /// `H(body)` of each; always what `bodies` hash to.
    body_hashes: Vec<Digest>,
}

impl OpeningBatch {
    /// Signs a batch of `(row, v_i)`, ascending by row, with their bodies in the same order.
    pub fn sign(
        network: Network,
        submitter: ProviderId,
        key: &SecretKey,
        slot: Slot,
        items: impl IntoIterator<Item = (Row, Link)>,
        bodies: Bodies,
    ) -> Self {
        let (rows, links) = items.into_iter().unzip();
        let signature = Signature([0; 64]);
        let body_hashes = bodies.hashes();
        let mut batch = Self { submitter, slot, rows, links, signature, bodies, body_hashes };
        batch.signature = key.sign(&batch.digest(network));
        batch
    }

    /// What the gateway signs.
    pub fn digest(&self, network: Network) -> Digest {
        signed_digest(network, &OpeningColumns(self))
    }

    /// The bodies, or what is left of them.
    pub const fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// `H(body)` of each.
    pub fn body_hashes(&self) -> &[Digest] {
        &self.body_hashes
    }

    /// Erases a body; hash, signature and proofs stay. False if it is not there.
    pub fn erase(&mut self, position: u32) -> bool {
        self.bodies.erase(position)
    }

    /// Whether every body is there, none erased: what may travel to be put into a block.
    pub const fn is_complete(&self) -> bool {
        self.bodies.erased.is_empty()
    }

    /// Takes all bodies out, to be stored apart; their hashes stay.
    pub fn take_bodies(&mut self) -> Bodies {
        let none = Bodies {
            shape: Shape::NONE,
            count: self.bodies.count,
            encapsulated: Vec::new(),
            erased: (0..).zip(self.body_hashes.iter().copied()).collect(),
            ciphertexts: Vec::new(),
        };
        std::mem::replace(&mut self.bodies, none)
    }

    /// Puts bodies back in; false, and nothing done, if they are not those of this batch.
    pub fn restore_bodies(&mut self, bodies: Bodies) -> bool {
        let same = bodies.hashes() == self.body_hashes;
        if same {
            self.bodies = bodies;
        }
        same
    }
}

struct OpeningColumns<'a>(&'a OpeningBatch);

impl<C> Encode<C> for OpeningColumns<'_> {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(6)?;
        self.0.columns(encoder)?;
        encode_column(self.0.body_hashes.iter().map(|hash| &hash.0), encoder)
    }
}

impl OpeningBatch {
    fn columns<W: encode::Write>(&self, encoder: &mut Encoder<W>) -> Encoded<W> {
        encoder.u8(4)?.encode(self.submitter)?.encode(self.slot)?;
        encode_rows(&self.rows, encoder)?;
        encode_column(self.links.iter().map(Link::as_bytes), encoder)
    }
}

impl<C> Encode<C> for OpeningBatch {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(7)?;
        self.columns(encoder)?;
        encoder.encode(&self.bodies)?.encode(self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for OpeningBatch {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 7)?;
        codec::constant(decoder, 4)?;
        let (submitter, slot) = (decoder.decode()?, decoder.decode()?);
        let rows = decode_rows(decoder)?;
        let links = decode_column(decoder, rows.len(), Link::from_bytes)?;
        let at = decoder.position();
        let bodies: Bodies = decoder.decode()?;
        if bodies.count() != rows.len() {
            return Err(decode::Error::message("as many bodies as meters expected").at(at));
        }
        let (signature, body_hashes) = (decoder.decode()?, bodies.hashes());
        Ok(Self { submitter, slot, rows, links, signature, bodies, body_hashes })
    }
}

/// Sealed bodies of a batch, all with one key number and one length of ciphertext:
/// `[kid, length, [* [position, enc]], [* [position, hash]], cts]`.
///
/// The second list holds the hashes of erased bodies; their ciphertext is not in `cts`. Where all are
/// erased, key number and length are 0: nothing else would say what they were.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bodies {
    shape: Shape,
    count: usize,
    encapsulated: Vec<(u32, [u8; 32])>,
    erased: Vec<(u32, Digest)>,
    ciphertexts: Vec<u8>,
}

/// What all bodies of a batch have in common.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Shape {
    /// Number of the owners' sealing keys.
    pub key: KeyId,
    /// Bytes of a ciphertext with its tag.
    pub length: u16,
}

impl Shape {
    /// Of a column without any body.
    const NONE: Self = Self { key: KeyId(0), length: 0 };

    /// The shape of a body.
    pub fn of(body: &Body<'_>) -> Option<Self> {
        Some(Self { key: body.key, length: u16::try_from(body.ciphertext.len()).ok()? })
    }
}

impl Bodies {
    /// No bodies yet.
    pub const fn new(shape: Shape) -> Self {
        Self {
            shape,
            count: 0,
            encapsulated: Vec::new(),
            erased: Vec::new(),
            ciphertexts: Vec::new(),
        }
    }

    /// Appends a body; false, and nothing appended, if it has another shape.
    pub fn push(&mut self, body: &Body<'_>) -> bool {
        let Ok(position) = u32::try_from(self.count) else { return false };
        if Shape::of(body) != Some(self.shape) {
            return false;
        }
        if let Some(key) = body.encapsulated {
            self.encapsulated.push((position, key));
        }
        self.ciphertexts.extend_from_slice(body.ciphertext);
        self.count += 1;
        true
    }

    /// Number of bodies, erased ones included.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// How many of them are erased.
    pub fn erased(&self) -> usize {
        self.erased.len()
    }

    /// Each body, or the hash of an erased one, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Body<'_>, Digest>> {
        let length = usize::from(self.shape.length);
        let mut encapsulated = self.encapsulated.iter().peekable();
        let mut erased = self.erased.iter().peekable();
        let mut ciphertexts = self.ciphertexts.chunks_exact(length.max(1));
        (0..self.count).map(move |position| {
            let here = |place: u32| place as usize == position;
            if let Some((_, hash)) = erased.next_if(|(place, _)| here(*place)) {
                return Err(*hash);
            }
            let key = encapsulated.next_if(|(place, _)| here(*place));
            Ok(Body {
                key: self.shape.key,
                encapsulated: key.map(|(_, key)| *key),
                ciphertext: ciphertexts.next().unwrap_or_default(),
            })
        })
    }

    /// `H(body)` of each, in order.
    pub fn hashes(&self) -> Vec<Digest> {
        let mut buffer = [0; MAX_BODY];
        self.iter()
            .map(|body| match body {
                Ok(body) => hash::plain(encode_body(&body, &mut buffer)),
                Err(hash) => hash,
            })
            .collect()
    }

    /// Erases the body at a position; its hash stays. False if it is not there.
    pub fn erase(&mut self, position: u32) -> bool {
        let at = position as usize;
        let Some(Ok(body)) = self.iter().nth(at) else { return false };
        let hash = hash::plain(encode_body(&body, &mut [0; MAX_BODY]));
        let before = self.erased.partition_point(|(place, _)| *place < position);
        let length = usize::from(self.shape.length);
        let start = (at - before) * length;
        self.ciphertexts.drain(start..start + length);
        self.encapsulated.retain(|(place, _)| *place != position);
        self.erased.insert(before, (position, hash));
        if self.erased.len() == self.count {
            self.shape = Shape::NONE;
        }
        true
    }
}

/// Encodes a body into the buffer: the bytes that are hashed.
fn encode_body<'a>(body: &Body<'_>, buffer: &'a mut [u8; MAX_BODY]) -> &'a [u8] {
    // A ciphertext is at most 944 bytes, framing and key at most 44.
    codec::encode_into(body, buffer).unwrap_or_default()
}

impl<C> Encode<C> for Bodies {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.encode(self.shape.key)?.u16(self.shape.length)?;
        encoder.array(self.encapsulated.len() as u64)?;
        for (position, key) in &self.encapsulated {
            encoder.array(2)?.u32(*position)?.bytes(key)?;
        }
        encoder.array(self.erased.len() as u64)?;
        for (position, hash) in &self.erased {
            encoder.array(2)?.u32(*position)?.encode(hash)?;
        }
        encoder.bytes(&self.ciphertexts)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Bodies {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        let at = decoder.position();
        let malformed = |message| Err(decode::Error::message(message).at(at));
        let shape = Shape { key: decoder.decode()?, length: decoder.u16()? };
        let length = usize::from(shape.length);
        let of_bodies = shape.key.0 != 0
            && (TAG + 1..=TAG + MAX_PLAINTEXT).contains(&length)
            && (length - TAG).is_multiple_of(bkss_scheme::seal::PADDING);
        if !of_bodies && shape != Shape::NONE {
            return malformed("not the shape of sealed bodies");
        }
        let encapsulated = sparse(decoder, codec::bytes::<32>)?;
        let erased: Vec<(u32, Digest)> = sparse(decoder, Decoder::decode)?;
        let ciphertexts = codec::bytes_of_at_most(decoder, MAX_ITEMS * (TAG + MAX_PLAINTEXT))?;
        if ciphertexts.is_empty() == of_bodies {
            return malformed("a shape exactly where a body is expected");
        }
        if !ciphertexts.len().is_multiple_of(length.max(1)) {
            return malformed("ciphertexts of another length");
        }
        let count = ciphertexts.len() / length.max(1) + erased.len();
        let inside = |place: u32| (place as usize) < count;
        let gone = |place: &u32| erased.binary_search_by_key(place, |(place, _)| *place).is_ok();
        if !erased.iter().all(|(place, _)| inside(*place))
            || !encapsulated.iter().all(|(place, _)| inside(*place) && !gone(place))
        {
            return malformed("position without a body");
        }
        Ok(Self { shape, count, encapsulated, erased, ciphertexts: ciphertexts.to_vec() })
    }
}

/// A list of `[position, value]` with strictly ascending positions.
fn sparse<'b, T>(
    decoder: &mut Decoder<'b>,
    value: impl Fn(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<Vec<(u32, T)>, decode::Error> {
    let count = codec::array_of_at_most(decoder, MAX_ITEMS)?;
    let mut list = Vec::new();
    for _ in 0..count {
        codec::array(decoder, 2)?;
        let at = decoder.position();
        let position = decoder.u32()?;
        if list.last().is_some_and(|(before, _)| *before >= position) {
            return Err(decode::Error::message("positions do not ascend").at(at));
        }
        list.push((position, value(decoder)?));
    }
    Ok(list)
}

/// Ascending numbers as differences; the first as it is.
fn encode_rows<W: encode::Write>(rows: &[Row], encoder: &mut Encoder<W>) -> Encoded<W> {
    encoder.array(rows.len() as u64)?;
    let mut before = 0;
    for row in rows {
        encoder.u32(row.saturating_sub(before))?;
        before = *row;
    }
    Ok(())
}

fn decode_rows(decoder: &mut Decoder<'_>) -> Result<Vec<Row>, decode::Error> {
    let at = decoder.position();
    let count = codec::array_of_at_most(decoder, MAX_ITEMS)?;
    if count == 0 {
        return Err(decode::Error::message("a batch has at least one item").at(at));
    }
    let mut rows: Vec<Row> = Vec::with_capacity(count.min(decoder.input().len()));
    for _ in 0..count {
        let at = decoder.position();
        let delta = decoder.u32()?;
        let row = match rows.last() {
            None => Some(delta),
            Some(before) => before.checked_add(delta).filter(|_| delta > 0),
        };
        rows.push(row.ok_or_else(|| decode::Error::message("meters do not ascend").at(at))?);
    }
    Ok(rows)
}

/// Fixed-size values one after the other in one byte string.
fn encode_column<'a, W: encode::Write>(
    values: impl ExactSizeIterator<Item = &'a [u8; 32]>,
    encoder: &mut Encoder<W>,
) -> Encoded<W> {
    encoder.bytes_len(32 * values.len() as u64)?;
    for value in values {
        encoder.writer_mut().write_all(value).map_err(encode::Error::write)?;
    }
    Ok(())
}

fn decode_column<T>(
    decoder: &mut Decoder<'_>,
    count: usize,
    value: impl Fn([u8; 32]) -> T,
) -> Result<Vec<T>, decode::Error> {
    let at = decoder.position();
    let (chunks, rest) = decoder.bytes()?.as_chunks::<32>();
    if chunks.len() != count || !rest.is_empty() {
        return Err(decode::Error::message("a column of another length").at(at));
    }
    Ok(chunks.iter().map(|chunk| value(*chunk)).collect())
}

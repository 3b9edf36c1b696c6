//! The known values of scheme Appendix A: from two entropies to the value on the ledger.
//!
//! The values are in `vectors/appendix-a.json`, which `vectors/check.py` recomputes without this
//! crate. The ephemeral key is not injected here, so sealing starts from the slot key.

use std::path::Path;

use bkss_scheme::{
    Digest, Link, LinkIndex, MeterId, Network, ProviderId, RootMessage, Salt, SdiId, Slot, codec,
    hash::{self, Tag},
    hash_chain::{self, Blocks},
    merkle, request,
    root_message::SaltNonce,
    seal::{Body, KeyId, OpeningKey, OpeningSession},
    slot::Schedule,
};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, aead::Nonce};
use serde_json::Value;

use crate::shared::{hex, hex_of, json};

const SLOTS: u32 = 11;

struct Known(Value);

impl Known {
    fn read() -> Self {
        Self(json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/appendix-a.json")))
    }

    fn digest(&self, name: &str) -> Digest {
        Digest(hex_of(&self.0[name]))
    }

    /// A value that is the hash of a text.
    fn hashed(&self, name: &str) -> Digest {
        hash::plain(self.0["hashed_texts"][name].as_str().unwrap().as_bytes())
    }

    fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(&self, name: &str) -> T {
        self.0[name].as_u64().unwrap().try_into().unwrap()
    }

    fn network(&self) -> Network {
        Network(hex_of(&self.0["net"]))
    }

    fn salt(&self) -> Salt {
        Salt(hex_of(&self.0["salt"]))
    }

    fn link(&self, index: u32) -> Link {
        Link::from_bytes(hex_of(&self.0["v"][index.to_string()]))
    }

    fn path(&self, index: u32) -> Vec<Digest> {
        let siblings = self.0["C"][index.to_string()].as_array().unwrap();
        siblings.iter().map(|sibling| Digest(hex_of(sibling))).collect()
    }

    fn index(&self) -> LinkIndex {
        LinkIndex::new(self.number("index"), SLOTS).unwrap()
    }

    /// Leaves of the chain's tree, computed from the last link.
    fn leaves(&self) -> Vec<Digest> {
        let (salt, last) = (self.salt(), self.link(SLOTS));
        let leaf = |i| hash_chain::leaf(salt, i, &hash_chain::walk(salt, SLOTS, i, &last));
        (1..=SLOTS).map(leaf).collect()
    }
}

#[test]
fn a_network_is_named_by_its_genesis() {
    let known = Known::read();
    assert_eq!(known.number::<u32>("slots"), SLOTS);
    assert_eq!(known.hashed("net").0[..16], known.network().0);
}

#[test]
fn both_entropies_make_the_last_link_and_it_makes_all_others() {
    let known = Known::read();
    let (meter, sdi) = (known.hashed("meter_entropy"), known.hashed("sdi_entropy"));
    let chain_number = known.number("chain_number");
    let last = hash_chain::last_link(known.salt(), &meter.0, &sdi.0, known.network(), chain_number);
    let links = known.0["v"].as_object().unwrap();
    assert_eq!(links.len(), 6);
    for index in links.keys().map(|index| index.parse().unwrap()) {
        let link = hash_chain::walk(known.salt(), SLOTS, index, &last);
        assert_eq!(link.as_bytes(), known.link(index).as_bytes(), "v_{index}");
    }
}

#[test]
fn a_chain_ends_in_its_anchor_and_its_root_however_it_is_cut() {
    let known = Known::read();
    for log2 in 0..=4 {
        let blocks = Blocks::new(SLOTS, log2).unwrap();
        let ends = hash_chain::build(known.salt(), blocks, &known.link(SLOTS), |_| ());
        assert_eq!(ends.anchor.as_bytes(), known.link(0).as_bytes(), "blocks of 2^{log2}");
        assert_eq!(ends.root, known.digest("r"), "blocks of 2^{log2}");
    }
}

#[test]
fn every_known_path_leads_its_leaf_and_no_other_to_the_root() {
    let known = Known::read();
    let leaves = known.leaves();
    for index in [1, 11] {
        let expected = Digest(hex_of(&known.0["leaf"][index.to_string()]));
        assert_eq!(leaves[index - 1], expected, "leaf {index}");
    }
    for index in [3, 11] {
        let siblings = known.path(index);
        let path = merkle::path(&leaves, index as usize - 1).unwrap();
        assert_eq!(path.siblings(), siblings, "C_{index}");
        for (leaf, position) in leaves.iter().zip(0..) {
            let reached = path.root(*leaf, position, SLOTS.into());
            let same = position == u64::from(index) - 1;
            assert_eq!(reached == Some(known.digest("r")), same, "C_{index} from {position}");
        }
    }
}

#[test]
fn a_root_message_has_one_spelling_and_one_id() {
    let known = Known::read();
    let serial = known.0["device_serial"].as_str().unwrap();
    let message = RootMessage {
        meter: MeterId(known.number("meter")),
        owner: ProviderId(known.number("owner")),
        sdi: SdiId(known.number("sdi")),
        nonce: SaltNonce(hex_of(&known.0["salt_nonce"])),
        anchor: known.link(0),
        root: known.digest("r"),
        schedule: Schedule {
            first: Slot(known.number("first_slot")),
            slot_s: known.number("slot_s"),
            window_s: known.number("window_s"),
            slots: SLOTS,
        },
        device: hash::hash(Tag::Device, &[&hex(&known.0["device_nonce"]), serial.as_bytes()]),
        revocation_lock: Some(hash::hash(Tag::RevocationLock, &[&known.hashed("rho").0])),
    };
    let bytes = hex(&known.0["root_message"]);
    assert_eq!(codec::encode_into(&message, &mut [0; 256]).unwrap(), bytes);
    assert_eq!(codec::decode("root message", &bytes), Ok(message.clone()));
    assert_eq!(message.id(known.network()), known.digest("mr"));
    assert_eq!(message.salt(), known.salt());
    for other in [
        RootMessage { meter: MeterId(message.meter.0 + 1), ..message.clone() },
        RootMessage { owner: ProviderId(message.owner.0 + 1), ..message.clone() },
        RootMessage { sdi: SdiId(message.sdi.0 + 1), ..message.clone() },
        RootMessage { nonce: SaltNonce([1; 16]), ..message },
    ] {
        assert_ne!(other.salt(), known.salt(), "{other:?}");
    }
}

#[test]
fn the_owner_opens_the_sealed_reading() {
    let known = Known::read();
    let key_id = KeyId(known.number("key_id"));
    let key = OpeningKey::from_bytes(key_id, known.hashed("opening_key").0);
    assert_eq!(key.public().public, known.digest("sealing_key").0);

    let bytes = hex(&known.0["body"]);
    let body: Body<'_> = codec::decode("body", &bytes).unwrap();
    let (encapsulated, ciphertext) = (hex_of(&known.0["enc"]), hex(&known.0["ct"]));
    assert_eq!(
        body,
        Body { key: key_id, encapsulated: Some(encapsulated), ciphertext: &ciphertext }
    );
    assert_eq!(codec::encode_into(&body, &mut [0; 128]).unwrap(), bytes);

    let session = OpeningSession::start(known.network(), &key, &encapsulated).unwrap();
    let slot_key = session.slot_key(known.index());
    assert_eq!(slot_key.as_bytes(), &known.digest("slot_key").0);
    let opened = slot_key.open(&known.digest("mr"), known.index(), &ciphertext).unwrap();
    assert_eq!(opened[..], hex(&known.0["m"]));
}

#[test]
fn the_slot_key_seals_the_reading_into_the_known_ciphertext() {
    let known = Known::read();
    let mut sealed = hex(&known.0["m"]);
    let associated = [&known.digest("mr").0[..], &known.index().get().to_be_bytes()].concat();
    let tag = ChaCha20Poly1305::new(&known.digest("slot_key").0.into())
        .encrypt_inout_detached(
            &Nonce::<ChaCha20Poly1305>::default(),
            &associated,
            sealed.as_mut_slice().into(),
        )
        .unwrap();
    sealed.extend_from_slice(&tag);
    assert_eq!(sealed, hex(&known.0["ct"]));
}

#[test]
fn body_and_link_make_the_request_value() {
    let known = Known::read();
    let (mr, index) = (known.digest("mr"), known.index());
    let body_hash = hash::plain(&hex(&known.0["body"]));
    let commitment = request::commitment(&mr, index, &body_hash);
    assert_eq!(commitment, known.digest("p"));
    let link = known.link(index.get());
    assert_eq!(request::request_value(&commitment, &link), known.digest("q"));
}

#[test]
fn the_tree_is_that_of_certificate_transparency() {
    let known = Known::read();
    let tree = &known.0["tree_of_eight"];
    let entries = tree["entries"].as_array().unwrap();
    let leaves: Vec<_> = entries.iter().map(|entry| merkle::leaf(&[&hex(entry)])).collect();
    assert_eq!(leaves.len(), 8);
    assert_eq!(merkle::root(&leaves), Some(Digest(hex_of(&tree["root"]))));
}

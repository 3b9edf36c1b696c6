//! Laws of the codec: what everybody hashes and signs has one spelling, and no bytes cause a panic.

use bkss_scheme::{
    Certificate, Committee, Digest, Header, LedgerTime, Link, LinkIndex, MeterId, Network,
    ProviderId, RootMessage, SdiId, Signature, Slot, Timestamp, TreeHead,
    certificate::VoteKey,
    codec,
    finality::Finality,
    merkle::Path,
    receipt::Receipt,
    root_message::{Registration, SaltNonce},
    slot::Schedule,
    timestamp::{Inclusion, RegistrationProof, TimeProof},
};
use minicbor::{Decode, Encode};
use proptest::{option, prelude::*, sample::Index};

proptest! {
    #[test]
    fn a_header_comes_back(header in header()) {
        prop_assert_eq!(codec::decode("header", &encoded(&header)), Ok(header));
    }

    #[test]
    fn a_certificate_comes_back(parts in certificate_parts()) {
        let certificate = certificate(&parts);
        let bytes = encoded(&certificate);
        prop_assert_eq!(codec::decode("certificate", &bytes), Ok(certificate));
    }

    #[test]
    fn a_receipt_comes_back(parts in receipt_parts()) {
        let receipt = receipt(&parts);
        let bytes = encoded(&receipt);
        prop_assert_eq!(codec::decode("receipt", &bytes), Ok(receipt));
    }

    #[test]
    fn an_altered_header_is_refused_or_has_its_one_spelling_and_its_own_id(
        header in header(), alteration in alteration(),
    ) {
        let bytes = encoded(&header);
        let altered = alteration.of(&bytes);
        refused_or_canonical::<Header>(&altered)?;
        if let Ok(other) = codec::decode::<Header>("header", &altered) {
            prop_assert_eq!(other.id() == header.id(), altered == bytes);
        }
    }

    #[test]
    fn an_altered_certificate_is_refused_or_has_its_one_spelling(
        parts in certificate_parts(), alteration in alteration(),
    ) {
        refused_or_canonical::<Certificate<'_>>(&alteration.of(&encoded(&certificate(&parts))))?;
    }

    #[test]
    fn an_altered_receipt_is_refused_or_has_its_one_spelling(
        parts in receipt_parts(), alteration in alteration(),
    ) {
        refused_or_canonical::<Receipt<'_>>(&alteration.of(&encoded(&receipt(&parts))))?;
    }

    #[test]
    fn a_truncated_or_extended_encoding_is_refused(
        header in header(), parts in receipt_parts(), cut: Index, byte: u8,
    ) {
        let (header, receipt) = (encoded(&header), encoded(&receipt(&parts)));
        prop_assert!(codec::decode::<Header>("header", &header[..cut.index(header.len())]).is_err());
        let cut = &receipt[..cut.index(receipt.len())];
        prop_assert!(codec::decode::<Receipt<'_>>("receipt", cut).is_err());
        for mut longer in [header, receipt] {
            longer.push(byte);
            prop_assert!(codec::decode::<Header>("header", &longer).is_err());
            prop_assert!(codec::decode::<Receipt<'_>>("receipt", &longer).is_err());
        }
    }

    #[test]
    fn random_bytes_cause_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        refused_or_canonical::<Header>(&bytes)?;
        refused_or_canonical::<Certificate<'_>>(&bytes)?;
        refused_or_canonical::<Receipt<'_>>(&bytes)?;
        refused_or_canonical::<Registration>(&bytes)?;
        refused_or_canonical::<TimeProof<'_>>(&bytes)?;
        refused_or_canonical::<RegistrationProof<'_>>(&bytes)?;
        let committee = Committee::new([VoteKey([1; 32]), VoteKey([2; 32])]).unwrap();
        if let Ok((certificate, _)) = Certificate::from_engine(&bytes, &committee) {
            prop_assert!(certificate.signatures.len() <= bytes.len());
        }
    }

    /// The first bytes are those of a receipt, so that the random ones are read as its insides.
    #[test]
    fn random_bytes_inside_a_receipt_cause_no_panic(
        parts in receipt_parts(), keep: Index,
        random in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = encoded(&receipt(&parts));
        bytes.truncate(keep.index(bytes.len()));
        bytes.extend_from_slice(&random);
        refused_or_canonical::<Receipt<'_>>(&bytes)?;
    }
}

fn encoded(value: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = vec![0; codec::length(value)];
    assert_eq!(codec::encode_into(value, &mut bytes).unwrap().len(), codec::length(value));
    bytes
}

fn refused_or_canonical<'b, T>(bytes: &'b [u8]) -> Result<(), TestCaseError>
where
    T: Decode<'b, ()> + Encode<()>,
{
    if let Ok(value) = codec::decode::<T>("value", bytes) {
        prop_assert_eq!(encoded(&value), bytes);
    }
    Ok(())
}

/// What happens to bytes on their way.
#[derive(Clone, Debug)]
enum Alteration {
    Truncated(Index),
    Extended(Vec<u8>),
    BitFlipped(Index, u8),
    Inserted(Index, u8),
    Removed(Index),
}

impl Alteration {
    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let mut altered = bytes.to_vec();
        match self {
            Self::Truncated(at) => altered.truncate(at.index(bytes.len())),
            Self::Extended(tail) => altered.extend_from_slice(tail),
            Self::BitFlipped(at, bit) => altered[at.index(bytes.len())] ^= 1 << bit,
            Self::Inserted(at, byte) => altered.insert(at.index(bytes.len()), *byte),
            Self::Removed(at) => {
                altered.remove(at.index(bytes.len()));
            }
        }
        altered
    }
}

fn alteration() -> impl Strategy<Value = Alteration> {
    prop_oneof![
        1 => any::<Index>().prop_map(Alteration::Truncated),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Alteration::Extended),
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Alteration::BitFlipped(at, bit)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Alteration::Inserted(at, byte)),
        1 => any::<Index>().prop_map(Alteration::Removed),
    ]
}

/// Numbers of every encoded length, the shortest as often as the longest.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn tree() -> impl Strategy<Value = TreeHead> {
    (1..=u32::MAX, digest()).prop_map(|(count, root)| TreeHead { count, root })
}

fn header() -> impl Strategy<Value = Header> {
    let trees = (option::of(tree()), option::of(tree()), option::of(tree()));
    let handed_over = (option::of(digest()), option::of(digest()), option::of(digest()));
    (number(), digest(), number(), digest(), handed_over, trees).prop_map(
        |(height, previous, time, committee, (next_committee, members, state), trees)| Header {
            height,
            previous,
            time: LedgerTime(time),
            committee,
            next_committee,
            members,
            state,
            transactions: trees.0,
            requests: trees.1,
            openings: trees.2,
        },
    )
}

/// Epoch, view and parent view; signers; signatures.
type CertificateParts = ([u64; 3], u32, Vec<u8>);

fn certificate_parts() -> impl Strategy<Value = CertificateParts> {
    ([number(), number(), number()], any::<u32>(), prop::collection::vec(any::<u8>(), 0..=2048))
}

fn certificate(parts: &CertificateParts) -> Certificate<'_> {
    let ([epoch, view, parent_view], signers, signatures) = parts;
    let (epoch, view, parent_view) = (*epoch, *view, *parent_view);
    Certificate { epoch, view, parent_view, signers: *signers, signatures }
}

/// Index, siblings, header, descendants, certificate.
type InclusionParts = (u32, Vec<Digest>, Header, Vec<u8>, CertificateParts);

fn inclusion_parts() -> impl Strategy<Value = InclusionParts> {
    (
        any::<u32>(),
        siblings(),
        header(),
        prop::collection::vec(any::<u8>(), 0..300),
        certificate_parts(),
    )
}

fn inclusion(parts: &InclusionParts) -> Inclusion<'_> {
    let (index, siblings, header, descendants, certified) = parts;
    Inclusion {
        index: *index,
        path: Path::new(siblings.iter().copied()).unwrap(),
        header: header.clone(),
        finality: Finality { descendants, certificate: certificate(certified) },
    }
}

fn siblings() -> impl Strategy<Value = Vec<Digest>> {
    prop::collection::vec(digest(), 0..=codec::MAX_PATH)
}

fn schedule() -> impl Strategy<Value = Schedule> {
    (number(), 2..=u32::MAX, any::<Index>(), 1..=1_u32 << 20).prop_map(
        |(first, slot_s, window, slots)| {
            let window_s = 1 + u32::try_from(window.index(slot_s as usize - 1)).unwrap();
            Schedule { first: Slot(first), slot_s, window_s, slots }
        },
    )
}

fn root_message() -> impl Strategy<Value = RootMessage> {
    let ids = (any::<u32>(), any::<u16>(), any::<u16>());
    let digests = (digest(), digest(), option::of(digest()));
    (ids, any::<[u8; 16]>(), any::<[u8; 32]>(), schedule(), digests).prop_map(
        |((meter, owner, sdi), nonce, anchor, schedule, (root, device, revocation_lock))| {
            RootMessage {
                meter: MeterId(meter),
                owner: ProviderId(owner),
                sdi: SdiId(sdi),
                nonce: SaltNonce(nonce),
                anchor: Link::from_bytes(anchor),
                root,
                schedule,
                device,
                revocation_lock,
            }
        },
    )
}

/// All of a receipt, with what it borrows.
#[derive(Clone, Debug)]
struct ReceiptParts {
    network: [u8; 16],
    registration: Registration,
    index: u32,
    link: [u8; 32],
    link_path: Option<Vec<Digest>>,
    body: Vec<u8>,
    submitter: u16,
    value: Digest,
    inclusions: [InclusionParts; 3],
}

fn receipt_parts() -> impl Strategy<Value = ReceiptParts> {
    let registration =
        (root_message(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(message, sdi, owner)| {
            let signature = |half: [u8; 32]| {
                let mut bytes = [0xA5; 64];
                bytes[..32].copy_from_slice(&half);
                Signature(bytes)
            };
            Registration {
                message,
                sdi_signature: signature(sdi),
                owner_signature: signature(owner),
            }
        });
    let link = (1..=u32::MAX, any::<[u8; 32]>(), option::of(siblings()));
    let body = prop::collection::vec(any::<u8>(), 0..=codec::MAX_BODY);
    let inclusions = [inclusion_parts(), inclusion_parts(), inclusion_parts()];
    (any::<[u8; 16]>(), registration, link, body, any::<u16>(), digest(), inclusions).prop_map(
        |(network, registration, link, body, submitter, value, inclusions)| {
            let (index, link, link_path) = link;
            ReceiptParts {
                network,
                registration,
                index,
                link,
                link_path,
                body,
                submitter,
                value,
                inclusions,
            }
        },
    )
}

fn receipt(parts: &ReceiptParts) -> Receipt<'_> {
    let [registered, stamped, opened] = parts.inclusions.each_ref().map(inclusion);
    let path = |siblings: &Vec<Digest>| Path::new(siblings.iter().copied()).unwrap();
    Receipt {
        network: Network(parts.network),
        registration: parts.registration.clone(),
        registered,
        index: LinkIndex::new(parts.index % (1 << 20) + 1, 1 << 20).unwrap(),
        link: Link::from_bytes(parts.link),
        link_path: parts.link_path.as_ref().map(path),
        body: &parts.body,
        timestamp: Timestamp {
            submitter: ProviderId(parts.submitter),
            value: parts.value,
            inclusion: stamped,
        },
        opened,
    }
}

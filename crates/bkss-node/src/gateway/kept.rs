//! A message as the journal keeps it: with the chain that it is for.
//!
//! A meter's next chain begins with link 1 again. What was taken for one chain must not come back
//! for another.

use bkss_ledger::transaction_batch::Row;
use bkss_scheme::Malformed;
use minicbor::{Decoder, Encoder};

use crate::message::Message;

/// `[registry number / null, message]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Kept {
    /// The chain; none for a registration or a change.
    pub(super) row: Option<Row>,
    pub(super) message: Message,
}

impl Kept {
    /// Appends its bytes.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        // A vector takes everything.
        let mut encoder = Encoder::new(&mut *bytes);
        let _ = encoder.array(2).and_then(|encoder| encoder.encode(self.row));
        self.message.encode(bytes);
    }

    /// Decodes one from the front of `bytes` and leaves the rest there.
    pub(super) fn decode_first(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(bytes);
        let head = decoder.array().and_then(|length| Ok((length, decoder.decode()?)));
        match head {
            Ok((Some(2), row)) => {
                *bytes = &bytes[decoder.position()..];
                Ok(Self { row, message: Message::decode_first(bytes)? })
            }
            _ => Err(Malformed::Spelling { what: "kept message", offset: 0, length: bytes.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use bkss_scheme::{Link, LinkIndex, MeterId, transaction::Release};

    use super::*;

    #[test]
    fn what_is_kept_names_its_chain() {
        let index = LinkIndex::new(3, 9).unwrap();
        let release = Release { meter: MeterId(7), index, link: Link::from_bytes([3; 32]) };
        let message = Message::from(release);
        let mut bytes = Vec::new();
        let kept = [Some(70_000), None, Some(0)].map(|row| Kept { row, message: message.clone() });
        kept.iter().for_each(|kept| kept.encode(&mut bytes));
        let mut rest = &bytes[..];
        for kept in &kept {
            assert_eq!(Kept::decode_first(&mut rest).as_ref(), Ok(kept));
        }
        assert!(rest.is_empty());
        let mut bare = Vec::new();
        message.encode(&mut bare);
        assert!(Kept::decode_first(&mut &bare[..]).is_err(), "it says no chain");
        assert!(Kept::decode_first(&mut &bytes[..5]).is_err());
    }
}

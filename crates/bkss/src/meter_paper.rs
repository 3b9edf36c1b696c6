//! What SDI and owner sign together about a meter: its next chain, or the end of its chain.
//!
//! Neither can do it alone, and they need not share a machine: the paper is a file that goes from
//! one to the other by hand and collects both signatures, like a change of membership.

use std::path::Path;

use bkss_ledger::{
    Revocation, Terms, Transaction, membership,
    revocation::{self, Reason, RevocationRefusal, Right},
};
use bkss_scheme::{
    Digest, LedgerTime, MeterId, Network, RootMessage, SdiId, Signature,
    codec::{self, Encoded},
    identity::signed_digest,
    merkle,
    root_message::Registration,
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use serde_json::{Value, json};

use crate::{
    changes::hex,
    command::CommandError,
    documents::title,
    files::{self, malformed},
    found::SdiKeys,
    known_meter::KnownMeter,
    output,
    provider::Keys,
    verify::utc,
};

/// Most bytes of a paper: the block roots of the longest chain.
const MAX_PAPER: u64 = 64 << 20;
/// Most block roots of a chain.
const MAX_ROOTS: usize = 1 << 20;
const TITLE: &str = "bkss paper about a meter";

/// What is signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Matter {
    /// The meter's next chain. The owner keeps the block roots, to build `C_i` when links are
    /// public.
    Chain { message: RootMessage, block_log2: u8, block_roots: Vec<Digest> },
    /// The end of a chain.
    End { meter: MeterId, chain: Digest, reason: Reason },
}

/// A paper under way: `["bkss paper about a meter", net, matter, [sdi, sig] / null, sig / null]`
/// and a checksum.
pub(crate) struct MeterPaper {
    /// Of which network.
    pub(crate) network: Network,
    /// What it is about.
    pub(crate) matter: Matter,
    /// The signature of an SDI.
    pub(crate) sdi: Option<(SdiId, Signature)>,
    /// The signature of the meter's owner.
    pub(crate) owner: Option<Signature>,
}

impl MeterPaper {
    /// Without signatures.
    pub(crate) const fn new(network: Network, matter: Matter) -> Self {
        Self { network, matter, sdi: None, owner: None }
    }

    /// Reads a paper of this network.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn load(path: &Path, network: Network) -> Result<Self, CommandError> {
        Self::parse(path, &files::read(path, MAX_PAPER)?, network)
    }

    /// Takes the bytes of the file of a paper.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn parse(path: &Path, bytes: &[u8], network: Network) -> Result<Self, CommandError> {
        let content = files::check(path, bytes)?;
        let paper: Self = codec::decode(TITLE, content).map_err(malformed(path))?;
        if paper.network == network {
            return Ok(paper);
        }
        let (path, found) = (path.display(), paper.network);
        Err(CommandError::Refused(format!("{path}: of network {found}, this one is {network}")))
    }

    /// Which meter it is about.
    pub(crate) const fn meter(&self) -> MeterId {
        match &self.matter {
            Matter::Chain { message, .. } => message.meter,
            Matter::End { meter, .. } => *meter,
        }
    }

    /// What both sign.
    pub(crate) fn digest(&self) -> Digest {
        match &self.matter {
            Matter::Chain { message, .. } => signed_digest(self.network, message),
            Matter::End { meter, chain, reason } => {
                revocation::digest(self.network, *meter, chain, *reason)
            }
        }
    }

    /// Takes in the signatures of another copy.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`] if it says something else.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), CommandError> {
        let (expected, found) = (self.digest(), other.digest());
        if expected != found {
            let reason = format!("paper {found} does not say the same as {expected}");
            return Err(CommandError::Refused(reason));
        }
        self.sdi = self.sdi.or(other.sdi);
        self.owner = self.owner.or(other.owner);
        Ok(())
    }

    /// Signs as the owner of the meter.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`] if these are not its keys.
    pub(crate) fn sign_as_owner(
        &mut self,
        keys: &Keys,
        known: &KnownMeter,
    ) -> Result<(), CommandError> {
        let owner = known.last.owner;
        let key = (owner == keys.id).then(|| known.owner_key()).transpose()?;
        if key != Some(keys.identity.public()) {
            let (meter, id) = (self.meter(), keys.id);
            let reason =
                format!("meter {meter} belongs to provider {owner}, these are keys of {id}");
            return Err(CommandError::Refused(reason));
        }
        self.owner = Some(keys.identity.sign(&self.digest()));
        Ok(())
    }

    /// Signs as an SDI.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`] if the ledger does not know this key, or a chain is another's.
    pub(crate) fn sign_as_sdi(
        &mut self,
        keys: &SdiKeys,
        known: &KnownMeter,
    ) -> Result<(), CommandError> {
        let id = keys.identity.id;
        if known.sdi_key(id)? != keys.identity.key {
            return Err(CommandError::Refused(format!("the ledger knows another key of SDI {id}")));
        }
        self.check_sdi(id)?;
        self.sdi = Some((id, keys.key.sign(&self.digest())));
        Ok(())
    }

    /// A chain is signed by the SDI that it names.
    fn check_sdi(&self, found: SdiId) -> Result<(), CommandError> {
        match &self.matter {
            Matter::Chain { message, .. } if message.sdi != found => {
                let expected = message.sdi;
                Err(CommandError::Refused(format!("chain of SDI {expected}, signed by {found}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks everything that the ledger will check, but for signatures that are missing.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`], with the rule.
    pub(crate) fn check(&self, known: &KnownMeter, terms: &Terms) -> Result<(), CommandError> {
        let refused = "by the ledger's rules";
        match &self.matter {
            Matter::Chain { message, .. } => {
                let checked =
                    membership::check_next(&known.chain(self.network), message).and_then(|()| {
                        membership::check_schedule(terms, known.time, &message.schedule)
                    });
                checked.map_err(CommandError::refused(refused))?;
            }
            Matter::End { meter, chain, .. } if *chain != known.chain(self.network).id => {
                let unknown = RevocationRefusal::UnknownChain(*meter);
                return Err(CommandError::refused(refused)(unknown));
            }
            Matter::End { .. } => {}
        }
        let digest = self.digest();
        if let Some((id, signature)) = &self.sdi {
            self.check_sdi(*id)?;
            let checked = known.sdi_key(*id)?.verify(&digest, signature);
            checked.map_err(CommandError::refused("signature of the SDI"))?;
        }
        if let Some(signature) = &self.owner {
            let checked = known.owner_key()?.verify(&digest, signature);
            checked.map_err(CommandError::refused("signature of the owner"))?;
        }
        Ok(())
    }

    /// Whose signature is missing.
    pub(crate) const fn missing(&self) -> Option<&'static str> {
        match (&self.sdi, &self.owner) {
            (None, None) => Some("SDI and owner have to sign it"),
            (None, Some(_)) => Some("an SDI has to sign it"),
            (Some(_), None) => Some("the meter's owner has to sign it"),
            (Some(_), Some(_)) => None,
        }
    }

    /// What goes to the ledger.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`] if a signature is missing.
    pub(crate) fn transaction(&self) -> Result<Transaction, CommandError> {
        let (Some((sdi, sdi_signature)), Some(owner_signature)) = (self.sdi, self.owner) else {
            let missing = self.missing().unwrap_or_default();
            return Err(CommandError::Refused(missing.to_owned()));
        };
        Ok(match &self.matter {
            Matter::Chain { message, .. } => {
                let message = message.clone();
                Transaction::Registration(Registration { message, sdi_signature, owner_signature })
            }
            Matter::End { meter, chain, reason } => Transaction::Revocation(Revocation {
                meter: *meter,
                chain: *chain,
                reason: *reason,
                right: Right::Signed { sdi, sdi_signature, owner_signature },
            }),
        })
    }

    /// Says what would be on the ledger and who has signed it.
    pub(crate) fn show(&self, known: &KnownMeter) {
        let KnownMeter { last, .. } = known;
        match &self.matter {
            Matter::Chain { message, .. } => show_chain(last, message),
            Matter::End { meter, chain, reason } => {
                output::result(&format!("meter {meter} signs nothing any more: its chain {chain}"));
                output::result("  what was requested before may still be opened");
                output::result(&format!("  reason         {}", reason.0));
            }
        }
        output::result(&format!("  owner          provider {}", last.owner));
        output::result(&format!("  device         {}", hex(&last.device.0)));
        output::result(&format!("  network        {}", self.network));
        output::result(&format!("  signed         {}", self.digest()));
        if let Some((sdi, _)) = &self.sdi {
            output::result(&format!("  signed by      SDI {sdi}"));
        }
        if self.owner.is_some() {
            output::result("  signed by      the owner");
        }
    }

    /// What has become of it, for programs: nothing yet, written for others to sign, sent, or final.
    pub(crate) fn json(&self, done: &str) -> Value {
        let mut value = json!({
            "done": done,
            "meter": self.meter().0,
            "network": self.network.to_string(),
            "signed": self.digest().to_string(),
            "sdi": self.sdi.map(|(sdi, _)| sdi.0),
            "owner_signature": self.owner.is_some(),
        });
        match &self.matter {
            Matter::Chain { message, .. } => {
                let schedule = &message.schedule;
                value["matter"] = "chain".into();
                value["begins"] = utc(schedule.begins()).into();
                value["slots"] = schedule.slots.into();
                value["slot_s"] = schedule.slot_s.into();
                value["window_s"] = schedule.window_s.into();
            }
            Matter::End { chain, reason, .. } => {
                value["matter"] = "end".into();
                value["chain"] = chain.to_string().into();
                value["reason"] = reason.0.into();
            }
        }
        value
    }

    /// Written for others to sign, for programs.
    pub(crate) fn written(&self, out: &Path) -> Value {
        let mut done = self.json("written");
        done["file"] = out.display().to_string().into();
        done
    }
}

fn show_chain(last: &RootMessage, next: &RootMessage) {
    let schedule = &next.schedule;
    let (begins, slots) = (schedule.begins(), schedule.slots);
    output::result(&format!("meter {} gets its next chain", next.meter));
    output::result(&format!("  first slot     {}", utc(begins)));
    output::result(&format!(
        "  slots          {slots} of {} s, windows of {} s",
        schedule.slot_s, schedule.window_s
    ));
    let end = end_of(last).min(begins);
    output::result(&format!("  last chain     ends {}", utc(end)));
}

/// End of a chain's last slot.
pub(crate) const fn end_of(message: &RootMessage) -> LedgerTime {
    let schedule = &message.schedule;
    let slot = schedule.first.0.saturating_add(schedule.slots as u64);
    LedgerTime::from_seconds(slot.saturating_mul(schedule.slot_s as u64))
}

impl<C> Encode<C> for Matter {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        match self {
            Self::Chain { message, block_log2, block_roots } => {
                encoder.array(4)?.u8(1)?.encode(message)?.u8(*block_log2)?;
                encoder.encode(block_roots)?.ok()
            }
            Self::End { meter, chain, reason } => {
                encoder.array(4)?.u8(2)?.encode(meter)?.encode(chain)?.u8(reason.0)?.ok()
            }
        }
    }
}

impl<'b, C> Decode<'b, C> for Matter {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 4)?;
        let at = decoder.position();
        match decoder.u8()? {
            1 => {
                let message: RootMessage = decoder.decode()?;
                let (block_log2, at) = (decoder.u8()?, decoder.position());
                let count = codec::array_of_at_most(decoder, MAX_ROOTS)?;
                let roots = (0..count).map(|_| decoder.decode());
                let block_roots: Vec<_> = roots.collect::<Result<_, _>>()?;
                if merkle::root(&block_roots) != Some(message.root) {
                    return Err(decode::Error::message("block roots do not lead to r").at(at));
                }
                Ok(Self::Chain { message, block_log2, block_roots })
            }
            2 => {
                let (meter, chain) = (decoder.decode()?, decoder.decode()?);
                Ok(Self::End { meter, chain, reason: Reason(decoder.u8()?) })
            }
            _ => Err(decode::Error::message("neither a chain nor its end").at(at)),
        }
    }
}

impl<C> Encode<C> for MeterPaper {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(5)?.str(TITLE)?.encode(self.network)?.encode(&self.matter)?;
        encoder.encode(self.sdi)?.encode(self.owner)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for MeterPaper {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 5)?;
        title(decoder, TITLE)?;
        let (network, matter) = (decoder.decode()?, decoder.decode()?);
        let sdi = codec::optional(decoder, |decoder| {
            codec::array(decoder, 2)?;
            Ok((decoder.decode()?, decoder.decode()?))
        })?;
        let owner = codec::optional(decoder, Decoder::decode)?;
        Ok(Self { network, matter, sdi, owner })
    }
}

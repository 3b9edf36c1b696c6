//! Changes of membership as files that collect signatures, and their way onto the ledger.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bkss_ledger::{
    Change, Members, Transaction,
    change::{Body, ChangeRefusal},
};
use bkss_scheme::{
    Digest, Network, ProviderId,
    codec::{self, Encoded},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use serde_json::{Value, json};

use crate::{
    client::{Client, ClientError, Reply},
    clock,
    command::CommandError,
    documents::title,
    files::{self, malformed},
    output,
};

/// Most bytes of a change with all its signatures.
const MAX_CHANGE: u64 = 1 << 20;
const TITLE: &str = "bkss change of membership";
/// Rounds in which a change may enter, if nobody says otherwise: a week at a block a second.
const OPEN_ROUNDS: u64 = 2016;
/// How often the ledger is asked whether it has a change.
const POLL: Duration = Duration::from_millis(250);
/// How long a change may take onto the ledger.
const PATIENCE: Duration = Duration::from_secs(60);

/// A change that is under way: `["bkss change of membership", net, change]` and a checksum.
pub(crate) struct ChangePaper {
    /// Of which network.
    pub(crate) network: Network,
    /// What changes, and who has signed.
    pub(crate) change: Change,
}

impl ChangePaper {
    /// Reads a change and checks the signature of whoever joins.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn load(path: &Path) -> Result<Self, CommandError> {
        Self::parse(path, &files::read(path, MAX_CHANGE)?)
    }

    /// Takes the bytes of the file of a change.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CommandError> {
        let content = files::check(path, bytes)?;
        let paper: Self = codec::decode(TITLE, content).map_err(malformed(path))?;
        paper.check_own().map_err(CommandError::refused(&path.display().to_string()))?;
        Ok(paper)
    }

    /// A key that joins vouches for itself; all other keys are known to the ledger alone.
    fn check_own(&self) -> Result<(), ChangeRefusal> {
        let Change { body, own, .. } = &self.change;
        let key = match body {
            Body::Join(identity) => identity.key,
            Body::AddSdi(sdi) => sdi.key,
            _ => return Ok(()),
        };
        let own = own.as_ref().ok_or(ChangeRefusal::OwnSignature)?;
        key.verify(&self.digest(), own).map_err(ChangeRefusal::Own)
    }

    /// What is signed.
    pub(crate) fn digest(&self) -> Digest {
        self.change.digest(self.network)
    }

    /// Takes in the signatures of another copy.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`] if it is another change.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), CommandError> {
        let (expected, found) = (self.digest(), other.digest());
        if expected != found {
            let reason = format!("change {found} is not the same as {expected}");
            return Err(CommandError::Refused(reason));
        }
        let mut approvals = std::mem::take(&mut self.change.approvals);
        approvals.extend(other.change.approvals);
        approvals.sort_by_key(|(provider, _)| *provider);
        approvals.dedup_by_key(|(provider, _)| *provider);
        self.change.approvals = approvals;
        Ok(())
    }

    /// Says what would change and who has signed it.
    pub(crate) fn show(&self) {
        for line in describe(&self.change.body) {
            output::result(&line);
        }
        let Change { until, own, approvals, .. } = &self.change;
        output::result(&format!("  network        {}", self.network));
        output::result(&format!("  may enter      until round {until}"));
        output::result(&format!("  signed         {}", self.digest()));
        if own.is_some() {
            output::result("  signed by      the key that it is about");
        }
        for (provider, _) in approvals {
            output::result(&format!("  approved by    provider {provider}"));
        }
    }

    /// What has become of it, for programs: nothing yet, written for others to sign, or final.
    pub(crate) fn json(&self, done: &str) -> Value {
        let Change { body, until, own, approvals } = &self.change;
        let (kind, provider, sdi) = match body {
            Body::Join(identity) => ("join", Some(identity.id), None),
            Body::Leave(id) => ("leave", Some(*id), None),
            Body::VoteKey(id, ..) => ("vote_key", Some(*id), None),
            Body::SealingKey(id, _) => ("sealing_key", Some(*id), None),
            Body::Address(id, _) => ("address", Some(*id), None),
            Body::Expel(id) => ("expel", Some(*id), None),
            Body::AddSdi(sdi) => ("add_sdi", None, Some(sdi.id)),
            Body::RemoveSdi(id) => ("remove_sdi", None, Some(*id)),
        };
        let approvals: Vec<_> = approvals.iter().map(|(provider, _)| provider.0).collect();
        json!({
            "done": done,
            "change": kind,
            "provider": provider.map(|id| id.0),
            "sdi": sdi.map(|id| id.0),
            "network": self.network.to_string(),
            "until_round": until,
            "signed": self.digest().to_string(),
            "own_signature": own.is_some(),
            "approvals": approvals,
        })
    }
}

impl<C> Encode<C> for ChangePaper {
    fn encode<W: encode::Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        encoder.array(3)?.str(TITLE)?.encode(self.network)?.encode(&self.change)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ChangePaper {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        codec::array(decoder, 3)?;
        title(decoder, TITLE)?;
        Ok(Self { network: decoder.decode()?, change: decoder.decode()? })
    }
}

/// A change in words.
fn describe(body: &Body) -> Vec<String> {
    match body {
        Body::Join(provider) => vec![
            format!("provider {} \"{}\" joins", provider.id, provider.name),
            format!("  identity key   {:?}", provider.key),
            format!("  vote key       {}", hex(&provider.vote_key.0)),
            format!(
                "  sealing key    {} {}",
                provider.sealing_key.id,
                hex(&provider.sealing_key.public)
            ),
            format!("  agreement      {}", provider.agreement),
            format!("  address        {}", provider.address),
        ],
        Body::Leave(id) => vec![format!("provider {id} leaves")],
        Body::Expel(id) => vec![format!("provider {id} is expelled")],
        Body::VoteKey(id, key, _) => {
            vec![format!(
                "provider {id} votes with another key from the next round on: {}",
                hex(&key.0)
            )]
        }
        Body::SealingKey(id, key) => {
            vec![format!("meters of provider {id} seal to key {} {}", key.id, hex(&key.public))]
        }
        Body::Address(id, address) => vec![format!("provider {id} is reached at {address}")],
        Body::AddSdi(sdi) => vec![
            format!("SDI {} \"{}\" joins, {:?}", sdi.id, sdi.name, sdi.mode),
            format!("  identity key   {:?}", sdi.key),
        ],
        Body::RemoveSdi(id) => vec![format!("SDI {id} is removed")],
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a node says of the consortium, for checks before anything is signed.
pub(crate) struct Known {
    client: Client,
    /// Its members.
    pub(crate) members: Members,
    /// The round of the next block.
    pub(crate) round: u64,
}

impl Known {
    /// Asks a node.
    ///
    /// # Errors
    ///
    /// [`CommandError::Node`].
    pub(crate) fn ask(url: &str) -> Result<Self, CommandError> {
        let client = Client::new(url)?;
        let (members, round) = (client.ledger_members()?, client.status()?.round);
        Ok(Self { client, members, round })
    }

    /// Until which round a change may enter, if nobody says otherwise.
    pub(crate) const fn until(&self) -> u64 {
        self.round.saturating_add(OPEN_ROUNDS)
    }

    /// Checks everything but signatures.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`], with the rule.
    pub(crate) fn check_rules(
        &self,
        paper: &ChangePaper,
        agreement: Digest,
    ) -> Result<(), CommandError> {
        let checked = paper.change.check_rules(&self.members, agreement, self.round);
        checked.map_err(CommandError::refused("by the ledger's rules"))
    }

    /// Checks everything, brings the change to the ledger and waits until it is there.
    ///
    /// # Errors
    ///
    /// [`CommandError`], with the rule that refuses it.
    pub(crate) fn submit(
        &self,
        paper: &ChangePaper,
        agreement: Digest,
    ) -> Result<Value, CommandError> {
        self.check_rules(paper, agreement)?;
        let checked = paper.change.check_signatures(&self.members, paper.network);
        checked.map_err(CommandError::refused("by the ledger's rules"))?;
        bring(&self.client, &Transaction::Change(paper.change.clone()))?;
        seen("the change is not on the ledger", || {
            Ok(holds(&self.client.ledger_members()?, &paper.change.body))
        })?;
        Ok(paper.json("final"))
    }

    /// Approvals that are missing, with who may give them.
    pub(crate) fn missing(&self, paper: &ChangePaper) -> Option<String> {
        let found = paper.change.approvals.len();
        let quorum = if paper.change.needs_quorum() { self.members.quorum() } else { 0 };
        (found < quorum).then(|| format!("{found} of {quorum} approvals"))
    }

    /// A provider of the consortium.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`].
    pub(crate) fn provider(
        &self,
        id: ProviderId,
    ) -> Result<&bkss_scheme::ProviderIdentity, CommandError> {
        let absent = || CommandError::Refused(ChangeRefusal::NotPresent(id).to_string());
        self.members.provider(id).ok_or_else(absent)
    }
}

/// Leaves a transaction at a node; comes again while the node has too much to do.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn bring(client: &Client, transaction: &Transaction) -> Result<(), CommandError> {
    let began = clock::now();
    loop {
        match client.change(transaction.clone()) {
            Ok(Reply::Accepted) => return Ok(()),
            Ok(Reply::Refused { message, .. }) => return Err(CommandError::Refused(message)),
            Ok(Reply::Overloaded { retry_after }) | Err(ClientError::Busy { retry_after, .. }) => {
                std::thread::sleep(retry_after);
            }
            Err(error) => return Err(error.into()),
        }
        wait(began, "the node has too much to do")?;
    }
}

/// Asks a node until it sees on the ledger what was brought there; a node that is starting again
/// answers later.
///
/// # Errors
///
/// [`CommandError`]; `otherwise` says what has not happened.
pub(crate) fn seen(
    otherwise: &str,
    holds: impl Fn() -> Result<bool, CommandError>,
) -> Result<(), CommandError> {
    let began = clock::now();
    loop {
        match holds() {
            Ok(true) => break,
            Ok(false)
            | Err(CommandError::Node(ClientError::Unreachable { .. } | ClientError::Busy { .. })) =>
                {}
            Err(error) => return Err(error),
        }
        wait(began, otherwise)?;
    }
    output::result("it is on the ledger");
    Ok(())
}

/// Waits a little, but not for ever.
fn wait(began: Instant, what: &str) -> Result<(), CommandError> {
    if began.elapsed() > PATIENCE {
        let seconds = PATIENCE.as_secs();
        return Err(CommandError::Refused(format!("{what} after {seconds} s")));
    }
    std::thread::sleep(POLL);
    Ok(())
}

/// Whether the members are as the change makes them.
fn holds(members: &Members, body: &Body) -> bool {
    let provider = |id: &ProviderId| members.provider(*id);
    match body {
        Body::Join(identity) => provider(&identity.id) == Some(identity),
        Body::Leave(id) | Body::Expel(id) => provider(id).is_none(),
        Body::VoteKey(id, key, _) => provider(id).is_some_and(|found| found.vote_key == *key),
        Body::SealingKey(id, key) => provider(id).is_some_and(|found| found.sealing_key == *key),
        Body::Address(id, address) => provider(id).is_some_and(|found| found.address == *address),
        Body::AddSdi(sdi) => members.sdi(sdi.id) == Some(sdi),
        Body::RemoveSdi(id) => members.sdi(*id).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_node_that_is_starting_again_is_asked_again_and_one_that_refuses_is_not() {
        let asked = Cell::new(0);
        let away = || {
            CommandError::from(ClientError::Unreachable {
                url: "http://127.0.0.1:1".into(),
                reason: "refused".into(),
            })
        };
        let answers = |last: fn() -> Result<bool, CommandError>| {
            asked.set(0);
            seen("it has not come", || {
                asked.set(asked.get() + 1);
                match asked.get() {
                    1 => Err(away()),
                    2 => Ok(false),
                    _ => last(),
                }
            })
        };
        assert!(answers(|| Ok(true)).is_ok());
        assert_eq!(asked.get(), 3);
        let refused = answers(|| Err(CommandError::Refused("no".into())));
        assert_eq!(refused.map_err(|error| error.to_string()), Err("no".into()));
        assert_eq!(asked.get(), 3);
    }
}

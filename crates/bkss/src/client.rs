//! A node's HTTP interface from outside: blocking, plain HTTP, with bounded answers and time.

use std::{
    io::{self, Read},
    process::ExitCode,
    time::Duration,
};

use bkss_ledger::{Members, Transaction, trust};
use bkss_node::{
    Message,
    api::{ErrorBody, HeadBody, MembersBody, SlotBody, StatusBody},
    gateway::MAX_IN_CALL,
};
use bkss_scheme::{LedgerTime, LinkIndex, MeterId, codec};
use minicbor::Decoder;
use serde::de::DeserializeOwned;

use crate::{
    explain::{Details, Explain},
    head::MAX_HEAD,
};

/// Most bytes of an answer that is not a file.
const MAX_ANSWER: u64 = 16 << 20;
/// Most bytes of all members that there may ever be, with all their vote keys.
const MAX_MEMBERS: u64 = 64 << 20;
/// Most messages of one call.
pub(crate) const MAX_BATCH: usize = 4096;
/// Bytes of a call's messages after which the next call begins.
const LONG_BODY: usize = 1 << 20;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(40);
const CBOR: &str = "application/cbor";

/// Calls one node.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    agent: ureq::Agent,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing can be called by this name.
    #[error("{url}: expected http://HOST:PORT")]
    Url { url: String },
    /// The node did not answer.
    #[error("{url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The node is busy or not ready: to be tried again.
    #[error("{url}: {}: expected {}, found {}; come again in {} s", error.title, error.expected,
        error.found, retry_after.as_secs().max(1))]
    Busy { url: String, error: Box<ErrorBody>, retry_after: Duration },
    /// The node says no.
    #[error("{url}: {} {}: expected {}, found {}, at {}", status, error.title, error.expected,
            error.found, error.at)]
    Refused { url: String, status: u16, error: Box<ErrorBody> },
    /// The answer is not one of a node.
    #[error("{url}: expected {expected}, found something else")]
    Answer { url: String, expected: &'static str },
}

impl Explain for ClientError {
    fn explain(&self) -> Details {
        match self {
            Self::Url { .. } => Details::new("usage"),
            Self::Unreachable { .. } => Details::new("unreachable"),
            Self::Busy { error, .. } => {
                Details::new("busy").expected(&error.expected, &error.found)
            }
            Self::Refused { error, .. } => {
                Details::new("refused").expected(&error.expected, &error.found)
            }
            Self::Answer { .. } => Details::new("malformed"),
        }
    }
}

/// What a node says to a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// It is on the node's disk and on its way to the ledger.
    Accepted,
    /// It cannot get onto the ledger through this node.
    Refused { reason: String, message: String },
    /// Not now.
    Overloaded { retry_after: Duration },
}

impl ClientError {
    /// Usage is 2, everything else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Url { .. } => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

#[allow(dead_code, reason = "the whole of the interface, though not every command needs it")]
impl Client {
    /// For the node at `http://host:port`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Url`].
    pub(crate) fn new(url: &str) -> Result<Self, ClientError> {
        let base = url.trim_end_matches('/');
        let host = base.strip_prefix("http://").filter(|host| !host.is_empty());
        if host.is_none_or(|host| host.contains(['/', '?', '#', '@', ' '])) {
            return Err(ClientError::Url { url: url.to_owned() });
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .no_delay(true)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(CALL))
            .build()
            .new_agent();
        Ok(Self { base: base.to_owned(), agent })
    }

    /// The node's address.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// How the node stands.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn status(&self) -> Result<StatusBody, ClientError> {
        self.json("/v1/status", "a node's status")
    }

    /// Whether the node takes messages.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; `Busy` while it does not.
    pub(crate) fn ready(&self) -> Result<(), ClientError> {
        self.get("/v1/ready", "application/json").map(|_| ())
    }

    /// The newest final block.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn head(&self) -> Result<HeadBody, ClientError> {
        self.json("/v1/head", "a head")
    }

    /// The newest block with a certificate of its own, as a file that an archive is compared with.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn certified_head(&self) -> Result<Vec<u8>, ClientError> {
        self.get_at_most("/v1/head", CBOR, MAX_HEAD)
    }

    /// Who is in the consortium.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn members(&self) -> Result<MembersBody, ClientError> {
        self.json("/v1/members", "members")
    }

    /// Everybody who is or was in the consortium, as the ledger's rules need it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn ledger_members(&self) -> Result<Members, ClientError> {
        let bytes = self.get_at_most("/v1/members", CBOR, MAX_MEMBERS)?;
        codec::decode("members", &bytes).map_err(|_| self.not("the ledger's members"))
    }

    /// What has become of a link.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn slot(&self, meter: MeterId, index: LinkIndex) -> Result<SlotBody, ClientError> {
        self.json(&format!("/v1/slots/{meter}/{index}"), "a slot's status")
    }

    /// Leaves messages at the gateway: one reply each, in their order.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; what was sent before the call that failed has its replies lost, and may be
    /// sent again.
    pub(crate) fn submit_many(&self, messages: &[Message]) -> Result<Vec<Reply>, ClientError> {
        let mut replies = Vec::with_capacity(messages.len());
        let (mut body, mut count, mut transactions) = (Vec::new(), 0, 0);
        for (sent, message) in (1..).zip(messages) {
            message.encode(&mut body);
            count += 1;
            transactions += usize::from(matches!(message, Message::Transaction(_)));
            let full = count == MAX_BATCH || transactions == MAX_IN_CALL;
            if full || body.len() >= LONG_BODY || sent == messages.len() {
                let answer = self.post("/v1/batch", &body)?;
                let given = parse_replies(&answer).filter(|given| given.len() == count);
                replies.extend(given.ok_or_else(|| self.not("one reply per message"))?);
                body.clear();
                (count, transactions) = (0, 0);
            }
        }
        Ok(replies)
    }

    /// Leaves one message at the gateway.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn submit(&self, message: impl Into<Message>) -> Result<Reply, ClientError> {
        let mut replies = self.submit_many(&[message.into()])?;
        replies.pop().ok_or_else(|| self.not("a reply"))
    }

    /// Brings a registration, or a change of the membership, to the ledger.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn change(&self, transaction: Transaction) -> Result<Reply, ClientError> {
        self.submit(transaction)
    }

    /// The receipt of an opened reading.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; `Refused` with status 404 while it is not opened.
    pub(crate) fn receipt(&self, meter: MeterId, index: LinkIndex) -> Result<Vec<u8>, ClientError> {
        self.get(&format!("/v1/receipts/{meter}/{index}"), CBOR)
    }

    /// What a meter checks before its first release.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; `Refused` with status 404 while it is not registered.
    pub(crate) fn registration_proof(&self, meter: MeterId) -> Result<Vec<u8>, ClientError> {
        self.get(&format!("/v1/registrations/{meter}"), CBOR)
    }

    /// Proof of ledger time: of the newest block, or of the first from `after` on.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; `Refused` with status 404 while there is no such block.
    pub(crate) fn time_proof(&self, after: Option<LedgerTime>) -> Result<Vec<u8>, ClientError> {
        match after {
            Some(time) => self.get(&format!("/v1/time?after={}", time.0), CBOR),
            None => self.get("/v1/time", CBOR),
        }
    }

    /// The genesis file with all handovers.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) fn genesis(&self) -> Result<Vec<u8>, ClientError> {
        self.get_at_most("/v1/genesis", CBOR, trust::MAX_BYTES)
    }

    /// Writes the ledger's archive to a sink; returns its length.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; also if it is cut.
    pub(crate) fn archive(&self, sink: &mut impl io::Write) -> Result<u64, ClientError> {
        self.file("/v1/archive", sink)
    }

    /// Writes the newest snapshot that can be checked to a sink; returns its length.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; also if it is cut.
    pub(crate) fn snapshot(&self, sink: &mut impl io::Write) -> Result<u64, ClientError> {
        self.file("/v1/snapshot", sink)
    }

    fn file(&self, path: &str, sink: &mut impl io::Write) -> Result<u64, ClientError> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.config().timeout_global(None).timeout_connect(Some(CONNECT)).build();
        let mut response = request.call().map_err(|error| self.unreachable(path, error))?;
        let status = response.status().as_u16();
        if status != 200 {
            let retry = retry_after(&response);
            let bytes = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
            let bytes = bytes.map_err(|error| self.unreachable(path, error))?;
            return Err(self.refused(path, status, &bytes, retry));
        }
        io::copy(&mut response.body_mut().as_reader(), sink)
            .map_err(|error| self.unreachable(path, error))
    }

    fn json<T: DeserializeOwned>(
        &self,
        path: &str,
        expected: &'static str,
    ) -> Result<T, ClientError> {
        let bytes = self.get(path, "application/json")?;
        serde_json::from_slice(&bytes).map_err(|_| self.not(expected))
    }

    fn get(&self, path: &str, accept: &str) -> Result<Vec<u8>, ClientError> {
        self.get_at_most(path, accept, MAX_ANSWER)
    }

    fn get_at_most(&self, path: &str, accept: &str, limit: u64) -> Result<Vec<u8>, ClientError> {
        let request = self.agent.get(format!("{}{path}", self.base)).header("Accept", accept);
        self.read(path, request.call(), limit)
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("Content-Type", CBOR).header("Accept", CBOR);
        self.read(path, request.send(body), MAX_ANSWER)
    }

    fn read(
        &self,
        path: &str,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        limit: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let mut response = response.map_err(|error| self.unreachable(path, error))?;
        let (status, retry) = (response.status().as_u16(), retry_after(&response));
        let mut bytes = Vec::new();
        let reader = response.body_mut().with_config().limit(limit + 1).reader();
        let read = reader.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.unreachable(path, error))?;
        if bytes.len() as u64 > limit {
            return Err(self.not("a shorter answer"));
        }
        if status == 200 { Ok(bytes) } else { Err(self.refused(path, status, &bytes, retry)) }
    }

    fn refused(&self, path: &str, status: u16, bytes: &[u8], retry: Option<u64>) -> ClientError {
        let url = format!("{}{path}", self.base);
        let Ok(error) = serde_json::from_slice::<Box<ErrorBody>>(bytes) else {
            return self.not("a node's error");
        };
        match retry {
            Some(seconds) => {
                let retry_after = Duration::from_secs(seconds.min(600));
                ClientError::Busy { url, error, retry_after }
            }
            None => ClientError::Refused { url, status, error },
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    fn unreachable(&self, path: &str, error: impl ToString) -> ClientError {
        let url = format!("{}{path}", self.base);
        ClientError::Unreachable { url, reason: error.to_string() }
    }

    fn not(&self, expected: &'static str) -> ClientError {
        ClientError::Answer { url: self.base.clone(), expected }
    }
}

fn retry_after(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    response.headers().get("retry-after")?.to_str().ok()?.parse().ok()
}

fn parse_replies(bytes: &[u8]) -> Option<Vec<Reply>> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.array().ok()??;
    let mut replies = Vec::new();
    for _ in 0..count {
        let length = decoder.array().ok()??;
        replies.push(match (decoder.u8().ok()?, length) {
            (0, 1) => Reply::Accepted,
            (1, 3) => Reply::Refused {
                reason: decoder.str().ok()?.to_owned(),
                message: decoder.str().ok()?.to_owned(),
            },
            (2, 2) => Reply::Overloaded { retry_after: Duration::from_millis(decoder.u64().ok()?) },
            _ => return None,
        });
    }
    (decoder.position() == bytes.len()).then_some(replies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_a_plain_url() {
        for (url, good) in [
            ("http://127.0.0.1:8080", true),
            ("http://node.example:8080/", true),
            ("https://127.0.0.1:8080", false),
            ("127.0.0.1:8080", false),
            ("http://", false),
            ("http://a/b", false),
            ("http://user@host:1", false),
        ] {
            assert_eq!(Client::new(url).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn replies_are_parsed_or_refused() {
        let mut bytes = Vec::new();
        let mut encoder = minicbor::Encoder::new(&mut bytes);
        encoder.encode([(0_u8,)]).unwrap();
        assert_eq!(parse_replies(&bytes), Some(vec![Reply::Accepted]));
        for broken in [&bytes[..1], &[0x81, 0x81, 3], &[0x81, 0x81, 0, 0], &[0x9b, 255], &[]] {
            assert_eq!(parse_replies(broken), None, "{broken:?}");
        }
    }
}

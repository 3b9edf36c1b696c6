//! `bkss bench verify`: what checking costs, beside ECDSA on the same core in the same run.
//!
//! Warm is what a service provider does per opening in a block: decode, `H(body)`, `p`, `q`, link
//! walk, state, trees. Cold is a receipt file whose headers' certificates and registration are
//! verified already: decode, `C_i`, `p`, `q`, time-stamp path, slot, window, opening. The three are
//! measured in turns, so that a change of clock speed meets all of them.

mod consortium;
mod fleet;
pub(crate) mod ledger;
mod load;
mod usage;
pub(crate) mod worst_block;

use std::{collections::BTreeMap, hint::black_box, process::ExitCode, time::Duration};

use bkss_ledger::{Block, genesis::GenesisError, receipts::PathError, state::NotNext, verify};
use bkss_scheme::{
    Digest, Header, Malformed, MeterId, SecretKey, codec,
    receipt::{Anchors, Receipt},
    root_message::{Registered, Registration},
    seal::SealError,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng;
use serde_json::{Value, json};

use crate::{clock, explain::Plain, output};
use consortium::{Bench, Size};

/// Rounds of the three measurements; odd, so that the median is one of them.
const ROUNDS: usize = 15;
/// Least time of one measurement in a round.
const SLICE: Duration = Duration::from_millis(80);
/// A small town; receipts of 64 meters, so that they do not all stay in the nearest cache.
const SIZE: Size = Size { meters: 4096, year_meters: 64 };

/// Measures and reports.
pub(crate) fn run() -> ExitCode {
    output::note(&format!("making a network of {} meters, then measuring ..", SIZE.meters));
    match measure(SIZE, ROUNDS, SLICE) {
        Ok(figures) => {
            figures.tell();
            output::object(&figures.json());
        }
        Err(error) => {
            output::failed(&Plain("failed", &error));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The network to measure on breaks a rule: an error of this program.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error(transparent)]
    Refused(#[from] bkss_ledger::Refusal),
    #[error(transparent)]
    NotNext(#[from] NotNext),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Ecdsa(#[from] secp256k1::Error),
    #[error("sizes of the measured network do not fit")]
    Shape,
    #[error("{0} does not hold on the measured network")]
    DoesNotHold(&'static str),
}

/// Per second on one core, medians over the rounds.
#[derive(Debug)]
struct Figures {
    warm: f64,
    cold: f64,
    ecdsa: f64,
}

impl Figures {
    fn json(&self) -> Value {
        json!({
            "warm_per_s": whole(self.warm),
            "cold_per_s": whole(self.cold),
            "ecdsa_per_s": whole(self.ecdsa),
            "warm_ratio": hundredths(self.warm / self.ecdsa),
            "cold_ratio": hundredths(self.cold / self.ecdsa),
        })
    }

    fn tell(&self) {
        let Self { warm, cold, ecdsa } = self;
        let line = |name: &str, rate: f64, what: &str| {
            let ratio = rate / ecdsa;
            output::result(&format!("  {name:6} {rate:>10.0}  {ratio:>6.1} x  {what}"));
        };
        output::result(&format!(
            "per second on one core, medians of {ROUNDS} rounds, beside ECDSA:"
        ));
        line("warm", *warm, &format!("openings checked in a block of {}", SIZE.meters));
        line("cold", *cold, "receipts checked, certificates and registrations known");
        line("ECDSA", *ecdsa, "secp256k1 signatures verified by libsecp256k1");
    }
}

fn measure(size: Size, rounds: usize, slice: Duration) -> Result<Figures, SetupError> {
    let bench = consortium::build(size)?;
    let cold = Cold::new(&bench)?;
    let ecdsa = Ecdsa::new()?;
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        rates[0].push(rate(slice, || warm(&bench))?);
        rates[1].push(rate(slice, || cold.check_all())?);
        rates[2].push(rate(slice, || ecdsa.check_all())?);
    }
    let [warm, cold, ecdsa] = rates.map(median);
    Ok(Figures { warm, cold, ecdsa })
}

/// Checks per second of a pass that says how many it did, repeated for at least `slice`.
fn rate(
    slice: Duration,
    mut pass: impl FnMut() -> Result<usize, SetupError>,
) -> Result<f64, SetupError> {
    let began = clock::now();
    let mut checks = 0_u32;
    loop {
        checks += u32::try_from(pass()?).map_err(|_| SetupError::Shape)?;
        let elapsed = began.elapsed();
        if elapsed >= slice {
            return Ok(f64::from(checks) / elapsed.as_secs_f64());
        }
    }
}

/// The openings of a block: from its bytes to a verified block.
fn warm(bench: &Bench) -> Result<usize, SetupError> {
    let genesis = bench.state.genesis();
    let limit = genesis.charter().limits.block_bytes as usize;
    let block = Block::decode(genesis.network(), black_box(&bench.block), limit)
        .map_err(|_| SetupError::DoesNotHold("block"))?;
    let verified = verify(&bench.state.view(), block)?;
    match black_box(verified).openings().len() {
        found if found == bench.openings => Ok(found),
        _ => Err(SetupError::DoesNotHold("opening")),
    }
}

/// Receipts, and what is verified before they are measured.
struct Cold<'a> {
    receipts: &'a [Vec<u8>],
    anchors: Anchors<'a>,
    registered: BTreeMap<MeterId, (Registration, Registered)>,
    /// Certified headers by height.
    headers: BTreeMap<u64, Header>,
}

impl<'a> Cold<'a> {
    fn new(bench: &'a Bench) -> Result<Self, SetupError> {
        let anchors = bench.state.genesis().anchors();
        let mut registered = BTreeMap::new();
        let mut headers = BTreeMap::new();
        for bytes in &bench.receipts {
            let receipt: Receipt<'_> = codec::decode("receipt", bytes)?;
            let known = receipt
                .registration(&anchors)
                .map_err(|_| SetupError::DoesNotHold("registration"))?;
            registered.insert(known.message().meter, (receipt.registration, known));
            for inclusion in [receipt.timestamp.inclusion, receipt.opened] {
                headers.insert(inclusion.header.height, inclusion.header);
            }
        }
        Ok(Self { receipts: &bench.receipts, anchors, registered, headers })
    }

    fn check_all(&self) -> Result<usize, SetupError> {
        if self.receipts.iter().all(|bytes| self.check(black_box(bytes))) {
            Ok(self.receipts.len())
        } else {
            Err(SetupError::DoesNotHold("receipt"))
        }
    }

    fn check(&self, bytes: &[u8]) -> bool {
        let Ok(receipt) = codec::decode::<Receipt<'_>>("receipt", bytes) else { return false };
        let meter = receipt.registration.message.meter;
        let Some((registration, registered)) = self.registered.get(&meter) else { return false };
        let certified =
            |header: &Header| self.headers.get(&header.height).is_some_and(|known| known == header);
        *registration == receipt.registration
            && certified(&receipt.timestamp.inclusion.header)
            && certified(&receipt.opened.header)
            && receipt.tree_path(registered) == Ok(true)
            && receipt.commitment(registered).is_ok()
            && receipt.timestamp_path(registered).is_ok()
            && receipt.slot_equation(registered).is_ok()
            && receipt.window(registered, self.anchors.reveal_s).is_ok()
            && receipt.opening(registered).is_ok()
    }
}

/// Signatures of one key over distinct messages, parsed.
struct Ecdsa {
    key: secp256k1::PublicKey,
    signed: Vec<(secp256k1::Message, secp256k1::ecdsa::Signature)>,
}

impl Ecdsa {
    fn new() -> Result<Self, SetupError> {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let key = SecretKey::generate(&mut rng);
        let signed = (0..256).map(|_| {
            let mut digest = [0; 32];
            rng.fill_bytes(&mut digest);
            let signature = key.sign(&Digest(digest));
            let signature = secp256k1::ecdsa::Signature::from_compact(&signature.0)?;
            Ok((secp256k1::Message::from_digest(digest), signature))
        });
        let signed = signed.collect::<Result<_, SetupError>>()?;
        Ok(Self { key: secp256k1::PublicKey::from_slice(&key.public().0)?, signed })
    }

    fn check_all(&self) -> Result<usize, SetupError> {
        for (message, signature) in &self.signed {
            signature.verify(*black_box(message), &self.key)?;
        }
        Ok(self.signed.len())
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn hundredths(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_holds() {
        let size = Size { meters: 12, year_meters: 1 };
        let figures = measure(size, 1, Duration::ZERO).unwrap();
        assert!(figures.warm > 0.0 && figures.cold > 0.0 && figures.ecdsa > 0.0);
    }
}

//! The terms of a network, as options of the commands that found one.

use bkss_ledger::{
    Limits, Rounds, Terms,
    genesis::{Charter, GenesisError, MAX_ALTERNATES, Weighing},
};
use bkss_scheme::{
    Digest, LedgerTime, ProviderIdentity, SdiIdentity,
    hash::{Tag, hash},
    identity::{Name, is_printable},
};

use crate::{clock, command::CommandError, output, text};

/// What founders agree on beside their names.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TermsArgs {
    /// Name of the network, for people
    #[arg(long, default_value = "bkss")]
    name: String,
    /// Ledger time of block 0, UTC, in full seconds; the last full minute without it
    #[arg(long, value_name = "TIME")]
    start: Option<jiff::Timestamp>,
    /// Ledger seconds per second: 1, more only in demonstrations
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    time_scale: u32,
    /// Shortest slot a meter may have, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    min_slot: u32,
    /// How long after the start of its slot a reading may be opened, seconds (R)
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800)]
    reveal: u32,
    /// How long after its slot the founders agree to keep a sealed reading at least, seconds (K); a
    /// week without it, or as long as --reveal if that is longer. Nothing enforces it: a node
    /// erases by its own `keep_bodies_days`
    #[arg(long, value_name = "SECONDS")]
    keep: Option<u32>,
    /// How long before an erasure the founders agree to announce it, seconds (E). Nothing enforces
    /// it
    #[arg(long, value_name = "SECONDS", default_value_t = Terms::default().notice_s)]
    notice: u32,
    /// How long after its registration a chain may begin, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Terms::default().ahead_s)]
    ahead: u32,
    /// Leaders propose a block soon after every multiple of this, even an empty one (G). Slots and
    /// windows should be multiples of it; nothing checks that
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    grid: u32,
    /// How far a block's time may be from a provider's clock, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    precision_ms: u32,
    /// Blocks of a round
    #[arg(long, value_name = "BLOCKS", default_value_t = Rounds::default().blocks)]
    round_blocks: u32,
    /// Accounting nodes of a round; all providers if there are no more (C)
    #[arg(long, default_value_t = Rounds::default().committee)]
    committee: u16,
    /// Alternates of a round (k)
    #[arg(long, default_value_t = MAX_ALTERNATES)]
    alternates: u16,
    /// Views that a leader stays
    #[arg(long, value_name = "VIEWS", default_value_t = Rounds::default().tenure_views)]
    tenure_views: u32,
    /// What a provider's vote for accounting nodes weighs
    #[arg(long, value_enum, default_value_t = Votes::Members)]
    votes: Votes,
    /// Most bytes of a block
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().block_bytes)]
    block_bytes: u32,
    /// Most items of a batch
    #[arg(long, value_name = "ITEMS", default_value_t = Limits::default().batch_items)]
    batch_items: u32,
    /// Most chains of meters
    #[arg(long, value_name = "METERS", default_value_t = Limits::default().meters)]
    max_meters: u32,
    /// Most chains of one provider's meters; a quarter of --max-meters without it
    #[arg(long, value_name = "METERS")]
    owner_meters: Option<u32>,
    /// Most steps of chains that the openings of one block are walked together
    #[arg(long, value_name = "STEPS", default_value_t = Limits::default().steps)]
    steps: u32,
    /// Most requests for one chain that wait for their openings, of each provider's node
    #[arg(long, value_name = "REQUESTS", default_value_t = Limits::default().pending)]
    pending: u32,
}

/// What a provider's vote for accounting nodes weighs.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Votes {
    /// As much as any other's
    Members,
    /// As many meters as it has that report
    Meters,
}

impl TermsArgs {
    /// The charter of these terms and founders, checked except for signatures.
    ///
    /// # Errors
    ///
    /// [`CommandError::Usage`], naming the first thing that does not hold.
    pub(crate) fn charter(
        &self,
        agreement: Digest,
        mut providers: Vec<ProviderIdentity>,
        mut sdis: Vec<SdiIdentity>,
    ) -> Result<Charter, CommandError> {
        providers.sort_by_key(|provider| provider.id);
        sdis.sort_by_key(|sdi| sdi.id);
        let charter = Charter {
            name: name(&self.name)?,
            agreement,
            start: self.start()?,
            time_scale: self.time_scale,
            terms: self.times(),
            rounds: self.rounds(),
            limits: self.limits(),
            providers,
            sdis,
        };
        charter.check().map_err(|error| CommandError::Usage(by_options(&error)))?;
        Ok(charter)
    }

    fn times(&self) -> Terms {
        Terms {
            min_slot_s: self.min_slot,
            reveal_s: self.reveal,
            grid_s: self.grid,
            precision_ms: self.precision_ms,
            keep_s: self.keep.unwrap_or_else(|| Terms::default().keep_s.max(self.reveal)),
            notice_s: self.notice,
            ahead_s: self.ahead,
        }
    }

    const fn rounds(&self) -> Rounds {
        Rounds {
            blocks: self.round_blocks,
            committee: self.committee,
            alternates: self.alternates,
            tenure_views: self.tenure_views,
            votes: match self.votes {
                Votes::Members => Weighing::Members,
                Votes::Meters => Weighing::Meters,
            },
        }
    }

    fn limits(&self) -> Limits {
        let quarter = (self.max_meters / 4).max(1);
        Limits {
            block_bytes: self.block_bytes,
            batch_items: self.batch_items,
            meters: self.max_meters,
            owner_meters: self.owner_meters.unwrap_or(quarter),
            steps: self.steps,
            pending: self.pending,
        }
    }

    fn start(&self) -> Result<LedgerTime, CommandError> {
        let wrong = |start| {
            CommandError::Usage(format!("--start {start}: expected a whole second after 1970"))
        };
        if let Some(start) = self.start {
            let whole = start.subsec_nanosecond() == 0;
            let seconds = u64::try_from(start.as_second()).ok().filter(|_| whole);
            return seconds.map(LedgerTime::from_seconds).ok_or_else(|| wrong(start));
        }
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(LedgerTime::from_seconds(now.as_secs() / 60 * 60))
    }
}

/// A term that cannot be founded on, by the names of the options.
fn by_options(error: &GenesisError) -> String {
    let GenesisError::Terms { name, expected, found } = error else { return error.to_string() };
    let option = |name: &str| match name {
        "meters" => "--max-meters".to_owned(),
        name => format!("--{}", name.trim_end_matches("_s").replace(['_', ' '], "-")),
    };
    // A bound may be another term.
    let known = ["min_slot_s", "reveal_s", "meters"];
    let words = expected.split(' ').map(|word| match word {
        word if known.contains(&word) => option(word),
        word => word.to_owned(),
    });
    format!("{} {found}: expected {}", option(name), words.collect::<Vec<_>>().join(" "))
}

/// Says whom a network trusts in which votes weigh by meters; nothing of others.
pub(crate) fn note_trust(charter: &Charter) {
    if charter.rounds.votes == Weighing::Members {
        return;
    }
    for line in [
        "votes weigh by meters: this network trusts every SDI and every provider not to register",
        "meters that nobody installed. Such meters that report buy votes and seats.",
    ] {
        output::note(line);
    }
}

/// `h(Am)` of an agreement's text.
pub(crate) fn agreement(text: &[u8]) -> Digest {
    hash(Tag::Agreement, &[text])
}

/// A name of at most 64 bytes.
///
/// # Errors
///
/// [`CommandError::Usage`].
pub(crate) fn name(text: &str) -> Result<Name, CommandError> {
    if text.trim().is_empty() {
        return Err(CommandError::Usage("--name: expected a text, found none".into()));
    }
    if !is_printable(text) {
        let text = text::shown(text);
        return Err(CommandError::Usage(format!(
            "{text}: expected a text without control characters"
        )));
    }
    let short = |_| CommandError::Usage(format!("{text}: expected at most 64 bytes"));
    Name::try_from(text).map_err(short)
}

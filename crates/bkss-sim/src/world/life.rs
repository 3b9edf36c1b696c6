//! The life of a world: from power on to power off, look by look.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, UNIX_EPOCH},
};

use bkss_node::{Answer, gateway::NotTaken};
use bkss_scheme::{
    LedgerTime, MeterId,
    hash::{Tag, hash},
};
use commonware_runtime::{Clock, Spawner, Supervisor, deterministic::Context};

use super::{
    Failure, Options, Summary, Violation,
    chain::Chain,
    faults::{Dice, Fault, Ms, Plan},
    forger::Forger,
    founding::{self, Founding},
    invariants::{Kept, OneValue, SameState},
    liar::Deed,
    meters::{Around, Home, Letter, Post},
    providers::Providers,
};

/// How often the world looks at its providers and lets its meters act.
const TICK_MS: Ms = 50;
/// How long after the plan's end requests are not held to be in good time yet.
const CALM_AFTER_MS: Ms = 8000;
/// How long before the end of its window an accepted request is in good time.
const GOOD_TIME_MS: Ms = 1600;

/// A message's answer on its way back.
struct Reply {
    gateway: usize,
    letters: Vec<Letter>,
    answers: Result<Vec<Answer>, NotTaken>,
}

/// Everything that outlives a power cut, and what watches over it.
pub(super) struct World {
    seed: u64,
    options: Options,
    pub(super) plan: Plan,
    founding: Founding,
    homes: Vec<Home>,
    forgers: Vec<Forger>,
    chain: Chain,
    values: OneValue,
    kept: Kept,
    states: SameState,
    /// How often each provider was started.
    starts: Vec<u64>,
    mail: Dice,
    meter_cuts: usize,
    now: Ms,
    /// The newest block, since when, and the longest wait for one.
    newest: (u64, Ms),
    longest_pause: Ms,
    view_changes: u64,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options, plan: Plan) -> Result<Self, Failure> {
        let mut founding = Founding::new(seed, options)?;
        let meters = std::mem::take(&mut founding.meters);
        let homes = meters.into_iter().enumerate().map(|(number, meter)| {
            Home::new(number, meter, options.slots, Dice::new(seed, 10_000 + number as u64))
        });
        let homes = homes.collect::<Result<Vec<_>, _>>()?;
        let forges = |(place, deeds): &&(usize, Vec<Deed>)| {
            deeds.contains(&Deed::Forges) && *place < founding.keys.len()
        };
        let forgers = plan.byzantine.iter().filter(forges).map(|(place, _)| {
            let dice = Dice::new(seed, 5000 + *place as u64);
            Forger::new(founding::place_id(*place), founding.keys[*place].clone(), dice)
        });
        let schedule = founding::schedule(options);
        Ok(Self {
            seed,
            options: *options,
            forgers: forgers.collect(),
            chain: Chain::new(&founding.genesis, schedule, options.providers.into()),
            homes,
            values: OneValue::default(),
            kept: Kept::default(),
            states: SameState::default(),
            starts: vec![0; options.providers.into()],
            mail: Dice::new(seed, 2),
            meter_cuts: 0,
            now: 0,
            newest: (0, 0),
            longest_pause: 0,
            view_changes: 0,
            plan,
            founding,
        })
    }

    /// From power on to the next cut, false, or to the end, true.
    pub(super) async fn live(&mut self, ctx: Context, cut: Option<Ms>) -> Result<bool, Failure> {
        let (plan, configs) = (self.plan.clone(), self.founding.configs.clone());
        let mut starts = std::mem::take(&mut self.starts);
        self.now = now(&ctx);
        *ctx.storage_fault_config().write() = plan.disks(self.now);
        let time = (self.seed, self.now);
        let mut providers =
            Providers::start(&ctx, time, &plan, &configs, &mut starts, &mut self.chain).await?;
        let (replies, answers) = channel();
        let ended = loop {
            self.now = now(&ctx);
            *ctx.storage_fault_config().write() = plan.disks(self.now);
            providers.follow(self.now, &mut self.chain).await?;
            providers.read(&mut self.chain, &mut self.states)?;
            self.watch(&providers);
            self.answered(&answers);
            let post = self.step_homes(&providers)?;
            self.deliver(&ctx, &providers, post, &replies);
            if cut.is_some_and(|cut| cut <= self.now) {
                break false;
            }
            if self.is_settled(&providers)? {
                providers.no_quarrel().await?;
                self.check_end()?;
                break true;
            }
            ctx.sleep(Duration::from_millis(TICK_MS)).await;
        };
        drop(providers);
        self.starts = starts;
        Ok(ended)
    }

    /// Measures how blocks come.
    fn watch(&mut self, providers: &Providers<'_>) {
        let (newest, height) = (self.newest, self.chain.newest().height);
        self.longest_pause = self.longest_pause.max(self.now - newest.1);
        if height > newest.0 {
            self.newest = (height, self.now);
        }
        let seen = providers.honest().map(|(_, node)| node.status.read().view_changes);
        self.view_changes = self.view_changes.max(seen.max().unwrap_or(0));
    }

    /// Takes in what gateways have answered.
    fn answered(&mut self, answers: &Receiver<Reply>) {
        while let Ok(Reply { gateway, letters, answers }) = answers.try_recv() {
            let Ok(answers) = answers else { continue };
            let honest = !self.plan.is_byzantine(gateway);
            for (letter, answer) in letters.iter().zip(answers) {
                if answer == Answer::Accepted {
                    self.homes[letter.home].accepted(letter, honest);
                    self.owe(gateway, letter, honest);
                }
            }
        }
    }

    /// What an honest gateway has accepted must get onto the ledger.
    fn owe(&mut self, gateway: usize, letter: &Letter, honest: bool) {
        let meter = MeterId(u32::try_from(letter.home).unwrap_or(u32::MAX));
        let closes = self.chain.schedule.closes(letter.index);
        let calm = self.plan.byzantine.is_empty() && self.plan.healed + CALM_AFTER_MS < self.now;
        let in_time = calm && self.time().0 + GOOD_TIME_MS < closes.0;
        if honest && (letter.what == Kept::RELEASE || (letter.what == Kept::REQUEST && in_time)) {
            self.kept.accepted(letter.what, (meter, letter.index), gateway);
        }
    }

    /// Ledger time of clocks that are right.
    fn time(&self) -> LedgerTime {
        LedgerTime(self.founding.genesis.charter().start.0 + self.now)
    }

    /// Lets all homes and forgers act.
    fn step_homes(&mut self, providers: &Providers<'_>) -> Result<Post, Failure> {
        while let Some((at, which, bytes)) = self.plan.meter_cuts.get(self.meter_cuts)
            && *at <= self.now
        {
            self.homes[*which as usize].cut_power(self.now, *bytes);
            self.meter_cuts += 1;
        }
        let (mut post, mut shown) = (Post::new(), Vec::new());
        let time = self.time();
        for (number, home) in self.homes.iter_mut().enumerate() {
            let away = self.plan.at(self.now).any(|fault| match fault {
                Fault::Away(every, first) => number % *every as usize == *first as usize,
                _ => false,
            });
            let mut around = Around {
                now: self.now,
                clock: LedgerTime(time.0.saturating_add_signed(home.skew_ms)),
                gateways: self.options.providers.into(),
                chain: &mut self.chain,
                values: &mut self.values,
                reachable: !away,
                shown: &mut shown,
            };
            home.step(&mut around, &mut post)?;
        }
        for forger in &mut self.forgers {
            for forged in forger.forge(&self.founding.genesis, &self.chain, &shown) {
                for (_, node) in providers.honest() {
                    // Most of it is refused at once.
                    let _ = node.shared.add(forged.clone());
                }
            }
        }
        Ok(post)
    }

    /// Brings letters to gateways, as well as the plan lets them.
    fn deliver(
        &mut self,
        ctx: &Context,
        providers: &Providers<'_>,
        post: Post,
        replies: &Sender<Reply>,
    ) {
        let loss = self.plan.at(self.now).filter_map(|fault| match fault {
            Fault::Mail(of_thousand) => Some(*of_thousand),
            _ => None,
        });
        let loss = loss.max().unwrap_or(0);
        for (gateway, letters) in post {
            let mut arriving = Vec::new();
            for letter in letters {
                let copies = if !self.mail.chance(loss) { 1 } else { 2 * self.mail.below(2) };
                arriving.extend((0..copies).map(|_| letter.clone()));
            }
            let Some(mailbox) = providers.mailbox(gateway) else { continue };
            let delay = Duration::from_millis(self.mail.within(1, 30 + loss));
            let replies = replies.clone();
            ctx.child("letters").spawn(move |ctx| async move {
                ctx.sleep(delay).await;
                let messages = arriving.iter().map(|letter| letter.message.clone()).collect();
                let answers = mailbox.take(messages).await;
                // After a power cut nobody waits for it.
                let _ = replies.send(Reply { gateway, letters: arriving, answers });
            });
        }
    }

    /// Whether all has come true that was promised; it must before too long.
    fn is_settled(&self, providers: &Providers<'_>) -> Result<bool, Failure> {
        if self.now < self.plan.healed {
            return Ok(false);
        }
        let newest = self.chain.newest().height;
        let behind: Vec<_> = providers
            .honest()
            .map(|(place, _)| (place, self.chain.missing(place)))
            .filter(|(_, missing)| *missing < newest)
            .collect();
        let unfinished: Vec<_> = self.homes.iter().filter(|home| !home.done(&self.chain)).collect();
        if behind.is_empty() && unfinished.is_empty() {
            return Ok(true);
        }
        let end = self.chain.schedule.begins().0
            + 1000 * u64::from(self.chain.schedule.slots) * u64::from(founding::SLOT_S);
        if self.time().0 < end {
            return Ok(false);
        }
        // Whoever waits for what was lost is not to blame.
        self.check_kept()?;
        let homes: Vec<_> = unfinished.iter().map(|home| home.standing()).collect();
        let rounds: Vec<_> = providers
            .honest()
            .map(|(place, node)| {
                let status = node.status.read();
                format!(
                    "provider {place} at {} in view {} of round {}, voting {}",
                    status.height, status.view, status.round, status.votes
                )
            })
            .collect();
        let text = format!(
            "all is well since {} ms, at {} ms block {newest} is the newest ({}), providers lack blocks from {behind:?}; {}",
            self.plan.healed,
            self.now,
            rounds.join(", "),
            homes.join("; ")
        );
        Err(Violation::Stuck(text).into())
    }

    /// What honest gateways have accepted is on the ledger.
    fn check_kept(&self) -> Result<(), Violation> {
        self.kept.check(|what, meter, index| {
            let key = (meter, index);
            let opened = self.chain.is_opened(key);
            // A release without a request on the ledger opens nothing.
            let owed = what != Kept::RELEASE || self.chain.is_requested(key);
            if what == Kept::REQUEST { self.chain.is_requested(key) } else { opened || !owed }
        })
    }

    /// What is checked once, at the end.
    fn check_end(&self) -> Result<(), Failure> {
        self.check_kept()?;
        for place in 0..usize::from(self.options.providers) {
            if !self.plan.is_byzantine(place) {
                self.chain.clean_archive(place)?;
            }
        }
        self.chain.no_forgery()?;
        let modulus = u64::from(self.options.slots).max(1);
        let seed = self.seed;
        self.chain.valid_receipts(|issued| {
            (seed + u64::from(issued.meter.0) + u64::from(issued.index.get()))
                .is_multiple_of(modulus)
        })?;
        Ok(())
    }

    pub(super) fn summary(&self, events: &str) -> Summary {
        let head = self.chain.newest();
        Summary {
            height: head.height,
            openings: self.chain.openings(),
            virtual_ms: self.now,
            longest_pause_ms: self.longest_pause,
            view_changes: self.view_changes,
            faults: self.plan.episodes.len()
                + self.plan.power_cuts.len()
                + self.plan.meter_cuts.len()
                + usize::from(self.plan.bad_disks.is_some()),
            byzantine: self.plan.byzantine.len(),
            digest: hash(Tag::Draw, &[events.as_bytes(), &head.id.0]),
        }
    }
}

/// Virtual milliseconds since the world began.
fn now(ctx: &Context) -> Ms {
    let passed = ctx.current().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(Ms::MAX)
}

//! The life of a world: from power on to power off, look by look.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, UNIX_EPOCH},
};

use bkss_ledger::Transaction;
use bkss_node::{Answer, message::NotTaken};
use bkss_scheme::{
    LedgerTime,
    hash::{Tag, hash},
};
use commonware_runtime::{Clock, Spawner, Supervisor, deterministic::Context};

use super::{
    Failure, Options, Summary, Violation,
    chain::Chain,
    clerk::{Brought, Clerk},
    counterfeits,
    deed::Deed,
    dice::Dice,
    faults::{Fault, Ms, disks},
    founding::{self, Founding},
    home::{Around, Home, Letter, Post},
    invariants::{Kept, OneValue, OneVote, SameState},
    lives::Lives,
    operator::Operator,
    plan::Plan,
    providers::Providers,
    rogue::Rogue,
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
    founding: Arc<Founding>,
    homes: Vec<Home>,
    rogues: Vec<Rogue>,
    clerk: Clerk,
    chain: Chain,
    values: OneValue,
    kept: Kept,
    states: SameState,
    votes: OneVote,
    lives: Lives,
    operator: Operator,
    /// Gateways that meters no longer rely on.
    left: Vec<usize>,
    mail: Dice,
    meter_cuts: usize,
    now: Ms,
    view_changes: u64,
    invalid_batches: u64,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options, plan: Plan) -> Result<Self, Failure> {
        let mut founding = Founding::new(seed, options, &plan)?;
        let gateways = plan
            .byzantine
            .iter()
            .filter(|(_, deeds)| deeds.iter().copied().any(Deed::is_of_gateway));
        let rogues = gateways.map(|(place, deeds)| Rogue::new(seed, *place, deeds, &founding));
        let (rogues, clerk) = (rogues.collect(), Clerk::new(seed, &plan, &founding));
        let schedule = founding::schedule(options);
        let meters = std::mem::take(&mut founding.meters);
        let homes = meters.into_iter().enumerate().map(|(number, chains)| {
            let registers = plan.registers(number);
            let chains = chains.into_iter().zip(registers).collect();
            let dice = Dice::new(seed, 10_000 + number as u64);
            Home::new(number, chains, (schedule, options.slots), dice)
        });
        Ok(Self {
            seed,
            options: *options,
            homes: homes.collect::<Result<_, _>>()?,
            rogues,
            clerk,
            chain: Chain::new(&founding.genesis, &founding.issued, plan.places()),
            values: OneValue::default(),
            kept: Kept::default(),
            states: SameState::default(),
            votes: OneVote::default(),
            lives: Lives::new(plan.places(), &plan.events.images),
            operator: Operator::default(),
            left: Vec::new(),
            mail: Dice::new(seed, 2),
            meter_cuts: 0,
            now: 0,
            view_changes: 0,
            invalid_batches: 0,
            plan,
            founding: Arc::new(founding),
        })
    }

    /// From power on to the next cut, false, or to the end, true.
    pub(super) async fn live(&mut self, ctx: Context, cut: Option<Ms>) -> Result<bool, Failure> {
        let plan = self.plan.clone();
        let founding = self.founding.clone();
        let mut lives = std::mem::take(&mut self.lives);
        let lived = self.live_with(&ctx, cut, (&plan, &founding), &mut lives).await;
        self.lives = lives;
        lived
    }

    async fn live_with(
        &mut self,
        ctx: &Context,
        cut: Option<Ms>,
        (plan, founding): (&Plan, &Founding),
        lives: &mut Lives,
    ) -> Result<bool, Failure> {
        let votes = self.votes.clone();
        let mut providers = Providers::new(ctx, self.seed, (plan, founding), lives, votes).await;
        let (replies, answers) = channel();
        loop {
            self.now = now(ctx);
            let rate = plan.bad_disks.filter(|bad| bad.at(self.now));
            *ctx.storage_fault_config().write() = disks(rate.map_or(0, |bad| bad.of_thousand));
            let restored = providers.follow(self.now, &mut self.chain).await?;
            restored.into_iter().for_each(|gateway| self.write_off(gateway));
            providers.read(&mut self.chain, &mut self.states)?;
            self.watch(&mut providers).await;
            self.answered(&answers);
            let post = self.step_homes(founding, &providers)?;
            self.deliver(ctx, &providers, post, &replies);
            if cut.is_some_and(|cut| cut <= self.now) {
                return Ok(false);
            }
            if self.is_settled(&providers)? {
                providers.no_quarrel().await?;
                self.check_end(founding)?;
                return Ok(true);
            }
            ctx.sleep(Duration::from_millis(TICK_MS)).await;
        }
    }

    /// Watches how blocks come, and who is a member no more.
    async fn watch(&mut self, providers: &mut Providers<'_>) {
        let height = self.chain.newest().height;
        if self.operator.look(self.now, height, self.plan.healed) {
            providers.vote_without_memory(self.now, &self.chain).await;
        }
        let seen = providers.honest().map(|(_, node)| node.status.read().view_changes);
        self.view_changes = self.view_changes.max(seen.max().unwrap_or(0));
        let found = providers.honest().map(|(_, node)| node.shared.invalid_batches().0);
        self.invalid_batches = self.invalid_batches.max(found.max().unwrap_or(0));
        let members = self.chain.state.members();
        let gone = self.chain.admitted.may_be_gone.iter();
        let gone = gone.filter(|id| members.provider(**id).is_none());
        let gone: Vec<_> = gone.map(|id| usize::from(id.0)).collect();
        for place in gone {
            if !self.left.contains(&place) {
                self.left.push(place);
                self.write_off(place);
            }
        }
    }

    /// What a gateway had accepted is not to be relied on any more.
    fn write_off(&mut self, gateway: usize) {
        self.kept.forgive(gateway);
        self.homes.iter_mut().for_each(|home| home.forget(gateway));
    }

    /// Takes in what gateways have answered.
    fn answered(&mut self, answers: &Receiver<Reply>) {
        while let Ok(Reply { gateway, letters, answers }) = answers.try_recv() {
            let Ok(answers) = answers else { continue };
            let honest = !self.plan.is_byzantine(gateway);
            for (letter, answer) in letters.iter().zip(answers) {
                // What is accepted by who has gone meanwhile counts for nothing.
                if answer == Answer::Accepted && honest && !self.left.contains(&gateway) {
                    self.homes[letter.home].accepted(letter, gateway);
                    self.owe(gateway, letter);
                }
            }
        }
    }

    /// What an honest gateway has accepted must get onto the ledger.
    fn owe(&mut self, gateway: usize, letter: &Letter) {
        let Some(of_meter) = self.chain.row_of(letter.link).map(|(_, _, known)| known) else {
            return;
        };
        let closes = of_meter.schedule.closes(letter.link.index);
        let calm = self.plan.byzantine.is_empty() && self.plan.healed + CALM_AFTER_MS < self.now;
        let in_time = calm && self.time().0 + GOOD_TIME_MS < closes.0;
        if letter.what == Kept::RELEASE || (letter.what == Kept::REQUEST && in_time) {
            self.kept.accepted(letter.what, letter.link, gateway);
        }
    }

    /// Ledger time of clocks that are right.
    fn time(&self) -> LedgerTime {
        LedgerTime(self.chain.genesis.charter().start.0 + self.now)
    }

    /// Lets all homes, rogues and the clerk act.
    fn step_homes(
        &mut self,
        founding: &Founding,
        providers: &Providers<'_>,
    ) -> Result<Post, Failure> {
        while let Some((at, which, bytes)) = self.plan.meter_cuts.get(self.meter_cuts)
            && *at <= self.now
        {
            self.homes[*which as usize].cut_power(self.now, *bytes);
            self.meter_cuts += 1;
        }
        let (mut post, mut shown) = (Post::new(), Vec::new());
        let time = self.time();
        let members = self.chain.state.members().present();
        let gateways: Vec<_> = members.map(|member| usize::from(member.id.0)).collect();
        for (number, home) in self.homes.iter_mut().enumerate() {
            let away = self.plan.at(self.now).any(|fault| match fault {
                Fault::Away(every, first) => number % *every as usize == *first as usize,
                _ => false,
            });
            let mut gateways = gateways.clone();
            let own = gateways.iter().position(|gateway| *gateway == home.owner).unwrap_or(0);
            gateways.rotate_left(own);
            let mut around = Around {
                now: self.now,
                clock: LedgerTime(time.0.saturating_add_signed(home.skew_ms)),
                gateways,
                chain: &mut self.chain,
                values: &mut self.values,
                reachable: !away,
                shown: &mut shown,
            };
            home.step(&mut around, &mut post)?;
        }
        for rogue in &mut self.rogues {
            bring(providers, rogue.act(&self.chain, &shown));
        }
        for brought in self.clerk.act(self.now, (&self.plan, founding), &mut self.chain) {
            match brought {
                Brought::All(transactions) => bring(providers, transactions),
                // Where the node is down it is brought again.
                Brought::Gateway(place, transaction) => {
                    let _ = providers.mailbox(place).map(|mailbox| mailbox.post(*transaction));
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
        let schedule = founding::schedule(&self.options);
        let end =
            schedule.begins().0 + 1000 * u64::from(schedule.slots) * u64::from(founding::SLOT_S);
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
        self.kept.check(|what, link| {
            let opened = self.chain.is_opened(link);
            let requested = self.chain.requested.get(&link);
            let value = self.values.signed(link);
            let requested = requested.zip(value).is_some_and(|(all, value)| all.contains(value));
            // A release without a request on the ledger opens nothing, and a chain that ends or a
            // meter that is revoked requests nothing more.
            let owed = if what == Kept::RELEASE { requested } else { !self.chain.is_over(link) };
            opened || !owed || (what == Kept::REQUEST && requested)
        })
    }

    /// What is checked once, at the end.
    fn check_end(&self, founding: &Founding) -> Result<(), Failure> {
        self.check_kept()?;
        for place in 0..self.plan.places() {
            if !self.plan.is_byzantine(place) {
                self.chain.clean_archive(place)?;
            }
        }
        counterfeits::check(&self.chain, founding)?;
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
            longest_pause_ms: self.operator.longest_pause,
            view_changes: self.view_changes,
            faults: self.plan.episodes.len()
                + self.plan.power_cuts.len()
                + self.plan.meter_cuts.len()
                + usize::from(self.plan.bad_disks.is_some()),
            byzantine: self.plan.byzantine.len(),
            restored: self.lives.restored.len(),
            without_memory: self.lives.without_memory.len(),
            members: self.chain.state.members().count(),
            invalid_batches: self.invalid_batches,
            chains: self.chain.registered().count(),
            revoked: self.chain.ended.count(),
            digest: hash(Tag::Draw, &[events.as_bytes(), &head.id.0]),
        }
    }
}

/// Puts transactions into the pools of all honest providers that run.
fn bring(providers: &Providers<'_>, transactions: Vec<Transaction>) {
    for transaction in transactions {
        for (_, node) in providers.honest() {
            // Most of what liars bring is refused at once.
            let _ = node.shared.add(transaction.clone());
        }
    }
}

/// Virtual milliseconds since the world began.
fn now(ctx: &Context) -> Ms {
    let passed = ctx.current().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(Ms::MAX)
}

//! Links between providers that delay, and fail: a relay of TCP for every pair and direction of
//! dialling. Needs neither root nor the kernel's help.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::providers::Providers;

/// What a link has on its way at most, in pieces of [`PIECE`] bytes.
const PIECES: usize = 256;
const PIECE: usize = 16 * 1024;
/// How often what stands still looks whether it may go on.
const LOOK: Duration = Duration::from_millis(5);

/// One way between two providers.
#[derive(Default)]
struct Way {
    /// Nothing gets through: it waits, as for TCP on a network that loses packets.
    cut: AtomicBool,
    bytes: AtomicU64,
}

/// All links between providers; they end with this.
pub(crate) struct Relays {
    ways: BTreeMap<(usize, usize), Arc<Way>>,
    ended: Arc<AtomicBool>,
}

impl Relays {
    /// Puts relays between providers that do not run yet.
    pub(crate) fn between(providers: &Providers, delay: Duration) -> Self {
        let count = providers.running.len();
        let pairs = || (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let pairs = || pairs().filter(|(a, b)| a != b);
        let ways: BTreeMap<_, _> = pairs().map(|pair| (pair, Arc::<Way>::default())).collect();
        let relays = Self { ways, ended: Arc::default() };
        let mut peers = vec![Vec::new(); count];
        for (from, to) in pairs() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            peers[from].push((to, listener.local_addr().unwrap().to_string()));
            let link = Link {
                target: providers.p2p(to),
                delay,
                there: relays.ways[&(from, to)].clone(),
                back: relays.ways[&(to, from)].clone(),
                ended: relays.ended.clone(),
            };
            thread::spawn(move || link.run(&listener));
        }
        for (from, peers) in peers.iter().enumerate() {
            providers.set_peers(from, peers);
        }
        relays
    }

    /// What one sends to another gets through, or does not.
    pub(crate) fn cut(&self, from: usize, to: usize, cut: bool) {
        self.ways[&(from, to)].cut.store(cut, Ordering::SeqCst);
    }

    /// The providers below `first` and the others do not hear each other, or do again.
    pub(crate) fn part(&self, first: usize, parted: bool) {
        for (from, to) in self.ways.keys().filter(|(from, to)| (*from < first) != (*to < first)) {
            self.cut(*from, *to, parted);
        }
    }

    /// Bytes that have got through from one to another.
    pub(crate) fn bytes(&self, from: usize, to: usize) -> u64 {
        self.ways[&(from, to)].bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// What one provider dials instead of another.
struct Link {
    target: String,
    delay: Duration,
    there: Arc<Way>,
    back: Arc<Way>,
    ended: Arc<AtomicBool>,
}

impl Link {
    fn run(&self, listener: &TcpListener) {
        listener.set_nonblocking(true).unwrap();
        while !self.ended.load(Ordering::SeqCst) {
            let Ok((dialler, _)) = listener.accept() else {
                thread::sleep(LOOK);
                continue;
            };
            // Whom nobody listens to loses the connection.
            let Ok(listener) = TcpStream::connect(&self.target) else { continue };
            dialler.set_nonblocking(false).unwrap();
            self.carry(&dialler, &listener, &self.there);
            self.carry(&listener, &dialler, &self.back);
        }
    }

    fn carry(&self, from: &TcpStream, to: &TcpStream, way: &Arc<Way>) {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let (sender, receiver) = sync_channel(PIECES);
        let delay = self.delay;
        thread::spawn(move || take(from, &sender, delay));
        let (way, ended) = (way.clone(), self.ended.clone());
        thread::spawn(move || give(to, &receiver, &way, &ended));
    }
}

/// Reads pieces and says when each is due.
fn take(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut buffer = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if pieces.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
}

/// Writes pieces when they are due, and not while the way is cut.
fn give(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>, way: &Way, ended: &AtomicBool) {
    while let Ok((due, piece)) = pieces.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        while way.cut.load(Ordering::SeqCst) && !ended.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
        if to.write_all(&piece).is_err() {
            break;
        }
        way.bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Of a provider's blocks with transactions: mean seconds from their time to their finality, and how
/// many took at most 200 ms.
fn finality(providers: &Providers, provider: usize) -> (f64, f64) {
    let url = format!("{}/metrics", providers.url(provider));
    let mut answer = crate::providers::agent().get(&url).call().unwrap();
    let metrics = answer.body_mut().read_to_string().unwrap();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    let mean = value("bkss_finality_seconds_sum") / value("bkss_finality_seconds_count");
    (mean, value("bkss_finality_seconds_bucket{le=\"0.2\"}"))
}

const TERMS: [&str; 4] = ["--grid", "1", "--round-blocks", "12"];

#[test]
fn a_hundred_milliseconds_each_way_delay_finality_and_stop_nothing() {
    for milliseconds in [0, 100] {
        let mut providers = Providers::found(4, &TERMS);
        let relays = Relays::between(&providers, Duration::from_millis(milliseconds));
        providers.start_all();
        let took = providers.wait(0, 30);
        (0..4).for_each(|provider| providers.reach(provider, 30));
        providers.assert_same_blocks();
        assert!((1..4).all(|peer| relays.bytes(0, peer) > 0 && relays.bytes(peer, 0) > 0));
        let (mean, fast) = finality(&providers, 0);
        println!("{milliseconds} ms each way: 30 blocks in {took:?}, final after {mean:.3} s");
        // A proposal, a vote and another vote are on their way one after the other.
        assert_eq!(fast == 0.0, milliseconds > 0, "{fast} blocks within 200 ms");
    }
}

#[test]
fn links_are_cut_and_heal() {
    let mut providers = Providers::found(4, &TERMS);
    let relays = Relays::between(&providers, Duration::from_millis(100));
    providers.start_all();
    (0..4).for_each(|provider| providers.reach(provider, 5));

    relays.part(2, true);
    thread::sleep(Duration::from_secs(2));
    let heights = |providers: &Providers| [0, 1, 2, 3].map(|provider| providers.height(provider));
    let before = heights(&providers);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(heights(&providers), before, "no two of four are a quorum");
    relays.part(2, false);
    let took = providers.progress(0, 2);
    println!("parted 2|2 and healed: two more blocks after {took:?}");

    // Number 0 hears everybody, and nobody hears it.
    (1..4).for_each(|to| relays.cut(0, to, true));
    let took = providers.progress(2, 6);
    println!("one provider unheard: six more blocks after {took:?}");
    (1..4).for_each(|to| relays.cut(0, to, false));
    let height = providers.height(2);
    let took = providers.wait(0, height);
    println!("heard again: at the head after {took:?}");
    (0..4).for_each(|provider| providers.reach(provider, height + 5));
    providers.assert_same_blocks();
}

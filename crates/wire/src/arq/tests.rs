use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// A small deterministic generator (SplitMix64).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True once in `n` times; never for 0.
    fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.next().is_multiple_of(n)
    }
}

/// What a pipe does to bytes; each is "one in so many", 0 for never.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    corrupt: u64,
    drop: u64,
    duplicate_chunk: u64,
    swap_chunks: u64,
    garbage: u64,
}

const LATENCY: Duration = Duration::from_millis(4);

#[derive(Debug)]
struct Line {
    random: Random,
    faults: Faults,
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    carried: usize,
}

impl Line {
    fn new(seed: u64, faults: Faults) -> Line {
        Line {
            random: Random(seed),
            faults,
            on_the_way: VecDeque::new(),
            carried: 0,
        }
    }

    fn put(&mut self, bytes: &[u8], now: Instant) {
        self.carried += bytes.len();
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.random.one_in(self.faults.drop) {
                continue;
            }
            let flip = if self.random.one_in(self.faults.corrupt) {
                1 << (self.random.next() % 8)
            } else {
                0
            };
            out.push(byte ^ flip);
        }
        if self.random.one_in(self.faults.garbage) {
            let noise = (0..self.random.next() % 300).map(|_| self.random.next() as u8);
            out.extend(noise.collect::<Vec<u8>>());
        }
        let copies = 1 + usize::from(self.random.one_in(self.faults.duplicate_chunk));
        for _ in 0..copies {
            self.on_the_way.push_back((now + LATENCY, out.clone()));
        }
        let len = self.on_the_way.len();
        if len >= 2 && self.random.one_in(self.faults.swap_chunks) {
            self.on_the_way.swap(len - 1, len - 2);
        }
    }

    fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.on_the_way
            .front()
            .is_some_and(|(at, _)| *at <= now)
            .then(|| self.on_the_way.pop_front())?
            .map(|c| c.1)
    }
}

fn name(number: u32) -> Name {
    let mut bytes = [7; Name::BYTES];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Name::new(bytes)
}

struct Pair {
    sides: [Arq; 2],
    lines: [Line; 2],
    now: Instant,
    start: Instant,
}

impl Pair {
    fn new(seed: u64, faults: Faults) -> Pair {
        let now = Instant::now();
        Pair {
            sides: [Arq::dialer(name(77), now), Arq::listener(now)],
            lines: [Line::new(seed, faults), Line::new(!seed, faults)],
            now,
            start: now,
        }
    }

    /// Lets 1 ms pass: 8 KiB each way.
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        for side in 0..2 {
            while let Some(chunk) = self.lines[1 - side].take(self.now) {
                self.sides[side].receive(&chunk, self.now);
            }
            self.sides[side].tick(self.now);
            let mut sent = 0;
            let mut out = Vec::new();
            while sent < 8192 && self.sides[side].transmit(self.now, &mut out) {
                sent += out.len();
                self.lines[side].put(&out, self.now);
                out.clear();
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

fn data(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

/// Carries `len` bytes both ways to their ends; panics if anything is wrong or it takes more than
/// `limit` of the line's time. Returns the pair.
fn transfer(
    seed: u64,
    faults: Faults,
    len: usize,
    limit: Duration,
    mut at_each: impl FnMut(&mut Pair),
) -> Pair {
    let mut pair = Pair::new(seed, faults);
    let texts = [data(len, seed), data(len, seed + 1)];
    let (mut written, mut read) = ([0; 2], [0; 2]);
    let mut buffer = vec![0; 5000];
    while !(0..2).all(|side| pair.sides[side].is_over() && pair.sides[side].is_idle()) {
        for side in 0..2 {
            let arq = &mut pair.sides[side];
            if written[side] < len {
                written[side] += arq.write(&texts[side][written[side]..]);
            } else {
                arq.finish();
            }
            let count = arq.read(&mut buffer);
            let from = read[side];
            assert!(
                texts[1 - side][from..from + count] == buffer[..count],
                "wrong bytes at {from}"
            );
            read[side] += count;
        }
        pair.step();
        at_each(&mut pair);
        assert!(
            pair.elapsed() < limit,
            "stuck: written {written:?}, read {read:?} of {len}"
        );
    }
    assert_eq!(read, [len; 2]);
    pair
}

#[test]
fn a_clean_line_carries_long_packets_at_little_cost() {
    let pair = transfer(
        1,
        Faults::default(),
        4 << 20,
        Duration::from_secs(60),
        |_| {},
    );
    assert_eq!(pair.sides[0].payload(), 1024);
    let carried = pair.lines[0].carried;
    assert!(
        carried < (4 << 20) / 100 * 108,
        "{carried} bytes for 4 MiB, acknowledgements included"
    );
}

#[test]
fn one_byte_in_a_thousand_corrupted_and_one_dropped_loses_nothing() {
    let faults = Faults {
        corrupt: 1000,
        drop: 1000,
        ..Faults::default()
    };
    let pair = transfer(2, faults, 1 << 20, Duration::from_secs(120), |_| {});
    assert!(
        (64..=192).contains(&pair.sides[0].payload()),
        "{}",
        pair.sides[0].payload()
    );
    assert!(
        pair.lines[0].carried < 3 << 20,
        "{} bytes for 1 MiB",
        pair.lines[0].carried
    );
}

#[test]
fn a_line_that_goes_bad_on_the_way_still_carries_everything() {
    let bad = Faults {
        corrupt: 60,
        drop: 120,
        ..Faults::default()
    };
    transfer(
        3,
        Faults::default(),
        300_000,
        Duration::from_secs(600),
        |pair| {
            if pair.elapsed() == Duration::from_millis(20) {
                assert_eq!(pair.lines[0].faults.drop, 0);
                pair.lines[0].faults = bad;
                pair.lines[1].faults = bad;
            }
        },
    );
}

/// As the endpoint ends a session: the next connection is waited for at once, before a farewell was sent.
#[test]
fn a_peer_learns_that_it_was_given_up_for_the_next_connection() {
    for first_is_lost in [false, true] {
        let mut pair = Pair::new(6, Faults::default());
        pair.sides[0].write(b"goodbye");
        while pair.sides[1].readable() == 0 {
            pair.step();
        }
        let now = pair.now;
        pair.sides[1].reset(now);
        pair.sides[1].next_connection(name(0), now);
        // On its way, or waiting for an answer that never comes.
        pair.sides[0].write(b"ping");
        let mut steps = 0;
        while pair.sides[0].state() != State::Broken {
            pair.step();
            if first_is_lost && steps < 3 {
                pair.lines[1].on_the_way.clear();
            }
            steps += 1;
            assert!(steps < 2000, "it was never told");
        }
        assert_eq!(pair.sides[1].state(), State::Opening);
    }
}

/// A deep queue in front of a slow line: what is written takes seconds to arrive, and nothing is lost.
#[test]
fn a_slow_line_is_not_filled_with_copies() {
    let mut pair = Pair::new(11, Faults::default());
    let text = data(400_000, 11);
    let (mut written, mut read) = (0, Vec::new());
    let mut buffer = vec![0; 5000];
    let mut queue: VecDeque<u8> = VecDeque::new();
    let mut carried = 0;
    while read.len() < text.len() {
        // At first little is written, and each byte is known to be quick.
        let some = if pair.elapsed() < Duration::from_millis(500) {
            text.len().min(written + 10)
        } else {
            text.len()
        };
        written += pair.sides[0].write(&text[written..some]);
        let count = pair.sides[1].read(&mut buffer);
        read.extend_from_slice(&buffer[..count]);
        pair.now += Duration::from_millis(1);
        let mut out = Vec::new();
        while pair.sides[0].transmit(pair.now, &mut out) {}
        carried += out.len();
        queue.extend(out);
        // 20 bytes a millisecond, and a peer that now and then has something else to do.
        let count = queue.len().min(20);
        let arrived: Vec<u8> = queue.drain(..count).collect();
        pair.sides[1].receive(&arrived, pair.now);
        let busy = pair.elapsed().as_millis() % 1000 > 500;
        let mut out = Vec::new();
        while !busy && pair.sides[1].transmit(pair.now, &mut out) {}
        pair.sides[0].receive(&out, pair.now);
        pair.sides[0].tick(pair.now);
        pair.sides[1].tick(pair.now);
        assert!(pair.elapsed() < Duration::from_secs(60), "stuck");
    }
    assert!(read == text);
    assert!(carried < text.len() / 100 * 115, "{carried} bytes carried");
}

#[test]
fn a_pipe_that_comes_back_goes_on_where_it_was() {
    transfer(
        4,
        Faults::default(),
        2 << 20,
        Duration::from_secs(60),
        |pair| {
            if pair.elapsed().as_millis().is_multiple_of(50) {
                // All that was on the way is gone; only the listener is told.
                pair.lines[0].on_the_way.clear();
                pair.lines[1].on_the_way.clear();
                let now = pair.now;
                pair.sides[1].repiped(now);
            }
        },
    );
}

/// Packets of one side that the other one is given, and nobody else.
fn all_of(arq: &mut Arq, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    while arq.transmit(now, &mut out) {}
    out
}

fn kinds(bytes: &[u8]) -> Vec<Kind> {
    let mut scanner = Scanner::default();
    scanner.push(bytes);
    std::iter::from_fn(|| Some(scanner.next_packet()?.0.kind)).collect()
}

#[test]
fn whoever_comes_by_another_pipe_without_the_token_hears_and_says_nothing() {
    let mut pair = Pair::new(6, Faults::default());
    pair.sides[0].write(b"asked");
    for _ in 0..50 {
        pair.step();
    }
    pair.sides[1].write(b"a secret");
    let second = Duration::from_secs(1);
    let mut now = pair.now;
    pair.sides[1].repiped(now);

    // It knows the number, and where the stream is.
    let mut impostor = Arq::dialer(
        Name {
            token: [9; TOKEN],
            ..name(77)
        },
        now,
    );
    impostor.state = State::Open;
    impostor.write(b"false");
    for kind in [Kind::Ack, Kind::Finish, Kind::Reset, Kind::Resume] {
        let mut out = Vec::new();
        impostor.named(kind, &mut out);
        pair.sides[1].receive(&out, now);
    }
    let mut answers = 0;
    for _ in 0..10 {
        now += second;
        let heard = all_of(&mut pair.sides[1], now);
        assert!(kinds(&heard).iter().all(|kind| *kind == Kind::Probe));
        assert!(!heard.windows(4).any(|word| word == 77u32.to_le_bytes()));
        impostor.receive(&heard, now);
        let said = all_of(&mut impostor, now);
        answers += usize::from(kinds(&said).contains(&Kind::Resume));
        pair.sides[1].receive(&said, now);
    }
    assert!(answers >= 4, "{answers}");
    let mut buffer = [0; 100];
    let count = pair.sides[1].read(&mut buffer);
    assert_eq!(&buffer[..count], b"asked");
    assert_eq!(pair.sides[1].state(), State::Open);

    // The one who opened it goes on.
    pair.now = now + second;
    pair.sides[1].repiped(pair.now);
    pair.sides[0].write(b" and true");
    for _ in 0..50 {
        pair.step();
    }
    let count = pair.sides[1].read(&mut buffer);
    assert_eq!(&buffer[..count], b" and true");
    let count = pair.sides[0].read(&mut buffer);
    assert_eq!(&buffer[..count], b"a secret");
}

#[test]
fn a_listener_that_knows_nothing_breaks_the_connection_and_takes_the_next() {
    let mut pair = Pair::new(5, Faults::default());
    pair.sides[0].write(b"old");
    for _ in 0..50 {
        pair.step();
    }
    assert_eq!(pair.sides.each_ref().map(Arq::state), [State::Open; 2]);
    // The endpoint was restarted; the dialer is idle and still learns of it.
    pair.sides[1] = Arq::listener(pair.now);
    for _ in 0..50 {
        pair.step();
    }
    assert_eq!(pair.sides[0].state(), State::Broken);
    pair.sides[0].next_connection(name(78), pair.now);
    pair.sides[0].write(b"new");
    for _ in 0..50 {
        pair.step();
    }
    let mut out = [0; 10];
    assert_eq!(pair.sides[1].read(&mut out), 3);
    assert_eq!(&out[..3], b"new");
}

#[test]
fn a_new_dialer_ends_the_old_connection_and_none_of_its_bytes_leak_into_the_next() {
    let mut pair = Pair::new(6, Faults::default());
    pair.sides[0].write(b"old");
    for _ in 0..50 {
        pair.step();
    }
    pair.sides[0] = Arq::dialer(name(99), pair.now);
    pair.sides[0].write(b"new");
    for _ in 0..50 {
        pair.step();
    }
    assert_eq!(pair.sides[1].state(), State::Broken);
    pair.sides[1].next_connection(name(0), pair.now);
    for _ in 0..500 {
        pair.step();
    }
    let mut out = [0; 10];
    assert_eq!(pair.sides[1].read(&mut out), 3);
    assert_eq!(&out[..3], b"new");
}

#[test]
fn a_reader_that_pauses_holds_the_writer_back_and_loses_nothing() {
    let mut pair = Pair::new(7, Faults::default());
    let text = data(1 << 20, 7);
    let (mut written, mut read) = (0, Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    while read.len() < text.len() {
        written += pair.sides[0].write(&text[written..]);
        pair.step();
        assert!(pair.sides[1].readable() <= READY_MAX + IN_FLIGHT_MAX);
        if pair.elapsed().as_millis().is_multiple_of(1000) {
            let count = pair.sides[1].read(&mut buffer);
            read.extend_from_slice(&buffer[..count]);
        }
        assert!(
            pair.elapsed() < Duration::from_secs(120),
            "stuck at {}",
            read.len()
        );
    }
    assert!(read == text);
}

/// Opens a pair's connection, and says nothing more.
fn opened(seed: u64) -> Pair {
    let mut pair = Pair::new(seed, Faults::default());
    while pair.sides.iter().any(|side| side.state() != State::Open) {
        pair.step();
    }
    pair
}

/// Lets one side's clock run as a driver does, while its pipe goes nowhere; `taken`: the pipe takes what it says.
fn alone(arq: &mut Arq, now: &mut Instant, time: Duration, taken: bool) -> Duration {
    let (begun, until) = (*now, *now + time);
    while *now < until {
        arq.tick(*now);
        if arq.state() == State::Broken {
            break;
        }
        if taken {
            all_of(arq, *now);
        }
        let at = if taken {
            arq.next_timeout()
        } else {
            arq.next_look()
        };
        *now = at.map_or(until, |at| at.max(*now)).min(until);
    }
    *now - begun
}

#[test]
fn a_dialer_gives_up_a_peer_that_is_silent_while_it_waits_for_it() {
    for taken in [true, false] {
        let mut pair = opened(12);
        let (dialer, mut now) = (&mut pair.sides[0], pair.now);
        let hour = Duration::from_secs(3600);
        // Who has nothing to say needs no answer.
        assert_eq!(alone(dialer, &mut now, hour, taken), hour);
        assert_eq!(dialer.state(), State::Open);
        dialer.write(b"is anybody there?");
        let waited = alone(dialer, &mut now, hour, taken);
        assert_eq!(dialer.state(), State::Broken, "taken: {taken}");
        assert_eq!(waited, SILENCE_MAX, "taken: {taken}");
        // The peer, if it only could not be heard, is told; and another connection is opened.
        assert!(kinds(&all_of(dialer, now)).contains(&Kind::Reset));
        dialer.next_connection(name(78), now);
        assert!(kinds(&all_of(dialer, now)).contains(&Kind::Open));
    }
}

#[test]
fn a_peer_of_which_nothing_is_heard_is_asked_for_the_shortest_of_answers() {
    let mut pair = opened(16);
    let (dialer, mut now) = (&mut pair.sides[0], pair.now);
    dialer.write(b"is anybody there?");
    alone(dialer, &mut now, SILENCE_ASK, true);
    dialer.tick(now);
    let asked = all_of(dialer, now);
    assert!(kinds(&asked).contains(&Kind::Resume), "{asked:?}");
    // All but the question is lost.
    let mut question = Vec::new();
    dialer.say_resume = true;
    dialer.transmit(now, &mut question);
    let listener = &mut pair.sides[1];
    listener.receive(&question, now);
    let answer = all_of(listener, now);
    assert_eq!(kinds(&answer), [Kind::Opened]);
    let dialer = &mut pair.sides[0];
    dialer.receive(&answer, now);
    assert!(dialer.silence.is_none() && dialer.state() == State::Open);
    // Who does not know the connection says so.
    let mut other = Arq::listener(now);
    other.knock_at = None;
    other.receive(&question, now);
    dialer.receive(&all_of(&mut other, now), now);
    assert_eq!(dialer.state(), State::Broken);
}

#[test]
fn a_listener_waits_for_its_dialer_as_long_as_it_takes() {
    let mut pair = opened(13);
    let (listener, mut now) = (&mut pair.sides[1], pair.now);
    listener.write(b"is anybody there?");
    let hour = Duration::from_secs(3600);
    assert_eq!(alone(listener, &mut now, hour, true), hour);
    assert_eq!(listener.state(), State::Open);
}

#[test]
fn a_vm_that_stood_still_does_not_take_that_for_its_peer_s_silence() {
    let mut pair = opened(14);
    pair.sides[0].write(b"before");
    pair.sides[0].tick(pair.now);
    // Suspended, with its clock running on.
    pair.now += Duration::from_secs(7200);
    pair.sides[0].tick(pair.now);
    assert_eq!(pair.sides[0].state(), State::Open);
    // What was on the way then is sent again, and heard.
    while !pair.sides[0].is_idle() {
        pair.step();
    }
    let mut out = [0; 16];
    let count = pair.sides[1].read(&mut out);
    assert_eq!(&out[..count], b"before");
}

#[test]
fn a_reader_that_pauses_for_ever_is_heard_all_the_while() {
    let mut pair = opened(15);
    let text = data(1 << 20, 15);
    let mut written = 0;
    let begun = pair.now;
    while pair.now - begun < SILENCE_MAX * 5 {
        written += pair.sides[0].write(&text[written..]);
        pair.step();
        assert_eq!(pair.sides[0].state(), State::Open);
        let lasted = pair.sides[0].silence.map_or(Duration::ZERO, |s| s.lasted);
        assert!(lasted < SILENCE_MAX / 10, "nothing heard for {lasted:?}");
    }
    assert!(written < text.len() && !pair.sides[0].is_idle());
    // It reads on, and has missed nothing.
    let (mut read, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while read.len() < text.len() {
        written += pair.sides[0].write(&text[written..]);
        pair.step();
        let count = pair.sides[1].read(&mut buffer);
        read.extend_from_slice(&buffer[..count]);
        assert!(
            pair.now - begun < SILENCE_MAX * 6,
            "stuck at {}",
            read.len()
        );
    }
    assert!(read == text);
}

fn faults() -> impl Strategy<Value = Faults> {
    let rate = |worst: u64| prop_oneof![Just(0), worst..2000];
    (rate(80), rate(80), rate(3), rate(3), rate(2)).prop_map(
        |(corrupt, drop, duplicate_chunk, swap_chunks, garbage)| Faults {
            corrupt,
            drop,
            duplicate_chunk,
            swap_chunks,
            garbage,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_line_does_all_of_it_arrives(seed: u64, faults in faults(), len in 0usize..60_000) {
        transfer(seed >> 1, faults, len, Duration::from_secs(600), |_| {});
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_delivered(
        chunks in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(0xa6u8), Just(0x4d), 0u8..9, any::<u8>()], 0..200), 0..20,
        ),
    ) {
        let now = Instant::now();
        for mut arq in [Arq::dialer(name(1), now), Arq::listener(now)] {
            let mut out = Vec::new();
            for chunk in &chunks {
                arq.receive(chunk, now);
                while arq.transmit(now, &mut out) {}
            }
            prop_assert_eq!(arq.readable(), 0);
        }
    }

    /// A peer that computes its checksums well and lies in everything else.
    #[test]
    fn hostile_packets_never_panic_and_keep_bounded(
        packets in proptest::collection::vec(
            (1u8..8, 0u32..600, 0u32..600, any::<u16>(), 0u16..1100, 0u8..20, 0usize..1025), 0..60,
        ),
    ) {
        let now = Instant::now();
        let mut arq = Arq::listener(now);
        let mut out = Vec::new();
        for (kind, sequence, acknowledged, window, total, cell, len) in packets {
            arq.write(&[1; 3000]);
            let kind = [Kind::Open, Kind::Opened, Kind::Data, Kind::Finish, Kind::Ack, Kind::Reset, Kind::Probe]
                [usize::from(kind - 1)];
            let packet = Packet { kind, connection: 9, sequence, acknowledged, window, total, cell };
            let mut bytes = Vec::new();
            Packet { kind: Kind::Open, ..packet }.encode(&[], &mut bytes);
            packet.encode(&vec![0xff; len], &mut bytes);
            arq.receive(&bytes, now);
            arq.tick(now + Duration::from_secs(9));
            while arq.transmit(now, &mut out) {}
        }
        prop_assert!(arq.readable() <= READY_MAX + FRAMES as usize * 1024);
    }
}

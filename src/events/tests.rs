//! The bus as its listeners see it.
use super::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(120);

/// `id kind json` in place of what goes over the wire.
fn encode(id: u64, _: u64, event: &Event<'_>) -> Vec<u8> {
    let text = match event {
        Event::Update { slice, change: Change::Patches(patches) } => {
            format!("{id} patch {} {}", slice.name(), json!(patches))
        }
        Event::Update { slice, change: Change::Value(value) } => {
            format!("{id} value {} {value}", slice.name())
        }
        Event::Status { status, .. } => format!("{id} status {status}"),
        Event::Custom { data } => format!("{id} custom {}", data.text()),
        Event::Action { action, .. } => format!("{id} action {}", action.kind),
    };
    (text + "\n").into_bytes()
}

fn bus(ring: usize) -> Bus {
    Bus::start(BusSettings { ring, streamed: Slices::all(), encode }).unwrap()
}

fn note(bus: &Bus, text: &str) {
    bus.dispatch(&Action::new("NOTE", json!({"text": text})), None);
}

/// The events of a batch as texts.
fn events(bytes: &[u8]) -> impl Iterator<Item = String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// The next events as texts without their numbers.
fn take(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let until = Instant::now() + LONG;
    let mut texts = Vec::new();
    while texts.len() < count {
        assert!(Instant::now() < until, "only {texts:?}");
        match subscription.next(SHORT) {
            Next::Events(bytes, _) => {
                texts.extend(events(&bytes).map(|text| text.split_once(' ').unwrap().1.to_owned()))
            }
            Next::Nothing => {}
            other => panic!("{other:?} after {texts:?}"),
        }
    }
    texts
}

/// A listener that follows the state.
struct Follower {
    subscription: Subscription,
    state: Value,
    events: usize,
}

impl Follower {
    fn new(bus: &Bus) -> Follower {
        let (subscription, start) = bus.subscribe(Stream::State, None);
        let Start::State { state, .. } = start else { panic!("{start:?}") };
        Follower { subscription, state: serde_json::to_value(state.json(Slices::all())).unwrap(), events: 0 }
    }

    fn follow(&mut self, wait: Duration) -> bool {
        let Next::Events(bytes, _) = self.subscription.next(wait) else { return false };
        for text in events(&bytes) {
            let [_, how, slice, json] = text.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
            if how == "patch" {
                patch::apply(&mut self.state[slice], json);
            } else {
                self.state[slice] = serde_json::from_str(json).unwrap();
            }
            self.events += 1;
        }
        true
    }
}

#[test]
fn whoever_follows_has_the_state_in_the_end() {
    let bus = bus(4096);
    let mut followers = [Follower::new(&bus), Follower::new(&bus)];
    let began = Instant::now();
    for n in 0..2000 {
        note(&bus, &"x".repeat(n % 40));
        let state = ["ready", "starting"][n % 2];
        bus.dispatch(&Action::new("SERVER_READY", json!({"pid": n, "state": state})), None);
        let id = json!({"id": n.to_string(), "toolName": "t", "args": {"n": n}});
        bus.dispatch(&Action::new("HITL_APPROVAL_REQUESTED", id), None);
        bus.dispatch(&Action::new("HITL_APPROVAL_GRANTED", json!({"id": (n / 2).to_string()})), None);
        if n % 100 == 0 {
            followers[0].follow(SHORT);
        }
    }
    for follower in &mut followers {
        let until = Instant::now() + LONG;
        let wanted = serde_json::to_value(bus.state().json(Slices::all())).unwrap();
        while follower.state != wanted {
            assert!(Instant::now() < until);
            follower.follow(SHORT);
        }
    }
    let ticks = began.elapsed().as_millis() / 50 + 2;
    assert!(followers[1].events as u128 <= ticks * 3, "three slices, 20 times a second at most");
    bus.close();
}

#[test]
fn each_stream_has_its_own() {
    let bus = bus(16);
    let mut all = Stream::ALL.map(|stream| bus.subscribe(stream, None).0);
    assert_eq!(bus.counts().listeners.iter().sum::<usize>(), 3);
    bus.dispatch(&Action::new("JOURNAL_SEALED", json!({})), None);
    bus.dispatch(&Action::new("EXEC_STARTED", json!({})), None);
    bus.status("started", "x", None, 1);
    bus.custom(&Json::Null, 1);
    let journal = "patch server [{\"op\":\"add\",\"path\":\"/journal\",\"value\":{}}]";
    let [events, state, actions] = &mut all;
    let mut got = take(events, 3);
    got.sort();
    assert_eq!(got, ["custom null", journal, "status started"]);
    assert_eq!(take(state, 1), [journal]);
    assert_eq!(take(actions, 3), ["action EXEC_STARTED", "status started", "custom null"]);
    drop(all);
    assert_eq!(bus.counts().listeners, [0; 3]);
}

#[test]
fn who_comes_back_misses_nothing_or_is_told() {
    let bus = bus(8);
    let (mut first, start) = bus.subscribe(Stream::Actions, None);
    let Start::Fresh { last: begin } = start else { panic!("{start:?}") };
    note(&bus, "1");
    take(&mut first, 1);
    let at = first.at();
    drop(first);
    (2..9).for_each(|n| note(&bus, &n.to_string()));
    let (mut second, start) = bus.subscribe(Stream::Actions, Some(at));
    assert!(matches!(start, Start::Resumed));
    assert_eq!(take(&mut second, 7).len(), 7);
    assert!(matches!(second.next(SHORT), Next::Nothing), "none doubled");
    drop(second);
    note(&bus, "9");
    let is_fresh = |after| {
        let (subscription, start) = bus.subscribe(Stream::Actions, Some(after));
        assert_eq!(matches!(start, Start::Resumed), subscription.at() == after);
        matches!(start, Start::State { .. })
    };
    assert!(is_fresh(begin), "the ring has lost one");
    assert!(!is_fresh(at), "and no more");
    assert!(is_fresh(at + 1000), "of the future");
    assert!(is_fresh(0) && is_fresh(u64::MAX));
}

#[test]
fn nobody_listening_is_a_gap() {
    let bus = bus(8);
    note(&bus, "1");
    let (subscription, _) = bus.subscribe(Stream::Actions, None);
    let at = subscription.at();
    drop(subscription);
    // The other stream was not kept: nobody has ever listened to it.
    note(&bus, "2");
    assert!(matches!(bus.subscribe(Stream::State, Some(at)).1, Start::State { .. }));
    assert!(matches!(bus.subscribe(Stream::Actions, Some(at)).1, Start::Resumed));
}

#[test]
fn what_nobody_kept_is_a_gap_though_it_took_no_number() {
    let missed = |bus: &Bus| {
        bus.dispatch(&Action::new("SERVER_READY", json!({"pid": 1})), None);
        bus.status("started", "x", None, 1);
    };
    for (stream, events) in Stream::ALL.into_iter().zip([2, 1, 2]) {
        let bus = bus(8);
        let is_resumed = |at| matches!(bus.subscribe(stream, Some(at)).1, Start::Resumed);
        let (mut first, _) = bus.subscribe(stream, None);
        missed(&bus);
        take(&mut first, events);
        let at = first.at();
        drop(first);
        assert!(is_resumed(at), "{stream:?}");
        bus.pass_a_minute();
        missed(&bus);
        bus.dispatch(&Action::new("SERVER_READY", json!({"pid": 2})), None);
        assert!(!is_resumed(at), "{stream:?}: the first who comes back");
        assert!(!is_resumed(at), "{stream:?}: and whoever comes after it");
    }
}

#[test]
fn what_one_stream_did_not_keep_is_a_gap_while_another_did() {
    let bus = bus(8);
    let (_state, _) = bus.subscribe(Stream::State, None);
    let at = bus.subscribe(Stream::Actions, None).0.at();
    bus.pass_a_minute();
    // Which changes no slice.
    bus.dispatch(&Action::new("EXEC_STARTED", json!({})), None);
    let (_actions, start) = bus.subscribe(Stream::Actions, Some(at));
    assert!(matches!(start, Start::State { .. }), "{start:?}");
    assert_eq!(bus.counts().events, 0, "a number that marks a gap is no event");
}

#[test]
fn one_who_does_not_take_its_events_is_told_to_go() {
    let bus = bus(4096);
    let (mut slow, _) = bus.subscribe(Stream::Actions, None);
    let (mut other, _) = bus.subscribe(Stream::Actions, None);
    note(&bus, "first");
    take(&mut slow, 1);
    take(&mut other, 1);
    let at = slow.at();
    // While it is busy: what comes is more than its queue, and the other takes it.
    for n in 0..600 {
        note(&bus, &n.to_string());
        if n % 100 == 99 {
            take(&mut other, 100);
        }
    }
    assert!(matches!(slow.next(SHORT), Next::TooSlow));
    drop(slow);
    let (mut again, start) = bus.subscribe(Stream::Actions, Some(at));
    assert!(matches!(start, Start::Resumed));
    assert_eq!(take(&mut again, 600).len(), 600);
    assert!(matches!(again.next(SHORT), Next::Nothing));
}

#[test]
fn a_burst_is_no_slowness() {
    let bus = bus(4096);
    let (mut actions, _) = bus.subscribe(Stream::Actions, None);
    // All at once: in two parts the second would find the first unread.
    let sending = bus.hold_sending();
    (0..3000).for_each(|n| note(&bus, &n.to_string()));
    drop(sending);
    assert_eq!(take(&mut actions, 3000).len(), 3000);
}

#[test]
fn more_than_the_ring_holds_at_once_is_a_gap() {
    let bus = bus(8);
    let (mut actions, _) = bus.subscribe(Stream::Actions, None);
    // Held up, as it were: nobody sends meanwhile.
    let sending = bus.hold_sending();
    (0..20).for_each(|n| note(&bus, &n.to_string()));
    drop(sending);
    assert!(matches!(actions.next(LONG), Next::TooSlow));
}

#[test]
fn what_was_missed_comes_in_pieces_while_the_ring_has_it() {
    let bus = bus(400);
    let (first, start) = bus.subscribe(Stream::Actions, None);
    let Start::Fresh { last: begin } = start else { panic!("{start:?}") };
    let long = "X".repeat(100);
    let flood = |count: usize| {
        for _ in 0..count {
            bus.dispatch(&Action::of(long.clone(), None), None);
        }
    };
    flood(300);
    let (mut second, start) = bus.subscribe(Stream::Actions, Some(begin));
    assert!(matches!(start, Start::Resumed));
    let (mut pieces, mut got) = (0, 0);
    while got < 300 {
        let Next::Events(bytes, last) = second.next(LONG) else { panic!("after {got}") };
        assert!(bytes.len() <= tick::PIECE_BYTES);
        got += events(&bytes).count();
        assert_eq!(last, begin + got as u64);
        pieces += 1;
    }
    assert!(pieces > 2, "{pieces}");
    let (mut slow, start) = bus.subscribe(Stream::Actions, Some(begin));
    assert!(matches!((start, slow.next(LONG)), (Start::Resumed, Next::Events(..))));
    flood(400);
    assert!(matches!(slow.next(LONG), Next::TooSlow), "the ring has lost what it missed");
    drop(first);
}

#[test]
fn what_is_for_others_pushes_nobody_out() {
    let bus = bus(64);
    let (mut waiting, _) = bus.subscribe(Stream::State, None);
    let (actions, _) = bus.subscribe(Stream::Actions, None);
    (0..500).for_each(|_| bus.dispatch(&Action::new("EXEC_STARTED", json!({})), None));
    drop(actions);
    note(&bus, "x");
    assert_eq!(take(&mut waiting, 1).len(), 1);
}

#[test]
fn whoever_joins_in_the_middle_gets_the_rest_once() {
    let bus = bus(4096);
    let (mut first, _) = bus.subscribe(Stream::Actions, None);
    note(&bus, "0");
    take(&mut first, 1);
    // Not sent yet, but in the ring: one who joins now has a number from another stream.
    let sending = bus.hold_sending();
    (1..5).for_each(|n| note(&bus, &n.to_string()));
    let after = first.at() + 2;
    drop(sending);
    let (mut late, start) = bus.subscribe(Stream::Actions, Some(after));
    assert!(matches!(start, Start::Resumed));
    assert_eq!(take(&mut late, 2).len(), 2);
    assert!(matches!(late.next(SHORT), Next::Nothing));
    assert_eq!(take(&mut first, 4).len(), 4);
    assert!(matches!(first.next(SHORT), Next::Nothing));
}

#[test]
fn only_the_chosen_slices_are_sent() {
    let streamed = [Slice::Server].into_iter().collect();
    let bus = Bus::start(BusSettings { ring: 8, streamed, encode }).unwrap();
    let (mut events, _) = bus.subscribe(Stream::Events, None);
    note(&bus, "x");
    bus.dispatch(&Action::new("SERVER_READY", json!({"pid": 1})), None);
    assert!(take(&mut events, 1)[0].starts_with("patch server"));
    assert!(matches!(events.next(SHORT), Next::Nothing));
}

#[test]
fn a_closed_bus_ends_its_streams_and_keeps_its_state() {
    let bus = bus(8);
    let (mut events, _) = bus.subscribe(Stream::Events, None);
    let closer = bus.clone();
    let thread = std::thread::spawn(move || closer.close());
    while !matches!(events.next(LONG), Next::Closed) {}
    thread.join().unwrap();
    note(&bus, "x");
    assert_eq!(bus.state().get(Slice::Agent)["messages"][0]["text"], "x");
    // A client whose stream has just ended comes back at once, and must not hold up our end.
    let (mut late, _) = bus.subscribe(Stream::Actions, None);
    assert!(matches!(late.next(LONG), Next::Closed));
}

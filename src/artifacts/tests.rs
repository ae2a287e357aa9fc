//! One suite for every store; what only one of them has is tested beside it.
use super::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const PLENTY: Caps = Caps { max_rows: 1000, max_bytes: 1 << 30 };
/// Nobody minds how long it takes.
pub(super) const SHORT: Long<'_> = &|| {};
const TTL_MS: u64 = 86_400_000;

/// A clock that stands still until it is told to go on. It starts at the real time, because a store may
/// have a clock of its own for what it forgets by itself.
#[derive(Clone)]
pub(super) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(super) fn new() -> TestClock {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        TestClock(Arc::new(AtomicU64::new(u64::try_from(now).unwrap())))
    }

    fn go(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    fn text(&self, later_ms: u64) -> String {
        let at = UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed) + later_ms);
        crate::base::time::rfc3339(at)
    }

    pub(super) fn ttl(&self) -> Ttl {
        let ms = Arc::clone(&self.0);
        let clock = move || UNIX_EPOCH + Duration::from_millis(ms.load(Ordering::Relaxed));
        Ttl::with_clock(Duration::from_millis(TTL_MS), Arc::new(clock))
    }
}

/// Makes an empty store each time.
type Make<'m> = &'m dyn Fn(Caps) -> Box<dyn Store>;

fn payload(text: &str) -> Payload {
    Payload::new(text.to_owned()).unwrap()
}

fn artifacts(make: Make<'_>, caps: Caps) -> (Artifacts, TestClock) {
    let clock = TestClock::new();
    (Artifacts::new(make(caps), clock.ttl(), Box::new(|_| {})), clock)
}

/// Everything a store must do, whichever it is.
pub(super) fn conform(make: Make<'_>) {
    an_artifact_is_kept_read_replaced_and_deleted(make);
    looking_puts_the_end_off_and_peeking_does_not(make);
    what_has_expired_is_gone(make);
    a_sweep_counts_what_it_removes(make);
    ids_are_compared_byte_for_byte(make);
    payloads_come_back_as_they_went(make);
    caps_hold_and_what_expired_makes_room(make);
    sixteen_at_once_lose_nothing(make);
}

fn an_artifact_is_kept_read_replaced_and_deleted(make: Make<'_>) {
    let (artifacts, clock) = artifacts(make, PLENTY);
    artifacts.check(SHORT).unwrap();
    assert_eq!(artifacts.counts(), Counts::default());
    let made = clock.text(0);
    let Created { id, expires_at } = artifacts.create(payload("one"), SHORT).unwrap();
    assert_eq!(expires_at, clock.text(TTL_MS));
    clock.go(1000);
    let viewed = clock.text(0);
    let row = artifacts.view(&id, SHORT).unwrap().unwrap();
    let wanted = Row {
        id: id.clone(),
        payload: "one".into(),
        created_at: made.clone(),
        updated_at: made.clone(),
        last_viewed_at: viewed.clone(),
        expires_at: clock.text(TTL_MS),
    };
    assert_eq!(row, wanted);
    clock.go(1000);
    let replaced = artifacts.replace(&id, payload("two, longer"), SHORT).unwrap().unwrap();
    let wanted = Row {
        payload: "two, longer".into(),
        updated_at: clock.text(0),
        expires_at: clock.text(TTL_MS),
        ..wanted
    };
    assert_eq!(replaced, wanted);
    assert_eq!(artifacts.peek(&id, SHORT).unwrap().unwrap(), wanted);
    assert_eq!(artifacts.counts(), Counts { rows: 1, bytes: 11 });
    assert!(artifacts.delete(&id, SHORT).unwrap());
    assert!(!artifacts.delete(&id, SHORT).unwrap());
    assert_eq!(artifacts.view(&id, SHORT).unwrap(), None);
    assert_eq!(artifacts.peek(&id, SHORT).unwrap(), None);
    assert_eq!(artifacts.replace(&id, payload("x"), SHORT).unwrap(), None);
    assert_eq!(artifacts.counts(), Counts::default());
}

fn looking_puts_the_end_off_and_peeking_does_not(make: Make<'_>) {
    let (artifacts, clock) = artifacts(make, PLENTY);
    let id = artifacts.create(payload("x"), SHORT).unwrap().id;
    for _ in 0..3 {
        clock.go(TTL_MS - 1);
        assert_eq!(artifacts.view(&id, SHORT).unwrap().unwrap().expires_at, clock.text(TTL_MS));
    }
    clock.go(TTL_MS - 1);
    let peeked = artifacts.peek(&id, SHORT).unwrap().unwrap();
    assert_eq!(peeked.expires_at, clock.text(1));
    assert_eq!(artifacts.peek(&id, SHORT).unwrap().unwrap(), peeked);
    clock.go(1);
    assert_eq!(artifacts.peek(&id, SHORT).unwrap(), None);
    assert_eq!(artifacts.view(&id, SHORT).unwrap(), None);
}

fn what_has_expired_is_gone(make: Make<'_>) {
    let (artifacts, clock) = artifacts(make, PLENTY);
    let ids: Vec<String> = (0..3).map(|_| artifacts.create(payload("xyz"), SHORT).unwrap().id).collect();
    // The very millisecond of the end counts as past it.
    clock.go(TTL_MS);
    assert_eq!(artifacts.counts().rows, 3);
    assert_eq!(artifacts.view(&ids[0], SHORT).unwrap(), None);
    assert_eq!(artifacts.counts(), Counts { rows: 2, bytes: 6 });
    assert_eq!(artifacts.replace(&ids[1], payload("new"), SHORT).unwrap(), None);
    assert_eq!(artifacts.counts(), Counts { rows: 1, bytes: 3 });
    assert!(!artifacts.delete(&ids[0], SHORT).unwrap());
    assert!(artifacts.delete(&ids[2], SHORT).unwrap(), "expired, but still there");
    assert_eq!(artifacts.counts(), Counts::default());
}

fn a_sweep_counts_what_it_removes(make: Make<'_>) {
    let (artifacts, clock) = artifacts(make, Caps { max_rows: 2000, ..PLENTY });
    for _ in 0..1100 {
        artifacts.create(payload("old"), SHORT).unwrap();
    }
    clock.go(TTL_MS / 2);
    let young = artifacts.create(payload("young"), SHORT).unwrap().id;
    assert_eq!(artifacts.sweep(SHORT).unwrap(), 0);
    clock.go(TTL_MS / 2);
    assert_eq!(artifacts.sweep(SHORT).unwrap(), 1100);
    assert_eq!(artifacts.sweep(SHORT).unwrap(), 0);
    assert_eq!(artifacts.counts(), Counts { rows: 1, bytes: 5 });
    assert!(artifacts.view(&young, SHORT).unwrap().is_some());
}

fn ids_are_compared_byte_for_byte(make: Make<'_>) {
    let (artifacts, _) = artifacts(make, PLENTY);
    let id = artifacts.create(payload("x"), SHORT).unwrap().id;
    let others =
        [&id.to_uppercase(), &id[1..], &format!("{id} "), "", "'", "%", "*", "a\0b", "\u{e9}", "../x"];
    for other in others {
        assert_eq!(artifacts.view(other, SHORT).unwrap(), None, "{other}");
        assert_eq!(artifacts.replace(other, payload("y"), SHORT).unwrap(), None, "{other}");
        assert!(!artifacts.delete(other, SHORT).unwrap(), "{other}");
    }
    assert_eq!(&*artifacts.view(&id, SHORT).unwrap().unwrap().payload, "x");
}

fn payloads_come_back_as_they_went(make: Make<'_>) {
    let (artifacts, _) = artifacts(make, PLENTY);
    let odd = "\0 \u{2028} \u{feff} $& $' </script> ' \" \\ \r\n \u{1f600} \u{fffd} \u{10ffff}";
    for text in [odd, "7", "1e400", &"\u{20ac}".repeat(PAYLOAD_CHARS)] {
        let id = artifacts.create(payload(text), SHORT).unwrap().id;
        assert_eq!(&*artifacts.peek(&id, SHORT).unwrap().unwrap().payload, text);
        assert_eq!(&*artifacts.view(&id, SHORT).unwrap().unwrap().payload, text);
        let other = "shorter, or longer";
        assert_eq!(&*artifacts.replace(&id, payload(other), SHORT).unwrap().unwrap().payload, other);
        assert_eq!(&*artifacts.view(&id, SHORT).unwrap().unwrap().payload, other);
    }
}

fn caps_hold_and_what_expired_makes_room(make: Make<'_>) {
    let (rows, clock) = artifacts(make, Caps { max_rows: 2, max_bytes: 1000 });
    let first = rows.create(payload("a"), SHORT).unwrap().id;
    clock.go(1);
    let second = rows.create(payload("b"), SHORT).unwrap().id;
    assert_eq!(rows.create(payload("c"), SHORT), Err(StoreError::Full));
    assert!(rows.delete(&first, SHORT).unwrap());
    rows.create(payload("c"), SHORT).unwrap();
    assert_eq!(rows.create(payload("d"), SHORT), Err(StoreError::Full));
    clock.go(TTL_MS - 1);
    assert_eq!(rows.create(payload("d"), SHORT), Err(StoreError::Full), "one expires only in a millisecond");
    clock.go(1);
    rows.create(payload("d"), SHORT).unwrap();
    assert_eq!(rows.peek(&second, SHORT).unwrap(), None);

    let (bytes, clock) = artifacts(make, Caps { max_rows: 1000, max_bytes: 10 });
    let id = bytes.create(payload("123456"), SHORT).unwrap().id;
    assert_eq!(bytes.create(payload("12345"), SHORT), Err(StoreError::Full));
    assert_eq!(
        bytes.create(payload("\u{20ac}\u{20ac}"), SHORT),
        Err(StoreError::Full),
        "bytes, not characters"
    );
    bytes.create(payload("1234"), SHORT).unwrap();
    assert_eq!(bytes.replace(&id, payload("1234567"), SHORT), Err(StoreError::Full));
    assert_eq!(
        &*bytes.peek(&id, SHORT).unwrap().unwrap().payload,
        "123456",
        "a refused payload changes nothing"
    );
    assert!(bytes.replace(&id, payload("654321"), SHORT).unwrap().is_some());
    assert!(bytes.replace(&id, payload("1"), SHORT).unwrap().is_some());
    bytes.create(payload("12345"), SHORT).unwrap();
    assert_eq!(bytes.counts(), Counts { rows: 3, bytes: 10 });
    clock.go(TTL_MS - 1);
    bytes.view(&id, SHORT).unwrap().unwrap();
    clock.go(1);
    assert!(bytes.replace(&id, payload("1234567890"), SHORT).unwrap().is_some(), "the others have expired");
    assert_eq!(bytes.counts(), Counts { rows: 1, bytes: 10 });
}

fn sixteen_at_once_lose_nothing(make: Make<'_>) {
    let (artifacts, _) = artifacts(make, PLENTY);
    let ids: Vec<String> = std::thread::scope(|scope| {
        let one = |n: usize| {
            let mut kept = Vec::new();
            for round in 0..20 {
                let text = format!("{n} {round}");
                let id = artifacts.create(payload(&text), SHORT).unwrap().id;
                assert_eq!(&*artifacts.view(&id, SHORT).unwrap().unwrap().payload, text);
                let text = format!("{text} again");
                assert_eq!(&*artifacts.replace(&id, payload(&text), SHORT).unwrap().unwrap().payload, text);
                if round % 2 == 0 {
                    assert!(artifacts.delete(&id, SHORT).unwrap());
                    assert_eq!(artifacts.view(&id, SHORT).unwrap(), None);
                } else {
                    kept.push(id);
                }
            }
            kept
        };
        let threads: Vec<_> = (0..16).map(|n| scope.spawn(move || one(n))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 160);
    let bytes = ids.iter().map(|id| artifacts.view(id, SHORT).unwrap().unwrap().payload.len() as u64).sum();
    assert_eq!(artifacts.counts(), Counts { rows: 160, bytes });
}

#[test]
fn memory_conforms() {
    conform(&|caps| Box::new(Memory::new(caps)));
}

#[test]
fn sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU64::new(0);
    conform(&|caps| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        Box::new(Sqlite::open(&folder.path().join(n.to_string()), caps).unwrap())
    });
}

#[test]
fn the_observer_hears_of_changes_and_of_nothing_else() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (sink, clock) = (Arc::clone(&heard), TestClock::new());
    let observer = move |counts: Counts| lock(&sink).push((counts.rows, counts.bytes));
    let artifacts = Artifacts::new(Box::new(Memory::new(PLENTY)), clock.ttl(), Box::new(observer));
    let id = artifacts.create(payload("one"), SHORT).unwrap().id;
    artifacts.view(&id, SHORT).unwrap();
    artifacts.peek(&id, SHORT).unwrap();
    artifacts.view("no", SHORT).unwrap();
    artifacts.replace(&id, payload("two"), SHORT).unwrap();
    artifacts.replace(&id, payload("three"), SHORT).unwrap();
    artifacts.sweep(SHORT).unwrap();
    clock.go(TTL_MS);
    artifacts.view(&id, SHORT).unwrap();
    artifacts.delete(&id, SHORT).unwrap();
    assert_eq!(*lock(&heard), [(1, 3), (1, 5), (0, 0)]);
}

#[test]
fn the_sweeper_sweeps_at_its_start_and_then_again_and_ends() {
    let clock = TestClock::new();
    let (told, counts) = crossbeam_channel::unbounded();
    let observer = move |counts: Counts| told.send(counts.rows).unwrap();
    let artifacts = Arc::new(Artifacts::new(Box::new(Memory::new(PLENTY)), clock.ttl(), Box::new(observer)));
    let next = || counts.recv_timeout(Duration::from_secs(30)).unwrap();
    artifacts.create(payload("x"), SHORT).unwrap();
    assert_eq!(next(), 1);
    clock.go(TTL_MS);
    let sweeper = Sweeper::start(Arc::clone(&artifacts), SWEEP_EVERY).unwrap();
    assert_eq!(next(), 0, "at the start");
    drop(sweeper);
    let sweeper = Sweeper::start(Arc::clone(&artifacts), Duration::from_millis(5)).unwrap();
    for _ in 0..3 {
        artifacts.create(payload("x"), SHORT).unwrap();
        assert_eq!(next(), 1);
        clock.go(TTL_MS);
        assert_eq!(next(), 0, "and again");
    }
    drop(sweeper);
    assert_eq!(Arc::strong_count(&artifacts), 1, "the thread has ended");
}

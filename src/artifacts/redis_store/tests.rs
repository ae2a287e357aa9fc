//! The store over a Redis, where the tests were given one, and over one that is played.
use super::*;
use crate::artifacts::tests::{PLENTY, SHORT, TestClock, conform};
use crate::artifacts::{Artifacts, Payload};
use crate::base::random::uuid_v4;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An own set of keys at the address the tests were given; none without one.
fn store(caps: Caps) -> Option<Redis> {
    let url = std::env::var("ARTIFACT_REDIS").ok()?;
    Some(Redis { tag: format!("test-{}", uuid_v4().unwrap()), ..Redis::new(url, caps) })
}

fn skip() {
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    {
        eprintln!("skipped: ARTIFACT_REDIS names no Redis");
    }
}

#[test]
fn redis_conforms() {
    match store(PLENTY) {
        Some(_) => conform(&|caps| Box::new(store(caps).unwrap())),
        None => skip(),
    }
}

#[test]
fn redis_forgets_by_itself_and_counts_come_right_again() {
    let Some(store) = store(PLENTY) else { return skip() };
    let clock = TestClock::new();
    let moment = clock.ttl().moment();
    let ends_soon = || Moment::between(moment.now_ms(), moment.now_ms() + 20);
    store.insert("a", "xyz".into(), &ends_soon(), SHORT).unwrap();
    let exists = || {
        let mut command = cmd("EXISTS");
        command.arg(format!("{}a", store.start()));
        store.ask::<u64>(&command).unwrap()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while exists() == 1 {
        assert!(std::time::Instant::now() < deadline, "it stays");
    }
    assert_eq!(store.view("a", &moment, SHORT).unwrap(), None);
    assert_eq!(store.counts(), Counts::default());
    store.insert("a", "xyz".into(), &ends_soon(), SHORT).unwrap();
    while exists() == 1 {
        assert!(std::time::Instant::now() < deadline, "it stays");
    }
    assert_eq!(store.counts().rows, 1, "known until it is swept");
    let later = Moment::between(moment.now_ms() + 1000, moment.now_ms() + 2000);
    assert_eq!(store.sweep(&later, SHORT).unwrap(), 1);
    assert_eq!(store.counts(), Counts::default());
}

#[test]
fn an_insert_whose_answer_was_lost_may_be_repeated() {
    let Some(store) = store(PLENTY) else { return skip() };
    let moment = TestClock::new().ttl().moment();
    for _ in 0..2 {
        store.insert("a", "xyz".into(), &moment, SHORT).unwrap();
        assert_eq!(store.counts(), Counts { rows: 1, bytes: 3 });
    }
}

/// What a script that stores answers.
const STORED: &str = "*3\r\n:1\r\n:1\r\n:1";

/// Plays a Redis that answers scripts with these, one after the other; its address, and the number of
/// connections that were made.
fn played(answers: &[&str]) -> (String, Arc<AtomicUsize>) {
    played_with("+cluster_enabled:0", answers)
}

fn played_with(facts: &'static str, answers: &[&str]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let port = listener.local_addr().unwrap().port();
    let left: VecDeque<String> = answers.iter().map(ToString::to_string).collect();
    let (left, made) = (Arc::new(Mutex::new(left)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&made);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let left = Arc::clone(&left);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(name) = command(&mut stream) {
                    let answer = match &*name {
                        "EVAL" => lock(&left).pop_front().unwrap(),
                        "INFO" => facts.to_owned(),
                        // It has all the slots there are.
                        "CLUSTER" => {
                            let node = format!("*2\r\n$9\r\n127.0.0.1\r\n:{port}");
                            format!("*1\r\n*3\r\n:0\r\n:16383\r\n{node}")
                        }
                        _ => "+OK".to_owned(),
                    };
                    stream.get_mut().write_all(format!("{answer}\r\n").as_bytes()).unwrap();
                }
            });
        }
    });
    (url, made)
}

/// The name of the next command; none at the end.
fn command(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let mut number = |stream: &mut BufReader<TcpStream>| {
        line.clear();
        stream.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse::<usize>().ok()
    };
    let mut words = Vec::new();
    for _ in 0..number(stream)? {
        let mut word = vec![0; number(stream)? + 2];
        stream.read_exact(&mut word).ok()?;
        words.push(word);
    }
    Some(String::from_utf8_lossy(words.first()?).trim_end().to_owned())
}

#[test]
fn a_kept_connection_to_what_became_a_replica_is_given_up() {
    let moment = TestClock::new().ttl().moment();
    for refusal in [
        "-READONLY You can't write against a read only replica. script: f, on @user_script:1.",
        "-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.",
        "-@user_script: 1: -READONLY You can't write against a read only replica.",
    ] {
        let (url, made) = played(&[STORED, refusal, STORED, refusal, refusal, STORED]);
        let store = Redis::new(url, PLENTY);
        for connections in [1, 2] {
            assert_eq!(store.insert("a", "x".into(), &moment, SHORT), Ok(()), "{refusal}");
            assert_eq!(made.load(Ordering::Relaxed), connections, "{refusal}");
        }
        // Where the name still leads there, it passes.
        let error = store.insert("a", "x".into(), &moment, SHORT).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert_eq!(store.insert("a", "x".into(), &moment, SHORT), Ok(()), "{refusal}");
        assert_eq!(made.load(Ordering::Relaxed), 4, "{refusal}");
    }
}

#[test]
fn a_cluster_that_is_down_is_asked_again_a_few_times() {
    let moment = TestClock::new().ttl().moment();
    let down = "-CLUSTERDOWN The cluster is down";
    let (url, _) = played_with("+cluster_enabled:1", &[down, down, STORED, down, down, down, down, STORED]);
    let store = Redis::new(url, PLENTY);
    assert_eq!(store.insert("a", "x".into(), &moment, SHORT), Ok(()));
    let error = store.insert("a", "x".into(), &moment, SHORT).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(store.insert("a", "x".into(), &moment, SHORT), Ok(()));
}

#[test]
fn a_redis_without_memory_is_full_and_stays_connected() {
    let moment = TestClock::new().ttl().moment();
    let (url, made) = played(&[
        "-OOM command not allowed when used memory > 'maxmemory'.",
        "-ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed when used memory > 'maxmemory'.",
        "-ERR OOM is what this text speaks of",
    ]);
    let store = Redis::new(url, PLENTY);
    for _ in 0..2 {
        assert_eq!(store.insert("a", "x".into(), &moment, SHORT), Err(StoreError::Full));
    }
    assert!(matches!(store.insert("a", "x".into(), &moment, SHORT), Err(StoreError::Failed(_))));
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[test]
fn nobody_at_the_address_is_an_error_that_passes() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://:hush@{}", silent.local_addr().unwrap());
    drop(silent);
    assert!(Redis::understands(&url));
    let store = Redis::new(url, PLENTY);
    assert!(!format!("{store:?}").contains("hush"));
    let artifacts = Artifacts::new(Box::new(store), TestClock::new().ttl(), Box::new(|_| {}));
    let error = artifacts.create(Payload::new("x".to_owned()).unwrap(), SHORT).unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if !why.contains("hush")), "{error}");
    assert!(matches!(artifacts.check(SHORT), Err(StoreError::Unavailable(_))));
}

//! The front with services of the test's own: what no request from outside can provoke.
use super::limits::{QUEUE, QUEUE_CROWD};
use super::{Exchange, HttpError, Limits, Response, Role, Served, Server, Service, Stats, bind};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A gate that requests wait at without telling anybody.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[derive(Default)]
struct Scripted {
    gate: Gate,
    at_gate: AtomicUsize,
    ready: AtomicBool,
    tries: AtomicUsize,
    /// The paths of all requests in the order in which they had a thread.
    order: Mutex<Vec<Vec<u8>>>,
}

impl Scripted {
    /// How many requests had a thread.
    fn count(&self) -> usize {
        self.order.lock().unwrap().len()
    }
}

impl Service for Scripted {
    fn serve(&self, exchange: &mut Exchange<'_>) -> Result<Served, HttpError> {
        self.order.lock().unwrap().push(exchange.head().path().to_vec());
        match exchange.head().path() {
            b"/panic" => panic!("a test's panic"),
            b"/panic-in-body" => {
                let mut writer = exchange.begin(200).body(None);
                writer.write(b"half").unwrap();
                panic!("a test's panic");
            }
            b"/gate" => {
                self.at_gate.fetch_add(1, Ordering::Relaxed);
                self.gate.pass();
            }
            b"/hold" if !self.ready.load(Ordering::Relaxed) => {
                self.tries.fetch_add(1, Ordering::Relaxed);
                if exchange.held_since().is_none_or(|since| since.elapsed() < Duration::from_secs(10)) {
                    return Ok(Served::Hold(Duration::from_secs(10)));
                }
            }
            _ => {}
        }
        exchange.respond(Response::bytes(200, "text/plain", "fine"))?;
        Ok(Served::Done)
    }

    fn is_control(&self, _: Role, target: &[u8]) -> bool {
        target.starts_with(b"/control")
    }

    fn can_resume(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

fn start(limits: Limits) -> (Server, Arc<Scripted>, SocketAddr) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::new(Scripted::default());
    let served: Arc<dyn Service> = Arc::<Scripted>::clone(&service);
    let server =
        Server::start(vec![(listener, Role::Public)], served, limits, Arc::new(Stats::default())).unwrap();
    (server, service, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
}

/// Everything up to the end of the connection; `Err` when it was reset.
fn rest(stream: &mut TcpStream) -> Result<String, String> {
    let mut bytes = Vec::new();
    let result = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if result.is_ok() { Ok(text) } else { Err(text) }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = connect(address);
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    rest(&mut stream).unwrap()
}

#[test]
fn a_panic_is_answered_counted_and_costs_one_connection() {
    let (server, _, address) = start(Limits { threads_max: 4, ..Limits::default() });
    for n in 1..=20 {
        let mut stream = connect(address);
        ask(&mut stream, "/panic");
        ask(&mut stream, "/");
        let answer = rest(&mut stream).unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("\"internal\"") && !answer.contains("a test's panic"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert_eq!(server.stats().panics.load(Ordering::Relaxed), n);
    }
    assert!(get(address, "/").ends_with("fine"));
    let mut stream = connect(address);
    ask(&mut stream, "/panic-in-body");
    let cut = rest(&mut stream);
    assert!(cut.as_ref().is_err_and(|text| text.is_empty() || text.contains("half")), "{cut:?}");
    eventually("every place is given back", || server.stats().connections.load(Ordering::Relaxed) == 0);
    assert_eq!(server.stats().threads.load(Ordering::Relaxed), 5, "4 and one for control");
}

/// Whether the process may have this many descriptors, after asking for them.
fn may_open(descriptors: u64) -> bool {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    soft >= descriptors
        || setrlimit(Resource::RLIMIT_NOFILE, hard.min(descriptors), hard).is_ok_and(|()| hard >= descriptors)
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn a_full_queue_refuses_and_has_room_again() {
    if !may_open(8192) {
        eprintln!("skipped: needs 8192 descriptors (ulimit -Hn)");
        return;
    }
    let (server, service, address) = start(Limits { threads_min: 1, threads_max: 1, ..Limits::default() });
    let mut waiting: Vec<TcpStream> = Vec::new();
    for _ in 0..=QUEUE {
        let mut stream = connect(address);
        ask(&mut stream, "/gate");
        waiting.push(stream);
        if waiting.len() == 1 {
            eventually("the thread is taken", || service.at_gate.load(Ordering::Relaxed) == 1);
        }
    }
    eventually("all are accepted", || server.stats().accepted.load(Ordering::Relaxed) == QUEUE as u64 + 1);
    let refused = get(address, "/");
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(get(address, "/control").ends_with("fine"), "control has its own");
    service.gate.open();
    for mut stream in waiting {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert!(get(address, "/").ends_with("fine"));
}

#[test]
fn who_was_served_before_does_not_wait_behind_a_crowd() {
    let (server, service, address) = start(Limits { threads_min: 1, threads_max: 1, ..Limits::default() });
    let (mut known, mut control) = (connect(address), connect(address));
    // Not one answer only: a write on a busy machine may take as long as one that waits for its client.
    for served in 1..=5 {
        ask(&mut known, "/");
        eventually("it is served", || {
            server.stats().in_flight.load(Ordering::Relaxed) == 0 && service.count() == served
        });
    }
    let mut gate = connect(address);
    ask(&mut gate, "/gate");
    eventually("the thread is taken", || service.at_gate.load(Ordering::Relaxed) == 1);
    let mut crowd: Vec<TcpStream> = (0..2 * QUEUE_CROWD).map(|_| connect(address)).collect();
    for (n, stream) in crowd.iter_mut().enumerate() {
        ask(stream, "/crowd");
        // Neither the oldest nor the newest.
        if n == QUEUE_CROWD {
            ask(&mut known, "/known");
        }
    }
    // The listener thread hears of both in this order, and of a connection that is new perhaps before.
    ask(&mut control, "/control");
    let mut answer = [0; 12];
    control.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    service.gate.open();
    eventually("all are served", || service.count() == 8 + crowd.len());
    let order = service.order.lock().unwrap();
    let served = order.iter().position(|path| path == b"/known").unwrap();
    assert!(order[..served].iter().filter(|path| *path == b"/crowd").count() <= 1, "{served}");
}

#[test]
fn held_requests_take_no_thread_and_are_served_on_resume() {
    let (server, service, address) = start(Limits { threads_min: 1, threads_max: 1, ..Limits::default() });
    let mut held: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    for stream in &mut held {
        ask(stream, "/hold");
    }
    eventually("all are held", || server.stats().held.load(Ordering::Relaxed) == 50);
    assert!(get(address, "/").ends_with("fine"));
    held.truncate(40);
    eventually("those who left are forgotten", || server.stats().held.load(Ordering::Relaxed) == 40);
    let tries = service.tries.load(Ordering::Relaxed);
    service.ready.store(true, Ordering::Relaxed);
    server.resume().resume();
    for stream in &mut held {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert_eq!(server.stats().held.load(Ordering::Relaxed), 0);
    assert_eq!(tries, 50, "nobody was tried in vain meanwhile");
}

#[test]
fn draining_serves_what_has_arrived_and_ends_what_is_silent() {
    let (server, service, address) = start(Limits::default());
    let mut idle = connect(address);
    ask(&mut idle, "/");
    let mut silent = connect(address);
    let mut begun = connect(address);
    begun.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut held = connect(address);
    ask(&mut held, "/hold");
    eventually("it is held", || server.stats().held.load(Ordering::Relaxed) == 1);
    let mut busy = connect(address);
    ask(&mut busy, "/gate");
    eventually("all are known", || {
        server.stats().accepted.load(Ordering::Relaxed) == 5 && service.at_gate.load(Ordering::Relaxed) == 1
    });
    let drained = std::thread::scope(|scope| {
        let drain = scope.spawn(|| server.drain(PATIENCE));
        assert_eq!(rest(&mut silent).unwrap(), "");
        assert!(rest(&mut idle).unwrap().ends_with("fine"));
        let refused = rest(&mut held).unwrap();
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("shutting_down"), "{refused}");
        begun.write_all(b"Host: h\r\n\r\n").unwrap();
        let late = rest(&mut begun).unwrap();
        assert!(late.contains("connection: close\r\n") && late.ends_with("fine"), "{late}");
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
        service.gate.open();
        assert!(rest(&mut busy).unwrap().ends_with("fine"));
        drop((silent, idle, held, begun, busy));
        drain.join().unwrap()
    });
    assert!(drained);
}

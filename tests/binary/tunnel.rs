//! What the tests of upgrades share: both ends of a tunnel, its bytes, and what it costs.
use super::client::Client;
use super::{Server, Wire};
use std::net::TcpListener;
use std::time::Duration;

/// Asks for a tunnel.
pub const UPGRADE: &str = "GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// Agrees to it.
pub const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// A tunnel, its client's end and the wrapped server's.
pub fn open(server: &Server, listener: &TcpListener) -> (Client, Wire) {
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    let mut wire = Wire::accept(listener);
    wire.head().unwrap();
    wire.write(SWITCH.as_bytes());
    assert_eq!(client.take_through("\r\n\r\n"), SWITCH);
    (client, wire)
}

/// A tunnel to a server that echoes.
pub fn open_echo(server: &Server) -> Client {
    let mut client = Client::new(server.address);
    client.send(UPGRADE);
    assert_eq!(client.take_through("\r\n\r\n"), SWITCH);
    client.send("ping");
    assert_eq!(client.take(4), b"ping");
    client
}

/// Bytes that repeat late and begin differently for each seed.
pub fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Processor time the server took so far.
pub fn cpu_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Threads the server has.
pub fn threads(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().count()
}

/// Processor time it takes while nothing arrives at `client` for this long.
pub fn cpu_time_in_silence(server: &Server, client: &Client, silence: Duration) -> Duration {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let before = cpu_time(server);
    let mut polled = [PollFd::new(client.stream.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::try_from(silence).unwrap()), Ok(0), "it is not silent");
    cpu_time(server) - before
}

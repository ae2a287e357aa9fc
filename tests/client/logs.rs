//! `logs`: what was written and what is being written, none of it lost or told twice.

use crate::binary::{Server, eventually, unused_port};
use crate::ctl::{Running, command, command_for, finish};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Carries connections to `to`, and cuts the response of each after some thousand bytes, as often as told.
fn cutting_proxy(to: SocketAddr, cuts: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let left = Arc::new(AtomicUsize::new(cuts));
    let cut = Arc::clone(&left);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(to).unwrap());
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Write);
            });
            carry(&server, &client, &cut);
        }
    });
    (url, left)
}

fn carry(mut from: &TcpStream, mut into: &TcpStream, cut: &AtomicUsize) {
    let mut carried = 0;
    let mut piece = [0; 700];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if into.write_all(&piece[..count]).is_err() {
            return;
        }
        carried += count;
        if carried > 3000 && cut.load(Ordering::SeqCst) > 0 {
            cut.fetch_sub(1, Ordering::SeqCst);
            let _ = into.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

#[test]
fn a_follower_loses_nothing_over_lost_connections() {
    let script =
        "sh -c 'n=0; while [ $n -lt 400 ]; do echo line $n; n=$((n+1)); sleep 0.002; done; exec sleep 1000'";
    let server = Server::start(script, unused_port(), &[]);
    let (url, cuts) = cutting_proxy(server.address, 5);
    let follower = Running::start(&mut command(&["--url", &url, "logs", "-f", "--json"]));
    eventually("the last line", || follower.out().contains("line 399"));
    assert_eq!(cuts.load(Ordering::SeqCst), 0, "it was cut as often as planned");
    let lines: Vec<Value> = follower.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<u64> = lines.iter().map(|line| line["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
    let written: Vec<&str> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    let written: Vec<&&str> = written.iter().filter(|text| text.starts_with("line ")).collect();
    assert_eq!(written.len(), 400);
    assert_eq!(follower.err().matches("trying again").count(), 5, "{}", follower.err());
    follower.signal(Signal::SIGINT);
}

#[test]
fn a_tail_of_one_stream_is_shown_as_text_or_json() {
    let script = "sh -c 'echo one; echo two; echo bad >&2; exec sleep 1000'";
    let server = Server::start(script, unused_port(), &[]);
    let ctl = |words: &[&str]| finish(&mut command_for(&server, "", words));
    eventually("it wrote", || ctl(&["logs"]).out.contains("bad"));
    eventually("it wrote", || ctl(&["logs"]).out.contains("two"));
    assert_eq!(ctl(&["logs", "--stream", "stdout"]).ok(), "one\ntwo\n");
    assert_eq!(ctl(&["logs", "--tail", "1", "--stream", "stdout"]).ok(), "two\n");
    let said = ctl(&["logs", "--stream=stderr", "--json"]);
    let line: Value = serde_json::from_str(said.ok()).unwrap();
    assert_eq!((&line["text"], &line["stream"]), (&"bad".into(), &"stderr".into()));
    assert!(ctl(&["logs", "--stream", "system"]).ok().starts_with("started process "));
    // Who reads only the beginning ends it, quietly.
    let mut follower = Running::start(&mut command_for(&server, "", &["logs", "-f", "--tail", "1"]));
    eventually("it follows", || !follower.out().is_empty());
    follower.signal(Signal::SIGTERM);
    assert_eq!(follower.wait(), None);
}

#[test]
fn a_server_that_was_never_there_is_not_waited_for() {
    let nobody = format!("http://127.0.0.1:{}", unused_port());
    finish(&mut command(&["--url", &nobody, "logs", "-f"])).failed(3, &["refused"]);
    let server = Server::start_with("sleep 1000", unused_port(), &[], |binary| {
        binary.env("FRAG_TOKEN", "x");
    });
    finish(&mut command_for(&server, "y", &["logs", "-f"])).failed(1, &["401"]);
}

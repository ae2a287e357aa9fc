//! Workers whose leader has gone. Alone in its binary: the end of any other supervisor in the process
//! takes everything adopted along, these workers too.
#![allow(clippy::unwrap_used)]
mod common;

use std::time::Duration;

use common::{eventually, ready, script, texts};
use simple_artifact_server::supervisor::Spec;

#[test]
fn workers_get_the_grace_as_well_and_then_the_same_end() {
    let worker = "(trap 'echo cleaned; exit' TERM; echo up; while :; do sleep 0.01; done) &
                  exec $F listen $PORT";
    let supervisor = ready(script(worker));
    eventually("the worker is up", || texts(&supervisor).contains(&"up".to_owned()));
    assert_eq!(supervisor.stop(), Ok(()));
    assert!(texts(&supervisor).contains(&"cleaned".to_owned()), "{:?}", texts(&supervisor));

    drop(supervisor);
    let deaf = script("(trap '' TERM; echo $$; exec sleep 600) & echo worker $!; exec $F listen $PORT");
    let supervisor = ready(Spec { stop_grace: Duration::from_millis(50), ..deaf });
    eventually("the worker is known", || texts(&supervisor).iter().any(|l| l.starts_with("worker ")));
    let line = texts(&supervisor).into_iter().find(|l| l.starts_with("worker ")).unwrap();
    assert_eq!(supervisor.stop(), Ok(()));
    assert_eq!(common::stat(line["worker ".len()..].parse().unwrap()), None);
}

//! What handles ask of the watcher. Private to the supervisor.
use crossbeam_channel::Sender;

use super::status::ControlError;

pub(super) type Reply = Result<(), ControlError>;

pub(super) enum Message {
    Restart(Sender<Reply>),
    Start(Sender<Reply>),
    Stop(Sender<Reply>),
    Shutdown(Sender<Reply>),
    /// An upload.
    Changed,
    /// The last request has left while draining.
    Drained,
    /// This generation refused a connection.
    Dead(u64),
}

/// Answers everybody in `waiters` alike.
pub(super) fn answer(waiters: &mut Vec<Sender<Reply>>, reply: &Reply) {
    for waiter in waiters.drain(..) {
        let _ = waiter.send(reply.clone());
    }
}

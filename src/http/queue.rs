//! What waits for a thread: first come, first served, as long as few wait. In a crowd every other turn is
//! the newest's: who comes after a burst does not wait behind all of it, and the oldest move on, too.
use super::limits::{QUEUE, QUEUE_CROWD};
use crate::base::lock::lock;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

pub(super) struct Queue<T> {
    line: Mutex<Line<T>>,
    /// One for each in the line, told after it stands there: never more than there are.
    told: Sender<()>,
    news: Receiver<()>,
}

struct Line<T> {
    waiting: VecDeque<T>,
    newest_next: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        let (told, news) = bounded(QUEUE);
        // Its memory is used when it first fills, and is not moved then.
        let line = Line { waiting: VecDeque::with_capacity(QUEUE), newest_next: false };
        Queue { line: Mutex::new(line), told, news }
    }

    /// Adds one, or gives it back when [`QUEUE`] wait.
    pub(super) fn push(&self, one: T) -> Result<(), T> {
        let mut line = lock(&self.line);
        if line.waiting.len() >= QUEUE {
            return Err(one);
        }
        line.waiting.push_back(one);
        drop(line);
        // We have the other end.
        let _ = self.told.send(());
        Ok(())
    }

    /// Waits for the next one, for this long at most.
    pub(super) fn next(&self, wait: Duration) -> Result<T, RecvTimeoutError> {
        loop {
            self.news.recv_timeout(wait)?;
            if let Some(one) = lock(&self.line).next() {
                return Ok(one);
            }
        }
    }

    /// Whether it takes another one.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.line).waiting.len() < QUEUE
    }
}

impl<T> Line<T> {
    fn next(&mut self) -> Option<T> {
        let newest = self.newest_next && self.waiting.len() > QUEUE_CROWD;
        self.newest_next = !newest;
        if newest { self.waiting.pop_back() } else { self.waiting.pop_front() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &Queue<usize>, count: usize) -> Vec<usize> {
        (0..count).map(|_| queue.next(Duration::ZERO).unwrap()).collect()
    }

    #[test]
    fn few_are_served_as_they_came() {
        let queue = Queue::new();
        (0..QUEUE_CROWD).for_each(|n| queue.push(n).unwrap());
        assert_eq!(take(&queue, QUEUE_CROWD), Vec::from_iter(0..QUEUE_CROWD));
    }

    #[test]
    fn in_a_crowd_the_newest_and_the_oldest_take_turns() {
        let queue = Queue::new();
        (0..QUEUE).for_each(|n| queue.push(n).unwrap());
        assert_eq!((queue.push(0), queue.has_room()), (Err(0), false));
        assert_eq!(take(&queue, 4), [0, QUEUE - 1, 1, QUEUE - 2]);
        queue.push(9999).unwrap();
        assert_eq!(take(&queue, 4), [2, 9999, 3, QUEUE - 3]);
        // All of them come, and once they are few in the order in which they came.
        let rest = take(&queue, QUEUE - 7);
        assert!(rest[rest.len() - QUEUE_CROWD..].is_sorted());
        assert_eq!(rest.iter().collect::<std::collections::HashSet<_>>().len(), rest.len());
        assert!(queue.has_room());
    }
}

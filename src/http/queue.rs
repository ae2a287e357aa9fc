//! What waits for a thread: first come, first served, as long as few wait. In a crowd every other turn is of
//! those who are known, and every other of the rest is the newest's: who comes after a burst does not wait behind
//! all of it, and the oldest move on, too.
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

/// Those who wait, each with its number in the order in which all came.
struct Line<T> {
    known: VecDeque<(u64, T)>,
    strangers: VecDeque<(u64, T)>,
    came: u64,
    known_next: bool,
    newest_next: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        let (told, news) = bounded(QUEUE);
        Queue { line: Mutex::new(Line::new()), told, news }
    }

    /// Adds one, or gives it back when [`QUEUE`] wait. `known` is who was served well before.
    pub(super) fn push(&self, one: T, known: bool) -> Result<(), T> {
        let mut line = lock(&self.line);
        if line.len() >= QUEUE {
            return Err(one);
        }
        line.push(one, known);
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
        lock(&self.line).len() < QUEUE
    }
}

impl<T> Line<T> {
    fn new() -> Line<T> {
        // Their memory is used when they first fill, and is not moved then.
        let [known, strangers] = [(); 2].map(|()| VecDeque::with_capacity(QUEUE));
        Line { known, strangers, came: 0, known_next: false, newest_next: false }
    }

    fn len(&self) -> usize {
        self.known.len() + self.strangers.len()
    }

    fn push(&mut self, one: T, known: bool) {
        self.came += 1;
        let line = if known { &mut self.known } else { &mut self.strangers };
        line.push_back((self.came, one));
    }

    fn next(&mut self) -> Option<T> {
        let first = |line: &VecDeque<(u64, T)>| line.front().map_or(u64::MAX, |(number, _)| *number);
        let next = if self.len() <= QUEUE_CROWD {
            let known = first(&self.known) < first(&self.strangers);
            if known { self.known.pop_front() } else { self.strangers.pop_front() }
        } else {
            self.known_next = !self.known_next && !self.known.is_empty();
            if self.known_next || self.strangers.is_empty() {
                self.known.pop_front()
            } else {
                self.newest_next = !self.newest_next;
                if self.newest_next { self.strangers.pop_back() } else { self.strangers.pop_front() }
            }
        };
        next.map(|(_, one)| one)
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
        (0..QUEUE_CROWD).for_each(|n| queue.push(n, n % 3 == 1).unwrap());
        assert_eq!(take(&queue, QUEUE_CROWD), Vec::from_iter(0..QUEUE_CROWD));
    }

    #[test]
    fn in_a_crowd_the_newest_and_the_oldest_take_turns() {
        let queue = Queue::new();
        (0..QUEUE).for_each(|n| queue.push(n, false).unwrap());
        assert_eq!((queue.push(0, false), queue.push(0, true), queue.has_room()), (Err(0), Err(0), false));
        assert_eq!(take(&queue, 4), [QUEUE - 1, 0, QUEUE - 2, 1]);
        queue.push(9999, false).unwrap();
        assert_eq!(take(&queue, 4), [9999, 2, QUEUE - 3, 3]);
        // All of them come, and once they are few in the order in which they came.
        let rest = take(&queue, QUEUE - 7);
        assert!(rest[rest.len() - QUEUE_CROWD..].is_sorted());
        assert_eq!(rest.iter().collect::<std::collections::HashSet<_>>().len(), rest.len());
        assert!(queue.has_room());
    }

    #[test]
    fn in_a_crowd_every_other_turn_is_of_those_who_are_known() {
        let queue = Queue::new();
        (0..QUEUE / 2).for_each(|n| queue.push(n, false).unwrap());
        (1000..1003).for_each(|n| queue.push(n, true).unwrap());
        let newest = QUEUE / 2 - 1;
        assert_eq!(take(&queue, 8), [1000, newest, 1001, 0, 1002, newest - 1, 1, newest - 2]);
        queue.push(1003, true).unwrap();
        assert_eq!(take(&queue, 2), [1003, 2]);
        let queue = Queue::new();
        (0..QUEUE).for_each(|n| queue.push(n, true).unwrap());
        assert_eq!(take(&queue, QUEUE), Vec::from_iter(0..QUEUE), "nobody is a stranger");
    }
}

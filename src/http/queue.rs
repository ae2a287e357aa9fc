//! What waits for a thread: first come, first served, as long as few wait. In a crowd those who are known
//! and the others have every other turn; of each the newest has three turns and the oldest the fourth: who comes
//! after a burst does not wait behind all of it, and the oldest move on, too.
use super::limits::{QUEUE, QUEUE_CROWD};
use crate::base::lock::lock;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

/// In a crowd, which turn of each side is that of its oldest.
const OLDEST_TURN: usize = 4;

pub(super) struct Queue<T> {
    line: Mutex<Line<T>>,
    /// One for each in the line, told after it stands there: never more than there are.
    told: Sender<()>,
    news: Receiver<()>,
}

struct Line<T> {
    known: Side<T>,
    strangers: Side<T>,
    came: u64,
    known_next: bool,
}

/// One kind of those who wait, each with its number in the order in which all came.
struct Side<T> {
    waiting: VecDeque<(u64, T)>,
    turns: usize,
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
        Line { known: Side::new(), strangers: Side::new(), came: 0, known_next: false }
    }

    fn len(&self) -> usize {
        self.known.waiting.len() + self.strangers.waiting.len()
    }

    fn push(&mut self, one: T, known: bool) {
        self.came += 1;
        let side = if known { &mut self.known } else { &mut self.strangers };
        side.waiting.push_back((self.came, one));
    }

    fn next(&mut self) -> Option<T> {
        let crowd = self.len() > QUEUE_CROWD;
        let known = if crowd {
            self.known_next = !self.known_next;
            self.strangers.waiting.is_empty() || (self.known_next && !self.known.waiting.is_empty())
        } else {
            self.known.oldest() < self.strangers.oldest()
        };
        if known { self.known.next(crowd) } else { self.strangers.next(crowd) }
    }
}

impl<T> Side<T> {
    fn new() -> Side<T> {
        Side { waiting: VecDeque::with_capacity(QUEUE), turns: 0 }
    }

    /// The number of who came first.
    fn oldest(&self) -> u64 {
        self.waiting.front().map_or(u64::MAX, |(number, _)| *number)
    }

    fn next(&mut self, crowd: bool) -> Option<T> {
        self.turns = self.turns.wrapping_add(1);
        let next = if crowd && !self.turns.is_multiple_of(OLDEST_TURN) {
            self.waiting.pop_back()
        } else {
            self.waiting.pop_front()
        };
        if self.waiting.is_empty() {
            // Begins at the front of its memory again: few touch little of it.
            self.waiting.clear();
        }
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
    fn in_a_crowd_the_oldest_have_every_fourth_turn() {
        let queue = Queue::new();
        (0..QUEUE).for_each(|n| queue.push(n, false).unwrap());
        assert_eq!((queue.push(0, false), queue.push(0, true), queue.has_room()), (Err(0), Err(0), false));
        assert_eq!(take(&queue, 5), [QUEUE - 1, QUEUE - 2, QUEUE - 3, 0, QUEUE - 4]);
        queue.push(9999, false).unwrap();
        assert_eq!(take(&queue, 3), [9999, QUEUE - 5, 1]);
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
        assert_eq!(take(&queue, 8), [1002, newest, 1001, newest - 1, 1000, newest - 2, 0, newest - 3]);
        let queue = Queue::new();
        (0..QUEUE).for_each(|n| queue.push(n, true).unwrap());
        assert_eq!(take(&queue, 4), [QUEUE - 1, QUEUE - 2, QUEUE - 3, 0], "nobody is a stranger");
    }
}

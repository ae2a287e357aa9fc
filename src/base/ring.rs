//! A bounded queue whose entries are numbered from 1 and forgotten from the front.
//!
//! The number makes resuming possible: a reader that saw entry `n` asks for what came after it, and
//! learns whether something in between is gone.
use std::collections::VecDeque;

/// Keeps the last `capacity` entries.
#[derive(Debug)]
pub struct Ring<T> {
    entries: VecDeque<T>,
    capacity: usize,
    /// The number the next entry gets.
    next: u64,
}

impl<T> Ring<T> {
    /// An empty ring; a capacity of 0 keeps nothing but still counts.
    pub fn new(capacity: usize) -> Self {
        Ring { entries: VecDeque::new(), capacity, next: 1 }
    }

    /// Appends an entry and returns its number.
    pub fn push(&mut self, entry: T) -> u64 {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
        }
        if self.capacity > 0 {
            self.entries.push_back(entry);
        }
        self.next += 1;
        self.next - 1
    }

    /// The number of the newest entry, 0 when nothing was ever pushed.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// The number of the oldest entry still kept, or of the next one when none is.
    pub fn first(&self) -> u64 {
        self.next - self.entries.len() as u64
    }

    /// The kept entries numbered above `after`, oldest first.
    pub fn after(&self, after: u64) -> impl Iterator<Item = (u64, &T)> {
        let first = self.first();
        let skip = (after + 1).saturating_sub(first) as usize;
        self.entries.iter().enumerate().skip(skip).map(move |(i, entry)| (first + i as u64, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_entries_with_their_numbers() {
        let mut ring = Ring::new(2);
        assert_eq!((ring.first(), ring.last()), (1, 0));
        for n in 1..=3 {
            assert_eq!(ring.push(n * 10), n);
        }
        assert_eq!((ring.first(), ring.last()), (2, 3));
        assert_eq!(ring.after(0).collect::<Vec<_>>(), [(2, &20), (3, &30)]);
        assert_eq!(ring.after(2).collect::<Vec<_>>(), [(3, &30)]);
        assert_eq!(ring.after(3).count(), 0);
        assert_eq!(ring.after(u64::MAX - 1).count(), 0);
    }
}

//! A lock that is given to who asked for it first. std's goes to whoever asks at the right moment: a worker
//! that says one thing after the other would keep all others from the store for seconds.
use crate::base::lock::lock;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A value that threads change one after the other, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct InTurn<T> {
    turns: Mutex<Turns>,
    moved: Condvar,
    value: Mutex<T>,
}

#[derive(Debug, Default)]
struct Turns {
    /// The number the next who comes gets.
    next: u64,
    /// Whose turn it is.
    now: u64,
}

/// Somebody's turn; over when it is dropped. The value is given back first.
pub(super) struct Turn<'t, T> {
    value: MutexGuard<'t, T>,
    _end: End<'t>,
}

struct End<'t> {
    turns: &'t Mutex<Turns>,
    moved: &'t Condvar,
}

impl<T> InTurn<T> {
    pub(super) fn new(value: T) -> InTurn<T> {
        InTurn { turns: Mutex::default(), moved: Condvar::new(), value: Mutex::new(value) }
    }

    /// Waits until everybody who came before is done.
    pub(super) fn lock(&self) -> Turn<'_, T> {
        let mut turns = lock(&self.turns);
        let mine = turns.next;
        turns.next += 1;
        let waited = self.moved.wait_while(turns, |turns| turns.now != mine);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        let end = End { turns: &self.turns, moved: &self.moved };
        Turn { value: lock(&self.value), _end: end }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        lock(self.turns).now += 1;
        self.moved.notify_all();
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_even_after_a_panic() {
        let list = InTurn::<Vec<u64>>::default();
        std::thread::scope(|scope| {
            let first = list.lock();
            let others: Vec<_> = (1..20)
                .map(|n| {
                    let list = &list;
                    let other = scope.spawn(move || {
                        list.lock().push(n);
                        // Whoever comes back at once stands behind all others.
                        list.lock().push(100 + n);
                        let held = list.lock();
                        assert!(n != 7 || held.is_empty(), "the seventh panics while it has its turn");
                    });
                    while lock(&list.turns).next != n + 1 {
                        std::thread::yield_now();
                    }
                    other
                })
                .collect();
            drop(first);
            let panicked: Vec<bool> = others.into_iter().map(|other| other.join().is_err()).collect();
            assert_eq!(panicked.iter().filter(|panicked| **panicked).count(), 1);
        });
        let list = list.lock().clone();
        assert_eq!(list[..19], (1..20).collect::<Vec<_>>());
        assert_eq!(list.len(), 38, "none was lost");
    }
}

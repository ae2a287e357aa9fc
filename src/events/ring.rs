//! The last events, numbered without gaps, bounded in number and in bytes: what a client that comes back
//! is given of the time it missed.
use std::collections::VecDeque;
use std::sync::Arc;

/// Which of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// State, executions, custom events.
    Events,
    /// State alone.
    State,
    /// Actions, executions, custom events.
    Actions,
}

impl Stream {
    /// All of them.
    pub const ALL: [Stream; 3] = [Stream::Events, Stream::State, Stream::Actions];
}

/// The streams an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streams([bool; 3]);

impl Streams {
    const NONE: Streams = Streams([false; 3]);
    pub(super) const STATE: Streams = Streams([true, true, false]);
    pub(super) const ACTION: Streams = Streams([false, false, true]);
    pub(super) const STATUS: Streams = Streams([true, false, true]);

    pub(super) fn has(self, stream: Stream) -> bool {
        self.0[stream as usize]
    }
}

/// An event as it goes out, shared by everybody it goes to.
pub type Frame = Arc<[u8]>;

struct Entry {
    streams: Streams,
    frame: Frame,
}

/// The events themselves.
pub(super) struct EventRing {
    entries: VecDeque<Entry>,
    capacity: usize,
    max_bytes: usize,
    bytes: usize,
    /// The number of the newest event that ever was.
    last: u64,
    /// The number before that of the first, plus one for each that is no event's.
    begun: u64,
    /// The number of the newest event of each stream that is gone.
    dropped: [u64; 3],
}

impl EventRing {
    /// The first event gets the number after `last`.
    pub(super) fn new(capacity: usize, max_bytes: usize, last: u64) -> EventRing {
        EventRing {
            entries: VecDeque::new(),
            capacity,
            max_bytes,
            bytes: 0,
            last,
            begun: last,
            dropped: [last; 3],
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Events there ever were.
    pub(super) fn count(&self) -> u64 {
        self.last - self.begun
    }

    /// Whether all events of a stream that follow number `after` are here. (Others may be gone.)
    pub(super) fn covers(&self, after: u64, stream: Stream) -> bool {
        (self.dropped[stream as usize]..=self.last).contains(&after)
    }

    /// The number of the oldest event that is kept, of the next one if none is.
    fn first(&self) -> u64 {
        self.last + 1 - self.entries.len() as u64
    }

    /// Appends an event with the next number, from which `frame` makes it; its bytes.
    pub(super) fn push(&mut self, streams: Streams, frame: impl FnOnce(u64) -> Frame) -> usize {
        self.last += 1;
        let frame = frame(self.last);
        let bytes = frame.len();
        self.bytes += bytes;
        self.entries.push_back(Entry { streams, frame });
        while self.entries.len() > self.capacity || self.bytes > self.max_bytes {
            let number = self.first();
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.frame.len();
            for stream in Stream::ALL.into_iter().filter(|stream| oldest.streams.has(*stream)) {
                self.dropped[stream as usize] = number;
            }
        }
        bytes
    }

    /// Uses up a number for no event: all numbers so far are before it.
    pub(super) fn skip(&mut self) {
        self.push(Streams::NONE, |_| Frame::from([]));
        self.begun += 1;
    }

    /// The events of a stream that follow number `after`, up to number `last`, with their numbers, oldest
    /// first.
    pub(super) fn between(
        &self,
        after: u64,
        last: u64,
        stream: Stream,
    ) -> impl Iterator<Item = (u64, &Frame)> {
        let place = |number: u64| usize::try_from(number.saturating_sub(self.first())).unwrap_or(usize::MAX);
        let (from, to) = (place(after + 1), place(last + 1));
        let numbered = (self.first()..).zip(&self.entries).skip(from).take(to.saturating_sub(from));
        numbered.filter(move |(_, entry)| entry.streams.has(stream)).map(|(n, entry)| (n, &entry.frame))
    }

    /// Whether so many events, or bytes of them, are a good part of what it holds.
    pub(super) fn is_much(&self, events: u64, bytes: usize) -> bool {
        events >= self.capacity as u64 / 4 || bytes >= self.max_bytes / 4
    }

    /// Forgets all events; their numbers stay taken.
    pub(super) fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.bytes = 0;
        self.dropped = [self.last; 3];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(ring: &mut EventRing, streams: Streams) {
        ring.push(streams, |id| Arc::from(id.to_string().as_bytes()));
    }

    /// Each of these has its number for its text.
    fn between(ring: &EventRing, after: u64, last: u64, stream: Stream) -> Vec<u64> {
        let events = ring.between(after, last, stream).map(|(number, frame)| {
            assert_eq!(frame.as_ref(), number.to_string().as_bytes());
            number
        });
        events.collect()
    }

    #[test]
    fn a_stream_gets_its_events_and_a_place_to_go_on_from() {
        let mut ring = EventRing::new(4, 1000, 100);
        assert_eq!((ring.first(), ring.last()), (101, 100));
        assert_eq!(between(&ring, 100, 100, Stream::Events), [0; 0]);
        for streams in [Streams::STATE, Streams::ACTION, Streams::STATUS] {
            push(&mut ring, streams);
        }
        for (stream, wanted) in
            [(Stream::Events, &[101, 103][..]), (Stream::State, &[101]), (Stream::Actions, &[102, 103])]
        {
            assert_eq!(between(&ring, 100, 103, stream), wanted);
        }
        assert_eq!(between(&ring, 102, 103, Stream::Events), [103]);
        assert_eq!(between(&ring, 100, 102, Stream::Events), [101]);
        assert_eq!(between(&ring, 0, 101, Stream::Events), [101], "from before the first");
        assert_eq!(between(&ring, 103, 101, Stream::Events), [0; 0]);
    }

    #[test]
    fn the_oldest_go_by_number_and_by_bytes() {
        let mut ring = EventRing::new(2, 7, 100);
        for _ in 0..3 {
            push(&mut ring, Streams::STATE);
        }
        assert_eq!((ring.first(), ring.last()), (102, 103));
        assert!(ring.covers(101, Stream::State) && !ring.covers(100, Stream::State));
        assert!(ring.covers(100, Stream::Actions), "none of its events is gone");
        assert!(!ring.covers(104, Stream::Actions), "of the future");
        ring.push(Streams::STATE, |_| Arc::from(&b"12345"[..]));
        assert_eq!((ring.first(), ring.bytes), (104, 5), "8 bytes were too many");
        ring.clear();
        assert_eq!((ring.first(), ring.last(), ring.bytes), (105, 104, 0));
        ring.push(Streams::STATE, |_| Arc::from(&b"12345678"[..]));
        assert_eq!((ring.first(), ring.last()), (106, 105), "too large by itself: a gap");
    }
}

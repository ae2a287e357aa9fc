//! The buffers of one connection to the wrapped server.
use super::call;
use super::informational;
use crate::http::{Buffer, FIRST_BYTES};
use ureq::unversioned::transport::Buffers;

/// The input grows, by doubling, to this many bytes when a line does not fit in. No line of a response that
/// has to be seen whole can be longer.
const INPUT_BYTES_MAX: usize = 128 * 1024;

/// Buffers that start small and grow with what passes through them: most responses are small, and
/// idle connections keep theirs.
#[derive(Default)]
pub(super) struct RelayBuffers {
    input: Buffer,
    start: usize,
    end: usize,
    output: Buffer,
    progress: bool,
}

impl RelayBuffers {
    /// Room behind what is buffered; at least a little, at most the bound.
    pub(super) fn free(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.input.get().copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let length = self.input.get().len();
        if self.end == length {
            self.input.need((length * 2).min(INPUT_BYTES_MAX.max(self.end + FIRST_BYTES)));
        }
        &mut self.input.get()[self.end..]
    }

    pub(super) fn filled(&mut self, n: usize) {
        self.end += n;
        // A read that filled the buffer had more to give.
        if self.start == 0 && self.end == self.input.get().len() {
            self.input.used(self.end);
        }
        self.note();
    }

    /// Drops informational answers from the front of what is buffered; how many bytes that was.
    pub(super) fn drop_informational(&mut self) -> usize {
        let dropped = informational::whole(self.input());
        self.start += dropped;
        self.note();
        dropped
    }

    /// Whether so much is buffered that whoever takes it cannot be waiting for more in good faith.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start >= INPUT_BYTES_MAX
    }

    /// What is to be sent.
    pub(super) fn sending(&mut self, amount: usize) -> &mut [u8] {
        self.output.used(amount);
        &mut self.output.get()[..amount]
    }

    /// The room a large head took is given back: the answer may be long in coming.
    pub(super) fn head_is_sent(&mut self) {
        call::with(|call| call.head_room = 0);
        self.output.shrink();
    }

    /// A wait that lasts costs no memory: what is empty is given back until it is needed.
    pub(super) fn rest(&mut self) {
        self.output = Buffer::default();
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.input = Buffer::default();
        }
    }

    fn note(&self) {
        call::with(|call| call.buffered = self.end - self.start);
    }
}

impl Buffers for RelayBuffers {
    fn output(&mut self) -> &mut [u8] {
        self.output.need(call::with(|call| call.head_room).unwrap_or(0));
        self.output.get()
    }

    fn input(&self) -> &[u8] {
        &self.input.contents()[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.free()
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        call::consumed(&self.input.contents()[self.start..self.start + amount]);
        self.start += amount;
        self.note();
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        // Only a chunked body is read beside the output and then put into it with its frame.
        let beside = match call::with(|call| call.chunked) {
            Some(true) => self.output.get().len(),
            _ => FIRST_BYTES,
        };
        let end = self.end;
        self.input.need(end + beside);
        (&mut self.input.get()[end..end + beside], self.output.get())
    }

    fn can_use_input(&self) -> bool {
        self.end > self.start && self.progress
    }
}

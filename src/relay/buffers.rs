//! The buffers of one connection to the wrapped server.
use super::call;
use ureq::unversioned::transport::Buffers;

/// Input and output buffers begin with this many bytes …
const BUFFER_BYTES: usize = 8 * 1024;
/// … and the input grows, by doubling, to this many when what arrives fills it. No line of a response
/// that has to be seen whole can be longer.
const INPUT_BYTES_MAX: usize = 128 * 1024;
/// Output while a body is sent.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Buffers that start small and grow with what passes through them: most responses are small, and
/// idle connections keep theirs.
#[derive(Default)]
pub(super) struct RelayBuffers {
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    progress: bool,
}

impl RelayBuffers {
    /// Room behind what is buffered; at least a little, at most the bound.
    pub(super) fn free(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            let grown =
                (self.input.len() * 2).clamp(BUFFER_BYTES, INPUT_BYTES_MAX.max(self.end + BUFFER_BYTES));
            self.input.resize(grown, 0);
        }
        &mut self.input[self.end..]
    }

    pub(super) fn filled(&mut self, n: usize) {
        self.end += n;
        // A read that filled the buffer had more to give.
        if self.start == 0 && self.end == self.input.len() && self.end < INPUT_BYTES_MAX {
            self.input.resize(self.end * 2, 0);
        }
        self.note();
    }

    /// Whether so much is buffered that whoever takes it cannot be waiting for more in good faith.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start >= INPUT_BYTES_MAX
    }

    /// What is to be sent.
    pub(super) fn sending(&mut self, amount: usize) -> &mut [u8] {
        &mut self.output[..amount]
    }

    fn note(&self) {
        call::with(|call| call.buffered = self.end - self.start);
    }
}

impl Buffers for RelayBuffers {
    fn output(&mut self) -> &mut [u8] {
        let room = call::with(|call| call.head_room).unwrap_or(0);
        if self.output.len() < room.max(BUFFER_BYTES) {
            self.output.resize(room.max(BUFFER_BYTES), 0);
        }
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.free()
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        call::consumed(&self.input[self.start..self.start + amount]);
        self.start += amount;
        self.note();
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        if self.output.len() < OUTPUT_BYTES_MAX {
            self.output.resize(OUTPUT_BYTES_MAX, 0);
        }
        let end = self.end;
        if self.input.len() - end < OUTPUT_BYTES_MAX {
            self.input.resize(end + OUTPUT_BYTES_MAX, 0);
        }
        (&mut self.input[end..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.end > self.start && self.progress
    }
}

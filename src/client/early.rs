//! An answer that comes while the request is still being sent. A server that refuses a body says so and
//! closes; the HTTP client then only tells that the connection broke. This transport, around any other,
//! reads what was said before that.
use super::failure::Refusal;
use crate::base::lock::lock;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Bytes of such an answer.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long more of it is waited for.
const WAIT: Duration = Duration::from_secs(1);
/// Fields of its head at most.
const FIELDS: usize = 64;

/// The bytes of the last such answer, until somebody takes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Early(Arc<Mutex<Option<Vec<u8>>>>);

impl Early {
    /// The refusal that was said before the connection broke.
    pub(super) fn take(&self) -> Option<Refusal> {
        let bytes = lock(&self.0).take()?;
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = head.parse(&bytes).ok()? else { return None };
        let status = head.code.filter(|code| (400..600).contains(code))?;
        Some(Refusal::read(status, &bytes[length..]))
    }
}

impl<In: Transport> Connector<In> for Early {
    type Out = EarlyTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<EarlyTransport<In>>, ureq::Error> {
        Ok(chained.map(|inner| EarlyTransport { inner, early: self.clone() }))
    }
}

/// A connection whose last words are kept.
#[derive(Debug)]
pub(super) struct EarlyTransport<T> {
    inner: T,
    early: Early,
}

impl<T: Transport> EarlyTransport<T> {
    fn listen(&mut self, mut timeout: NextTimeout) {
        timeout.after = WAIT.into();
        let mut said = Vec::new();
        loop {
            let more = self.inner.await_input(timeout).unwrap_or(false);
            let input = self.inner.buffers().input();
            said.extend_from_slice(input);
            let count = input.len();
            self.inner.buffers().input_consume(count);
            if !more || said.len() > ANSWER_BYTES {
                break;
            }
        }
        *lock(&self.early.0) = Some(said);
    }
}

impl<T: Transport> Transport for EarlyTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let sent = self.inner.transmit_output(amount, timeout);
        if let Err(ureq::Error::Io(error)) = &sent
            && matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        {
            self.listen(timeout);
        }
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

//! The end of a run: what is left of its group, its outcome, and what may stay in the background.
use super::outcome::{End, Outcome};
use super::pump::Pump;
use super::spawn::timeout_text;
use super::waiting::{has_data, readable, wait};
use crate::process::{Exit, Signal};
use std::io::Read;

impl Pump {
    pub(super) fn finish(mut self) {
        let stays = self.run.keeps_background && self.end.is_none() && self.exit.is_some();
        let processes = &self.registry.host.processes;
        self.stdin = None;
        if !stays {
            processes.signal_group(self.pid, Signal::SIGKILL);
            self.truncated |= self.pipes.iter().flatten().any(has_data);
            self.pipes = [None, None];
        }
        let drains = self.pipes.iter().any(Option::is_some);
        if !drains {
            self.registry.give_slot_back();
        }
        let outcome = self.outcome();
        log::info!("run {}: code {} after {} ms", self.run.id, outcome.code, outcome.duration.as_millis());
        self.registry.publish(&self.run, outcome);
        if drains {
            self.drain();
            self.registry.give_slot_back();
        } else if !stays {
            processes.end_group(self.pid, &[]);
        }
        self.registry.over(&self.run);
    }

    fn outcome(&self) -> Outcome {
        let code = match (self.end, self.exit) {
            (Some(End::Timeout | End::OutputLimit), _) | (_, Some(Exit::Signal(_)) | None) => -1,
            (_, Some(Exit::Code(code))) => code,
        };
        let signal = match self.exit {
            Some(Exit::Signal(number)) => Some(number),
            _ => None,
        };
        let error = self.end.map(|end| match end {
            End::Timeout => timeout_text(self.timeout.as_secs()),
            End::OutputLimit => {
                format!("Output limit of {} bytes reached", self.registry.settings.max_output)
            }
            End::Stopped => "Stopped on request".to_owned(),
            End::ClientGone => "Stopped: its client has left".to_owned(),
            End::Shutdown => "Stopped: the server is shutting down".to_owned(),
        });
        Outcome {
            code,
            signal,
            error,
            end: self.end,
            timed_out: self.end == Some(End::Timeout),
            truncated: self.truncated,
            duration: self.run.began.elapsed(),
        }
    }

    /// What may stay in the background would be killed by writing to a pipe that nobody reads: it is
    /// read, and thrown away, until its writers are gone or we are told to end them.
    fn drain(&mut self) {
        while self.pipes.iter().any(Option::is_some) {
            let stop = self.run.state().stop;
            if let Some((_, grace)) = stop {
                self.registry.host.processes.end_group(self.pid, &[(Signal::SIGTERM, grace)]);
                return;
            }
            let [first, second] = &self.pipes;
            let sources = [readable(first.as_ref()), readable(second.as_ref()), readable(Some(&*self.bell))];
            let [out, err, bell] = wait(sources, None);
            if bell {
                let _ = self.bell.read();
            }
            for (pipe, is_ready) in self.pipes.iter_mut().zip([out, err]) {
                if is_ready
                    && let Some(open) = pipe
                    && matches!(open.read(&mut self.buffer), Ok(0) | Err(_))
                {
                    *pipe = None;
                }
            }
        }
    }
}

//! `GET metrics`: everything in numbers, for Prometheus. Each number is read where it lives; docs/observability.md
//! has the table.
use super::Api;
use crate::http::{BUCKETS_US, Class, Response};
use crate::metrics::Kind::{Counter, Gauge, Histogram};
use crate::metrics::{CONTENT_TYPE, Page};
use crate::supervisor::State;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// `BUCKETS_US` in seconds, and the bucket that has everything.
const BOUNDS: [&str; BUCKETS_US.len() + 1] =
    ["0.001", "0.005", "0.025", "0.1", "0.5", "2.5", "10", "60", "+Inf"];
/// No answer, and the statuses by their first digit.
const CODES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const STATES: [State; 8] = [
    State::Starting,
    State::Ready,
    State::Draining,
    State::Stopping,
    State::Stopped,
    State::Backoff,
    State::Failed,
    State::PortBusy,
];

pub(super) fn serve(api: &Api) -> Response {
    let mut page = Page::default();
    page.family("frag_build_info", Gauge, "Always 1.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
    requests(&mut page, api);
    front(&mut page, api);
    server(&mut page, api);
    let exec =
        api.exec.as_ref().map_or(0, |exec| exec.list().iter().filter(|run| run.outcome().is_none()).count());
    page.one("frag_exec_running", Gauge, "Programs that run for callers.", exec);
    #[cfg(feature = "runs")]
    runs(&mut page, api);
    #[cfg(feature = "workers")]
    {
        page.family("frag_workers", Gauge, "Workers we know of, by what they are.");
        for (status, count) in
            ["running", "stopped", "cancelled"].into_iter().zip(api.workers.summary().workers)
        {
            page.sample(&[("status", status)], count);
        }
    }
    #[cfg(feature = "artifacts")]
    {
        let counts = api.artifacts.artifacts().counts();
        page.one("frag_artifacts", Gauge, "Artifacts in the store.", counts.rows);
        page.one("frag_artifact_bytes", Gauge, "Bytes of their payloads.", counts.bytes);
    }
    page.process(api.started);
    Response::bytes(200, CONTENT_TYPE, page.into_text())
}

fn requests(page: &mut Page, api: &Api) {
    let classes = Class::ALL.map(|class| (("class", class.as_str()), &api.stats.classes[class as usize]));
    // One look at each number, so that all that is made of it agrees.
    let looks = classes.each_ref().map(|(class, counted)| (*class, counted.served(), counted.micros()));
    page.family("frag_http_requests_total", Counter, "Requests that are over.");
    for (class, served, _) in &looks {
        for (code, buckets) in CODES.iter().zip(served) {
            page.sample(&[*class, ("code", code)], buckets.iter().sum::<u64>());
        }
    }
    page.family(
        "frag_http_request_duration_seconds",
        Histogram,
        "From a request's complete head to the end of its response.",
    );
    for (class, served, micros) in &looks {
        let mut count = 0;
        for (bucket, bound) in BOUNDS.iter().enumerate() {
            count += served.iter().map(|buckets| buckets[bucket]).sum::<u64>();
            page.sample_of("_bucket", &[*class, ("le", bound)], count);
        }
        page.sample_of("_sum", &[*class], Duration::from_micros(*micros));
        page.sample_of("_count", &[*class], count);
    }
    page.family(
        "frag_http_received_bytes_total",
        Counter,
        "Bytes of request bodies and from clients' ends of tunnels.",
    );
    classes.iter().for_each(|(class, counted)| page.sample(&[*class], counted.received()));
    page.family(
        "frag_http_sent_bytes_total",
        Counter,
        "Bytes of response bodies and to clients' ends of tunnels.",
    );
    classes.iter().for_each(|(class, counted)| page.sample(&[*class], counted.sent()));
}

fn front(page: &mut Page, api: &Api) {
    let stats = &*api.stats;
    let now = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    let total = |number: &AtomicU64| number.load(Ordering::Relaxed);
    for (name, help, value) in [
        ("frag_http_requests_in_flight", "Requests being served, this one too.", now(&stats.in_flight)),
        ("frag_http_requests_held", "Requests that wait for the wrapped server.", now(&stats.held)),
        ("frag_http_connections", "Open connections of clients.", now(&stats.connections)),
        ("frag_http_threads", "Threads for requests, those of streams aside.", now(&stats.threads)),
        (
            "frag_http_streams",
            "Requests that last: tunnels, event streams, slow transfers, waits.",
            now(&stats.streams),
        ),
    ] {
        page.one(name, Gauge, help, value);
    }
    for (name, help, value) in [
        ("frag_http_connections_accepted_total", "Connections accepted.", &stats.accepted),
        ("frag_http_accept_errors_total", "Connections that could not be accepted.", &stats.accept_errors),
        (
            "frag_http_shed_total",
            "Connections refused, closed or cut because a bound was reached.",
            &stats.shed,
        ),
        ("frag_http_panics_total", "Requests whose handling failed for a bug.", &stats.panics),
        ("frag_uploads_total", "Files that were uploaded.", &api.uploads.stored),
        ("frag_uploads_failed_total", "Uploads that were refused or broke off.", &api.uploads.failed),
        ("frag_upload_bytes_total", "Bytes of the files that were uploaded.", &api.uploads.bytes),
    ] {
        page.one(name, Counter, help, total(value));
    }
}

fn server(page: &mut Page, api: &Api) {
    let status = api.supervisor.status();
    page.family("frag_server_state", Gauge, "1 for the state the wrapped server is in.");
    for state in STATES {
        page.sample(&[("state", state.as_str())], state == status.state);
    }
    page.one("frag_server_up", Gauge, "Whether its process runs.", status.running);
    page.one("frag_server_restarts_total", Counter, "Its starts after the first.", status.restarts);
    if let Some(uptime) = status.uptime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        page.one(
            "frag_server_start_time_seconds",
            Gauge,
            "When it was started, since 1970.",
            since.saturating_sub(uptime),
        );
    }
    let retry = status.next_retry.unwrap_or_default();
    page.one("frag_server_next_retry_seconds", Gauge, "Time to its next start; 0 if none is planned.", retry);
}

#[cfg(feature = "runs")]
fn runs(page: &mut Page, api: &Api) {
    use crate::runs::{Kind, RunStatus};
    let runs = &api.runs.runs;
    page.family("frag_runs_running", Gauge, "Runs that have not ended.");
    for kind in Kind::ALL {
        page.sample(&[("kind", kind.as_str())], runs.count(kind, RunStatus::Running));
    }
    page.family("frag_runs_total", Counter, "Runs that ended, by how.");
    for kind in Kind::ALL {
        for status in [RunStatus::Completed, RunStatus::Failed, RunStatus::Aborted] {
            page.sample(&[("kind", kind.as_str()), ("status", status.as_str())], runs.count(kind, status));
        }
    }
    page.one("frag_approvals_pending", Gauge, "Approvals that wait for a decision.", runs.pending().len());
    let counts = api.runs.bus.counts();
    page.one("frag_actions_total", Counter, "What happened, as actions.", counts.actions);
    page.one(
        "frag_events_published_total",
        Counter,
        "Events made; none while nobody listens.",
        counts.events,
    );
    page.family("frag_event_subscribers", Gauge, "Listeners of the event streams.");
    for (stream, count) in ["events", "state", "actions"].into_iter().zip(counts.listeners) {
        page.sample(&[("stream", stream)], count);
    }
    page.one(
        "frag_event_subscribers_dropped_total",
        Counter,
        "Listeners that were too slow.",
        counts.dropped,
    );
    if let Some((sealed, bytes)) = runs.journal_size() {
        page.one("frag_journal_up", Gauge, "Whether the journal is written.", runs.is_well());
        page.one("frag_journal_sealed_runs", Gauge, "Runs it has sealed: the length of its chain.", sealed);
        page.one("frag_journal_bytes", Gauge, "Bytes of its files, the logs of single runs aside.", bytes);
    }
}

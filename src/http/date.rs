//! The `Date` of a response: ours, or the one of an answer that came without (RFC 9110 section 6.6.1).
use super::response::field;
use crate::base::time::{http_date, unix_ms};
use std::cell::RefCell;
use std::time::SystemTime;

pub(super) const DATE: &str = "date";

thread_local! {
    /// The second this thread last told, and its text: one is made once a second.
    static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Appends the field with the time that is now.
pub(super) fn date_field(out: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = unix_ms(now) / 1000;
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            (*last, *text) = (second, http_date(now));
        }
        field(out, DATE.as_bytes(), text.as_bytes());
    });
}

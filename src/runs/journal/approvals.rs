//! Approvals on the disk: a line when one is asked for, one when it is decided, each with a sum of its
//! own. They outlive the run they belong to, whose log is sealed when it ends.
use super::files::{Growing, Lines, Places};
use super::lines::summed;
use crate::events::Json;
use crate::runs::approval::{Approval, Decision, HISTORY};
use crate::runs::is_id;
use std::io;

/// Lines above which the file is written anew at the start, without those that count no more.
const COMPACT_LINES: usize = 2000;

/// The line of an approval.
pub(in crate::runs) fn line(approval: &Approval) -> String {
    let text = |value: &str| Json::String(value.to_owned());
    let number = |value: u64| Json::Number(value as f64);
    let entries = [
        ("id", Some(text(&approval.id))),
        ("executionId", Some(text(&approval.run))),
        ("toolName", Some(text(&approval.tool))),
        ("args", Some(approval.args.clone())),
        ("status", Some(text(approval.decision.as_str()))),
        ("requestedAt", Some(number(approval.requested_ms))),
        ("expiresAt", approval.expires_ms.map(number)),
        ("decidedAt", approval.decided_ms.map(number)),
        ("reason", approval.reason.as_deref().map(text)),
    ];
    let there = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    summed(Json::object(there))
}

/// Reads a line; `None` if it is not exactly what [`line()`] wrote.
pub(in crate::runs) fn parse(bytes: &[u8]) -> Option<Approval> {
    let json = Json::parse(bytes).ok()?;
    let string = |key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
    let integer = |key: &str| json.get(key).and_then(Json::as_u64);
    let approval = Approval {
        id: string("id").filter(|id| is_id(id))?,
        run: string("executionId")?,
        tool: string("toolName")?,
        args: json.get("args")?.clone(),
        decision: Decision::named(&string("status")?)?,
        requested_ms: integer("requestedAt")?,
        expires_ms: integer("expiresAt"),
        decided_ms: integer("decidedAt"),
        reason: string("reason"),
    };
    (line(&approval).as_bytes() == bytes).then_some(approval)
}

/// The approvals that count: all pending ones and the last decided ones, the oldest first.
pub(super) fn load(places: &Places) -> io::Result<(Vec<Approval>, usize)> {
    let (mut approvals, mut lines): (Vec<Approval>, usize) = (Vec::new(), 0);
    for line in Lines::open(&places.approvals())? {
        lines += 1;
        let Some(approval) = parse(&line?.0) else { continue };
        approvals.retain(|earlier| earlier.id != approval.id);
        approvals.push(approval);
        let decided = approvals.iter().filter(|approval| approval.decision != Decision::Pending).count();
        if decided > HISTORY
            && let Some(oldest) = approvals.iter().position(|a| a.decision != Decision::Pending)
        {
            approvals.remove(oldest);
        }
    }
    Ok((approvals, lines))
}

/// Writes the file anew if most of its lines count no more, and opens it.
pub(super) fn open(places: &Places) -> io::Result<(Growing, Vec<Approval>)> {
    let (approvals, lines) = load(places)?;
    if lines > COMPACT_LINES {
        let new = places.approvals().with_extension("new");
        let _ = std::fs::remove_file(&new);
        let mut file = Growing::open(&new)?;
        approvals.iter().for_each(|approval| file.push(&line(approval)));
        file.sync()?;
        std::fs::rename(&new, places.approvals())?;
        places.sync()?;
    }
    Ok((Growing::open(&places.approvals())?, approvals))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(id: &str, decision: Decision) -> Approval {
        Approval {
            id: id.to_owned(),
            run: "r".to_owned(),
            tool: "t".to_owned(),
            args: Json::parse(br#"{"b":1.5,"a":"\u00e9"}"#).unwrap(),
            decision,
            requested_ms: 1,
            expires_ms: Some(2),
            decided_ms: (decision != Decision::Pending).then_some(3),
            reason: None,
        }
    }

    #[test]
    fn every_changed_byte_shows() {
        let approval = approval("a", Decision::Rejected);
        let line = line(&approval);
        assert_eq!(parse(line.as_bytes()), Some(approval));
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(parse(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn what_counts_is_loaded_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path());
        places.make().unwrap();
        let (mut file, none) = open(&places).unwrap();
        assert_eq!(none, []);
        file.push(&line(&approval("kept", Decision::Pending)));
        for n in 0..COMPACT_LINES {
            file.push(&line(&approval(&n.to_string(), Decision::Approved)));
        }
        file.sync().unwrap();
        let (file, approvals) = open(&places).unwrap();
        assert_eq!(approvals.len(), HISTORY + 1);
        assert_eq!(approvals[0].id, "kept");
        assert_eq!(file.backwards().count(), HISTORY + 1, "written anew");
        assert_eq!(open(&places).unwrap().1, approvals);
    }
}

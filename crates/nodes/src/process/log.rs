//! What a container has written: the newest lines, each with its time, for readers that come later or follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

/// Kept of one run of one container: some 2,000 lines, enough to see how a program came to where it is, while 110 pods
/// with a current and a previous run stay below 60 MiB.
const LOG_BYTES: usize = 256 * 1024;
/// A longer line is kept in parts, as container runtimes do.
pub(crate) const LINE_BYTES: usize = 16 * 1024;
/// How much of the log a termination message shows: the limits of a kubelet.
const MESSAGE_BYTES: usize = 2048;
/// See [`MESSAGE_BYTES`].
const MESSAGE_LINES: usize = 80;

/// One line without its end.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    pub(crate) text: Vec<u8>,
}

/// The output of one run of a container.
pub(crate) struct Log {
    lines: Mutex<Lines>,
    /// Counts writes, for those who follow.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<Arc<Line>>,
    bytes: usize,
    /// The number of the first line that is kept.
    first: u64,
    closed: bool,
}

/// What a reader asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query {
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) follow: bool,
    pub(crate) limit: Option<usize>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { lines: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, at: Timestamp, text: Vec<u8>) {
        let mut lines = self.lock();
        lines.bytes += text.len();
        lines.kept.push_back(Arc::new(Line { at, text }));
        while lines.bytes > LOG_BYTES
            && let Some(oldest) = lines.kept.pop_front()
        {
            lines.bytes -= oldest.text.len();
            lines.first += 1;
        }
        drop(lines);
        self.changed.send_modify(|count| *count += 1);
    }

    /// The run is over; followers end.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The number of the first line a reader wants.
    pub(crate) fn start(&self, query: &Query) -> u64 {
        let lines = self.lock();
        let count = lines.kept.len();
        let by_tail = query.tail.map_or(0, |tail| count.saturating_sub(tail));
        let by_time = query.since.map_or(0, |since| lines.kept.partition_point(|line| line.at < since));
        lines.first + by_tail.max(by_time) as u64
    }

    /// The lines from this number on that are still kept, the number to go on with, and whether more can come.
    pub(crate) fn read(&self, from: u64) -> (Vec<Arc<Line>>, u64, bool) {
        let lines = self.lock();
        let skip = usize::try_from(from.saturating_sub(lines.first)).unwrap_or(usize::MAX);
        let found: Vec<_> = lines.kept.iter().skip(skip).cloned().collect();
        (found, lines.first + lines.kept.len() as u64, !lines.closed)
    }

    /// The end of the log as a termination message.
    pub(crate) fn message(&self) -> Option<String> {
        let (lines, ..) = self.read(0);
        let last = &lines[lines.len().saturating_sub(MESSAGE_LINES)..];
        let text = last.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned() + "\n").collect::<String>();
        let mut from = text.len().saturating_sub(MESSAGE_BYTES);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        (!text.is_empty()).then(|| text[from..].to_owned())
    }
}

/// Lines as a reader gets them.
pub(crate) fn render(lines: &[Arc<Line>], timestamps: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        if timestamps {
            out.extend_from_slice(format!("{:.9} ", line.at).as_bytes());
        }
        out.extend_from_slice(&line.text);
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn shown(log: &Log, query: &Query) -> String {
        let (lines, ..) = log.read(log.start(query));
        String::from_utf8(render(&lines, query.timestamps)).expect("text")
    }

    #[test]
    fn tail_since_and_timestamps() {
        let log = Log::new();
        for second in 0..5 {
            log.push(at(second), format!("line {second}").into_bytes());
        }
        let query = Query { tail: Some(2), ..Query::default() };
        assert_eq!(shown(&log, &query), "line 3\nline 4\n");
        let query = Query { tail: Some(3), since: Some(at(4)), ..Query::default() };
        assert_eq!(shown(&log, &query), "line 4\n");
        let query = Query { tail: Some(1), timestamps: true, ..Query::default() };
        assert_eq!(shown(&log, &query), "1970-01-01T00:00:04.000000000Z line 4\n");
        assert_eq!(shown(&log, &Query { tail: Some(0), ..Query::default() }), "");
    }

    #[test]
    fn the_newest_lines_are_kept() {
        let log = Log::new();
        for number in 0..100 {
            let mut text = vec![b'x'; LINE_BYTES];
            text[0] = number;
            log.push(at(0), text);
        }
        let (lines, next, open) = log.read(0);
        assert_eq!((lines.len(), next, open), (LOG_BYTES / LINE_BYTES, 100, true));
        assert_eq!(lines[lines.len() - 1].text[0], 99);
        // A reader that fell behind goes on with the oldest line there is.
        assert_eq!(log.read(3).0.len(), lines.len());
        assert_eq!(log.read(99).0.len(), 1);
        log.close();
        assert!(!log.read(100).2);
    }

    #[test]
    fn a_message_is_the_end_of_the_log() {
        let log = Log::new();
        assert_eq!(log.message(), None);
        for number in 0..200 {
            log.push(at(0), format!("line {number}").into_bytes());
        }
        let message = log.message().expect("lines");
        assert!(message.starts_with("line 120\n") && message.ends_with("line 199\n"), "{message}");
    }
}

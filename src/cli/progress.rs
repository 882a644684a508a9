//! How far long work has come, for the person at the terminal.

use std::io::{self, IsTerminal as _, Write as _};

/// One line that is written over; nothing where standard error is no terminal. Dropping it clears the line.
pub(super) struct Progress {
    /// `None`: nobody knows how much there is.
    total: Option<u64>,
    shown: Option<String>,
    on_terminal: bool,
}

impl Progress {
    pub(super) fn new(total: Option<u64>) -> Self {
        Self { total, shown: None, on_terminal: io::stderr().is_terminal() }
    }

    /// `done` of the total, and the same in words.
    pub(super) fn show(&mut self, done: u64, words: &str) {
        let line = line(done, self.total, words);
        if self.on_terminal && self.shown.as_ref() != Some(&line) {
            write!(io::stderr(), "\r{line}\x1b[K").ok();
            self.shown = Some(line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}

/// Never full before the end: the total may be an estimate.
fn line(done: u64, total: Option<u64>, words: &str) -> String {
    let Some(total) = total.filter(|total| *total > 0) else { return words.to_owned() };
    let percent = (done.saturating_mul(100) / total).min(99);
    let full = usize::try_from(percent / 5).expect("at most a hundred");
    format!("[{}{}] {percent:>2} %  {words}", "#".repeat(full), ".".repeat(20 - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_shown_where_the_total_is_known() {
        assert_eq!(line(7, None, "7 rows"), "7 rows");
        assert_eq!(line(7, Some(0), "7 rows"), "7 rows");
        assert_eq!(line(50, Some(200), "50 rows"), "[#####...............] 25 %  50 rows");
        assert_eq!(line(900, Some(200), "900 rows"), "[###################.] 99 %  900 rows");
        assert_eq!(line(u64::MAX, Some(1), "many"), "[###################.] 99 %  many");
    }
}

//! What a person sees: headings, commands with their output, verdicts, aligned tables; plain lines when not a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub(crate) fn red(text: &str) -> String {
    paint("1;31", text)
}

pub(crate) fn green(text: &str) -> String {
    paint("1;32", text)
}

pub(crate) fn yellow(text: &str) -> String {
    paint("1;33", text)
}

fn bold(text: &str) -> String {
    paint("1", text)
}

/// A chapter of the output.
pub(crate) fn heading(text: &str) {
    println!("\n{} {}", bold("==>"), bold(text));
}

/// A command as a person would type it.
pub(crate) fn command(text: &str) {
    println!("{} {}", green("$"), bold(text));
}

/// Output of a command, indented so that it stands apart.
pub(crate) fn output(text: &str) {
    for line in text.trim_end().lines() {
        println!("  {line}");
    }
}

/// A sentence about what was just seen.
pub(crate) fn verdict(good: bool, text: &str) {
    println!("{} {text}", if good { green("ok") } else { red("FAILED") });
}

pub(crate) fn note(text: &str) {
    println!("{} {text}", yellow("note:"));
}

/// Prints rows in aligned columns under a header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    let columns = header.len();
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([header[i].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let names: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    println!("  {}", bold(&line(&names)));
    for row in rows {
        println!("  {}", line(row));
    }
}

/// Long work in progress: a spinner on a terminal, a line each time the message changes otherwise.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    pub(crate) fn start(message: &str) -> Self {
        /// Often enough to look alive, rare enough to cost nothing.
        const TICK: Duration = Duration::from_millis(120);
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::with_template("  {spinner} {elapsed:>4} {msg}").expect("a valid template"));
            bar.enable_steady_tick(TICK);
            bar
        });
        let mut progress = Self { bar, last: String::new() };
        progress.say(message);
        progress
    }

    /// Shows where the work stands.
    pub(crate) fn say(&mut self, message: &str) {
        if self.last == message {
            return;
        }
        message.clone_into(&mut self.last);
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => {
                println!("  .. {message}");
                let _ = std::io::stdout().flush();
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

//! How far it is, on standard error where somebody looks.

use indicatif::{ProgressBar, ProgressStyle};

pub fn bar(len: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}");
    let bar = ProgressBar::new(len as u64).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A bar over the bytes of an input, or where nobody knows how many there are, over those that came. Hidden unless it may be seen.
pub fn bytes(total: Option<u64>, what: &'static str, seen: bool) -> ProgressBar {
    let bar = match (seen, total) {
        (false, _) => return ProgressBar::hidden(),
        (true, Some(total)) => ProgressBar::new(total),
        (true, None) => ProgressBar::no_length(),
    };
    let template = match total {
        Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes}",
        None => "{msg} {spinner} {bytes}",
    };
    let bar = bar.with_message(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

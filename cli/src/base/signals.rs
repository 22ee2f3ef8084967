//! Signals that would end the command in the middle of a file.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

#[cfg(unix)]
const ENDINGS: [i32; 4] = [SIGINT, SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGQUIT];
#[cfg(not(unix))]
const ENDINGS: [i32; 2] = [SIGINT, SIGTERM];

/// Lets a write that goes over the limit of a file's size fail. Without this it would end the process.
pub fn fail_over_the_limit() -> io::Result<()> {
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    Ok(())
}

/// What the handlers know. There is one of it, because handlers belong to the whole process.
struct Handlers {
    /// Whether a signal may end the process where it comes.
    free: Arc<AtomicBool>,
    /// The last signal that came, or 0.
    came: Arc<AtomicUsize>,
}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

/// Installs the handlers, if that was not done before. They are installed late, so that a command that writes no file goes
/// without them.
fn handlers() -> io::Result<&'static Handlers> {
    if let Some(handlers) = HANDLERS.get() {
        return Ok(handlers);
    }
    let handlers = Handlers { free: Arc::new(AtomicBool::new(true)), came: Arc::default() };
    let ignored = ignored();
    for signal in ENDINGS.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0) {
        // In this order: a signal that finds `free` still false has already said that it came.
        flag::register_usize(signal, Arc::clone(&handlers.came), signal as usize)?;
        flag::register_conditional_default(signal, Arc::clone(&handlers.free))?;
    }
    Ok(HANDLERS.get_or_init(|| handlers))
}

/// The signals that whoever started this process wants ignored, as `nohup` does, a bit each. Only Linux tells this in a file; elsewhere none is known.
fn ignored() -> u64 {
    let status =
        if cfg!(target_os = "linux") { std::fs::read_to_string("/proc/self/status") } else { return 0 };
    let status = status.unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

/// While it lives, a signal that would end the process waits. When it is dropped, the signal does what it would have done.
pub struct Held(&'static Handlers);

impl Held {
    pub fn new() -> io::Result<Self> {
        let handlers = handlers()?;
        handlers.free.store(false, SeqCst);
        Ok(Self(handlers))
    }

    /// An error if a signal waits.
    pub fn check(&self) -> io::Result<()> {
        if self.0.came.load(SeqCst) == 0 { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.free.store(true, SeqCst);
        let signal = self.0.came.load(SeqCst) as i32;
        if signal != 0 {
            // It fails for unknown signals only, and these are known.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}

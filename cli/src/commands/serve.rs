//! `siskin bench --serve`: a case per line in, an answer per line out, until the input ends.

use crate::base::error::{Error, Result};
use crate::base::family::AnyCase;
use crate::base::json::from_json;
use crate::families::{FAMILIES, named, names};
use serde::Deserialize;
use std::io::{BufRead, Read, Write, stdin, stdout};

/// No case is longer.
const LONGEST: u64 = 1 << 20;

pub fn main() -> Result<()> {
    let (mut input, mut out) = (stdin().lock(), stdout().lock());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut input)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::File { path: "standard input".into(), why: e.to_string() })?;
        if read == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let cut = read as u64 == LONGEST && !line.ends_with(b"\n");
        let answer = if cut {
            input
                .skip_until(b'\n')
                .map_err(|e| Error::File { path: "standard input".into(), why: e.to_string() })?;
            refuse(&Error::input("case", format_args!("a line of less than {LONGEST} bytes"), "a longer one"))
        } else {
            reply(&line, |case| case)
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
}

/// The answer to a line; `limit` has a say in its case.
pub fn reply(line: &[u8], limit: impl Fn(Box<dyn AnyCase>) -> Box<dyn AnyCase>) -> String {
    match parse(line).and_then(|case| caught(&*limit(case))) {
        Ok(answer) => answer,
        Err(e) => refuse(&e),
    }
}

/// The case of a line, of the family that its "op" names.
fn parse(line: &[u8]) -> Result<Box<dyn AnyCase>> {
    #[derive(Deserialize)]
    struct Peek {
        op: Option<String>,
    }
    let family = match from_json::<Peek>("case", line)?.op {
        None => &FAMILIES[0],
        Some(op) => named(&op).ok_or_else(|| {
            let names = names().collect::<Vec<_>>().join(", ");
            Error::input("op", format_args!("one of {names}"), op)
        })?,
    };
    (family.of_json)(line)
}

fn refuse(e: &Error) -> String {
    serde_json::json!({ "error": e.to_string() }).to_string()
}

/// A bug in one case is no reason not to answer the next.
fn caught(case: &dyn AnyCase) -> Result<String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.reply()))
        .unwrap_or_else(|_| Err(Error::Wrong("siskin panicked, which is a bug".into())))
}

//! `siskin bench --serve`: a case per line in, an answer per line out, until the input ends.

use crate::case::AnyCase;
use crate::error::{Error, Result};
use crate::json::to_json;
use crate::{attention, bench, ecoformer, hamming};
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
pub fn reply(line: &[u8], limit: impl Fn(AnyCase) -> AnyCase) -> String {
    match AnyCase::parse(line).and_then(|case| caught(&limit(case))) {
        Ok(answer) => answer,
        Err(e) => refuse(&e),
    }
}

fn refuse(e: &Error) -> String {
    serde_json::json!({ "error": e.to_string() }).to_string()
}

/// A bug in one case is no reason not to answer the next.
fn caught(case: &AnyCase) -> Result<String> {
    let answer = || {
        Ok(match case {
            AnyCase::Linear(case) => to_json(&bench::answer(case)?),
            AnyCase::Attention(case) => to_json(&attention::answer(case)?),
            AnyCase::Hamming(case) => to_json(&hamming::answer(case)?),
            AnyCase::Ecoformer(case) => to_json(&ecoformer::answer(case)?),
        })
    };
    std::panic::catch_unwind(answer)
        .unwrap_or_else(|_| Err(Error::Wrong("siskin panicked, which is a bug".into())))
}

//! What the compiler made of the hot loops: as many dot products as the tile has registers, no calls, nothing on the
//! stack. Reads the assembly of a release build of the library.
//!
//! A binary of its own, left out of `cargo test`: it builds the library once more, as users do.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

fn say(line: &str) {
    std::io::stderr().write_all(format!("codegen: {line}\n").as_bytes()).unwrap();
}

/// The assembly of the library, or none where it cannot be made: said loudly.
fn assembly() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        say("NOT RUN: not x86-64");
        return None;
    }
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("codegen");
    let done = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["rustc", "--release", "--lib", "--quiet", "--target-dir"])
        .arg(&target)
        .args(["--", "--emit", "asm", "-C", "codegen-units=1", "-C", "debuginfo=0"])
        .args(["-C", "symbol-mangling-version=v0"])
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output();
    match done {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            say(&format!("NOT RUN: cargo rustc failed: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Err(e) => {
            say(&format!("NOT RUN: cargo was not started: {e}"));
            return None;
        }
    }
    let newest = std::fs::read_dir(target.join("release/deps"))
        .ok()?
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().starts_with("siskin-"))
        .filter(|f| f.path().extension().is_some_and(|e| e == "s"))
        .max_by_key(|f| f.metadata().and_then(|m| m.modified()).ok());
    match newest {
        Some(file) => std::fs::read_to_string(file.path()).ok(),
        None => {
            say("NOT RUN: no assembly file");
            None
        }
    }
}

/// The lines of the function whose symbol has all these parts, in this order.
fn function<'a>(asm: &'a str, parts: &[String]) -> Vec<&'a str> {
    let matches = |symbol: &str| {
        let mut rest = symbol;
        parts.iter().all(|p| match rest.find(p.as_str()) {
            Some(at) => {
                rest = &rest[at + p.len()..];
                true
            }
            None => false,
        })
    };
    let mut lines = asm.lines().skip_while(|l| !(l.ends_with(':') && l.starts_with('_') && matches(l)));
    let mut out: Vec<&str> = lines.by_ref().take_while(|l| !l.starts_with(".Lfunc_end")).collect();
    out.retain(|l| {
        let l = l.trim();
        !l.is_empty() && (l.starts_with(".L") || !l.starts_with(['.', '#']))
    });
    assert!(!out.is_empty(), "no function {parts:?}");
    out
}

fn mnemonic(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or("")
}

/// The innermost loops: from a label to the last jump back to it, without another such loop inside.
fn innermost<'a>(function: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut loops: Vec<(usize, usize)> = vec![];
    for (end, line) in function.iter().enumerate() {
        if mnemonic(line).starts_with('j') {
            let label = format!("{}:", line.split_whitespace().nth(1).unwrap_or(""));
            if let Some(start) = function[..end].iter().position(|l| l.trim() == label) {
                loops.push((start, end));
            }
        }
    }
    let inner =
        |&&(s, e): &&(usize, usize)| !loops.iter().any(|&(a, b)| (a, b) != (s, e) && a >= s && b <= e);
    loops.iter().filter(inner).map(|&(s, e)| function[s..=e].to_vec()).collect()
}

/// The innermost loops with the most instructions of a prefix, and how many those are.
fn hottest<'a>(asm: &'a str, parts: &[String], prefix: &str) -> (Vec<Vec<&'a str>>, usize) {
    let count = |body: &[&str]| body.iter().filter(|line| mnemonic(line).starts_with(prefix)).count();
    let mut loops = innermost(&function(asm, parts));
    let most = loops.iter().map(|l| count(l)).max().unwrap_or(0);
    assert!(most > 0, "{parts:?}: no loop with {prefix}");
    loops.retain(|l| count(l) == most);
    (loops, most)
}

/// The innermost loops with the most dot products (instructions of a prefix): each must have exactly this many, no call, and
/// no registers on the stack.
fn check(asm: &str, parts: &[String], dot: &str, count: usize) {
    let (loops, dots) = hottest(asm, parts, dot);
    for body in loops {
        let text = body.join("\n");
        assert_eq!(dots, count, "{parts:?}: {dot}\n{text}");
        assert!(!body.iter().any(|line| mnemonic(line).starts_with("call")), "{parts:?}: a call\n{text}");
        // Any vector instruction that touches the stack: a spill, or its reload.
        let spills = |line: &&&str| mnemonic(line).starts_with('v') && line.contains("%rsp");
        assert_eq!(body.iter().find(spills), None, "{parts:?}: the stack\n{text}");
    }
    say(&format!("{parts:?}: {count} {dot}"));
}

/// As [`check`], and nothing at all on the stack: no pointers either.
fn check_tight(asm: &str, parts: &[String], dot: &str, count: usize) {
    check(asm, parts, dot, count);
    for body in hottest(asm, parts, dot).0 {
        assert!(!body.iter().any(|line| line.contains("%rsp")), "{parts:?}: the stack\n{}", body.join("\n"));
    }
}

/// How a symbol spells constants of a function: in hexadecimal, but one that was there before by where that was.
fn constants(all: &[usize]) -> Vec<String> {
    let mut parts = vec![String::new()];
    for (i, n) in all.iter().enumerate() {
        let part = parts.last_mut().unwrap();
        if all[..i].contains(n) {
            part.push_str("KB");
            parts.push(String::new());
        } else {
            part.push_str(&format!("Kj{n:x}_"));
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn hot_loops() {
    let Some(asm) = assembly() else { return };
    // Mangled names: the length of each part, and the part; then constants.
    let of = |row: &'static str, part: &'static str, kernel: &[&'static str], numbers: &[usize]| {
        let (row, part) = (format!("4rows{}{row}", row.len()), format!("{}{part}", part.len()));
        let kernel = kernel.iter().map(|k| format!("{}{k}", k.len()));
        [row, part].into_iter().chain(kernel).chain(constants(numbers)).collect::<Vec<_>>()
    };
    // Blocks of bytes: 4 rows x 4 registers.
    for layout in ["KMajor", "KMajor4"] {
        check(&asm, &of("avx512_vnni", "bytes", &["spill", layout], &[4, 4]), "vpdpbusd", 16);
        check(&asm, &of("avx512_vbmi", "bytes", &["requantize", layout], &[4, 4]), "vpdpbusd", 16);
    }
    // 8 rows x 2 registers, of a half of each line.
    check(&asm, &of("avx512_vnni", "bytes", &["tall_sums"], &[]), "vpdpbusd", 16);
    check(&asm, &of("avx512_vbmi", "bytes", &["tall_bytes"], &[]), "vpdpbusd", 16);
    // Few tokens: 4 rows x 4 or 8 tokens, two entries at a time where a product is one instruction.
    let few = |row, numbers: &[usize]| {
        let mut parts = of(row, "bytes", &["few"], numbers);
        parts.insert(3, "Kb0_".to_string());
        parts
    };
    check(&asm, &few("avx512_vbmi", &[4, 8, 2]), "vpdpbusd", 4);
    check(&asm, &few("avx512_vnni", &[4, 8, 2]), "vpdpbusd", 4);
    check(&asm, &few("avx2", &[4, 8, 4]), "vpmaddwd", 8);
    // Looked up in registers, 1 to 4 tokens: of chunks of up to 8 entries, for the loop has a way past the rest.
    for tokens in 1..=4 {
        check(&asm, &of("avx512_vbmi", "bytes", &["look_up"], &[4, tokens]), "vpdpbusd", 2 * tokens);
    }
    check(&asm, &of("avx512_vnni", "bytes", &["spill", "KMajor32"], &[4, 2]), "vpdpbusd", 8);
    // Dense: 12 tokens x 2 registers, of one panel, without unrolling.
    check(&asm, &of("avx512_vnni", "bytes", &["tiles", "tile"], &[12, 1, 1]), "vpdpbusd", 24);
    // 6 tokens x 2 registers; a step is two 16-bit elements of K.
    check(&asm, &of("avx2", "bytes", &["tiles", "tile"], &[6, 1, 1]), "vpmaddwd", 12);
    // Floats: 12 tokens x 2 registers, 4 rows x 2 registers of lines, 4 lines x 2 registers.
    for storage in ["f32_weights", "bf16_weights", "f16_weights", "i8_weights"] {
        check(&asm, &of("avx512", "floats", &[storage, "tile"], &[12, 1, 1]), "vfmadd", 24);
    }
    check(&asm, &of("avx512", "floats", &["gather"], &[1, 4, 2, 32]), "vfmadd", 8);
    // Two panels: 16 sums of four rows, 8 of two, and of two single rows side by side, two entries at a time.
    check_tight(&asm, &of("avx512", "floats", &["gather"], &[2, 4, 2, 32]), "vfmadd", 16);
    check_tight(&asm, &of("avx512", "floats", &["gather"], &[2, 2, 2, 32]), "vfmadd", 8);
    check_tight(&asm, &of("avx512", "floats", &["gather"], &[2, 1, 2, 32]), "vfmadd", 16);
    check_tight(&asm, &of("avx2", "floats", &["gather"], &[1, 2, 4, 32]), "vfmadd", 8);
    check_tight(&asm, &of("avx2", "floats", &["gather"], &[1, 1, 4, 32]), "vfmadd", 16);
    check(&asm, &of("avx512", "floats", &["scatter"], &[2, 32]), "vfmadd", 8);
    check(&asm, &of("avx2", "floats", &["f32_weights", "tile"], &[6, 1, 1]), "vfmadd", 12);
    check(&asm, &of("avx512_bf16", "pairs", &["bf16_weights", "tile"], &[12, 1, 1]), "vdpbf16ps", 24);
    check(&asm, &of("avx512_bf16", "pairs", &["gather"], &[1, 4, 4, 64]), "vdpbf16ps", 16);
    check(&asm, &of("avx512_bf16", "pairs", &["scatter"], &[4, 64]), "vdpbf16ps", 8);
    // Attention: 6 rows x 4 registers, x 2 where there are 16 of them.
    let attention = |row, part, registers| of(row, part, &["multiply", "tile"], &[6, registers]);
    check_tight(&asm, &attention("avx512", "floats", 4), "vfmadd", 24);
    check_tight(&asm, &attention("avx512_bf16", "pairs", 4), "vdpbf16ps", 24);
    check_tight(&asm, &attention("avx512_vnni", "bytes", 4), "vpdpbusd", 24);
    check_tight(&asm, &attention("avx2", "floats", 2), "vfmadd", 12);
    // Exponentials, of 8 registers, or of 4 that become bytes: the polynomial, of fewer terms for bytes, and what is left of the integer
    // (that itself is a vfmsub).
    for (scores, each, registers) in [
        ("exp_floats", 6, 8),
        ("exp_ints", 6, 8),
        ("exp_floats_of_bytes", 4, 8),
        ("exp_ints_of_bytes", 4, 8),
        ("bytes_of_floats", 4, 4),
        ("bytes_of_ints", 4, 4),
    ] {
        check_tight(&asm, &of("avx512", "floats", &["passes", scores], &[]), "vfmadd", each * registers);
    }
    // Binary codes: 4 of 4 slices (2 of 3), each counted in one instruction or by two tables.
    check_tight(&asm, &of("avx512_vbmi", "codes", &["run"], &[4, 4]), "vpopcntw", 16);
    check_tight(&asm, &of("avx512", "codes", &["run"], &[4, 4]), "vpshufb", 32);
    check_tight(&asm, &of("avx2", "codes", &["run"], &[3, 2]), "vpshufb", 12);
    // The three passes over a row of a LayerNorm.
    for row in ["in_place", "in_place_sum", "of_x", "of_sum"] {
        let parts = ["norm", row, "avx512"].map(|part| format!("{}{part}", part.len()));
        let computes = |line: &&str| line.contains("%zmm") && mnemonic(line).ends_with("ps");
        let moves = |line: &&str| mnemonic(line).starts_with("vmov") || mnemonic(line).starts_with("vxor");
        let wide = |body: &Vec<&str>| body.iter().any(|line| computes(line) && !moves(line));
        let loops: Vec<_> = innermost(&function(&asm, &parts)).into_iter().filter(wide).collect();
        assert!(loops.len() >= 3, "{parts:?}: {} loops of whole registers", loops.len());
        for body in loops {
            let calls = body.iter().any(|line| mnemonic(line).starts_with("call"));
            assert!(!calls, "{parts:?}: a call\n{}", body.join("\n"));
        }
        say(&format!("{parts:?}: no call"));
    }
    // It saturates: an exact sum cannot be made of it.
    assert!(!asm.contains("vpmaddubsw") && !asm.contains("pmaddubsw"));
    // vpdpbusds saturates too.
    assert!(!asm.contains("vpdpbusds"));
}

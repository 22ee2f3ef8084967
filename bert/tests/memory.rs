//! An encoder that is built of a checkpoint never has the whole model in memory beside itself.
//!
//! A binary of its own, which runs itself: what is measured is the most memory that a process ever had.
#![cfg(target_os = "linux")]

use siskin::{Ctx, MatMut};
use siskin_bert::{
    Checkpoint, Config, Encoder, Family, Model, Options, Precision, Source, Tokens, Workspace,
};
use std::process::Command;

/// Says which precision, and in which folder, to the process that is measured.
const FOLDER: &str = "SISKIN_TEST_MEMORY_FOLDER";
const PRECISION: &str = "SISKIN_TEST_MEMORY_PRECISION";

/// Bytes by the name that the system gives them.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    1024.0 * line.trim().trim_end_matches(" kB").parse::<f64>().unwrap()
}

#[test]
fn the_most_memory_is_little_more_than_what_stays() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let mut config = Config::new(Family::Bert, 8, 256, 4);
    config.vocab_size = 10_000;
    Model::generated(config, 1).unwrap().save(folder.path()).unwrap();
    for precision in ["f32", "int8"] {
        let mut one = Command::new(std::env::current_exe().unwrap());
        one.args(["--exact", "one_process", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(PRECISION, precision);
        let out = one.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
        let numbers = said.lines().find_map(|line| line.strip_prefix("measured ")).expect("a measurement");
        let numbers: Vec<f64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
        let [most, stays] = numbers[..] else { panic!("{numbers:?}") };
        println!("{precision}: {:.1} MB at most, {:.1} MB stay", most / 1e6, stays / 1e6);
        // Beside it there are a layer on its way, the activations of a short text, and what the process has anyway.
        assert!(most < 1.2 * stays + 4e6, "{precision}: {most} bytes at most, {stays} stay");
    }
}

/// Builds an encoder, embeds a text, and says how much memory that took.
#[test]
fn one_process() {
    let (Some(folder), Ok(precision)) = (std::env::var_os(FOLDER), std::env::var(PRECISION)) else { return };
    let precision = if precision == "int8" { Precision::Int8 } else { Precision::F32 };
    let before = memory("VmRSS");
    let ctx = Ctx::serial().unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let encoder = Encoder::build(&checkpoint, &ctx, &Options::new(precision)).unwrap();
    let (mut out, mut workspace) = (vec![0.0; 256], Workspace::new());
    let text = Tokens::new(&[7; 16], &[0, 16]).unwrap();
    encoder.forward(text, MatMut::new(&mut out, 1, 256).unwrap(), &ctx, &mut workspace).unwrap();
    let config = checkpoint.config();
    let embeddings = 4 * (config.vocab_size + config.max_positions) * config.hidden_size;
    println!("\nmeasured {} {}", memory("VmHWM") - before, encoder.packed_bytes() + embeddings);
}

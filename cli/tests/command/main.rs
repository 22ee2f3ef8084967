//! The command `siskin`: as its users meet it, and the parts of it that decide what is right.

mod attention;
mod cases;
mod checks;
mod cli;
mod common;
mod ecoformer;
mod ecoformer_bench;
mod ecoformer_run;
mod embed;
mod files;
mod fuzz;
mod hamming;
mod output;
mod plot;
mod pruning;
mod reference;

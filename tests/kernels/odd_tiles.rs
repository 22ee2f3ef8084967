//! The drivers with tiles of odd heights, widths and depths (1x1x1, 3x5x2, 5x8x4 and others: tokens x features x elements
//! of K), which no CPU's tier has: so that nothing in them holds for powers of two alone.
//!
//! Dense: the tile is odd in all three. Block-sparse: panels of 64, 16 and 1 tokens and groups of 4 rows and 1 are the
//! format of what is packed, the same for every tile; odd is how many registers of a panel go at a time, and the sizes.
#![cfg(feature = "internal")]

use crate::common::layer::*;
use crate::common::{BLOCKS, Manner, Rng, cases, custom, serial};
use siskin::internal::kernels::odd::ODD;
use siskin::internal::linear::PanelLayout;
use siskin::{Isa, Scratch};

fn pick<T: Copy>(r: &mut Rng, all: &[T]) -> T {
    all[r.below(all.len())]
}

fn size(r: &mut Rng, most: usize) -> usize {
    if r.below(2) == 0 { r.below(most) } else { pick(r, &[1, 2, 3, 5, 15, 17, 63, 64, 65]) }
}

fn check(case: Case, scratch: &mut Scratch) {
    let case = case.valid();
    let data = case.data();
    let want = data.expected();
    for (i, tier) in ODD.iter().enumerate() {
        let layer = data.builder(|b| b.build_odd(i).unwrap());
        for (threads, manner) in
            [(1, Manner::Honest), (2, Manner::Backwards), (3, Manner::Honest), (7, Manner::Backwards)]
        {
            let ctx = custom(Isa::Scalar, threads, manner);
            let got = data.forward(&layer, (0, case.m), &ctx, scratch);
            assert_eq!(got, want, "{} {threads} threads {case:?}", tier.bytes.dense.name);
        }
        if case.m > 0 {
            let t = case.seed as usize % case.m;
            let row = data.forward(&layer, (t, 1), &serial(Isa::Scalar), &mut Scratch::new());
            assert_eq!(row, want[t * case.n..][..case.n], "{} row {t} {case:?}", tier.bytes.dense.name);
        }
    }
}

#[test]
fn random_layers_on_odd_tiles() {
    let mut r = Rng::new(17);
    let mut scratch = Scratch::new();
    for seed in 0..u64::from(cases(300)) {
        let block = if r.below(2) == 0 { None } else { pick(&mut r, &BLOCKS) };
        let case = Case {
            seed,
            m: size(&mut r, 135),
            n: size(&mut r, 140),
            k: size(&mut r, 120),
            block,
            weight_zeros: r.below(2) == 0,
            input: pick(&mut r, &INS),
            to: pick(&mut r, &TOS),
            residual: if r.below(3) == 0 { pick(&mut r, &RESIDUALS) } else { Res::None },
            act: pick(&mut r, &ACTS),
        };
        check(case, &mut scratch);
    }
}

/// The smallest layers, and each output of dense and sparse layers, not by chance.
#[test]
fn every_output_of_odd_tiles() {
    let mut scratch = Scratch::new();
    for (i, to) in TOS.into_iter().enumerate() {
        for block in [None, Some((4, 1)), Some((5, 8))] {
            for (m, n, k) in [(1, 1, 1), (3, 5, 2), (5, 8, 4), (6, 9, 5), (37, 41, 11)] {
                let seed = (i * 100 + m) as u64;
                let (input, residual, act) = (In::Packed(PanelLayout::Rows), Res::None, Act::Relu);
                check(
                    Case { seed, m, n, k, block, weight_zeros: true, input, to, residual, act },
                    &mut scratch,
                );
            }
        }
    }
}

/// A layer of unsigned bytes whose output is its exact sums.
fn sums([m, n, k]: [usize; 3], block: Option<(usize, usize)>) -> Case {
    Case {
        seed: 3,
        m,
        n,
        k,
        block,
        weight_zeros: false,
        input: In::U8,
        to: To::I32,
        residual: Res::None,
        act: Act::Identity,
    }
}

/// Tokens enough for several blocks of wide elements in a task.
#[test]
fn more_tokens_than_a_block_of_wide_ones() {
    check(sums([301, 11, 1021], None), &mut Scratch::new());
}

/// A kernel that needs a state of its thread (here one that stops without it) has it in every task, and no thread keeps it.
#[test]
fn the_state_of_a_thread_is_set_and_released() {
    use siskin::internal::kernels::odd::{RELEASED, SET};
    use std::sync::atomic::Ordering;

    let before = SET.load(Ordering::Relaxed);
    for block in [None, Some((4, 1))] {
        check(sums([70, 140, 64], block), &mut Scratch::new());
    }
    assert!(SET.load(Ordering::Relaxed) > before, "no tier of these has a state");
    // Tasks of other tests are in it for a moment.
    while SET.load(Ordering::Relaxed) != RELEASED.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
}

/// The three that the drivers must have seen are there.
#[test]
fn the_tiles_are_odd() {
    let shape = |i: usize| {
        let kernel = ODD[i].bytes.dense;
        (kernel.run.len(), kernel.nr, 4 / kernel.x_bytes)
    };
    let shapes: Vec<_> = (0..ODD.len()).map(shape).collect();
    for odd in [(1, 1, 1), (3, 5, 2), (5, 8, 4)] {
        assert!(shapes.contains(&odd), "{shapes:?}");
    }
}

//! A sweep over the dense kernels of floats in the table, one call each, against plain Rust: every height, every storage,
//! one panel and several, going on from earlier sums, scaled by groups.

use crate::common::{Rng, cases, tiers};
use siskin::internal::driver::linear::weights::Dense;
use siskin::internal::kernels::byte_table::DenseKernel;
use siskin::internal::kernels::dense::{Run, Tile};
use siskin::linear::Weight;
use siskin::{MatRef, bf16, f16};

const POISON: f32 = 123.25;

struct Sweep<'a> {
    kernel: DenseKernel,
    run: Run,
    tokens: usize,
    panels: usize,
    pairs: bool,
    scaled: bool,
    r: &'a mut Rng,
}

impl Sweep<'_> {
    fn all<T: Weight>(&mut self, of: impl Fn(f32) -> T, back: impl Fn(T) -> f32) {
        for k in [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 100] {
            for mode in 0..if self.scaled { 4 } else { 3 } {
                // Fewer where the CPU is emulated.
                if self.r.below(1000) >= cases(1000) as usize {
                    continue;
                }
                self.one(k, mode, &of, &back);
            }
        }
    }

    /// Mode 0: from nothing; 1: on from what is there; 2: from nothing, and a bias at last; 3: scaled by groups of 4.
    fn one<T: Weight>(&mut self, k: usize, mode: usize, of: impl Fn(f32) -> T, back: impl Fn(T) -> f32) {
        let (kernel, m, n) = (self.kernel, self.tokens, self.panels * self.kernel.nr);
        let w: Vec<T> = (0..n * k).map(|_| of(self.r.float(-3.0, 3.0))).collect();
        let packed = Dense::pack(MatRef::new(&w, n, k).unwrap(), kernel, None);
        let x: Vec<f32> = (0..m * k).map(|_| bf16::from_f32(self.r.float(-2.0, 2.0)).to_f32()).collect();
        // Rows of 4-byte steps; what is past the last element of a pair is 0.
        let stride = packed.steps() * 4 + [0, 4, 64][self.r.below(3)];
        let mut rows = vec![0u8; m * stride];
        for (i, &x) in x.iter().enumerate() {
            let (t, k) = (i / k, i % k);
            match self.pairs {
                true => rows[t * stride + 2 * k..][..2].copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
                false => rows[t * stride + 4 * k..][..4].copy_from_slice(&x.to_le_bytes()),
            }
        }
        let scales: Vec<f32> = (0..k.div_ceil(4) * n).map(|_| self.r.float(0.1, 1.0)).collect();
        let bias: Vec<f32> = (0..n).map(|_| self.r.float(-1.0, 1.0)).collect();
        let out_stride = n + [0, 3, 64][self.r.below(3)];
        let before: Vec<f32> = (0..m * n).map(|_| self.r.float(-1.0, 1.0)).collect();
        let mut got = vec![POISON; m * out_stride + 64];
        for (t, before) in before.chunks(n).enumerate() {
            got[t * out_stride..][..n].copy_from_slice(before);
        }
        // SAFETY: the tier is supported, and everything has the lengths that the tile names.
        unsafe {
            (self.run)(&Tile {
                x: rows.as_ptr(),
                stride,
                weights: packed.panels(0..self.panels).as_ptr(),
                panel_bytes: packed.panel_bytes(),
                steps: packed.steps(),
                init: std::ptr::null(),
                resume: mode == 1,
                scales: if mode == 3 { scales.as_ptr() } else { std::ptr::null() },
                group: if mode == 3 { 4 } else { packed.steps() },
                scales_stride: n,
                out: got.as_mut_ptr().cast(),
                out_stride,
                bias: if mode == 2 { bias.as_ptr() } else { std::ptr::null() },
                // Nothing is read there.
                ahead: std::ptr::without_provenance(4096),
                ahead_lines: 3,
                y: std::ptr::without_provenance(4096),
                y_stride: 64,
                y_bytes: self.r.below(3),
            });
        }
        for t in 0..m {
            for f in 0..n {
                let term = |acc: f32, i: usize| x[t * k + i].mul_add(back(w[f * k + i]), acc);
                let start = if mode == 1 { before[t * n + f] } else { 0.0 };
                let want = match mode {
                    2 => (0..k).fold(start, term) + bias[f],
                    3 => (0..k.div_ceil(4)).fold(0.0, |total, g| {
                        let sum = (4 * g..(4 * g + 4).min(k)).fold(0.0, term);
                        sum.mul_add(scales[g * n + f], total)
                    }),
                    _ => (0..k).fold(start, term),
                };
                let got = std::mem::replace(&mut got[t * out_stride + f], POISON);
                let near = self.pairs && (got - want).abs() <= 1e-5 * (k + 1) as f32;
                assert!(
                    near || got.to_bits() == want.to_bits(),
                    "{} {m} x {n} x {k} mode {mode}",
                    kernel.name
                );
            }
        }
        assert!(got.iter().all(|&v| v == POISON), "{} wrote too far", kernel.name);
    }
}

#[test]
fn dense_kernels_of_floats() {
    let mut r = Rng::new(41);
    for tier in tiers("dense_kernels_of_floats") {
        let floats = tier.float.f32.dense.iter().zip(0..);
        let pairs = tier.pairs.into_iter().flat_map(|p| p.dense.iter()).map(|k| (k, 4));
        for (&kernel, stored) in floats.chain(pairs) {
            let one = kernel.run.iter().map(|&run| (run, 1));
            let several = kernel.several.iter().map(|s| (s.run, s.panels));
            let heights = (0..kernel.run.len()).chain(0..kernel.several.len());
            for ((run, panels), i) in one.chain(several).zip(heights) {
                let mut sweep = Sweep {
                    kernel,
                    run,
                    tokens: i + 1,
                    panels,
                    pairs: stored == 4,
                    scaled: stored == 3,
                    r: &mut r,
                };
                match stored {
                    0 => sweep.all(|v| v, |v: f32| v),
                    2 => sweep.all(f16::from_f32, |v: f16| v.to_f32()),
                    3 => sweep.all(|v| (v * 40.0) as i8, |v: i8| f32::from(v)),
                    _ => sweep.all(bf16::from_f32, |v: bf16| v.to_f32()),
                }
            }
        }
    }
}

//! A sweep over the kernels of binary codes in the table, one call each, against a loop over bits: also of registers that others
//! are always preferred to.

use crate::common::{Rng, all_codes, isas, say};
use siskin::internal::kernels::codes::table::Codes;
use siskin::internal::kernels::codes::{Search, Tile, offer, pack};

const POISON: u16 = 0xa55a;

/// The rows of the table that this CPU can run.
fn kernels(test: &str) -> Vec<&'static Codes> {
    isas(test);
    let run: Vec<_> = all_codes().filter(|codes| codes.set.is_supported()).collect();
    say(&format!("{test}: ran {:?}", run.iter().map(|codes| codes.name).collect::<Vec<_>>()));
    run
}

/// What codes are filled with.
#[derive(Debug, Clone, Copy)]
enum Fill {
    Random,
    Zeros,
    Ones,
}

fn codes(fill: Fill, len: usize, bits: usize, r: &mut Rng) -> Vec<u64> {
    let words = bits.div_ceil(64);
    let mut all = vec![0u64; len * words];
    for (i, b) in (0..len).flat_map(|i| (0..bits).map(move |b| (i, b))) {
        let set = match fill {
            Fill::Random => r.next() & 1 == 1,
            Fill::Zeros => false,
            Fill::Ones => true,
        };
        all[i * words + b / 64] |= u64::from(set) << (b % 64);
    }
    all
}

fn distance(a: &[u64], b: &[u64], bits: usize) -> u16 {
    (0..bits).filter(|&i| (a[i / 64] ^ b[i / 64]) >> (i % 64) & 1 == 1).count() as u16
}

fn packed(kernels: &Codes, b: &[u64], words: usize, slices: usize) -> Vec<u16> {
    let panels = (b.len() / words).div_ceil(kernels.lanes);
    let mut to = vec![POISON; panels * slices * kernels.lanes];
    // SAFETY: the tier is supported.
    unsafe { pack::pick(kernels.set.isa)(b, words, slices, kernels.lanes, &mut to) };
    to
}

#[test]
fn tiles_are_loops_over_bits() {
    let mut r = Rng::new(1);
    for kernels in kernels("tiles_are_loops_over_bits") {
        let lanes = kernels.lanes;
        for width in kernels.widths {
            for bits in [16 * width.slices - 15, 16 * width.slices - 3, 16 * width.slices] {
                let words = bits.div_ceil(64);
                let fills =
                    [(Fill::Random, Fill::Random), (Fill::Zeros, Fill::Ones), (Fill::Ones, Fill::Ones)];
                for ((of_a, of_b), len) in fills
                    .into_iter()
                    .flat_map(|f| [1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2].map(|n| (f, n)))
                {
                    let (a, b) = (codes(of_a, width.rows, bits, &mut r), codes(of_b, len, bits, &mut r));
                    let panels = packed(kernels, &b, words, width.slices);
                    let runs = [(width.distances, None), (width.less_twice, Some(2 * bits as u16 + 1))];
                    for (runs, from) in runs {
                        for (run, rows) in [(runs.several, width.rows), (runs.one, 1)] {
                            let stride = len + 5;
                            let mut out = vec![POISON; rows * stride + 64];
                            // SAFETY: the kernel is supported; all that it names is there.
                            unsafe {
                                run(&Tile {
                                    a: a.as_ptr(),
                                    words,
                                    b: panels.as_ptr(),
                                    codes: len,
                                    out: out.as_mut_ptr(),
                                    stride,
                                    from: from.unwrap_or(0),
                                });
                            }
                            for (i, got) in out.iter().enumerate() {
                                let (row, col) = (i / stride, i % stride);
                                let want = if row < rows && col < len {
                                    let d = distance(&a[row * words..], &b[col * words..], bits);
                                    from.map_or(d, |from| from - 2 * d)
                                } else {
                                    POISON
                                };
                                assert_eq!(*got, want, "{} {bits} bits, {len} codes, {i}", kernels.name);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn searches_are_sorts() {
    let mut r = Rng::new(2);
    for kernels in kernels("searches_are_sorts") {
        let lanes = kernels.lanes;
        for width in kernels.widths {
            let bits = 16 * width.slices - r.below(16);
            let words = bits.div_ceil(64);
            for len in [1, lanes, 2 * lanes + 1, 20 * lanes - 1] {
                for k in [1, 2, 10, 4 * lanes, 4 * lanes + 1] {
                    let fill = if r.below(4) == 0 { Fill::Ones } else { Fill::Random };
                    let (a, b) = (codes(Fill::Random, 1, bits, &mut r), codes(fill, len, bits, &mut r));
                    let panels = packed(kernels, &b, words, width.slices);
                    // In two parts, as a driver does it.
                    let split = len / 2 / lanes * lanes;
                    let mut best = vec![u64::MAX; k];
                    for (first, codes) in [(0, split), (split, len - split)] {
                        if codes > 0 {
                            let t = Search {
                                a: a.as_ptr(),
                                b: panels[first * width.slices..].as_ptr(),
                                codes,
                                first: 7 + first as u32,
                                best: best.as_mut_ptr(),
                                k,
                            };
                            // SAFETY: the kernel is supported; all that it names is there.
                            unsafe { (width.nearest)(&t) };
                        }
                    }
                    best.sort_unstable();
                    let number =
                        |i: usize| u64::from(distance(&a, &b[i * words..], bits)) << 32 | (7 + i as u64);
                    let mut want: Vec<u64> = (0..len).map(number).collect();
                    want.sort_unstable();
                    want.resize(want.len().max(k), u64::MAX);
                    assert_eq!(best, want[..k], "{} {bits} bits, {len} codes, {k} of them", kernels.name);
                }
            }
        }
    }
}

#[test]
fn a_heap_keeps_the_smallest() {
    let mut r = Rng::new(3);
    for k in 1..40 {
        let numbers: Vec<u64> = (0..200).map(|_| r.next() % 100).collect();
        let mut best = vec![u64::MAX; k];
        for &number in &numbers {
            offer(&mut best, number);
        }
        let mut want = numbers.clone();
        want.sort_unstable();
        assert_eq!(best[0], want[k - 1]);
        best.sort_unstable();
        assert_eq!(best, want[..k]);
    }
}

/// The table has what dispatch relies on.
#[test]
fn every_row_is_complete() {
    for codes in all_codes() {
        assert!(codes.lanes <= 64);
        let slices: Vec<usize> = codes.widths.iter().map(|w| w.slices).collect();
        assert!(slices.is_sorted() && slices.last() == Some(&16), "{}", codes.name);
        for bits in 1..=256 {
            // Packing reads no word that a code has not.
            let width = codes.width(bits);
            assert!(16 * width.slices >= bits && width.slices <= 4 * bits.div_ceil(64), "{bits}");
        }
        // SAFETY: the kernels are supported.
        let per_round =
            |of: unsafe fn(u64) -> u64| codes.set.is_supported().then(|| unsafe { (of(1), of(3)) });
        for (one, three) in [codes.peak, codes.peak_alone].into_iter().filter_map(per_round) {
            assert!(one > 0 && three == 3 * one, "{}", codes.name);
        }
    }
}

//! The end of a tile of sums in memory, where bytes are packed with saturation: beside the documented rule in f64, and the way of any
//! case, bit for bit.

use crate::common::{Rng, cases, tiers};
use siskin::Element;
use siskin::internal::kernels::activation::Curve;
use siskin::internal::kernels::epilogue::{Finish, Sums};

#[test]
fn bytes_of_tokens() {
    const POISON: u8 = 0xa5;
    let mut r = Rng::new(73);
    for tier in tiers("bytes_of_tokens") {
        for round in 0..cases(200) {
            let (tokens, features) = (r.below(14), [0, 8, 16, 24, 32, 48, 64][r.below(7)]);
            let (feature, ld, stride) = (r.below(40), features + r.below(20), features + r.below(20));
            // Scale and bias are read up to whole registers.
            let scale: Vec<f32> = (0..feature + 128).map(|_| r.float(1e-4, 1e-1)).collect();
            let bias: Vec<f32> = (0..feature + 128).map(|_| r.float(-300.0, 300.0)).collect();
            let sums: Vec<i32> = (0..tokens * ld + 64)
                .map(|_| match r.below(8) {
                    0 => i32::MAX / 16,
                    1 => i32::MIN / 16,
                    _ => r.next() as i32 % 10_000,
                })
                .collect();
            let table: [u8; 256] = std::array::from_fn(|_| r.byte());
            let (low, high) = [(0, 255), (40, 200)][r.below(2)];
            let to = Finish {
                scale: &scale,
                bias: &bias,
                token_scale: None,
                corrections: [None; 2],
                residual: None,
                curve: Curve::Identity,
                clamp: (f32::NEG_INFINITY, f32::INFINITY),
                element: Element::U8,
                post: 1.0,
                zero: r.below(256) as i32,
                low,
                high,
                table: [None, Some(&table)][r.below(2)],
                flip: [0, 0x80][r.below(2)],
                saturating: true,
            };
            let run = |to: &Finish<'_>| {
                let mut out = vec![POISON; tokens * stride + 64];
                let tile = Sums {
                    sums: sums.as_ptr(),
                    ld,
                    transposed: false,
                    token: 0,
                    tokens,
                    feature,
                    features,
                    out: out.as_mut_ptr(),
                    stride,
                };
                // SAFETY: the tier is supported; sums and parameters are there up to whole registers, and room for the outputs.
                unsafe { (tier.packing.epilogue)(to, &tile) };
                out
            };
            let got = run(&to);
            assert_eq!(got, run(&Finish { saturating: false, ..to }), "{} round {round}", tier.set.name);
            for (at, byte) in got.iter().enumerate() {
                let (token, n) = (at / stride.max(1), at % stride.max(1));
                let mut want = POISON;
                if token < tokens && n < features {
                    let (sum, at) = (f64::from(sums[token * ld + n] as f32), feature + n);
                    // Rounded once, as a fused multiply-add is.
                    let v = (sum * f64::from(scale[at]) + f64::from(bias[at])) as f32;
                    let q = f64::from(v).round_ties_even() + f64::from(to.zero);
                    let q = q.clamp(low.into(), high.into()) as u8;
                    want = to.table.map_or(q, |table| table[usize::from(q)]) ^ to.flip;
                }
                assert_eq!(*byte, want, "{} round {round}, token {token}, feature {n}", tier.set.name);
            }
        }
    }
}

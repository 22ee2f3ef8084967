//! From exact sums, token by token, to the output: scale and bias, residual, activation, requantize.
//!
//! Every step is one IEEE operation in f32, so all tiers agree; `requantize.rs` does the same without leaving the
//! registers of a sparse tile.

use super::activation::{Activation, Function, Gelu, GeluTanh, Identity, Silu, apply};
use super::simd::Simd;
use half::{bf16, f16};

/// Output features that a tile has at most.
pub const WIDTH: usize = 64;

/// Zero points give terms that are a number of the token times a number of the feature.
#[derive(Debug, Clone, Copy)]
pub struct Rank1<'a> {
    /// By feature, for the whole layer.
    pub feature: &'a [i32],
    /// By token, for the whole call.
    pub token: &'a [i32],
}

/// What is added before the activation, as the caller holds it.
#[derive(Debug, Clone, Copy)]
pub enum Addend {
    /// Floats.
    F32(*const f32),
    /// bfloat16.
    Bf16(*const bf16),
    /// Halves.
    F16(*const f16),
    /// Bytes, their scale and zero point.
    U8(*const u8, f32, i32),
    /// Signed bytes, their scale and zero point.
    I8(*const i8, f32, i32),
}

/// Where a row of outputs goes: element (0, 0) of the whole output.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Exact sums.
    I32(*mut i32),
    /// Floats.
    F32(*mut f32),
    /// bfloat16.
    Bf16(*mut bf16),
    /// Halves.
    F16(*mut f16),
    /// Bytes; each is flipped by the mask at last.
    U8(*mut u8, u8),
}

// SAFETY: pointers to the caller's matrices, borrowed for the call; tasks write disjoint tiles.
unsafe impl Sync for Target {}
// SAFETY: as above, only read.
unsafe impl Sync for Addend {}

/// The same for all tiles of a call.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// By feature; padded to whole tiles.
    pub scale: &'a [f32],
    /// By feature; padded to whole tiles.
    pub bias: &'a [f32],
    /// By token: multiplies the scale.
    pub token_scale: Option<&'a [f32]>,
    /// Subtracted from the sums.
    pub corrections: [Option<Rank1<'a>>; 2],
    /// The residual and its stride.
    pub addend: Option<(Addend, usize)>,
    /// f.
    pub activation: Activation,
    /// Limits of f's result.
    pub clamp: (f32, f32),
    /// Output steps per unit.
    pub post: f32,
    /// Zero point, unsigned.
    pub zero: i32,
    /// Lowest byte.
    pub low: u8,
    /// Highest byte.
    pub high: u8,
    /// What each byte becomes.
    pub table: Option<&'a [u8; 256]>,
    /// The output and its stride.
    pub target: (Target, usize),
}

/// A tile of sums: tokens `token ..` and features `feature ..` of the call.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// `[token][ld]`; readable up to whole registers.
    pub sums: *const i32,
    /// Elements from a token to the next; in a transposed tile from a feature to the next.
    pub ld: usize,
    /// Whether the sums are `[feature][ld]`, of floats: for whole pairs of registers of features, without an addend.
    pub transposed: bool,
    /// The first token.
    pub token: usize,
    /// How many.
    pub tokens: usize,
    /// The first output feature.
    pub feature: usize,
    /// How many: at most `WIDTH`.
    pub features: usize,
}

/// The signature.
///
/// # Safety
/// The CPU has the tier; the tile is inside the plan's arrays, target and addend.
pub type Run = unsafe fn(&Plan<'_>, &Sums);

/// One tile.
#[inline(always)]
pub unsafe fn run<S: Simd, const FLOAT: bool>(plan: &Plan<'_>, tile: &Sums) {
    // SAFETY: as `Run`.
    unsafe {
        match plan.activation {
            Activation::Identity => tokens::<S, Identity, FLOAT>(plan, tile),
            Activation::Gelu => tokens::<S, Gelu, FLOAT>(plan, tile),
            Activation::GeluTanh => tokens::<S, GeluTanh, FLOAT>(plan, tile),
            Activation::Silu => tokens::<S, Silu, FLOAT>(plan, tile),
        }
    }
}

#[inline(always)]
unsafe fn tokens<S: Simd, A: Function, const FLOAT: bool>(plan: &Plan<'_>, tile: &Sums) {
    let whole = tile.features / (2 * S::LANES) * (2 * S::LANES);
    let by_token = (plan.token_scale, plan.corrections[0]);
    let straight = plan.addend.is_none() && plan.corrections[1].is_none();
    // SAFETY: as `Run`.
    unsafe {
        if FLOAT && tile.transposed {
            transposed::<S, A>(plan, tile);
            return finish_bytes(plan, tile);
        }
        let first = match by_token {
            (None, None) if straight => {
                columns::<S, A, FLOAT, false>(plan, tile, whole);
                whole
            }
            (Some(_), Some(_)) if straight => {
                columns::<S, A, FLOAT, true>(plan, tile, whole);
                whole
            }
            _ => 0,
        };
        if first < tile.features {
            rows::<S, A, FLOAT>(plan, tile, first);
        }
        finish_bytes(plan, tile);
    }
}

/// The common case, for the first `whole` features: two registers of features for all tokens, their parameters loaded
/// once. `TOKEN` says that each token has a scale and a zero point of its own.
#[inline(always)]
unsafe fn columns<S: Simd, A: Function, const FLOAT: bool, const TOKEN: bool>(
    plan: &Plan<'_>,
    tile: &Sums,
    whole: usize,
) {
    let mut c = 0;
    while c < whole {
        let feature = tile.feature + c;
        // SAFETY: as `Run`.
        unsafe {
            let (mut scale, mut bias) = ([S::splat_f(0.0); 2], [S::splat_f(0.0); 2]);
            let mut by_feature = [S::splat(0); 2];
            for v in 0..2 {
                scale[v] = S::load_f(plan.scale.as_ptr().add(feature + v * S::LANES));
                bias[v] = S::load_f(plan.bias.as_ptr().add(feature + v * S::LANES));
                if let (true, Some(rank1)) = (TOKEN, plan.corrections[0]) {
                    by_feature[v] = S::load(rank1.feature.as_ptr().add(feature + v * S::LANES).cast());
                }
            }
            for m in 0..tile.tokens {
                let token = tile.token + m;
                let from = tile.sums.add(m * tile.ld + c);
                let at = token * plan.target.1 + feature;
                let mut y = bias;
                for v in 0..2 {
                    let mut sum = S::load(from.add(v * S::LANES).cast());
                    let mut scale = scale[v];
                    if let (true, Some(rank1), Some(scales)) = (TOKEN, plan.corrections[0], plan.token_scale)
                    {
                        let by_token = S::splat(*rank1.token.get_unchecked(token));
                        sum = S::sub(sum, S::mul(by_feature[v], by_token));
                        scale = S::mul_f(scale, S::splat_f(*scales.get_unchecked(token)));
                    }
                    if let Target::I32(p) = plan.target.0 {
                        S::store(p.add(at + v * S::LANES).cast(), sum);
                    }
                    y[v] = S::fma(real::<S, FLOAT>(sum), scale, bias[v]);
                }
                apply::<S, A, 2>(&mut y);
                store_registers::<S>(plan, at, y);
            }
        }
        c += 2 * S::LANES;
    }
}

/// A transposed tile: turned four tokens at a time, in registers.
#[inline(always)]
unsafe fn transposed<S: Simd, A: Function>(plan: &Plan<'_>, tile: &Sums) {
    for c in (0..tile.features).step_by(2 * S::LANES) {
        // SAFETY: as `Run`; the tile has room for whole fours of tokens.
        unsafe {
            let feature = tile.feature + c;
            let (mut scale, mut bias) = ([S::splat_f(0.0); 2], [S::splat_f(0.0); 2]);
            for v in 0..2 {
                scale[v] = S::load_f(plan.scale.as_ptr().add(feature + v * S::LANES));
                bias[v] = S::load_f(plan.bias.as_ptr().add(feature + v * S::LANES));
            }
            for t in (0..tile.tokens).step_by(4) {
                let mut y = [bias[0]; 8];
                for v in 0..2 {
                    // Part l of register r is feature 4 l + r of four tokens.
                    let from = tile.sums.add((c + v * S::LANES) * tile.ld + t);
                    let mut four = [S::splat(0); 4];
                    for r in 0..4 {
                        four[r] = S::load_parts(from.add(r * tile.ld).cast(), 16 * tile.ld);
                    }
                    let four = S::transpose4(four);
                    for i in 0..4 {
                        y[4 * v + i] = S::fma(S::as_f(four[i]), scale[v], bias[v]);
                    }
                }
                apply::<S, A, 8>(&mut y);
                for i in 0..4 {
                    if t + i < tile.tokens {
                        let at = (tile.token + t + i) * plan.target.1 + feature;
                        store_registers::<S>(plan, at, [y[i], y[4 + i]]);
                    }
                }
            }
        }
    }
}

/// A register of sums as floats.
#[inline(always)]
unsafe fn real<S: Simd, const FLOAT: bool>(sums: S::V) -> S::F {
    // SAFETY: the caller vouches for the tier.
    unsafe { if FLOAT { S::as_f(sums) } else { S::to_f32(sums) } }
}

/// Any case, token by token, from feature `first` of the tile.
#[inline(always)]
unsafe fn rows<S: Simd, A: Function, const FLOAT: bool>(plan: &Plan<'_>, tile: &Sums, first: usize) {
    let mut values = [0f32; WIDTH];
    let mut sums = [0i32; WIDTH];
    let (n, feature) = (tile.features - first, tile.feature + first);
    for m in 0..tile.tokens {
        let token = tile.token + m;
        // SAFETY: as `Run`; the plan's arrays are padded to whole tiles.
        unsafe {
            let mut from = tile.sums.add(m * tile.ld + first);
            if plan.corrections[0].is_some() {
                correct::<S>(plan, token, feature, n, from, &mut sums);
                from = sums.as_ptr();
            }
            let at = |stride: usize| token * stride + feature;
            if let (Target::I32(y), stride) = plan.target {
                std::ptr::copy_nonoverlapping(from, y.add(at(stride)), n);
                continue;
            }
            let token_scale = match plan.token_scale {
                None => 1.0,
                Some(scales) => *scales.get_unchecked(token),
            };
            if let Some((addend, stride)) = plan.addend {
                load_addend(addend, at(stride), n, &mut values);
            }
            let mut c = 0;
            while c < n {
                let scale = S::load_f(plan.scale.as_ptr().add(feature + c));
                let scale = S::mul_f(scale, S::splat_f(token_scale));
                let bias = S::load_f(plan.bias.as_ptr().add(feature + c));
                let sum = real::<S, FLOAT>(S::load(from.add(c).cast()));
                let mut y = [S::fma(sum, scale, bias)];
                if plan.addend.is_some() {
                    y[0] = S::add_f(y[0], S::load_f(values.as_ptr().add(c)));
                }
                apply::<S, A, 1>(&mut y);
                S::store_f(values.as_mut_ptr().add(c), y[0]);
                c += S::LANES;
            }
            store(plan, at(plan.target.1), &values[..n]);
        }
    }
}

/// Two registers to floats or bytes.
#[inline(always)]
unsafe fn store_registers<S: Simd>(plan: &Plan<'_>, at: usize, y: [S::F; 2]) {
    // SAFETY: as `Run`: the registers are inside the tile, and the tile inside the output.
    unsafe {
        if let Target::Bf16(p) = plan.target.0 {
            return S::store_2_bf16(p.add(at).cast(), [limited::<S>(plan, y[0]), limited::<S>(plan, y[1])]);
        }
        for v in 0..2 {
            let at = at + v * S::LANES;
            match plan.target.0 {
                Target::F32(p) => S::store_f(p.add(at), limited::<S>(plan, y[v])),
                Target::F16(p) => S::store_f16(p.add(at).cast(), limited::<S>(plan, y[v])),
                Target::U8(p, _) => {
                    let steps = S::mul_f(y[v], S::splat_f(plan.post));
                    let low = S::splat_f((i32::from(plan.low) - plan.zero) as f32);
                    let high = S::splat_f((i32::from(plan.high) - plan.zero) as f32);
                    let q = S::round(S::min_f(S::max_f(steps, low), high));
                    S::store_bytes(p.add(at), S::add(q, S::splat(plan.zero)));
                }
                Target::I32(_) | Target::Bf16(_) => {}
            }
        }
    }
}

/// Inside the plan's limits; NaN stays.
#[inline(always)]
unsafe fn limited<S: Simd>(plan: &Plan<'_>, y: S::F) -> S::F {
    if plan.clamp == (f32::NEG_INFINITY, f32::INFINITY) {
        return y;
    }
    // SAFETY: the caller vouches for the tier.
    unsafe {
        // The limits first: a NaN in either operand gives the second.
        let low = S::max_f(S::splat_f(plan.clamp.0), y);
        S::min_f(S::splat_f(plan.clamp.1), low)
    }
}

/// The table, and the flip to signed bytes.
#[inline(always)]
unsafe fn finish_bytes(plan: &Plan<'_>, tile: &Sums) {
    let (Target::U8(y, flip), stride) = plan.target else { return };
    if plan.table.is_none() && flip == 0 {
        return;
    }
    for token in tile.token..tile.token + tile.tokens {
        // SAFETY: as `Run`: this tile's bytes of the token.
        let y =
            unsafe { std::slice::from_raw_parts_mut(y.add(token * stride + tile.feature), tile.features) };
        if let Some(table) = plan.table {
            y.iter_mut().for_each(|y| *y = table[usize::from(*y)]);
        }
        y.iter_mut().for_each(|y| *y ^= flip);
    }
}

#[inline(always)]
unsafe fn correct<S: Simd>(
    plan: &Plan<'_>,
    token: usize,
    feature: usize,
    n: usize,
    from: *const i32,
    to: &mut [i32; WIDTH],
) {
    let mut c = 0;
    while c < n {
        // SAFETY: as `Run`.
        unsafe {
            let mut v = S::load(from.add(c).cast());
            for rank1 in plan.corrections.iter().flatten() {
                let by_feature = S::load(rank1.feature.as_ptr().add(feature + c).cast());
                let by_token = S::splat(*rank1.token.get_unchecked(token));
                v = S::sub(v, S::mul(by_feature, by_token));
            }
            S::store(to.as_mut_ptr().add(c).cast(), v);
        }
        c += S::LANES;
    }
}

#[inline(always)]
unsafe fn load_addend(addend: Addend, at: usize, n: usize, to: &mut [f32; WIDTH]) {
    // SAFETY: as `Run`: n elements from `at` are the caller's.
    unsafe {
        match addend {
            Addend::F32(p) => to[..n].copy_from_slice(std::slice::from_raw_parts(p.add(at), n)),
            Addend::Bf16(p) => {
                for (to, from) in to.iter_mut().zip(std::slice::from_raw_parts(p.add(at), n)) {
                    *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                }
            }
            Addend::F16(p) => {
                for (to, from) in to.iter_mut().zip(std::slice::from_raw_parts(p.add(at), n)) {
                    *to = from.to_f32();
                }
            }
            Addend::U8(p, scale, zero) => {
                for (to, from) in to.iter_mut().zip(std::slice::from_raw_parts(p.add(at), n)) {
                    *to = scale * (i32::from(*from) - zero) as f32;
                }
            }
            Addend::I8(p, scale, zero) => {
                for (to, from) in to.iter_mut().zip(std::slice::from_raw_parts(p.add(at), n)) {
                    *to = scale * (i32::from(*from) - zero) as f32;
                }
            }
        }
    }
}

/// What does not fill registers, or has no register form.
#[inline(always)]
unsafe fn store(plan: &Plan<'_>, at: usize, values: &[f32]) {
    let (low, high) = plan.clamp;
    let n = values.len();
    // SAFETY: as `Run`: n elements from `at` are this tile's.
    unsafe {
        match plan.target.0 {
            Target::I32(_) => {}
            Target::F32(y) => {
                let y = std::slice::from_raw_parts_mut(y.add(at), n);
                for (y, v) in y.iter_mut().zip(values) {
                    *y = clamp(*v, low, high);
                }
            }
            Target::Bf16(y) => {
                let y = std::slice::from_raw_parts_mut(y.add(at), n);
                for (y, v) in y.iter_mut().zip(values) {
                    *y = bf16::from_f32(clamp(*v, low, high));
                }
            }
            Target::F16(y) => {
                let y = std::slice::from_raw_parts_mut(y.add(at), n);
                for (y, v) in y.iter_mut().zip(values) {
                    *y = f16::from_f32(clamp(*v, low, high));
                }
            }
            Target::U8(y, _) => {
                let y = std::slice::from_raw_parts_mut(y.add(at), n);
                let low = (i32::from(plan.low) - plan.zero) as f32;
                let high = (i32::from(plan.high) - plan.zero) as f32;
                for (y, v) in y.iter_mut().zip(values) {
                    let q = limit(*v * plan.post, low, high).round_ties_even();
                    // Inside the limits, and never NaN.
                    *y = (q.to_int_unchecked::<i32>() + plan.zero) as u8;
                }
            }
        }
    }
}

/// `min(max(v, low), high)`; NaN stays.
#[inline(always)]
fn clamp(v: f32, low: f32, high: f32) -> f32 {
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

/// `min(max(v, low), high)`; NaN goes to low.
#[inline(always)]
fn limit(v: f32, low: f32, high: f32) -> f32 {
    let v = if v > low { v } else { low };
    if v < high { v } else { high }
}

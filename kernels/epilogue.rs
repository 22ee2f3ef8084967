//! The end of a tile: from sums to the output. For token m and output feature n, in f32 and rounded after each step,
//!
//! ```text
//! v = fma(sum[m, n], scale[n] * token_scale[m], bias[n])
//! v = activation(v + residual[m, n])
//! y = v as the output's element; bytes: clamp(round_half_even(v * post) + zero), and zero where v is NaN
//! ```
//!
//! A call makes one [`Finish`]. Two places read it: the loops here, for sums in memory, and `requantize.rs`, for bytes of sums
//! that stay inside the range of i32. (A dense tile of sums that need no more than a bias stores them as outputs
//! itself, see `driver::linear::dense`.) Both do the same IEEE operations in one order and give the same bits.

use super::activation::{Curve, Function, apply, with_curve};
use super::requantize;
use super::simd::Simd;
use crate::base::element::Element;
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
pub struct Residual {
    /// Element (0, 0) of the call.
    pub p: *const u8,
    /// What it is made of: floats, or bytes.
    pub element: Element,
    /// Elements from a token to the next.
    pub stride: usize,
    /// Scale and zero point of bytes.
    pub affine: (f32, i32),
}

// SAFETY: it points to the caller's matrix, which is borrowed for the call and only read.
unsafe impl Sync for Residual {}

/// What happens to the sums of a call: made once, read by every tile.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// By feature; padded to whole tiles.
    pub scale: &'a [f32],
    /// By feature; padded to whole tiles.
    pub bias: &'a [f32],
    /// By token: multiplies the scale.
    pub token_scale: Option<&'a [f32]>,
    /// Subtracted from the sums.
    pub corrections: [Option<Rank1<'a>>; 2],
    /// Added before the activation.
    pub residual: Option<Residual>,
    /// The activation, where it is a curve.
    pub curve: Curve,
    /// Limits of the activation's result.
    pub clamp: (f32, f32),
    /// What the output is made of.
    pub element: Element,
    /// Of bytes: output steps per unit; 1 where there is neither a curve, nor a residual, nor a scale of each token, for then they are in
    /// `scale` and `bias`.
    pub post: f32,
    /// Of bytes: the zero point, unsigned.
    pub zero: i32,
    /// Of bytes: the lowest.
    pub low: u8,
    /// Of bytes: the highest.
    pub high: u8,
    /// Of bytes: what each becomes.
    pub table: Option<&'a [u8; 256]>,
    /// Of bytes: the mask that each is flipped by at last.
    pub flip: u8,
    /// Whether bytes may be packed with saturation, by `requantize.rs`: nothing leaves the range of i32 before, and there is neither a
    /// residual nor a correction nor a scale of each token.
    pub saturating: bool,
}

/// A tile of sums: tokens `token ..` and features `feature ..` of the call.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// `[token][ld]`; readable up to whole registers.
    pub sums: *const i32,
    /// Elements from a token to the next; in a transposed tile from a feature to the next.
    pub ld: usize,
    /// Whether the sums are `[feature][ld]`, of floats: for whole pairs of registers of features, without a residual.
    pub transposed: bool,
    /// The first token.
    pub token: usize,
    /// How many.
    pub tokens: usize,
    /// The first output feature.
    pub feature: usize,
    /// How many: at most `WIDTH`.
    pub features: usize,
    /// Where the tile's first output goes.
    pub out: *mut u8,
    /// Elements from a token's outputs to the next token's.
    pub stride: usize,
}

/// The signature.
///
/// # Safety
/// The CPU has the tier; the tile is inside the arrays and the residual of the call; its outputs are the caller's own.
pub type Run = unsafe fn(&Finish<'_>, &Sums);

/// One tile.
#[inline(always)]
pub unsafe fn run<S: Simd, const FLOAT: bool>(to: &Finish<'_>, tile: &Sums) {
    // SAFETY: as `Run`.
    unsafe {
        let whole = tile.features.is_multiple_of(2 * S::LANES);
        if !FLOAT && to.saturating && to.curve == Curve::Identity && to.flip == 0 && whole {
            return requantize::tokens::<S>(to, tile);
        }
        let done = with_curve!(to.curve, f => registers::<S, _, FLOAT>(f, to, tile));
        if done < tile.features {
            rows::<S, FLOAT>(to, tile, done);
        }
        finish_bytes::<S>(to, tile);
    }
}

/// The features that fill pairs of registers, where each token has both a scale and a zero point or neither, and a residual, if there
/// is one, is of f32. Returns how many features are done.
#[inline(always)]
unsafe fn registers<S: Simd, A: Function, const FLOAT: bool>(f: A, to: &Finish<'_>, tile: &Sums) -> usize {
    let whole = tile.features / (2 * S::LANES) * (2 * S::LANES);
    // SAFETY: as `Run`.
    unsafe {
        if FLOAT && tile.transposed {
            transposed::<S, A>(f, to, tile);
            return tile.features;
        }
        if to.residual.is_some_and(|residual| residual.element != Element::F32) || to.corrections[1].is_some()
        {
            return 0;
        }
        let by_token = match (to.token_scale, to.corrections[0]) {
            (None, None) => to.residual.is_some(),
            (Some(_), Some(_)) => true,
            _ => return 0,
        };
        // Beside a curve, to ask again and again what there is costs nothing that can be measured.
        if !A::IDENTITY {
            columns::<S, A, Any, FLOAT, true>(f, to, tile, whole);
        } else if by_token {
            with_element!(to.element, E => columns::<S, A, E, FLOAT, true>(f, to, tile, whole));
        } else {
            with_element!(to.element, E => columns::<S, A, E, FLOAT, false>(f, to, tile, whole));
        }
    }
    whole
}

/// What outputs are made of, where it is known when this is compiled, so that no register asks.
trait Made {
    /// Of such a call.
    fn of(to: &Finish<'_>) -> Element;
}

macro_rules! made { ($($name:ident: $element:expr, $what:literal;)*) => { $(
    #[doc = $what]
    struct $name;
    impl Made for $name {
        #[inline(always)]
        fn of(to: &Finish<'_>) -> Element {
            $element(to)
        }
    }
)* } }
made! {
    Any: |to: &Finish<'_>| to.element, "Anything.";
    Integers: |_: &Finish<'_>| Element::I32, "Sums.";
    Floats: |_: &Finish<'_>| Element::F32, "f32.";
    // Signed bytes are made as unsigned ones.
    Bytes: |_: &Finish<'_>| Element::U8, "Bytes.";
}

/// Evaluates an expression in which `$e` is the type for an element.
macro_rules! with_element {
    ($element:expr, $e:ident => $do:expr) => {
        match $element {
            Element::I32 => with_element!(@ Integers, $e => $do),
            Element::F32 => with_element!(@ Floats, $e => $do),
            Element::U8 | Element::I8 => with_element!(@ Bytes, $e => $do),
            _ => with_element!(@ Any, $e => $do),
        }
    };
    (@ $type:ident, $e:ident => $do:expr) => {{
        type $e = $type;
        $do
    }};
}
use with_element;

/// The common case, for the first `whole` features: two registers of features for all tokens, their parameters loaded
/// once. `TOKEN` says that each token may have a scale, a zero point and a residual of its own.
#[inline(always)]
unsafe fn columns<S: Simd, A: Function, E: Made, const FLOAT: bool, const TOKEN: bool>(
    f: A,
    to: &Finish<'_>,
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
                scale[v] = S::load_f(to.scale.as_ptr().add(feature + v * S::LANES));
                bias[v] = S::load_f(to.bias.as_ptr().add(feature + v * S::LANES));
                if let (true, Some(rank1)) = (TOKEN, to.corrections[0]) {
                    by_feature[v] = S::load(rank1.feature.as_ptr().add(feature + v * S::LANES).cast());
                }
            }
            for m in 0..tile.tokens {
                let token = tile.token + m;
                let from = tile.sums.add(m * tile.ld + c);
                let at = m * tile.stride + c;
                let mut y = bias;
                for v in 0..2 {
                    let mut sum = S::load(from.add(v * S::LANES).cast());
                    let mut scale = scale[v];
                    if let (true, Some(rank1), Some(scales)) = (TOKEN, to.corrections[0], to.token_scale) {
                        let by_token = S::splat(*rank1.token.get_unchecked(token));
                        sum = S::sub(sum, S::mul(by_feature[v], by_token));
                        scale = S::mul_f(scale, S::splat_f(*scales.get_unchecked(token)));
                    }
                    if E::of(to) == Element::I32 {
                        S::store(tile.out.cast::<i32>().add(at + v * S::LANES).cast(), sum);
                        continue;
                    }
                    y[v] = S::fma(real::<S, FLOAT>(sum), scale, bias[v]);
                    if let (true, Some(residual)) = (TOKEN, to.residual) {
                        let row = residual.p.cast::<f32>().add(token * residual.stride + feature);
                        y[v] = S::add_f(y[v], S::load_f(row.add(v * S::LANES)));
                    }
                }
                apply::<S, A, 2>(f, &mut y);
                store_registers::<S, E, TOKEN>(to, tile.out, at, y);
            }
        }
        c += 2 * S::LANES;
    }
}

/// A transposed tile: turned four tokens at a time, in registers.
#[inline(always)]
unsafe fn transposed<S: Simd, A: Function>(f: A, to: &Finish<'_>, tile: &Sums) {
    for c in (0..tile.features).step_by(2 * S::LANES) {
        // SAFETY: as `Run`; the tile has room for whole fours of tokens.
        unsafe {
            let feature = tile.feature + c;
            let (mut scale, mut bias) = ([S::splat_f(0.0); 2], [S::splat_f(0.0); 2]);
            for v in 0..2 {
                scale[v] = S::load_f(to.scale.as_ptr().add(feature + v * S::LANES));
                bias[v] = S::load_f(to.bias.as_ptr().add(feature + v * S::LANES));
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
                for i in 0..4 {
                    if t + i < tile.tokens {
                        let mut y = [y[i], y[4 + i]];
                        apply::<S, A, 2>(f, &mut y);
                        store_registers::<S, Any, true>(to, tile.out, (t + i) * tile.stride + c, y);
                    }
                }
            }
        }
    }
}

/// Sums of floats on their way to a K-major panel of the next layer, which has as many tokens: a feature's sums are a line of it.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    /// `[feature][width]`, aligned as floats are.
    pub sums: *const f32,
    /// The first output feature.
    pub feature: usize,
    /// How many.
    pub features: usize,
    /// Tokens of a line, a multiple of 16.
    pub width: usize,
    /// The line of the first feature; the others follow.
    pub out: *mut f32,
}

/// The lines of some features, where the output is floats and there is no residual: feature by feature what [`run`] does token by
/// token.
///
/// # Safety
/// The CPU has the tier; the call has parameters for these features; the sums are there, and room for the lines.
#[inline(always)]
pub unsafe fn lines<S: Simd>(to: &Finish<'_>, lines: &Lines) {
    // SAFETY: as the caller.
    unsafe { with_curve!(to.curve, f => lines_of::<S, _>(f, to, lines)) }
}

#[inline(always)]
unsafe fn lines_of<S: Simd, A: Function>(f: A, to: &Finish<'_>, lines: &Lines) {
    for row in 0..lines.features {
        let line = row * lines.width;
        // SAFETY: the caller of `lines` vouches for the tier, the parameters, the sums and the room.
        unsafe {
            let scale = S::splat_f(*to.scale.get_unchecked(lines.feature + row));
            let bias = S::splat_f(*to.bias.get_unchecked(lines.feature + row));
            let mut t = line;
            while t < line + lines.width {
                let mut y = [S::fma(S::load_f(lines.sums.add(t)), scale, bias)];
                apply::<S, A, 1>(f, &mut y);
                S::store_f(lines.out.add(t), limited::<S>(to, y[0]));
                t += S::LANES;
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
unsafe fn rows<S: Simd, const FLOAT: bool>(to: &Finish<'_>, tile: &Sums, first: usize) {
    let mut values = [0f32; WIDTH];
    let mut sums = [0i32; WIDTH];
    let (n, feature) = (tile.features - first, tile.feature + first);
    for m in 0..tile.tokens {
        let token = tile.token + m;
        // SAFETY: as `Run`; the call's arrays are padded to whole tiles.
        unsafe {
            let mut from = tile.sums.add(m * tile.ld + first);
            if to.corrections[0].is_some() {
                correct::<S>(to, token, feature, n, from, &mut sums);
                from = sums.as_ptr();
            }
            let at = m * tile.stride + first;
            if to.element == Element::I32 {
                std::ptr::copy_nonoverlapping(from, tile.out.cast::<i32>().add(at), n);
                continue;
            }
            let token_scale = match to.token_scale {
                None => 1.0,
                Some(scales) => *scales.get_unchecked(token),
            };
            if let Some(residual) = to.residual {
                load_residual(residual, token * residual.stride + feature, n, &mut values);
            }
            let mut c = 0;
            while c < n {
                let scale = S::load_f(to.scale.as_ptr().add(feature + c));
                let scale = S::mul_f(scale, S::splat_f(token_scale));
                let bias = S::load_f(to.bias.as_ptr().add(feature + c));
                let sum = real::<S, FLOAT>(S::load(from.add(c).cast()));
                let mut y = S::fma(sum, scale, bias);
                if to.residual.is_some() {
                    y = S::add_f(y, S::load_f(values.as_ptr().add(c)));
                }
                S::store_f(values.as_mut_ptr().add(c), y);
                c += S::LANES;
            }
            with_curve!(to.curve, f => apply_all::<S, _>(f, &mut values, n));
            store::<S>(to, tile.out, at, &values[..n]);
        }
    }
}

/// The curve of the first `n` values, and of what fills up their last register.
#[inline(always)]
unsafe fn apply_all<S: Simd, A: Function>(f: A, values: &mut [f32; WIDTH], n: usize) {
    if A::IDENTITY {
        return;
    }
    for c in (0..n).step_by(S::LANES) {
        // SAFETY: the caller vouches for the tier; a register of a tile is inside its `WIDTH` values.
        unsafe {
            let p = values.as_mut_ptr().add(c);
            let mut y = [S::load_f(p)];
            apply::<S, A, 1>(f, &mut y);
            S::store_f(p, y[0]);
        }
    }
}

/// Two registers to floats or bytes, from element `at` of the tile's output on. Without `POST`, bytes have one step per unit.
#[inline(always)]
unsafe fn store_registers<S: Simd, E: Made, const POST: bool>(
    to: &Finish<'_>,
    out: *mut u8,
    at: usize,
    y: [S::F; 2],
) {
    // SAFETY: as `Run`: the registers are inside the tile, and the tile inside the output.
    unsafe {
        match E::of(to) {
            Element::Bf16 => {
                let y = [limited::<S>(to, y[0]), limited::<S>(to, y[1])];
                S::store_2_bf16(out.cast::<u16>().add(at), y);
            }
            Element::F32 => {
                for v in 0..2 {
                    S::store_f(out.cast::<f32>().add(at + v * S::LANES), limited::<S>(to, y[v]));
                }
            }
            Element::F16 => {
                for v in 0..2 {
                    S::store_f16(out.cast::<u16>().add(at + v * S::LANES), limited::<S>(to, y[v]));
                }
            }
            Element::U8 | Element::I8 => {
                let low = S::splat_f((i32::from(to.low) - to.zero) as f32);
                let high = S::splat_f((i32::from(to.high) - to.zero) as f32);
                let mut q = [S::splat(to.zero); 2];
                for v in 0..2 {
                    let steps = if POST { S::mul_f(y[v], S::splat_f(to.post)) } else { y[v] };
                    // The limits first: NaN passes them, and rounds to an integer whose low byte is 0.
                    q[v] = S::add(S::round(S::min_f(high, S::max_f(low, steps))), S::splat(to.zero));
                    if let (true, Some(table)) = (const { in_lanes::<S>() }, to.table) {
                        // The low byte of each lane is what is stored.
                        q[v] = S::lookup256(table, q[v]);
                    }
                }
                S::store_2_bytes(out.add(at), q);
            }
            _ => {}
        }
    }
}

/// Inside the limits; NaN stays.
#[inline(always)]
unsafe fn limited<S: Simd>(to: &Finish<'_>, y: S::F) -> S::F {
    if to.clamp == (f32::NEG_INFINITY, f32::INFINITY) {
        return y;
    }
    // SAFETY: the caller vouches for the tier.
    unsafe {
        // The limits first: a NaN in either operand gives the second.
        let low = S::max_f(S::splat_f(to.clamp.0), y);
        S::min_f(S::splat_f(to.clamp.1), low)
    }
}

/// Whether the table of a byte is looked up where it is still a lane of a wide register, before it is stored. Narrow registers look up
/// whole registers of stored bytes instead: a look-up takes them as long for four bytes as for sixteen.
const fn in_lanes<S: Simd>() -> bool {
    S::LOOKS_UP_BYTES && S::LANES == 16
}

/// The table, where it was not looked up in lanes, and the flip to signed bytes.
#[inline(always)]
unsafe fn finish_bytes<S: Simd>(to: &Finish<'_>, tile: &Sums) {
    let table = to.table.filter(|_| !in_lanes::<S>());
    if table.is_none() && to.flip == 0 {
        return;
    }
    for m in 0..tile.tokens {
        // SAFETY: as `Run`: this tile's bytes of the token.
        let y = unsafe { std::slice::from_raw_parts_mut(tile.out.add(m * tile.stride), tile.features) };
        match table {
            // SAFETY: the caller vouches for the tier.
            Some(table) if S::LOOKS_UP_BYTES => unsafe { look_up::<S>(table, y) },
            Some(table) => y.iter_mut().for_each(|y| *y = table[usize::from(*y)]),
            None => {}
        }
        y.iter_mut().for_each(|y| *y ^= to.flip);
    }
}

/// The table of each byte, in registers.
///
/// # Safety
/// The CPU has the tier of `S`.
#[inline(always)]
unsafe fn look_up<S: Simd>(table: &[u8; 256], y: &mut [u8]) {
    for part in y.chunks_mut(S::LANES * 4) {
        let mut bytes = [0; 64];
        bytes[..part.len()].copy_from_slice(part);
        // SAFETY: the caller vouches for the tier; no register is wider than 64 bytes.
        unsafe { S::store(bytes.as_mut_ptr(), S::lookup256(table, S::load(bytes.as_ptr()))) };
        part.copy_from_slice(&bytes[..part.len()]);
    }
}

#[inline(always)]
unsafe fn correct<S: Simd>(
    finish: &Finish<'_>,
    token: usize,
    feature: usize,
    n: usize,
    from: *const i32,
    sums: &mut [i32; WIDTH],
) {
    let mut c = 0;
    while c < n {
        // SAFETY: as `Run`.
        unsafe {
            let mut v = S::load(from.add(c).cast());
            for rank1 in finish.corrections.iter().flatten() {
                let by_feature = S::load(rank1.feature.as_ptr().add(feature + c).cast());
                let by_token = S::splat(*rank1.token.get_unchecked(token));
                v = S::sub(v, S::mul(by_feature, by_token));
            }
            S::store(sums.as_mut_ptr().add(c).cast(), v);
        }
        c += S::LANES;
    }
}

/// `n` elements of a residual from element `at` on, as floats.
#[inline(always)]
unsafe fn load_residual(from: Residual, at: usize, n: usize, to: &mut [f32; WIDTH]) {
    /// Each of `n` elements at `p` as a float.
    #[inline(always)]
    unsafe fn each<T: Copy>(p: *const u8, at: usize, to: &mut [f32], real: impl Fn(T) -> f32) {
        // SAFETY: as the caller, who has as many elements from `at` on as `to` has room for.
        let from = unsafe { std::slice::from_raw_parts(p.cast::<T>().add(at), to.len()) };
        to.iter_mut().zip(from).for_each(|(to, from)| *to = real(*from));
    }
    let (to, (scale, zero)) = (&mut to[..n], from.affine);
    // SAFETY: as `Run`: n elements from `at` are the caller's.
    unsafe {
        match from.element {
            Element::F32 => each(from.p, at, to, |x: f32| x),
            Element::Bf16 => each(from.p, at, to, |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16)),
            Element::F16 => each(from.p, at, to, |x: f16| x.to_f32()),
            Element::U8 => each(from.p, at, to, |x: u8| scale * (i32::from(x) - zero) as f32),
            Element::I8 => each(from.p, at, to, |x: i8| scale * (i32::from(x) - zero) as f32),
            other => unreachable!("no residual of {other}"),
        }
    }
}

/// What does not fill registers, or has no register form: from element `at` of the tile's output on.
#[inline(always)]
unsafe fn store<S: Simd>(to: &Finish<'_>, out: *mut u8, at: usize, values: &[f32]) {
    /// Each value as an element.
    #[inline(always)]
    unsafe fn each<T>(out: *mut u8, at: usize, values: &[f32], element: impl Fn(f32) -> T) {
        // SAFETY: as the caller, who has as many elements from `at` on as there are values.
        let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<T>().add(at), values.len()) };
        out.iter_mut().zip(values).for_each(|(out, v)| *out = element(*v));
    }
    let (low, high) = to.clamp;
    // SAFETY: as `Run`: these elements are this tile's.
    unsafe {
        match to.element {
            Element::F32 => each(out, at, values, |v| clamp(v, low, high)),
            Element::Bf16 => each(out, at, values, |v| bf16::from_f32(clamp(v, low, high))),
            Element::F16 => each(out, at, values, |v| f16::from_f32(clamp(v, low, high))),
            Element::U8 | Element::I8 => {
                let low = (i32::from(to.low) - to.zero) as f32;
                let high = (i32::from(to.high) - to.zero) as f32;
                let table = to.table.filter(|_| in_lanes::<S>());
                each(out, at, values, |v| {
                    let q = clamp(v * to.post, low, high).round_ties_even();
                    let q = if q.is_nan() { 0.0 } else { q };
                    // Inside the limits, and never NaN.
                    let byte = (q.to_int_unchecked::<i32>() + to.zero) as u8;
                    table.map_or(byte, |table| table[usize::from(byte)])
                });
            }
            _ => {}
        }
    }
}

/// `min(max(v, low), high)`; NaN stays.
#[inline(always)]
fn clamp(v: f32, low: f32, high: f32) -> f32 {
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

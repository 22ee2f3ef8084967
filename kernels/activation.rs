//! Curve functions, the same bits on every tier.
//!
//! GELU (erf or tanh form) and SiLU are x * F(x) with F(-x) = 1 - F(x), so f(x) = max(x, 0) - h(|x|) with
//! h(a) = a * (1 - F(a)), which is smooth, small and falls to 0. For GELU h is a piecewise polynomial: 16 segments on
//! [0, 7.5], degree 5; the error of f is below 2e-7 + 1.2e-7 |f| against f64 (tested). For SiLU it
//! is a / (1 + exp(a)).

use super::activation_tables::{GELU, GELU_TANH, STEP};
use super::simd::Simd;

/// A curve that every output goes through; the identity is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// x.
    Identity,
    /// x * (1 + erf(x / sqrt 2)) / 2.
    Gelu,
    /// x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2.
    GeluTanh,
    /// x / (1 + exp(-x)).
    Silu,
}

/// 1.5 * 2^23: adding it rounds a small float to an integer and leaves that integer in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// A curve that loops are compiled for: GELU in both forms is one of them, with the table of the form at run time.
pub trait Function: Copy {
    /// Whether nothing is done.
    const IDENTITY: bool = false;
    /// [`apply_scaled`] works on this times x: a power of two.
    const SCALE: f32 = 1.0;
    /// `SCALE * h(|x|)` of `SCALE * x`.
    ///
    /// The registers go in step: one at a time would be a single long chain of dependent instructions, longer than a core
    /// looks ahead.
    unsafe fn tail<S: Simd, const VECS: usize>(self, scaled: &[S::F; VECS]) -> [S::F; VECS];
}

/// x.
#[derive(Clone, Copy)]
pub struct Identity;
/// GELU, from its table.
#[derive(Clone, Copy)]
pub struct Piecewise(pub &'static [[f32; 16]; 6]);
/// SiLU.
#[derive(Clone, Copy)]
pub struct Silu;

impl Function for Identity {
    const IDENTITY: bool = true;
    #[inline(always)]
    unsafe fn tail<S: Simd, const VECS: usize>(self, scaled: &[S::F; VECS]) -> [S::F; VECS] {
        *scaled
    }
}

impl Function for Piecewise {
    const SCALE: f32 = STEP;
    #[inline(always)]
    unsafe fn tail<S: Simd, const VECS: usize>(self, scaled: &[S::F; VECS]) -> [S::F; VECS] {
        // SAFETY: the caller vouches for the tier.
        unsafe { piecewise::<S, VECS>(self.0, scaled) }
    }
}

impl Function for Silu {
    #[inline(always)]
    unsafe fn tail<S: Simd, const VECS: usize>(self, scaled: &[S::F; VECS]) -> [S::F; VECS] {
        // SAFETY: the caller vouches for the tier.
        unsafe { silu_tail::<S, VECS>(scaled) }
    }
}

/// An expression in which a name is the [`Function`] of a curve: compiled once for each type of function.
macro_rules! with_curve {
    ($curve:expr, $f:ident => $run:expr) => {{
        use $crate::kernels::activation::{Curve, Identity, Piecewise, Silu, table};
        match $curve {
            Curve::Identity => {
                let $f = Identity;
                $run
            }
            curve @ (Curve::Gelu | Curve::GeluTanh) => {
                let $f = Piecewise(table(curve));
                $run
            }
            Curve::Silu => {
                let $f = Silu;
                $run
            }
        }
    }};
}
pub(crate) use with_curve;

/// The table of a form of GELU.
pub fn table(curve: Curve) -> &'static [[f32; 16]; 6] {
    if curve == Curve::GeluTanh { &GELU_TANH } else { &GELU }
}

/// f of each lane of some registers.
#[inline(always)]
pub unsafe fn apply<S: Simd, A: Function, const VECS: usize>(f: A, x: &mut [S::F; VECS]) {
    if A::IDENTITY {
        return;
    }
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let mut scaled = *x;
        for v in 0..VECS {
            scaled[v] = S::mul_f(x[v], S::splat_f(A::SCALE));
        }
        let h = f.tail::<S, VECS>(&scaled);
        // Not of `scaled`, which may have overflowed. Of the two operands the maximum keeps a NaN in the second.
        for v in 0..VECS {
            let h = S::mul_f(h[v], S::splat_f(1.0 / A::SCALE));
            x[v] = S::sub_f(S::max_f(S::splat_f(0.0), x[v]), h);
        }
    }
}

/// `SCALE * f(x)` of `SCALE * x`. Scaling by a power of two commutes with every rounding, so whoever multiplies x by
/// something anyway saves two multiplications and gets the same bits.
#[inline(always)]
pub unsafe fn apply_scaled<S: Simd, A: Function, const VECS: usize>(f: A, x: &mut [S::F; VECS]) {
    if A::IDENTITY {
        return;
    }
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let h = f.tail::<S, VECS>(x);
        for v in 0..VECS {
            x[v] = S::sub_f(S::max_f(S::splat_f(0.0), x[v]), h[v]);
        }
    }
}

/// `STEP * h(|x|)` of `t = STEP * x`.
#[inline(always)]
unsafe fn piecewise<S: Simd, const VECS: usize>(table: &[[f32; 16]; 6], t: &[S::F; VECS]) -> [S::F; VECS] {
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let (mut d, mut magic, mut h) = (*t, *t, *t);
        for v in 0..VECS {
            d[v] = S::abs_min_f(t[v], S::splat_f(15.0));
        }
        for v in 0..VECS {
            magic[v] = S::add_f(d[v], S::splat_f(MAGIC));
            d[v] = S::reduce_f(d[v]);
        }
        for v in 0..VECS {
            h[v] = S::lookup16(&table[5], magic[v]);
        }
        for c in (0..5).rev() {
            for v in 0..VECS {
                h[v] = S::fma(h[v], d[v], S::lookup16(&table[c], magic[v]));
            }
        }
        h
    }
}

/// a / (1 + exp(a)) of a = |x|, by exp(-a): no overflow.
#[inline(always)]
unsafe fn silu_tail<S: Simd, const VECS: usize>(x: &[S::F; VECS]) -> [S::F; VECS] {
    let mut h = *x;
    for v in 0..VECS {
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let a = S::abs_min_f(x[v], S::splat_f(80.0));
            let e = exp::<S>(S::sub_f(S::splat_f(0.0), a));
            h[v] = S::div_f(S::mul_f(a, e), S::add_f(S::splat_f(1.0), e));
        }
    }
    h
}

/// exp(x) for -87 <= x <= 88, relative error below 2e-7: x = n ln 2 + r, a polynomial in r, times 2^n.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    /// 1 / k! from k = 6 down: on |r| <= ln 2 / 2 the next term is below 1.2e-7.
    const TERMS: [f32; 5] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    // SAFETY: the caller vouches for the tier.
    unsafe {
        let magic = S::fma(x, S::splat_f(std::f32::consts::LOG2_E), S::splat_f(MAGIC));
        let n = S::sub_f(magic, S::splat_f(MAGIC));
        // ln 2 in two parts, the first exact when multiplied by a small integer.
        let r = S::fma(n, S::splat_f(-0.693_359_4), x);
        let r = S::fma(n, S::splat_f(2.121_944_4e-4), r);
        let mut p = S::splat_f(TERMS[0]);
        for term in &TERMS[1..] {
            p = S::fma(p, r, S::splat_f(*term));
        }
        // 1 + (r + r^2 p): the small part first.
        let small = S::fma(S::mul_f(r, r), p, r);
        S::ldexp(S::add_f(S::splat_f(1.0), small), magic)
    }
}

/// f of one number: the reference, and what tables are made from.
pub fn evaluate(curve: Curve, x: f32) -> f32 {
    use super::scalar::Scalar;
    let mut v = [[x; 4]];
    // SAFETY: the scalar tier runs on every CPU.
    unsafe { with_curve!(curve, f => apply::<Scalar, _, 1>(f, &mut v)) }
    v[0][0]
}

//! LayerNorm: against its rule in f64, every tier against scalar, bytes against the library's quantizers, at the ends of memory.

use crate::common::errors::{Kind, named};
use crate::common::{Rng, WAYS, in_parallel, isas, serial};
#[cfg(unix)]
use crate::guard::{Guarded, Side};
use siskin::norm::{LayerNorm, NormBytes, NormOutput};
use siskin::quant::{self, QuantParams, Scheme};
use siskin::{Ctx, Element, Isa, MatMut, MatRef, Scratch};

const FEATURES: [usize; 15] = [1, 2, 3, 15, 16, 17, 31, 32, 33, 65, 384, 768, 1024, 1030, 4097];
const U8: Scheme = Scheme::Asymmetric(Element::U8);

/// Some tokens, their residual, and the parameters of a layer.
struct Case {
    m: usize,
    n: usize,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    factors: Option<Vec<f32>>,
    eps: f32,
}

/// Whether outputs of floats are there, and whether x is its place.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Floats {
    No,
    Beside,
    InPlace,
}

fn params() -> QuantParams {
    QuantParams::u8(0.021, 117).unwrap()
}

impl Case {
    /// Numbers around `offset`.
    fn new(seed: u64, m: usize, n: usize, (offset, size): (f32, f32)) -> Self {
        let mut r = Rng::new(seed);
        let mut floats =
            |n: usize, low: f32, high: f32| (0..n).map(|_| r.float(low, high)).collect::<Vec<f32>>();
        let x = floats(m * n, offset - size, offset + size);
        let residual = seed.is_multiple_of(2).then(|| floats(m * n, -size, size));
        let (gamma, beta) = (floats(n, -1.5, 1.5), floats(n, -0.5, 0.5));
        let factors = seed.is_multiple_of(3).then(|| floats(n, 0.1, 2.0));
        Case { m, n, x, residual, gamma, beta, factors, eps: [1e-12, 1e-5, 1e-3][seed as usize % 3] }
    }

    fn norm(&self) -> LayerNorm {
        let norm = LayerNorm::new(&self.gamma, &self.beta, self.eps).unwrap();
        match &self.factors {
            None => norm,
            Some(factors) => norm.with_byte_factors(factors).unwrap(),
        }
    }

    fn residual(&self) -> Option<MatRef<'_, f32>> {
        self.residual.as_ref().map(|r| MatRef::new(r, self.m, self.n).unwrap())
    }

    fn x(&self) -> MatRef<'_, f32> {
        MatRef::new(&self.x, self.m, self.n).unwrap()
    }

    fn floats(&self, ctx: &Ctx) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.m * self.n];
        let to = MatMut::new(&mut y, self.m, self.n).unwrap();
        self.norm().forward(self.x(), self.residual(), to, ctx, &mut Scratch::new()).unwrap();
        y
    }

    /// Floats, bytes and parameters, each token by its own range or all by [`params`].
    fn bytes(&self, floats: Floats, per_token: bool, ctx: &Ctx) -> (Vec<f32>, Vec<u8>, Vec<QuantParams>) {
        let (m, n, mut scratch) = (self.m, self.n, Scratch::new());
        let mut y = if floats == Floats::InPlace { self.x.clone() } else { vec![f32::NAN; m * n] };
        let (mut bytes, mut each) = (vec![0xaa; m * n], vec![params(); m]);
        let to = MatMut::new(&mut bytes, m, n).unwrap();
        let to = if per_token { (to, &mut each[..]).into() } else { (to, params()).into() };
        let of_y = MatMut::new(&mut y, m, n).unwrap();
        let norm = self.norm();
        match floats {
            Floats::InPlace => norm.forward_in_place(of_y, self.residual(), Some(to), ctx, &mut scratch),
            Floats::No => norm.forward(self.x(), self.residual(), to, ctx, &mut scratch),
            Floats::Beside => {
                let to = NormOutput::from(of_y).with_bytes(to);
                norm.forward(self.x(), self.residual(), to, ctx, &mut scratch)
            }
        }
        .unwrap();
        (y, bytes, each)
    }
}

/// The bits of numbers; NaN may have any payload.
fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| if y.is_nan() { u32::MAX } else { y.to_bits() }).collect()
}

#[test]
fn an_example_by_hand() {
    // The mean is 3, the variance 2: 1 / sqrt(2 + 2) is 0.5.
    let (x, residual) = ([1.0, 0.0, 2.0, 4.0, 5.0], [0.0, 2.0, 1.0, 0.0, 0.0]);
    let norm = LayerNorm::new(&[2.0, 1.0, 1.0, 1.0, -1.0], &[0.0, 0.0, 7.0, 0.25, 0.0], 2.0).unwrap();
    for isa in isas("an_example_by_hand") {
        let mut y = [f32::NAN; 5];
        let (x, residual) = (MatRef::new(&x, 1, 5).unwrap(), MatRef::new(&residual, 1, 5).unwrap());
        let to = MatMut::new(&mut y, 1, 5).unwrap();
        norm.forward(x, Some(residual), to, &serial(isa), &mut Scratch::new()).unwrap();
        assert_eq!(y, [-2.0, -0.5, 7.0, 0.75, -1.0]);
    }
}

/// The documented rule in f64, and how far f32 may be from it.
fn oracle(case: &Case, token: usize) -> (Vec<f64>, Vec<f64>) {
    let n = case.n as f64;
    let of = |v: &[f32], i: usize| f64::from(v[i]);
    let at = token * case.n;
    let h: Vec<f64> = (at..at + case.n)
        .map(|i| of(&case.x, i) + case.residual.as_ref().map_or(0.0, |residual| of(residual, i)))
        .collect();
    let mean = h.iter().sum::<f64>() / n;
    let variance = h.iter().map(|h| (h - mean).powi(2)).sum::<f64>() / n;
    let reciprocal = 1.0 / (variance + f64::from(case.eps)).sqrt();
    // Of the mean: what sums in 32 lanes lose at most, and h before it is summed.
    let unit = f64::from(f32::EPSILON) / 2.0;
    let steps = n / 32.0 + 12.0;
    let largest = h.iter().fold(0.0f64, |most, h| most.max(h.abs()));
    let lost = steps * unit * largest * reciprocal;
    let (mut y, mut far) = (Vec::new(), Vec::new());
    for (i, h) in h.iter().enumerate() {
        let (gamma, beta) = (of(&case.gamma, i), of(&case.beta, i));
        let normal = (h - mean) * reciprocal;
        y.push(normal * gamma + beta);
        far.push(
            gamma.abs() * (2.0 * lost + normal.abs() * (2.0 * steps * unit + lost * (2.0 + lost)))
                + 2.0 * unit * beta.abs()
                + 1e-37,
        );
    }
    (y, far)
}

#[test]
fn every_tier_has_the_bits_of_scalar_near_the_rule() {
    let isas = isas("every_tier_has_the_bits_of_scalar_near_the_rule");
    let sizes = [(0.0, 1.0), (3.0, 0.5), (-200.0, 2.0), (0.0, 1e-18), (0.0, 3e-4), (1e12, 1e13)];
    for (i, n) in FEATURES.into_iter().enumerate() {
        for (j, size) in sizes.into_iter().enumerate() {
            let case = Case::new((i * 7 + j) as u64, 3, n, size);
            let reference = case.floats(&serial(Isa::Scalar));
            for token in 0..case.m {
                let (exact, far) = oracle(&case, token);
                for k in 0..n {
                    let got = f64::from(reference[token * n + k]);
                    let off = (got - exact[k]).abs();
                    assert!(off <= far[k], "{n} {size:?} [{token}, {k}]: {got}, not {}", exact[k]);
                }
            }
            for &isa in &isas {
                let ctx = serial(isa);
                assert_eq!(bits(&case.floats(&ctx)), bits(&reference), "{isa} {n} {size:?}");
                for per_token in [false, true] {
                    let expected = case.bytes(Floats::No, per_token, &serial(Isa::Scalar));
                    for floats in [Floats::No, Floats::Beside, Floats::InPlace] {
                        let (y, bytes, params) = case.bytes(floats, per_token, &ctx);
                        if floats != Floats::No {
                            assert_eq!(bits(&y), bits(&reference), "{isa} {n} {size:?} {floats:?}");
                        }
                        assert!(
                            bytes == expected.1 && params == expected.2,
                            "{isa} {n} {size:?} {floats:?} {per_token}"
                        );
                    }
                }
            }
        }
    }
}

/// What the quantizers of the library make of floats that were multiplied by their factors.
fn quantized(case: &Case, y: &[f32], per_token: bool, ctx: &Ctx) -> (Vec<u8>, Vec<QuantParams>) {
    let (m, n) = (case.m, case.n);
    let factor = |i: usize| case.factors.as_ref().map_or(1.0, |factors| factors[i % n]);
    let y: Vec<f32> = y.iter().enumerate().map(|(i, y)| y * factor(i)).collect();
    let (mut bytes, mut each) = (vec![0; m * n], vec![params(); m]);
    let (of_y, to) = (MatRef::new(&y, m, n).unwrap(), MatMut::new(&mut bytes, m, n).unwrap());
    match per_token {
        true => quant::quantize_per_token(of_y, U8, to, &mut each, ctx).unwrap(),
        false => quant::quantize(of_y, &params(), to, ctx).unwrap(),
    }
    (bytes, each)
}

#[test]
fn bytes_are_those_of_the_quantizers() {
    for isa in isas("bytes_are_those_of_the_quantizers") {
        let ctx = serial(isa);
        for (seed, n) in FEATURES.into_iter().enumerate() {
            // The last are so large that whether they overflow is only known when they are computed.
            for size in [(0.1, 1.0), (0.0, 1e17)] {
                let case = Case::new(seed as u64, 4, n, size);
                let y = case.floats(&serial(Isa::Scalar));
                for per_token in [false, true] {
                    let (bytes, params) = quantized(&case, &y, per_token, &ctx);
                    let got = case.bytes(Floats::Beside, per_token, &ctx);
                    assert_eq!(got.2, params, "{isa} {n}");
                    assert_eq!(got.1, bytes, "{isa} {n} {per_token}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_token() {
    let (m, n) = (8, 37);
    let case = |residual: bool| {
        let mut case = Case::new(5, m, n, (0.0, 1.0));
        case.residual = residual.then(|| vec![0.0; m * n]);
        let mut set = |token: usize, values: &[f32]| {
            for (i, v) in values.iter().enumerate() {
                case.x[token * n + n - 1 - i * 5] = *v;
            }
        };
        set(1, &[f32::NAN]);
        set(2, &[f32::INFINITY]);
        set(3, &[f32::MAX, f32::MAX]);
        set(4, &[1e25]);
        set(6, &[f32::MIN_POSITIVE / 8.0, -0.0, 0.0]);
        case
    };
    for residual in [false, true] {
        let case = case(residual);
        let reference = case.floats(&serial(Isa::Scalar));
        let token = |t: usize| &reference[t * n..][..n];
        assert!((1..4).all(|t| token(t).iter().all(|y| y.is_nan())));
        // The square overflows: everything is nothing of it.
        assert_eq!(token(4), case.beta);
        assert!([0, 5, 6, 7].iter().all(|&t| token(t).iter().all(|y| y.is_finite())));
        for isa in isas("what_is_not_finite_stays_in_its_token") {
            let ctx = serial(isa);
            assert_eq!(bits(&case.floats(&ctx)), bits(&reference), "{isa}");
            let (y, bytes, _) = case.bytes(Floats::InPlace, false, &ctx);
            assert_eq!(bits(&y), bits(&reference), "{isa}");
            assert_eq!(bytes, quantized(&case, &reference, false, &ctx).0, "{isa}");
            assert!(bytes[n..4 * n].iter().all(|&b| b == 117), "NaN is the zero point");
        }
    }
}

#[test]
fn constant_tokens_are_beta() {
    for isa in isas("constant_tokens_are_beta") {
        for n in FEATURES {
            let mut case = Case::new(1, 2, n, (0.0, 1.0));
            // Powers of two: sums and the mean are exact.
            case.x = vec![0.25; 2 * n];
            case.x[n..].fill(-4096.0);
            let y = case.floats(&serial(isa));
            assert_eq!(bits(&y), bits(&[&case.beta[..], &case.beta].concat()), "{isa} {n}");
        }
    }
}

#[test]
fn nothing_is_written_where_a_token_has_no_range() {
    let (m, n) = (70, 130);
    for (seed, wrong) in [f32::NAN, f32::NEG_INFINITY, f32::MAX].into_iter().enumerate() {
        for isa in isas("nothing_is_written_where_a_token_has_no_range") {
            let mut case = Case::new(seed as u64, m, n, (0.0, 1.0));
            case.x[67 * n + 5] = wrong;
            case.x[67 * n + 6] = wrong;
            let (norm, mut y, mut bytes) = (case.norm(), case.x.clone(), vec![0xaa; m * n]);
            let mut each = vec![params(); m];
            let (ctx, mut scratch) = (serial(isa), Scratch::new());
            let mut to = NormOutput::from((MatMut::new(&mut bytes, m, n).unwrap(), &mut each[..]));
            let failed = norm.forward(case.x(), case.residual(), to, &ctx, &mut scratch);
            assert!(failed.as_ref().is_err_and(|e| e.to_string().contains("token 67")), "{failed:?}");
            named(failed, Kind::Value, "x");
            let of_y = MatMut::new(&mut y, m, n).unwrap();
            to = NormOutput::from((MatMut::new(&mut bytes, m, n).unwrap(), &mut each[..]))
                .with_bytes((MatMut::new(&mut [], 0, 0).unwrap(), params()));
            named(norm.forward(case.x(), case.residual(), to, &ctx, &mut scratch), Kind::Shape, "bytes");
            let to = Some((MatMut::new(&mut bytes, m, n).unwrap(), &mut each[..]).into());
            let failed = norm.forward_in_place(of_y, case.residual(), to, &ctx, &mut scratch);
            named(failed, Kind::Value, "h");
            assert_eq!(bits(&y), bits(&case.x));
            assert!(bytes.iter().all(|&b| b == 0xaa) && each.iter().all(|p| *p == params()));
        }
    }
}

#[test]
fn threads_and_batches_change_nothing() {
    let n = 97;
    for (seed, isa) in isas("threads_and_batches_change_nothing").into_iter().enumerate() {
        // Rows are normalized by fours: with 1, 2 and 3 left over, and some to each thread.
        for (m, per_token) in [5, 6, 7, 150].into_iter().flat_map(|m| [(m, true), (m, false)]) {
            let case = Case::new(seed as u64 + 5 * u64::from(per_token), m, n, (0.5, 2.0));
            let expected = case.bytes(Floats::Beside, per_token, &serial(isa));
            for way in 0..WAYS {
                for floats in [Floats::Beside, Floats::InPlace] {
                    assert_eq!(
                        in_parallel(isa, way, |ctx| case.bytes(floats, per_token, ctx)),
                        expected,
                        "{isa} {way} {m} {per_token}"
                    );
                }
            }
            for token in [0, 1, 3, 4, m / 2, m - 1] {
                let own = |all: &[f32]| all[token * n..][..n].to_vec();
                let residual = case.residual.as_deref().map(own);
                let (gamma, beta, factors) = (case.gamma.clone(), case.beta.clone(), case.factors.clone());
                let alone = Case { m: 1, x: own(&case.x), residual, gamma, beta, factors, ..case };
                let (y, bytes, params) = alone.bytes(Floats::Beside, per_token, &serial(isa));
                assert_eq!(bits(&y), bits(&own(&expected.0)));
                assert_eq!((&bytes[..], params[0]), (&expected.1[token * n..][..n], expected.2[token]));
            }
        }
    }
}

/// Rows far apart, in buffers that end where the next byte kills: nothing between rows or behind them is touched.
#[cfg(unix)]
#[test]
fn norms_stay_inside() {
    const POISON: f32 = -77.5;
    for isa in isas("norms_stay_inside") {
        let (ctx, mut scratch) = (serial(isa), Scratch::new());
        for (seed, n) in FEATURES.into_iter().enumerate() {
            let (m, stride, per_token) = ([3, 6, 9][seed % 3], n + seed % 4, seed % 2 == 1);
            let case = Case::new(seed as u64, m, n, (0.0, 1.0));
            let apart = |all: &[f32]| {
                let mut wide = vec![f32::NAN; (m - 1) * stride + n];
                all.chunks(n).enumerate().for_each(|(t, row)| wide[t * stride..][..n].copy_from_slice(row));
                wide
            };
            for side in [Side::Front, Side::Back] {
                let len = (m - 1) * stride + n;
                let x = Guarded::of(&apart(&case.x), side);
                let residual = case.residual.as_ref().map(|r| Guarded::of(&apart(r), side));
                let (mut y, mut q) = (Guarded::new(4 * len, side), Guarded::new(len, side));
                let mut each = vec![params(); m];
                y.slice_mut::<f32>(len).fill(POISON);
                q.slice_mut::<u8>(len).fill(0xaa);
                let of = |data| MatRef::with_stride(data, m, n, stride).unwrap();
                let residual = residual.as_ref().map(|r| of(r.slice::<f32>(len)));
                let bytes = MatMut::with_stride(q.slice_mut(len), m, n, stride).unwrap();
                let bytes: NormBytes<'_> = match per_token {
                    true => (bytes, &mut each[..]).into(),
                    false => (bytes, params()).into(),
                };
                let to = NormOutput::from(MatMut::with_stride(y.slice_mut(len), m, n, stride).unwrap());
                let to = to.with_bytes(bytes);
                case.norm().forward(of(x.slice(len)), residual, to, &ctx, &mut scratch).unwrap();
                let expected = case.bytes(Floats::Beside, per_token, &ctx);
                assert_eq!(each, expected.2);
                let (y, q) = (y.slice::<f32>(len), q.slice::<u8>(len));
                for at in 0..len {
                    let (token, k) = (at / stride, at % stride);
                    let (float, byte) = match k < n {
                        true => (expected.0[token * n + k], expected.1[token * n + k]),
                        false => (POISON, 0xaa),
                    };
                    assert_eq!((y[at].to_bits(), q[at]), (float.to_bits(), byte), "{isa} {n} {side:?} {at}");
                }
            }
        }
    }
}

#[test]
fn errors_name_the_argument() {
    let (ctx, mut scratch) = (Ctx::serial().unwrap(), Scratch::new());
    named(LayerNorm::new(&[], &[], 1e-5), Kind::Shape, "gamma");
    named(LayerNorm::new(&[1.0; 3], &[0.0; 2], 1e-5), Kind::Shape, "beta");
    named(LayerNorm::new(&[1.0, f32::NAN], &[0.0; 2], 1e-5), Kind::Value, "gamma");
    named(LayerNorm::new(&[1.0; 2], &[0.0, f32::INFINITY], 1e-5), Kind::Value, "beta");
    for eps in [0.0, -1e-5, f32::NAN, f32::INFINITY] {
        named(LayerNorm::new(&[1.0; 2], &[0.0; 2], eps), Kind::Value, "eps");
    }
    let norm = LayerNorm::new(&[1.0; 4], &[0.0; 4], 1e-5).unwrap();
    assert_eq!(norm.features(), 4);
    named(norm.clone().with_byte_factors(&[1.0; 3]), Kind::Shape, "factors");
    named(norm.clone().with_byte_factors(&[1.0, 1.0, 1.0, f32::NAN]), Kind::Value, "factors");

    let (data, mut y, mut q) = ([0.5; 12], [9.0; 12], [9u8; 12]);
    let (x, wide) = (MatRef::new(&data, 3, 4).unwrap(), MatRef::new(&data, 4, 3).unwrap());
    let mut each = [params(); 2];
    named(norm.forward(wide, None, MatMut::new(&mut y, 4, 3).unwrap(), &ctx, &mut scratch), Kind::Shape, "x");
    named(norm.forward(x, None, MatMut::new(&mut y, 4, 3).unwrap(), &ctx, &mut scratch), Kind::Shape, "y");
    let to = MatMut::new(&mut y, 3, 4).unwrap();
    named(norm.forward(x, Some(wide), to, &ctx, &mut scratch), Kind::Shape, "residual");
    let to = (MatMut::new(&mut q, 4, 3).unwrap(), params());
    named(norm.forward(x, None, to, &ctx, &mut scratch), Kind::Shape, "bytes");
    let to = (MatMut::new(&mut q, 3, 4).unwrap(), &mut each[..]);
    named(norm.forward(x, None, to, &ctx, &mut scratch), Kind::Shape, "params");
    let to = (MatMut::new(&mut q, 3, 4).unwrap(), QuantParams::i8(0.1, 0).unwrap());
    named(norm.forward(x, None, to, &ctx, &mut scratch), Kind::Unsupported, "params");
    let h = MatMut::new(&mut y, 4, 3).unwrap();
    named(norm.forward_in_place(h, None, None, &ctx, &mut scratch), Kind::Shape, "h");
    assert!(y == [9.0; 12] && q == [9; 12]);
    // No token is no error.
    let none = MatRef::new(&[], 0, 4).unwrap();
    norm.forward(none, None, MatMut::new(&mut [], 0, 4).unwrap(), &ctx, &mut scratch).unwrap();
}

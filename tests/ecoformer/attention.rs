//! What must hold for linear attention whatever the numbers: sequences, positions, heads and layouts that do not touch each other,
//! and the extremes of codes.

use crate::common::ecoformer::*;
use crate::common::*;
use siskin::ecoformer::{Bandwidth, BitCodes, LinearAttention, LinearAttentionInputs, Numerator, Sequences};
use siskin::quant::QuantParams;
use siskin::{Ctx, Executor, HeadsMut, HeadsRef, Isa, MatMut, Parallelism, Scratch, bf16, f16};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const POISON: f32 = -77.25;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Released,
    Consistent,
    Causal,
}
use Form::{Causal, Consistent, Released};

impl Form {
    fn attention(self, heads: usize, bits: usize) -> LinearAttention {
        let attention = LinearAttention::new(heads, bits).unwrap();
        match self {
            Released => attention,
            Consistent => attention.numerator(Numerator::Consistent),
            Causal => attention.numerator(Numerator::Consistent).causal(),
        }
    }
}

const FORMS: [Form; 3] = [Released, Consistent, Causal];

struct Call {
    form: Form,
    q: BitCodes,
    k: BitCodes,
    cu_seqlens: Vec<i32>,
}

impl Call {
    fn random(r: &mut Rng, form: Form, heads: usize, bits: usize, lengths: &[usize]) -> Self {
        let n = heads * lengths.iter().sum::<usize>();
        let (q, k) = (random_codes(r, n, bits), random_codes(r, n, bits));
        Call { form, q, k, cu_seqlens: cu_seqlens(lengths) }
    }

    /// Only some tokens, as one sequence.
    fn part(&self, heads: usize, tokens: std::ops::Range<usize>) -> Self {
        let [q, k] = [&self.q, &self.k].map(|codes| some_codes(codes, heads, tokens.clone()));
        Call { form: self.form, q, k, cu_seqlens: vec![0, tokens.len() as i32] }
    }

    fn run_to(&self, v: &Placed, out: &mut Placed, ctx: &Ctx) {
        let [_, heads, _] = v.shape;
        let attention = self.form.attention(heads, self.q.bits());
        let sequences = Sequences::own_packed(&self.cu_seqlens);
        let inputs = LinearAttentionInputs::new(&self.q, &self.k, v.view());
        attention.forward(inputs, &sequences, out.view_mut(), ctx, &mut Scratch::new()).unwrap();
    }

    /// With v next to each other.
    fn run(&self, v: &[f32], [heads, dim]: [usize; 2], ctx: &Ctx) -> Vec<f32> {
        let shape = [v.len() / heads / dim, heads, dim];
        let mut out = Placed::new(&vec![POISON; v.len()], shape, Place::Packed, POISON);
        self.run_to(&Placed::new(v, shape, Place::Packed, POISON), &mut out, ctx);
        out.taken_out(POISON).0
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Also where the codes and values of the others are anything.
#[test]
fn packed_sequences_are_as_each_alone() {
    let mut r = Rng::new(521);
    for isa in isas("packed_sequences_are_as_each_alone") {
        let ctx = serial(isa);
        for (form, [heads, dim, n]) in FORMS.into_iter().zip([[2, 24, 16], [3, 32, 70], [2, 7, 5]]) {
            let call = Call::random(&mut r, form, heads, n, &[1, 33, 0, 515, 64, 2]);
            let row = heads * dim;
            let mut v = floats(&mut r, call.q.len() * dim, 2.0);
            let alone: Vec<_> = call
                .cu_seqlens
                .windows(2)
                .map(|ends| {
                    let tokens = ends[0] as usize..ends[1] as usize;
                    call.part(heads, tokens.clone()).run(
                        &v[tokens.start * row..tokens.end * row],
                        [heads, dim],
                        &ctx,
                    )
                })
                .collect();
            assert_eq!(bits(&call.run(&v, [heads, dim], &ctx)), bits(&alone.concat()), "{isa} {form:?}");
            let long = call.cu_seqlens[3] as usize * row..call.cu_seqlens[4] as usize * row;
            v[long.clone()].fill(f32::NAN);
            let out = call.run(&v, [heads, dim], &ctx);
            assert!(out[long.clone()].iter().all(|x| x.is_nan()), "{isa} {form:?}");
            assert_eq!(bits(&out[..long.start]), bits(&alone[..3].concat()), "{isa} {form:?}");
            assert_eq!(bits(&out[long.end..]), bits(&alone[4..].concat()), "{isa} {form:?}");
        }
    }
}

/// A row is that of the whole form on the tokens so far, and nothing after it changes a bit of it.
#[test]
fn causal_rows_know_nothing_of_what_follows() {
    let mut r = Rng::new(522);
    for isa in isas("causal_rows_know_nothing_of_what_follows") {
        let ctx = serial(isa);
        for [heads, dim, n] in [[2, 24, 16], [1, 64, 130], [3, 16, 1]] {
            let len = 560;
            let call = Call::random(&mut r, Causal, heads, n, &[len]);
            let row = heads * dim;
            let v = floats(&mut r, len * row, 2.0);
            let out = call.run(&v, [heads, dim], &ctx);
            for tokens in [1, 2, 31, 32, 33, 64, 100, 511, 512, 513, 545, len] {
                let so_far = &v[..tokens * row];
                let whole = Call { form: Consistent, ..call.part(heads, 0..tokens) };
                let whole = whole.run(so_far, [heads, dim], &ctx);
                let last = (tokens - 1) * row..tokens * row;
                for (i, (got, want)) in out[last.clone()].iter().zip(&whole[last]).enumerate() {
                    assert!((got - want).abs() <= 2e-5, "{isa} row {tokens}, {i}: {got} for {want}");
                }
                // Fewer tokens, and as many of which the rest is something else.
                let prefix = call.part(heads, 0..tokens).run(so_far, [heads, dim], &ctx);
                assert_eq!(bits(&prefix), bits(&out[..tokens * row]), "{isa} {tokens} tokens");
                let mut other = Call::random(&mut r, Causal, heads, n, &[len]);
                for (codes, own) in [(&mut other.q, &call.q), (&mut other.k, &call.k)] {
                    let code = |i: usize| if i % len < tokens { own.code(i) } else { codes.code(i) };
                    let words = (0..own.len()).flat_map(|i| code(i).to_vec()).collect();
                    *codes = BitCodes::from_words(words, n).unwrap();
                }
                let mut v = v.clone();
                v[tokens * row..].fill(f32::NAN);
                let changed = other.run(&v, [heads, dim], &ctx);
                assert_eq!(bits(&changed[..tokens * row]), bits(&prefix), "{isa} {tokens} tokens");
                assert!(changed[tokens * row..].iter().all(|x| x.is_nan()), "{isa} {tokens} tokens");
            }
        }
    }
}

/// Wherever v and the context lie; between their rows nothing is read that counts, and nothing written.
#[test]
fn layouts_change_nothing() {
    let mut r = Rng::new(523);
    for isa in isas("layouts_change_nothing") {
        for form in FORMS {
            for (heads, dim, n) in [(2, 24, 16), (3, 32, 20), (1, 16, 64), (2, 1, 3)] {
                let call = Call::random(&mut r, form, heads, n, &[70, 5]);
                let v = floats(&mut r, 75 * heads * dim, 2.0);
                let want = call.run(&v, [heads, dim], &serial(isa));
                for (from, to) in PLACES.into_iter().flat_map(|from| PLACES.map(|to| (from, to))) {
                    let v = Placed::new(&v, [75, heads, dim], from, f32::NAN);
                    let mut out = Placed::new(&vec![f32::NAN; want.len()], v.shape, to, POISON);
                    in_parallel(isa, r.below(WAYS), |ctx| call.run_to(&v, &mut out, ctx));
                    let (got, clean) = out.taken_out(POISON);
                    let case = format!("{isa} {form:?} {heads} x {dim}, {from:?} to {to:?}");
                    assert!(clean, "{case}: what lies between was written");
                    assert_eq!(bits(&got), bits(&want), "{case}");
                }
            }
        }
    }
}

/// A value that is not a number reaches the queries of its sequence and head that meet it, in its own feature, and no others.
#[test]
fn what_is_not_a_number_stays_where_it_is() {
    let mut r = Rng::new(524);
    let isas = isas("what_is_not_a_number_stays_where_it_is");
    for (form, bad) in FORMS.into_iter().flat_map(|form| [f32::NAN, f32::INFINITY].map(|bad| (form, bad))) {
        let (heads, dim, n) = (3, 24, 20);
        let call = Call::random(&mut r, form, heads, n, &[40, 100, 30]);
        let mut v = floats(&mut r, 170 * heads * dim, 2.0);
        let clean = call.run(&v, [heads, dim], &serial(Isa::Scalar));
        // Of the second sequence.
        let (token, head, feature) = (40 + 50, 1, 11);
        v[(token * heads + head) * dim + feature] = bad;
        for &isa in &isas {
            let out = call.run(&v, [heads, dim], &serial(isa));
            for (i, (got, clean)) in out.iter().zip(&clean).enumerate() {
                let (t, h, f) = (i / dim / heads, i / dim % heads, i % dim);
                let met = (40..140).contains(&t) && (form != Causal || t >= token);
                match met && (h, f) == (head, feature) {
                    true => assert!(!got.is_finite(), "{isa} {form:?} {bad}: {t} {h} {f}: {got}"),
                    false => assert_eq!(got.to_bits(), clean.to_bits(), "{isa} {form:?} {bad}: {t} {h} {f}"),
                }
            }
        }
    }
}

/// All bits alike: the weights are the same for all keys, and all sums are exact here.
#[test]
fn extremes_of_codes() {
    let (heads, dim, len) = (2, 20, 75);
    for isa in isas("extremes_of_codes") {
        for n in [1usize, 3, 4, 63, 64, 65, 255, 256] {
            let beyond = if n % 64 == 0 { u64::MAX } else { (1 << (n % 64)) - 1 };
            let ones = || [vec![u64::MAX; n.div_ceil(64) - 1], vec![beyond]].concat().repeat(heads * len);
            let ones = BitCodes::from_words(ones(), n).unwrap();
            let zeros = BitCodes::from_words(vec![0; ones.words().len()], n).unwrap();
            let v: Vec<f32> = (0..len * heads * dim).map(|i| (i * 7 % 32) as f32 - 16.0).collect();
            for (q, k, product) in [(&ones, &ones, 1.0), (&zeros, &zeros, 1.0), (&ones, &zeros, -1.0)] {
                let (product, bias) = (product * n as f64, n as f64 + 1.0);
                for form in FORMS {
                    let call = Call { form, q: q.clone(), k: k.clone(), cu_seqlens: vec![0, len as i32] };
                    let out = call.run(&v, [heads, dim], &serial(isa));
                    for (i, got) in out.iter().enumerate() {
                        let (t, rest) = (i / dim / heads, i % (dim * heads));
                        let met = if form == Causal { t + 1 } else { len };
                        let sum: f64 = (0..met).map(|t| f64::from(v[t * heads * dim + rest])).sum();
                        let want = match form {
                            Released => {
                                (product * sum + bias * f64::from(v[i])) / (met as f64 * (product + bias))
                            }
                            _ => sum / met as f64,
                        };
                        let apart = (f64::from(*got) - want).abs();
                        assert!(
                            apart <= 1e-5 * want.abs().max(1.0),
                            "{isa} {n} {form:?} {i}: {got} for {want}"
                        );
                    }
                }
            }
        }
    }
}

/// The consistent form is a mean.
#[test]
fn weights_sum_to_1() {
    let mut r = Rng::new(525);
    for isa in isas("weights_sum_to_1") {
        for form in [Consistent, Causal] {
            for (heads, dim, n) in [(1, 16, 1), (2, 5, 16), (1, 64, 256)] {
                let call = Call::random(&mut r, form, heads, n, &[600, 1, 40]);
                let out = call.run(&vec![1.0; 641 * heads * dim], [heads, dim], &serial(isa));
                // Sums of whole numbers below 2^24: the one rounding is that of the quotient.
                assert!(out.iter().all(|x| (x - 1.0).abs() <= f32::EPSILON), "{isa} {form:?} {n}");
            }
        }
    }
}

/// A value alone is its own mean, of any weight.
#[test]
fn one_token_and_none() {
    let mut r = Rng::new(526);
    for isa in isas("one_token_and_none") {
        for form in FORMS {
            let v = floats(&mut r, 2 * 33, 2.0);
            let mut call = Call::random(&mut r, form, 2, 20, &[1]);
            for (got, v) in call.run(&v, [2, 33], &serial(isa)).iter().zip(&v) {
                assert!((got - v).abs() <= 1e-5, "{isa} {form:?}: {got} for {v}");
            }
            for lengths in [&[][..], &[0], &[0, 0]] {
                call = Call::random(&mut r, form, 2, 20, lengths);
                assert!(call.run(&[], [2, 33], &serial(isa)).is_empty());
            }
        }
    }
}

/// An executor that has one more thread whenever it is asked.
struct Growing(AtomicUsize);

impl Executor for Growing {
    fn threads(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

#[test]
fn threads_that_change_change_nothing() {
    let mut r = Rng::new(507);
    let (heads, dim, bits, lengths) = (2, 20, 20, [600, 1, 40]);
    let parts = Parts::random(&mut r, [heads, dim, 12, bits]);
    let n = lengths.iter().sum::<usize>();
    let x = floats(&mut r, n * heads * dim, 1.0);
    let view = HeadsRef::new(&x, n, heads, dim).unwrap();
    for isa in isas("threads_that_change_change_nothing") {
        let growing = || {
            let executor = Arc::new(Growing(AtomicUsize::new(1)));
            serial(isa).with_parallelism(Parallelism::Custom(executor))
        };
        for bandwidth in [Bandwidth::Sequence, Bandwidth::Frozen] {
            let codes = |ctx: &Ctx| encode(&parts.hash(), view, &cu_seqlens(&lengths), bandwidth, ctx).0;
            assert_eq!(codes(&growing()), codes(&serial(isa)), "{isa} {bandwidth:?}");
        }
        for form in FORMS {
            let call = Call::random(&mut r, form, heads, bits, &lengths);
            let [got, want] = [growing(), serial(isa)].map(|ctx| call.run(&x, [heads, dim], &ctx));
            assert_eq!(got, want, "{isa} {form:?}");
            let between = |ctx: &Ctx| {
                let mut out = vec![0; call.q.len() * call.k.len()];
                let to = MatMut::new(&mut out, call.q.len(), call.k.len()).unwrap();
                call.q.hamming(&call.k, to, ctx, &mut Scratch::new()).unwrap();
                out
            };
            assert_eq!(between(&growing()), between(&serial(isa)), "{isa}");
        }
    }
}

/// A context of another type is that of f32, rounded or quantized.
#[test]
fn contexts_of_any_type() {
    let mut r = Rng::new(508);
    let (heads, n, bits) = (2, 70, 20);
    let (u8s, i8s) = (QuantParams::u8(0.01, 128).unwrap(), QuantParams::i8(0.02, -5).unwrap());
    for isa in isas("contexts_of_any_type") {
        let ctx = serial(isa);
        // Padded, and not.
        for dim in [20, 32] {
            for form in FORMS {
                let call = Call::random(&mut r, form, heads, bits, &[n]);
                let v = floats(&mut r, n * heads * dim, 2.0);
                let want = call.run(&v, [heads, dim], &ctx);
                macro_rules! same {
                    ($t:ty, $round:expr $(, $params:expr)?) => {{
                        let mut got = vec![<$t>::default(); want.len()];
                        let out = HeadsMut::new(&mut got, n, heads, dim).unwrap();
                        $(let out = (out, $params);)?
                        let v = HeadsRef::new(&v, n, heads, dim).unwrap();
                        let inputs = LinearAttentionInputs::new(&call.q, &call.k, v);
                        let sequences = Sequences::own_packed(&call.cu_seqlens);
                        let attention = form.attention(heads, bits);
                        attention.forward(inputs, &sequences, out, &ctx, &mut Scratch::new()).unwrap();
                        let want: Vec<$t> = want.iter().map(|x| $round(*x)).collect();
                        assert!(got == want, "{isa} {form:?} {dim} {}", stringify!($t));
                    }};
                }
                same!(bf16, bf16::from_f32);
                same!(f16, f16::from_f32);
                same!(u8, |x| u8s.quantize(x) as u8, u8s);
                same!(i8, |x| i8s.quantize(x) as i8, i8s);
            }
        }
    }
}

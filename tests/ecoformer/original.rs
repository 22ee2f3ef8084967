//! The kernelized hash and linear attention: against the original's vectors, a plain reference, and themselves on other tiers,
//! threads and divisions into sequences.

use crate::common::ecoformer::random_codes;
use crate::common::golden::Golden;
use crate::common::*;
use siskin::Element;
use siskin::attention::{HeadParams, HeadsMut, HeadsRef, Sequences};
use siskin::ecoformer::{Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs, Numerator};
use siskin::quant::QuantParams;
use siskin::{Ctx, Isa, Scratch, TensorRef, bf16, f16};

const ENCODED: [&[u8]; 4] = [
    include_bytes!("../golden/eco_infer_h1_d32_b16.safetensors"),
    include_bytes!("../golden/eco_infer_h2_d64_b16.safetensors"),
    include_bytes!("../golden/eco_infer_h3_d16_b8_m10.safetensors"),
    include_bytes!("../golden/eco_infer_h3_d32_b32_m50.safetensors"),
];
const ATTENDED: [&[u8]; 2] = [
    include_bytes!("../golden/eco_linattn_b16.safetensors"),
    include_bytes!("../golden/eco_linattn_b64.safetensors"),
];

/// `[batch, heads, tokens, n]` to `[batch * tokens, heads, n]`, as siskin takes x and v.
fn tokens_first<T: Copy>(x: &[T], [batch, heads, tokens, n]: [usize; 4]) -> Vec<T> {
    let at = move |b, t, h| (((b * heads + h) * tokens + t) * n..).take(n);
    (0..batch * tokens * heads)
        .flat_map(|i| at(i / heads / tokens, i / heads % tokens, i % heads))
        .map(|i| x[i])
        .collect()
}

/// Signs `[batch, heads, tokens, bits]` as codes, head by head.
fn codes_of(signs: &[i8], [batch, heads, tokens, bits]: [usize; 4]) -> BitCodes {
    let mut words = Vec::new();
    for h in 0..heads {
        for b in 0..batch {
            for t in 0..tokens {
                let signs = &signs[((b * heads + h) * tokens + t) * bits..][..bits];
                assert!(signs.iter().all(|s| s.abs() == 1));
                for part in signs.chunks(64) {
                    words.push(part.iter().enumerate().fold(0, |w, (i, &s)| w | u64::from(s > 0) << i));
                }
            }
        }
    }
    BitCodes::from_words(words, bits).unwrap()
}

fn shape(g: &Golden<'_>, name: &str) -> [usize; 4] {
    g.shape(name).try_into().unwrap()
}

#[track_caller]
fn near(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let most = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
    for (i, (&got, expected)) in got.iter().zip(expected).enumerate() {
        let apart = (f64::from(got) - expected).abs();
        assert!(apart <= tolerance * most, "{what}[{i}]: {got} for {expected}");
    }
}

fn in_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// What a call of attention is made of.
struct Case {
    heads: usize,
    dim: usize,
    bits: usize,
    q: BitCodes,
    k: BitCodes,
    cu_seqlens: Vec<i32>,
    numerator: Numerator,
    causal: bool,
}

impl Case {
    fn tokens(&self) -> usize {
        *self.cu_seqlens.last().unwrap() as usize
    }

    fn run(&self, v: TensorRef<'_>, ctx: &Ctx, scratch: &mut Scratch) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.tokens() * self.heads * self.dim];
        let mut attention = LinearAttention::new(self.heads, self.bits).unwrap().numerator(self.numerator);
        if self.causal {
            attention = attention.causal();
        }
        let sequences = Sequences::own_packed(&self.cu_seqlens);
        let to = HeadsMut::new(&mut out, self.tokens(), self.heads, self.dim).unwrap();
        attention
            .forward(LinearAttentionInputs::new(&self.q, &self.k, v), &sequences, to, ctx, scratch)
            .unwrap();
        out
    }

    /// Similarity by similarity, in f64; `v` as `[tokens, heads, dim]`.
    fn reference(&self, v: &[f64]) -> Vec<f64> {
        let (heads, dim, c) = (self.heads, self.dim, self.bits as f64 + 1.0);
        let n = self.tokens();
        // A bit an element, for a loop that does not find out where each bit is.
        let spread = |codes: &BitCodes| -> Vec<bool> {
            (0..n * heads).flat_map(|i| (0..self.bits).map(move |b| codes.bit(i, b))).collect()
        };
        let (q, k) = (spread(&self.q), spread(&self.k));
        let mut out = vec![0.0; v.len()];
        for ends in self.cu_seqlens.windows(2) {
            let (first, last) = (ends[0] as usize, ends[1] as usize);
            for h in 0..heads {
                for i in first..last {
                    let (mut sum, mut of_v) = (0.0, vec![0.0; dim]);
                    let own = |token: usize| &v[(token * heads + h) * dim..][..dim];
                    for j in first..if self.causal { i + 1 } else { last } {
                        let bits = |of: usize| (h * n + of) * self.bits..(h * n + of + 1) * self.bits;
                        let same = q[bits(i)].iter().zip(&k[bits(j)]).filter(|(q, k)| q == k).count();
                        let product = 2.0 * same as f64 - self.bits as f64;
                        sum += product + c;
                        let weight =
                            if self.numerator == Numerator::Released { product } else { product + c };
                        of_v.iter_mut().zip(own(j)).for_each(|(sum, v)| *sum += weight * v);
                    }
                    if self.numerator == Numerator::Released {
                        of_v.iter_mut().zip(own(i)).for_each(|(sum, v)| *sum += c * v);
                    }
                    let out = &mut out[(i * heads + h) * dim..][..dim];
                    out.iter_mut().zip(of_v).for_each(|(out, x)| *out = x / sum);
                }
            }
        }
        out
    }
}

fn random_case(r: &mut Rng, causal: bool) -> Case {
    let heads = 1 + r.below(3);
    let dim = [1, 7, 16, 24, 32, 64, 80, 100][r.below(8)];
    let bits = [1, 2, 4, 8, 15, 16, 17, 33, 64, 65, 130, 256][r.below(12)];
    let mut cu_seqlens = vec![0];
    for _ in 0..r.below(4) {
        let len = [0, 1, 2, 31, 32, 33, 64, 65, 100, 511, 513, 700][r.below(12)];
        cu_seqlens.push(cu_seqlens.last().unwrap() + len);
    }
    let n = heads * *cu_seqlens.last().unwrap() as usize;
    let numerator = if causal || r.below(2) == 0 { Numerator::Consistent } else { Numerator::Released };
    let (q, k) = (random_codes(r, n, bits), random_codes(r, n, bits));
    Case { heads, dim, bits, q, k, cu_seqlens, numerator, causal }
}

fn random_floats(r: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| r.float(-2.0, 2.0)).collect()
}

/// All codes and the context; the original's sums are in f32 too.
#[test]
fn the_codes_and_contexts_of_the_original_are_met() {
    for isa in isas("the_codes_and_contexts_of_the_original_are_met") {
        for file in ENCODED {
            let g = Golden::new(file);
            let [batch, heads, tokens, dim] = shape(&g, "in.qk");
            let bits = g.shape("out.codes")[3];
            let hash = KernelHash::from_parts(
                heads,
                dim,
                g.f32("param.anchor"),
                g.f32("param.mvec"),
                g.f32("param.A"),
            )
            .unwrap();
            let x = tokens_first(&g.f32("in.qk"), [batch, heads, tokens, dim]);
            let x = HeadsRef::new(&x, batch * tokens, heads, dim).unwrap();
            let (ctx, mut scratch) = (serial(isa), Scratch::new());
            let mut codes = BitCodes::with_capacity(0, bits).unwrap();
            let sequences = Sequences::own(batch, tokens);
            let encoded =
                hash.encode(x, &sequences, Bandwidth::Sequence, &mut codes, &ctx, &mut scratch).unwrap();
            assert_eq!(encoded.without_direction, 0);
            assert_eq!(codes, codes_of(&g.i8("out.codes"), [batch, heads, tokens, bits]));

            let v = tokens_first(&g.f32("in.v"), [batch, heads, tokens, dim]);
            let v = TensorRef::from(HeadsRef::new(&v, batch * tokens, heads, dim).unwrap());
            let cu_seqlens = (0..=batch).map(|b| (b * tokens) as i32).collect();
            let (q, k) = (codes.clone(), codes);
            let case =
                Case { heads, dim, bits, q, k, cu_seqlens, numerator: Numerator::Released, causal: false };
            let expected = tokens_first(&g.f32("out.attn"), [batch, heads, tokens, dim]);
            near("context", &case.run(v, &ctx, &mut scratch), &in_f64(&expected), 1e-6);
        }
    }
}

#[test]
fn the_attention_of_the_original_is_met_for_any_codes() {
    for file in ATTENDED {
        let g = Golden::new(file);
        let [batch, heads, tokens, dim] = shape(&g, "in.v");
        let of_codes = shape(&g, "in.codes_q");
        let [q, k] = ["in.codes_q", "in.codes_k"].map(|name| codes_of(&g.i8(name), of_codes));
        let cu_seqlens = (0..=batch).map(|b| (b * tokens) as i32).collect();
        let case = Case {
            heads,
            dim,
            bits: of_codes[3],
            q,
            k,
            cu_seqlens,
            numerator: Numerator::Released,
            causal: false,
        };
        let v = tokens_first(&g.f32("in.v"), [batch, heads, tokens, dim]);
        let v = TensorRef::from(HeadsRef::new(&v, batch * tokens, heads, dim).unwrap());
        let expected = tokens_first(&g.f32("out.attn"), [batch, heads, tokens, dim]);
        let got = case.run(v, &Ctx::new().unwrap(), &mut Scratch::new());
        near("context", &got, &in_f64(&expected), 1e-6);
    }
}

/// Every tier and number of threads gives the bits of the first, and those are near the reference.
#[test]
fn attention_is_that_of_the_reference_on_every_tier() {
    let isas = isas("attention_is_that_of_the_reference_on_every_tier");
    let mut r = Rng::new(501);
    for round in 0..cases(60) {
        let case = random_case(&mut r, round % 3 == 2);
        let n = case.tokens() * case.heads * case.dim;
        let shape = (case.tokens(), case.heads, case.dim);
        let floats = random_floats(&mut r, n);
        let (unsigned, signed) = (r.bytes(n), r.signed(n));
        let bfloats: Vec<bf16> = floats.iter().map(|&x| bf16::from_f32(x)).collect();
        let halves: Vec<f16> = floats.iter().map(|&x| f16::from_f32(x)).collect();
        let each: Vec<QuantParams> = (0..case.heads)
            .map(|h| QuantParams::new(0.02 + h as f32 * 0.01, 100 + h as i32, Element::U8).unwrap())
            .collect();
        let one = QuantParams::new(0.03, -7, Element::I8).unwrap();
        let (t, h, d) = shape;
        let (input, plain): (TensorRef<'_>, Vec<f64>) = match round % 5 {
            0 => (TensorRef::from(HeadsRef::new(&floats, t, h, d).unwrap()), in_f64(&floats)),
            1 => (
                TensorRef::from(HeadsRef::new(&bfloats, t, h, d).unwrap()),
                bfloats.iter().map(|x| x.to_f64()).collect(),
            ),
            2 => (
                TensorRef::from(HeadsRef::new(&halves, t, h, d).unwrap()),
                halves.iter().map(|x| x.to_f64()).collect(),
            ),
            3 => (
                TensorRef::from((HeadsRef::new(&unsigned, t, h, d).unwrap(), HeadParams::PerHead(&each))),
                unsigned
                    .iter()
                    .enumerate()
                    .map(|(i, &x)| {
                        let p = each[i / d % h];
                        f64::from(i32::from(x) - p.zero_point()) * f64::from(p.scale())
                    })
                    .collect(),
            ),
            _ => (
                TensorRef::from((HeadsRef::new(&signed, t, h, d).unwrap(), one)),
                signed.iter().map(|&x| f64::from(i32::from(x) + 7) * f64::from(one.scale())).collect(),
            ),
        };
        let want = case.run(input, &serial(Isa::Scalar), &mut Scratch::new());
        near("context", &want, &case.reference(&plain), 1e-5);
        let bits = |x: &[f32]| -> Vec<u32> { x.iter().map(|x| x.to_bits()).collect() };
        for &isa in &isas {
            for way in 0..4 {
                let got = in_parallel(isa, way, |ctx| case.run(input, ctx, &mut Scratch::new()));
                assert_eq!(bits(&got), bits(&want), "{isa} {way}");
            }
        }
    }
}

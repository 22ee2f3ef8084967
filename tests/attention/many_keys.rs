//! Weights of bytes over any number of keys: by steps of their own for each 512 keys, or by one for all; and bytes that have a
//! scale for each token.

use crate::common::{Rng, cases, in_parallel, isas, serial};
use siskin::attention::*;
use siskin::quant::{QuantParams, Scheme, quantize_per_token, sqnr_db};
use siskin::{Ctx, Element, MatMut, MatRef, Scratch, TensorRef};

const D: usize = 16;

/// q, k and v of one head of 16 features, as floats.
struct Floats {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Floats {
    /// Scores are spread by `spread`; v have a mean beside.
    fn random(r: &mut Rng, queries: usize, keys: usize, spread: f32) -> Self {
        let mut some = |n: usize, by: f32, mean: f32| -> Vec<f32> {
            (0..n * D).map(|_| mean + by * r.float(-1.7, 1.7)).collect()
        };
        Floats { q: some(queries, spread, 0.0), k: some(keys, 1.0, 0.0), v: some(keys, 1.0, 0.5) }
    }

    fn lengths(&self) -> (usize, usize) {
        (self.q.len() / D, self.k.len() / D)
    }

    fn attend<'a>(&self, x: [TensorRef<'a>; 3], attention: Attention, int8: AttentionQuantizers) -> Vec<f32> {
        self.attend_on(x, attention, int8, &Ctx::new().unwrap()).0
    }

    fn attend_on(
        &self,
        [q, k, v]: [TensorRef<'_>; 3],
        attention: Attention,
        int8: AttentionQuantizers,
        ctx: &Ctx,
    ) -> (Vec<f32>, AttentionStats) {
        let (q_len, kv_len) = self.lengths();
        let mut context = vec![f32::NAN; q_len * D];
        let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len, kv_len }).quantizers(int8);
        let out = HeadsMut::new(&mut context, q_len, 1, D).unwrap();
        let stats =
            attention.forward(AttentionInputs::new(q, k, v), &call, out, ctx, &mut Scratch::new()).unwrap();
        (context, stats)
    }

    fn plain(&self, attention: Attention) -> Vec<f32> {
        let x = [&self.q, &self.k, &self.v].map(|x| HeadsRef::new(x, x.len() / D, 1, D).unwrap().into());
        self.attend(x, attention, AttentionQuantizers::default())
    }

    /// Quantized token by token, as dynamically quantized layers do it.
    fn per_token(&self) -> [(Vec<i8>, Vec<QuantParams>); 3] {
        [&self.q, &self.k, &self.v].map(|x| {
            let tokens = x.len() / D;
            let mut bytes = vec![0i8; x.len()];
            let mut params = vec![QuantParams::i8(1.0, 0).unwrap(); tokens];
            let (from, to) =
                (MatRef::new(x, tokens, D).unwrap(), MatMut::new(&mut bytes, tokens, D).unwrap());
            quantize_per_token(from, Scheme::Symmetric(Element::I8), to, &mut params, &Ctx::new().unwrap())
                .unwrap();
            (bytes, params)
        })
    }

    /// Quantized by one range each.
    fn per_tensor(&self) -> [(Vec<i8>, QuantParams); 3] {
        [&self.q, &self.k, &self.v].map(|x| {
            let most = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            let p = QuantParams::from_range_symmetric(-most, most, Element::I8).unwrap();
            (x.iter().map(|&x| p.quantize(x) as i8).collect(), p)
        })
    }
}

fn by_token(all: &[(Vec<i8>, Vec<QuantParams>); 3]) -> [TensorRef<'_>; 3] {
    all.each_ref()
        .map(|(x, p)| (HeadsRef::new(x, x.len() / D, 1, D).unwrap(), HeadParams::PerToken(p)).into())
}

fn attention() -> Attention {
    Attention::new(1, 1, D).unwrap()
}

/// Of keys that weigh the same and v that are all alike the context is that v, whatever the length. By the authors' step it is not.
#[test]
fn constant_values_stay_what_they_are() {
    for isa in isas("constant_values_stay_what_they_are") {
        let ctx = serial(isa);
        for (keys, authors) in
            [(1, 1.0), (100, 300.0 / 255.0), (500, 500.0 / 255.0), (511, 0.0), (512, 0.0), (5000, 0.0)]
        {
            for queries in [1, 40] {
                let x = Floats { q: vec![0.0; queries * D], k: vec![0.0; keys * D], v: vec![0.0; keys * D] };
                let (same, ones) = (vec![3u8; (keys + queries) * D], vec![255u8; keys * D]);
                let (p, of_v) = (QuantParams::u8(0.1, 3).unwrap(), QuantParams::u8(1.0 / 55.0, 200).unwrap());
                let input = |n: usize| (HeadsRef::new(&same[..n * D], n, 1, D).unwrap(), p).into();
                let v = (HeadsRef::new(&ones, keys, 1, D).unwrap(), of_v).into();
                let inputs = [input(queries), input(keys), v];
                let by_chunk = AttentionQuantizers::default();
                let clipped = attention().softmax(Clipped::new(-1e-5, 1.0).unwrap());
                for attention in [attention(), clipped] {
                    let (context, stats) = x.attend_on(inputs, attention, by_chunk, &ctx);
                    assert!(context.iter().all(|c| (c - 1.0).abs() < 6e-2), "{isa} {keys}: {}", context[0]);
                    assert!(stats.most_lost_weight() < 1e-5, "{isa} {keys}: {stats:?}");
                }
                let (context, _) = x.attend_on(inputs, attention(), by_chunk, &ctx);
                assert!(context.iter().all(|c| (c - 1.0).abs() < 1e-6), "{isa} {keys}: {}", context[0]);
                let one = by_chunk.with_authors_weights_scale();
                let (context, stats) = x.attend_on(inputs, attention(), one, &ctx);
                assert!(context.iter().all(|c| (c - authors).abs() < 1e-5), "{isa} {keys}: {}", context[0]);
                let lost = f64::from(1.0 - authors).abs();
                assert!((stats.lost_weight() - lost).abs() < 1e-5, "{isa} {keys}: {stats:?}");
                assert!((stats.most_lost_weight() - lost).abs() < 1e-5, "{isa} {keys}: {stats:?}");
            }
        }
    }
}

/// The context stays near that of the bytes in floats at every length, where one step for all weights loses it.
#[test]
fn every_length_keeps_its_accuracy() {
    let mut r = Rng::new(110);
    for spread in [0.1, 0.5, 1.0] {
        for keys in [16, 128, 511, 512, 1024, 4096] {
            let x = Floats::random(&mut r, 8, keys, spread);
            let bytes = x.per_tensor();
            let rounded = bytes.each_ref().map(|(x, p)| x.iter().map(|&q| p.dequantize(q.into())).collect());
            let [q, k, v]: [Vec<f32>; 3] = rounded;
            let exact = Floats { q, k, v }.plain(attention());
            let input =
                bytes.each_ref().map(|(x, p)| (HeadsRef::new(x, x.len() / D, 1, D).unwrap(), *p).into());
            let int8 = AttentionQuantizers::default();
            let db = |int8| sqnr_db(&exact, &x.attend(input, attention(), int8)).unwrap();
            let (own, one) = (db(int8), db(int8.with_authors_weights_scale()));
            println!(
                "spread {spread}, {keys} keys: {own:.1} dB by steps of 512 keys, {one:.1} dB by one step"
            );
            assert!(own > 37.0, "{spread} {keys}: {own} dB");
            assert!(own > one, "{spread} {keys}: {own} dB, by one step {one}");
            assert!(keys < 511 || spread > 0.9 || one < 30.0, "{spread} {keys}: one step has {one} dB");
        }
    }
}

/// What is said to be lost is what f64 says, on every tier, at any number of threads.
#[test]
fn what_is_lost_is_counted() {
    let mut r = Rng::new(111);
    for way in 0..cases(24) as usize {
        let keys = [3, 64, 700, 1500][way % 4];
        let x = Floats::random(&mut r, [1, 30][way / 4 % 2], keys, 0.6);
        let bytes = x.per_tensor();
        let input = bytes.each_ref().map(|(x, p)| (HeadsRef::new(x, x.len() / D, 1, D).unwrap(), *p).into());
        let step = [None, Some(1.0 / 255.0), Some(0.2 / 255.0)][way / 8 % 3];
        let int8 = AttentionQuantizers::default().weights_scale(step);
        // By the rule.
        let [q, k, _] =
            bytes.each_ref().map(|(x, p)| x.iter().map(|&q| p.dequantize(q.into())).collect::<Vec<f32>>());
        let (mut sum, mut most, mut unit) = (0f64, 0f64, 0f64);
        for q in q.chunks_exact(D) {
            let scores: Vec<f64> = k
                .chunks_exact(D)
                .map(|k| {
                    q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                        / (D as f64).sqrt()
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp() / total).collect();
            let rounded: f64 = weights
                .chunks(512)
                .map(|chunk| {
                    let largest = chunk.iter().copied().fold(0.0, f64::max);
                    let step = step.map_or(largest / 255.0, f64::from);
                    unit = unit.max(step);
                    chunk.iter().map(|w| (w / step).round_ties_even().min(255.0) * step).sum::<f64>()
                })
                .sum();
            (sum, most) = (sum + (rounded - 1.0).abs(), most.max((rounded - 1.0).abs()));
        }
        let want = sum / x.lengths().0 as f64;
        // As if f32 rounded three of the heaviest weights the other way.
        let near = 3.0 * unit;
        let scalar = x.attend_on(input, attention(), int8, &serial(siskin::Isa::Scalar)).1;
        for isa in isas("what_is_lost_is_counted") {
            let (_, got) = in_parallel(isa, way, |ctx| x.attend_on(input, attention(), int8, ctx));
            assert!(got.lost_weight() > 0.0 || want < near, "{isa} {keys} keys: nothing lost of {want}");
            let what = format!(
                "{isa} {keys} keys, {step:?}: {} of {want}, {} of {most}",
                got.lost_weight(),
                got.most_lost_weight()
            );
            assert!(
                (got.lost_weight() - want).abs() < near && (got.most_lost_weight() - most).abs() < near,
                "{what}"
            );
            assert_eq!(
                (got.lost_weight(), got.most_lost_weight()),
                (scalar.lost_weight(), scalar.most_lost_weight()),
                "{what}"
            );
        }
    }
}

/// Tokens of very different magnitudes: a scale for each keeps what one for all loses.
#[test]
fn scales_of_tokens_keep_small_tokens() {
    let mut r = Rng::new(112);
    for (keys, softmax) in [(40, None), (700, None), (40, Some(-0.01)), (700, Some(-1e-4))] {
        let mut x = Floats::random(&mut r, 20, keys, 1.0);
        let attention = match softmax {
            Some(gamma) => attention().softmax(Clipped::new(gamma, 1.0).unwrap()),
            None => attention(),
        };
        // Queries and values of some tokens are large; keys of few.
        for (x, every, by) in [(&mut x.q, 3, 30.0), (&mut x.v, 7, 40.0), (&mut x.k, 19, 6.0)] {
            for (_, token) in x.chunks_exact_mut(D).enumerate().filter(|(t, _)| t % every == 1) {
                token.iter_mut().for_each(|x| *x *= by);
            }
        }
        let exact = x.plain(attention);
        let tokens = x.per_token();
        let own = x.attend(by_token(&tokens), attention, AttentionQuantizers::default());
        let tensors = x.per_tensor();
        let input =
            tensors.each_ref().map(|(x, p)| (HeadsRef::new(x, x.len() / D, 1, D).unwrap(), *p).into());
        let one = x.attend(input, attention, AttentionQuantizers::default());
        let (own, one) = (sqnr_db(&exact, &own).unwrap(), sqnr_db(&exact, &one).unwrap());
        println!(
            "{keys} keys, gamma {softmax:?}: {own:.1} dB by scales of tokens, {one:.1} dB by one for all"
        );
        assert!(own > 25.0 && own > one + 3.0, "{keys} {softmax:?}: {own} dB, by one {one}");
    }
}

/// Scales of tokens that are all alike are the scale of the tensor; 2^n times the scales of v are 2^n times the context.
#[test]
fn scales_of_tokens_are_scales() {
    let mut r = Rng::new(113);
    for keys in [1, 5, 300, 1100] {
        let x = Floats::random(&mut r, [1, 20][keys % 2], keys, 1.0);
        let mut tokens = x.per_token();
        for (_, params) in &mut tokens {
            let first = params[0];
            params.fill(first);
        }
        let all = tokens.each_ref().map(|(x, p)| (HeadsRef::new(x, x.len() / D, 1, D).unwrap(), p[0]).into());
        let int8 = AttentionQuantizers::default();
        let (own, one) = (x.attend(by_token(&tokens), attention(), int8), x.attend(all, attention(), int8));
        for (own, one) in own.iter().zip(&one) {
            assert!((own - one).abs() < 1e-5, "{keys}: {own} {one}");
        }
        let mut tokens = x.per_token();
        let want = x.attend(by_token(&tokens), attention(), int8);
        for n in [-100, -3, 40, 90] {
            let by = 2f32.powi(n);
            let before = tokens[2].1.clone();
            let larger = |p: &QuantParams| QuantParams::i8(p.scale() * by, 0).unwrap();
            tokens[2].1 = before.iter().map(larger).collect();
            let got = x.attend(by_token(&tokens), attention(), int8);
            tokens[2].1 = before;
            assert!(got.iter().zip(&want).all(|(got, want)| *got == want * by), "{keys} 2^{n}");
        }
    }
}

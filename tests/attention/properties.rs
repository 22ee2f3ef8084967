//! What must not change a single bit of a context: threads, the batch around a sequence, padding, how tokens arrive, how heads
//! are shared, where tensors lie, and what is not finite elsewhere. Of f32, of pairs of bfloat16 and of bytes.

use crate::common::attention::*;
use crate::common::{Rng, WAYS, cases, in_parallel, isas, serial};
use siskin::Scratch;

/// A test of f32, one of bfloat16 and one of bytes.
macro_rules! of_every_type {
    ($($(#[$doc:meta])* $check:ident;)*) => { $(
        $(#[$doc])*
        mod $check {
            #[test]
            fn of_f32() {
                super::check::$check(|case, _| case);
            }
            #[test]
            fn of_bf16() {
                super::check::$check(|case, _| Case { types: [Type::Bf16, Type::Bf16, Type::Bf16, Type::F32], ..case });
            }
            #[test]
            fn of_bytes() {
                super::check::$check(|case, r| case.bytes(r));
            }
            use crate::common::attention::{Case, Type};
        }
    )* };
}

of_every_type! {
    /// Any number of threads, however they take their turns.
    threads;
    /// A sequence alone, among others, by cumulative lengths, and padded.
    sequences;
    /// Token by token with a cache, in pieces, and all at once.
    decoding;
    /// Heads that share keys and values, and heads that have their own copies.
    heads;
    /// Parts of one buffer, and tensors of their own; rows that are read again.
    places;
    /// What lies between rows, before the first and behind the last.
    gaps;
    /// Each head, and each query where keys are the same, by itself.
    parts;
}

mod check {
    use super::*;

    pub fn threads(of: impl Fn(Case, &mut Rng) -> Case) {
        let mut r = Rng::new(70);
        for isa in isas("threads") {
            let mut kinds: Vec<Case> = (0..cases(10)).map(|_| Case::random(&mut r)).collect();
            // Few queries of many keys, whose keys are shared out; many queries; many sequences.
            for (q_len, kv_len) in [(1, 3000), (3, 1100), (130, 130), (70, 600)] {
                let mut case = Case::plain(r.next(), 2, 40, q_len, kv_len);
                case.clipped = [None, Some((-0.003, 1.0))][r.below(2)];
                case.causal = r.below(2) == 0;
                kinds.push(case);
            }
            for case in kinds {
                let d = of(case, &mut r).data();
                let want = d.run(&serial(isa), &mut Scratch::new());
                for way in 0..WAYS {
                    let got = in_parallel(isa, way, |ctx| d.run(ctx, &mut Scratch::new()));
                    assert!(got.0 == want.0, "{isa} way {way} {:?}", d.case);
                    assert_eq!((got.1.pairs, got.1.zeros), (want.1.pairs, want.1.zeros), "{isa} way {way}");
                }
            }
        }
    }

    pub fn sequences(of: impl Fn(Case, &mut Rng) -> Case) {
        let mut r = Rng::new(71);
        let isas = isas("sequences");
        let mut scratch = Scratch::new();
        for _ in 0..cases(60) {
            let mut case = Case::random(&mut r);
            // Else padding would have to be where a query is before the first key.
            if case.causal || case.window.is_some() {
                case.lengths.iter_mut().for_each(|l| l.0 = l.0.min(l.1));
                if !case.packed {
                    let first = case.lengths[0];
                    case.lengths.fill(first);
                }
            }
            let mut d = of(case, &mut r).data();
            for &isa in &isas {
                let ctx = serial(isa);
                let (want, skipped) = d.run(&ctx, &mut scratch);
                let (mut alone, mut pairs) = (vec![], 0);
                for b in 0..d.case.lengths.len() {
                    let (bits, skipped) = d.alone(b).run(&ctx, &mut scratch);
                    alone.extend(bits);
                    pairs += skipped.pairs;
                }
                assert!(alone == want, "{isa} alone: {:?}", d.case);
                assert_eq!(pairs, skipped.pairs, "{isa}");
                if !d.case.packed {
                    d.case.packed = true;
                    let packed = d.run(&ctx, &mut scratch);
                    d.case.packed = false;
                    assert!(packed.0 == want, "{isa} packed: {:?}", d.case);
                }
                if d.case.blocks.is_none() && !d.case.uniform {
                    let most = |f: fn(&(usize, usize)) -> usize| d.case.lengths.iter().map(f).max().unwrap();
                    let (q_len, kv_len) = (most(|l| l.0) + r.below(3), most(|l| l.1) + r.below(70));
                    let (padded, _) = d.padded(q_len, kv_len).run(&ctx, &mut scratch);
                    let row = d.case.heads * d.case.head_dim;
                    let mut there = vec![];
                    for (b, l) in d.case.lengths.iter().enumerate() {
                        there.extend_from_slice(&padded[b * q_len * row..][..l.0 * row]);
                    }
                    assert!(there == want, "{isa} padded to {q_len} x {kv_len}: {:?}", d.case);
                }
            }
        }
    }

    pub fn decoding(of: impl Fn(Case, &mut Rng) -> Case) {
        let mut r = Rng::new(72);
        let isas = isas("decoding");
        let mut scratch = Scratch::new();
        let lengths = [5, 65, 530, 1100, 1600];
        for round in 0..cases(10) as usize {
            let n = lengths[round % 5];
            let mut case = Case::plain(r.next(), 2, [16, 24, 7, 8, 5][round % 5], n, n);
            case.kv_heads = 1 + round % 2;
            case.causal = true;
            case.clipped = [None, Some((-0.03, 1.0)), Some((-3e-4, 1.001))][r.below(3)];
            case.window = [None, None, Some((600, 5))][r.below(3)];
            let d = of(case, &mut r).data();
            let (q_row, kv_row) = (2 * d.case.head_dim, d.case.kv_heads * d.case.head_dim);
            for &isa in &isas {
                let ctx = serial(isa);
                let (want, _) = d.run(&ctx, &mut scratch);
                // Some queries from t on, with the cache as long as they need, and with one that has room.
                let mut at = |t: usize, queries: usize| {
                    let mut step = d.clone();
                    step.q = d.q[t * q_row..(t + queries) * q_row].to_vec();
                    step.params[0] = d.params[0].of_tokens(t..t + queries);
                    let want = &want[t * q_row..(t + queries) * q_row];
                    step.case.lengths = vec![(queries, n)];
                    step.case.key_lengths = Some(vec![t + queries]);
                    step.case.positions = Some(vec![t]);
                    let what = |how: &str| format!("{isa} {queries} at {t} of {n}, {how}: {:?}", d.case);
                    assert!(step.run(&ctx, &mut scratch).0 == want, "{}", what("in a cache with room"));
                    step.case.key_lengths = None;
                    assert!(step.run(&ctx, &mut scratch).0 == want, "{}", what("in a full cache"));
                    let keys = (t + queries) * kv_row;
                    (step.k, step.v) = (d.k[..keys].to_vec(), d.v[..keys].to_vec());
                    for i in [1, 2] {
                        step.params[i] = d.params[i].of_tokens(0..t + queries);
                    }
                    step.case.lengths = vec![(queries, t + queries)];
                    step.case.positions = None;
                    assert!(step.run(&ctx, &mut scratch).0 == want, "{}", what("in its own cache"));
                    if queries == 1 && step.case.window.is_none() {
                        step.case.causal = false;
                        assert!(step.run(&ctx, &mut scratch).0 == want, "{}", what("not causal"));
                    }
                };
                let edges = [0, 1, 14, 15, 16, 17, 63, 64, 511, 512, 513, 1023, 1024, 1025, n - 1];
                for t in edges.into_iter().filter(|&t| t < n) {
                    at(t, 1);
                }
                for _ in 0..6 {
                    let t = r.below(n);
                    at(t, 1);
                    at(t, r.below((n - t).min(70)) + 1);
                }
            }
        }
    }

    pub fn heads(of: impl Fn(Case, &mut Rng) -> Case) {
        let mut r = Rng::new(73);
        let isas = isas("heads");
        let mut scratch = Scratch::new();
        for round in 0..cases(40) as usize {
            let mut case = Case::random(&mut r);
            case.kv_heads = [1, 2, 3][round % 3];
            case.heads = case.kv_heads * [2, 3, 4, 8][r.below(4)];
            case.bias = case.bias.map(|[b, h, i, j]| [b, if h == 1 { 1 } else { case.heads }, i, j]);
            case.lengths.iter_mut().for_each(|l| l.0 = l.0.min(20));
            let d = of(case, &mut r).data();
            let (heads, kv_heads, width) = (d.case.heads, d.case.kv_heads, d.case.head_dim);
            let mut copies = d.clone();
            copies.case.kv_heads = heads;
            let repeat = |x: &[f32]| -> Vec<f32> {
                x.chunks_exact(width).flat_map(|head| head.repeat(heads / kv_heads)).collect()
            };
            (copies.k, copies.v) = (repeat(&d.k), repeat(&d.v));
            for params in &mut copies.params[1..] {
                if let Params::Heads(each) = params
                    && each.len() > 1
                {
                    *each = each.iter().flat_map(|&p| vec![p; heads / kv_heads]).collect();
                }
            }
            for &isa in &isas {
                let ctx = serial(isa);
                let (got, want) = (d.run(&ctx, &mut scratch), copies.run(&ctx, &mut scratch));
                assert!(got.0 == want.0, "{isa} {:?}", d.case);
                assert_eq!((got.1.pairs, got.1.zeros), (want.1.pairs, want.1.zeros), "{isa}");
            }
        }
    }

    pub fn places(of: impl Fn(Case, &mut Rng) -> Case) {
        let mut r = Rng::new(74);
        let isas = isas("places");
        let mut scratch = Scratch::new();
        for _ in 0..cases(30) {
            let mut case = Case::random(&mut r);
            case.lengths.iter_mut().for_each(|l| *l = (l.1.min(60), l.1.min(60)));
            if let Some([_, _, queries, keys]) = &mut case.bias {
                (*queries, *keys) = (if *queries == 1 { 1 } else { (*queries).max(60) }, (*keys).max(60));
            }
            case.key_lengths = None;
            let mut case = of(case, &mut r);
            // One buffer has one type.
            let t = case.types[0];
            case.types = [t, t, t, Type::F32];
            let d = case.data();
            let Case { heads, kv_heads, head_dim, .. } = d.case;
            let tokens = d.case.q_tokens();
            let (q_row, kv_row) = (heads * head_dim, kv_heads * head_dim);
            let row = q_row + 2 * kv_row;
            let mut fused = Vec::new();
            for token in 0..tokens {
                fused.extend_from_slice(&d.q[token * q_row..][..q_row]);
                fused.extend_from_slice(&d.k[token * kv_row..][..kv_row]);
                fused.extend_from_slice(&d.v[token * kv_row..][..kv_row]);
            }
            let fused = Tensor::new(t, &fused, (tokens, 1, row), Place::default(), 0.0);
            let part = |first, heads, which: usize| {
                fused.view(first, (tokens, heads, head_dim), (row, head_dim), &d.params[which])
            };
            let (q, k) = (part(0, heads, 0), part(q_row, kv_heads, 1));
            let v = part(q_row + kv_row, kv_heads, 2);
            // Every token and head of v the same.
            let mut one = d.clone();
            one.v = one.v[..head_dim.min(one.v.len())].repeat(tokens * kv_heads);
            let again = fused.view(q_row + kv_row, (tokens, kv_heads, head_dim), (0, 0), &d.params[2]);
            for &isa in &isas {
                let ctx = serial(isa);
                for (d, v) in [(&d, v), (&one, again)] {
                    let shape = (tokens, heads, head_dim);
                    let unwritten = vec![f32::NAN; d.q.len()];
                    let mut out = Tensor::new(Type::F32, &unwritten, shape, Place::default(), 0.0);
                    d.forward(q, k, v, out.output(d.out), &ctx, &mut scratch);
                    assert!(out.bits().0 == d.run(&ctx, &mut scratch).0, "{isa} {:?}", d.case);
                }
            }
        }
    }

    pub fn gaps(of: impl Fn(Case, &mut Rng) -> Case) {
        let mut r = Rng::new(75);
        let isas = isas("gaps");
        let mut scratch = Scratch::new();
        for round in 0..cases(40) {
            let mut case = Case::random(&mut r);
            for place in &mut case.places {
                *place = Place {
                    heads_first: r.below(2) == 0,
                    gaps: (r.below(3), r.below(3) * 17 + 1, r.below(5)),
                };
            }
            let mut case = of(case, &mut r);
            if round % 2 == 0 {
                case.types[3] = [Type::Bf16, Type::F16, Type::U8, Type::I8][r.below(4)];
            }
            let d = case.data();
            let mut near = d.clone();
            near.case.places = [Place::default(); 4];
            for &isa in &isas {
                let ctx = serial(isa);
                let want = near.run(&ctx, &mut scratch);
                for poison in [f32::NAN, f32::INFINITY, 93.0] {
                    assert!(
                        d.run_poisoned(&ctx, &mut scratch, poison) == want,
                        "{isa} {poison} {:?}",
                        d.case
                    );
                }
            }
        }
    }

    pub fn parts(of: impl Fn(Case, &mut Rng) -> Case) {
        let mut r = Rng::new(76);
        let isas = isas("parts");
        let mut scratch = Scratch::new();
        for _ in 0..cases(40) {
            let mut case = Case::random(&mut r);
            case.lengths.truncate(1);
            case.key_lengths.iter_mut().for_each(|l| l.truncate(1));
            case.positions.iter_mut().for_each(|l| l.truncate(1));
            if case.causal || case.window.is_some() {
                case.lengths[0].0 = case.lengths[0].0.min(case.lengths[0].1);
            }
            let d = of(case, &mut r).data();
            let (heads, width) = (d.case.heads, d.case.head_dim);
            for &isa in &isas {
                let ctx = serial(isa);
                let (want, _) = d.run(&ctx, &mut scratch);
                for h in 0..heads {
                    let (head, _) = d.head(h).run(&ctx, &mut scratch);
                    let mut there: Vec<u32> = vec![];
                    want.chunks_exact(heads * width).for_each(|row| there.extend(&row[h * width..][..width]));
                    assert!(head == there, "{isa} head {h} {:?}", d.case);
                }
                for _ in 0..d.case.q_tokens().min(8) {
                    let i = r.below(d.case.q_tokens());
                    if d.case.position(0) + (i as i128) < 0 {
                        continue;
                    }
                    let (query, _) = d.query(i).run(&ctx, &mut scratch);
                    let there = &want[i * heads * width..][..heads * width];
                    assert!(query == there, "{isa} query {i} {:?}", d.case);
                }
            }
        }
    }
}

//! Random cases of attention for `siskin verify`.

use super::case::{Case, Layout, Scores, Softmax};
use super::problem::{Biases, Mask, Problem};
use crate::base::data::Each;
use crate::base::error::{Error, Result};
use crate::base::random::Rng;
use crate::base::settings::tier;
use crate::base::types::{DType, XType, YType};
use clap::ValueEnum;
use siskin::attention::{AttentionQuantizers, AttentionStats, EmptyRow};
use siskin::quant::QuantParams;
use siskin::{Isa, Scratch};

/// Pairs of a query and a key that the plain reference looks at, about.
const CHECKED: usize = 1 << 14;

/// Runs a case on these tiers, with what it has no field for.
pub fn verify(case: &Case, rng: &mut Rng, tiers: &[Isa]) -> Result<()> {
    let problem = complicated(case, rng)?;
    let attention = problem.attention()?;
    let run = |isa: Isa, threads: usize| {
        let mut y = problem.output();
        let skipped = problem.forward(&attention, &mut y, &tier(isa, threads)?, &mut Scratch::new())?;
        Ok::<_, Error>((y, skipped))
    };
    let (want, counts) = run(Isa::Scalar, 1)?;
    problem.check(&want, Isa::Scalar, CHECKED)?;
    let pairs = problem.pairs();
    counted(&counts, pairs)?;
    for &isa in tiers {
        let (y, got) = run(isa, case.threads)?;
        counted(&got, pairs)?;
        if problem.in_pairs(isa) {
            problem.check(&y, isa, CHECKED)?;
            continue;
        }
        problem.same(&y, &want, isa)?;
        let counted = |s: &AttentionStats| (s.pairs, s.zeros, s.lost_weight(), s.most_lost_weight());
        if counted(&got) != counted(&counts) {
            return Err(Error::Wrong(format!("{isa} counts {got:?}, scalar {counts:?}")));
        }
    }
    Ok(())
}

/// Whether counts can be true.
fn counted(counts: &AttentionStats, (least, most): (u64, u64)) -> Result<()> {
    let AttentionStats { pairs, zeros, skipped, .. } = *counts;
    if (least..=most).contains(&pairs) && zeros <= pairs && skipped <= zeros {
        return Ok(());
    }
    Err(Error::Wrong(format!("of {least} to {most} pairs, {counts:?} were counted")))
}

/// A case that fits its seed.
pub fn random(seed: u64, rng: &mut Rng) -> Case {
    let heads = 1 + rng.below(4);
    let kv_heads = loop {
        let kv_heads = 1 + rng.below(heads);
        if heads.is_multiple_of(kv_heads) {
            break kv_heads;
        }
    };
    let head_dim = match rng.below(3) {
        0 => 1 + rng.below(140),
        _ => rng.pick(&[8, 16, 32, 64, 80, 128, 256]),
    };
    let mut case = Case {
        dtype: rng.pick(DType::value_variants()),
        heads,
        kv_heads: Some(kv_heads),
        head_dim,
        softmax: match rng.below(4) {
            0 => Softmax::default(),
            1 => Softmax::Clipped { gamma: -0.001, zeta: 1.0 },
            2 => Softmax::Clipped { gamma: -0.05 * rng.unit(), zeta: rng.pick(&[1.0, 1.003, 1.3]) },
            _ => Softmax::Alpha { alpha: rng.pick(&[0.0, 0.5, 4.0]), max_len: 128 },
        },
        causal: rng.below(2) == 0,
        window: (rng.below(4) == 0).then(|| [rng.below(40), rng.below(10)]),
        layout: rng.pick(&[Layout::Tokens, Layout::Heads]),
        scores: rng.pick(Scores::value_variants()),
        gate: rng.below(3) == 0,
        threads: 1 + rng.below(2) * 2,
        min_ms: 0,
        seed,
        ..Case::default()
    };
    case.y = loop {
        let y = rng.pick(YType::value_variants());
        if y != YType::I32 {
            break Some(y);
        }
    };
    if rng.below(3) == 0 {
        case.cu_seqlens = rng.cu_seqlens(40);
        case.cu_seqlens_k = rng.cu_seqlens(80);
    } else {
        let (q, k) = match rng.below(4) {
            0 => (1 + rng.below(3), 1 + rng.below(1300)),
            1 => (1 + rng.below(6), 1 + rng.below(6)),
            _ => (1 + rng.below(70), 1 + rng.below(140)),
        };
        (case.seq, case.kv_len, case.batch) = (Some(q), Some(k), Some(1 + rng.below(3)));
    }
    let is_self = case.seq == case.kv_len && case.cu_seqlens.is_empty();
    if is_self && kv_heads == heads || rng.below(8) == 0 {
        case.layout = Layout::Fused;
        case.kv_heads = None;
        case.kv_len = None;
        case.cu_seqlens_k = Vec::new();
    }
    case
}

/// What a case has no field for: mixed types, bias, lengths, positions, tiles, more quantizers.
fn complicated(case: &Case, rng: &mut Rng) -> Result<Problem> {
    let types = match case.dtype {
        DType::Int8 => &[XType::U8, XType::I8][..],
        DType::Bf16 => &[XType::Bf16],
        DType::F16 => &[XType::F16],
        DType::F32 if rng.below(4) == 0 => &[XType::F32, XType::Bf16, XType::F16],
        DType::F32 => &[XType::F32],
    };
    let mut types = [rng.pick(types), rng.pick(types), rng.pick(types)];
    if case.layout == Layout::Fused {
        types = [types[0]; 3];
    }
    let each = match (case.dtype, rng.below(3)) {
        (DType::Int8, 0) => [(); 3].map(|()| rng.pick(&[Each::Tensor, Each::Head, Each::Token])),
        (DType::Int8, 1) => [Each::Token; 3],
        _ => [rng.pick(&[Each::Tensor, Each::Head]); 3],
    };
    let mut p = Problem::with_types(case, types, each)?;
    let count = p.lengths.count();
    let longest = |of: &dyn Fn(usize) -> usize| (0..count).map(of).max().unwrap_or(0);
    let (q_len, kv_len) = (longest(&|b| p.lengths.queries(b).1), longest(&|b| p.lengths.keys(b).1));
    if rng.below(3) == 0 {
        p.key_lengths = Some((0..count).map(|b| rng.below(p.lengths.keys(b).1 + 1)).collect());
    }
    if rng.below(4) == 0 {
        p.positions = Some((0..count).map(|_| rng.below(kv_len + 5)).collect());
    }
    if rng.below(3) == 0 {
        let mut one_or = |n: usize| if rng.below(2) == 0 { 1 } else { n };
        let shape = [one_or(count), one_or(p.heads), one_or(q_len.max(1)), kv_len];
        let missing = rng.pick(&[f32::NEG_INFINITY, f32::MIN]);
        let mut number = || if rng.below(5) == 0 { missing } else { 2.0 * rng.unit() - 1.0 };
        p.bias = Some(Biases { data: (0..shape.iter().product()).map(|_| number()).collect(), shape });
    }
    if rng.below(4) == 0 {
        let (block_q, block_k) = (1 + rng.below(33), rng.pick(&[1, 7, 16, 64, 128]));
        let (rows, cols) = (q_len.div_ceil(block_q), kv_len.div_ceil(block_k));
        let live = (0..rows * cols).map(|_| rng.below(3) > 0).collect();
        p.mask = Some(Mask { live, rows, cols, block_q, block_k });
    }
    p.empty_rows = rng.pick(&[EmptyRow::Zeros, EmptyRow::Uniform]);
    if rng.below(4) == 0 {
        p.scale *= 0.5 + rng.unit();
    }
    if case.dtype == DType::Int8 && rng.below(2) == 0 {
        let steps = [None, Some(1.0 / 255.0), Some(0.6 / 255.0), Some(0.001)];
        p.int8 = AttentionQuantizers::default()
            .scores((rng.below(2) == 0).then(|| QuantParams::u8(0.1, 120)).transpose()?)
            .weights_scale(rng.pick(&steps).filter(|_| !p.params[2].by_token))
            .context((rng.below(2) == 0).then(|| QuantParams::u8(0.02, 128)).transpose()?);
    }
    p.fit_output()?;
    Ok(p)
}

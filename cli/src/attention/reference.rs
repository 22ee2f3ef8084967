//! Attention by its definition, in f64, for one head of one query at a time.

use super::problem::Problem;
use crate::base::random::spread;
use siskin::attention::{EmptyRow, Softmax};
use siskin::quant::QuantParams;
use std::ops::Range;

/// What a head of a query should come out as, before it is rounded to the type of the output.
pub struct Row {
    pub values: Vec<f64>,
    /// How far each may be off beside: where a number lies so near the middle between two bytes that the error of f32
    /// decides, by what the other byte would make of it; where a clip takes two numbers off each other, by a
    /// hundred-thousandth of the larger. Infinite if a score may be another byte.
    pub slack: Vec<f64>,
}

impl Problem {
    /// Tokens and heads that are spread over all there are, so many that all of their pairs are about `budget`.
    pub fn some_rows(&self, budget: usize) -> Vec<(usize, usize)> {
        let (q_tokens, kv_tokens) = self.lengths.tokens();
        let keys = kv_tokens.div_ceil(self.lengths.count().max(1)).max(1);
        let count = (budget / keys * 64 / self.head_dim.max(16)).clamp(4, 4096);
        spread(q_tokens * self.heads, count).into_iter().map(|i| (i / self.heads, i % self.heads)).collect()
    }

    /// The keys of its sequence that a query could meet by causal, window and lengths, and the place of the sequence.
    pub fn reach(&self, b: usize, i: usize) -> Range<usize> {
        let ((_, q_len), (_, kv_len)) = (self.lengths.queries(b), self.lengths.keys(b));
        let end = self.key_lengths.as_ref().map_or(kv_len, |lengths| lengths[b]) as i128;
        let first = match &self.positions {
            Some(positions) => positions[b] as i128,
            None => kv_len as i128 - q_len as i128,
        };
        let position = first + i as i128;
        let (mut low, mut high) = (0, end);
        if self.causal {
            high = high.min(position + 1);
        }
        if let Some([left, right]) = self.window {
            low = low.max(position - left as i128);
            high = high.min(position + right as i128 + 1);
        }
        low as usize..high.max(low) as usize
    }

    fn in_tile(&self, i: usize, j: usize) -> bool {
        self.mask.as_ref().is_none_or(|m| m.live[i / m.block_q * m.cols + j / m.block_k])
    }

    /// Whether tile and bias let a query meet a key.
    fn is_there(&self, b: usize, h: usize, i: usize, j: usize) -> bool {
        self.in_tile(i, j) && self.bias(b, h, i, j) != f64::NEG_INFINITY
    }

    fn bias(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let Some(bias) = &self.bias else { return 0.0 };
        let [batch, heads, queries, keys] = bias.shape;
        let own = |at: usize, of: usize| if of == 1 { 0 } else { at };
        let row = (own(b, batch) * heads + own(h, heads)) * queries + own(i, queries);
        bias.data[row * keys + j].into()
    }

    /// Pairs of a query and a key that is there, over all heads; of a query that meets no key and attends to all alike, all.
    /// A bias of -inf may count or not: the least and the most there can be.
    pub fn pairs(&self) -> (u64, u64) {
        let (mut least, mut most) = (0, 0);
        for b in 0..self.lengths.count() {
            let kv_len = self.lengths.keys(b).1;
            let met = |pairs: usize| match (pairs, self.empty_rows) {
                (0, EmptyRow::Uniform) => kv_len,
                (pairs, _) => pairs,
            };
            for i in 0..self.lengths.queries(b).1 {
                let reach = self.reach(b, i);
                let in_tiles = match &self.mask {
                    None => reach.len(),
                    Some(_) => reach.clone().filter(|&j| self.in_tile(i, j)).count(),
                };
                for h in 0..self.heads {
                    let there = match &self.bias {
                        None => in_tiles,
                        Some(_) => reach.clone().filter(|&j| self.is_there(b, h, i, j)).count(),
                    };
                    let (of_there, of_tiles) = (met(there), met(in_tiles));
                    least += of_there.min(of_tiles) as u64;
                    most += of_there.max(of_tiles) as u64;
                }
            }
        }
        (least, most)
    }

    /// The numbers of a head of a token, from the zero point for bytes, and what one of them stands for.
    pub fn real(&self, which: usize, token: usize, head: usize) -> (Vec<f64>, f64) {
        let mut row = self.data(which).head(&self.places[which], token, head);
        if self.params[which].params.is_empty() {
            return (row, 1.0);
        }
        let params = self.params[which].of(token, head);
        row.iter_mut().for_each(|v| *v -= f64::from(params.zero_point()));
        (row, params.scale().into())
    }

    /// A head of a query.
    pub fn plain(&self, token: usize, head: usize) -> Row {
        let b = self.lengths.sequence_of(token);
        let ((first_q, _), (first_k, kv_len)) = (self.lengths.queries(b), self.lengths.keys(b));
        let (i, kv_head) = (token - first_q, head / (self.heads / self.kv_heads));
        let bytes = self.in_bytes();
        let mut keys: Vec<usize> = self.reach(b, i).filter(|&j| self.is_there(b, head, i, j)).collect();

        let mut unsure = false;
        let mut largest = 0f64;
        let mut p: Vec<f64>;
        if !keys.is_empty() {
            let (q, q_step) = self.real(0, token, head);
            p = Vec::with_capacity(keys.len());
            for &j in &keys {
                let (k, k_step) = self.real(1, first_k + j, kv_head);
                let dot: f64 = q.iter().zip(&k).map(|(q, k)| q * k).sum();
                let mut score = f64::from(self.scale) * q_step * k_step * dot;
                if let (true, Some(params)) = (bytes, self.int8.scores) {
                    unsure |= near_middle(score / f64::from(params.scale()), 1e-6);
                    score = rounded(score, params);
                }
                let bias = self.bias(b, head, i, j);
                // Masks of the smallest float say nothing about how exact scores are.
                largest = largest.max(score.abs() + if bias.abs() < 1e30 { bias.abs() } else { 0.0 });
                p.push(score + bias);
            }
            let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            p.iter_mut().for_each(|s| *s = (*s - max).exp());
            let sum: f64 = p.iter().sum();
            p.iter_mut().for_each(|e| *e /= sum);
        } else {
            keys = match self.empty_rows {
                EmptyRow::Uniform => (0..kv_len).collect(),
                _ => Vec::new(),
            };
            p = vec![1.0 / kv_len as f64; keys.len()];
        }

        let clip = match self.softmax {
            Softmax::Clipped(c) => Some((f64::from(c.gamma()), f64::from(c.zeta()))),
            _ => None,
        };
        let clips = clip.is_some();
        let (gamma, stretch) = clip.map_or((0.0, 1.0), |(gamma, zeta)| (gamma, zeta - gamma));
        // How exact a probability is in f32.
        let exact = 2e-6 + 5e-7 * largest;
        let weights: Vec<Weight> = keys
            .iter()
            .zip(&p)
            .map(|(&j, &p)| {
                let stretched = stretch * p;
                let w = if clips { (stretched + gamma).clamp(0.0, 1.0) } else { p };
                Weight { key: j, w, near: stretched * exact + w * 1e-6, stretched }
            })
            .collect();
        let mut row = Row { values: vec![0.0; self.head_dim], slack: vec![0.0; self.head_dim] };
        if bytes {
            let chunks = || weights.chunk_by(|a, b| a.key / CHUNK == b.key / CHUNK);
            let rough = Rough {
                relative: if clips || self.int8.weights_scale.is_some() { 0.0 } else { 1.1e-4 },
                among_several: chunks().count() > 1,
            };
            for chunk in chunks() {
                unsure |= !self.add_bytes(chunk, (first_k, kv_head), rough, &mut row);
            }
        } else {
            for Weight { key, w, stretched, .. } in weights {
                let near_clip = clips && stretched * (1.0 + 1e-5) + gamma > 0.0;
                let doubt = if near_clip { 1e-5 * stretched } else { 0.0 };
                if w == 0.0 && doubt == 0.0 {
                    continue;
                }
                let (v, v_step) = self.real(2, first_k + key, kv_head);
                for f in 0..self.head_dim {
                    row.values[f] += w * v[f] * v_step;
                    row.slack[f] += doubt * (v[f] * v_step).abs();
                }
            }
        }
        let Row { mut values, mut slack } = row;
        let gate = self.gates.get(token * self.heads + head).map_or(1.0, |&g| f64::from(g));
        for (value, slack) in values.iter_mut().zip(&mut slack) {
            if let (true, Some(params)) = (bytes, self.int8.context) {
                let context_step = f64::from(params.scale());
                if *slack > 0.0 || near_middle(*value / context_step, 1e-5) {
                    *slack += context_step;
                }
                *value = rounded(*value, params);
            }
            *value *= gate;
            *slack = if unsure { f64::INFINITY } else { *slack * gate.abs() };
        }
        Row { values, slack }
    }

    /// Adds the keys of a chunk, by weights that are rounded to bytes; false where that may come out as anything.
    fn add_bytes(
        &self,
        weights: &[Weight],
        (first_k, kv_head): (usize, usize),
        rough: Rough,
        row: &mut Row,
    ) -> bool {
        // What v is multiplied by, and its numbers: tokens that have a scale have it in their weight.
        let by_token = self.params[2].by_token;
        let v = |key: usize| {
            let (v, step) = self.real(2, first_k + key, kv_head);
            if by_token { (v, step, 1.0) } else { (v, 1.0, step) }
        };
        let all: Vec<_> = weights.iter().map(|w| (w, v(w.key))).collect();
        let scaled =
            |(weight, (_, by, _)): &(&Weight, (Vec<f64>, f64, f64))| (weight.w * by, weight.near * by);
        let (largest, mut most_near) =
            all.iter().map(scaled).fold((0f64, 0f64), |(w, near), own| (w.max(own.0), near.max(own.1)));
        // The exponential of the row's largest score is exact.
        if rough.among_several || by_token {
            most_near += rough.relative * largest;
        }
        let fixed = self.int8.weights_scale.map(f64::from);
        if fixed.is_none() && largest < 1e-25 {
            // Nothing, or about nothing.
            return most_near < 1e-12;
        }
        if fixed.is_none() && most_near > 1e-3 * largest {
            return false;
        }
        let step = fixed.unwrap_or(largest / 255.0);
        // The least and the largest byte that each may be.
        let codes: Vec<(f64, f64)> = all
            .iter()
            .map(|own| {
                let (w, near) = scaled(own);
                let of_step = if fixed.is_some() { 0.0 } else { w * most_near / largest };
                let off = (near + rough.relative * w + of_step) / step + 1e-6;
                let code = |steps: f64| steps.round_ties_even().clamp(0.0, 255.0);
                (code(w / step - off), code(w / step + off))
            })
            .collect();
        let sum: f64 = codes.iter().map(|c| c.0).sum();
        let exact: f64 = all.iter().map(|own| scaled(own).0).sum();
        // Sums, and the total that they are divided by, are as rough as what is added up; of one chunk alone both are the same number.
        let of_sum = if rough.among_several || by_token { 2.0 * rough.relative * exact } else { 0.0 };
        let near: f64 = all.iter().map(|own| scaled(own).1).sum::<f64>() + of_sum;
        for f in 0..self.head_dim {
            let number = |i: usize| all[i].1.0[f] * all[i].1.2;
            let total: f64 = codes.iter().enumerate().map(|(i, c)| c.0 * number(i)).sum();
            // A byte more moves a mean by how far its v is from it.
            let (unit, mean) = if fixed.is_some() { (step, 0.0) } else { (exact / sum, total / sum) };
            let doubt: f64 =
                codes.iter().enumerate().map(|(i, c)| (c.1 - c.0) * (number(i) - mean).abs()).sum();
            row.values[f] += unit * total;
            row.slack[f] += unit * doubt + if fixed.is_some() { 0.0 } else { near * mean.abs() };
        }
        true
    }
}

/// Keys of a sequence that have one step of the weights.
const CHUNK: usize = 512;

/// How rough exponentials are, where they have no more digits than bytes keep.
#[derive(Clone, Copy)]
struct Rough {
    relative: f64,
    /// Whether the row has keys in several chunks.
    among_several: bool,
}

/// What a key weighs, how exact that is in f32, and its probability before a clip cut it off, stretched.
struct Weight {
    key: usize,
    w: f64,
    near: f64,
    stretched: f64,
}

/// Quantized and back.
fn rounded(real: f64, params: QuantParams) -> f64 {
    let (step, zero) = (f64::from(params.scale()), f64::from(params.zero_point()));
    let (low, high) = (f64::from(params.range().0), f64::from(params.range().1));
    ((real / step).round_ties_even() + zero).clamp(low, high).mul_add(step, -zero * step)
}

/// Whether an error so large relative to a number, and not less than itself, may round the number to another one.
fn near_middle(steps: f64, relative: f64) -> bool {
    near_middle_by(steps, relative * (1.0 + steps.abs()))
}

fn near_middle_by(steps: f64, error: f64) -> bool {
    (steps - steps.floor() - 0.5).abs() <= error
}

//! What must come out of a call of attention, computed in f64, or exactly of bytes, one query at a time.
#![allow(dead_code, reason = "each test uses its own part")]

use super::*;

impl Data {
    fn bias_of(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let Some([batch, heads, queries, keys]) = self.case.bias else { return 0.0 };
        let of = |n: usize, at: usize| if n == 1 { 0 } else { at };
        let at = (of(batch, b) * heads + of(heads, h)) * queries + of(queries, i);
        f64::from(self.bias[at * keys + j])
    }

    /// Whether a query meets a key, whatever the bias says.
    pub fn meets(&self, b: usize, i: usize, j: usize) -> bool {
        let case = &self.case;
        let (p, key) = (case.position(b) + i as i128, j as i128);
        let window = |(left, right)| key + left as i128 >= p && key <= p + right as i128;
        let cols = case.grid().1;
        case.key_lengths.as_ref().is_none_or(|l| j < l[b])
            && (!case.causal || key <= p)
            && case.window.is_none_or(|(left, right): (usize, usize)| window((left, right)))
            && case.blocks.is_none_or(|(bq, bk)| self.live[i / bq * cols + j / bk])
    }

    /// The parameters of a head of q, k or v.
    pub fn params_of(&self, which: usize, head: usize) -> QuantParams {
        match &self.params[which][..] {
            [one] => *one,
            each => each[head],
        }
    }

    /// Sequence, head and query of every row of the context, in its order.
    fn rows(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let heads = self.case.heads;
        let queries = self.case.lengths.iter().enumerate().flat_map(|(b, l)| (0..l.0).map(move |i| (b, i)));
        queries.flat_map(move |(b, i)| (0..heads).map(move |h| (b, h, i)))
    }

    /// The probabilities of a row's keys before the clip, from their scaled scores; None of a row that attends to nothing.
    fn probabilities(&self, (b, h, i): (usize, usize, usize), scores: &[f64]) -> Option<Vec<f64>> {
        let there = |j: usize| self.meets(b, i, j) && self.bias_of(b, h, i, j) != f64::NEG_INFINITY;
        let keys = scores.len();
        let live: Vec<usize> = (0..keys).filter(|&j| there(j)).collect();
        if live.is_empty() {
            return (self.case.uniform && keys > 0).then(|| vec![1.0 / keys as f64; keys]);
        }
        let mut p = vec![0.0; keys];
        let score = |j: usize| scores[j] + self.bias_of(b, h, i, j);
        let max = live.iter().map(|&j| score(j)).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = live.iter().map(|&j| (score(j) - max).exp()).sum();
        for &j in &live {
            p[j] = (score(j) - max).exp() / sum;
        }
        Some(p)
    }

    fn clip(&self, p: f64) -> f64 {
        match self.case.clipped {
            None => p,
            Some((gamma, zeta)) => {
                let (gamma, zeta) = (f64::from(gamma), f64::from(zeta));
                ((zeta - gamma) * p + gamma).clamp(0.0, 1.0)
            }
        }
    }

    fn scale(&self) -> f64 {
        self.case.scale.map_or_else(|| 1.0 / (self.case.head_dim as f64).sqrt(), f64::from)
    }

    fn dot(&self, q: usize, k: usize, zero: (i32, i32)) -> f64 {
        let d = self.case.head_dim;
        let pairs = self.q[q * d..][..d].iter().zip(&self.k[k * d..][..d]);
        // Bytes: integers that f64 holds exactly.
        pairs.map(|(&q, &k)| (f64::from(q) - f64::from(zero.0)) * (f64::from(k) - f64::from(zero.1))).sum()
    }

    /// First tokens of a sequence: of q, and of k and v.
    fn first(&self, b: usize) -> (usize, usize) {
        self.case.lengths[..b].iter().fold((0, 0), |at, l| (at.0 + l.0, at.1 + l.1))
    }

    /// The context of floats.
    pub fn reference(&self) -> Reference {
        let case = &self.case;
        let d = case.head_dim;
        let mut all = Reference { context: Vec::with_capacity(self.q.len()), pairs: 0, zeros: (0, 0) };
        for row @ (b, h, i) in self.rows() {
            let (q0, k0) = self.first(b);
            let (head, keys) = (h / (case.heads / case.kv_heads), case.lengths[b].1);
            let at = |j: usize| (k0 + j) * case.kv_heads + head;
            let query = (q0 + i) * case.heads + h;
            let scores: Vec<f64> = (0..keys)
                .map(
                    |j| if self.meets(b, i, j) { self.scale() * self.dot(query, at(j), (0, 0)) } else { 0.0 },
                )
                .collect();
            let mut context = vec![0.0; d];
            if let Some(p) = self.probabilities(row, &scores) {
                for (j, &p) in p.iter().enumerate() {
                    let w = self.clip(p);
                    if self.meets(b, i, j) {
                        all.pairs += 1;
                        // Those so near to the clip that rounding decides.
                        let (gamma, zeta) = case.clipped.unwrap_or((0.0, 1.0));
                        let x = (f64::from(zeta) - f64::from(gamma)) * p + f64::from(gamma);
                        let near = 1e-4 * f64::from(-gamma);
                        all.zeros.0 += u64::from(x < -near || p == 0.0);
                        all.zeros.1 += u64::from(x <= near || p < 1e-37);
                    }
                    if w != 0.0 {
                        let v = &self.v[at(j) * d..][..d];
                        context.iter_mut().zip(v).for_each(|(c, &v)| *c += w * f64::from(v));
                    }
                }
            } else {
                all.pairs += (0..keys).filter(|&j| self.meets(b, i, j)).count() as u64;
            }
            if case.gates {
                let gate = f64::from(self.gates[query]);
                context.iter_mut().for_each(|c| *c *= gate);
            }
            all.context.extend(context);
        }
        all
    }

    /// Of bytes, in f32: the least and the largest that each element can be, where f32 may round a weight either way;
    /// nothing of a row whose quantized scores it may.
    pub fn reference_bytes(&self) -> Vec<Option<(f64, f64)>> {
        let case = &self.case;
        let d = case.head_dim;
        let mut all = Vec::with_capacity(self.q.len());
        'rows: for row @ (b, h, i) in self.rows() {
            let (q0, k0) = self.first(b);
            let (head, keys) = (h / (case.heads / case.kv_heads), case.lengths[b].1);
            let [pq, pk, pv] =
                [(0, h), (1, head), (2, head)].map(|(which, head)| self.params_of(which, head));
            let at = |j: usize| (k0 + j) * case.kv_heads + head;
            let query = (q0 + i) * case.heads + h;
            let step = self.scale() * f64::from(pq.scale()) * f64::from(pk.scale());
            let mut scores = vec![0.0; keys];
            for j in (0..keys).filter(|&j| self.meets(b, i, j)) {
                let s = step * self.dot(query, at(j), (pq.zero_point(), pk.zero_point()));
                scores[j] = match self.int8.scores {
                    None => s,
                    Some(p) => {
                        let near = s.abs() * 1e-6;
                        let (low, high) = (p.quantize((s - near) as f32), p.quantize((s + near) as f32));
                        if low != high {
                            all.extend(vec![None; d]);
                            continue 'rows;
                        }
                        f64::from(p.scale()) * f64::from(low - p.zero_point())
                    }
                };
            }
            let weights_step = f64::from(self.int8.weights_scale);
            let stretch = case.clipped.map_or(1.0, |(gamma, zeta)| f64::from(zeta) - f64::from(gamma));
            let p = self.probabilities(row, &scores).unwrap_or_default();
            let mut context = vec![(0.0, 0.0); d];
            for (j, &p) in p.iter().enumerate() {
                let (w, near) = (self.clip(p), 3e-5 * stretch * p + 1e-7);
                let code = |w: f64| (w / weights_step).round_ties_even().clamp(0.0, 255.0);
                let (low, high) = (code(w - near), code(w + near));
                let v = &self.v[at(j) * d..][..d];
                for (c, &v) in context.iter_mut().zip(v) {
                    let v = f64::from(v) - f64::from(pv.zero_point());
                    c.0 += (low * v).min(high * v);
                    c.1 += (low * v).max(high * v);
                }
            }
            for (low, high) in context {
                let step = weights_step * f64::from(pv.scale());
                let near = 1e-6 * step * f64::max(low.abs(), high.abs());
                let (mut low, mut high) = (step * low - near, step * high + near);
                if let Some(p) = self.int8.context {
                    let whole =
                        |c: f64| f64::from(p.scale()) * f64::from(p.quantize(c as f32) - p.zero_point());
                    (low, high) = (whole(low), whole(high));
                }
                if case.gates {
                    let gate = f64::from(self.gates[query]);
                    (low, high) = ((gate * low).min(gate * high), (gate * low).max(gate * high));
                }
                let near = 1e-6 * f64::max(low.abs(), high.abs());
                all.push(Some((low - near, high + near)));
            }
        }
        all
    }
}

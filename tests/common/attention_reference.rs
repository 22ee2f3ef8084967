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
    /// nothing of a row whose quantized scores it may, or whose weights are so near to the clip that it decides.
    pub fn reference_bytes(&self) -> Vec<Option<(f64, f64)>> {
        let case = &self.case;
        let d = case.head_dim;
        let mut all = Vec::with_capacity(self.q.len());
        'rows: for row @ (b, h, i) in self.rows() {
            let (q0, k0) = self.first(b);
            let (head, keys) = (h / (case.heads / case.kv_heads), case.lengths[b].1);
            let pq = self.params[0].of(q0 + i, h);
            let at = |j: usize| (k0 + j) * case.kv_heads + head;
            let query = (q0 + i) * case.heads + h;
            let mut scores = vec![0.0; keys];
            for j in (0..keys).filter(|&j| self.meets(b, i, j)) {
                let pk = self.params[1].of(k0 + j, head);
                let step = self.scale() * f64::from(pq.scale()) * f64::from(pk.scale());
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
            let p = self.probabilities(row, &scores).unwrap_or_default();
            // Each chunk, as f32 has it at worst: weights of bytes times v.
            let mut context = vec![(0.0, 0.0); d];
            for (n, p) in p.chunks(512).enumerate() {
                let first = 512 * n;
                let v = |j: usize| (at(first + j), self.params[2].of(k0 + first + j, head));
                let Some(chunk) = self.chunk(p, v) else {
                    all.extend(vec![None; d]);
                    continue 'rows;
                };
                for (c, (value, slack)) in context.iter_mut().zip(chunk) {
                    *c = (c.0 + value - slack, c.1 + value + slack);
                }
            }
            for (mut low, mut high) in context {
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

    /// What a chunk of probabilities adds to a context of bytes, and how far f32 may be off; nothing where that is too much.
    fn chunk(&self, p: &[f64], v: impl Fn(usize) -> (usize, QuantParams)) -> Option<Vec<(f64, f64)>> {
        let d = self.case.head_dim;
        let (gamma, zeta) = self.case.clipped.map_or((0.0, 1.0), |(g, z)| (f64::from(g), f64::from(z)));
        let by_token = matches!(self.params[2], Params::Tokens(_));
        let scale = |j: usize| if by_token { f64::from(v(j).1.scale()) } else { 1.0 };
        let weights: Vec<f64> = p.iter().enumerate().map(|(j, &p)| self.clip(p) * scale(j)).collect();
        let fixed = self.int8.weights_scale.map(f64::from);
        // Exponentials that become bytes by steps of their own are off by up to 1.1e-4, and so is the total that they are divided by.
        let rough = self.case.clipped.is_none() && fixed.is_none();
        let (relative, of_total) = if rough { (3e-5 + 1.1e-4, 2.0) } else { (3e-5, 1.0) };
        let near = |j: usize| (relative * (zeta - gamma) * p[j] - 1e-7 * gamma) * scale(j);
        let largest = weights.iter().copied().fold(0.0, f64::max);
        let step = fixed.unwrap_or(largest / 255.0);
        let nears: f64 = (0..p.len()).map(near).sum();
        if fixed.is_none() && largest < 1e-25 {
            // Nothing, or about nothing.
            return (nears < 1e-7).then(|| vec![(0.0, 1e-20); d]);
        }
        let most_near = (0..p.len()).map(near).fold(0.0, f64::max);
        if fixed.is_none() && most_near > 1e-3 * largest {
            return None;
        }
        let codes: Vec<(f64, f64)> = (0..p.len())
            .map(|j| {
                // The step is off as its largest weight is.
                let of_step = if fixed.is_some() { 0.0 } else { weights[j] * most_near / largest };
                let off = near(j) + of_step + 1e-7 * step;
                let code = |w: f64| (w / step).round_ties_even().clamp(0.0, 255.0);
                (code(weights[j] - off), code(weights[j] + off))
            })
            .collect();
        let sum: f64 = codes.iter().map(|c| c.0).sum();
        let exact: f64 = weights.iter().sum();
        let value = |j: usize, f: usize| {
            let (row, p) = v(j);
            let scale = if by_token { 1.0 } else { f64::from(p.scale()) };
            (f64::from(self.v[row * d + f]) - f64::from(p.zero_point())) * scale
        };
        let each = (0..d).map(|f| {
            let total: f64 = codes.iter().enumerate().map(|(j, c)| c.0 * value(j, f)).sum();
            match fixed {
                Some(step) => {
                    let all = codes.iter().enumerate();
                    let slack: f64 = all.map(|(j, c)| (c.1 - c.0) * value(j, f).abs()).sum();
                    (step * total, step * slack + 1e-6 * (step * total).abs())
                }
                None => {
                    let mean = total / sum;
                    let all = codes.iter().enumerate();
                    let slack: f64 = all.map(|(j, c)| (c.1 - c.0) * (value(j, f) - mean).abs()).sum();
                    (exact * mean, exact * slack / sum + (of_total * nears + 1e-6 * exact) * mean.abs())
                }
            }
        });
        Some(each.collect())
    }
}

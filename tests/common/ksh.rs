//! The fit of a hash by its definition: f64, every N x N matrix written out.

#![allow(dead_code, reason = "each test uses its own part")]

use siskin::attention::HeadsRef;
use siskin::ecoformer::FitOptions;

/// What a plain fit has.
pub struct Plain {
    pub anchors: Vec<f64>,
    pub centring: Vec<f64>,
    pub sigma: Vec<f64>,
    pub projection: Vec<f64>,
    pub accepted: Vec<bool>,
    /// Before and after the descent of each bit.
    pub losses: Vec<[f64; 2]>,
    /// The smallest |K a| of a token, whose sign was asked for.
    pub margin: f64,
}

type Matrix = Vec<Vec<f64>>;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// 1 at the `count` largest, then -1 at the `count` smallest.
fn similarity(x: &Matrix, count: usize) -> Matrix {
    let row = |n: usize| {
        let sim: Vec<f64> = x.iter().map(|other| dot(&x[n], other)).collect();
        let mut order: Vec<usize> = (0..x.len()).collect();
        let mut row = vec![0.0; x.len()];
        order.sort_by(|&a, &b| sim[b].total_cmp(&sim[a]));
        order[..count].iter().for_each(|&j| row[j] = 1.0);
        order.sort_by(|&a, &b| sim[a].total_cmp(&sim[b]));
        order[..count].iter().for_each(|&j| row[j] = -1.0);
        row
    };
    (0..x.len()).map(row).collect()
}

fn quadratic(s: &Matrix, y: &[f64]) -> f64 {
    s.iter().zip(y).map(|(row, v)| v * dot(row, y)).sum()
}

/// With the anchors and the projection that the options name.
pub fn fit(sequences: &[HeadsRef<'_, f32>], options: &FitOptions) -> Plain {
    let heads = sequences[0].heads();
    let &FitOptions { bits, anchors: m, neighbours, iterations, .. } = options;
    let (rate, momentum) = (f64::from(options.learning_rate), f64::from(options.momentum));
    let chosen = options.anchor_tokens.as_ref().unwrap();
    let mut projection: Vec<f64> = options.projection.as_ref().unwrap().iter().map(|&v| v.into()).collect();
    let (mut anchors, mut centring, mut sigmas) = (Vec::new(), Vec::new(), Vec::new());
    // [heads][sequences]
    let mut kernels: Vec<Vec<Matrix>> = Vec::new();
    let mut left: Vec<Vec<Matrix>> = Vec::new();
    for h in 0..heads {
        let unit = |x: &HeadsRef<'_, f32>, n: usize| -> Vec<f64> {
            let row: Vec<f64> = x.head(n, h).iter().map(|&v| v.into()).collect();
            let norm = dot(&row, &row).sqrt();
            row.iter().map(|v| v / norm).collect()
        };
        let own: Matrix = chosen.iter().map(|&n| unit(&sequences[0], n)).collect();
        let (mut of_head, mut left_of_head) = (Vec::new(), Vec::new());
        let (mut mean, mut mean_sigma) = (vec![0.0; m], 0.0);
        for x in sequences {
            let tokens = x.tokens() as f64;
            let rows: Matrix = (0..x.tokens()).map(|n| unit(x, n)).collect();
            let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            let mut kernel: Matrix =
                rows.iter().map(|row| own.iter().map(|a| distance(row, a)).collect()).collect();
            let sigma = kernel.iter().flatten().sum::<f64>() / (tokens * m as f64);
            kernel.iter_mut().flatten().for_each(|d| *d = (-*d / (2.0 * sigma)).exp());
            for row in &kernel {
                mean.iter_mut().zip(row).for_each(|(mean, k)| *mean += k / tokens / sequences.len() as f64);
            }
            mean_sigma += sigma / sequences.len() as f64;
            of_head.push(kernel);
            let mut s = similarity(&rows, neighbours);
            s.iter_mut().flatten().for_each(|s| *s *= bits as f64);
            left_of_head.push(s);
        }
        for row in of_head.iter_mut().flatten() {
            row.iter_mut().zip(&mean).for_each(|(k, mean)| *k -= mean);
        }
        kernels.push(of_head);
        left.push(left_of_head);
        anchors.extend(own.into_iter().flatten());
        centring.extend(mean);
        sigmas.push(mean_sigma);
    }

    let mut margin = f64::INFINITY;
    let (mut accepted, mut losses) = (Vec::new(), Vec::new());
    let all = (sequences.len() * heads) as f64;
    for r in 0..bits {
        let mut hard = |kernel: &Matrix, a: &[f64]| -> Vec<f64> {
            let sign = |row: &Vec<f64>| {
                let z = dot(row, a);
                margin = margin.min(z.abs());
                if z > 0.0 { 1.0 } else { -1.0 }
            };
            kernel.iter().map(sign).collect()
        };
        let at = |h: usize| (h * bits + r) * m;
        let mut candidates = Vec::new();
        let mut loss = [0.0; 2];
        for h in 0..heads {
            let start = projection[at(h)..][..m].to_vec();
            let (mut a, mut buffer) = (start.clone(), vec![0.0; m]);
            for iteration in 0..iterations {
                let mut gradient = vec![0.0; m];
                for (kernel, s) in kernels[h].iter().zip(&left[h]) {
                    let n = kernel.len();
                    let y: Vec<f64> = kernel.iter().map(|row| (dot(row, &a) / 2.0).tanh()).collect();
                    for i in 0..n {
                        let both: f64 = (0..n).map(|j| (s[i][j] + s[j][i]) * y[j]).sum();
                        let g = -(1.0 - y[i] * y[i]) / 2.0 * both / (n as f64 * bits as f64 * all);
                        gradient.iter_mut().zip(&kernel[i]).for_each(|(sum, k)| *sum += g * k);
                    }
                }
                for ((a, b), g) in a.iter_mut().zip(&mut buffer).zip(&gradient) {
                    *b = if iteration == 0 { *g } else { momentum * *b + g };
                    *a -= rate * (g + momentum * *b);
                }
            }
            for (kernel, s) in kernels[h].iter().zip(&left[h]) {
                for (loss, a) in loss.iter_mut().zip([&start, &a]) {
                    *loss -= quadratic(s, &hard(kernel, a)) / (kernel.len() as f64 * bits as f64 * all);
                }
            }
            candidates.push(a);
        }
        let taken = loss[1] < loss[0];
        for (h, candidate) in candidates.into_iter().enumerate() {
            if taken {
                projection[at(h)..][..m].copy_from_slice(&candidate);
            }
            for (kernel, s) in kernels[h].iter().zip(&mut left[h]) {
                let y = hard(kernel, &projection[at(h)..][..m]);
                for (row, a) in s.iter_mut().zip(&y) {
                    row.iter_mut().zip(&y).for_each(|(s, b)| *s -= a * b);
                }
            }
        }
        accepted.push(taken);
        losses.push(loss);
    }
    Plain { anchors, centring, sigma: sigmas, projection, accepted, losses, margin }
}

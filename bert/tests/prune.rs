//! The surgeon against least squares by elimination in f64, against every choice of blocks, and against magnitude.

use siskin::sparse::BlockShape;
use siskin::{Ctx, MatRef};
use siskin_bert::prune::{Curve, Error, Hessian, Options, Pruned, Surgeon, Target, allocate, magnitude};

/// Numbers in -1 to 1, from a linear congruence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next() as f32).collect()
    }
}

/// A layer, and inputs `[tokens, k]` that depend on each other: k mixtures of half as many sources, some noise and an offset.
struct Problem {
    n: usize,
    k: usize,
    tokens: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
}

impl Problem {
    fn new(n: usize, k: usize, tokens: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let sources = k.div_ceil(2);
        let mix = random.vec(k * sources);
        let mut x = Vec::new();
        for _ in 0..tokens {
            let source = random.vec(sources);
            for row in mix.chunks(sources) {
                let mixed: f32 = row.iter().zip(&source).map(|(a, b)| a * b).sum();
                x.push(mixed + 0.1 * random.next() as f32 + 0.5);
            }
        }
        Self { n, k, tokens, x, w: random.vec(n * k), bias: random.vec(n) }
    }

    fn x(&self) -> MatRef<'_, f32> {
        MatRef::new(&self.x, self.tokens, self.k).unwrap()
    }

    fn w(&self) -> MatRef<'_, f32> {
        MatRef::new(&self.w, self.n, self.k).unwrap()
    }

    fn hessian(&self) -> Hessian {
        let mut hessian = Hessian::new(self.k);
        hessian.add(self.x(), &Ctx::serial().unwrap()).unwrap();
        hessian
    }

    fn surgeon(&self, options: &Options) -> Result<Surgeon, Error> {
        Surgeon::new(self.w(), &self.bias, &self.hessian(), None, options)
    }

    fn outputs(&self, w: &[f32], bias: &[f32]) -> Vec<f64> {
        outputs(&self.x, w, bias, self.k)
    }

    /// The error of other weights as a part of the variance of the outputs.
    fn error(&self, w: &[f32], bias: &[f32]) -> f64 {
        let wanted = self.outputs(&self.w, &self.bias);
        error(&self.outputs(w, bias), &wanted, self.n)
    }

    /// The best bias for given weights: where weights are taken away, the means of their inputs move into it.
    fn best_bias(&self, w: &[f32]) -> Vec<f32> {
        let (wanted, got) = (self.outputs(&self.w, &self.bias), self.outputs(w, &vec![0.0; self.n]));
        let mean = |y: &[f64], i: usize| y.iter().skip(i).step_by(self.n).sum::<f64>() / self.tokens as f64;
        (0..self.n).map(|i| (mean(&wanted, i) - mean(&got, i)) as f32).collect()
    }
}

fn outputs(x: &[f32], w: &[f32], bias: &[f32], k: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    x.chunks(k)
        .flat_map(|x| w.chunks(k).zip(bias).map(move |(w, &bias)| dot(x, w) + f64::from(bias)))
        .collect()
}

fn error(got: &[f64], wanted: &[f64], n: usize) -> f64 {
    let tokens = (wanted.len() / n) as f64;
    let mean: Vec<f64> = (0..n).map(|i| wanted.iter().skip(i).step_by(n).sum::<f64>() / tokens).collect();
    let variance: f64 = wanted.iter().enumerate().map(|(i, y)| (y - mean[i % n]).powi(2)).sum();
    got.iter().zip(wanted).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / variance
}

/// Which blocks hold anything but zeros, `[block rows, block columns]`.
fn blocks(w: &[f32], n: usize, k: usize, block: BlockShape) -> Vec<bool> {
    let (down, across) = (n.div_ceil(block.rows()), k.div_ceil(block.cols()));
    let mut kept = vec![false; down * across];
    for (i, _) in w.iter().enumerate().filter(|(_, w)| **w != 0.0) {
        kept[i / k / block.rows() * across + i % k / block.cols()] = true;
    }
    kept
}

/// Least squares on the inputs `kept` and a constant, by elimination of the normal equations: `[kept, then the constant]`.
fn least_squares(x: &[f32], k: usize, kept: &[usize], y: &[f64]) -> Vec<f64> {
    let n = kept.len() + 1;
    let mut a = vec![vec![0.0; n + 1]; n];
    for (x, &y) in x.chunks(k).zip(y) {
        let row: Vec<f64> = kept.iter().map(|&c| f64::from(x[c])).chain([1.0, y]).collect();
        for i in 0..n {
            (0..=n).for_each(|j| a[i][j] += row[i] * row[j]);
        }
    }
    for i in 0..n {
        let pivot = (i..n).max_by(|&p, &q| a[p][i].abs().total_cmp(&a[q][i].abs())).unwrap();
        a.swap(i, pivot);
        for r in (0..n).filter(|&r| r != i) {
            let factor = a[r][i] / a[i][i];
            (i..=n).for_each(|c| a[r][c] -= factor * a[i][c]);
        }
    }
    (0..n).map(|i| a[i][n] / a[i][i]).collect()
}

fn options(block: &str) -> Options {
    Options::new(block.parse().unwrap())
}

#[test]
fn loses_far_less_than_magnitude() {
    let problem = Problem::new(32, 64, 900, 1);
    for (block, sparsity) in
        [("1x1", 0.5), ("4x1", 0.5), ("4x1", 0.7), ("4x4", 0.5), ("16x4", 0.4), ("1x4", 0.5)]
    {
        let pruned = problem.surgeon(&options(block)).unwrap().prune(sparsity).unwrap();
        let ours = problem.error(&pruned.weights, &pruned.bias);
        assert!((ours - pruned.error).abs() < 1e-3, "{block}: says {}, is {ours}", pruned.error);
        let plain = magnitude(problem.w(), block.parse().unwrap(), sparsity).unwrap();
        let plain = problem.error(&plain, &problem.best_bias(&plain));
        assert!(ours < 0.4 * plain, "{block} at {sparsity}: {ours} against {plain} by magnitude");
    }
}

#[test]
fn zeros_are_whole_blocks_as_many_as_asked_for() {
    // Neither dimension is a multiple of 4 or 3: blocks at the edges are cut short.
    let problem = Problem::new(18, 22, 400, 2);
    for block in ["1x1", "4x1", "4x4", "3x5", "16x4", "1x4", "64x64"] {
        let shape: BlockShape = block.parse().unwrap();
        let surgeon = problem.surgeon(&options(block)).unwrap();
        for sparsity in [0.0, 0.3, 0.5, 0.8, 0.97] {
            let pruned = surgeon.prune(sparsity).unwrap();
            let kept = blocks(&pruned.weights, 18, 22, shape);
            let want = (kept.len() as f64 * (1.0 - sparsity)).round() as usize;
            assert_eq!(kept.iter().filter(|k| **k).count(), want, "{block} at {sparsity}");
            assert!(pruned.weights.iter().chain(&pruned.bias).all(|v| v.is_finite()));
            let by_magnitude = magnitude(problem.w(), shape, sparsity).unwrap();
            let by_magnitude = blocks(&by_magnitude, 18, 22, shape);
            assert_eq!(by_magnitude.iter().filter(|k| **k).count(), want, "{block} at {sparsity}");
        }
    }
}

#[test]
fn nothing_removed_leaves_the_layer() {
    let problem = Problem::new(8, 12, 300, 3);
    let pruned = problem.surgeon(&options("4x1")).unwrap().prune(0.0).unwrap();
    assert_eq!((&pruned.weights, &pruned.bias), (&problem.w, &problem.bias));
    assert!(pruned.error < 1e-6, "{}", pruned.error);
}

/// More tokens than are multiplied at once.
#[test]
fn kept_weights_are_those_of_least_squares() {
    for (block, seed) in [("4x1", 4), ("1x1", 5), ("2x3", 6), ("8x2", 7)] {
        let problem = Problem::new(8, 9, 2500, seed);
        let options = Options { damping: 0.0, ..options(block) };
        let pruned = problem.surgeon(&options).unwrap().prune(0.5).unwrap();
        let wanted = problem.outputs(&problem.w, &problem.bias);
        for r in 0..8 {
            let row = &pruned.weights[r * 9..][..9];
            let kept: Vec<usize> = (0..9).filter(|&c| row[c] != 0.0).collect();
            let y: Vec<f64> = wanted.iter().skip(r).step_by(8).copied().collect();
            let best = least_squares(&problem.x, 9, &kept, &y);
            for (&c, best) in kept.iter().zip(&best) {
                assert!((f64::from(row[c]) - best).abs() < 2e-3, "{block}, row {r}: {} not {best}", row[c]);
            }
            assert!((f64::from(pruned.bias[r]) - best[kept.len()]).abs() < 2e-3, "{block}, bias {r}");
        }
        // No other values in the same places are better.
        let least = problem.error(&pruned.weights, &pruned.bias);
        let mut random = Random(seed);
        for size in [0.001, 0.01, 0.1] {
            for _ in 0..20 {
                let mut other = pruned.clone();
                let kept = other.weights.iter_mut().filter(|w| **w != 0.0);
                kept.chain(&mut other.bias).for_each(|w| *w += size * random.next() as f32);
                assert!(problem.error(&other.weights, &other.bias) > least, "{block}");
            }
        }
    }
}

#[test]
fn the_first_block_is_the_best_of_all_and_others_are_near_it() {
    for seed in 10..18 {
        let problem = Problem::new(4, 8, 300, seed);
        let wanted = problem.outputs(&problem.w, &problem.bias);
        // The error of the best weights without the input features of `removed`.
        let best = |removed: u32| {
            let kept: Vec<usize> = (0..8).filter(|c| removed >> c & 1 == 0).collect();
            let (mut w, mut bias) = (vec![0.0; 32], Vec::new());
            for r in 0..4 {
                let y: Vec<f64> = wanted.iter().skip(r).step_by(4).copied().collect();
                let solved = least_squares(&problem.x, 8, &kept, &y);
                kept.iter().zip(&solved).for_each(|(&c, &v)| w[r * 8 + c] = v as f32);
                bias.push(solved[kept.len()] as f32);
            }
            problem.error(&w, &bias)
        };
        let options = Options { damping: 0.0, step: 0.01, ..options("4x1") };
        let surgeon = problem.surgeon(&options).unwrap();
        for count in 1..4u32 {
            let pruned = surgeon.prune(f64::from(count) / 8.0).unwrap();
            let ours = problem.error(&pruned.weights, &pruned.bias);
            let all: Vec<f64> = (0u32..256).filter(|m| m.count_ones() == count).map(best).collect();
            let least = all.iter().copied().fold(f64::MAX, f64::min);
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            // One block is chosen exactly, several one after the other.
            let allowed =
                if count == 1 { 1.0001 * least } else { (3.0 * least).min(least + 0.4 * (mean - least)) };
            assert!(
                ours <= allowed + 1e-6,
                "seed {seed}, {count} blocks: {ours}, least {least}, mean {mean}"
            );
        }
    }
}

#[test]
fn features_that_do_not_vary_or_repeat_need_damping() {
    let mut problem = Problem::new(8, 16, 200, 20);
    for token in problem.x.chunks_mut(16) {
        token[3] = token[2];
        token[7] = 0.0;
        token[8] = 5.0;
    }
    let undamped = problem.surgeon(&Options { damping: 0.0, ..options("4x1") }).unwrap_err();
    assert!(matches!(undamped, Error::NotPositiveDefinite { features: 16, tokens: 200, .. }), "{undamped}");
    assert!(undamped.to_string().contains("200 samples with a damping of 0"), "{undamped}");
    for (block, sparsity) in [("4x1", 3.0 / 16.0), ("1x1", 3.0 / 16.0)] {
        let pruned = problem.surgeon(&options(block)).unwrap().prune(sparsity).unwrap();
        // Three features say nothing that others do not say: without them nothing is lost but what damping takes.
        let error = problem.error(&pruned.weights, &pruned.bias);
        assert!(error < 1e-3, "{block}: {error}");
    }
    // Fewer tokens than features, and inputs that never vary.
    let few = Problem::new(8, 16, 3, 21);
    let pruned = few.surgeon(&options("4x1")).unwrap().prune(0.5).unwrap();
    assert!(few.error(&pruned.weights, &pruned.bias) < 0.05);
    let one = Problem::new(8, 16, 1, 22);
    assert!(matches!(one.surgeon(&options("4x1")), Err(Error::NotPositiveDefinite { .. })));
}

#[test]
fn a_target_corrects_what_went_wrong_before_the_layer() {
    let teacher = Problem::new(16, 24, 800, 30);
    let mut random = Random(31);
    // The student's inputs lost a quarter of their features and gained noise.
    let mut student =
        Problem { x: teacher.x.clone(), w: teacher.w.clone(), bias: teacher.bias.clone(), ..teacher };
    for token in student.x.chunks_mut(24) {
        token[..6].fill(0.25);
        token[6..].iter_mut().for_each(|v| *v += 0.05 * random.next() as f32);
    }
    let wanted = teacher.outputs(&teacher.w, &teacher.bias);
    let y: Vec<f32> = wanted.iter().map(|&v| v as f32).collect();
    let ctx = Ctx::serial().unwrap();
    let (hessian, mut target) = (student.hessian(), Target::new(16, 24));
    for from in [0, 300] {
        let (x, y) = (&student.x[from * 24..], &y[from * 16..]);
        let tokens = if from == 0 { 300 } else { 500 };
        let x = MatRef::new(&x[..tokens * 24], tokens, 24).unwrap();
        target.add(x, MatRef::new(&y[..tokens * 16], tokens, 16).unwrap(), &ctx).unwrap();
    }
    let with = Surgeon::new(student.w(), &student.bias, &hessian, Some(&target), &options("4x1")).unwrap();
    let without = student.surgeon(&options("4x1")).unwrap();
    for sparsity in [0.0, 0.5] {
        let [with, without] = [&with, &without].map(|s| s.prune(sparsity).unwrap());
        let off = |p: &Pruned| error(&student.outputs(&p.weights, &p.bias), &wanted, 16);
        assert!((off(&with) - with.error).abs() < 1e-3, "says {}, is {}", with.error, off(&with));
        assert!(off(&with) < 0.5 * off(&without), "{} against {}", off(&with), off(&without));
    }
    let short = Target::new(16, 24);
    let error =
        Surgeon::new(student.w(), &student.bias, &hessian, Some(&short), &options("4x1")).unwrap_err();
    assert!(error.to_string().starts_with("target: wrong shape: expected the 800 samples"), "{error}");
}

#[test]
fn the_curve_says_what_pruning_costs() {
    let problem = Problem::new(32, 48, 700, 40);
    let surgeon = problem.surgeon(&Options { step: 0.01, damping: 1e-4, ..options("4x1") }).unwrap();
    let curve = surgeon.curve();
    assert_eq!((curve.weights(), curve.loss(0.0)), (32 * 48, 0.0));
    assert!((curve.loss(1.0) - 1.0).abs() < 0.01, "{}", curve.loss(1.0));
    for sparsity in [0.25, 0.5, 0.75] {
        let error = surgeon.prune(sparsity).unwrap().error;
        assert!((curve.loss(sparsity) / error - 1.0).abs() < 0.1, "{} {error}", curve.loss(sparsity));
    }
}

#[test]
fn threads_do_not_change_the_answer() {
    let problem = Problem::new(24, 40, 500, 50);
    let [one, three] = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| problem.surgeon(&options("4x1")).unwrap().prune(0.6).unwrap())
    });
    assert_eq!(one, three);
}

#[test]
fn sparsity_goes_where_it_costs_least() {
    // A layer that can lose nearly all, one that can lose nothing, and a small one.
    let steps = |f: &dyn Fn(f64) -> f64| (0..=50).map(|i| f(f64::from(i) / 50.0)).collect::<Vec<_>>();
    let curves = [
        Curve::from_losses(10_000, &steps(&|s| 0.1 * s * s)).unwrap(),
        Curve::from_losses(10_000, &steps(&|s| 4.0 * s * s)).unwrap(),
        Curve::from_losses(500, &steps(&|s| 0.1 * s * s)).unwrap(),
    ];
    let total = |chosen: &[f64]| {
        curves.iter().zip(chosen).map(|(c, s)| c.weights() as f64 * s).sum::<f64>() / 20_500.0
    };
    let loss = |chosen: &[f64]| curves.iter().zip(chosen).map(|(c, &s)| c.loss(s)).sum::<f64>();
    for sparsity in [0.0, 0.1, 0.333, 0.6, 0.8, 0.9] {
        let chosen = allocate(&curves, sparsity, 0.9).unwrap();
        assert!((total(&chosen) - sparsity).abs() < 1e-9, "{chosen:?}");
        assert!(chosen.iter().all(|s| (0.0..=0.9).contains(s)), "{chosen:?}");
        assert!(chosen[0] >= chosen[1] && loss(&chosen) <= loss(&[sparsity; 3]) + 1e-12, "{chosen:?}");
    }
    let chosen = allocate(&curves, 0.4, 0.95).unwrap();
    assert!(chosen[0] > 0.7 && chosen[1] < 0.1, "{chosen:?}");
    // Against all choices in steps of the curves.
    let best = (0..50 * 50)
        .map(|i| [f64::from(i / 50) / 50.0, f64::from(i % 50) / 50.0])
        .map(|[a, b]| [a, b, (0.4 * 20_500.0 - 10_000.0 * (a + b)) / 500.0])
        .filter(|c| (0.0..=0.95).contains(&c[2]) && c[0] <= 0.95 && c[1] <= 0.95)
        .map(|c| loss(&c))
        .fold(f64::MAX, f64::min);
    assert!(loss(&chosen) <= best + 0.01, "{} {best}", loss(&chosen));
    for (sparsity, most) in [(1.0, 0.5), (-0.1, 0.5), (0.5, 0.4), (f64::NAN, 0.5), (0.5, 1.0)] {
        assert!(matches!(allocate(&curves, sparsity, most), Err(Error::Value { .. })), "{sparsity} {most}");
    }
}

#[test]
fn wrong_arguments_are_named() {
    let problem = Problem::new(8, 12, 50, 60);
    let hessian = problem.hessian();
    let ctx = Ctx::serial().unwrap();
    let made = |bias: &[f32], hessian: &Hessian, options: &Options| {
        Surgeon::new(problem.w(), bias, hessian, None, options)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let good = options("4x1");
    for (text, expected) in [
        (made(&[0.0; 7], &hessian, &good), "bias: wrong shape: expected the 8 output features of w, got 7"),
        (made(&[0.0; 8], &Hessian::new(12), &good), "hessian: wrong shape: expected a sample or more, got 0"),
        (
            made(&[0.0; 8], &Hessian::new(11), &good),
            "hessian: wrong shape: expected the 12 input features of w",
        ),
        (made(&[f32::NAN; 8], &hessian, &good), "bias: expected finite numbers, got NaN at 0"),
        (
            made(&[0.0; 8], &hessian, &Options { damping: -1.0, ..good }),
            "damping: expected 0 or more, got -1.0",
        ),
        (made(&[0.0; 8], &hessian, &Options { step: 0.0, ..good }), "step: expected above 0 to 1, got 0.0"),
    ] {
        assert!(text.starts_with(expected), "{text}");
    }
    let surgeon = problem.surgeon(&good).unwrap();
    for sparsity in [1.0, -0.5, f64::NAN] {
        assert!(matches!(surgeon.prune(sparsity), Err(Error::Value { argument: "sparsity", .. })));
        let shape = BlockShape::B4X1;
        assert!(matches!(magnitude(problem.w(), shape, sparsity), Err(Error::Library(_))));
    }
    let mut hessian = Hessian::new(12);
    let wide = [0.0; 13];
    let error = hessian.add(MatRef::new(&wide, 1, 13).unwrap(), &ctx).unwrap_err();
    assert_eq!(error.to_string(), "x: wrong shape: expected 12 columns, got 13");
    let mut row = [0.0; 12];
    row[5] = f32::INFINITY;
    let error = hessian.add(MatRef::new(&row, 1, 12).unwrap(), &ctx).unwrap_err();
    assert_eq!(error.to_string(), "x: expected finite numbers, got inf of token 0, feature 5");
    assert_eq!(hessian.tokens(), 0);
}

//! Gates.

use super::Sequences;
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::exp::sigmoid;
use crate::base::view::{MatMut, MatRef};
use std::sync::Mutex;

/// A gating module of Quantizable Transformers (section 4.2): what each head's context is multiplied by, so that a head can
/// do nothing without a softmax that is all but 0.
///
/// ```text
/// context[t, h, :] *= gate[t, h],    gate = sigmoid(logit)
/// ```
///
/// H is the number of heads, d the features of a head, `D = H * d`. x is the *input* of the attention block (OPT: behind the
/// layer norm before it), `[tokens, D]`, neither q nor k nor v; x_h are the features `h * d .. (h + 1) * d`. Beside a quantized
/// block the authors leave the gate in floats, with the quantized x for an input.
///
/// | | logit | parameters |
/// |---|---|---|
/// | [`Gate::unconditional`] | `alpha[h]` | H |
/// | [`Gate::linear`] | `x_h · g[h] + c[h]` | `H * (d + 1)` |
/// | [`Gate::mlp`] | `relu(x_h · w1[h]ᵀ + b1[h]) · w2[h] + b2[h]` | `H * ((d + 2) * hidden + 1)` |
/// | [`Gate::all_features`] | `x · g[h] + c[h]` | `H * (D + 1)` |
///
/// # The arithmetic
///
/// A dot product is one chain of f64 in the order of features, from 0, and the bias comes last. There a product of two f32 is
/// exact, so that fused or not it is the same. Hidden features are rounded to f32. The sigmoid is a fixed sequence of
/// operations of f64, and rounded to f32. So gates are the same bits on every CPU, at any number of threads, and for a token
/// alone or in a batch. NaN stays in its own token, or its own sequence where gates are pooled.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    kind: Kind,
    num_heads: usize,
    /// Columns of x; any if nothing of it is read.
    features: Option<usize>,
    pooled: bool,
    factor: f32,
}

/// Parameters are f64 for the chain: widened once.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Unconditional {
        alpha: Vec<f64>,
    },
    /// `[H, d]`.
    Linear {
        weight: Vec<f64>,
        bias: Vec<f64>,
    },
    /// `[H, hidden, d]`, `[H, hidden]` twice.
    Mlp {
        hidden: usize,
        w1: Vec<f64>,
        b1: Vec<f64>,
        w2: Vec<f64>,
        b2: Vec<f64>,
    },
    /// `[H, D]`.
    AllFeatures {
        weight: Vec<f64>,
        bias: Vec<f64>,
    },
}

impl Gate {
    /// One number for each head, whatever x: `alpha` is `[H]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no head.
    pub fn unconditional(alpha: &[f32]) -> Result<Self> {
        let kind = Kind::Unconditional { alpha: widen(alpha) };
        Self::new(kind, alpha.len(), None)
    }

    /// Of the head's own features, linearly: `weight` is g, `[H, d]`, `bias` c, `[H]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two do not fit or have no head or no feature.
    pub fn linear(weight: MatRef<'_, f32>, bias: &[f32]) -> Result<Self> {
        let (heads, head_dim) = (weight.rows(), weight.cols());
        check_len("bias", heads, bias.len())?;
        let kind = Kind::Linear { weight: widen_rows(weight), bias: widen(bias) };
        Self::new(kind, heads, Some(columns("weight", heads, head_dim)?))
    }

    /// Of the head's own features, by a hidden layer of any size (the paper's has `d / 4` features, or d): `w1` is
    /// `[H * hidden, d]` (those of head 0 first), `b1` and `w2` are `[H, hidden]`, `b2` is `[H]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit or have no head, no hidden feature or no feature.
    pub fn mlp(w1: MatRef<'_, f32>, b1: MatRef<'_, f32>, w2: MatRef<'_, f32>, b2: &[f32]) -> Result<Self> {
        let (heads, hidden) = (b1.rows(), b1.cols());
        if hidden == 0 {
            return Err(Error::shape("b1", "at least one hidden feature", 0));
        }
        if heads.checked_mul(hidden) != Some(w1.rows()) {
            let expected = format_args!("{heads} heads x {hidden} rows");
            return Err(Error::shape("w1", expected, w1.rows()));
        }
        if (w2.rows(), w2.cols()) != (heads, hidden) {
            let expected = format_args!("{heads} x {hidden}");
            return Err(Error::shape("w2", expected, format_args!("{} x {}", w2.rows(), w2.cols())));
        }
        check_len("b2", heads, b2.len())?;
        let features = columns("w1", heads, w1.cols())?;
        let (w1, b1, w2) = (widen_rows(w1), widen_rows(b1), widen_rows(w2));
        Self::new(Kind::Mlp { hidden, w1, b1, w2, b2: widen(b2) }, heads, Some(features))
    }

    /// Of all features, linearly: `weight` is g, `[H, D]`, `bias` c, `[H]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two do not fit or have no head or no feature.
    pub fn all_features(weight: MatRef<'_, f32>, bias: &[f32]) -> Result<Self> {
        let heads = weight.rows();
        check_len("bias", heads, bias.len())?;
        let kind = Kind::AllFeatures { weight: widen_rows(weight), bias: widen(bias) };
        Self::new(kind, heads, Some(columns("weight", 1, weight.cols())?))
    }

    fn new(kind: Kind, num_heads: usize, features: Option<usize>) -> Result<Self> {
        if num_heads == 0 {
            return Err(Error::shape("gate", "at least one head", 0));
        }
        Ok(Self { kind, num_heads, features, pooled: false, factor: 1.0 })
    }

    /// One gate for a head in a sequence (the authors' `conditional_per_head`): the logits of all queries of a sequence are
    /// averaged before the sigmoid. *Padding counts*, as it does in the original; packed sequences have none.
    ///
    /// The sum is f64, in the order of tokens.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the gate is not linear or an MLP: the original pools no other.
    pub fn pooled(mut self) -> Result<Self> {
        match self.kind {
            Kind::Linear { .. } | Kind::Mlp { .. } => {
                self.pooled = true;
                Ok(self)
            }
            Kind::Unconditional { .. } => Err(Error::unsupported(
                "gate",
                "a linear gate or an MLP, to be pooled",
                "an unconditional one",
            )),
            Kind::AllFeatures { .. } => Err(Error::unsupported(
                "gate",
                "a linear gate or an MLP, to be pooled",
                "one of all features",
            )),
        }
    }

    /// Gates of a model that was trained without: `sigmoid(logit) / initial`, which is 1 at first, where `initial` is the
    /// sigmoid that training began with. The original leaves unconditional gates as they are.
    ///
    /// # Errors
    /// [`Error::Value`] unless `initial` is above 0 and at most 1, and its reciprocal finite.
    pub fn fine_tuned(mut self, initial: f32) -> Result<Self> {
        let factor = (1.0 / f64::from(initial)) as f32;
        if !(initial > 0.0 && initial <= 1.0 && factor.is_finite()) {
            return Err(Error::value("initial", "above 0 and at most 1", initial));
        }
        self.factor = factor;
        Ok(self)
    }

    /// H.
    pub fn num_heads(&self) -> usize {
        self.num_heads
    }

    /// D, if anything of x is read.
    pub fn features(&self) -> Option<usize> {
        self.features
    }

    /// What [`AttentionCall::gates`](super::AttentionCall::gates) takes, `[tokens, H]`, of the block's input `hidden`, `[tokens, D]` (any number
    /// of columns for an unconditional gate). Of `sequences` only the queries matter, and they only to pooled gates.
    ///
    /// With more threads than one, a small list of tasks is allocated.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Index`] if `hidden`, `sequences` or `out` do not fit. Nothing was written then.
    pub fn evaluate(
        &self,
        hidden: MatRef<'_, f32>,
        sequences: &Sequences<'_>,
        mut out: MatMut<'_, f32>,
        ctx: &Ctx,
    ) -> Result<()> {
        let tokens = hidden.rows();
        if let Some(features) = self.features
            && hidden.cols() != features
        {
            let got = format_args!("{tokens} x {}", hidden.cols());
            return Err(Error::shape("hidden", format_args!("{tokens} tokens x {features} features"), got));
        }
        if (out.rows(), out.cols()) != (tokens, self.num_heads) {
            let expected = format_args!("{tokens} tokens x {} heads", self.num_heads);
            return Err(Error::shape("out", expected, format_args!("{} x {}", out.rows(), out.cols())));
        }
        sequences.check(tokens, keys(sequences))?;
        if tokens == 0 {
            return Ok(());
        }
        // Each task has its own tokens: whole sequences where they are pooled.
        let range = |i: usize| match self.pooled {
            true => sequences.queries(i),
            false => (i * TASK, tokens.min((i + 1) * TASK)),
        };
        let tasks = if self.pooled { sequences.count() } else { tokens.div_ceil(TASK) };
        let each = |i: usize, out: MatMut<'_, f32>| {
            let (first, last) = range(i);
            let x = hidden.rows_from(first, last - first);
            if self.pooled { self.sequence(x, out) } else { self.tokens(x, out) }
        };
        if ctx.threads() == 1 || tasks == 1 {
            for i in 0..tasks {
                let (first, last) = range(i);
                each(i, out.rows_from(first, last - first));
            }
            return Ok(());
        }
        let mut rest = out;
        let mut parts = Vec::with_capacity(tasks);
        for i in 0..tasks {
            let (first, last) = range(i);
            let (part, others) = rest.split_rows(last - first);
            parts.push(Mutex::new(Some(part)));
            rest = others;
        }
        ctx.for_each(tasks, &|i| {
            let part = parts[i].lock().ok().and_then(|mut part| part.take());
            if let Some(part) = part {
                each(i, part);
            }
        });
        Ok(())
    }

    /// A gate for each token.
    fn tokens(&self, x: MatRef<'_, f32>, mut out: MatMut<'_, f32>) {
        for first in (0..x.rows()).step_by(LANES) {
            let count = LANES.min(x.rows() - first);
            for head in (0..self.num_heads).step_by(UNITS) {
                let mut logits = [[0.0; LANES]; UNITS];
                let heads = UNITS.min(self.num_heads - head);
                self.logits(x, (first, count), head, &mut logits[..heads]);
                for t in 0..count {
                    for (gate, logits) in out.row_mut(first + t)[head..][..heads].iter_mut().zip(&logits) {
                        *gate = sigmoid(logits[t]) * self.factor;
                    }
                }
            }
        }
    }

    /// One gate for all tokens.
    fn sequence(&self, x: MatRef<'_, f32>, mut out: MatMut<'_, f32>) {
        for head in 0..self.num_heads {
            let mut sum = 0.0;
            for first in (0..x.rows()).step_by(LANES) {
                let count = LANES.min(x.rows() - first);
                let mut logits = [[0.0; LANES]];
                self.logits(x, (first, count), head, &mut logits);
                for logit in &logits[0][..count] {
                    sum += logit;
                }
            }
            let gate = sigmoid(sum / x.rows() as f64) * self.factor;
            (0..x.rows()).for_each(|t| out.row_mut(t)[head] = gate);
        }
    }

    /// Of `logits.len()` heads from `head` and of some tokens, the first and how many; the lanes behind them hold nothing. At
    /// first all are 0.
    fn logits(&self, x: MatRef<'_, f32>, tokens: (usize, usize), head: usize, logits: &mut [Lanes]) {
        let heads = head..head + logits.len();
        let bias = match &self.kind {
            Kind::Unconditional { alpha } => alpha,
            Kind::Linear { weight, bias } => {
                let d = weight.len() / self.num_heads;
                for (h, logits) in heads.zip(&mut *logits) {
                    multiply(x, tokens, h * d, &weight[h * d..][..d], d, std::slice::from_mut(logits));
                }
                bias
            }
            Kind::AllFeatures { weight, bias } => {
                let d = weight.len() / self.num_heads;
                multiply(x, tokens, 0, &weight[head * d..][..logits.len() * d], d, logits);
                bias
            }
            Kind::Mlp { hidden, w1, b1, w2, b2 } => {
                let d = w1.len() / (self.num_heads * hidden);
                for (h, logits) in heads.zip(&mut *logits) {
                    for unit in (0..*hidden).step_by(UNITS) {
                        let units = UNITS.min(hidden - unit);
                        let row = h * hidden + unit;
                        let mut sums = [[0.0; LANES]; UNITS];
                        multiply(x, tokens, h * d, &w1[row * d..][..units * d], d, &mut sums[..units]);
                        for (u, sum) in sums[..units].iter().enumerate() {
                            for t in 0..LANES {
                                let v = (sum[t] + b1[row + u]) as f32;
                                // NaN is not below 0 and stays.
                                let v = if v < 0.0 { 0.0 } else { v };
                                logits[t] += f64::from(v) * w2[row + u];
                            }
                        }
                    }
                }
                b2
            }
        };
        for (logits, bias) in logits.iter_mut().zip(&bias[head..]) {
            logits.iter_mut().for_each(|logit| *logit += bias);
        }
    }
}

/// Tokens that go together, so that a weight is read once for them.
const LANES: usize = 16;
/// Features of as many tokens that are transposed at a time.
const PIECE: usize = 64;
/// Rows of weights, of hidden features or of heads, that they are then multiplied by.
const UNITS: usize = 16;
/// Tokens of a task.
const TASK: usize = 64;

type Lanes = [f64; LANES];

/// `sums[n][t] += x[first + t, feature ..] · weight[n]`: `weight` is `[sums.len(), features]`.
fn multiply(
    x: MatRef<'_, f32>,
    (first, count): (usize, usize),
    feature: usize,
    weight: &[f64],
    features: usize,
    sums: &mut [Lanes],
) {
    let mut columns = [[0.0; LANES]; PIECE];
    for start in (0..features).step_by(PIECE) {
        let len = PIECE.min(features - start);
        for t in 0..count {
            let row = &x.row(first + t)[feature + start..][..len];
            for (column, &v) in columns.iter_mut().zip(row) {
                column[t] = f64::from(v);
            }
        }
        for (row, sum) in weight.chunks_exact(features).zip(&mut *sums) {
            let mut chain = *sum;
            for (column, &w) in columns.iter().zip(&row[start..][..len]) {
                for t in 0..LANES {
                    chain[t] += column[t] * w;
                }
            }
            *sum = chain;
        }
    }
}

/// The keys that sequences are of: gates do not care how many.
fn keys(sequences: &Sequences<'_>) -> usize {
    match *sequences {
        Sequences::Batch { batch, kv_len, .. } => batch.saturating_mul(kv_len),
        Sequences::Packed { kv, .. } => kv.last().map_or(0, |&last| last as usize),
    }
}

fn columns(argument: &'static str, heads: usize, cols: usize) -> Result<usize> {
    match heads.checked_mul(cols) {
        Some(features) if cols > 0 => Ok(features),
        _ => Err(Error::shape(argument, "columns, at least one, of all heads to fit usize", cols)),
    }
}

fn check_len(argument: &'static str, heads: usize, got: usize) -> Result<()> {
    if heads == got {
        return Ok(());
    }
    Err(Error::shape(argument, format_args!("one for each of {heads} heads"), got))
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

fn widen_rows(x: MatRef<'_, f32>) -> Vec<f64> {
    // Rows of no columns can be more than there is time for.
    let rows = if x.cols() == 0 { 0 } else { x.rows() };
    (0..rows).flat_map(|r| x.row(r)).map(|&v| f64::from(v)).collect()
}

//! From sample batches to the quantizers of an attention block.

use super::{Attention, AttentionCall, AttentionInputs, AttentionQuantizers, HeadsMut, HeadsRef};
use crate::base::ctx::Ctx;
use crate::base::error::{Error, Result};
use crate::base::exp::exp;
use crate::base::scratch::Scratch;
use crate::driver::attention::Call;
use crate::driver::tensor::MAX_HEAD_DIM;
use crate::quant::{Observer, QuantParams, RunningMinMax};

/// Where the context is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ContextOrder {
    /// After the gate, as in the authors' BERT: it is the output's quantizer.
    #[default]
    AfterGate,
    /// Before the gate, as in the authors' OPT: it is [`AttentionQuantizers::context`]. They leave what comes out of the gate in floats.
    BeforeGate,
}

/// All quantizers of an attention block.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BlockQuantizers {
    /// Of q, before it is scaled: of the projection's output.
    pub q: QuantParams,
    /// Of k.
    pub k: QuantParams,
    /// Of v.
    pub v: QuantParams,
    /// Of the scaled scores, the weights, and a context that is quantized before the gate: for
    /// [`AttentionCall::quantizers`].
    pub attention: AttentionQuantizers,
    /// Of the context after the gate: for an output of bytes. With [`ContextOrder::BeforeGate`] the originals
    /// have no such quantizer; without a gate it is the same as that before.
    pub output: QuantParams,
}

/// Sees sample batches of q, k and v, in floats, and then says how to quantize all of an attention block: the static ranges of
/// Quantizable Transformers (section 5, appendix C), with the quantizers where its authors have them.
///
/// * q, k and v as their projections give them, before any scaling;
/// * scores after the scale and *before the mask*: of all pairs of a query and a key of a sequence, padding and future
///   included;
/// * weights after the softmax and its clip, masked ones included, if they are to have one step for all
///   ([`Calibrator::with_authors_weights_scale`]): by default they are not quantized here, as steps of their own for each 512 keys
///   ([`AttentionQuantizers`]) need no range;
/// * the context after the gate or before it ([`ContextOrder`]).
///
/// As in the original each tensor is quantized, by the range known so far, before the next is computed from it.
///
/// Every quantizer has an observer of its own. The recipes of the paper: [`RunningMinMax::new`] and 16 batches for BERT;
/// `with_percentile(99.999)` and 4 batches for OPT.
///
/// This is not a fast path: plain loops in f64 on the calling thread, and all scores of a batch in memory.
///
/// ```
/// use siskin::attention::{Attention, AttentionCall, Calibrator, Clipped, ContextOrder, HeadsRef, Sequences};
/// use siskin::quant::{RunningMinMax, Scheme};
/// use siskin::{Ctx, Element};
///
/// let (tokens, heads, head_dim) = (5, 2, 8);
/// let attention = Attention::new(heads, heads, head_dim)?.softmax(Clipped::new(-0.03, 1.0)?);
/// let observer = RunningMinMax::new(Scheme::Asymmetric(Element::U8));
/// let mut calibrator = Calibrator::new(attention, ContextOrder::AfterGate, observer);
/// for batch in 1..4 {
///     let x: Vec<f32> = (0..tokens * heads * head_dim).map(|i| ((i * batch) as f32).sin()).collect();
///     let x = HeadsRef::new(&x, tokens, heads, head_dim)?;
///     let call = AttentionCall::new(Sequences::own(1, tokens));
///     calibrator.observe(x, x, x, &call, &Ctx::new()?)?;
/// }
/// let quantizers = calibrator.finish()?;
/// assert!(quantizers.attention.scores.is_some());
/// # Ok::<(), siskin::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Calibrator<O = RunningMinMax> {
    attention: Attention,
    order: ContextOrder,
    authors_weights: bool,
    observers: Observers<O>,
}

#[derive(Debug, Clone)]
struct Observers<O> {
    q: O,
    k: O,
    v: O,
    scores: O,
    weights: O,
    /// Of the context where it is quantized.
    context: O,
    /// Of the context after the gate.
    output: O,
}

impl<O: Observer + Clone> Calibrator<O> {
    /// Of a block that is called as `attention`. `observer` has seen nothing: each quantizer gets a copy.
    pub fn new(attention: Attention, order: ContextOrder, observer: O) -> Self {
        let copy = || observer.clone();
        let observers = Observers {
            q: copy(),
            k: copy(),
            v: copy(),
            scores: copy(),
            weights: copy(),
            context: copy(),
            output: copy(),
        };
        Self { attention, order, authors_weights: false, observers }
    }

    /// To be said before the first batch: one step for all weights, by the range of what was seen, as the authors have it
    /// ([`AttentionQuantizers::weights_scale`]). The observer's scheme is then an asymmetric one, or `SymmetricAuto`, so that
    /// weights, never below 0, have all 256 steps.
    #[must_use]
    pub fn with_authors_weights_scale(mut self) -> Self {
        self.authors_weights = true;
        self
    }

    /// Sees one batch: q, k, v and `call` as [`Attention::forward`] takes them, gates included, which come from the block's
    /// input ([`Gate::evaluate`](super::Gate::evaluate)). [`AttentionCall::quantizers`] is not read.
    ///
    /// # Errors
    /// As [`Attention::forward`]; [`Error::Shape`] if there is no query or no key, or more pairs of them than there is memory
    /// for; [`Error::Value`] if q, k, v or what is computed of them is NaN or infinite. The calibrator is as it was then.
    pub fn observe(
        &mut self,
        q: HeadsRef<'_, f32>,
        k: HeadsRef<'_, f32>,
        v: HeadsRef<'_, f32>,
        call: &AttentionCall<'_>,
        ctx: &Ctx,
    ) -> Result<()> {
        for (name, x) in [("q", &q), ("k", &k), ("v", &v)] {
            if x.tokens() == 0 {
                return Err(Error::shape(name, "at least one token", 0));
            }
        }
        let layer = self.attention.layer;
        let (heads, kv_heads, d, tokens) = (layer.num_heads, layer.num_kv_heads, layer.head_dim, q.tokens());
        let mut context = zeros("q", tokens, heads * d)?;
        // Refuses whatever a call would.
        self.attention.forward(
            AttentionInputs::new(q, k, v),
            call,
            HeadsMut::new(&mut context, tokens, heads, d)?,
            ctx,
            &mut Scratch::new(),
        )?;
        let call = &call.call;
        let mut next = self.observers.clone();
        let q = quantized(&mut next.q, "q", gather(q, "q")?)?;
        let k = quantized(&mut next.k, "k", gather(k, "k")?)?;
        let v = quantized(&mut next.v, "v", gather(v, "v")?)?;

        let rows = self.rows(call)?;
        let mut scores = zeros("scores", rows.scores, 1)?;
        for row in rows.iter() {
            let q = &q[(row.q * heads + row.head) * d..][..d];
            for (score, key) in scores[row.scores()].iter_mut().zip(row.first_key..) {
                let k = &k[(key * kv_heads + row.kv_head) * d..][..d];
                *score = dot(q, k) as f32 * layer.scale;
            }
        }
        let mut weights = quantized(&mut next.scores, "scores", scores)?;
        for row in rows.iter() {
            self.softmax(&row, call, &mut weights[row.scores()]);
        }
        if self.authors_weights {
            weights = quantized(&mut next.weights, "weights", weights)?;
        }
        for row in rows.iter() {
            let out = &mut context[(row.q * heads + row.head) * d..][..d];
            let mut sums = [0.0; MAX_HEAD_DIM];
            for (&weight, key) in weights[row.scores()].iter().zip(row.first_key..) {
                let v = &v[(key * kv_heads + row.kv_head) * d..][..d];
                for (sum, &v) in sums.iter_mut().zip(v) {
                    *sum += f64::from(weight) * f64::from(v);
                }
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
        }
        if self.order == ContextOrder::BeforeGate {
            next.context.observe(&context).map_err(|e| blame(e, "context"))?;
        }
        if let Some(gates) = call.gates {
            for (token, context) in context.chunks_exact_mut(heads * d).enumerate() {
                for (context, gate) in context.chunks_exact_mut(d).zip(gates.row(token)) {
                    context.iter_mut().for_each(|x| *x *= gate);
                }
            }
        }
        next.output.observe(&context).map_err(|e| blame(e, "context"))?;
        self.observers = next;
        Ok(())
    }

    /// The quantizers for what was seen; more may be seen after.
    ///
    /// # Errors
    /// As [`Observer::params`]; [`Error::Unsupported`] if weights are to have one step, and the observer's scheme gives them a
    /// zero point inside.
    pub fn finish(&self) -> Result<BlockQuantizers> {
        let o = &self.observers;
        Ok(BlockQuantizers {
            q: o.q.params()?,
            k: o.k.params()?,
            v: o.v.params()?,
            attention: AttentionQuantizers {
                scores: Some(o.scores.params()?),
                weights_scale: self.weights_scale()?,
                context: match self.order {
                    ContextOrder::AfterGate => None,
                    ContextOrder::BeforeGate => Some(o.context.params()?),
                },
            },
            output: o.output.params()?,
        })
    }

    /// The one step of all weights, if there is to be one.
    fn weights_scale(&self) -> Result<Option<f32>> {
        if !self.authors_weights {
            return Ok(None);
        }
        let weights = self.observers.weights.params()?;
        // The smallest integer, moved to 0 where it is -128: the weights are u8 with zero point 0.
        if weights.zero_point() == weights.range().0 {
            return Ok(Some(weights.scale()));
        }
        let got = format_args!("zero point {} of {:?}", weights.zero_point(), weights.dtype());
        Err(Error::unsupported("observer", "a scheme whose smallest integer is a weight of 0", got))
    }

    /// From scores to weights.
    fn softmax(&self, row: &Row, call: &Call<'_>, scores: &mut [f32]) {
        let mut most = f32::NEG_INFINITY;
        for (key, s) in scores.iter_mut().enumerate() {
            *s = match self.attends(row, call, key) {
                true => *s + bias(row, call, key),
                false => f32::NEG_INFINITY,
            };
            // A NaN stays.
            if *s > most || s.is_nan() {
                most = *s;
            }
        }
        let (gamma, zeta) = self.attention.layer.clipped.unwrap_or((0.0, 1.0));
        let clip = |p: f64| ((zeta - gamma) * p as f32 + gamma).clamp(0.0, 1.0);
        if most == f32::NEG_INFINITY {
            let uniform = self.attention.layer.uniform;
            return scores.fill(if uniform { clip(1.0 / scores.len() as f64) } else { 0.0 });
        }
        let e = |s: f32| exp(f64::from(s) - f64::from(most));
        let sum: f64 = scores.iter().map(|&s| e(s)).sum();
        scores.iter_mut().for_each(|s| *s = clip(e(*s) / sum));
    }

    fn attends(&self, row: &Row, call: &Call<'_>, key: usize) -> bool {
        let (at, position) = (key as i128, row.position);
        let window = |(left, right): (usize, usize)| {
            (position - left as i128..=position + right as i128).contains(&at)
        };
        key < row.live
            && (!self.attention.layer.causal || at <= position)
            && self.attention.layer.window.is_none_or(window)
            && call.block_mask.is_none_or(|m| m.live[row.query / m.block_q * m.cols + key / m.block_k])
    }

    fn rows(&self, call: &Call<'_>) -> Result<Rows> {
        let sequences = &call.sequences;
        let (heads, kv_heads) = (self.attention.layer.num_heads, self.attention.layer.num_kv_heads);
        let (mut rows, mut at) = (Vec::new(), 0usize);
        for b in 0..sequences.count() {
            let ((first, last), (first_key, last_key)) = (sequences.queries(b), sequences.keys(b));
            let keys = last_key - first_key;
            let position = match call.positions {
                Some(positions) => positions[b] as i128,
                None => keys as i128 - (last - first) as i128,
            };
            let live = call.key_lengths.map_or(keys, |lengths| lengths[b]);
            rows.push((
                Row { sequence: b, first_key, keys, live, position, ..Row::default() },
                first,
                last,
                at,
            ));
            let pairs = (last - first).checked_mul(heads).and_then(|n| n.checked_mul(keys));
            at = pairs.and_then(|n| at.checked_add(n)).ok_or_else(|| {
                Error::shape("sequences", "fewer pairs of queries and keys", "more than usize counts")
            })?;
        }
        Ok(Rows { sequences: rows, heads, group: heads / kv_heads, scores: at })
    }
}

/// All rows of a call, and how many scores they have.
struct Rows {
    /// Each sequence as a row, its queries, and where its scores begin.
    sequences: Vec<(Row, usize, usize, usize)>,
    heads: usize,
    group: usize,
    scores: usize,
}

impl Rows {
    /// As the scores lie: by sequence, head, query.
    fn iter(&self) -> impl Iterator<Item = Row> {
        self.sequences.iter().flat_map(move |&(row, first, last, at)| {
            let queries = last - first;
            (0..self.heads).flat_map(move |head| {
                (0..queries).map(move |query| Row {
                    q: first + query,
                    query,
                    head,
                    kv_head: head / self.group,
                    position: row.position + query as i128,
                    at: at + (head * queries + query) * row.keys,
                    ..row
                })
            })
        })
    }
}

/// One query of one head.
#[derive(Clone, Copy, Default)]
struct Row {
    sequence: usize,
    /// Among all, and inside its sequence.
    q: usize,
    query: usize,
    head: usize,
    kv_head: usize,
    /// Its sequence's keys: the first among all, how many, and how many that are no padding.
    first_key: usize,
    keys: usize,
    live: usize,
    position: i128,
    /// Where its scores begin.
    at: usize,
}

impl Row {
    fn scores(&self) -> std::ops::Range<usize> {
        self.at..self.at + self.keys
    }
}

fn bias(row: &Row, call: &Call<'_>, key: usize) -> f32 {
    let Some(bias) = call.bias else { return 0.0 };
    let at = |n: usize, i: usize| if n == 1 { 0 } else { i };
    let row = (at(bias.batch, row.sequence) * bias.heads + at(bias.heads, row.head)) * bias.queries
        + at(bias.queries, row.query);
    bias.data[row * bias.keys + key]
}

/// In f64, where products are exact.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Seen, and then quantized and dequantized by what is known so far.
fn quantized<O: Observer>(observer: &mut O, name: &'static str, mut x: Vec<f32>) -> Result<Vec<f32>> {
    observer.observe(&x).map_err(|e| blame(e, name))?;
    let params = observer.params().map_err(|e| blame(e, name))?;
    x.iter_mut().for_each(|x| *x = params.dequantize(params.quantize(*x)));
    Ok(x)
}

/// The error of an observer, blamed on the tensor.
fn blame(error: Error, name: &'static str) -> Error {
    match error {
        Error::Value { expected, got, .. } => Error::value(name, expected, got),
        Error::Shape { expected, got, .. } => Error::shape(name, expected, got),
        other => other,
    }
}

/// `[tokens, heads, head_dim]`, next to each other.
fn gather(x: HeadsRef<'_, f32>, name: &'static str) -> Result<Vec<f32>> {
    let d = x.head_dim();
    let mut all = zeros(name, x.tokens(), x.heads() * d)?;
    for (i, to) in all.chunks_exact_mut(d).enumerate() {
        to.copy_from_slice(x.head(i / x.heads(), i % x.heads()));
    }
    Ok(all)
}

/// Strides of 0 can stand for more than there is memory for.
fn zeros(name: &'static str, rows: usize, cols: usize) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    match rows.checked_mul(cols) {
        Some(n) if all.try_reserve_exact(n).is_ok() => {
            all.resize(n, 0.0);
            Ok(all)
        }
        _ => Err(Error::shape(name, "what fits in memory", format_args!("{rows} x {cols} floats"))),
    }
}

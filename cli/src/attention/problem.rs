//! The random data of a case of attention, and its result by the shortest way there is.

use super::case::{Case, Layout, Scores};
use crate::base::data::{Data, Each, Place, Quantizers, span};
use crate::base::error::Result;
use crate::base::lengths::Lengths;
use crate::base::random::Rng;
use crate::base::types::XType;
use siskin::attention::{
    Attention, AttentionCall, AttentionInputs, AttentionQuantizers, AttentionStats, Bias, BlockMask,
    EmptyRow, Softmax,
};
use siskin::quant::QuantParams;
use siskin::{Ctx, MatRef, Scratch};

/// Added to scores: `[batch, heads, queries, keys]`.
pub struct Biases {
    pub data: Vec<f32>,
    pub shape: [usize; 4],
}

/// Which tiles are there.
pub struct Mask {
    pub live: Vec<bool>,
    pub rows: usize,
    pub cols: usize,
    pub block_q: usize,
    pub block_k: usize,
}

/// A case with its data, for any tier.
pub struct Problem {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub softmax: Softmax,
    pub causal: bool,
    pub window: Option<[usize; 2]>,
    pub empty_rows: EmptyRow,
    /// q, k and v, each in a buffer of its own or all in the first.
    pub buffers: Vec<Data>,
    pub places: [Place; 3],
    pub params: [Quantizers; 3],
    pub lengths: Lengths,
    pub gates: Vec<f32>,
    pub bias: Option<Biases>,
    pub key_lengths: Option<Vec<usize>>,
    pub positions: Option<Vec<usize>>,
    pub mask: Option<Mask>,
    pub int8: AttentionQuantizers,
    pub y: XType,
    pub y_place: Place,
    pub y_params: QuantParams,
}

impl Problem {
    /// Random data for a case that was checked.
    pub fn new(case: &Case) -> Result<Self> {
        let each = if case.token_scales { Each::Token } else { Each::Tensor };
        let mut this = Self::with_types(case, [case.dtype.element(); 3], [each; 3])?;
        this.fit_output()?;
        Ok(this)
    }

    /// With q, k and v of types of their own, which only a buffer for each can have, and with quantizers of bytes for these. The
    /// output is still to be fitted.
    pub fn with_types(case: &Case, types: [XType; 3], each: [Each; 3]) -> Result<Self> {
        let mut rng = Rng(case.seed);
        let (heads, kv_heads, head_dim) = (case.heads, case.kv_heads(), case.head_dim);
        let lengths = if case.is_packed() {
            Lengths::Packed { q: case.cu_seqlens.clone(), kv: case.cu_seqlens_k().clone() }
        } else {
            Lengths::Batch { batch: case.batch(), q_len: case.seq(), kv_len: case.kv_len() }
        };
        let (q_tokens, kv_tokens) = lengths.tokens();
        let shapes = [(q_tokens, heads), (kv_tokens, kv_heads), (kv_tokens, kv_heads)];
        let places: [Place; 3] = std::array::from_fn(|i| {
            let (tokens, heads) = shapes[i];
            match case.layout {
                Layout::Tokens => Place::by_tokens(tokens, heads, head_dim),
                Layout::Heads => Place::by_heads(tokens, heads, head_dim),
                Layout::Fused => Place::fused(i, tokens, heads, head_dim),
            }
        });
        // Scores are spread by the product of the first two.
        let spread = match case.scores {
            Scores::Random => [1.0, 1.0, 1.0],
            Scores::Peaked => [2.0, 2.0, 1.0],
            Scores::Flat => [0.1, 0.1, 1.0],
        };
        let mut buffers: Vec<Data> = Vec::new();
        let mut params: [Quantizers; 3] = Default::default();
        for i in 0..3 {
            let place = &places[i];
            let values: Vec<f32> = (0..place.elements()).map(|_| spread[i] * rng.normal()).collect();
            let data;
            (data, params[i]) = Data::quantized(&values, types[i], place, each[i])?;
            match (case.layout, buffers.first_mut()) {
                (Layout::Tokens, _) => buffers.push(data),
                (Layout::Fused, Some(fused)) => fused.put(&data, place),
                (layout, _) => {
                    let three = if layout == Layout::Fused { 3 } else { 1 };
                    let mut buffer = data.like(three * place.elements());
                    buffer.put(&data, place);
                    buffers.push(buffer);
                }
            }
        }
        let gates = if case.gate { q_tokens * heads } else { 0 };
        Ok(Self {
            heads,
            kv_heads,
            head_dim,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            softmax: case.softmax.library()?,
            causal: case.causal,
            window: case.window,
            empty_rows: EmptyRow::default(),
            buffers,
            places,
            params,
            lengths,
            gates: (0..gates).map(|_| rng.unit()).collect(),
            bias: None,
            key_lengths: None,
            positions: None,
            mask: None,
            int8: AttentionQuantizers::default(),
            y: case.y().element().unwrap_or_default(),
            y_place: match case.layout {
                Layout::Heads => Place::by_heads(q_tokens, heads, head_dim),
                _ => Place::by_tokens(q_tokens, heads, head_dim),
            },
            y_params: QuantParams::u8(1.0, 0)?,
        })
    }

    /// A quantizer for an output of bytes, by what the plain reference makes of some rows.
    pub fn fit_output(&mut self) -> Result<()> {
        let Some(dtype) = self.y.quant() else { return Ok(()) };
        let rows = self.some_rows(1 << 18);
        let values: Vec<f64> = rows.iter().flat_map(|&(t, h)| self.plain(t, h).values).collect();
        self.y_params = span(values, dtype)?;
        Ok(())
    }

    pub fn data(&self, which: usize) -> &Data {
        self.buffers.get(which).unwrap_or(&self.buffers[0])
    }

    pub fn in_bytes(&self) -> bool {
        self.buffers[0].is_bytes()
    }

    /// Whether a tier with the instruction multiplies pairs of bfloat16.
    pub fn all_bf16(&self) -> bool {
        self.buffers.iter().all(|b| matches!(b, Data::Bf16(_)))
    }

    pub fn attention(&self) -> Result<Attention> {
        let mut attention = Attention::new(self.heads, self.kv_heads, self.head_dim)?
            .scale(self.scale)?
            .softmax(self.softmax)
            .empty_rows(self.empty_rows);
        if self.causal {
            attention = attention.causal();
        }
        if let Some([left, right]) = self.window {
            attention = attention.window(left, right);
        }
        Ok(attention)
    }

    pub fn output(&self) -> Data {
        Data::zeros(self.y, self.y_place.elements())
    }

    /// The call.
    pub fn forward(
        &self,
        attention: &Attention,
        y: &mut Data,
        ctx: &Ctx,
        scratch: &mut Scratch,
    ) -> Result<AttentionStats> {
        let input = |i: usize| self.data(i).input(&self.places[i], &self.params[i]);
        let mut call = AttentionCall::new(self.lengths.sequences()).quantizers(self.int8);
        if let Some(lengths) = &self.key_lengths {
            call = call.key_lengths(lengths);
        }
        if let Some(positions) = &self.positions {
            call = call.positions(positions);
        }
        if let Some(Biases { data, shape: [b, h, q, k] }) = &self.bias {
            call = call.bias(Bias::new(data, *b, *h, *q, *k)?);
        }
        if let Some(m) = &self.mask {
            call = call.block_mask(BlockMask::new(&m.live, m.rows, m.cols, m.block_q, m.block_k)?);
        }
        if !self.gates.is_empty() {
            call = call.gates(MatRef::new(&self.gates, self.places[0].tokens, self.heads)?);
        }
        let y = y.output(&self.y_place, self.y_params)?;
        let inputs = AttentionInputs::new(input(0)?, input(1)?, input(2)?);
        Ok(attention.forward(inputs, &call, y, ctx, scratch)?)
    }
}

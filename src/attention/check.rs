//! What a call must be: checked once, before anything is computed.

use super::forward::MAX_SCALE;
use crate::base::error::{Error, Result};
use crate::base::tensor::TensorMut;
use crate::driver::attention::{Call, Layer, Problem};

/// Positions are added to lengths: 2^40, and 2^20 where addresses have 32 bits.
const MAX_POSITION: usize = 1 << (usize::BITS / 8 * 5);
/// What a clip of weights of bytes may stretch them by: further, f32 has no weight left that is not 0 or 1.
const MOST_STRETCH: f32 = 1e20;
/// Keys are counted in bytes of their scores.
const MAX_KEYS: usize = MAX_POSITION;

/// Whether all of a call fits, `out` included.
pub(super) fn check(problem: &Problem<'_>, out: &TensorMut<'_>) -> Result<()> {
    let Problem { layer, call, q, k, v } = problem;
    let ((q_tokens, _, _), (kv_tokens, _, _)) = (q.shape(), k.shape());
    let (heads, kv_heads, head_dim) = (layer.num_heads, layer.num_kv_heads, layer.head_dim);
    let shapes = [
        ("q", q.shape(), (q_tokens, heads, head_dim)),
        ("k", k.shape(), (kv_tokens, kv_heads, head_dim)),
        ("v", v.shape(), (kv_tokens, kv_heads, head_dim)),
        ("out", out.shape(), (q_tokens, heads, head_dim)),
    ];
    for (name, got, expected) in shapes {
        if got != expected {
            let show = |(t, h, d): (usize, usize, usize)| format!("{t} tokens x {h} heads x {d}");
            return Err(Error::shape(name, show(expected), show(got)));
        }
    }
    let quantized = q.element().is_quantized();
    for (name, x) in [("q", q), ("k", k), ("v", v)] {
        if x.element().is_quantized() != quantized {
            let kind = |bytes| if bytes { "bytes" } else { "floats" };
            let (expected, got) = (kind(quantized), kind(!quantized));
            return Err(Error::unsupported(name, format_args!("{expected}, as q"), got));
        }
        x.check(name)?;
    }
    out.check_reals("out")?;
    if kv_tokens > MAX_KEYS {
        return Err(Error::shape("k", format_args!("at most {MAX_KEYS} tokens"), kv_tokens));
    }
    if let Some(step) = call.quantizers.weights_scale
        && !(step.is_normal() && step > 0.0)
    {
        return Err(Error::value("weights_scale", "a positive normal number", step));
    }
    if quantized {
        check_bytes(problem)?;
    }
    check_call(layer, call, q_tokens, kv_tokens)
}

/// Whether scales multiply to floats.
fn check_bytes(problem: &Problem<'_>) -> Result<()> {
    let Problem { layer, call, q, k, v } = problem;
    let scale = f64::from(layer.scale) * f64::from(q.largest_scale()) * f64::from(k.largest_scale());
    if scale > f64::from(MAX_SCALE) {
        let expected = format_args!("scale * scale of q * scale of k to be at most {MAX_SCALE:e}");
        return Err(Error::value("scale", expected, scale));
    }
    // Products on the way: exact scores are below 2^24.
    let [of_q, of_k] = [f64::from(layer.scale) * f64::from(q.largest_scale()), f64::from(k.largest_scale())];
    let most = f64::from(f32::MAX);
    if of_q > most || k.is_per_token() && of_k > most / f64::from(1 << 24) {
        let expected = "scale * scale of q, and 2^24 * scale of a token of k, to be finite";
        return Err(Error::value("scale", expected, format_args!("{of_q:e} and {of_k:e}")));
    }
    let stretch = layer.clipped.map_or(1.0, |(gamma, zeta)| zeta - gamma);
    let Some(step) = call.quantizers.weights_scale else {
        if stretch > MOST_STRETCH {
            let expected = format_args!("zeta - gamma of at most {MOST_STRETCH:e} for weights of bytes");
            return Err(Error::value("softmax", expected, stretch));
        }
        return Ok(());
    };
    if v.is_per_token() {
        let expected = "none where each token of v has a scale";
        return Err(Error::unsupported("weights_scale", expected, step));
    }
    if !(stretch / step).is_finite() {
        let expected = "enough for (zeta - gamma) / weights_scale to be finite";
        return Err(Error::value("weights_scale", expected, step));
    }
    Ok(())
}

/// Whether lists, masks and gates are those of the sequences.
fn check_call(layer: &Layer, call: &Call<'_>, q_tokens: usize, kv_tokens: usize) -> Result<()> {
    let sequences = &call.sequences;
    sequences.check(q_tokens, kv_tokens)?;
    let n = sequences.count();
    for (name, list) in [("key_lengths", call.key_lengths), ("positions", call.positions)] {
        if let Some(list) = list
            && list.len() != n
        {
            return Err(Error::shape(name, format_args!("one for each of {n} sequences"), list.len()));
        }
    }
    for (b, &len) in call.key_lengths.unwrap_or_default().iter().enumerate() {
        let (first, last) = sequences.keys(b);
        if len > last - first {
            return Err(Error::index("key_lengths", b, format_args!("at most {} keys", last - first), len));
        }
    }
    if let Some((b, position)) =
        call.positions.unwrap_or_default().iter().enumerate().find(|(_, p)| **p > MAX_POSITION)
    {
        return Err(Error::index("positions", b, format_args!("at most {MAX_POSITION}"), position));
    }
    let (q_len, kv_len) = sequences.longest();
    if let Some(bias) = call.bias {
        let dims = [
            ("batch", bias.batch, n, true),
            ("heads", bias.heads, layer.num_heads, true),
            ("queries", bias.queries, q_len, true),
            ("keys", bias.keys, kv_len, false),
        ];
        for (name, got, needed, broadcast) in dims {
            if got < needed && !(broadcast && got == 1) || name == "heads" && got > needed {
                let one = if broadcast { "1 or " } else { "" };
                let expected = format_args!("{one}{needed} {name}");
                return Err(Error::shape("bias", expected, got));
            }
        }
    }
    if let Some(mask) = call.block_mask {
        let (rows, cols) = (q_len.div_ceil(mask.block_q), kv_len.div_ceil(mask.block_k));
        if mask.rows < rows || mask.cols < cols {
            let expected =
                format_args!("at least {rows} x {cols} blocks of {} x {}", mask.block_q, mask.block_k);
            return Err(Error::shape("block_mask", expected, format_args!("{} x {}", mask.rows, mask.cols)));
        }
    }
    if let Some(gates) = call.gates
        && (gates.rows(), gates.cols()) != (q_tokens, layer.num_heads)
    {
        let expected = format_args!("{q_tokens} tokens x {} heads", layer.num_heads);
        return Err(Error::shape("gates", expected, format_args!("{} x {}", gates.rows(), gates.cols())));
    }
    Ok(())
}

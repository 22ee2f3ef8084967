//! Attention: `context = w · V`, `w = softmax(scale * q · kᵀ + mask)`, with the clipped softmax and the gates of Quantizable
//! Transformers (Bondarenko, Nagel, Blankevoort, NeurIPS 2023), whose heads can do nothing without outliers; and the
//! ordinary softmax by the same path.
//!
//! q is `[tokens, num_heads, head_dim]`, k and v `[tokens, num_kv_heads, head_dim]`, strided as the caller has them
//! ([`HeadsRef`]). Head h of q attends to head `h / (num_heads / num_kv_heads)` of k and v. See [`Attention::forward`].
//!
//! ```
//! use siskin::attention::{Attention, AttentionCall, AttentionInputs, Clipped, Sequences};
//! use siskin::{Ctx, HeadsMut, HeadsRef, Scratch};
//!
//! let (tokens, heads, head_dim) = (5, 2, 8);
//! let x = vec![0.5f32; tokens * heads * head_dim];
//! let x = HeadsRef::new(&x, tokens, heads, head_dim)?;
//! let mut context = vec![0.0f32; tokens * heads * head_dim];
//! let attention = Attention::new(heads, heads, head_dim)?.softmax(Clipped::new(-0.03, 1.0)?).causal();
//! let call = AttentionCall::new(Sequences::own(1, tokens));
//! let out = HeadsMut::new(&mut context, tokens, heads, head_dim)?;
//! attention.forward(AttentionInputs::new(x, x, x), &call, out, &Ctx::new()?, &mut Scratch::new())?;
//! # Ok::<(), siskin::Error>(())
//! ```
//!
//! # The arithmetic
//!
//! f32: a score is one chain of fused multiply-adds over the features of a head; `e_j = exp(scale * s_j + bias_j - max)`,
//! which is 0 where the nearest power of 2 is below 2^-124; sums over keys are taken in chunks of 512 keys of a sequence, each in 16 lanes
//! and a fixed tree, added up in order; `w_j` is rounded to f32; the context is one chain over the keys of a chunk
//! whose weight is not 0, chunks added up in order. So the same bits come out on every tier, at any number of threads, in any
//! batch, padded or packed, all at once or token by token. bfloat16 in pairs (`vdpbf16ps`) rounds in its own way, and its
//! weights to bfloat16: its context is within `0.02 * max |v|` of that of the widened inputs.
//!
//! Bytes: scores are exact integers; weights are rounded to u8 with zero point 0, by steps of their own for each 512 keys of a
//! query or by one for all ([`AttentionQuantizers`]); `w · V` of 512 keys is exact again, and added up in f32, in order. Without a clip,
//! weights by steps of their own are of exponentials with a relative error below 1.1e-4. q, k and v
//! may have a scale for each token, as dynamic quantization gives them ([`HeadParams::PerToken`]).
//!
//! A key whose weight is 0 is not read: NaN or infinity in its v stays where it is. NaN in q makes its own row NaN, NaN
//! in k the rows that the key is there for.

mod calibrate;
mod check;
mod forward;
mod gate;
mod softmax;

pub use crate::base::heads::{HeadsMut, HeadsRef};
pub use crate::base::mask::{Bias, BlockMask};
pub use crate::base::sequences::Sequences;
pub use crate::base::tensor::HeadParams;
pub use crate::driver::attention::{AttentionQuantizers, AttentionStats};
pub use calibrate::{BlockQuantizers, Calibrator, ContextOrder};
pub use forward::{Attention, AttentionCall, AttentionInputs};
pub use gate::Gate;
pub use softmax::{Clipped, EmptyRow, Softmax};

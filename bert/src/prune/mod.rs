//! Pruning the linear layers of an encoder so that it still works: after training, with sample texts, without gradients.
//!
//! [`Surgeon`] is optimal brain surgeon (Hassibi and Stork, *Second order derivatives for network pruning*, NIPS 1992) for one layer
//! and for blocks of weights (Frantar and Alistarh, *Optimal Brain Compression*, NeurIPS 2022, and *SparseGPT*, ICML 2023; Kurtic et al.,
//! *The Optimal BERT Surgeon*, EMNLP 2022). It looks for the blocks and for the values of the remaining weights that keep the outputs of
//! the layer nearest to wanted ones, in the mean over sample inputs. All that it must know of the samples are sums: the second moments of
//! the inputs ([`Hessian`]) and their products with the wanted outputs ([`Target`]).
//!
//! [`magnitude`] keeps the heaviest blocks and changes nothing else. [`allocate`] shares one sparsity out among layers by what each
//! layer loses ([`Surgeon::curve`]). [`prune_model`] prunes all linear layers of an encoder, one after the other.
//!
//! ```
//! use siskin::{Ctx, MatRef, sparse::BlockShape};
//! use siskin_bert::prune::{Hessian, Options, Surgeon};
//!
//! let x: Vec<f32> = (0..64 * 8).map(|i| (i as f32 * 0.7).sin() + (i as f32 * 0.11).cos()).collect(); // [64 tokens, 8 features]
//! let w: Vec<f32> = (0..8 * 8).map(|i| (i as f32 * 0.3).cos()).collect(); // [8 output features, 8 input features]
//! let mut hessian = Hessian::new(8);
//! hessian.add(MatRef::new(&x, 64, 8)?, &Ctx::serial()?)?;
//! let surgeon = Surgeon::new(MatRef::new(&w, 8, 8)?, &[0.0; 8], &hessian, None, &Options::new(BlockShape::B4X1))?;
//! let pruned = surgeon.prune(0.5)?;
//! assert_eq!(pruned.weights.iter().filter(|w| **w == 0.0).count(), 32);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod hessian;
mod magnitude;
mod model;
mod order;
mod positive;
mod sensitivity;
mod surgeon;
mod walk;

pub use error::{Error, Result};
pub use hessian::{Hessian, Target};
pub use magnitude::magnitude;
pub use model::{ModelOptions, Step, prune_model};
pub use sensitivity::{Curve, allocate};
pub use surgeon::{Options, Pruned, Surgeon};

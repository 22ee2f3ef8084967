//! Quantization: real numbers to 8-bit integers and back.
//!
//! ```
//! use siskin::quant::{self, MinMax, Observer, Scheme};
//! use siskin::{Ctx, Element, MatMut, MatRef};
//!
//! let x = [-1.0, 0.5, 2.0, 0.25, 0.0, 3.0];
//! let mut observer = MinMax::new(Scheme::Asymmetric(Element::U8));
//! observer.observe(&x)?;
//! let params = observer.params()?;
//!
//! let ctx = Ctx::serial()?;
//! let (mut q, mut back) = ([0_u8; 6], [0.0; 6]);
//! quant::quantize(MatRef::new(&x, 2, 3)?, &params, MatMut::new(&mut q, 2, 3)?, &ctx)?;
//! quant::dequantize(MatRef::new(&q, 2, 3)?, &params, MatMut::new(&mut back, 2, 3)?, &ctx)?;
//! assert_eq!((q[0], q[4], q[5]), (0, 64, 255));
//! assert!(quant::sqnr_db(&x, &back)? > 40.0);
//! # Ok::<(), siskin::Error>(())
//! ```

mod matrix;
mod observer;
mod outlier;
mod sqnr;

pub use crate::base::params::{QuantParams, Scheme};
pub use matrix::{
    Quantizable, Quantized, dequantize, dequantize_rows, per_channel, per_tensor, quantize,
    quantize_per_token, quantize_rows,
};
pub use observer::{MinMax, MseGrid, Observer, Percentile, RunningMinMax};
pub use outlier::{OutlierMetrics, OutlierSummary, infinity_norm, kurtosis};
pub use sqnr::sqnr_db;

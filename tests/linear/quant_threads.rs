//! Quantizing on several threads: what a single thread gives.

use crate::common::in_parallel;
use siskin::quant::{self, Scheme};
use siskin::{Ctx, Element, MatMut, MatRef};

/// Matrices that are large enough to be shared out among threads.
#[test]
fn threads_change_no_byte() {
    let (rows, cols, stride) = (151, 700, 703);
    let x: Vec<f32> = (0..rows * stride).map(|i| ((i * 7919 % 10_007) as f32 - 4000.0) / 31.0).collect();
    let x = MatRef::with_stride(&x, rows, cols, stride).unwrap();
    let bytes = |ctx: &Ctx| {
        let params = quant::per_tensor(x, Scheme::Symmetric(Element::I8), ctx).unwrap();
        let (mut all, mut back) = (vec![3i8; rows * stride], vec![0.5; rows * stride]);
        let y = MatMut::with_stride(&mut all, rows, cols, stride).unwrap();
        quant::quantize(x, &params, y, ctx).unwrap();
        let y = MatRef::with_stride(&all, rows, cols, stride).unwrap();
        let z = MatMut::with_stride(&mut back, rows, cols, stride).unwrap();
        quant::dequantize(y, &params, z, ctx).unwrap();
        (params, all, back)
    };
    let isa = Ctx::new().unwrap().isa();
    let want = bytes(&Ctx::serial().unwrap());
    for r in 0..rows {
        for c in 0..stride {
            let byte = if c < cols { want.0.quantize(x.row(r)[c]) as i8 } else { 3 };
            assert_eq!(want.1[r * stride + c], byte, "({r}, {c})");
        }
    }
    for way in 0..3 {
        assert!(in_parallel(isa, way, bytes) == want, "way {way}");
    }
}

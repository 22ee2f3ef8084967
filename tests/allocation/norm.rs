//! Normalization, of every kind of output, and the layers that read its bytes.

use crate::allocations;
use crate::common::{Manner, custom, isas, serial};
use siskin::linear::{Epilogue, Linear};
use siskin::norm::{LayerNorm, NormOutput};
use siskin::quant::QuantParams;
use siskin::{MatMut, MatRef, Scratch};

#[test]
fn norms_allocate_nothing() {
    let (m, k, n) = (70, 45, 33);
    let norm = LayerNorm::new(&vec![1.5; k], &vec![0.25; k], 1e-12).unwrap();
    let norm = norm.with_byte_factors(&vec![0.5; k]).unwrap();
    let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
    let w: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.3).cos()).collect();
    let p = QuantParams::u8(0.02, 100).unwrap();
    let (mut y, mut z, mut bytes) = (vec![0f32; m * k], vec![0f32; m * n], vec![0u8; m * k]);
    let mut params = vec![p; m];
    for isa in isas("norms_allocate_nothing") {
        let (ctx, mut scratch) = (serial(isa), Scratch::new());
        let w = MatRef::new(&w, n, k).unwrap();
        let next = Linear::quantize_dense(w).unwrap().build(&ctx).unwrap();
        let mut call = |way: usize, m: usize| {
            let x = MatRef::new(&x[..m * k], m, k).unwrap();
            let of_y = MatMut::new(&mut y[..m * k], m, k).unwrap();
            let of_bytes = MatMut::new(&mut bytes[..m * k], m, k).unwrap();
            let to = match way {
                0 => NormOutput::from(of_y),
                1 => NormOutput::from((of_bytes, p)),
                2 => NormOutput::from(of_y).with_bytes((of_bytes, &mut params[..m])),
                _ => {
                    let to = Some((of_bytes, p).into());
                    return norm.forward_in_place(of_y, Some(x), to, &ctx, &mut scratch).unwrap();
                }
            };
            norm.forward(x, Some(x), to, &ctx, &mut scratch).unwrap();
            if way == 2 {
                let bytes = (MatRef::new(&bytes[..m * k], m, k).unwrap(), &params[..m]);
                let z = MatMut::new(&mut z[..m * n], m, n).unwrap();
                next.forward(bytes, Epilogue::new(), z, &ctx, &mut scratch).unwrap();
            }
        };
        for way in 0..4 {
            call(way, m);
            for m in [m, 33, 1, m] {
                assert_eq!(allocations(|| call(way, m)), 0, "{isa} way {way}, {m} tokens");
            }
        }
    }
}

/// How many tasks there are does not grow steadily with tokens: 48 of 768 features make more than 49 do for two threads.
#[test]
fn fewer_tokens_need_no_more_memory_on_any_threads() {
    let Some(best) = isas("fewer_tokens_need_no_more_memory_on_any_threads").pop() else { return };
    for (threads, k, more, fewer) in [(2, 768, 49, 48), (4, 384, 177, 176)] {
        let ctx = custom(best, threads, Manner::Backwards);
        let norm = LayerNorm::new(&vec![1.5; k], &vec![0.25; k], 1e-12).unwrap();
        let x: Vec<f32> = (0..more * k).map(|i| (i as f32 * 0.7).sin()).collect();
        let (p, mut bytes) = (QuantParams::u8(0.02, 100).unwrap(), vec![0u8; more * k]);
        let (mut params, mut scratch) = (vec![p; more], Scratch::new());
        let held = [more, fewer].map(|m| {
            let to = MatMut::new(&mut bytes[..m * k], m, k).unwrap();
            let x = MatRef::new(&x[..m * k], m, k).unwrap();
            norm.forward(x, None, NormOutput::from((to, &mut params[..m])), &ctx, &mut scratch).unwrap();
            scratch.capacity()
        });
        assert_eq!(held[0], held[1], "{threads} threads, {k} features, {fewer} tokens after {more}");
    }
}

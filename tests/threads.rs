//! Which threads calls use: those of a serial context none but the caller's, those of `Ctx::new` rayon's.
//!
//! A binary of its own: it counts the threads of the process, which tests beside it would change.
#![cfg(target_os = "linux")]

use siskin::attention::{Attention, AttentionCall, AttentionInputs, Sequences};
use siskin::linear::{Epilogue, Linear};
use siskin::{Ctx, HeadsMut, HeadsRef, MatMut, MatRef, Scratch};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// A layer and an attention, large enough to be shared out.
fn calls(ctx: &Ctx) {
    let (w, x, mut scratch) = (vec![0.5f32; 256 * 64], vec![0.25f32; 512 * 64], Scratch::new());
    let layer = Linear::quantize_dense(MatRef::new(&w, 256, 64).unwrap()).unwrap().build(ctx).unwrap();
    let mut y = vec![0f32; 512 * 256];
    let (of_x, of_y) = (MatRef::new(&x, 512, 64).unwrap(), MatMut::new(&mut y, 512, 256).unwrap());
    layer.forward(of_x, Epilogue::new(), of_y, ctx, &mut scratch).unwrap();
    let heads = || HeadsRef::new(&x, 512, 4, 16).unwrap();
    let mut y = vec![0f32; 512 * 64];
    let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: 512, kv_len: 512 });
    let of_y = HeadsMut::new(&mut y, 512, 4, 16).unwrap();
    let attention = Attention::new(4, 4, 16).unwrap();
    attention
        .forward(AttentionInputs::new(heads(), heads(), heads()), &call, of_y, ctx, &mut scratch)
        .unwrap();
}

/// One test: what it counts is of the process.
#[test]
fn a_serial_context_starts_no_thread() {
    let before = threads();
    calls(&Ctx::serial().unwrap());
    assert_eq!(threads(), before, "calls on one thread started others");
    // The global pool of rayon starts at its first use, if the program has not started it.
    let all = Ctx::new().unwrap();
    calls(&all);
    let more = if cfg!(feature = "rayon") { all.threads() } else { 0 };
    assert_eq!(threads(), before + more, "no other pool than rayon's");
}

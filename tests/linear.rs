//! Linear layers against a plain loop.

use siskin::linear::{Epilogue, Input, Linear, Output, PackedActivations};
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Ctx, Isa, MatMut, MatRef, Scratch};

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn quick() {
    let mut r = Rng(88172645463325252);
    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let mut scratch = Scratch::new();
        for (n, k) in [(64, 64), (70, 37), (3, 5), (130, 100), (1, 1), (64, 256)] {
            for block in ["dense", "4x1", "1x4", "4x4", "1x1", "3x2", "16x16", "5x8", "2x3", "32x32", "7x1"] {
                let mut w = vec![0i8; n * k];
                w.iter_mut().for_each(|w| {
                    *w = if r.next().is_multiple_of(3) { (r.next() % 256) as u8 as i8 } else { 0 }
                });
                let layer = if block == "dense" {
                    Linear::dense(MatRef::new(&w, n, k).unwrap()).build(&ctx).unwrap()
                } else {
                    let b: BlockShape = block.parse().unwrap();
                    let s = Bsr::from_dense(MatRef::new(&w, n, k).unwrap(), b).unwrap();
                    Linear::sparse(&s).build(&ctx).unwrap()
                };
                for m in [1, 2, 15, 16, 17, 33, 64, 65, 100, 130] {
                    let x: Vec<u8> = (0..m * k).map(|_| (r.next() % 256) as u8).collect();
                    let zero = (r.next() % 256) as i32;
                    let p = QuantParams::u8(0.5, zero).unwrap();
                    let mut y = vec![-1i32; m * n];
                    layer
                        .forward(
                            Input::U8(MatRef::new(&x, m, k).unwrap(), p),
                            Epilogue::new(),
                            Output::I32(MatMut::new(&mut y, m, n).unwrap()),
                            &ctx,
                            &mut scratch,
                        )
                        .unwrap();
                    let want: Vec<i32> = (0..m * n)
                        .map(|i| {
                            (0..k).map(|c| (x[i / n * k + c] as i32 - zero) * w[i % n * k + c] as i32).sum()
                        })
                        .collect();
                    assert_eq!(y, want, "{isa} {block} n={n} k={k} m={m}");
                    let q = QuantParams::u8(1000.0, 100).unwrap();
                    let mut yq = vec![0u8; m * n];
                    layer
                        .forward(
                            Input::U8(MatRef::new(&x, m, k).unwrap(), p),
                            Epilogue::new(),
                            Output::U8(MatMut::new(&mut yq, m, n).unwrap(), q),
                            &ctx,
                            &mut scratch,
                        )
                        .unwrap();
                    let inv = 1.0 / 1000.0f32;
                    let wantq: Vec<u8> = want
                        .iter()
                        .map(|&a| {
                            ((a as f32 * (0.5 * 1.0 * inv)).round_ties_even() as i32 + 100).clamp(0, 255)
                                as u8
                        })
                        .collect();
                    assert_eq!(yq, wantq, "{isa} {block} n={n} k={k} m={m} u8");
                    for layout in [
                        siskin::linear::PanelLayout::Rows,
                        siskin::linear::PanelLayout::Lines,
                        siskin::linear::PanelLayout::Quads,
                    ] {
                        let mut xp = PackedActivations::new();
                        xp.pack(&Input::U8(MatRef::new(&x, m, k).unwrap(), p), layout, &ctx, &mut scratch)
                            .unwrap();
                        let mut back = vec![0u8; m * k];
                        xp.unpack(MatMut::new(&mut back, m, k).unwrap(), &ctx).unwrap();
                        assert_eq!(back, x, "{isa} {layout:?}");
                        let mut yp = PackedActivations::new();
                        layer
                            .forward(
                                Input::Packed(&xp),
                                Epilogue::new(),
                                Output::Packed(&mut yp, q, layout),
                                &ctx,
                                &mut scratch,
                            )
                            .unwrap();
                        let mut back = vec![0u8; m * n];
                        yp.unpack(MatMut::new(&mut back, m, n).unwrap(), &ctx).unwrap();
                        assert_eq!(back, wantq, "{isa} {block} n={n} k={k} m={m} {layout:?}");
                    }
                }
            }
        }
        println!("{isa} ok");
    }
}

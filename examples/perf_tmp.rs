#![allow(missing_docs)]
use siskin::kernels::table::Tier;
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::*;
use siskin::*;
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let block = a.get(1).map_or("4x1", |s| s);
    let mode = a.get(2).map_or("pp", |s| s);
    let verbose = a.iter().any(|s| s == "v");
    let fast = a.iter().any(|s| s == "fast");
    let act = a.iter().find(|s| ["gelu", "silu", "table"].contains(&s.as_str())).cloned();
    let isa: Isa = a.iter().find_map(|s| s.parse().ok()).unwrap_or(Isa::detect().unwrap());
    let mut ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
    if a.iter().any(|s| s == "2t") {
        ctx = ctx.with_parallelism(Parallelism::Rayon);
    }
    let tier = Tier::of(isa);
    let peak = || {
        let mut b = 0f64;
        for _ in 0..4 {
            let t = Instant::now();
            let o = unsafe { (tier.peak)(100_000) };
            b = b.max(o as f64 / t.elapsed().as_secs_f64() / 1e9);
        }
        b
    };
    let mut r = 88172645463325252u64;
    let mut n = move || {
        r ^= r << 13;
        r ^= r >> 7;
        r ^= r << 17;
        r
    };
    let shapes: Vec<(usize, usize)> = if a.iter().any(|s| s == "small") {
        vec![(256, 256), (1024, 256), (256, 1024)]
    } else {
        vec![(768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024), (1024, 4096)]
    };
    let ms: Vec<usize> = a
        .iter()
        .find_map(|s| s.strip_prefix("m=").map(|m| vec![m.parse().unwrap()]))
        .unwrap_or(if fast { vec![128, 384] } else { vec![128, 384, 1024] });
    let sp: Vec<f64> = a
        .iter()
        .find_map(|s| s.strip_prefix("s=").map(|m| vec![m.parse().unwrap()]))
        .unwrap_or(if block == "dense" { vec![0.0] } else { vec![0.7, 0.8, 0.9] });
    let mut all = vec![];
    for &(nn, kk) in &shapes {
        for &s in &sp {
            let w: Vec<f32> = (0..nn * kk).map(|_| ((n() % 2001) as f32 - 1000.0) / 1000.0).collect();
            let bias: Vec<f32> = (0..nn).map(|i| (i % 7) as f32).collect();
            let layer = if block == "dense" {
                Linear::quantize_dense(MatRef::new(&w, nn, kk).unwrap())
                    .unwrap()
                    .bias(&bias)
                    .build(&ctx)
                    .unwrap()
            } else {
                let b =
                    prune::magnitude(MatRef::new(&w, nn, kk).unwrap(), block.parse().unwrap(), s, Norm::L2)
                        .unwrap();
                Linear::quantize_sparse(&b).unwrap().bias(&bias).build(&ctx).unwrap()
            };
            for &m in &ms {
                let x: Vec<u8> = (0..m * kk).map(|_| n() as u8).collect();
                let xf: Vec<f32> = x.iter().map(|&x| x as f32 / 255.0).collect();
                let p = QuantParams::u8(1.0 / 255.0, 3).unwrap();
                let q = QuantParams::u8(0.5, 100).unwrap();
                let tb = gelu_table(QuantParams::u8(0.25, 128).unwrap(), q);
                let mut scratch = Scratch::new();
                let mut xp = PackedActivations::new();
                let mut yp = PackedActivations::new();
                xp.pack(
                    &Input::U8(MatRef::new(&x, m, kk).unwrap(), p),
                    layer.input_layout(),
                    &ctx,
                    &mut scratch,
                )
                .unwrap();
                let mut y = vec![0u8; m * nn];
                let mut yi = vec![0i32; m * nn];
                let mut yf = vec![0f32; m * nn];
                let e = Epilogue::new();
                let e = match act.as_deref() {
                    Some("gelu") => e.activation(Activation::Gelu),
                    Some("silu") => e.activation(Activation::Silu),
                    Some("table") => e.activation(Activation::Table(&tb)),
                    _ => e,
                };
                let mut best = f64::MAX;
                let mut pk = peak();
                let t0 = Instant::now();
                let mut it = 0;
                while it < 6 || t0.elapsed().as_secs_f64() < 0.06 {
                    it += 1;
                    if it % 50 == 0 {
                        pk = pk.max(peak());
                    }
                    let t = Instant::now();
                    let input = match mode {
                        "tt" | "ti" | "tp" => Input::U8(MatRef::new(&x, m, kk).unwrap(), p),
                        "ff" => Input::F32(MatRef::new(&xf, m, kk).unwrap(), OnTheFly::PerToken),
                        _ => Input::Packed(&xp),
                    };
                    let out = match mode {
                        "tt" | "pt" => Output::U8(MatMut::new(&mut y, m, nn).unwrap(), q),
                        "ti" => Output::I32(MatMut::new(&mut yi, m, nn).unwrap()),
                        "ff" => Output::F32(MatMut::new(&mut yf, m, nn).unwrap()),
                        _ => Output::Packed(&mut yp, q, layer.input_layout()),
                    };
                    layer.forward(input, e, out, &ctx, &mut scratch).unwrap();
                    best = best.min(t.elapsed().as_secs_f64());
                }
                pk = pk.max(peak());
                let pct = 2.0 * (layer.stored_values() * m) as f64 / best / 1e9 / pk * 100.0;
                all.push(pct);
                if verbose {
                    println!(
                        "{block} {mode} {nn}x{kk} m={m} s={s}: {:.1}us {pct:.1}% (peak {pk:.0}) {:.2} B/val {:.1} GB/s",
                        best * 1e6,
                        layer.packed_bytes() as f64 / layer.stored_values() as f64,
                        layer.packed_bytes() as f64 / best / 1e9
                    );
                }
            }
        }
    }
    all.sort_by(|a, b| a.total_cmp(b));
    println!(
        "{isa} {block} {mode} {act:?}: median {:.1} min {:.1} max {:.1}",
        all[all.len() / 2],
        all[0],
        all[all.len() - 1]
    );
}

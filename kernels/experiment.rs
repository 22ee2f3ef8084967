use super::activation::Activation;
use super::requantize::*;
use super::sparse::*;
use super::x86_64::*;
use std::time::Instant;
macro_rules! t {
    ($id:ident,$f:literal,$s:ty,$l:ident,$r:literal,$v:literal) => {
        #[target_feature(enable=$f)]
        pub unsafe fn $id(b: &Band<'_>, q: &Requantize<'_>, o: *mut u8) {
            unsafe { requantize::<$s, $l, $r, $v>(b, q, o) }
        }
    };
}
t!(lines4, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,fma", Avx512VnniVbmi, Lines, 4, 4);
t!(quads4, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,fma", Avx512VnniVbmi, Quads, 4, 4);
t!(quads4x2, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,fma", Avx512VnniVbmi, Quads, 4, 2);
t!(quads8, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,fma", Avx512VnniVbmi, Quads, 8, 2);
t!(quads1, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,fma", Avx512VnniVbmi, Quads, 1, 4);
use std::arch::x86_64::*;
#[target_feature(enable = "avx512f,avx512vnni,avx512bw,avx512vl")]
unsafe fn vnni(it: u64) -> i32 {
    unsafe {
        let a = _mm512_set1_epi8(3);
        let b = _mm512_set1_epi8(2);
        let mut acc = [_mm512_setzero_si512(); 12];
        for _ in 0..it {
            for j in 0..12 {
                acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
            }
            std::hint::black_box(&a);
        }
        let mut s = _mm512_setzero_si512();
        for j in 0..12 {
            s = _mm512_add_epi32(s, acc[j]);
        }
        _mm512_reduce_add_epi32(s)
    }
}
fn peak() -> f64 {
    let mut b = f64::MAX;
    for _ in 0..5 {
        let t = Instant::now();
        std::hint::black_box(unsafe { vnni(200_000) });
        b = b.min(t.elapsed().as_secs_f64());
    }
    200_000.0 * 12.0 * 128.0 / b / 1e9
}
type K = unsafe fn(&Band<'_>, &Requantize<'_>, *mut u8);
pub fn main() {
    let mut r = 88172645463325252u64;
    let mut n = move || {
        r ^= r << 13;
        r ^= r >> 7;
        r ^= r << 17;
        r
    };
    let want = std::env::args().nth(1).unwrap_or_default();
    let sorted = std::env::args().nth(2).map_or(true, |s| s != "unsorted");
    for (name, k, rows, lines, h) in [
        ("4x1", lines4 as K, 4usize, true, 1usize),
        ("4x4", quads4, 4, false, 1),
        ("4x4v2", quads4x2, 4, false, 1),
        ("16x16", quads4, 4, false, 4),
        ("8x4", quads8, 8, false, 1),
        ("16x16r8", quads8, 8, false, 4),
        ("1x4", quads1, 1, false, 1),
    ] {
        if !want.is_empty() && !want.split(',').any(|w| w == name) {
            continue;
        }
        let mut all = vec![];
        for (nn, kk) in [
            (768usize, 768usize),
            (3072, 768),
            (768, 3072),
            (1024, 1024),
            (4096, 1024),
            (1024, 4096),
            (256, 256),
        ] {
            for m in [128usize, 384, 1024] {
                for s in [0.7, 0.8, 0.9] {
                    if m == 1024 && !want.is_empty() && want.contains("fast") {
                        continue;
                    }
                    let mut groups = vec![];
                    let mut idx = vec![0u16; 0];
                    let mut w = vec![0i8; 0];
                    let per = if lines { 1 } else { 4 };
                    let mut nnz = 0usize;
                    let mut pat: Vec<Vec<usize>> = vec![];
                    for g in 0..nn / rows {
                        let ks: Vec<usize> = if h > 1 && g % (16 / rows) != 0 {
                            pat[g - 1].clone()
                        } else {
                            let mut v = vec![];
                            let step = per * h;
                            for c in 0..kk / step {
                                if (n() % 10000) as f64 >= s * 10000.0 {
                                    for i in 0..h {
                                        v.push(c * h + i);
                                    }
                                }
                            }
                            v
                        };
                        pat.push(ks.clone());
                        nnz += ks.len() * per * rows;
                        let start = if lines { idx.len() / 4 } else { idx.len() };
                        for ch in ks.chunks(if lines { 4 } else { 1 }) {
                            for i in 0..(if lines { 4 } else { 1 }) {
                                idx.push(*ch.get(i).unwrap_or(&ch[ch.len() - 1]) as u16);
                            }
                            for _ in 0..rows * 4 {
                                w.push((n() % 255) as i8);
                            }
                        }
                        let end = if lines { idx.len() / 4 } else { idx.len() };
                        groups.push(Group {
                            row: (g * rows) as u32,
                            rows: rows as u32,
                            start: start as u32,
                            len: (end - start) as u32,
                            base: 0,
                        });
                    }
                    w.extend([0; 64]);
                    let bandg = 64 / rows;
                    if sorted {
                        for b in groups.chunks_mut(bandg) {
                            b.sort_by_key(|g| std::cmp::Reverse(g.len));
                        }
                    }
                    let pp = m.div_ceil(64);
                    let mut panels = vec![0u8; pp * 64 * kk + 64];
                    for p in panels.iter_mut() {
                        *p = n() as u8
                    }
                    let off = panels.as_ptr().align_offset(64);
                    let panels = &panels[off..off + pp * 64 * kk];
                    let scale = vec![0.001f32; nn + 8];
                    let bias = vec![3f32; nn + 8];
                    let init = vec![5i32; nn + 8];
                    let act = match std::env::args().nth(3).as_deref() {
                        Some("gelu") => Activation::Gelu,
                        Some("silu") => Activation::Silu,
                        _ => Activation::Identity,
                    };
                    let tb = [7u8; 256];
                    let q = Requantize {
                        scale: &scale,
                        bias: &bias,
                        activation: act,
                        post: 3.0,
                        zero: 12,
                        low: 0,
                        high: 255,
                        table: if std::env::args().nth(3).as_deref() == Some("table") {
                            Some(&tb)
                        } else {
                            None
                        },
                    };
                    let mut out = vec![0u8; pp * 64 * nn + 64];
                    let oo = out.as_ptr().align_offset(64);
                    let chunk = 256 * 1024; // bytes of weights
                    let per_band = (w.len() + idx.len() * 2) / (nn / 64);
                    let nb = (chunk / per_band.max(1)).max(1);
                    let p0 = peak();
                    let mut best = f64::MAX;
                    let mut it = 0;
                    let t00 = Instant::now();
                    while t00.elapsed().as_secs_f64() < 0.03 || it < 6 {
                        it += 1;
                        let t = Instant::now();
                        let mut b0 = 0;
                        while b0 < nn / 64 {
                            let b1 = (b0 + nb).min(nn / 64);
                            for p in 0..pp {
                                for b in b0..b1 {
                                    let band = Band {
                                        groups: &groups[b * bandg..(b + 1) * bandg],
                                        indices: &idx,
                                        weights: &w,
                                        panel: &panels[p * 64 * kk..(p + 1) * 64 * kk],
                                        init: &init,
                                        first_row: 0,
                                    };
                                    unsafe { k(&band, &q, out.as_mut_ptr().add(oo + p * 64 * nn)) };
                                }
                            }
                            b0 = b1;
                        }
                        best = best.min(t.elapsed().as_secs_f64());
                    }
                    let pk = p0.max(peak());
                    let pct = 2.0 * nnz as f64 * (pp * 64) as f64 / best / 1e9 / pk * 100.0;
                    if nn > 256 {
                        all.push(pct);
                    }
                    if std::env::args().nth(4).is_some() {
                        println!(
                            "{name} {nn}x{kk} m={m} s={s}: {:.1}us {pct:.1}% (peak {pk:.0})",
                            best * 1e6
                        );
                    }
                }
            }
        }
        all.sort_by(|a, b| a.total_cmp(b));
        println!("{name}: median {:.1} min {:.1} max {:.1}", all[all.len() / 2], all[0], all[all.len() - 1]);
    }
}

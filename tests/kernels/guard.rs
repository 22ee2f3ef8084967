//! Buffers that end, or begin, where the next byte kills the process: nothing is read or written outside x, y and the
//! residual, and what a call only reads may be read-only.

use crate::common::attention::{Case, Params, Store, Tensor, Type};
use crate::common::{BLOCKS, Rng, all_codes, cases, isas, serial};
use siskin::TensorRef;
use siskin::internal::linear::{PanelLayout, packed_in};
use siskin::linear::InputQuantization::{PerToken, Static};
use siskin::linear::*;
use siskin::quant::QuantParams;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{ElementType, MatMut, MatRef, Scratch, bf16, f16};

/// Some elements between two pages that may not be touched.
pub struct Guarded {
    map: *mut u8,
    bytes: usize,
    data: *mut u8,
    inner: usize,
    page: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Side {
    Front,
    Back,
}

impl Guarded {
    pub fn new(len: usize, side: Side) -> Self {
        // SAFETY: an anonymous mapping of our own; the middle of it is opened.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let inner = len.next_multiple_of(page).max(page);
            let bytes = inner + 2 * page;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            let map: *mut u8 = map.cast();
            assert_eq!(libc::mprotect(map.add(page).cast(), inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            let skip = if side == Side::Back { inner - len } else { 0 };
            Guarded { map, bytes, data: map.add(page + skip), inner, page }
        }
    }

    pub fn of<T: ElementType>(values: &[T], side: Side) -> Self {
        let this = Self::new(size_of_val(values), side);
        // SAFETY: there is room; the ends of a page are aligned for all elements.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr().cast(), this.data, size_of_val(values));
            assert_eq!(libc::mprotect(this.map.add(this.page).cast(), this.inner, libc::PROT_READ), 0);
        }
        this
    }

    pub fn slice<T: ElementType>(&self, n: usize) -> &[T] {
        // SAFETY: made of at least n elements, any bits of which are values.
        unsafe { std::slice::from_raw_parts(self.data.cast(), n) }
    }

    pub fn slice_like<T: ElementType>(&self, values: &[T]) -> &[T] {
        self.slice(values.len())
    }

    pub fn slice_mut<T: ElementType>(&mut self, n: usize) -> &mut [T] {
        // SAFETY: as above, writable, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast(), n) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows it.
        unsafe { libc::munmap(self.map.cast(), self.bytes) };
    }
}

const CHILD: &str = "SISKIN_TEST_GUARD";

/// The guard must kill, or the other tests here mean nothing.
#[test]
fn a_step_outside_kills() {
    if let Ok(how) = std::env::var(CHILD) {
        let side = if how.starts_with('f') { Side::Front } else { Side::Back };
        let mut g = if how.ends_with('p') { Guarded::of(&[1u8; 100], side) } else { Guarded::new(100, side) };
        let at: isize = match how.as_str() {
            "front" => -1,
            "back" => 100,
            _ => 0,
        };
        let _ = g.slice_mut::<u8>(100);
        // SAFETY: none: this is what must die.
        unsafe { g.data.offset(at).write_volatile(1) };
        return;
    }
    for (how, dies) in [("front", true), ("back", true), ("fp", true), ("inside", false)] {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["guard::a_step_outside_kills", "--exact", "--test-threads=1"])
            .env(CHILD, how)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(!status.success(), dies, "{how}: {status}");
        if dies {
            assert_eq!(status.code(), None, "{how}: {status}: not killed by a signal");
        }
    }
}

#[test]
fn layers_stay_inside() {
    let isas = isas("layers_stay_inside");
    let mut r = Rng::new(1);
    let p = QuantParams::u8(0.01, 100).unwrap();
    let pi = QuantParams::i8(0.01, -9).unwrap();
    let rounds = cases(100).min(1000) as usize;
    for &isa in &isas {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for (b, block) in BLOCKS.into_iter().enumerate() {
            for (i, m) in [1, 2, 15, 17, 33, 63, 64, 65].into_iter().enumerate() {
                if (b * 8 + i) % 100 >= rounds {
                    continue;
                }
                let (n, k) = ([1, 5, 33, 66, 131][r.below(5)], [1, 2, 3, 17, 63, 66, 130][r.below(7)]);
                let w = r.signed(n * k);
                let dense = MatRef::new(&w, n, k).unwrap();
                // Floats are quantized token by token, and by what was calibrated.
                let layers = [PerToken, Static(p), Static(pi)].map(|how| match block {
                    None => Linear::dense(dense).input_quantization(how).build(&ctx).unwrap(),
                    Some((r, c)) => {
                        let w = Bsr::from_dense(dense, BlockShape::new(r, c).unwrap()).unwrap();
                        Linear::sparse(&w).input_quantization(how).build(&ctx).unwrap()
                    }
                });
                let xs = k + r.below(2) * 3;
                let ys = n + r.below(2) * 3;
                let (xl, yl) = ((m - 1) * xs + k, (m - 1) * ys + n);
                let floats: Vec<f32> = (0..xl).map(|_| r.float(-3.0, 3.0)).collect();
                let bf16s: Vec<bf16> = floats.iter().map(|&v| bf16::from_f32(v)).collect();
                let others: Vec<f32> = (0..yl).map(|_| r.float(-3.0, 3.0)).collect();
                let other16: Vec<bf16> = others.iter().map(|&v| bf16::from_f32(v)).collect();
                let (bytes, signed) = (r.bytes(xl), r.signed(xl));
                let (ob, os) = (r.bytes(yl), r.signed(yl));
                for side in [Side::Front, Side::Back] {
                    let (xb, xi) = (Guarded::of(&bytes, side), Guarded::of(&signed, side));
                    let (xf, xh) = (Guarded::of(&floats, side), Guarded::of(&bf16s, side));
                    let (rf, rh) = (Guarded::of(&others, side), Guarded::of(&other16, side));
                    let (rb, ri) = (Guarded::of(&ob, side), Guarded::of(&os, side));
                    let f = MatRef::with_stride(xf.slice::<f32>(xl), m, k, xs).unwrap();
                    let h = MatRef::with_stride(xh.slice::<bf16>(xl), m, k, xs).unwrap();
                    let inputs = [
                        LinearInput::from((MatRef::with_stride(xb.slice::<u8>(xl), m, k, xs).unwrap(), p)),
                        LinearInput::from((MatRef::with_stride(xi.slice::<i8>(xl), m, k, xs).unwrap(), pi)),
                        LinearInput::from(f),
                        LinearInput::from(h),
                        LinearInput::from(f),
                        LinearInput::from(h),
                    ];
                    let residuals = [
                        None,
                        Some(TensorRef::from(MatRef::with_stride(rf.slice::<f32>(yl), m, n, ys).unwrap())),
                        Some(TensorRef::from(MatRef::with_stride(rh.slice::<bf16>(yl), m, n, ys).unwrap())),
                        Some(TensorRef::from((
                            MatRef::with_stride(rb.slice::<u8>(yl), m, n, ys).unwrap(),
                            p,
                        ))),
                        Some(TensorRef::from((
                            MatRef::with_stride(ri.slice::<i8>(yl), m, n, ys).unwrap(),
                            pi,
                        ))),
                    ];
                    for (j, x) in inputs.into_iter().enumerate() {
                        let layer = &layers[[0, 0, 0, 0, 1, 2][j]];
                        let mut e = Epilogue::new();
                        if let Some(r) = residuals[(j + i + b) % residuals.len()] {
                            e = e.residual(r);
                        }
                        let none = Epilogue::new();
                        macro_rules! call {
                            (@to $y:expr) => { LinearOutput::from($y) };
                            (@to $y:expr, $p:expr) => { LinearOutput::from(($y, $p)) };
                            ($t:ty, $size:literal, $e:expr $(, $p:expr)?) => {{
                                let mut y = Guarded::new(yl * $size, side);
                                let y = MatMut::with_stride(y.slice_mut::<$t>(yl), m, n, ys).unwrap();
                                let y = call!(@to y $(, $p)?);
                                layer.forward(x, $e, y, &ctx, &mut scratch).unwrap();
                            }};
                        }
                        call!(i32, 4, none);
                        call!(f32, 4, e);
                        call!(bf16, 2, e);
                        call!(u8, 1, e, p);
                        call!(i8, 1, e, pi);
                        call!(u8, 1, none, p);
                        let layout = [PanelLayout::Rows, PanelLayout::KMajor, PanelLayout::KMajor4][j % 3];
                        let mut y = PackedActivations::new();
                        layer.forward(x, e, packed_in(&mut y, Some(p), layout), &ctx, &mut scratch).unwrap();
                        let mut back = Guarded::new(m * n, side);
                        y.unpack(MatMut::new(back.slice_mut(m * n), m, n).unwrap(), &ctx).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn float_layers_stay_inside() {
    let isas = isas("float_layers_stay_inside");
    let mut r = Rng::new(2);
    for &isa in &isas {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for round in 0..cases(250) as usize {
            let blocks = BLOCKS.len() + 1;
            let block = BLOCKS.get(round % blocks).copied().unwrap_or(Some((16, 1)));
            let m = [1, 2, 16, 17, 31, 32, 33, 65][r.below(8)];
            let (n, k) = ([1, 5, 33, 66, 131][r.below(5)], [1, 2, 3, 17, 63, 66, 130][r.below(7)]);
            let w = r.signed(n * k);
            let real: Vec<f32> = w.iter().map(|&w| f32::from(w) / 64.0).collect();
            let side = [Side::Front, Side::Back][r.below(2)];
            macro_rules! layer {
                ($w:expr $(, $more:ident($($arg:expr),*))?) => {{
                    let w = $w;
                    let inside = Guarded::of(&w, side);
                    let dense = MatRef::new(inside.slice_like(&w), n, k).unwrap();
                    match block {
                        None => Linear::dense(dense)$(.$more($($arg),*))?.build(&ctx).unwrap(),
                        Some((r, c)) => {
                            let w = Bsr::from_dense(dense, BlockShape::new(r, c).unwrap()).unwrap();
                            Linear::sparse(&w)$(.$more($($arg),*))?.build(&ctx).unwrap()
                        }
                    }
                }};
            }
            let layer = match r.below(5) {
                0 => layer!(real),
                1 => layer!(real.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>()),
                2 => layer!(real.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>()),
                3 => layer!(w, weight_only()),
                _ => layer!(w, group_scales(32, &vec![0.5; n * k.div_ceil(32)])),
            };
            let (xs, ys) = (k + r.below(2) * 3, n + r.below(2) * 3);
            let (xl, yl) = ((m - 1) * xs + k, (m - 1) * ys + n);
            let x: Vec<f32> = (0..xl).map(|_| r.float(-3.0, 3.0)).collect();
            let xb: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
            let xh: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
            let other: Vec<f16> = (0..yl).map(|_| f16::from_f32(r.float(-3.0, 3.0))).collect();
            for side in [Side::Front, Side::Back] {
                let (x, xb, xh) = (Guarded::of(&x, side), Guarded::of(&xb, side), Guarded::of(&xh, side));
                let other = Guarded::of(&other, side);
                let inputs = [
                    LinearInput::from(MatRef::with_stride(x.slice::<f32>(xl), m, k, xs).unwrap()),
                    LinearInput::from(MatRef::with_stride(xb.slice::<bf16>(xl), m, k, xs).unwrap()),
                    LinearInput::from(MatRef::with_stride(xh.slice::<f16>(xl), m, k, xs).unwrap()),
                ];
                let residual =
                    TensorRef::from(MatRef::with_stride(other.slice::<f16>(yl), m, n, ys).unwrap());
                for x in inputs {
                    macro_rules! call {
                        ($t:ty, $size:literal, $e:expr) => {{
                            let mut y = Guarded::new(yl * $size, side);
                            let y = MatMut::with_stride(y.slice_mut::<$t>(yl), m, n, ys).unwrap();
                            layer.forward(x, $e, y, &ctx, &mut scratch).unwrap();
                        }};
                    }
                    call!(f32, 4, Epilogue::new());
                    call!(bf16, 2, Epilogue::new().residual(residual));
                    call!(f16, 2, Epilogue::new().activation(Activation::Gelu));
                }
            }
        }
    }
}

/// A tensor's elements between two pages.
fn guarded(t: &Tensor, side: Side, read_only: bool) -> Guarded {
    macro_rules! copy {
        ($v:expr) => {{
            let read_only = read_only.then(|| Guarded::of($v, side));
            read_only.unwrap_or_else(|| {
                let mut g = Guarded::new(size_of_val(&$v[..]), side);
                g.slice_mut($v.len()).copy_from_slice($v);
                g
            })
        }};
    }
    match &t.store {
        Store::F32(v) => copy!(v),
        Store::Bf16(v) => copy!(v),
        Store::F16(v) => copy!(v),
        Store::U8(v) => copy!(v),
        Store::I8(v) => copy!(v),
    }
}

/// q, k, v and the context of any types and strides, the bias and the gates.
#[test]
fn attention_stays_inside() {
    use siskin::attention::{AttentionInputs, Bias};
    use siskin::{HeadsMut, HeadsRef, TensorMut, TensorRef};
    const TYPES: [Type; 5] = [Type::F32, Type::Bf16, Type::F16, Type::U8, Type::I8];
    fn input<'a>(t: &Tensor, g: &'a Guarded, params: &'a Params) -> TensorRef<'a> {
        let ((tokens, h, d), (ts, hs)) = (t.shape, t.strides);
        macro_rules! view {
            ($v:expr) => {
                HeadsRef::with_strides(g.slice_like($v), tokens, h, d, ts, hs).unwrap()
            };
        }
        let params = params.borrowed();
        match &t.store {
            Store::F32(v) => TensorRef::from(view!(v)),
            Store::Bf16(v) => TensorRef::from(view!(v)),
            Store::F16(v) => TensorRef::from(view!(v)),
            Store::U8(v) => TensorRef::from((view!(v), params)),
            Store::I8(v) => TensorRef::from((view!(v), params)),
        }
    }
    fn like<'a, T: ElementType>(g: &'a mut Guarded, store: &[T]) -> &'a mut [T] {
        g.slice_mut(store.len())
    }
    fn output<'a>(t: &Tensor, g: &'a mut Guarded, params: QuantParams) -> TensorMut<'a> {
        let ((tokens, h, d), (ts, hs)) = (t.shape, t.strides);
        macro_rules! view {
            ($v:expr) => {
                HeadsMut::with_strides(like(g, $v), tokens, h, d, ts, hs).unwrap()
            };
        }
        match &t.store {
            Store::F32(v) => TensorMut::from(view!(v)),
            Store::Bf16(v) => TensorMut::from(view!(v)),
            Store::F16(v) => TensorMut::from(view!(v)),
            Store::U8(v) => TensorMut::from((view!(v), params)),
            Store::I8(v) => TensorMut::from((view!(v), params)),
        }
    }
    let isas = isas("attention_stays_inside");
    let mut r = Rng::new(3);
    for &isa in &isas {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for round in 0..cases(150) as usize {
            let mut case = Case::random(&mut r);
            if round / 5 % 3 == 1 {
                // Single queries, a head each, read k and v as they lie.
                let dim = [8, 24, 40, 64, 72, 128, 256][r.below(7)];
                let heads = [1, 2, 4, 5, 8][r.below(5)];
                case = Case::plain(case.seed, heads, dim, 1, [16, 50, 64, 128, 191, 700][r.below(6)]);
            }
            case.types = [TYPES[round % 5]; 4];
            case.types[3] = TYPES[r.below(5)];
            case.per_token = [round % 4 == 0; 3];
            for place in &mut case.places {
                // What lies before the first element would be no guard.
                place.gaps.2 = 0;
            }
            let mut d = case.data();
            if round % 3 == 0 && round % 5 < 3 {
                // A sum that is not a number makes weights of the padding behind the last key.
                let bad = [f32::NAN, f32::INFINITY, 3e38][round / 3 % 3];
                for x in [&mut d.q, &mut d.k] {
                    if !x.is_empty() {
                        let at = r.below(x.len());
                        x[at] = bad;
                    }
                }
            }
            let (want, _) = d.run(&ctx, &mut scratch);
            let (kv_heads, width) = (d.case.kv_heads, d.case.head_dim);
            let q_shape = (d.case.q_tokens(), d.case.heads, width);
            let kv_shape = (d.case.kv_tokens(), kv_heads, width);
            let tensor = |which: usize, x: &[f32], shape| {
                Tensor::new(d.case.types[which], x, shape, d.case.places[which], 77.0)
            };
            let (q, k, v) = (tensor(0, &d.q, q_shape), tensor(1, &d.k, kv_shape), tensor(2, &d.v, kv_shape));
            let mut y = tensor(3, &vec![0.0; d.q.len()], q_shape);
            for side in [Side::Front, Side::Back] {
                let (gq, gk, gv) =
                    (guarded(&q, side, true), guarded(&k, side, true), guarded(&v, side, true));
                let mut gy = guarded(&y, side, false);
                let (bias, gates) = (Guarded::of(&d.bias, side), Guarded::of(&d.gates, side));
                d.with_call(|attention, call| {
                    let mut call = *call;
                    if let Some([b, h, i, j]) = d.case.bias {
                        call = call.bias(Bias::new(bias.slice_like(&d.bias), b, h, i, j).unwrap());
                    }
                    if d.case.gates {
                        let gates = gates.slice_like(&d.gates);
                        call = call.gates(MatRef::new(gates, q_shape.0, q_shape.1).unwrap());
                    }
                    let [q, k, v] = [(&q, &gq, 0), (&k, &gk, 1), (&v, &gv, 2)]
                        .map(|(t, g, which)| input(t, g, &d.params[which]));
                    attention
                        .forward(
                            AttentionInputs::new(q, k, v),
                            &call,
                            output(&y, &mut gy, d.out),
                            &ctx,
                            &mut scratch,
                        )
                        .unwrap();
                });
                y.store = match &y.store {
                    Store::F32(y) => Store::F32(gy.slice_like(y).to_vec()),
                    Store::Bf16(y) => Store::Bf16(gy.slice_like(y).to_vec()),
                    Store::F16(y) => Store::F16(gy.slice_like(y).to_vec()),
                    Store::U8(y) => Store::U8(gy.slice_like(y).to_vec()),
                    Store::I8(y) => Store::I8(gy.slice_like(y).to_vec()),
                };
                assert!(y.bits().0 == want, "{isa} {side:?} {:?}", d.case);
            }
        }
    }
}

/// Binary codes, their panels and what is made of them.
#[test]
fn codes_stay_inside() {
    use siskin::ecoformer::BitCodes;
    use siskin::internal::kernels::codes::{Search, Tile, pack};
    isas("codes_stay_inside");
    for kernels in all_codes().filter(|codes| codes.set.is_supported()) {
        let lanes = kernels.lanes;
        for (width, side) in kernels.widths.iter().flat_map(|w| [(w, Side::Front), (w, Side::Back)]) {
            let words = width.slices.div_ceil(4);
            for len in [1, lanes - 1, lanes, 2 * lanes + 3] {
                // Elements of 4 bytes: all sizes here are multiples.
                let ones = |bytes: usize| Guarded::of(&vec![-1i32; bytes / 4], side);
                let (a, b) = (ones(8 * width.rows * words), ones(8 * len * words));
                let panel_words = len.div_ceil(lanes) * width.slices * lanes;
                let mut panels = Guarded::new(2 * panel_words, side);
                // SAFETY: the kernels are supported; all that they are told of is there.
                unsafe {
                    let codes = std::slice::from_raw_parts(b.data.cast::<u64>(), len * words);
                    let to = panels.slice_mut(panel_words);
                    pack::pick(kernels.set.isa)(codes, words, width.slices, lanes, to);
                    for (run, rows) in [width.distances, width.less_twice]
                        .into_iter()
                        .flat_map(|d| [(d.several, width.rows), (d.one, 1)])
                    {
                        let stride = len + 3;
                        let mut out = Guarded::new(2 * ((rows - 1) * stride + len), side);
                        let out = out.slice_mut::<u16>((rows - 1) * stride + len).as_mut_ptr();
                        let a = a.data.cast();
                        let b = panels.data.cast();
                        run(&Tile { a, words, b, codes: len, out, stride, from: 0 });
                    }
                    for k in [1, 4, 2 * lanes] {
                        let mut best = Guarded::new(8 * k, side);
                        best.slice_mut::<i32>(2 * k).fill(-1);
                        let best = best.data.cast();
                        let (a, b) = (a.data.cast(), panels.data.cast());
                        (width.nearest)(&Search { a, b, codes: len, first: 0, best, k });
                    }
                }
            }
        }
    }
    let mut r = Rng::new(6);
    for isa in isas("codes_stay_inside") {
        let ctx = serial(isa);
        let mut scratch = Scratch::new();
        for (m, n, bits, k) in [(1, 1, 1, 1), (5, 33, 64, 3), (7, 100, 200, 101), (6, 64, 17, 64)] {
            let (a, b) = (r.signed(m * bits), r.signed(n * bits));
            let [a, b] = [(&a, m), (&b, n)]
                .map(|(y, n)| BitCodes::from_signs(MatRef::new(y, n, bits).unwrap()).unwrap());
            for (side, gap) in [(Side::Front, 0), (Side::Front, 3), (Side::Back, 0), (Side::Back, 3)] {
                let (len, few) = ((m - 1) * (n + gap) + n, (m - 1) * (k + gap) + k);
                let mut out = Guarded::new(2 * len, side);
                let to = MatMut::with_stride(out.slice_mut::<u16>(len), m, n, n + gap).unwrap();
                a.hamming(&b, to, &ctx, &mut scratch).unwrap();
                let to = MatMut::with_stride(out.slice_mut::<i16>(len), m, n, n + gap).unwrap();
                a.inner_products(&b, to, &ctx, &mut scratch).unwrap();
                let (mut indices, mut distances) = (Guarded::new(4 * few, side), Guarded::new(2 * few, side));
                let indices = MatMut::with_stride(indices.slice_mut(few), m, k, k + gap).unwrap();
                let distances = MatMut::with_stride(distances.slice_mut(few), m, k, k + gap).unwrap();
                a.nearest(&b, indices, distances, &ctx, &mut scratch).unwrap();
            }
        }
    }
}

/// Tokens, the parts of a hash and codes; values of every type and the context.
#[test]
fn hashes_and_linear_attention_stay_inside() {
    use siskin::ecoformer::Sequences;
    use siskin::internal::driver::ecoformer::{Attend, Encode, Hash, Layer, attend};
    use siskin::{HeadsMut, HeadsRef, TensorRef};
    let mut r = Rng::new(7);
    for isa in isas("hashes_and_linear_attention_stay_inside") {
        let (ctx, mut scratch) = (serial(isa), Scratch::new());
        for round in 0..cases(60) as usize {
            let (heads, dim) = (1 + r.below(3), [1, 2, 7, 16, 24, 32, 65, 100][round % 8]);
            let (anchors, bits) = ([1, 2, 25, 33][r.below(4)], [1, 5, 16, 63, 64, 130, 256][r.below(7)]);
            let tokens = [1, 2, 3, 15, 16, 31, 63, 64, 65, 100, 515][r.below(11)];
            let cu_seqlens = [0, (tokens / 3) as i32, tokens as i32];
            let sequences = Sequences::own_packed(&cu_seqlens);
            let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| r.float(-1.0, 1.0)).collect() };
            let (anchor, mean) = (floats(heads * anchors * dim), vec![0.1; heads * dim]);
            let (squares, centring) = (floats(heads * anchors), floats(heads * anchors));
            let projection = floats(heads * bits * anchors);
            let words = bits.div_ceil(64);
            // Strides whose last row ends the buffer: next to each other, apart, heads first.
            let layouts = [(heads * dim, dim), (heads * (dim + 3), dim + 3), (dim, tokens * dim)];
            let (token, head) = layouts[round % 3];
            let len = (tokens - 1) * token + (heads - 1) * head + dim;
            let mut x = floats(len);
            x[..dim].fill(0.0);
            for side in [Side::Front, Side::Back] {
                let parts = [&x, &anchor, &squares, &centring, &projection].map(|p| Guarded::of(p, side));
                let codes = Guarded::new(8 * heads * tokens * words, side);
                for sigma in [None, Some(&[1.0; 3][..heads])] {
                    let hash = &Hash {
                        heads,
                        head_dim: dim,
                        anchors_per_head: anchors,
                        bits,
                        anchors: parts[1].slice_like(&anchor).into(),
                        squares: parts[2].slice_like(&squares).into(),
                        centring: parts[3].slice_like(&centring).into(),
                        projection: parts[4].slice_like(&projection).into(),
                        mean: (&mean).into(),
                        mean_square: (&[1.0; 3][..heads]).into(),
                    };
                    let x: &[f32] = parts[0].slice(len);
                    let x = HeadsRef::with_strides(x, tokens, heads, dim, token, head).unwrap().into();
                    let call = Encode { hash, sigma, x, sequences };
                    // SAFETY: as many words, any bits of which are numbers.
                    let words = unsafe {
                        std::slice::from_raw_parts_mut(codes.data.cast::<u64>(), heads * tokens * words)
                    };
                    call.prepare(&ctx, &mut scratch).unwrap().run(words);
                }
                // SAFETY: as above; they are codes now.
                let words: &[u64] =
                    unsafe { std::slice::from_raw_parts(codes.data.cast(), heads * tokens * words) };
                let params = QuantParams::u8(0.1, 100).unwrap();
                let (bytes, halves) = (vec![7u8; len], vec![f16::ONE; len]);
                let bfloats = vec![bf16::ONE; len];
                let (bytes, halves) = (Guarded::of(&bytes, side), Guarded::of(&halves, side));
                let bfloats = Guarded::of(&bfloats, side);
                macro_rules! view {
                    ($t:ty, $g:expr) => {
                        HeadsRef::<$t>::with_strides($g.slice(len), tokens, heads, dim, token, head).unwrap()
                    };
                }
                for v in [
                    TensorRef::from(view!(f32, parts[0])),
                    TensorRef::from(view!(bf16, bfloats)),
                    TensorRef::from(view!(f16, halves)),
                    TensorRef::from((view!(u8, bytes), params)),
                ] {
                    for (released, causal) in [(true, false), (false, false), (false, true)] {
                        let layer = &Layer { heads, bits, released, causal };
                        let call = Attend { layer, q: words, k: words, v, sequences };
                        let mut out = Guarded::new(4 * len, side);
                        let out: &mut [f32] = out.slice_mut(len);
                        let out = HeadsMut::with_strides(out, tokens, heads, dim, token, head).unwrap();
                        attend(&call, out.into(), &ctx, &mut scratch).unwrap();
                    }
                }
            }
        }
    }
}

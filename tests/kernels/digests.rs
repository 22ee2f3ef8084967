//! Digests of what the library computes from seeded inputs, through its public calls: made on one architecture, and held
//! against every tier of any. INT8 and f32 results are the same bits everywhere.
//!
//! `SISKIN_PRINT_DIGESTS=1 cargo test --test kernels -- digests:: --nocapture` prints what the scalar tier gets.

use crate::common::{BLOCKS, Rng, float, isas, say, serial};
use siskin::ecoformer::{Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs, Sequences};
use siskin::{Ctx, HeadsMut, HeadsRef, MatMut, MatRef, Scratch};

/// FNV-1a of 64 bits.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    /// Results of a case. The payload of a NaN is free, and the sign of a zero behind ReLU.
    fn add(&mut self, bits: &[u32]) {
        let plain = |&bits: &u32| match f32::from_bits(bits) {
            v if v.is_nan() => f32::NAN.to_bits(),
            0.0 => 0,
            _ => bits,
        };
        for byte in bits.iter().map(plain).chain([bits.len() as u32]).flat_map(u32::to_le_bytes) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// The digest of some cases on every tier of this CPU.
fn check(name: &str, expected: u64, run: impl Fn(&Ctx, &mut Scratch, &mut Digest)) {
    for isa in isas(name) {
        let mut digest = Digest::new();
        run(&serial(isa), &mut Scratch::new(), &mut digest);
        if std::env::var_os("SISKIN_PRINT_DIGESTS").is_some() {
            say(&format!("{name}: {isa}: {:#018x}", digest.0));
        } else {
            assert_eq!(digest.0, expected, "{name} on {isa}: {:#018x}", digest.0);
        }
    }
}

fn pick<T: Copy>(r: &mut Rng, all: &[T]) -> T {
    all[r.below(all.len())]
}

fn bytes(name: &str, blocks: &[Option<(usize, usize)>], expected: u64) {
    use crate::common::layer::{ACTS, Case, INS, RESIDUALS, TOS};
    check(name, expected, |ctx, scratch, digest| {
        let mut r = Rng::new(101);
        for seed in 0..48 {
            let case = Case {
                seed,
                m: pick(&mut r, &[1, 2, 5, 16, 21, 64, 70]),
                n: 1 + r.below(100),
                k: 1 + r.below(150),
                block: pick(&mut r, blocks),
                weight_zeros: r.below(2) == 0,
                input: pick(&mut r, &INS),
                to: pick(&mut r, &TOS),
                residual: pick(&mut r, &RESIDUALS),
                act: pick(&mut r, &ACTS),
            };
            let data = case.valid().data();
            digest.add(&data.forward(&data.layer(ctx), (0, case.m), ctx, scratch));
        }
    });
}

#[test]
fn dense_layers_of_bytes() {
    bytes("dense_layers_of_bytes", &BLOCKS[..1], 0x933f_7ebb_f5f4_d76b);
}

#[test]
fn sparse_layers_of_bytes() {
    bytes("sparse_layers_of_bytes", &BLOCKS[1..], 0x5816_aa4f_77a1_2f97);
}

fn floats(name: &str, expected: u64, (seed, cases): (u64, usize), random: fn(&mut Rng) -> float::Case) {
    use crate::common::float::{Kind, Weights};
    check(name, expected, |ctx, scratch, digest| {
        let mut r = Rng::new(seed);
        for _ in 0..cases {
            let mut case = random(&mut r);
            // Pairs of bfloat16 round in their own way where the CPU multiplies them.
            if case.weights == Weights::Float(Kind::Bf16) {
                case.weights = Weights::Float(Kind::F16);
            }
            let data = case.data();
            digest.add(&float::bits(&data.forward(&data.layer(ctx), (0, case.m), ctx, scratch)));
        }
    });
}

#[test]
fn layers_of_floats() {
    floats("layers_of_floats", 0x5881_2f75_bde9_ffdd, (102, 40), float::Case::random);
}

#[test]
fn layers_of_floats_by_blocks_of_k() {
    floats("layers_of_floats_by_blocks_of_k", 0x8c90_4f46_ebcf_ef3f, (106, 20), float::Case::by_blocks_of_k);
}

fn heads(name: &str, bytes: bool, expected: u64) {
    use crate::common::attention::{Case, Type};
    check(name, expected, |ctx, scratch, digest| {
        let mut r = Rng::new(103);
        for _ in 0..16 {
            let mut case = Case::random(&mut r);
            case = if bytes { case.bytes(&mut r) } else { case };
            if case.types[..3] == [Type::Bf16; 3] {
                case.types[0] = Type::F32;
            }
            digest.add(&case.data().run(ctx, scratch).0);
        }
    });
}

#[test]
fn attention_of_floats() {
    heads("attention_of_floats", false, 0x1f4f_08ba_66cf_0db9);
}

#[test]
fn attention_of_bytes() {
    heads("attention_of_bytes", true, 0xbcca_ff5b_ddfd_02ea);
}

#[test]
fn layer_norms() {
    use siskin::norm::{LayerNorm, NormOutput};
    use siskin::quant::QuantParams;
    check("layer_norms", 0x892e_f427_fe35_4f21, |ctx, scratch, digest| {
        let mut r = Rng::new(106);
        for n in [1, 3, 16, 31, 33, 384, 1030] {
            let m = 1 + r.below(9);
            let mut floats =
                |n: usize, low: f32, high: f32| (0..n).map(|_| r.float(low, high)).collect::<Vec<f32>>();
            let (x, residual) = (floats(m * n, -2.0, 3.0), floats(m * n, -1.0, 1.0));
            let (gamma, beta, by) = (floats(n, -1.5, 1.5), floats(n, -0.5, 0.5), floats(n, 0.1, 2.0));
            let norm = LayerNorm::new(&gamma, &beta, 1e-5).unwrap().with_byte_factors(&by).unwrap();
            let (mut y, mut bytes) = (vec![0.0; m * n], vec![0; m * n]);
            let mut params = vec![QuantParams::u8(1.0, 0).unwrap(); m];
            let to = NormOutput::from(MatMut::new(&mut y, m, n).unwrap())
                .with_bytes((MatMut::new(&mut bytes, m, n).unwrap(), &mut params[..]));
            let (x, residual) = (MatRef::new(&x, m, n).unwrap(), MatRef::new(&residual, m, n).unwrap());
            norm.forward(x, Some(residual), to, ctx, scratch).unwrap();
            digest.add(&float::bits(&y));
            digest.add(&bytes.iter().map(|&b| b.into()).collect::<Vec<_>>());
            digest.add(&params.iter().map(|p| p.scale().to_bits()).collect::<Vec<_>>());
        }
    });
}

#[test]
fn distances_of_codes() {
    check("distances_of_codes", 0x4b94_c2bc_ad0e_31a7, |ctx, scratch, digest| {
        let mut r = Rng::new(104);
        for bits in [1usize, 16, 17, 48, 64, 100, 200, 256] {
            let (a, b) = (1 + r.below(20), 1 + r.below(150));
            let mut codes = |n: usize| {
                let words = bits.div_ceil(64);
                let last = u64::MAX >> (64 * words - bits);
                let all = (0..n * words).map(|i| {
                    let word = r.next() << 32 ^ r.next();
                    if i % words + 1 == words { word & last } else { word }
                });
                BitCodes::from_words(all.collect(), bits).unwrap()
            };
            let (a, b, k) = (codes(a), codes(b), 5);
            let (n, m) = (a.len(), b.len());
            let (mut distances, mut numbers) = (vec![0u16; n * m], vec![0u32; n * k]);
            a.hamming(&b, MatMut::new(&mut distances, n, m).unwrap(), ctx, scratch).unwrap();
            digest.add(&distances.iter().map(|&d| d.into()).collect::<Vec<_>>());
            let mut nearest = vec![0u16; n * k];
            let to = MatMut::new(&mut nearest, n, k).unwrap();
            a.nearest(&b, MatMut::new(&mut numbers, n, k).unwrap(), to, ctx, scratch).unwrap();
            digest.add(&numbers);
        }
    });
}

#[test]
fn attention_by_codes() {
    check("attention_by_codes", 0x8be0_928a_b696_2bc6, |ctx, scratch, digest| {
        let mut r = Rng::new(105);
        for (heads, head_dim, bits, tokens) in [(1, 16, 16, 70), (2, 33, 24, 64), (3, 64, 16, 19)] {
            let mut floats = |n: usize| (0..n).map(|_| r.float(-1.0, 1.0)).collect::<Vec<f32>>();
            let m = 25;
            let (anchors, centring) = (floats(heads * m * head_dim), floats(heads * m));
            let projection = floats(heads * bits * m);
            let hash = KernelHash::from_parts(heads, head_dim, anchors, centring, projection).unwrap();
            let (x, v) = (floats(tokens * heads * head_dim), floats(tokens * heads * head_dim));
            let view = |x| HeadsRef::new(x, tokens, heads, head_dim).unwrap();
            let sequences = Sequences::Batch { batch: 1, q_len: tokens, kv_len: tokens };
            let mut codes = BitCodes::with_capacity(0, bits).unwrap();
            hash.encode(view(&x), &sequences, Bandwidth::Sequence, &mut codes, ctx, scratch).unwrap();
            digest.add(&codes.words().iter().flat_map(|&w| [w as u32, (w >> 32) as u32]).collect::<Vec<_>>());
            let mut out = vec![0.0f32; tokens * heads * head_dim];
            let to = HeadsMut::new(&mut out, tokens, heads, head_dim).unwrap();
            let attention = LinearAttention::new(heads, bits).unwrap();
            let inputs = LinearAttentionInputs::new(&codes, &codes, view(&v));
            attention.forward(inputs, &sequences, to, ctx, scratch).unwrap();
            digest.add(&float::bits(&out));
        }
    });
}

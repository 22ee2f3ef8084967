//! EcoFormer from the tokens of one batch to the context of another: learn a hash, encode, attend in linear time; beside softmax
//! attention over the same tokens.
//!
//! Tokens lie around a few topics, as those of an image or a text do. The hash tells topics apart, so a query weighs the values of
//! its own topic more than others.

use siskin::attention::{Attention, AttentionCall, AttentionInputs, HeadsMut, HeadsRef, Sequences};
use siskin::ecoformer::{
    Bandwidth, BitCodes, FitOptions, KernelHash, LinearAttention, LinearAttentionInputs, Numerator, fit,
};
use siskin::{Ctx, Result, Scratch};
use std::time::Instant;

const TOKENS: usize = 3136;
const HEADS: usize = 1;
const DIM: usize = 64;
const TOPICS: usize = 6;

fn main() -> Result<()> {
    let (ctx, mut scratch) = (Ctx::serial()?, Scratch::new());
    let mut random = Random(7);
    let topics: Vec<f32> = (0..TOPICS * DIM).map(|_| random.next()).collect();
    let mut tokens = || -> Vec<f32> {
        (0..TOKENS * DIM).map(|i| topics[i / DIM % TOPICS * DIM + i % DIM] + 0.5 * random.next()).collect()
    };
    let (batch, x) = (tokens(), tokens());
    // A token's value is its topic.
    let v: Vec<f32> =
        (0..TOKENS * DIM).map(|i| f32::from(i as u8 % DIM as u8 == (i / DIM % TOPICS) as u8)).collect();
    let heads = |data| HeadsRef::new(data, TOKENS, HEADS, DIM);
    let sequences = Sequences::own(1, TOKENS);

    // Once: a hash, from one batch.
    let start = Instant::now();
    let learned = fit(&[heads(&batch)?], &FitOptions::default(), &ctx)?;
    println!(
        "fit            {:8.1} ms, {} of 16 bits learned",
        ms(start),
        learned.accepted.iter().filter(|a| **a).count()
    );
    let hash = KernelHash::new(learned)?;

    let mut codes = BitCodes::with_capacity(HEADS * TOKENS, hash.bits())?;
    let attention = LinearAttention::new(HEADS, hash.bits())?.numerator(Numerator::Consistent);
    let (mut hashed, mut softmax) = (vec![0.0; TOKENS * DIM], vec![0.0; TOKENS * DIM]);
    let (mut encode, mut attend, mut plain) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..5 {
        let start = Instant::now();
        hash.encode(heads(&x)?, &sequences, Bandwidth::Sequence, &mut codes, &ctx, &mut scratch)?;
        encode = encode.min(ms(start));

        let start = Instant::now();
        let out = HeadsMut::new(&mut hashed, TOKENS, HEADS, DIM)?;
        let inputs = LinearAttentionInputs::new(&codes, &codes, heads(&v)?);
        attention.forward(inputs, &sequences, out, &ctx, &mut scratch)?;
        attend = attend.min(ms(start));

        let start = Instant::now();
        let [q, v] = [heads(&x)?, heads(&v)?];
        let out = HeadsMut::new(&mut softmax, TOKENS, HEADS, DIM)?;
        Attention::new(HEADS, HEADS, DIM)?.forward(
            AttentionInputs::new(q, q, v),
            &AttentionCall::new(sequences),
            out,
            &ctx,
            &mut scratch,
        )?;
        plain = plain.min(ms(start));
    }
    println!("encode         {encode:8.3} ms\nattend         {attend:8.3} ms\nsoftmax        {plain:8.3} ms");
    println!("{TOKENS} tokens: {:.0} times as fast as softmax attention", plain / (encode + attend));

    let own = |context: &[f32]| {
        let hits = context.chunks(DIM).enumerate().filter(|(t, row)| {
            let most = (0..TOPICS).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            most == Some(t % TOPICS)
        });
        100.0 * hits.count() as f64 / TOKENS as f64
    };
    let (hashed, softmax) = (own(&hashed), own(&softmax));
    println!("tokens whose own topic weighs most: EcoFormer {hashed:.1} %, softmax {softmax:.1} %");
    assert!(hashed > 90.0, "the hash tells topics apart");
    Ok(())
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Numbers that look random, around 0.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

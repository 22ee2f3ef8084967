//! Hashes and codes in files.

use crate::base::error::{Error, Result};
use crate::base::heads::{Heads, Shape};
use crate::base::input::read;
use crate::base::lengths::Lengths;
use crate::base::tensors::{Tensors, elements, parse};
use crate::ecoformer::case::Bandwidth;
use safetensors::Dtype;
use siskin::HeadsRef;
use siskin::ecoformer::{BitCodes, Encoded, KernelHash};
use siskin::{Ctx, Scratch};
use std::path::Path;

/// Bits that all codes of a file may have.
const MOST: usize = 1 << 30;

/// A hash of either kind.
pub fn hash(t: &mut Tensors<'_>) -> Result<KernelHash> {
    let own = t.has("anchors");
    let names = if own { ["anchors", "centring", "projection"] } else { ["anchor", "mvec", "A"] };
    let (anchors, [heads, m, head_dim]) = match own {
        true => t.take::<f32, 3>(names[0])?,
        false => {
            let (anchors, [one, heads, m, head_dim]) = t.take::<f32, 4>(names[0])?;
            expect(names[0], &[one, heads, m, head_dim], &[1, heads, m, head_dim])?;
            (anchors, [heads, m, head_dim])
        }
    };
    let centring = match own {
        true => {
            let (centring, shape) = t.take::<f32, 2>(names[1])?;
            expect(names[1], &shape, &[heads, m])?;
            centring
        }
        false => {
            let (centring, shape) = t.take::<f32, 4>(names[1])?;
            expect(names[1], &shape, &[1, heads, 1, m])?;
            centring
        }
    };
    let (projection, shape) = t.take::<f32, 3>(names[2])?;
    expect(names[2], &shape, &[heads, shape[1], m])?;
    let hash = KernelHash::from_parts(heads, head_dim, anchors, centring, projection)?;
    Ok(if t.has("sigma") { hash.with_sigma(t.reals("sigma")?)? } else { hash })
}

fn expect(name: &str, shape: &[usize], expected: &[usize]) -> Result<()> {
    match shape == expected {
        true => Ok(()),
        false => Err(Error::input(name, format_args!("{expected:?}"), format_args!("{shape:?}"))),
    }
}

/// A hash in a file of its own, or among the tensors of tokens.
pub fn hash_from(path: Option<&Path>, t: &mut Tensors<'_>) -> Result<KernelHash> {
    let Some(path) = path else { return hash(t) };
    let bytes = read(path)?;
    let mut own = Tensors::new(parse(path, &bytes)?);
    let hash = hash(&mut own)?;
    own.finish()?;
    Ok(hash)
}

/// Tokens to encode.
pub struct X {
    pub values: Vec<f32>,
    pub head_dim: usize,
    pub shape: Shape,
}

impl X {
    pub fn take(t: &mut Tensors<'_>) -> Result<Self> {
        let dtype = t.dtype("x")?;
        if !matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            return Err(Error::input("x", "F32, BF16 or F16", format_args!("{dtype:?}")));
        }
        let x = Heads::take(t, "x")?;
        Ok(Self { values: x.data.floats(), head_dim: x.place.head_dim, shape: x.shape })
    }

    pub fn encode(
        &self,
        hash: &KernelHash,
        lengths: &Lengths,
        bandwidth: Bandwidth,
        ctx: &Ctx,
    ) -> Result<(BitCodes, Encoded)> {
        check_codes(&self.shape, hash.bits())?;
        let x = HeadsRef::new(&self.values, self.shape.tokens(), self.shape.heads, self.head_dim)?;
        let mut codes = BitCodes::with_capacity(0, hash.bits())?;
        let sequences = lengths.sequences();
        let bandwidth = bandwidth.library();
        let encoded = hash.encode(x, &sequences, bandwidth, &mut codes, ctx, &mut Scratch::new())?;
        Ok((codes, encoded))
    }
}

fn check_codes(shape: &Shape, bits: usize) -> Result<()> {
    let all = shape.tokens().checked_mul(shape.heads).and_then(|n| n.checked_mul(bits));
    match all.is_some_and(|all| all <= MOST) {
        true => Ok(()),
        false => {
            let got = format_args!("{} tokens, {} heads, {bits} bits", shape.tokens(), shape.heads);
            Err(Error::input("codes", format_args!("at most {MOST} bits"), got))
        }
    }
}

/// The numbers of all codes, token by token, of codes that lie head by head.
fn by_tokens(shape: &Shape) -> impl Iterator<Item = usize> {
    let Shape { heads, .. } = *shape;
    let tokens = shape.tokens();
    (0..tokens).flat_map(move |token| (0..heads).map(move |head| head * tokens + token))
}

/// Codes as bytes of +1 and -1, token by token.
pub fn signs(codes: &BitCodes, shape: &Shape) -> Vec<u8> {
    let sign = |set: bool| if set { 1i8 } else { -1 } as u8;
    by_tokens(shape).flat_map(|i| (0..codes.bits()).map(move |bit| sign(codes.bit(i, bit)))).collect()
}

/// Words of codes, little-endian, token by token.
pub fn words(codes: &BitCodes, shape: &Shape) -> Vec<u8> {
    by_tokens(shape).flat_map(|i| codes.code(i)).flat_map(|word| word.to_le_bytes()).collect()
}

/// Codes of +1 and -1.
pub fn codes(t: &mut Tensors<'_>, name: &str) -> Result<(BitCodes, Shape)> {
    let dtype = t.dtype(name)?;
    let tensor = t.view(name)?;
    let (shape, bits) = Shape::of(name, &tensor)?;
    if dtype != Dtype::I8 {
        return Err(Error::input(name, "I8", format_args!("{dtype:?}")));
    }
    let signs: Vec<i8> = elements(&tensor);
    if let Some(i) = signs.iter().position(|sign| sign.abs_diff(0) != 1) {
        return Err(Error::input(format_args!("{name}[{i}]"), "+1 or -1", signs[i]));
    }
    let (tokens, each) = (shape.tokens(), bits.div_ceil(64));
    let mut words = vec![0; tokens * shape.heads * each];
    for (i, signs) in by_tokens(&shape).zip(signs.chunks_exact(bits)) {
        for (bit, &sign) in signs.iter().enumerate() {
            words[i * each + bit / 64] |= u64::from(sign > 0) << (bit % 64);
        }
    }
    Ok((BitCodes::from_words(words, bits)?, shape))
}

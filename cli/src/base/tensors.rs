//! Safetensors files, read with suspicion.

use super::error::{Error, Result};
use super::input;
use super::recognize::kind_of;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use siskin::Element;
use siskin::quant::QuantParams;
use siskin::{bf16, f16};
use std::collections::BTreeSet;
use std::path::Path;

/// The tensors in the bytes of a file.
pub fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| {
        let why = kind_of(bytes).map_or_else(|| e.to_string(), String::from);
        Error::file(input::name(path), format_args!("expected safetensors: {why}"))
    })
}

/// Numbers of a type as a tensor holds them: little-endian, perhaps not aligned.
pub trait Number: Copy {
    const DTYPE: Dtype;
    const BYTES: usize;
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! numbers { ($($t:ty => $d:ident),* $(,)?) => { $(
    impl Number for $t {
        const DTYPE: Dtype = Dtype::$d;
        const BYTES: usize = size_of::<$t>();
        fn read(bytes: &[u8]) -> Self {
            let mut own = [0; size_of::<$t>()];
            own.copy_from_slice(bytes);
            <$t>::from_le_bytes(own)
        }
    }
)* } }
numbers!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f64 => F64, f32 => F32, bf16 => BF16, f16 => F16,
);

/// The elements of a tensor whose type is known.
pub fn elements<T: Number>(tensor: &TensorView<'_>) -> Vec<T> {
    tensor.data().chunks_exact(T::BYTES).map(T::read).collect()
}

/// The elements of a tensor of any floats; those of 64 bits rounded to f32.
pub fn floats(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    match tensor.dtype() {
        Dtype::F64 => Some(elements::<f64>(tensor).into_iter().map(|v| v as f32).collect()),
        Dtype::F32 => Some(elements(tensor)),
        Dtype::F8_E4M3 => Some(tensor.data().iter().map(|&byte| from_e4m3(byte)).collect()),
        // The upper half of an f16.
        Dtype::F8_E5M2 => {
            Some(tensor.data().iter().map(|&byte| f16::from_bits(u16::from(byte) << 8).to_f32()).collect())
        }
        Dtype::F16 => Some(elements::<f16>(tensor).into_iter().map(f16::to_f32).collect()),
        Dtype::BF16 => Some(elements::<bf16>(tensor).into_iter().map(bf16::to_f32).collect()),
        _ => None,
    }
}

/// A float of 8 bits: sign, 4 bits of exponent (of bias 7), 3 of mantissa; no infinities, and NaN where all seven are set.
fn from_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The floats of a vector: a single number, `[N]`, or `[N, 1]`.
pub fn vector_of(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    if is_vector(tensor) { floats(tensor) } else { None }
}

fn is_vector(tensor: &TensorView<'_>) -> bool {
    matches!(tensor.shape(), [] | [_] | [_, 1])
}

/// The elements of a tensor of any integers; what does not fit is the largest.
fn integers(tensor: &TensorView<'_>) -> Option<Vec<i64>> {
    fn wide<T: Number + TryInto<i64>>(tensor: &TensorView<'_>) -> Option<Vec<i64>> {
        Some(elements::<T>(tensor).into_iter().map(|v| v.try_into().unwrap_or(i64::MAX)).collect())
    }
    match tensor.dtype() {
        Dtype::U8 => wide::<u8>(tensor),
        Dtype::I8 => wide::<i8>(tensor),
        Dtype::U16 => wide::<u16>(tensor),
        Dtype::I16 => wide::<i16>(tensor),
        Dtype::U32 => wide::<u32>(tensor),
        Dtype::I32 => wide::<i32>(tensor),
        Dtype::U64 => wide::<u64>(tensor),
        Dtype::I64 => wide::<i64>(tensor),
        _ => None,
    }
}

fn quantizer(name: &str, scale: f32, zero_point: i32, dtype: Element) -> Result<QuantParams> {
    let names = format_args!("{name}_scale and {name}_zero_point");
    QuantParams::new(scale, zero_point, dtype).map_err(|e| Error::input(names, "a quantizer", e))
}

/// The named tensors of a file, each to be taken once: what nobody took is too much.
pub struct Tensors<'a> {
    file: SafeTensors<'a>,
    left: BTreeSet<String>,
}

impl<'a> Tensors<'a> {
    pub fn new(file: SafeTensors<'a>) -> Self {
        let left = file.names().into_iter().map(String::from).collect();
        Self { file, left }
    }

    pub fn has(&self, name: &str) -> bool {
        self.left.contains(name)
    }

    pub fn view(&mut self, name: &str) -> Result<TensorView<'a>> {
        self.left.remove(name);
        self.file.tensor(name).map_err(|_| Error::input(name, "a tensor of this name", "none"))
    }

    /// The type of a tensor, which is still to be taken.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        match self.file.tensor(name) {
            Ok(tensor) => Ok(tensor.dtype()),
            Err(_) => Err(Error::input(name, "a tensor of this name", "none")),
        }
    }

    /// A tensor of a type and of a number of dimensions.
    pub fn take<T: Number, const D: usize>(&mut self, name: &str) -> Result<(Vec<T>, [usize; D])> {
        let tensor = self.view(name)?;
        if tensor.dtype() != T::DTYPE {
            return Err(Error::input(
                name,
                format_args!("{:?}", T::DTYPE),
                format_args!("{:?}", tensor.dtype()),
            ));
        }
        let shape = tensor.shape().try_into().map_err(|_| {
            Error::input(name, format_args!("{D} dimensions"), format_args!("{:?}", tensor.shape()))
        })?;
        Ok((elements(&tensor), shape))
    }

    /// The numbers of a vector, of any floats: a single one, `[N]`, or `[N, 1]`. Empty where there is no such tensor.
    pub fn reals(&mut self, name: &str) -> Result<Vec<f32>> {
        self.vector(name, "floats", floats)
    }

    /// A single number of any floats, or none where there is no such tensor.
    pub fn real(&mut self, name: &str) -> Result<Option<f32>> {
        match (self.has(name), &self.reals(name)?[..]) {
            (false, _) => Ok(None),
            (true, [one]) => Ok(Some(*one)),
            (true, more) => Err(Error::input(name, "one number", more.len())),
        }
    }

    /// As [`Tensors::reals`], of any integers that fit i32.
    pub fn integers(&mut self, name: &str) -> Result<Vec<i32>> {
        let wide = self.vector(name, "integers", integers)?;
        let narrow = |v: i64| v.try_into().map_err(|_| Error::input(name, "integers of 32 bits", v));
        wide.into_iter().map(narrow).collect()
    }

    fn vector<T>(
        &mut self,
        name: &str,
        of: &str,
        read: impl Fn(&TensorView<'_>) -> Option<Vec<T>>,
    ) -> Result<Vec<T>> {
        if !self.has(name) {
            return Ok(Vec::new());
        }
        let tensor = self.view(name)?;
        let read = if is_vector(&tensor) { read(&tensor) } else { None };
        read.ok_or_else(|| {
            let got = format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
            Error::input(name, format_args!("{of} of shape [N] or [N, 1]"), got)
        })
    }

    /// I32 or I64, neither negative nor too large for where they go.
    pub fn indices<T: TryFrom<i64>>(&mut self, name: &str) -> Result<Vec<T>> {
        let tensor = self.view(name)?;
        let wide: Vec<i64> = match (tensor.dtype(), tensor.shape()) {
            (i64::DTYPE, [_]) => elements(&tensor),
            (i32::DTYPE, [_]) => elements::<i32>(&tensor).into_iter().map(i64::from).collect(),
            (dtype, shape) => {
                let got = format!("{dtype:?} of shape {shape:?}");
                return Err(Error::input(name, "I32 or I64 of one dimension", got));
            }
        };
        let narrow = |(i, v)| T::try_from(v).map_err(|_| Error::input(format!("{name}[{i}]"), "an index", v));
        wide.into_iter().enumerate().map(narrow).collect()
    }

    /// What is to be made of a tensor, or none where there is no such tensor.
    pub fn optional<T>(
        &mut self,
        name: &str,
        take: impl FnOnce(&mut Self, &str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.has(name).then(|| take(self, name)).transpose()
    }

    /// Of `NAME_scale` and `NAME_zero_point`, one number each.
    pub fn quantizer(&mut self, name: &str, dtype: Element) -> Result<QuantParams> {
        let (scale, zero) = (format!("{name}_scale"), format!("{name}_zero_point"));
        let step = self.real(&scale)?.ok_or_else(|| Error::input(&scale, "a tensor of this name", "none"))?;
        match self.integers(&zero)?[..] {
            [] => quantizer(name, step, 0, dtype),
            [zero_point] => quantizer(name, step, zero_point, dtype),
            [..] => Err(Error::input(&zero, "one number", "more")),
        }
    }

    /// Of `NAME_scale` and `NAME_zero_point`, each for all heads or head by head.
    pub fn quantizers(&mut self, name: &str, dtype: Element) -> Result<Vec<QuantParams>> {
        let (scale, zero) = (format!("{name}_scale"), format!("{name}_zero_point"));
        let scales = self.reals(&scale)?;
        let zeros = self.integers(&zero)?;
        if scales.is_empty() {
            return Err(Error::input(&scale, "a tensor of this name, of at least one number", "none"));
        }
        let count = scales.len().max(zeros.len());
        if [scales.len(), zeros.len().max(1)].iter().any(|&n| n != 1 && n != count) {
            let got = format_args!("{} and {}", scales.len(), zeros.len());
            return Err(Error::input(format_args!("{scale} and {zero}"), "one, or one for each head", got));
        }
        let at = |i: usize, len: usize| if len == 1 { 0 } else { i };
        let of = |i: usize| {
            let zero_point = zeros.get(at(i, zeros.len())).copied().unwrap_or(0);
            quantizer(name, scales[at(i, scales.len())], zero_point, dtype)
        };
        (0..count).map(of).collect()
    }

    /// Of `NAME_token_scale`, one for each of so many tokens, and `NAME_zero_point`, one number.
    pub fn token_quantizers(
        &mut self,
        name: &str,
        tokens: usize,
        dtype: Element,
    ) -> Result<Vec<QuantParams>> {
        let (scale, zero) = (format!("{name}_token_scale"), format!("{name}_zero_point"));
        let scales = self.reals(&scale)?;
        if scales.len() != tokens {
            return Err(Error::input(
                &scale,
                format_args!("one number for each of {tokens} tokens"),
                scales.len(),
            ));
        }
        let zero_point = match self.integers(&zero)?[..] {
            [] => 0,
            [zero_point] => zero_point,
            [..] => return Err(Error::input(&zero, "one number for all tokens", "more")),
        };
        scales.into_iter().map(|scale| quantizer(name, scale, zero_point, dtype)).collect()
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> Result<()> {
        match self.left.into_iter().next() {
            None => Ok(()),
            Some(name) => Err(Error::input(name, "no tensor of this name for these parameters", "one")),
        }
    }
}

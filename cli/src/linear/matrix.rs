//! x, a residual and what comes out of a layer.

use crate::base::data::Data;
use crate::base::error::{Error, Result};
use crate::base::random::Rng;
use crate::base::tensors::Tensors;
use crate::base::types::{XType, YType};
use safetensors::Dtype;
use siskin::Element;
use siskin::linear::PackedActivations;
use siskin::quant::QuantParams;
use siskin::{Ctx, MatMut, MatRef, TensorMut, TensorRef};

/// x or a residual.
#[derive(Debug)]
pub struct Matrix {
    pub data: Data,
    /// Of bytes.
    pub params: QuantParams,
}

impl Matrix {
    pub fn new(data: Data) -> Result<Self> {
        Ok(Self { data, params: QuantParams::u8(1.0, 0)? })
    }

    pub fn random(len: usize, dtype: XType, scale: f32, rng: &mut Rng) -> Result<Self> {
        let zero = rng.below(256) as i32;
        let float = |rng: &mut Rng| 256.0 * scale * (rng.unit() + rng.unit() - 0.9);
        Ok(match dtype {
            XType::U8 => Self {
                data: Data::U8((0..len).map(|_| rng.next() as u8).collect()),
                params: QuantParams::u8(scale, zero)?,
            },
            XType::I8 => Self {
                data: Data::I8((0..len).map(|_| rng.next() as i8).collect()),
                params: QuantParams::i8(scale, zero - 128)?,
            },
            floats => Self::new(Data::from_floats((0..len).map(|_| float(rng)), floats))?,
        })
    }

    /// A tensor of a file, and its shape: of two dimensions, or more of which all but the last count tokens.
    pub fn take(t: &mut Tensors<'_>, name: &str) -> Result<(Self, Shape)> {
        let tensor = t.view(name)?;
        let shape = Shape::new(tensor.shape()).ok_or_else(|| {
            Error::input(name, "2 dimensions or more", format_args!("{:?}", tensor.shape()))
        })?;
        let data = Data::read(name, &tensor)?;
        let matrix = match data.quant() {
            Some(dtype) => Self { data, params: t.quantizer(name, dtype)? },
            None => Self::new(data)?,
        };
        Ok((matrix, shape))
    }

    pub fn rows(&self, rows: &[usize], cols: usize) -> Self {
        Self { data: self.data.rows(rows, cols), params: self.params }
    }

    /// It as a matrix of so many rows and columns.
    pub fn tensor(&self, rows: usize, cols: usize) -> Result<TensorRef<'_>> {
        Ok(match &self.data {
            Data::U8(d) => (MatRef::new(d, rows, cols)?, self.params).into(),
            Data::I8(d) => (MatRef::new(d, rows, cols)?, self.params).into(),
            Data::F32(d) => MatRef::new(d, rows, cols)?.into(),
            Data::Bf16(d) => MatRef::new(d, rows, cols)?.into(),
            Data::F16(d) => MatRef::new(d, rows, cols)?.into(),
        })
    }

    /// A row as whole numbers from the zero point; one of floats by its own range.
    pub fn integers(&self, row: usize, cols: usize) -> Result<Vec<i64>> {
        let row = self.data.rows(&[row], cols);
        let values = row.floats();
        if row.is_bytes() {
            let zero_point = i64::from(self.params.zero_point());
            return Ok(values.iter().map(|&v| v as i64 - zero_point).collect());
        }
        let (min, max) = values.iter().fold((0.0f32, 0.0f32), |(a, b), &v| (a.min(v), b.max(v)));
        let p = QuantParams::from_range_asymmetric(min, max, Element::U8)?;
        Ok(values.iter().map(|&v| i64::from(p.quantize(v) - p.zero_point())).collect())
    }
}

/// The shape of a matrix whose rows may be counted by several dimensions.
pub struct Shape {
    /// All but the last.
    pub leading: Vec<usize>,
    /// Their product.
    pub rows: usize,
    pub cols: usize,
}

impl Shape {
    fn new(shape: &[usize]) -> Option<Self> {
        let (&cols, leading) = shape.split_last()?;
        let rows = leading.iter().try_fold(1usize, |rows, &n| rows.checked_mul(n))?;
        (!leading.is_empty()).then(|| Self { leading: leading.to_vec(), rows, cols })
    }
}

/// Rows that come out.
pub enum Rows {
    Sums(Vec<i32>),
    Elements(Data),
}

impl Rows {
    pub fn new(dtype: YType, len: usize) -> Self {
        match dtype.element() {
            None => Rows::Sums(vec![0; len]),
            Some(dtype) => Rows::Elements(Data::zeros(dtype, len)),
        }
    }

    /// Where the output of a call goes.
    pub fn output(&mut self, m: usize, n: usize, params: QuantParams) -> Result<TensorMut<'_>> {
        Ok(match self {
            Rows::Sums(y) => MatMut::new(y, m, n)?.into(),
            Rows::Elements(Data::F32(y)) => MatMut::new(y, m, n)?.into(),
            Rows::Elements(Data::Bf16(y)) => MatMut::new(y, m, n)?.into(),
            Rows::Elements(Data::F16(y)) => MatMut::new(y, m, n)?.into(),
            Rows::Elements(Data::U8(y)) => (MatMut::new(y, m, n)?, params).into(),
            Rows::Elements(Data::I8(y)) => (MatMut::new(y, m, n)?, params).into(),
        })
    }

    /// As a tensor of a file.
    pub fn stored(&self) -> (Dtype, Vec<u8>) {
        match self {
            Rows::Sums(y) => (Dtype::I32, y.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Rows::Elements(y) => y.stored(),
        }
    }
}

/// What comes out.
pub enum Y {
    Rows(Rows),
    Packed(PackedActivations),
}

impl Y {
    /// Some of its `m` rows of `n`, exact; bytes as unsigned ones, which is what packed ones are.
    pub fn values(&self, rows: &[usize], (m, n): (usize, usize), ctx: &Ctx) -> Result<Vec<f64>> {
        fn some<T: Copy>(y: &[T], rows: &[usize], n: usize, f: impl Fn(T) -> f64) -> Vec<f64> {
            rows.iter().flat_map(|r| &y[r * n..][..n]).map(|&v| f(v)).collect()
        }
        Ok(match self {
            Y::Rows(Rows::Sums(y)) => some(y, rows, n, f64::from),
            Y::Rows(Rows::Elements(Data::I8(y))) => some(y, rows, n, |v| f64::from(v as u8 ^ 0x80)),
            Y::Rows(Rows::Elements(y)) => y.rows(rows, n).floats().into_iter().map(f64::from).collect(),
            Y::Packed(y) if y.element().is_float() => {
                let mut floats = vec![0.0; m * n];
                y.unpack_f32(MatMut::new(&mut floats, m, n)?)?;
                some(&floats, rows, n, f64::from)
            }
            Y::Packed(y) => {
                let mut bytes = vec![0; m * n];
                y.unpack(MatMut::new(&mut bytes, m, n)?, ctx)?;
                some(&bytes, rows, n, f64::from)
            }
        })
    }
}

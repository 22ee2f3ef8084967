//! Vectors from the original code.

#![allow(dead_code, reason = "each test uses its own part")]

use safetensors::SafeTensors;

/// A file of them, or the tensors of it whose names begin alike.
pub struct Golden<'a> {
    tensors: SafeTensors<'a>,
    prefix: String,
}

impl<'a> Golden<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        Self::case(file, "")
    }

    /// Those of `case/`.
    pub fn case(file: &'a [u8], case: &str) -> Self {
        let prefix = if case.is_empty() { String::new() } else { format!("{case}/") };
        Golden { tensors: SafeTensors::deserialize(file).unwrap(), prefix }
    }

    fn tensor(&self, name: &str) -> safetensors::tensor::TensorView<'_> {
        let name = format!("{}{name}", self.prefix);
        self.tensors.tensor(&name).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.tensor(&format!("{}{name}", self.prefix)).is_ok()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).shape().to_vec()
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let tensor = self.tensor(name);
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    pub fn i32(&self, name: &str) -> Vec<i32> {
        let tensor = self.tensor(name);
        assert_eq!(tensor.dtype(), safetensors::Dtype::I32, "{name}");
        tensor.data().as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b)).collect()
    }

    pub fn i8(&self, name: &str) -> Vec<i8> {
        let tensor = self.tensor(name);
        assert_eq!(tensor.dtype(), safetensors::Dtype::I8, "{name}");
        tensor.data().iter().map(|&b| b as i8).collect()
    }

    pub fn u8(&self, name: &str) -> Vec<u8> {
        let tensor = self.tensor(name);
        assert_eq!(tensor.dtype(), safetensors::Dtype::U8, "{name}");
        tensor.data().to_vec()
    }
}

//! The files of a checkpoint, and which of its tensors are weights of linear layers.

use crate::base::error::{Error, Result};
use crate::base::input;
use crate::base::tensors::{floats, vector_of};
use glob::Pattern;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which tensors are asked for, and how they lie.
pub struct Wanted<'a> {
    /// Of these names, if there are any.
    pub include: &'a [Pattern],
    /// But of none of these.
    pub exclude: &'a [Pattern],
    /// Embeddings too.
    pub embeddings: bool,
    /// Weights are `[in, out]`.
    pub transpose: bool,
}

/// The weight of a layer, `[out, in]`.
pub struct Weight {
    pub name: String,
    pub dtype: String,
    pub out: usize,
    pub input: usize,
    pub values: Vec<f32>,
}

/// The index of a checkpoint in several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// What the index of a checkpoint in several files is called.
const INDEX: &str = "model.safetensors.index.json";

/// The files of a checkpoint: the file itself; those of an index; in a folder those of its index, or all that it has.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !input::is_standard(path) && path.is_dir() {
        let index = path.join(INDEX);
        if index.is_file() {
            return of_index(&index);
        }
        let read = std::fs::read_dir(path).map_err(|e| Error::file(path, e))?;
        let mut files: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|e| e == "safetensors"));
        files.sort();
        if files.is_empty() {
            return Err(Error::file(
                path,
                "expected safetensors: no file in this folder ends in .safetensors",
            ));
        }
        return Ok(files);
    }
    if path.to_string_lossy().ends_with(".index.json") {
        return of_index(path);
    }
    Ok(vec![path.into()])
}

fn of_index(path: &Path) -> Result<Vec<PathBuf>> {
    let blame = |why: String| Error::file(path, format_args!("expected the index of a checkpoint: {why}"));
    let index: Index = serde_json::from_slice(&input::read(path)?).map_err(|e| blame(e.to_string()))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    // Files stand beside their index.
    let plain = |name: &str| name != "-" && Path::new(name).file_name().is_some_and(|file| file == name);
    if names.is_empty() {
        return Err(blame("it names no file".into()));
    }
    if let Some(name) = names.iter().find(|name| !plain(name)) {
        return Err(blame(format!("{name:?} is not the name of a file beside it")));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Each tensor of a file, in the order of names: what it is, to `weight`, or why it is none, to `skip`.
pub fn each(
    file: &SafeTensors<'_>,
    wanted: &Wanted<'_>,
    mut weight: impl FnMut(Weight) -> Result<()>,
    mut skip: impl FnMut(&str, String),
) -> Result<()> {
    let mut names = file.names();
    names.sort_unstable();
    for name in names {
        let Ok(tensor) = file.tensor(name) else { continue };
        if let Some(why) = refuse(file, name, &tensor, wanted) {
            skip(name, why);
            continue;
        }
        let values = match values(file, name, &tensor, wanted.transpose) {
            Ok(values) => values,
            Err(why) => {
                skip(name, why);
                continue;
            }
        };
        let (rows, cols) = match *tensor.shape() {
            [rows, cols] | [_, rows, cols] => (rows, cols),
            _ => continue,
        };
        if values.is_empty() {
            skip(name, "empty".into());
            continue;
        }
        let dtype = format!("{:?}", tensor.dtype());
        let (out, input) = if wanted.transpose { (cols, rows) } else { (rows, cols) };
        let one = |name: String, values: Vec<f32>| {
            let values = if wanted.transpose { transposed(&values, cols) } else { values };
            Weight { name, dtype: dtype.clone(), out, input, values }
        };
        if tensor.shape().len() == 2 {
            weight(one(name.into(), values))?;
            continue;
        }
        for (i, values) in values.chunks(rows * cols).enumerate() {
            weight(one(format!("{name}[{i}]"), values.to_vec()))?;
        }
    }
    Ok(())
}

/// What the names of tensors end in that belong to another, and what they are.
const COMPANIONS: [(&str, &str); 6] = [
    ("_scale", "the scale"),
    (".scale", "the scale"),
    ("_scale_inv", "the scale"),
    ("_zero_point", "the zero point"),
    (".zero_point", "the zero point"),
    ("_zeros", "the zero point"),
];

/// The fewest rows and columns of a matrix in a stack: kernels of convolutions are smaller, experts are not.
const EXPERT: usize = 8;

/// Why a tensor is no weight of linear layers by its name and shape, where it is none.
fn refuse(
    file: &SafeTensors<'_>,
    name: &str,
    tensor: &TensorView<'_>,
    wanted: &Wanted<'_>,
) -> Option<String> {
    for (end, what) in COMPANIONS {
        if let Some(of) = name.strip_suffix(end).filter(|of| file.tensor(of).is_ok()) {
            return Some(format!("{what} of {of}"));
        }
    }
    let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
    if !wanted.include.is_empty() && !any(wanted.include) || any(wanted.exclude) {
        return Some("not asked for".into());
    }
    let embedding =
        || (is_embedding(name) && !wanted.embeddings).then(|| "an embedding; --all takes it".into());
    match *tensor.shape() {
        [_, _] => embedding(),
        [_, rows, cols] if rows.min(cols) < EXPERT => {
            Some(format!("a stack of {rows} x {cols}: too small for experts"))
        }
        [_, _, _] => embedding(),
        [_] => Some("1 dimension".into()),
        ref more => Some(format!("{} dimensions", more.len())),
    }
}

/// Whether names of this kind are those of tables that are looked up. What projects, such as patches of an image or
/// embeddings to another width, is a layer.
fn is_embedding(name: &str) -> bool {
    let name = name.to_lowercase();
    let mut parts = name.split('.');
    let table = |part: &str| part.contains("embed") || ["wte", "wpe", "shared"].contains(&part);
    !name.contains("proj") && parts.any(table)
}

/// The numbers of a tensor, times their scales where these are beside it; or why they cannot be had. Scales are of output features,
/// which are columns of weights that are `transposed`.
fn values(
    file: &SafeTensors<'_>,
    name: &str,
    tensor: &TensorView<'_>,
    transposed: bool,
) -> std::result::Result<Vec<f32>, String> {
    let beside = |what: &str| {
        let ends = COMPANIONS.iter().filter(|(_, of)| *of == what);
        ends.map(|(end, _)| format!("{name}{end}")).find_map(|name| file.tensor(&name).ok())
    };
    if beside("the zero point").is_some() {
        return Err("zero points are not read".into());
    }
    let scale = match beside("the scale") {
        None => None,
        Some(scale) => match vector_of(&scale) {
            Some(scale) => Some(scale),
            None => return Err(format!("scales of {:?} {:?} are not read", scale.dtype(), scale.shape())),
        },
    };
    let of_bytes = || tensor.data().iter().map(|&byte| f32::from(byte as i8)).collect();
    let mut values: Vec<f32> = match (floats(tensor), tensor.dtype(), &scale) {
        (Some(values), ..) => values,
        (None, Dtype::I8, Some(_)) => of_bytes(),
        (None, Dtype::I8, None) => return Err(format!("I8 without scales ({name}_scale)")),
        (None, dtype, _) => return Err(format!("{dtype:?}, not F64, F32, F16, BF16, F8 or I8")),
    };
    let cols = tensor.shape().last().copied().unwrap_or(1).max(1);
    if let Some(scale) = scale {
        let rows = tensor.shape().iter().rev().skip(1).product::<usize>();
        let outputs = if transposed { cols } else { rows };
        if scale.len() != 1 && scale.len() != outputs {
            return Err(format!("{} scales for {outputs} output features", scale.len()));
        }
        for (i, v) in values.iter_mut().enumerate() {
            let output = if transposed { i % cols } else { i / cols };
            *v *= scale[if scale.len() == 1 { 0 } else { output }];
        }
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values),
        Some(at) => Err(format!("{:?} as f32 in row {}, column {}", values[at], at / cols, at % cols)),
    }
}

/// A matrix of so many columns, turned.
fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| values.iter().skip(c).step_by(cols)).copied().collect()
}

//! A model: the tensors of an encoder in f32, by name, and what a text is turned into a vector by.

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::names::LinearId;
use crate::pooling::Pooling;
use crate::source::{Source, Tensors};
use crate::weights::blocks_of;
use siskin::MatRef;
use siskin::sparse::{BlockShape, Norm, prune};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model of the BERT family, with its weights in f32.
///
/// Weights can be read and replaced, by pruning for instance; [`Model::save`] writes a checkpoint again. An
/// [`Encoder`](crate::Encoder) is built from it, and needs it no longer then.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) config: Config,
    /// By the names of [`Config::tensors`]: all of them, of the right sizes.
    pub(crate) tensors: BTreeMap<String, Arc<Vec<f32>>>,
    /// What a checkpoint holds beside them: it is written again as it came.
    pub(crate) others: Vec<Other>,
    /// What was in front of the names of the checkpoint.
    pub(crate) prefix: &'static str,
    pub(crate) pooling: Pooling,
    /// The folder that it was read from.
    pub(crate) source: Option<PathBuf>,
}

/// A tensor that the encoder does not use, such as those of a pooler.
#[derive(Debug, Clone)]
pub(crate) struct Other {
    pub name: String,
    pub dtype: safetensors::Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

impl Model {
    /// Reads a folder, as [`Checkpoint::open`] says.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and [`Error::Tensor`] if a tensor holds what is not finite.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        Checkpoint::open(dir)?.model()
    }

    /// A model of random weights: for measurements of speed, and for tests. Inputs of linear layers keep about the variance 1.
    ///
    /// # Errors
    /// [`Error::Config`] if the sizes do not go together.
    pub fn generated(config: Config, seed: u64) -> Result<Self> {
        config.check()?;
        let mut random = Random(seed);
        let mut tensors = BTreeMap::new();
        for (name, shape) in config.tensors() {
            let len = shape.iter().product();
            // A norm's weights are about 1, and biases small, but none is what an implementation could forget.
            let (center, reach) = match shape[..] {
                [_, k] if !name.starts_with("embeddings.") => (0.0, (3.0 / k as f32).sqrt()),
                [_, _] => (0.0, 1.0),
                _ if name.ends_with(".weight") => (1.0, 0.2),
                // Unconditional gates.
                _ if name.ends_with(".alpha") => (0.0, 2.0),
                _ => (0.0, 0.1),
            };
            let data: Vec<f32> = (0..len).map(|_| center + reach * random.next()).collect();
            tensors.insert(name, Arc::new(data));
        }
        Ok(Self {
            config,
            tensors,
            others: Vec::new(),
            prefix: "",
            pooling: Pooling::default(),
            source: None,
        })
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How the vectors of its tokens become one.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// With another pooling than its folder says.
    #[must_use]
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = pooling;
        self
    }

    /// The folder that it was read from, if it was.
    pub fn folder(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// A tensor by its name, with or without the prefix of the model, row by row.
    ///
    /// # Errors
    /// [`Error::Tensor`] if an encoder has none of that name.
    pub fn tensor(&self, name: &str) -> Result<&[f32]> {
        Ok(self.shared(name)?)
    }

    fn shared(&self, name: &str) -> Result<&Arc<Vec<f32>>> {
        let name = name.strip_prefix(self.config.prefix()).unwrap_or(name);
        self.tensors
            .get(name)
            .ok_or_else(|| Error::tensor(name, "a tensor of the encoder", "an unknown name"))
    }

    /// The weight of a linear layer, `[out_features, in_features]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the model has no such layer.
    pub fn weight(&self, id: LinearId) -> Result<MatRef<'_, f32>> {
        let (n, k) = self.config.linear_shape(id.part);
        Ok(MatRef::new(self.tensor(&format!("{}.weight", self.config.linear_name(id)))?, n, k)?)
    }

    /// The bias of a linear layer, `[out_features]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the model has no such layer.
    pub fn bias(&self, id: LinearId) -> Result<&[f32]> {
        self.tensor(&format!("{}.bias", self.config.linear_name(id)))
    }

    /// Replaces the weight of a linear layer, `[out_features, in_features]`, row by row.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the model has no such layer, the length is another, or a number is NaN or infinite.
    pub fn set_weight(&mut self, id: LinearId, weight: Vec<f32>) -> Result<()> {
        self.set(&format!("{}.weight", self.config.linear_name(id)), weight)
    }

    /// Replaces the bias of a linear layer, `[out_features]`.
    ///
    /// # Errors
    /// As [`Model::set_weight`].
    pub fn set_bias(&mut self, id: LinearId, bias: Vec<f32>) -> Result<()> {
        self.set(&format!("{}.bias", self.config.linear_name(id)), bias)
    }

    fn set(&mut self, name: &str, data: Vec<f32>) -> Result<()> {
        let len = self.tensor(name)?.len();
        if data.len() != len {
            return Err(Error::tensor(name, format_args!("{len} numbers"), data.len()));
        }
        check_finite(name, &data)?;
        self.tensors.insert(name.to_string(), Arc::new(data));
        Ok(())
    }

    /// Prunes linear layers by magnitude: of each, the lightest blocks become 0. An encoder finds the zeros and leaves them out.
    ///
    /// Pruning so without training destroys most models: it is for measurements of speed.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the model has no such layer, [`Error::Kernel`] if a sparsity is not in 0 to below 1.
    pub fn prune(&mut self, pruning: &Pruning) -> Result<()> {
        for (&id, &(block, sparsity)) in &pruning.layers {
            let pruned = prune::magnitude(self.weight(id)?, block, sparsity, Norm::L2)?;
            self.set_weight(id, pruned.to_dense()?)?;
        }
        Ok(())
    }

    /// The part of the weights of all linear layers that is 0, from 0 to 1.
    pub fn sparsity(&self) -> f64 {
        let (mut zeros, mut all) = (0usize, 0usize);
        for weight in self.config.linear_layers().filter_map(|id| self.weight(id).ok()) {
            zeros += weight.iter_rows().flatten().filter(|&&w| w == 0.0).count();
            all += weight.rows() * weight.cols();
        }
        zeros as f64 / all.max(1) as f64
    }

    /// The largest blocks that the zeros of its linear layers lie in, of those that an encoder looks for. None where it is not pruned, or
    /// layers have different ones.
    pub fn block_shape(&self) -> Option<BlockShape> {
        let weights = self.config.linear_layers().filter_map(|id| self.weight(id).ok());
        let mut blocks = weights.filter_map(|weight| Some(blocks_of(weight)?.0));
        let first = blocks.next()?;
        blocks.all(|block| block == first).then_some(first)
    }
}

impl Source for Model {
    fn config(&self) -> &Config {
        &self.config
    }

    fn pooling(&self) -> Pooling {
        self.pooling
    }
}

impl Tensors for Model {
    fn read(&self, name: &str) -> Result<Arc<Vec<f32>>> {
        self.shared(name).cloned()
    }
}

/// Which linear layers are pruned, in which blocks, and how far.
#[derive(Debug, Clone, Default)]
pub struct Pruning {
    layers: BTreeMap<LinearId, (BlockShape, f64)>,
}

impl Pruning {
    /// Nothing is pruned.
    pub fn new() -> Self {
        Self::default()
    }

    /// All linear layers alike: a sparsity of 0.8 leaves a fifth of the blocks of each.
    pub fn uniform(config: &Config, block: BlockShape, sparsity: f64) -> Self {
        Self { layers: config.linear_layers().map(|id| (id, (block, sparsity))).collect() }
    }

    /// This layer so.
    #[must_use]
    pub fn layer(mut self, id: LinearId, block: BlockShape, sparsity: f64) -> Self {
        self.layers.insert(id, (block, sparsity));
        self
    }
}

pub(crate) fn check_finite(name: &str, data: &[f32]) -> Result<()> {
    // All at once, which is several times as fast as one by one.
    if data.iter().fold(true, |all, v| all & v.is_finite()) {
        return Ok(());
    }
    let at = data.iter().position(|v| !v.is_finite()).unwrap_or_default();
    Err(Error::tensor(name, "finite numbers", format_args!("{:?} at position {at}", data[at])))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// From -1 to below 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

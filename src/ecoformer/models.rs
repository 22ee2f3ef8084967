//! The models of EcoFormer's tables, as data: what their attention layers are, and what the rest of them costs.

use super::energy::{self, Counts, Layer};

/// How the layers of a model's first three stages attend. The fourth, of 49 tokens, keeps its softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Softmax attention over all tokens.
    Softmax,
    /// EcoFormer's, where queries and keys share one projection.
    EcoFormer {
        /// Of a code.
        bits: u32,
        /// Of the kernel.
        anchors: u32,
    },
}

impl Attention {
    /// That of all the published models.
    pub const PUBLISHED: Self = Self::EcoFormer { bits: 16, anchors: 25 };
}

/// Layers of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Of the image, the side of a token in pixels.
    pub patch: u32,
    /// Heads.
    pub heads: u32,
    /// Features of all heads together.
    pub dim: u32,
    /// Layers.
    pub depth: u32,
    /// Features of the feed-forward network, in units of `dim`.
    pub mlp_ratio: u32,
}

impl Stage {
    /// Of an image of [`Model::IMAGE`] pixels.
    pub fn tokens(&self) -> u32 {
        (Model::IMAGE / self.patch).pow(2)
    }

    /// Its attention layers' shape.
    pub fn layer(&self) -> Layer {
        let [tokens, heads, head_dim] =
            [self.tokens(), self.heads, self.dim / self.heads].map(|size| size as usize);
        Layer::new(tokens, heads, head_dim).expect("published sizes are small")
    }
}

/// What differs between the families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Overlapping patches, a depthwise convolution in each feed-forward network, a layer norm at the end of each
    /// stage.
    PvtV2,
    /// Patches side by side, a depthwise convolution for the positions of each stage, a layer norm at the very end.
    TwinsSvt,
}

/// A vision transformer of four stages that classifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// As in the paper, in small letters.
    pub name: &'static str,
    /// From the largest number of tokens to the smallest.
    pub stages: [Stage; 4],
    family: Family,
}

const fn pvt_v2(name: &'static str, dims: [u32; 4], depths: [u32; 4]) -> Model {
    Model { name, stages: stages(dims, [1, 2, 5, 8], depths, [8, 8, 4, 4]), family: Family::PvtV2 }
}

/// Heads of 32 features; each stage twice as wide as the one before.
const fn twins_svt(name: &'static str, dim: u32, depths: [u32; 4]) -> Model {
    let (dims, h) = ([dim, 2 * dim, 4 * dim, 8 * dim], dim / 32);
    Model { name, stages: stages(dims, [h, 2 * h, 4 * h, 8 * h], depths, [4; 4]), family: Family::TwinsSvt }
}

const fn stages(dims: [u32; 4], heads: [u32; 4], depths: [u32; 4], ratios: [u32; 4]) -> [Stage; 4] {
    let mut stages = [Stage { patch: 0, heads: 0, dim: 0, depth: 0, mlp_ratio: 0 }; 4];
    let mut i = 0;
    while i < 4 {
        stages[i] =
            Stage { patch: 4 << i, heads: heads[i], dim: dims[i], depth: depths[i], mlp_ratio: ratios[i] };
        i += 1;
    }
    stages
}

impl Model {
    /// Those of EcoFormer's code.
    pub const ALL: [Model; 8] = [
        pvt_v2("pvtv2-b0", [32, 64, 160, 256], [2, 2, 2, 2]),
        pvt_v2("pvtv2-b1", [64, 128, 320, 512], [2, 2, 2, 2]),
        pvt_v2("pvtv2-b2", [64, 128, 320, 512], [3, 4, 6, 3]),
        pvt_v2("pvtv2-b3", [64, 128, 320, 512], [3, 4, 18, 3]),
        pvt_v2("pvtv2-b4", [64, 128, 320, 512], [3, 8, 27, 3]),
        twins_svt("twins-svt-s", 64, [2, 2, 10, 4]),
        twins_svt("twins-svt-b", 96, [2, 2, 18, 2]),
        twins_svt("twins-svt-l", 128, [2, 2, 18, 2]),
    ];

    /// The side of the image in pixels.
    pub const IMAGE: u32 = 224;

    /// Classes told apart.
    const CLASSES: u128 = 1000;

    /// The model of a name.
    pub fn named(name: &str) -> Option<Model> {
        Self::ALL.into_iter().find(|model| model.name == name)
    }

    /// How the layers of stage i attend where those of the first three do as given.
    fn attention_of(i: usize, attention: Attention) -> Attention {
        if i < 3 { attention } else { Attention::Softmax }
    }

    /// Everything outside the attention of [`Model::attention`], as `mmcv` counts it: a product of a convolution or a
    /// linear layer, the bias of a convolution (but not of a linear layer), and two for each number that is
    /// normalized. The authors take each for one multiplication and one addition.
    pub fn outside(&self, attention: Attention) -> u128 {
        let mut count = 0;
        let mut channels = 3;
        for (i, stage) in self.stages.iter().enumerate() {
            let [n, c, ratio, depth] =
                [stage.tokens(), stage.dim, stage.mlp_ratio, stage.depth].map(u128::from);
            // Weights for each output of the patches' convolution, and its bias; 3 x 3 weights and a bias of a
            // depthwise one.
            let kernel: u128 = match (self.family, i) {
                (Family::PvtV2, 0) => 7 * 7,
                (Family::PvtV2, _) => 3 * 3,
                (Family::TwinsSvt, 0) => 4 * 4,
                (Family::TwinsSvt, _) => 2 * 2,
            };
            let depthwise = 3 * 3 + 1;
            let norm = 2 * n * c;
            count += n * c * (channels * kernel + 1) + norm;
            // q, k, v and the output, or q and k in one.
            let projections = match Self::attention_of(i, attention) {
                Attention::Softmax => 4,
                Attention::EcoFormer { .. } => 3,
            };
            let mut block = projections * n * c * c + 2 * n * c * ratio * c + 2 * norm;
            match self.family {
                Family::PvtV2 => {
                    block += n * ratio * c * depthwise;
                    count += norm;
                }
                Family::TwinsSvt => count += n * c * depthwise + if i == 3 { norm } else { 0 },
            }
            count += depth * block;
            channels = c;
        }
        count + channels * Self::CLASSES
    }

    /// The attention of all layers.
    pub fn attention(&self, attention: Attention) -> Counts {
        let of_stage = |(i, stage): (usize, &Stage)| match Self::attention_of(i, attention) {
            Attention::Softmax => energy::softmax(&stage.layer()) * stage.depth,
            Attention::EcoFormer { bits, anchors } => {
                energy::ecoformer(&stage.layer(), bits, anchors) * stage.depth
            }
        };
        self.stages.iter().enumerate().map(of_stage).sum()
    }

    /// The whole model, for one image.
    pub fn counts(&self, attention: Attention) -> Counts {
        let outside = self.outside(attention);
        self.attention(attention) + Counts { multiplications: outside, additions: outside }
    }

    /// What [`energy::uncounted`] says of all layers of EcoFormer's attention: of the first three stages.
    pub fn uncounted(&self, anchors: u32) -> Counts {
        self.stages[..3].iter().map(|stage| energy::uncounted(&stage.layer(), anchors) * stage.depth).sum()
    }
}

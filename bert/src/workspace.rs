//! The memory of calls, and where their time goes.

use crate::norm::NormMemory;
use siskin::linear::PackedActivations;
use siskin::quant::QuantParams;
use siskin::{Element, Scratch};
use std::time::{Duration, Instant};

/// The working memory of calls, owned by the caller. It grows to what the largest call needs; calls that need no more allocate
/// nothing.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) scratch: Scratch,
    /// `[tokens, hidden]`: what goes into a layer, and what comes out.
    pub(crate) x: Memory<f32>,
    /// `[tokens, hidden]`: between attention and the feed-forward network.
    pub(crate) h: Memory<f32>,
    /// `[tokens, 3, hidden]`: queries, keys and values, in the type that attention takes.
    pub(crate) qkv: Memory<f32>,
    pub(crate) qkv_u8: Memory<u8>,
    pub(crate) qkv_i8: Memory<i8>,
    /// `[tokens, hidden]`: what comes out of attention.
    pub(crate) context: Memory<f32>,
    pub(crate) context_u8: Memory<u8>,
    /// `[tokens, heads]`: what contexts are multiplied by.
    pub(crate) gates: Vec<f32>,
    /// Where the texts of a run begin and end.
    pub(crate) ends: Vec<i32>,
    /// What a norm wrote beside the floats.
    pub(crate) norm: NormMemory,
    /// `[tokens, intermediate]`.
    pub(crate) inside: Memory<f32>,
    /// Between the layers of a feed-forward network, where it is packed.
    pub(crate) between: PackedActivations,
    pub(crate) clock: Clock,
}

impl Workspace {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether calls measure their stages from now on. At first they do not, and pay nothing for it.
    pub fn measure_stages(&mut self, on: bool) {
        self.clock.on = on;
    }

    /// The time of each stage, of all calls since the last time this was asked.
    pub fn take_stages(&mut self) -> StageTimes {
        StageTimes { times: std::mem::take(&mut self.clock.times) }
    }
}

/// Memory that begins on a cache line, so that no register of it is on two, and that only grows.
#[derive(Debug, Default)]
pub(crate) struct Memory<T>(Vec<T>);

impl<T: Clone + Default> Memory<T> {
    /// The first `len` elements. What was in them is lost if there were fewer.
    pub fn grown(&mut self, len: usize) -> &mut [T] {
        let enough = len + LINE / size_of::<T>();
        if self.0.len() < enough {
            self.0.resize(enough, T::default());
        }
        self.first_mut(len)
    }

    /// The first `len` elements of those that there are.
    pub fn first(&self, len: usize) -> &[T] {
        &self.0[self.start()..][..len]
    }

    /// As [`Memory::first`].
    pub fn first_mut(&mut self, len: usize) -> &mut [T] {
        let start = self.start();
        &mut self.0[start..][..len]
    }

    fn start(&self) -> usize {
        // Where nothing is known of addresses, the offset is as large as can be.
        self.0.as_ptr().align_offset(LINE).min(LINE / size_of::<T>()).min(self.0.len())
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// The first `len` elements of memory that only grows.
pub(crate) fn grown<T: Clone + Default>(memory: &mut Vec<T>, len: usize) -> &mut [T] {
    if memory.len() < len {
        memory.resize(len, T::default());
    }
    &mut memory[..len]
}

/// As [`grown`], of quantizers, which have no default.
pub(crate) fn grown_params(memory: &mut Vec<QuantParams>, len: usize) -> siskin::Result<&mut [QuantParams]> {
    if memory.len() < len {
        memory.resize(len, QuantParams::new(1.0, 0, Element::I8)?);
    }
    Ok(&mut memory[..len])
}

/// A part of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Embeddings are looked up and added.
    Embed,
    /// Queries, keys and values.
    Qkv,
    /// Attention, and what it quantizes.
    Attention,
    /// The layer after attention, and the residual.
    Output,
    /// The first layer of the feed-forward network, and its activation.
    Up,
    /// The second, and the residual.
    Down,
    /// LayerNorm, and what it quantizes.
    Norm,
    /// From tokens to texts.
    Pool,
}

impl Stage {
    /// All of them, in the order of a call.
    pub const ALL: [Stage; 8] = [
        Stage::Embed,
        Stage::Qkv,
        Stage::Attention,
        Stage::Output,
        Stage::Up,
        Stage::Down,
        Stage::Norm,
        Stage::Pool,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Embed => "embed",
            Stage::Qkv => "qkv",
            Stage::Attention => "attention",
            Stage::Output => "out",
            Stage::Up => "ffn1",
            Stage::Down => "ffn2",
            Stage::Norm => "norm",
            Stage::Pool => "pool",
        }
    }
}

/// How long each stage took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    times: [Duration; 8],
}

impl StageTimes {
    /// Of one stage.
    pub fn of(&self, stage: Stage) -> Duration {
        self.times[stage as usize]
    }

    /// Of all.
    pub fn total(&self) -> Duration {
        self.times.iter().sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Clock {
    on: bool,
    at: Option<Instant>,
    times: [Duration; 8],
}

impl Clock {
    pub fn start(&mut self) {
        if self.on {
            self.at = Some(Instant::now());
        }
    }

    /// The stage ends now.
    pub fn lap(&mut self, stage: Stage) {
        if self.on {
            let now = Instant::now();
            if let Some(at) = self.at.replace(now) {
                self.times[stage as usize] += now - at;
            }
        }
    }
}

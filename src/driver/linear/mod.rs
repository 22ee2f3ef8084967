//! Linear layers: dense ones, block-sparse ones of bytes and of floats; how block-sparse work is shared out; packed weights.

mod bytes;
mod dense;
mod floats;
mod schedule;
pub mod weights;

pub use bytes::sparse;
pub use dense::dense;
pub use floats::sparse_floats;

use crate::base::buffer::Buffer;
use crate::base::ctx::Ctx;
use crate::kernels::byte_table::ThreadState;
use crate::kernels::epilogue::{self, Finish, Sums};
use crate::kernels::pack::{self, Tokens};
use crate::kernels::panel::{Panel, PanelLayout, Shape};
use crate::kernels::parameters;
use crate::kernels::table::Tier;
use weights::BAND;

/// Packs the tokens of a panel; the last argument is for what must be quantized first.
pub type Pack<'a> = dyn Fn(Panel, &mut [u8], &mut [u8]) + Sync + 'a;

/// Where packed x comes from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// It is there, in the layout of the job's shape.
    Packed(&'a [u8]),
    /// It is there, for a dense layer that reads the caller's rows, so many bytes from one to the next.
    Rows(&'a [u8], usize),
    /// It is to be packed.
    Pack(&'a Pack<'a>),
}

/// Where y goes.
#[derive(Clone, Copy)]
pub enum Out {
    /// To rows: element (0, 0), and elements from a row to the next.
    Rows(*mut u8, usize),
    /// To panels of the next layer's x.
    Panels(*mut u8, Shape),
}

// SAFETY: a pointer to the caller's output, borrowed for the call; tasks write disjoint tiles.
unsafe impl Sync for Out {}

/// One call of a layer.
pub struct Job<'a> {
    /// Tokens, features and layout of x.
    pub shape: Shape,
    /// x.
    pub source: Source<'a>,
    /// N.
    pub out_features: usize,
    /// What each output feature starts from, padded to whole bands.
    pub init: &'a [i32],
    /// What happens to the sums.
    pub finish: Finish<'a>,
    /// Where y goes.
    pub out: Out,
    /// Bytes of the rows of a piece, where packing needs room for them.
    pub piece_rows: usize,
    /// The kernels.
    pub tier: &'static Tier,
    /// The end of a tile of sums, integers or floats.
    pub epilogue: epilogue::Run,
}

/// Memory of a call.
pub struct Memory<'a> {
    /// For packed x, where it is to be packed.
    pub x: Option<&'a mut Buffer>,
    /// For tiles.
    pub tiles: &'a mut Buffer,
    /// For rows of x on the way from floats.
    pub rows: &'a mut Buffer,
    /// For rows of y on the way to panels.
    pub y_rows: &'a mut Buffer,
}

/// A thread in the state that a tier's kernels of bytes need, until this is dropped.
struct Held(Option<ThreadState>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            // SAFETY: `Job::hold` set it, in this thread, of a tier that is supported.
            unsafe { (state.release)() }
        }
    }
}

impl Job<'_> {
    /// Puts this thread into the state that the kernels of the call need: for the length of a task.
    fn hold(&self) -> Held {
        let state = if self.shape.layout.is_float() { None } else { self.tier.bytes.state };
        if let Some(state) = state {
            // SAFETY: the tier is supported.
            unsafe { (state.set)() }
        }
        Held(state)
    }

    /// Rows to panels of a layout.
    fn pack_kernel(&self, layout: PanelLayout) -> pack::Run {
        match layout {
            PanelLayout::KMajor4 => self.tier.packing.pack_kmajor4,
            PanelLayout::F32KMajor => self.tier.float.pack_kmajor,
            // Two bfloat16 are moved as one float.
            PanelLayout::Bf16KMajor2 => self.tier.float.pack_kmajor,
            _ => self.tier.packing.pack_kmajor,
        }
    }
}

/// Each of x times two numbers, one after the other.
pub fn scaled(tier: &Tier, x: &[f32], by: f32, fold: f32, to: &mut [f32]) {
    // SAFETY: a layer's tier is supported.
    unsafe { parameters::scaled::pick(tier.isa)(x, by, fold, to) }
}

/// What sums of products start from, given the sums of weights and the zero point of x.
pub fn start(tier: &Tier, sums: &[i32], zero: i32, to: &mut [i32]) {
    // SAFETY: a layer's tier is supported.
    unsafe { parameters::start::pick(tier.isa)(sums, zero, to) }
}

/// All of x, packed if it is not yet.
fn all_packed<'a>(job: &Job<'a>, ctx: &Ctx, memory: Option<&'a mut Buffer>, rows: &mut Buffer) -> &'a [u8] {
    let (pack, memory) = match (job.source, memory) {
        (Source::Packed(x) | Source::Rows(x, _), _) => return x,
        (Source::Pack(pack), Some(memory)) => (pack, memory),
        (Source::Pack(_), None) => return &[],
    };
    memory.grow(job.shape.bytes());
    rows.grow(job.shape.pieces() * job.piece_rows);
    let buffers = [&mut memory.bytes_mut()[..job.shape.bytes()], rows.bytes_mut()];
    let each = [job.shape.piece_bytes(), job.piece_rows];
    ctx.for_each_chunks(job.shape.pieces(), buffers, each, &|i, [bytes, rows]| {
        pack_piece(job.shape, i, pack, bytes, rows);
    });
    memory.bytes()
}

/// Packs piece i into its bytes.
fn pack_piece(shape: Shape, i: usize, pack: &Pack<'_>, bytes: &mut [u8], rows: &mut [u8]) {
    for panel in shape.piece(i) {
        let range = shape.range(panel);
        let start = i * shape.piece_bytes();
        pack(panel, &mut bytes[range.start - start..range.end - start], rows);
    }
}

/// Calls `run` with a job whose output goes to rows, and makes panels of them; or, where `through` is false, with the job, in
/// which at most a token-by-token layout has become plain rows.
fn through_rows(
    job: &Job<'_>,
    through: bool,
    ctx: &Ctx,
    memory: Memory<'_>,
    run: impl FnOnce(&Job<'_>, Memory<'_>),
) {
    let Out::Panels(y, to) = job.out else {
        return run(job, memory);
    };
    if to.layout.is_rows() {
        return run(&Job { out: Out::Rows(y, to.row_elements()), ..*job }, memory);
    }
    if !through {
        return run(job, memory);
    }
    let shape = Shape { layout: to.layout.rows(), ..to };
    let Memory { x, tiles, rows, y_rows } = memory;
    y_rows.grow(shape.bytes());
    let out = Out::Rows(y_rows.bytes_mut().as_mut_ptr(), shape.row_elements());
    run(&Job { out, ..*job }, Memory { x, tiles, rows, y_rows: &mut Buffer::default() });
    rows_to_panels(job, y_rows, to, y, ctx);
}

/// Rows of y to panels of the next layer's x.
fn rows_to_panels(job: &Job<'_>, rows: &mut Buffer, to: Shape, y: *mut u8, ctx: &Ctx) {
    let from = Shape { layout: to.layout.rows(), ..to };
    let stride = from.features_padded();
    if to.layout == PanelLayout::Bf16KMajor2 && to.features % 2 == 1 {
        for token in 0..to.tokens {
            rows.bytes_mut()[token * stride + 2 * to.features..][..2].fill(0);
        }
    }
    let pack = job.pack_kernel(to.layout);
    // SAFETY: y has room for all of `to`, which the caller made; it is borrowed for the call.
    let y = unsafe { std::slice::from_raw_parts_mut(y, to.bytes()) };
    let rows: &Buffer = rows;
    ctx.for_each_chunk(to.pieces(), y, to.piece_bytes(), &|i, bytes| {
        for panel in to.piece(i) {
            let range = to.range(panel);
            let start = i * to.piece_bytes();
            let out = &mut bytes[range.start - start..range.end - start];
            // SAFETY: rows holds every token's row; out is this panel's own.
            unsafe {
                pack(&Tokens {
                    rows: rows.bytes()[panel.token * stride..].as_ptr().cast_mut(),
                    stride,
                    tokens: panel.tokens,
                    features: packed_features(to.layout, to.features),
                    panel: out.as_mut_ptr(),
                    width: panel.width,
                    flip: 0,
                    ahead: std::ptr::null(),
                });
            }
        }
    });
}

/// The tile of a call that some sums belong to.
#[derive(Clone, Copy)]
struct TileOf {
    /// The first token, and how many.
    token: usize,
    tokens: usize,
    /// The first output feature, and how many.
    feature: usize,
    features: usize,
}

/// The epilogue of a tile of one panel of x, and the packing of what comes out of it where y has panels like those of x. `bytes`
/// has room for a tile of 4-byte elements. Sums are `[token][ld]`, or where transposed `[feature][ld]`.
///
/// # Safety
/// As for the epilogue; the output belongs to this call and this tile of it to this task.
unsafe fn finish(
    job: &Job<'_>,
    of: TileOf,
    (sums, ld, transposed): (*const i32, usize, bool),
    bytes: &mut [u8],
) {
    let TileOf { token, tokens, feature, features } = of;
    let sums = Sums {
        sums,
        ld,
        transposed,
        token,
        tokens,
        feature,
        features,
        out: bytes.as_mut_ptr(),
        stride: BAND,
    };
    // SAFETY: as the caller.
    unsafe {
        let (y, to) = match job.out {
            Out::Rows(y, stride) => {
                let out = y.add(job.finish.element.bytes_of(token * stride + feature));
                return (job.epilogue)(&job.finish, &Sums { out, stride, ..sums });
            }
            Out::Panels(y, to) => (y, to),
        };
        let stride = BAND * to.layout.element_bytes();
        (job.epilogue)(&job.finish, &sums);
        // Of a single token the layouts of floats have panels of two widths.
        let own = to.panel_of(token);
        assert!(own.token == token && own.tokens == tokens);
        if features % 2 == 1 && to.layout == PanelLayout::Bf16KMajor2 {
            for t in 0..own.tokens {
                bytes[t * stride + 2 * features..][..2].fill(0);
            }
        }
        job.pack_kernel(to.layout)(&Tokens {
            rows: bytes.as_mut_ptr(),
            stride,
            tokens: own.tokens,
            features: packed_features(to.layout, features),
            panel: y.add(to.range(own).start + feature * own.width * to.layout.element_bytes()),
            width: own.width,
            flip: 0,
            ahead: std::ptr::null(),
        });
    }
}

/// Whether y comes in the panels of x, tails too, so that a tile can be packed when it is done.
fn same_panels(job: &Job<'_>) -> bool {
    match job.out {
        Out::Rows(..) => true,
        Out::Panels(_, Shape { layout, .. }) => {
            let x = job.shape.layout;
            layout.width() == x.width() && layout.is_float() == x.is_float()
        }
    }
}

/// Features in the terms of what packs them: two bfloat16 count as one.
fn packed_features(layout: PanelLayout, features: usize) -> usize {
    match layout {
        PanelLayout::Bf16KMajor2 => features.div_ceil(2),
        _ => features,
    }
}

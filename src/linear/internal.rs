//! Layouts of packed activations by name, for siskin's own tests: users name the layer that comes next.

use super::io::Input;
use super::{InputQuantization, Linear, LinearInput, LinearOutput, PackedActivations};
use crate::base::ctx::Ctx;
use crate::base::error::Result;
use crate::base::params::QuantParams;
use crate::base::scratch::Scratch;

pub use crate::kernels::panel::PanelLayout;

/// The layout that a layer reads.
pub fn input_layout(layer: &Linear) -> PanelLayout {
    layer.input_layout()
}

/// The layout of what is packed.
pub fn layout(packed: &PackedActivations) -> PanelLayout {
    packed.layout()
}

/// An output in any layout.
pub fn packed_in(
    to: &mut PackedActivations,
    params: Option<QuantParams>,
    layout: PanelLayout,
) -> LinearOutput<'_> {
    LinearOutput::packed_in(to, params, layout)
}

/// Packs x in any layout.
///
/// # Errors
/// As [`Linear::pack`].
pub fn pack_in<'a>(
    to: &mut PackedActivations,
    x: impl Into<LinearInput<'a>>,
    (layout, quantization): (PanelLayout, InputQuantization),
    ctx: &Ctx,
    scratch: &mut Scratch,
) -> Result<()> {
    to.pack_in(Input::new(x.into(), layout, quantization)?, layout, ctx, scratch)
}

//! Where the tokens of packed activations lie.

use crate::error::{Error, Result};

/// The layouts of [`PackedActivations`](crate::linear::PackedActivations). Which one a layer reads: [`crate::linear::Linear::input_layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PanelLayout {
    /// Token by token: dense layers.
    Rows,
    /// Feature by feature, in panels of 64 tokens: block-sparse layers whose blocks are not a multiple of 4 wide.
    Lines,
    /// Four features by four, in panels of 64 tokens: block-sparse layers whose blocks are 4, 8, 16 .. wide.
    Quads,
}

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// M.
    pub tokens: usize,
    /// K.
    pub features: usize,
    /// How they lie.
    pub layout: PanelLayout,
}

/// A run of tokens that share a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panel {
    /// The first token.
    pub token: usize,
    /// How many are real.
    pub tokens: usize,
    /// How many there is room for: 64, 16 or 1.
    pub width: usize,
}

impl Shape {
    /// Bytes of one token's features in a panel.
    pub fn features_padded(&self) -> usize {
        match self.layout {
            PanelLayout::Rows => row_stride(self.features),
            PanelLayout::Lines => self.features,
            PanelLayout::Quads => self.features.next_multiple_of(4),
        }
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        let tokens = match self.layout {
            PanelLayout::Rows => self.tokens,
            _ => (0..self.panels()).map(|p| self.panel(p).width).sum(),
        };
        // A kernel may read a whole quad at the end of a row.
        tokens * self.features_padded() + 64
    }

    /// Panels of 64 tokens; what is left over goes into panels of 16 while those are cheaper, and a single token into
    /// one of its own.
    pub fn panels(&self) -> usize {
        let whole = self.tokens / 64;
        whole
            + match self.tokens % 64 {
                0 => 0,
                17..=32 => 2,
                _ => 1,
            }
    }

    /// Panel p.
    pub fn panel(&self, p: usize) -> Panel {
        let whole = self.tokens / 64;
        if p < whole {
            return Panel { token: p * 64, tokens: 64, width: 64 };
        }
        let (token, left) = (whole * 64, self.tokens % 64);
        match left {
            1 => Panel { token, tokens: 1, width: 1 },
            2..=16 => Panel { token, tokens: left, width: 16 },
            17..=32 if p == whole => Panel { token, tokens: 16, width: 16 },
            17..=32 => Panel { token: token + 16, tokens: left - 16, width: 16 },
            _ => Panel { token, tokens: left, width: 64 },
        }
    }

    /// Bytes of 64 tokens: piece i of the bytes holds tokens `64 i ..`, in one panel or two.
    pub fn piece_bytes(&self) -> usize {
        64 * self.features_padded()
    }

    /// The panels of piece i; for rows the piece is taken as one.
    pub fn piece(&self, i: usize) -> impl Iterator<Item = Panel> + use<> {
        let tokens = (self.tokens - i * 64).min(64);
        let rows = Panel { token: i * 64, tokens, width: tokens };
        let this = *self;
        let (panels, rows) = match self.layout {
            PanelLayout::Rows => (0..0, Some(rows)),
            // All pieces but the last are one panel.
            _ if i + 1 < self.pieces() => (i..i + 1, None),
            _ => (i..self.panels(), None),
        };
        panels.map(move |p| this.panel(p)).chain(rows)
    }

    /// How many stretches of 64 tokens there are.
    pub fn pieces(&self) -> usize {
        self.tokens.div_ceil(64)
    }

    /// The bytes of a panel, or of a stretch of rows, in all bytes.
    pub fn range(&self, panel: Panel) -> std::ops::Range<usize> {
        let start = panel.token * self.features_padded();
        start..start + panel.width * self.features_padded()
    }
}

/// Bytes from a token to the next: whole cache lines, an odd number of them, so that rows do not meet in one set of the
/// cache whatever the number of features.
pub fn row_stride(features: usize) -> usize {
    (features.div_ceil(64) | 1) * 64
}

/// Refuses shapes whose padded bytes, sums or floats would not fit the address space.
pub fn check_bytes(tokens: usize, features: usize) -> Result<()> {
    let bytes = features
        .checked_add(256)
        .and_then(|f| f.checked_mul(tokens.checked_add(64)?))
        .and_then(|n| n.checked_mul(8));
    if bytes.is_none_or(|n| n > isize::MAX as usize) {
        return Err(Error::shape(
            "x",
            "tokens * features to fit the address space",
            format_args!("{tokens} x {features}"),
        ));
    }
    Ok(())
}

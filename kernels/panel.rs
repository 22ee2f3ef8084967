//! Layouts of packed activations: where the bytes of x[token][feature] lie.
//!
//! ```text
//! Rows, F32Rows, Bf16Rows    [token][feature], an odd number of cache lines from a token to the next
//! KMajor                     [panel][feature][64 tokens]
//! KMajor4                    [panel][feature / 4][64 tokens][4]       (tokens in the order of `sparse`)
//! F32KMajor                  [panel][feature][32 tokens]
//! Bf16KMajor2                [panel][feature / 2][64 tokens][2]
//! ```
//!
//! What is left over after whole K-major panels goes into a narrower one: see [`Shape::panels`].

use crate::base::element::Element;
use crate::base::error::{Error, Result};

/// The layouts of packed activations. Each layer reads one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PanelLayout {
    /// u8, token by token: for dense layers.
    Rows,
    /// u8, feature by feature, in panels of 64 tokens: for block-sparse layers whose blocks are not a multiple of 4
    /// wide.
    KMajor,
    /// u8, K-major interleaved by 4, in panels of 64 tokens: for block-sparse layers whose blocks are 4, 8, 16 ..
    /// wide.
    KMajor4,
    /// f32, token by token: for dense layers that compute in floats.
    F32Rows,
    /// f32, feature by feature, in panels of 32 tokens: for block-sparse layers that compute in floats.
    F32KMajor,
    /// bfloat16, token by token: for dense bfloat16 layers where the CPU multiplies bfloat16.
    Bf16Rows,
    /// bfloat16, K-major interleaved by 2, in panels of 64 tokens: for block-sparse bfloat16 layers whose blocks are
    /// 2, 4, 6 .. wide, where the CPU multiplies bfloat16.
    Bf16KMajor2,
}

impl PanelLayout {
    /// The type of its elements.
    pub fn element(self) -> Element {
        match self {
            PanelLayout::Rows | PanelLayout::KMajor | PanelLayout::KMajor4 => Element::U8,
            PanelLayout::F32Rows | PanelLayout::F32KMajor => Element::F32,
            PanelLayout::Bf16Rows | PanelLayout::Bf16KMajor2 => Element::Bf16,
        }
    }

    /// Whether its elements are floats.
    pub fn is_float(self) -> bool {
        self.element() != Element::U8
    }

    /// Whether it is token by token.
    pub fn is_rows(self) -> bool {
        matches!(self, PanelLayout::Rows | PanelLayout::F32Rows | PanelLayout::Bf16Rows)
    }

    /// The token-by-token layout of this element type.
    pub fn rows(self) -> PanelLayout {
        match self.element() {
            Element::F32 => PanelLayout::F32Rows,
            Element::Bf16 => PanelLayout::Bf16Rows,
            _ => PanelLayout::Rows,
        }
    }

    /// Input features that are interleaved: so many of a token are adjacent.
    pub fn line_columns(self) -> usize {
        match self {
            PanelLayout::KMajor4 => 4,
            PanelLayout::Bf16Rows | PanelLayout::Bf16KMajor2 => 2,
            _ => 1,
        }
    }

    /// Columns of weights that a sparse kernel takes at a time.
    pub fn slots(self) -> usize {
        match self {
            PanelLayout::KMajor => 4,
            other => other.line_columns(),
        }
    }

    /// Bytes of an element.
    pub fn element_bytes(self) -> usize {
        self.element().bytes_of(1)
    }

    /// Tokens of a whole panel.
    pub fn width(self) -> usize {
        if self.element() == Element::F32 { 32 } else { 64 }
    }
}

/// The shape and layout of packed activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// M, the number of tokens.
    pub tokens: usize,
    /// K, the number of features.
    pub features: usize,
    /// How they are laid out.
    pub layout: PanelLayout,
}

/// A run of tokens that share a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panel {
    /// The first token.
    pub token: usize,
    /// How many tokens there are.
    pub tokens: usize,
    /// How many tokens there is room for: 64, 32, 16, 8, 4 or 1.
    pub width: usize,
}

impl Shape {
    /// Bytes of one token's features in a panel.
    pub fn features_padded(&self) -> usize {
        match self.layout {
            layout if layout.is_rows() => row_stride(self.features * layout.element_bytes()),
            PanelLayout::KMajor => self.features,
            // A multiple of 4 pairs: 8 features of 2 bytes.
            PanelLayout::Bf16KMajor2 => self.features.next_multiple_of(8) * 2,
            layout => self.features.next_multiple_of(4) * layout.element_bytes(),
        }
    }

    /// Elements from the row of a token to the next, in a layout that is token by token.
    pub fn row_elements(&self) -> usize {
        self.features_padded() / self.layout.element_bytes()
    }

    /// Bytes of all packed activations.
    pub fn bytes(&self) -> usize {
        let tokens = match self.layout {
            layout if layout.is_rows() => self.tokens,
            layout => {
                let whole = self.tokens / layout.width();
                whole * layout.width() + (whole..self.panels()).map(|p| self.panel(p).width).sum::<usize>()
            }
        };
        // The 64 bytes at the end let a kernel read whole words of 4 bytes at the end of a row.
        tokens * self.features_padded() + 64
    }

    /// The number of panels: whole ones, then what is left over in narrower ones. Of bytes that is one, of 32, 16, 8, 4 or 1 tokens; of
    /// floats one of 16, 4 or 1; of pairs of bfloat16 one of 16, or two where 17 to 32 are left.
    pub fn panels(&self) -> usize {
        let width = self.layout.width();
        let whole = self.tokens / width;
        whole
            + match self.tokens % width {
                0 => 0,
                17..=32 if self.layout == PanelLayout::Bf16KMajor2 => 2,
                _ => 1,
            }
    }

    /// Panel number p.
    pub fn panel(&self, p: usize) -> Panel {
        let width = self.layout.width();
        let whole = self.tokens / width;
        if p < whole {
            return Panel { token: p * width, tokens: width, width };
        }
        let (token, left) = (whole * width, self.tokens % width);
        let one = |width| Panel { token, tokens: left, width };
        match (self.layout, left) {
            (PanelLayout::Bf16KMajor2, 1..=16) => one(16),
            (PanelLayout::Bf16KMajor2, 17..=32) if p == whole => Panel { token, tokens: 16, width: 16 },
            (PanelLayout::Bf16KMajor2, 17..=32) => Panel { token: token + 16, tokens: left - 16, width: 16 },
            (_, 1) => one(1),
            (_, 2..=4) => one(4),
            (layout, 5..=8) if !layout.is_float() => one(8),
            (_, 2..=16) => one(16),
            (layout, 17..=32) if !layout.is_float() => one(32),
            _ => one(width),
        }
    }

    /// The panel that begins with a token.
    pub fn panel_of(&self, token: usize) -> Panel {
        let p = (token / self.layout.width()).min(self.panels() - 1);
        let panel = self.panel(p);
        if panel.token == token { panel } else { self.panel(p + 1) }
    }

    /// Tokens of a piece: the unit in which packing is shared out, as many tokens as a whole panel has.
    pub fn piece_tokens(&self) -> usize {
        self.layout.width()
    }

    /// Bytes of a piece. Piece i has the bytes of tokens `piece_tokens * i ..`, which are one panel or, at the end,
    /// two.
    pub fn piece_bytes(&self) -> usize {
        self.piece_tokens() * self.features_padded()
    }

    /// The panels of piece i. In a layout that is token by token, a piece is returned as one panel.
    pub fn piece(&self, i: usize) -> impl Iterator<Item = Panel> + use<> {
        let width = self.piece_tokens();
        let tokens = (self.tokens - i * width).min(width);
        let rows = Panel { token: i * width, tokens, width: tokens };
        let this = *self;
        let (panels, rows) = match self.layout {
            layout if layout.is_rows() => (0..0, Some(rows)),
            // All pieces but the last are one panel.
            _ if i + 1 < self.pieces() => (i..i + 1, None),
            _ => (i..self.panels(), None),
        };
        panels.map(move |p| this.panel(p)).chain(rows)
    }

    /// The number of pieces.
    pub fn pieces(&self) -> usize {
        self.tokens.div_ceil(self.piece_tokens())
    }

    /// The range of the bytes of a panel, or of consecutive rows, in all bytes.
    pub fn range(&self, panel: Panel) -> std::ops::Range<usize> {
        let start = panel.token * self.features_padded();
        start..start + panel.width * self.features_padded()
    }
}

/// Bytes from the row of a token of so many bytes to the next: whole cache lines, an odd number of them, so that rows
/// do not fall into one set of the cache, whatever the number of features.
pub fn row_stride(bytes: usize) -> usize {
    (bytes.div_ceil(64) | 1) * 64
}

/// Refuses shapes whose padded bytes, sums or floats would not fit the address space.
pub fn check_bytes(tokens: usize, features: usize) -> Result<()> {
    let bytes = features
        .checked_add(1024)
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

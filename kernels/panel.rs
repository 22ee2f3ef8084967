//! Where the tokens of packed activations lie.

use crate::base::element::Element;
use crate::base::error::{Error, Result};

/// The layouts of packed activations: each layer reads one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PanelLayout {
    /// Token by token: dense layers.
    Rows,
    /// Feature by feature, in panels of 64 tokens: block-sparse layers whose blocks are not a multiple of 4 wide.
    KMajor,
    /// Four features by four, in panels of 64 tokens: block-sparse layers whose blocks are 4, 8, 16 .. wide.
    KMajor4,
    /// f32, token by token: dense layers that compute in floats.
    F32Rows,
    /// f32, feature by feature, in panels of 32 tokens: block-sparse layers that compute in floats.
    F32KMajor,
    /// bfloat16, token by token: dense bfloat16 layers where the CPU multiplies bfloat16.
    Bf16Rows,
    /// bfloat16, two features by two, in panels of 64 tokens: block-sparse bfloat16 layers whose blocks are 2, 4, 6 .. wide, where
    /// the CPU multiplies bfloat16.
    Bf16KMajor2,
}

impl PanelLayout {
    /// What it is made of.
    pub fn element(self) -> Element {
        match self {
            PanelLayout::Rows | PanelLayout::KMajor | PanelLayout::KMajor4 => Element::U8,
            PanelLayout::F32Rows | PanelLayout::F32KMajor => Element::F32,
            PanelLayout::Bf16Rows | PanelLayout::Bf16KMajor2 => Element::Bf16,
        }
    }

    /// Whether it holds floats.
    pub fn is_float(self) -> bool {
        self.element() != Element::U8
    }

    /// Whether it goes token by token.
    pub fn is_rows(self) -> bool {
        matches!(self, PanelLayout::Rows | PanelLayout::F32Rows | PanelLayout::Bf16Rows)
    }

    /// The token-by-token layout of the same element.
    pub fn rows(self) -> PanelLayout {
        match self.element() {
            Element::F32 => PanelLayout::F32Rows,
            Element::Bf16 => PanelLayout::Bf16Rows,
            _ => PanelLayout::Rows,
        }
    }

    /// Features that share 4 bytes of a token, or a line of bytes.
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
    /// How many there is room for: 64, 32, 16 or 1.
    pub width: usize,
}

impl Shape {
    /// Bytes of one token's features in a panel.
    pub fn features_padded(&self) -> usize {
        match self.layout {
            layout if layout.is_rows() => row_stride(self.features * layout.element_bytes()),
            PanelLayout::KMajor => self.features,
            // Whole quads of columns, and of lines.
            PanelLayout::Bf16KMajor2 => self.features.next_multiple_of(8) * 2,
            layout => self.features.next_multiple_of(4) * layout.element_bytes(),
        }
    }

    /// Elements from a token's row to the next, in a layout that goes token by token.
    pub fn row_elements(&self) -> usize {
        self.features_padded() / self.layout.element_bytes()
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        let tokens = match self.layout {
            layout if layout.is_rows() => self.tokens,
            layout => {
                let whole = self.tokens / layout.width();
                whole * layout.width() + (whole..self.panels()).map(|p| self.panel(p).width).sum::<usize>()
            }
        };
        // A kernel may read a whole quad at the end of a row.
        tokens * self.features_padded() + 64
    }

    /// Whole panels; what is left over goes into panels of 16 tokens while those are cheaper, and a single token
    /// (not of pairs) into one of its own.
    pub fn panels(&self) -> usize {
        let width = self.layout.width();
        let whole = self.tokens / width;
        whole
            + match self.tokens % width {
                0 => 0,
                17..=32 if width == 64 => 2,
                _ => 1,
            }
    }

    /// Panel p.
    pub fn panel(&self, p: usize) -> Panel {
        let width = self.layout.width();
        let whole = self.tokens / width;
        if p < whole {
            return Panel { token: p * width, tokens: width, width };
        }
        let (token, left) = (whole * width, self.tokens % width);
        match left {
            1 if self.layout != PanelLayout::Bf16KMajor2 => Panel { token, tokens: 1, width: 1 },
            1..=16 => Panel { token, tokens: left, width: 16 },
            17..=32 if width == 64 && p == whole => Panel { token, tokens: 16, width: 16 },
            17..=32 if width == 64 => Panel { token: token + 16, tokens: left - 16, width: 16 },
            _ => Panel { token, tokens: left, width },
        }
    }

    /// The panel that begins with a token.
    pub fn panel_of(&self, token: usize) -> Panel {
        let p = (token / self.layout.width()).min(self.panels() - 1);
        let panel = self.panel(p);
        if panel.token == token { panel } else { self.panel(p + 1) }
    }

    /// Tokens of a piece.
    pub fn piece_tokens(&self) -> usize {
        self.layout.width()
    }

    /// Bytes of a piece: piece i of the bytes holds tokens `piece_tokens * i ..`, in one panel or two.
    pub fn piece_bytes(&self) -> usize {
        self.piece_tokens() * self.features_padded()
    }

    /// The panels of piece i; for rows the piece is taken as one.
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

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.tokens.div_ceil(self.piece_tokens())
    }

    /// The bytes of a panel, or of a stretch of rows, in all bytes.
    pub fn range(&self, panel: Panel) -> std::ops::Range<usize> {
        let start = panel.token * self.features_padded();
        start..start + panel.width * self.features_padded()
    }
}

/// Bytes from a token of so many bytes to the next: whole cache lines, an odd number of them, so that rows do not meet in one
/// set of the cache whatever the number of features.
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

//! How attention differs from BERT's: the clipped softmax and the gates of Quantizable Transformers (Bondarenko, Nagel, Blankevoort, 2023).
//!
//! Their program takes both as flags and stores them nowhere. Here they are fields of `config.json`, called as the flags are; tensors
//! of gates are called as its modules are.

use crate::config::{Config, Fields};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use siskin::attention::{Clipped, Softmax};

/// What each head's context is multiplied by, so that a head can do nothing: `sigmoid(logit)`.
///
/// The logit is of the input of the attention block. See [`siskin::attention::Gate`] for the formulas.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Gating {
    /// How the logit is computed.
    pub form: GateForm,
    /// Whether the logits of all tokens of a text are averaged, for one gate for a head in a text: `conditional_per_head`.
    pub pooled: bool,
    /// What gates were when training began, of a model that was trained without them before: they are divided by it.
    pub fine_tuned: Option<f32>,
}

/// How the logit of a gate is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GateForm {
    /// A number for each head, whatever the input.
    Unconditional,
    /// Linearly, of the head's own features.
    Linear,
    /// Of the head's own features, by a hidden layer of a quarter as many.
    Mlp,
    /// Of the head's own features, by a hidden layer of as many.
    Mlp2,
    /// Linearly, of all features.
    AllFeatures,
}

impl Gating {
    /// Gates of this form, one for each token and head.
    pub fn new(form: GateForm) -> Self {
        Self { form, pooled: false, fine_tuned: None }
    }

    /// One gate for a head in a text.
    #[must_use]
    pub fn pooled(self) -> Self {
        Self { pooled: true, ..self }
    }

    /// Gates that began as `initial` and are divided by it.
    #[must_use]
    pub fn fine_tuned(self, initial: f32) -> Self {
        Self { fine_tuned: Some(initial), ..self }
    }

    /// Hidden features of its form, if it has a hidden layer.
    pub(crate) fn hidden(&self, head_size: usize) -> Option<usize> {
        match self.form {
            GateForm::Mlp => Some(head_size / 4),
            GateForm::Mlp2 => Some(head_size),
            _ => None,
        }
    }

    /// The fields that say so.
    fn to_json(self) -> Map<String, Value> {
        let kind = match (self.form, self.pooled) {
            (GateForm::Unconditional, _) => UNCONDITIONAL,
            (_, true) => PER_HEAD,
            (_, false) => PER_TOKEN,
        };
        let mut fields = Map::from_iter([(TYPE.to_string(), json!(kind))]);
        if let Some(&(flag, _)) = FLAGS.iter().find(|(_, form)| *form == self.form) {
            fields.insert(flag.into(), json!(true));
        }
        if let Some(initial) = self.fine_tuned {
            fields.insert(INITIAL.into(), json!(shortest(initial)));
            fields.insert(FINE_TUNING.into(), json!(true));
        }
        fields
    }

    fn from_json(fields: &Fields<'_>) -> Result<Option<Self>> {
        let kind = fields.text(TYPE)?.unwrap_or(NONE);
        if kind == NONE {
            return Ok(None);
        }
        if ![UNCONDITIONAL, PER_HEAD, PER_TOKEN].contains(&kind) {
            let expected = format_args!("{NONE}, {UNCONDITIONAL}, {PER_HEAD} or {PER_TOKEN}");
            return Err(Error::config(TYPE, expected, kind));
        }
        let mut gating = Self::new(match kind {
            UNCONDITIONAL => GateForm::Unconditional,
            _ => GateForm::Linear,
        });
        for (flag, form) in FLAGS {
            if !fields.flag(flag)? {
                continue;
            }
            if gating.form != GateForm::Linear {
                return Err(Error::config(flag, "false, beside what else is said of gates", true));
            }
            gating.form = form;
        }
        gating.pooled = kind == PER_HEAD;
        // The original leaves unconditional gates as they are.
        if gating.form != GateForm::Unconditional && fields.flag(FINE_TUNING)? {
            let initial = fields.number(INITIAL)?;
            let initial = initial.ok_or_else(|| {
                Error::config(INITIAL, format_args!("a number, beside {FINE_TUNING}"), "nothing")
            })?;
            gating.fine_tuned = Some(initial);
        }
        Ok(Some(gating))
    }

    fn check(&self, config: &Config) -> Result<()> {
        if self.pooled && !matches!(self.form, GateForm::Linear | GateForm::Mlp | GateForm::Mlp2) {
            // The original takes the flag, and computes one gate for each token all the same.
            let got = format_args!("{PER_HEAD}, with {:?}", self.form);
            return Err(Error::config(
                TYPE,
                format_args!("{PER_TOKEN}, or gates of a head's own features"),
                got,
            ));
        }
        if self.hidden(config.head_size()) == Some(0) {
            let expected = format_args!("heads of at least 4 features for {}", FLAGS[0].0);
            return Err(Error::config(TYPE, expected, config.head_size()));
        }
        match self.fine_tuned {
            Some(initial) if !(initial > 0.0 && initial <= 1.0 && (1.0 / initial).is_finite()) => {
                Err(Error::config(INITIAL, "above 0 and at most 1", initial))
            }
            Some(_) if self.form == GateForm::Unconditional => {
                Err(Error::config(FINE_TUNING, "false, of unconditional gates", true))
            }
            _ => Ok(()),
        }
    }
}

const TYPE: &str = "attn_gate_type";
const INITIAL: &str = "attn_gate_init";
const FINE_TUNING: &str = "fine_tuning";
const SOFTMAX: &str = "attn_softmax";
const ALPHA: &str = "alpha";
const LENGTH: &str = "max_seq_length";

/// The types of gates.
const NONE: &str = "none";
const UNCONDITIONAL: &str = "unconditional_per_head";
const PER_HEAD: &str = "conditional_per_head";
const PER_TOKEN: &str = "conditional_per_token";

/// What a field that is true makes of conditional gates.
const FLAGS: [(&str, GateForm); 3] = [
    ("attn_gate_mlp", GateForm::Mlp),
    ("attn_gate_mlp2", GateForm::Mlp2),
    ("attn_gate_linear_all_features", GateForm::AllFeatures),
];

/// The softmax and the gates that the fields of `config.json` ask for.
pub(crate) fn from_json(fields: &Fields<'_>) -> Result<(Softmax, Option<Gating>)> {
    if fields.flag("skip_attn")? {
        return Err(Error::config("skip_attn", "false", true));
    }
    Ok((softmax(fields)?, Gating::from_json(fields)?))
}

/// The fields that ask for them.
pub(crate) fn to_json(config: &Config) -> Map<String, Value> {
    let mut fields = config.gating.map_or_else(Map::new, Gating::to_json);
    if let Softmax::Clipped(clipped) = config.softmax {
        let (gamma, zeta) = (clipped.gamma(), clipped.zeta());
        fields.insert(SOFTMAX.into(), json!(format!("clipped({gamma}:{zeta})")));
    }
    fields
}

/// Whether gates go with the sizes of a model.
pub(crate) fn check(config: &Config) -> Result<()> {
    config.gating.map_or(Ok(()), |gating| gating.check(config))
}

/// `attn_softmax`, or `alpha` and `max_seq_length`.
fn softmax(fields: &Fields<'_>) -> Result<Softmax> {
    let name = fields.text(SOFTMAX)?.unwrap_or("vanilla");
    if let Some(alpha) = fields.number(ALPHA)? {
        if name != "vanilla" {
            return Err(Error::config(SOFTMAX, format_args!("vanilla, beside {ALPHA}"), name));
        }
        let clipped = Clipped::from_alpha(alpha, fields.size(LENGTH)?);
        return Ok(clipped.map_err(|e| Error::config(ALPHA, "a clipped softmax", e))?.into());
    }
    if name == "vanilla" {
        return Ok(Softmax::Standard);
    }
    if name == MISNAMED {
        // What the one who wrote it meant cannot be known.
        let expected =
            "clipped(-0.003:1.005), which the original computes by this name, or clipped(-0.005:1.005)";
        return Err(Error::config(SOFTMAX, expected, name));
    }
    let numbers = name.strip_prefix("clipped(").and_then(|rest| rest.strip_suffix(')')?.split_once(':'));
    let clipped = numbers.and_then(|(gamma, zeta)| Some((gamma.parse().ok()?, zeta.parse().ok()?)));
    let Some((gamma, zeta)) = clipped else {
        let expected = "vanilla, or clipped(gamma:zeta) such as clipped(-0.025:1)";
        return Err(Error::config(SOFTMAX, expected, name));
    };
    let clipped = Clipped::new(gamma, zeta);
    Ok(clipped.map_err(|e| Error::config(SOFTMAX, "a clipped softmax", e))?.into())
}

/// The original's one name that does not say what it computes.
const MISNAMED: &str = "clipped(-.005:1.005)";

/// A number as the shortest decimal that reads back as the same f32.
pub(crate) fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

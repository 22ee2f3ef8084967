//! Pruning a whole encoder, layer by layer.

use super::walk::Walk;
use super::{Error, Hessian, Options, Result, Surgeon, Target, allocate};
use crate::batch::Tokens;
use crate::model::Model;
use crate::names::{LinearId, Part};
use siskin::Ctx;
use std::collections::BTreeMap;

/// How an encoder is pruned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelOptions {
    /// How each linear layer is.
    pub layer: Options,
    /// The part of the blocks of all linear layers together that is removed.
    pub sparsity: f64,
    /// Whether layers are pruned as far as they bear it, none beyond this sparsity ([`allocate`]), and not all alike. What they bear is
    /// measured first, which takes as long again.
    pub most: Option<f64>,
}

/// A linear layer that was pruned just now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Which.
    pub layer: LinearId,
    /// The part of its blocks that was removed.
    pub sparsity: f64,
    /// The mean squared error of its outputs to those of the model before pruning, as a part of their variance: of all layers up to it.
    pub error: f64,
}

/// Prunes all linear layers of an encoder, in the order in which data passes them, with sample texts.
///
/// Inputs of a layer are those of the encoder pruned so far; wanted outputs are those of the encoder before pruning, and where a
/// residual is added, they are what makes the sum right. So each layer corrects errors of those before it, as far as it can. `seen` is told
/// of each layer. In memory are about `tokens * (4 * intermediate + 8 * hidden)` floats.
///
/// # Errors
/// As [`Surgeon::new`] and [`Surgeon::prune`], in [`Error::Layer`] with the layer's name; [`Error::Encoder`] if a token is outside the
/// vocabulary or a text too long.
pub fn prune_model(
    model: &Model,
    texts: Tokens<'_>,
    options: &ModelOptions,
    ctx: &Ctx,
    mut seen: impl FnMut(Step),
) -> Result<Model> {
    let config = model.config();
    let sparsities: BTreeMap<LinearId, f64> = match options.most {
        None => config.linear_layers().map(|id| (id, options.sparsity)).collect(),
        Some(most) => bearable(model, texts, options, most, ctx)?,
    };
    let mut student = model.clone();
    let mut pass = Pass { walk: Walk::new(model, texts, ctx)?, ctx };
    let mut one = |pass: &mut Pass<'_>, student: &mut Model, id, moments: &Hessian, x: &[f32], y: &[f32]| {
        let sparsity = sparsities[&id];
        let error = pass
            .prune(student, id, (moments, x, y), &options.layer, sparsity)
            .map_err(|e| Error::layer(config.linear_name(id), e))?;
        seen(Step { layer: id, sparsity, error });
        Ok::<(), Error>(())
    };

    let mut teacher_x = pass.walk.embed(model)?;
    let mut x = teacher_x.clone();
    for layer in 0..config.num_layers {
        let id = |part| LinearId { layer, part };
        let qkv = [Part::Query, Part::Key, Part::Value].map(id);
        let [attention_norm, output_norm] = config.norm_names(layer);

        let moments = pass.hessian(&x)?;
        let (mut teacher_qkv, mut own_qkv) = (Vec::new(), Vec::new());
        for id in qkv {
            let wanted = pass.walk.linear(model, id, &teacher_x)?;
            one(&mut pass, &mut student, id, &moments, &x, &wanted)?;
            own_qkv.push(pass.walk.linear(&student, id, &x)?);
            teacher_qkv.push(wanted);
        }
        let [q, k, v] = [0, 1, 2].map(|i| &teacher_qkv[i][..]);
        let teacher_context = pass.walk.attend(model, layer, [&teacher_x, q, k, v])?;
        let [q, k, v] = [0, 1, 2].map(|i| &own_qkv[i][..]);
        let context = pass.walk.attend(&student, layer, [&x, q, k, v])?;
        drop((teacher_qkv, own_qkv));

        teacher_x = pass.walk.added(model, id(Part::Output), &teacher_context, &teacher_x)?;
        let moments = pass.hessian(&context)?;
        one(&mut pass, &mut student, id(Part::Output), &moments, &context, &difference(&teacher_x, &x))?;
        x = pass.walk.added(&student, id(Part::Output), &context, &x)?;
        pass.walk.norm(model, &attention_norm, &mut teacher_x)?;
        pass.walk.norm(&student, &attention_norm, &mut x)?;

        let moments = pass.hessian(&x)?;
        let wanted = pass.walk.linear(model, id(Part::Up), &teacher_x)?;
        one(&mut pass, &mut student, id(Part::Up), &moments, &x, &wanted)?;
        drop(wanted);
        let teacher_inside = pass.walk.activated(model, id(Part::Up), &teacher_x)?;
        let inside = pass.walk.activated(&student, id(Part::Up), &x)?;

        teacher_x = pass.walk.added(model, id(Part::Down), &teacher_inside, &teacher_x)?;
        drop(teacher_inside);
        let moments = pass.hessian(&inside)?;
        one(&mut pass, &mut student, id(Part::Down), &moments, &inside, &difference(&teacher_x, &x))?;
        x = pass.walk.added(&student, id(Part::Down), &inside, &x)?;
        pass.walk.norm(model, &output_norm, &mut teacher_x)?;
        pass.walk.norm(&student, &output_norm, &mut x)?;
    }
    Ok(student)
}

/// What is needed on the way through the layers.
struct Pass<'a> {
    walk: Walk<'a>,
    ctx: &'a Ctx,
}

impl Pass<'_> {
    fn hessian(&self, x: &[f32]) -> Result<Hessian> {
        let x = self.walk.matrix(x)?;
        let mut hessian = Hessian::new(x.cols());
        hessian.add(x, self.ctx)?;
        Ok(hessian)
    }

    /// Prunes one layer of inputs x, whose moments are known, and wanted outputs y. Returns the error.
    fn prune(
        &self,
        student: &mut Model,
        id: LinearId,
        (moments, x, y): (&Hessian, &[f32], &[f32]),
        options: &Options,
        sparsity: f64,
    ) -> Result<f64> {
        let (x, y) = (self.walk.matrix(x)?, self.walk.matrix(y)?);
        let mut target = Target::new(y.cols(), x.cols());
        target.add(x, y, self.ctx)?;
        let surgeon = Surgeon::new(student.weight(id)?, student.bias(id)?, moments, Some(&target), options)?;
        let pruned = surgeon.prune(sparsity)?;
        student.set_weight(id, pruned.weights)?;
        student.set_bias(id, pruned.bias)?;
        Ok(pruned.error)
    }
}

/// How sparse each layer is to be, by what pruning it alone would cost.
fn bearable(
    model: &Model,
    texts: Tokens<'_>,
    options: &ModelOptions,
    most: f64,
    ctx: &Ctx,
) -> Result<BTreeMap<LinearId, f64>> {
    // What it refuses is refused before the scan.
    allocate(&[], options.sparsity, most)?;
    let config = model.config();
    let mut pass = Pass { walk: Walk::new(model, texts, ctx)?, ctx };
    let (mut ids, mut curves) = (Vec::new(), Vec::new());
    let mut measure = |pass: &Pass<'_>, part: &[LinearId], x: &[f32]| {
        let moments = pass.hessian(x)?;
        for &id in part {
            let surgeon = Surgeon::new(model.weight(id)?, model.bias(id)?, &moments, None, &options.layer)
                .map_err(|e| Error::layer(config.linear_name(id), e))?;
            ids.push(id);
            curves.push(surgeon.curve());
        }
        Ok::<(), Error>(())
    };
    let mut x = pass.walk.embed(model)?;
    for layer in 0..config.num_layers {
        let id = |part| LinearId { layer, part };
        let qkv = [Part::Query, Part::Key, Part::Value].map(id);
        let [attention_norm, output_norm] = config.norm_names(layer);
        measure(&pass, &qkv, &x)?;
        let [q, k, v] = qkv.map(|id| pass.walk.linear(model, id, &x));
        let context = pass.walk.attend(model, layer, [&x, &q?, &k?, &v?])?;
        measure(&pass, &[id(Part::Output)], &context)?;
        x = pass.walk.added(model, id(Part::Output), &context, &x)?;
        pass.walk.norm(model, &attention_norm, &mut x)?;
        measure(&pass, &[id(Part::Up)], &x)?;
        let inside = pass.walk.activated(model, id(Part::Up), &x)?;
        measure(&pass, &[id(Part::Down)], &inside)?;
        x = pass.walk.added(model, id(Part::Down), &inside, &x)?;
        pass.walk.norm(model, &output_norm, &mut x)?;
    }
    Ok(ids.into_iter().zip(allocate(&curves, options.sparsity, most)?).collect())
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

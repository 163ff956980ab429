//! Quantization without training: every site's quantizer with the scales its start rule finds.

use crate::quantizer::observer::check_scales;
use crate::quantizer::transform::transformed;
use crate::recipe::{Observer, Recipe, Sites, WeightSite};
use crate::target::TargetId;
use crate::{Error, Result};
use half::f16;
use halfstep_formats::architecture::{Architecture, Role, TensorSpec};
use halfstep_formats::description::spec_name;
use halfstep_formats::write::FileFormat;
use halfstep_formats::{LinearParts, LowRank, Model, Quantization, Tensor, TensorData};
use halfstep_kernels::quant::observer::{quantize_by, quantize_pieces};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Granularity, Pool, QuantSpec};
use std::collections::BTreeMap;

/// Values of a matrix that are decoded at once.
const PIECE: usize = 1 << 22;

/// What "RTN" means in a table: the better of these, as whole models, by KL.
pub const RTN_RULES: [Observer; 2] = [Observer::SignedAbsmax, Observer::ErrorSearch];

/// `model` under the recipe's sites, nothing trained. Floats become f32, so that trained and
/// untrained files have equal bytes.
///
/// `each` is asked before every tensor, with the number of those that are done and of all.
///
/// Errors: a missing tensor; weights whose scale is not finite as stored (the tensor is named);
/// those of `each`.
pub(crate) fn quantize_model(
    model: &Model,
    recipe: &Recipe,
    each: &mut dyn FnMut(usize, usize) -> Result<()>,
    pool: &Pool,
) -> Result<Model> {
    let (mut tensors, mut linear_parts) = (BTreeMap::new(), BTreeMap::new());
    let sites = Sites::new(&recipe.rules, &model.architecture)?;
    let specs = model.architecture.tensors();
    let all = specs.len();
    for (done, spec) in specs.into_iter().enumerate() {
        each(done, all)?;
        let tensor = round_tensor(model, &sites, &spec, pool)?;
        if let Some(transform) = sites.of(&spec).and_then(|site| site.transform) {
            linear_parts.insert(spec.name.clone(), transform.first(&spec));
        }
        tensors.insert(spec.name, tensor);
    }
    let mut rounded = model.with(tensors, Some(quantization(recipe, &model.architecture)?));
    rounded.linear_parts = linear_parts;
    Ok(rounded)
}

/// What a result of `recipe` is compared with: rounding to nearest by `start` on the result's grid;
/// where the result has low-rank factors, in groups of a half, a quarter, ... of the result's,
/// whichever come nearest to its size.
pub(crate) fn baseline(recipe: &Recipe, observer: Observer, architecture: &Architecture) -> Recipe {
    recipe.with_weight_sites(|site| WeightSite {
        spec: as_large(site.spec, stored_rank(&site), architecture),
        observer,
        transform: None,
        low_rank: None,
        ..site
    })
}

/// Rank of the factors that are stored in addition to a site's codes.
fn stored_rank(site: &WeightSite) -> usize {
    let stored = site.low_rank.filter(|low_rank| low_rank.position.traits().is_stored);
    stored.map_or(0, |low_rank| low_rank.rank)
}

/// The quantizer in groups so small that it needs what it needs by itself with factors of `rank`
/// beside.
fn as_large(quantizer: QuantSpec, rank: usize, architecture: &Architecture) -> QuantSpec {
    const LEAST: usize = 8;
    let Granularity::Group(group) = quantizer.granularity else { return quantizer };
    let linears = (0..architecture.layers.len()).flat_map(|layer| architecture.linears(layer));
    let shapes: Vec<[usize; 2]> = linears.map(|linear| linear.shape).collect();
    let beside_codes = |q: &QuantSpec| -> usize {
        let zero_points =
            |rows, cols| q.zero_point_shape(rows, cols).map_or(0, |[rows, bytes]| rows * bytes);
        shapes
            .iter()
            .map(|&[rows, cols]| {
                rows * q.granularity.groups(cols) * q.scale.bytes() + zero_points(rows, cols)
            })
            .sum()
    };
    let factors: usize =
        shapes.iter().map(|[rows, cols]| rank * (rows + cols) * size_of::<f16>()).sum();
    let wanted = beside_codes(&quantizer) + factors;
    let groups =
        std::iter::successors(Some(group), |&g| (g % 2 == 0 && g / 2 >= LEAST).then_some(g / 2));
    let quantizers =
        groups.map(|group| QuantSpec { granularity: Granularity::Group(group), ..quantizer });
    quantizers.min_by_key(|q| beside_codes(q).abs_diff(wanted)).unwrap_or(quantizer)
}

/// One tensor under the sites of a recipe.
pub(crate) fn round_tensor(
    model: &Model,
    sites: &Sites,
    spec: &TensorSpec,
    pool: &Pool,
) -> Result<Tensor> {
    let tensor = model.tensors.get(&spec.name);
    let tensor = tensor.ok_or_else(|| {
        Error::Format(halfstep_formats::Error::MissingTensor {
            file: model.name.clone(),
            tensor: spec.name.clone(),
            offset: None,
        })
    })?;
    let data = match sites.of(spec) {
        Some(site) => {
            let packed = round_matrix(tensor, site, spec, pool)?;
            check_scales(&packed, &spec.name)?;
            TensorData::Packed(packed)
        }
        None => TensorData::F32(tensor.to_f32(pool)),
    };
    Ok(Tensor { shape: spec.shape.clone(), data })
}

/// Rounds a matrix; where nothing joins its rows, a piece at a time, since an embedding in f32 can be
/// larger than the whole model as it is stored.
fn round_matrix(
    tensor: &Tensor,
    site: &WeightSite,
    spec: &TensorSpec,
    pool: &Pool,
) -> Result<QuantTensor> {
    let (rows, cols) = (spec.shape[0], spec.shape[1]);
    if let Some(transform) = site.transform {
        let values = transformed(pool, &transform.first(spec), tensor.to_f32(pool), cols)?;
        return Ok(quantize_by(pool, &values, rows, cols, site.spec, site.observer));
    }
    let at_once = (PIECE / cols.max(1)).max(1);
    let mut read = |first: usize, out: &mut [f32]| {
        pool.chunks_mut(out, cols.max(1), |row, out| tensor.read(first + row, 0, out));
    };
    Ok(quantize_pieces(pool, [rows, cols], site.spec, site.observer, at_once, &mut read))
}

/// How a model made by `recipe` is to be run, without the scales of static sites.
///
/// Errors: those of `Recipe::activations`.
pub fn quantization(recipe: &Recipe, architecture: &Architecture) -> Result<Quantization> {
    let alike = Quantization {
        target: recipe.target.name().into(),
        head_activation: recipe.head_activation(),
        ..Quantization::default()
    };
    Ok(alike.with_sites(recipe.activations(architecture)?))
}

/// Refuses what the recipe's groups cannot do to this architecture, naming the tensor.
pub fn check_shapes(architecture: &Architecture, recipe: &Recipe) -> Result<()> {
    let sites = Sites::new(&recipe.rules, architecture)?;
    for spec in architecture.tensors() {
        let quantizer = sites.of(&spec).map(|site| site.spec);
        if let Some(Granularity::Group(n)) = quantizer.map(|q| q.granularity)
            && (n == 0 || !spec.shape[1].is_multiple_of(n))
        {
            if recipe.target.file_format() == FileFormat::Gguf {
                let reason =
                    format!("they do not divide the {} columns of {}", spec.shape[1], spec.name);
                return Err(Error::Target {
                    target: recipe.target.name().into(),
                    grid: format!("blocks of {n}"),
                    reason,
                    targets: TargetId::Halfstep.name().into(),
                });
            }
            let divisors: Vec<String> = [32, 64, 128, 256]
                .iter()
                .filter(|g| spec.shape[1].is_multiple_of(**g))
                .map(usize::to_string)
                .collect();
            let hint = if divisors.is_empty() {
                "0 (one scale per row)".into()
            } else {
                format!("{} or 0 (one scale per row)", divisors.join(", "))
            };
            return Err(Error::config(
                "groupSize",
                format!(
                    "{n} does not divide the {} columns of {}; try {hint}",
                    spec.shape[1], spec.name
                ),
            ));
        }
    }
    let moved = halfstep_formats::write::moved_columns(architecture, recipe.target.file_format());
    for spec in architecture.tensors() {
        let (site, width) = (sites.of(&spec), moved.get(&spec.name));
        let Some((site, &width)) = site.zip(width) else { continue };
        let group = site.spec.granularity.group_size(spec.shape[1]);
        if matches!(site.spec.granularity, Granularity::Group(_)) && !width.is_multiple_of(group) {
            return Err(Error::Target {
                target: recipe.target.name().into(),
                grid: format!("blocks of {group}"),
                reason: format!(
                    "files of this target have the heads of {}, {width} columns each, in another \
                     order, and a block would be of several heads",
                    spec.name
                ),
                targets: TargetId::Halfstep.name().into(),
            });
        }
    }
    for spec in architecture.tensors() {
        let low_rank = sites.of(&spec).and_then(|site| site.low_rank);
        let most = spec.shape.iter().copied().min().unwrap_or(0);
        if let Some(low_rank) = low_rank.filter(|l| l.rank > most) {
            return Err(Error::config(
                "rank",
                format!("{} is more than {} has: at most {most}", low_rank.rank, spec.name),
            ));
        }
    }
    recipe.check_transforms(architecture)?;
    for (layer, site, spec) in recipe.activations(architecture)? {
        let head_dim = architecture.layers[layer].attention().map_or(0, |a| a.head_dim);
        if spec != ActivationSpec::BLOCK_32 {
            continue;
        }
        if !site.is_cache() && !architecture.hidden_size.is_multiple_of(32) {
            return Err(Error::config(
                "target",
                format!(
                    "activations in blocks of 32 do not divide the hidden size {}",
                    architecture.hidden_size
                ),
            ));
        }
        if site.is_cache() && !head_dim.is_multiple_of(32) {
            return Err(Error::config(
                "cache",
                format!("blocks of 32 do not divide the head width {head_dim}"),
            ));
        }
    }
    Ok(())
}

/// Stored bits per weight of the linear layers, scales, low-rank factors and other parts included.
pub fn bits_per_weight(model: &Model) -> f64 {
    let (mut bits, mut weights) = (0.0, 0usize);
    for spec in model.architecture.tensors() {
        if !matches!(spec.role, Role::Linear(_)) {
            continue;
        }
        if let Some(tensor) = model.tensors.get(&spec.name) {
            let factors = model.low_rank.get(&spec.name).map_or(0, LowRank::stored_bytes);
            let parts = model.linear_parts.get(&spec.name).map_or(0, LinearParts::stored_bytes);
            bits += 8.0 * (stored_bytes(tensor) + factors + parts) as f64;
            weights += spec.shape.iter().product::<usize>();
        }
    }
    bits / weights.max(1) as f64
}

/// Bytes of a tensor's values in a file.
pub fn stored_bytes(tensor: &Tensor) -> usize {
    match &tensor.data {
        TensorData::F32(v) => 4 * v.len(),
        TensorData::F16(v) => 2 * v.len(),
        TensorData::BF16(v) => 2 * v.len(),
        TensorData::Packed(p) => p.stored_bytes(),
        TensorData::Blocks { bytes, .. } => bytes.len(),
    }
}

/// What a tensor is stored as: `F32`, `Q4_0`, `int3 per channel`, `ternary per channel`, ...
pub(crate) fn type_name(tensor: &Tensor) -> String {
    match &tensor.data {
        TensorData::F32(_) => "F32".into(),
        TensorData::F16(_) => "F16".into(),
        TensorData::BF16(_) => "BF16".into(),
        TensorData::Blocks { kind, .. } => format!("{kind:?}"),
        TensorData::Packed(p) => spec_name(p.spec),
    }
}

//! What is known of the output before a run that may take hours: that it can be written, and that it
//! takes the place of nothing.

use crate::config::options::RunConfig;
use crate::error::{Error, Result};
use crate::host::Store;
use crate::recipe::{Recipe, Sites};
use halfstep_formats::Model;
use halfstep_kernels::QuantSpec;
use std::path::Path;

/// Errors: `Config`, the output is there already, or is a folder, or the run folder; `Io`, no file
/// can be written next to it.
pub(super) fn check(run: &RunConfig, store: &dyn Store) -> Result<()> {
    let Some(output) = &run.output else { return Ok(()) };
    let path = Path::new(output);
    let refused = |reason: String| Err(Error::config("output", reason));
    if store.is_folder(path) {
        return refused(format!("{output} is a folder; it has to be a file"));
    }
    if let Some(folder) = run.run_folder.as_deref()
        && (output == folder || store.is_same(path, Path::new(folder)))
    {
        return refused(format!("{output} is the folder of the run too; use another name for one"));
    }
    if store.exists(path) && !run.overwrite {
        return refused(format!(
            "{output} is there already; use another name, or allow it by overwrite (--overwrite)"
        ));
    }
    store.probe(path)
}

/// Errors: `Config`, the output is the model at `input`, or lies in its folder, and may not replace
/// anything.
pub(super) fn check_input(run: &RunConfig, input: &Path, store: &dyn Store) -> Result<()> {
    let Some(output) = run.output.as_ref().filter(|_| !run.overwrite) else { return Ok(()) };
    let path = Path::new(output);
    let reason = if store.is_same(path, input) {
        format!(
            "{output} is the model itself, which would be lost; use another name, or allow it by overwrite (--overwrite)"
        )
    } else if store.is_folder(input) && store.is_inside(path, input) {
        format!(
            "{output} lies in the folder of the model, {}, which would then hold two; use another folder, or allow it by overwrite (--overwrite)",
            input.display()
        )
    } else {
        return Ok(());
    };
    Err(Error::config("output", reason))
}

/// Refuses disks without space for the file, and for the finished layers of stages that keep them;
/// a stage of the whole model looks for the space of its checkpoints when it knows their size.
///
/// Errors: `Data`, with the bytes that are free and those that are needed.
pub(super) fn check_space(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    store: &dyn Store,
) -> Result<()> {
    let bytes = estimated_bytes(model, recipe)?;
    let keeps_layers = recipe.stages.iter().any(|stage| stage.by_layers().is_some());
    let layers = run.run_folder.as_deref().filter(|_| keeps_layers && !run.resume);
    let places = [run.output.as_deref(), layers].map(|place| {
        let folder = Path::new(place?);
        Some((place?, store.free(folder.parent().unwrap_or(Path::new("")))?))
    });
    // Two disks with the same number of free bytes are one.
    let together = matches!(places, [Some((_, a)), Some((_, b))] if a == b);
    let needed = if together { 2 * bytes } else { bytes };
    for (place, free) in places.into_iter().flatten() {
        if free < needed {
            let reason = format!(
                "its disk has {free} bytes free, and about {needed} are needed; free some, or write to another disk"
            );
            return Err(Error::Data { data: place.into(), reason });
        }
    }
    Ok(())
}

/// About the size of the result: its weights, without names and vocabulary.
fn estimated_bytes(model: &Model, recipe: &Recipe) -> Result<u64> {
    let sites = Sites::new(&recipe.rules, &model.architecture)?;
    let of = |spec: &halfstep_formats::architecture::TensorSpec| {
        let elements: usize = spec.shape.iter().product();
        match (sites.of(spec), &spec.shape[..]) {
            (Some(site), &[rows, cols]) => packed_bytes(site.spec, rows, cols),
            _ => size_of::<f32>() * elements,
        }
    };
    Ok(model.architecture.tensors().iter().map(|spec| of(spec) as u64).sum())
}

fn packed_bytes(spec: QuantSpec, rows: usize, cols: usize) -> usize {
    let zero_points = spec.zero_point_shape(rows, cols).map_or(0, |[rows, bytes]| rows * bytes);
    let codes = rows * (cols * usize::from(spec.bits())).div_ceil(8);
    codes + spec.granularity.scales(rows, cols) * spec.scale.bytes() + zero_points
}

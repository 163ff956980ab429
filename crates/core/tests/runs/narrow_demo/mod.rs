//! The demo model with a third of the neurons of its MLPs: every layer and linear is there, with
//! half of the weights, and 256 columns everywhere, as the blocks of a ternary file have.

use halfstep::Model;
use halfstep::run::load;
use halfstep_formats::{Tensor, TensorData};
use std::path::Path;
use std::sync::LazyLock;

/// The first neurons of the model in `assets`.
pub static DEMO: LazyLock<Model> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    let demo = load(&path.display().to_string()).expect("the demo model");
    let architecture = demo.architecture.resized(|sizes| sizes.intermediate_size = 256);
    let tensors = architecture.tensors().into_iter().map(|spec| {
        let tensor = &demo.tensors[&spec.name];
        let (rows, cols) = match spec.shape[..] {
            [rows, cols] => (rows, cols),
            _ => (1, tensor.cols()),
        };
        let mut values = vec![0.0; rows * cols];
        values.chunks_mut(cols).enumerate().for_each(|(row, out)| tensor.read(row, 0, out));
        (spec.name, Tensor { shape: spec.shape, data: TensorData::F32(values) })
    });
    Model { tensors: tensors.collect(), architecture, ..Model::clone(&demo) }
});

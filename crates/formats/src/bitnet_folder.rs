//! Linears of BitNet b1.58 in a Hugging Face folder: ternary codes, four in a byte, with one scale for
//! a matrix, or floats that are rounded to them as they are read (Wang et al., arXiv 2310.11453; Ma
//! et al., arXiv 2402.17764). Their inputs have 8 bits for each token.

use crate::architecture::Role;
use crate::architecture::storage::Stored;
use crate::error::{Error, Result};
use crate::json;
use crate::model::{Tensor, TensorData};
use crate::quantization::Quantization;
use crate::safetensors::{Dtype, Info};
use halfstep_kernels::{
    ActivationSpec, Granularity, Int, Pool, QuantSpec, QuantTensor, ScaleCodec,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Codes in a byte.
const PER_BYTE: usize = 4;
/// The least mean magnitude that weights are divided by.
const LEAST_MEAN: f64 = 1e-5;

/// How the weights of a BitNet are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ternary {
    /// Floats; value = scale clip(nearest-even(w / scale), -1, 1), scale = mean|w|.
    Rounded,
    /// Codes; value = code * scale.
    Multiplied,
    /// Codes; value = code / scale.
    Divided,
}

#[derive(Deserialize)]
struct Settings {
    quant_method: String,
    #[serde(default)]
    linear_class: Option<String>,
    #[serde(default)]
    quantization_mode: Option<String>,
    #[serde(default)]
    modules_to_not_convert: Option<Vec<String>>,
    #[serde(default)]
    use_rms_norm: Option<bool>,
}

impl Ternary {
    /// What a config.json says of it; None: the weights are floats, and so are activations.
    ///
    /// Errors: `Unsupported`, a setting that is not computed.
    pub fn of_config(file: &str, config: &[u8]) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            quantization_config: Option<serde_json::Value>,
        }
        let config = json::typed::<Config>(file, config, 0)?.quantization_config;
        let settings = config.and_then(|value| serde_json::from_value::<Settings>(value).ok());
        let Some(settings) = settings.filter(|settings| settings.quant_method == "bitnet") else {
            return Ok(None);
        };
        let refuse = |name: &str, reason: String| {
            let name = format!("quantization_config.{name}");
            Err(Error::Unsupported { file: file.into(), name, reason, offset: None })
        };
        if settings.use_rms_norm == Some(true) {
            return refuse("use_rms_norm", "norms in front of each linear are not computed".into());
        }
        let floats = settings.modules_to_not_convert.unwrap_or_default();
        if let Some(other) = floats.iter().find(|name| *name != "lm_head") {
            let reason =
                format!("{other:?} would stay in float; all linears of layers are ternary");
            return refuse("modules_to_not_convert", reason);
        }
        let class = settings.linear_class.as_deref().unwrap_or("bitlinear");
        match (class, settings.quantization_mode.as_deref().unwrap_or("offline")) {
            ("autobitlinear", "online") => Ok(Some(Self::Rounded)),
            ("autobitlinear", "offline") => Ok(Some(Self::Multiplied)),
            ("bitlinear", _) => Ok(Some(Self::Divided)),
            (class, mode) => refuse(
                "linear_class",
                format!("{class:?} with mode {mode:?} is none of bitlinear and autobitlinear"),
            ),
        }
    }

    /// Whether a tensor of the folder is stored as codes.
    ///
    /// Errors: `Shape`, `MissingTensor` or `Unsupported`, the codes and their scale are not those of
    /// such a matrix.
    pub fn finds(
        self,
        file: &str,
        stored: &Stored,
        places: &BTreeMap<String, (usize, Info)>,
    ) -> Result<bool> {
        let [piece] = &stored.pieces[..] else { return Ok(false) };
        let (Role::Linear(_), &[rows, cols]) = (piece.tensor.role, &stored.shape[..]) else {
            return Ok(false);
        };
        let Some((_, info)) = places.get(&stored.name).filter(|_| self != Self::Rounded) else {
            return Ok(false);
        };
        if info.dtype != Dtype::U8 {
            return Err(Error::Unsupported {
                file: file.into(),
                name: info.dtype.name().into(),
                reason: format!("element type of tensor {:?}; ternary codes are U8", info.name),
                offset: None,
            });
        }
        let name = scale_name(&stored.name);
        let Some((_, scale)) = places.get(&name) else {
            return Err(Error::MissingTensor { file: file.into(), tensor: name, offset: None });
        };
        let wanted = [(info, vec![rows.div_ceil(PER_BYTE), cols]), (scale, vec![1])];
        for (info, expected) in wanted {
            if info.shape != expected || !rows.is_multiple_of(PER_BYTE) {
                let (file, tensor, got) = (file.into(), info.name.clone(), info.shape.clone());
                return Err(Error::Shape { file, tensor, expected, got, offset: None });
            }
        }
        Ok(true)
    }

    /// A matrix `[rows, cols]` of its codes, those of row r in byte row `r % (rows / 4)`, the lowest
    /// bits first, each plus 1.
    ///
    /// Errors: `Unsupported`, a code other than 0, 1 and 2; a scale that is not finite or not above 0.
    pub fn joined(
        self,
        stored: &Stored,
        file: &str,
        bytes: &[u8],
        scale: f32,
    ) -> Result<TensorData> {
        let refuse = |reason: &str| Error::Unsupported {
            file: file.into(),
            name: format!("tensor {}", stored.name),
            reason: reason.into(),
            offset: None,
        };
        let (rows, cols) = (stored.rows(), stored.cols());
        let value = if self == Self::Divided { 1.0 / scale } else { scale };
        if !value.is_finite() || value <= 0.0 {
            return Err(refuse("its scale is no finite number above 0"));
        }
        let mut codes = Vec::with_capacity(rows * cols);
        for quarter in 0..PER_BYTE {
            codes.extend(bytes.iter().map(|byte| i16::from(byte >> (2 * quarter) & 3) - 1));
        }
        if codes.iter().any(|&code| code > 1) {
            return Err(refuse("a code is 3, and ternary ones are 0, 1 and 2"));
        }
        Ok(packed(rows, cols, &codes, value))
    }

    /// Rounds the linears of layers, where they are stored as floats.
    ///
    /// Errors: `Unsupported`, a weight that is not finite.
    pub fn round(self, file: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        if self != Self::Rounded {
            return Ok(());
        }
        let is_linear = |name: &&String| crate::architecture::Linear::parse(name).is_some();
        let names: Vec<String> = tensors.keys().filter(is_linear).cloned().collect();
        for name in names {
            let Some(tensor) = tensors.get_mut(&name) else { continue };
            let values = tensor.to_f32(&Pool::serial());
            let sum: f64 = values.iter().map(|w| f64::from(w.abs())).sum();
            let mean = (sum / values.len().max(1) as f64).max(LEAST_MEAN);
            if !mean.is_finite() {
                let (file, name) = (file.into(), format!("tensor {name}"));
                let reason = "a weight is not finite".into();
                return Err(Error::Unsupported { file, name, reason, offset: None });
            }
            let factor = (1.0 / mean) as f32;
            let code = |w: &f32| (w * factor).round_ties_even().clamp(-1.0, 1.0) as i16;
            let codes: Vec<i16> = values.iter().map(code).collect();
            let (rows, cols) = (tensor.rows(), tensor.cols());
            tensor.data = packed(rows, cols, &codes, 1.0 / factor);
        }
        Ok(())
    }
}

/// Name of the scale of a weight.
pub fn scale_name(weight: &str) -> String {
    format!("{weight}_scale")
}

/// What the inputs of linears go through: keys, values and the head stay in float.
pub fn quantization() -> Quantization {
    let activation = ActivationSpec::token(8);
    Quantization { target: "halfstep".into(), activation, ..Quantization::float() }
}

fn packed(rows: usize, cols: usize, codes: &[i16], scale: f32) -> TensorData {
    let spec = QuantSpec::int(Int::narrow(2), Granularity::Tensor, ScaleCodec::F32);
    TensorData::Packed(QuantTensor::from_codes(spec, rows, cols, codes, vec![scale], vec![]))
}

//! Rotary positions in a config.json: `rope_theta` and `rope_scaling`, or `rope_parameters`, which may
//! be one for all layers or one for each kind of layer.

use super::{Config, MAX_POSITIONS, brief};
use crate::architecture::{LongScaling, Rope, RopeScaling, YarnScaling};
use crate::error::Result;
use halfstep_kernels::math::ln_f64;
use halfstep_kernels::ops::rope::Llama3Scaling;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The kinds of layers that a config has rotations for.
pub(super) const FULL: &str = "full_attention";
pub(super) const SLIDING: &str = "sliding_attention";
/// Keys of the share of a head that turns.
const PARTIAL: [&str; 3] = ["partial_rotary_factor", "rotary_pct", "rope_pct"];

impl Config<'_> {
    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(fields)),
            Some(other) => Err(self.wrong(key, format!("{} is not an object", brief(other)))),
        }
    }

    /// A key of `rope_parameters`, or of `rope_scaling`.
    pub(super) fn rope_value(&self, key: &str) -> Option<&Value> {
        let of = |object: &str| self.get(object)?.get(key).filter(|v| !v.is_null());
        of("rope_parameters").or_else(|| of("rope_scaling"))
    }

    /// The rotation of all layers, or of those without a window, and that of the others if a config
    /// has one for them.
    pub(super) fn ropes(&self, head_dim: usize) -> Result<(Rope, Option<Rope>)> {
        if let Some(parameters) = self.object("rope_parameters")?
            && let Some(full) = parameters.get(FULL).or(parameters.get(SLIDING))
        {
            let of = |fields: &Value| match fields {
                Value::Object(fields) => {
                    let theta = self.positive("rope_theta", fields)?;
                    self.rope("rope_parameters", fields, theta, head_dim)
                }
                other => {
                    let reason = format!("{} is not an object", brief(other));
                    Err(self.wrong("rope_parameters", reason))
                }
            };
            let sliding = parameters.get(SLIDING).map(of).transpose()?;
            return Ok((of(full)?, sliding));
        }
        let local = self.positive("rope_local_base_freq", self.keys)?;
        Ok((self.flat_rope(head_dim)?, local.map(|theta| Rope::plain(theta, head_dim))))
    }

    /// From `rope_theta` + `rope_scaling`, from `rope_parameters`, or from both if they are equal.
    fn flat_rope(&self, head_dim: usize) -> Result<Rope> {
        let mut thetas = vec![self.positive("rope_theta", self.keys)?];
        let objects = ["rope_scaling", "rope_parameters"];
        let mut fields = vec![];
        for key in objects {
            if let Some(of) = self.object(key)? {
                thetas.push(self.positive("rope_theta", of)?);
                fields.push((key, of));
            }
        }
        let thetas: Vec<f64> = thetas.into_iter().flatten().collect();
        if thetas.windows(2).any(|t| t[0] != t[1]) {
            let last = thetas[thetas.len() - 1];
            return Err(self.wrong("rope_theta", format!("given as {} and as {last}", thetas[0])));
        }
        let (theta, none) = (thetas.first().copied(), Map::new());
        if fields.is_empty() {
            fields.push(("rope_scaling", &none));
        }
        let ropes = fields.into_iter().map(|(key, of)| self.rope(key, of, theta, head_dim));
        let ropes = ropes.collect::<Result<Vec<_>>>()?;
        if ropes.windows(2).any(|s| s[0] != s[1]) {
            return Err(self.wrong("rope_scaling", "differs from rope_parameters"));
        }
        Ok(ropes[0].clone())
    }

    /// The rotation that an object describes.
    fn rope(
        &self,
        key: &str,
        fields: &Map<String, Value>,
        theta: Option<f64>,
        head_dim: usize,
    ) -> Result<Rope> {
        let theta = theta.or(self.default("rope_theta")).unwrap_or(10_000.0);
        let scaling = self.scaling(key, fields)?;
        let share = match &scaling {
            Some(RopeScaling::Proportional { .. }) => 1.0,
            _ => self.turned_share(fields)?,
        };
        let turned = (head_dim as f64 * share) as usize;
        if turned == 0 || !turned.is_multiple_of(2) {
            let reason = format!("{share} of heads of {head_dim} are {turned} elements, not pairs");
            return Err(self.wrong(PARTIAL[0], reason));
        }
        if let Some(RopeScaling::Long(long)) = &scaling {
            for (name, factors) in [("short_factor", &long.short), ("long_factor", &long.long)] {
                if factors.len() != turned / 2 {
                    let reason = format!("has {} numbers for {} pairs", factors.len(), turned / 2);
                    return Err(self.wrong(name, reason));
                }
            }
        }
        let rope = Rope { scaling, ..Rope::plain(theta, turned) };
        Ok(rope)
    }

    /// The share of a head that turns.
    fn turned_share(&self, fields: &Map<String, Value>) -> Result<f64> {
        let mut share = self.positive(PARTIAL[0], fields)?;
        for key in PARTIAL {
            share = share.or(self.positive(key, self.keys)?);
        }
        let share = share.or_else(|| self.default(PARTIAL[0])).unwrap_or(1.0);
        if share <= 1.0 {
            return Ok(share);
        }
        Err(self.wrong(PARTIAL[0], format!("{share} is more than 1")))
    }

    fn scaling(&self, key: &str, fields: &Map<String, Value>) -> Result<Option<RopeScaling>> {
        let kinds: Vec<&Value> = ["rope_type", "type"]
            .iter()
            .filter_map(|k| fields.get(*k))
            .filter(|v| !v.is_null())
            .collect();
        if kinds.len() == 2 && kinds[0] != kinds[1] {
            return Err(self.wrong(
                key,
                format!("rope_type {} against type {}", brief(kinds[0]), brief(kinds[1])),
            ));
        }
        let Some(kind) = kinds.first() else { return self.unscaled(key, fields) };
        let Some(kind) = kind.as_str() else {
            return Err(self.wrong(key, "rope_type is not a string"));
        };
        let number = |name: &str| {
            self.positive(name, fields)?
                .ok_or_else(|| self.wrong(key, format!("rope type {kind} needs {name}")))
        };
        Ok(Some(match kind {
            // Positions of images are those of the text where there are none.
            "default" | "mrope" => return self.unscaled(key, fields),
            "linear" => RopeScaling::Linear { factor: number("factor")? },
            "dynamic" => {
                RopeScaling::Dynamic { factor: number("factor")?, original: self.original(fields)? }
            }
            "llama3" => RopeScaling::Llama3(self.llama3(fields, number)?),
            // Early configs of Phi-3 say yarn.
            "yarn" if fields.contains_key("short_factor") => {
                RopeScaling::Long(Arc::new(self.long(fields)?))
            }
            "yarn" => RopeScaling::Yarn(self.yarn(fields, number("factor")?)?),
            "longrope" | "su" => RopeScaling::Long(Arc::new(self.long(fields)?)),
            "proportional" => RopeScaling::Proportional {
                share: self.turned_share(fields)?,
                factor: self.positive("factor", fields)?.unwrap_or(1.0),
            },
            "factors" => {
                let factors = self.factors("factors", fields)?;
                RopeScaling::Factors(factors.into_iter().map(|f| f as f32).collect())
            }
            other => {
                return Err(self.unsupported(
                    &format!("rope type {other}"),
                    "default, linear, dynamic, llama3, yarn, longrope and proportional are computed",
                ));
            }
        }))
    }

    fn unscaled(&self, key: &str, fields: &Map<String, Value>) -> Result<Option<RopeScaling>> {
        match fields.get("factor") {
            Some(f) if !f.is_null() && f.as_f64() != Some(1.0) => {
                Err(self.wrong(key, format!("a factor of {} without a rope type", brief(f))))
            }
            _ => Ok(None),
        }
    }

    /// Context length of the training: of the object, of the config, or its positions.
    fn original(&self, fields: &Map<String, Value>) -> Result<usize> {
        const KEY: &str = "original_max_position_embeddings";
        let of = match self.positive(KEY, fields)? {
            None => self.positive(KEY, self.keys)?,
            found => found,
        };
        let Some(original) = of else {
            return self.required_size("max_position_embeddings", MAX_POSITIONS);
        };
        if original.fract() != 0.0 || original > MAX_POSITIONS as f64 {
            return Err(self.wrong(KEY, format!("{original} is no number of positions")));
        }
        Ok(original as usize)
    }

    fn llama3(
        &self,
        fields: &Map<String, Value>,
        number: impl Fn(&str) -> Result<f64>,
    ) -> Result<Llama3Scaling> {
        number("original_max_position_embeddings")?;
        let scaling = Llama3Scaling {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: self.original(fields)?,
        };
        // The formula divides by their difference.
        if scaling.high_freq_factor <= scaling.low_freq_factor {
            return Err(self.wrong(
                "high_freq_factor",
                format!("{} is not above low_freq_factor", scaling.high_freq_factor),
            ));
        }
        Ok(scaling)
    }

    fn yarn(&self, fields: &Map<String, Value>, factor: f64) -> Result<YarnScaling> {
        let number = |key: &str| self.positive(key, fields);
        let magnitude = |k: f64| YarnScaling::magnitude(factor, k);
        let of_two = number("mscale")?.zip(number("mscale_all_dim")?);
        let usual = of_two.map_or(magnitude(1.0), |(a, b)| magnitude(a) / magnitude(b));
        Ok(YarnScaling {
            factor,
            original: self.original(fields)?,
            beta_fast: number("beta_fast")?.unwrap_or(32.0),
            beta_slow: number("beta_slow")?.unwrap_or(1.0),
            truncate: fields.get("truncate") != Some(&Value::Bool(false)),
            magnitude: number("attention_factor")?.unwrap_or(usual),
        })
    }

    fn long(&self, fields: &Map<String, Value>) -> Result<LongScaling> {
        let original = self.original(fields)?;
        let positions = self.required_size("max_position_embeddings", MAX_POSITIONS)?;
        let ratio = match self.positive("factor", fields)? {
            Some(factor) => factor,
            None => positions as f64 / original as f64,
        };
        let usual = match ratio <= 1.0 {
            true => 1.0,
            false => (1.0 + ln_f64(ratio) / ln_f64(original as f64)).sqrt(),
        };
        Ok(LongScaling {
            short: self.factors("short_factor", fields)?,
            long: self.factors("long_factor", fields)?,
            original,
            magnitude: self.positive("attention_factor", fields)?.unwrap_or(usual),
        })
    }

    /// A list of positive numbers.
    fn factors(&self, key: &str, fields: &Map<String, Value>) -> Result<Vec<f64>> {
        let list = fields.get(key).and_then(Value::as_array);
        let list = list.ok_or_else(|| self.wrong(key, "must be a list of numbers"))?;
        let one = |value: &Value| value.as_f64().filter(|f| f.is_finite() && *f > 0.0);
        let factors = list.iter().map(one).collect::<Option<Vec<_>>>();
        factors.ok_or_else(|| self.wrong(key, "holds something that is not a positive number"))
    }
}

/// The object that describes a rotation; None where it has no scaling.
pub(super) fn written(rope: &Rope) -> Option<Map<String, Value>> {
    let value = match rope.scaling.as_ref()? {
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Dynamic { factor, original } => json!({
            "rope_type": "dynamic",
            "factor": factor,
            "original_max_position_embeddings": original,
        }),
        RopeScaling::Llama3(s) => json!({
            "rope_type": "llama3",
            "factor": s.factor,
            "high_freq_factor": s.high_freq_factor,
            "low_freq_factor": s.low_freq_factor,
            "original_max_position_embeddings": s.original_max_position,
        }),
        RopeScaling::Yarn(yarn) => json!({
            "rope_type": "yarn",
            "factor": yarn.factor,
            "original_max_position_embeddings": yarn.original,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "truncate": yarn.truncate,
            "attention_factor": yarn.magnitude,
        }),
        RopeScaling::Long(long) => json!({
            "rope_type": "longrope",
            "short_factor": long.short,
            "long_factor": long.long,
            "original_max_position_embeddings": long.original,
            "attention_factor": long.magnitude,
        }),
        RopeScaling::Proportional { share, factor } => json!({
            "rope_type": "proportional",
            "partial_rotary_factor": share,
            "factor": factor,
        }),
        RopeScaling::Factors(factors) => json!({ "rope_type": "factors", "factors": factors[..] }),
    };
    if let Value::Object(fields) = value { Some(fields) } else { None }
}

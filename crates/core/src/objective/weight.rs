//! How much a term of the loss counts, from the first step of a stage to the last.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A number that may change over a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(untagged)]
pub enum Weight {
    /// The same number in every step.
    Constant(f64),
    /// A number that changes from the first step to the last.
    Changing(WeightSchedule),
}

/// A weight that moves from one number at the first step to another at the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightSchedule {
    /// The number at the first step.
    pub from: f64,
    /// The number at the end.
    pub to: f64,
    /// How the weight moves from one to the other.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub shape: WeightShape,
}

/// How a weight moves from one number to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum WeightShape {
    /// By the same amount in every step.
    #[default]
    Linear,
    /// Half a cosine: slowly at both ends.
    Cosine,
}

impl Weight {
    /// The number at `progress`, the share of the stage's steps that are done.
    pub(crate) fn at(self, progress: f64) -> f64 {
        match self {
            Weight::Constant(weight) => weight,
            Weight::Changing(WeightSchedule { from, to, shape }) => {
                let progress = progress.clamp(0.0, 1.0);
                let share = match shape {
                    WeightShape::Linear => progress,
                    WeightShape::Cosine => {
                        let angle = std::f64::consts::PI * progress;
                        0.5 - 0.5 * halfstep_kernels::math::cos_f64(angle)
                    }
                };
                from + (to - from) * share
            }
        }
    }

    /// Whether it is above 0 at any step.
    pub(crate) fn counts(self) -> bool {
        match self {
            Weight::Constant(weight) => weight > 0.0,
            Weight::Changing(WeightSchedule { from, to, .. }) => from > 0.0 || to > 0.0,
        }
    }

    /// Refuses a weight that is negative or NaN.
    ///
    /// Errors: `Config`, naming the field; an empty name for the weight itself.
    pub(crate) fn check(self) -> Result<()> {
        let ends = match self {
            Weight::Constant(weight) => vec![("", weight)],
            Weight::Changing(WeightSchedule { from, to, .. }) => vec![("from", from), ("to", to)],
        };
        match ends.into_iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
            None => Ok(()),
            Some((field, weight)) => {
                Err(Error::config(field, format!("must be 0 or more, got {weight}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_goes_from_its_first_number_to_its_last() {
        let weight = |shape| Weight::Changing(WeightSchedule { from: 2.0, to: 6.0, shape });
        for shape in [WeightShape::Linear, WeightShape::Cosine] {
            let weight = weight(shape);
            assert_eq!([0.0, 0.5, 1.0, 2.0].map(|p| weight.at(p)), [2.0, 4.0, 6.0, 6.0]);
        }
        assert_eq!(weight(WeightShape::Linear).at(0.25), 3.0);
        let slow = weight(WeightShape::Cosine).at(0.25);
        assert!((slow - (4.0 - 2.0 * 0.5f64.sqrt())).abs() < 1e-12, "{slow}");
        assert_eq!(Weight::Constant(3.0).at(0.7), 3.0);
    }

    #[test]
    fn a_weight_is_a_number_or_two_in_a_recipe() {
        let read = |text: &str| serde_json::from_str::<Weight>(text).expect("a weight");
        assert_eq!(read("0.5"), Weight::Constant(0.5));
        let changing = read(r#"{"from":1,"to":0,"shape":"cosine"}"#);
        assert_eq!(changing.at(1.0), 0.0);
        match read(r#"{"from":1,"to":-1}"#).check() {
            Err(Error::Config { field, .. }) => assert_eq!(field, "to"),
            other => panic!("{other:?}"),
        }
    }
}

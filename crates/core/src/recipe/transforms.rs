//! What transforms of weights can be combined with.

use super::{Recipe, Sites};
use crate::error::{Error, Result};
use halfstep_formats::Architecture;
use halfstep_formats::architecture::TensorSpec;

impl Recipe {
    /// Refuses transforms that a weight or a stage cannot have.
    ///
    /// Errors: `Config`, naming the field and what would work; those of [`Sites::new`].
    pub(crate) fn check_transforms(&self, architecture: &Architecture) -> Result<()> {
        let Some(first) = self
            .rules
            .iter()
            .position(|rule| rule.weight_site().is_some_and(|site| site.transform.is_some()))
        else {
            return Ok(());
        };
        self.check_shapes(architecture)?;
        for (i, stage) in self.stages.iter().enumerate() {
            let refused = |field: &str, reason: &str| {
                let reason = format!("{reason}; leave out rules[{first}].quantizer.transform");
                Err(Error::config(format!("stages[{i}].config.{field}"), reason))
            };
            let Some((config, _)) = stage.by_layers() else { continue };
            if config.solver.is_some() {
                return refused("solver", "solvers find codes for weights as they are");
            }
            if config.penalty().is_some() {
                return refused("saliency", "the gradients are those of weights as they are");
            }
        }
        let is_static = |rule: &super::Rule| rule.activation().is_some_and(|q| q.is_static());
        match self.rules.iter().position(is_static) {
            Some(i) => Err(Error::config(
                format!("rules[{i}].quantizer"),
                format!(
                    "its stored scale is found from inputs as they are; use one whose scales \
                     follow the values (kind dynamic), or leave out \
                     rules[{first}].quantizer.transform"
                ),
            )),
            None => Ok(()),
        }
    }

    /// Refuses options of transforms that do not fit the weights that get them.
    fn check_shapes(&self, architecture: &Architecture) -> Result<()> {
        let sites = Sites::new(&self.rules, architecture)?;
        for spec in architecture.tensors() {
            let Some(site) = sites.of(&spec).filter(|site| site.transform.is_some()) else {
                continue;
            };
            let TensorSpec { name, shape, .. } = &spec;
            let fault = site.transform.and_then(|transform| transform.check(shape[1]).err());
            let Some((field, reason)) = fault else { continue };
            let rule = self.rules.iter().position(|rule| rule.weight_site() == Some(site));
            let path = format!("rules[{}].quantizer.transform.{field}", rule.unwrap_or(0));
            return Err(Error::config(path, format!("{reason} ({name})")));
        }
        Ok(())
    }
}

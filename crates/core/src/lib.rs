//! halfstep: recipes, targets, calibration, the trainer and export. What decides **gradients**
//! lives here; what decides bytes lives in `halfstep-kernels`.
//!
//! The way of the data: [`recipes::RecipeConfig`] + [`target::TargetId`] -> [`recipe::Recipe`] ->
//! [`run::quantize()`] -> a packed [`halfstep_formats::Model`] -> [`run::save()`].

#![warn(missing_docs, unreachable_pub)]
// Some functions serve `quantize` and `plan` alone; the build with the trainer finds dead ones.
#![cfg_attr(not(feature = "train"), allow(dead_code))]

pub mod autograd;
pub mod cancel;
pub mod config;
pub mod data;
pub mod device;
pub mod engine;
pub mod error;
pub mod event;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod host;
pub mod layer;
pub mod nearest;
pub mod objective;
pub mod optimizer;
pub mod quantizer;
pub mod recipe;
pub mod recipes;
pub mod record;
pub mod run;
pub mod solver;
pub mod statistics;
pub mod target;

pub use error::{Error, Result};
pub use event::Event;
pub use halfstep_formats::Model;

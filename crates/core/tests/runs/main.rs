//! Recipes from their options to files that are read again. Modules of one program, since each
//! program compiles and links the code below it once more; tests that count the memory of their
//! process or set its instruction-set level stay alone.

mod narrow_demo;

mod additions;
mod blockwise;
mod default_rate;
mod demo_model;
mod experts;
mod gguf_recipes;
mod linear_parts;
mod low_rank;
mod parts;
mod rates;
mod reading;
mod self_generated;
mod sites;
mod table_grid;
mod terms;
mod transforms;
mod windows;

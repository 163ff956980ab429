//! What training minimises.

pub(crate) mod block_output;
pub mod head;
pub mod saliency;

//! What training minimises.

pub mod head;
pub mod saliency;

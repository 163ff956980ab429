//! One transformer layer: its tensors by name (`tensors`), its weights as a forward uses them
//! (`weights`), its forward as operations on a tape ([`block`]), what it reads beside the rows of
//! the layer before ([`sides`], `second_embedding`), and what of it is stored once its codes are
//! found ([`finished`]). Everything here knows the graph and the quantizers, and neither recipes nor
//! the loop that trains.

pub mod block;
pub mod finished;
pub(crate) mod second_embedding;
pub mod sides;
pub mod tensors;
pub mod top_up;
pub(crate) mod weights;

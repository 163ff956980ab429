//! What is kept of one sequence: keys and values, or a state, of every layer.

mod attention;
mod state;

use crate::{Error, Network, Result};
pub(crate) use attention::{AttentionCache, Decoded, Kept};
use halfstep_kernels::ops::rope::RopeTable;
pub(crate) use state::State;

/// What a network keeps of the tokens that it has read: keys and values of all of them, in layers
/// with a window of those that later tokens see, and in layers without attention a state of one
/// size. A clone goes on by itself: keep one where a sequence is to be gone back to.
#[derive(Clone)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    len: usize,
    /// Number of tokens that the sequence will have, if it was said.
    told: Option<usize>,
    /// Number of tokens for which the rotations were made, once there are tokens.
    made_for: usize,
    /// Rotations of a sequence of this length, by their index in the network; none where all have
    /// those of the network.
    rotations: Vec<Option<RopeTable>>,
}

impl Cache {
    /// Returns an empty cache. Its memory grows as needed, up to `max_positions` of the model.
    ///
    /// In models whose rotation is another one for long sequences, it is that of the tokens that
    /// are read first: a prompt longer than the original context has the rotation of long
    /// sequences; one that is shorter cannot grow beyond it. See [`Self::for_length`].
    pub fn new(network: &Network) -> Self {
        let layers = network.empty_layers();
        Self { layers, len: 0, told: None, made_for: 0, rotations: vec![] }
    }

    /// Returns an empty cache for a sequence that will have so many tokens.
    pub fn for_length(network: &Network, tokens: usize) -> Self {
        Self { told: Some(tokens), ..Self::new(network) }
    }

    /// Number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cache has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything after the first `len` tokens. Errors, and no change: a layer with a
    /// window has forgotten what the next token would see, or a layer has a state, of which no
    /// token can be taken back.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len >= self.len {
            return Ok(());
        }
        if len > 0 {
            self.check_kept(len)?;
        }
        self.len = len;
        self.layers.iter_mut().for_each(|layer| layer.truncate(len));
        Ok(())
    }

    /// Whether the layers still know what a sequence of so many tokens, fewer than now, knew.
    fn check_kept(&self, len: usize) -> Result<()> {
        let is_state = |layer: &LayerCache| matches!(layer, LayerCache::State(_));
        let reason = if self.layers.iter().any(is_state) {
            format!(
                "{len} tokens cannot be gone back to, as no token can be taken out of the state of \
                 a layer without attention: truncate to 0, or go on with a clone of the cache that \
                 was made there"
            )
        } else {
            let least = self.layers.iter().map(LayerCache::shortest).max().unwrap_or(0);
            if len >= least {
                return Ok(());
            }
            format!(
                "{len} tokens cannot be gone back to, as layers with a window have forgotten what \
                 the next one would see: truncate to {least} or more, or to 0"
            )
        };
        Err(Error::argument("len", reason))
    }

    /// Bytes of keys, values and states.
    pub fn memory_bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes).sum()
    }

    /// The length that decides the rotations if `tokens` more are read now.
    pub(crate) fn made_for(&self, tokens: usize) -> usize {
        if self.is_empty() { self.told.unwrap_or(tokens) } else { self.made_for }
    }

    /// Before the first of `tokens`: the rotations of this sequence where they are its own.
    pub(crate) fn begin(
        &mut self,
        tokens: usize,
        rotations: impl FnOnce(usize) -> Vec<Option<RopeTable>>,
    ) {
        if self.is_empty() {
            self.made_for = self.made_for(tokens);
            self.rotations = rotations(self.made_for);
        }
    }

    /// A rotation of the network, where this sequence has its own.
    pub(crate) fn rotation(&self, index: usize) -> Option<&RopeTable> {
        self.rotations.get(index)?.as_ref()
    }

    /// Forgets what `rows` more tokens will not see, if it is much.
    pub(crate) fn make_room(&mut self, rows: usize) {
        self.layers.iter_mut().for_each(|layer| layer.make_room(rows));
    }

    /// Adds `rows` tokens to the length, once every layer holds them.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
    }
}

/// What is kept of one layer.
#[derive(Clone)]
pub(crate) enum LayerCache {
    Attention(AttentionCache),
    State(State),
    /// The layer reads the keys and values of another one.
    Nothing,
}

impl LayerCache {
    /// Of a layer with keys and values of its own.
    pub fn attention(&self) -> &AttentionCache {
        let LayerCache::Attention(kept) = self else { unreachable!("a layer with attention") };
        kept
    }

    /// The same, to be changed.
    pub fn attention_mut(&mut self) -> &mut AttentionCache {
        let LayerCache::Attention(kept) = self else { unreachable!("a layer with attention") };
        kept
    }

    /// Of a layer without attention.
    pub fn state_mut(&mut self) -> &mut State {
        let LayerCache::State(state) = self else { unreachable!("a layer without attention") };
        state
    }

    fn make_room(&mut self, rows: usize) {
        if let LayerCache::Attention(kept) = self {
            kept.make_room(rows);
        }
    }

    /// The least number of tokens that keys and values can be truncated to.
    fn shortest(&self) -> usize {
        if let LayerCache::Attention(kept) = self { kept.shortest() } else { 0 }
    }

    /// To a length that was checked; a state knows none but 0.
    fn truncate(&mut self, len: usize) {
        match self {
            LayerCache::Attention(kept) => kept.truncate(len),
            LayerCache::State(state) => state.clear(),
            LayerCache::Nothing => {}
        }
    }

    fn bytes(&self) -> usize {
        match self {
            LayerCache::Attention(kept) => kept.bytes(),
            LayerCache::State(state) => state.bytes(),
            LayerCache::Nothing => 0,
        }
    }
}

//! A matrix of integer codes with its scales: the one in-memory form of a quantized weight.

use crate::{IntGrid, Partition, Pool, WeightQuantizer};

/// Quantized weight `[rows, cols]`. Value of an element = (code - zero_point) * scale, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMatrix {
    pub rows: usize,
    pub cols: usize,
    pub quantizer: WeightQuantizer,
    /// `code - grid.min()` as unsigned `bits`-bit numbers, little-endian bit order, each row padded to a whole byte.
    pub codes: Vec<u8>,
    /// As stored (already rounded to the scale codec), `quantizer.partition.scales(rows, cols)` of them.
    pub scales: Vec<f32>,
    /// Affine grids only: one zero point per scale; empty otherwise.
    pub zero_points: Vec<u8>,
}

/// Bytes of one packed row.
pub fn row_bytes(cols: usize, bits: u8) -> usize {
    (cols * bits as usize).div_ceil(8)
}

impl PackedMatrix {
    /// Packs codes `[rows, cols]` (each within the grid).
    pub fn from_codes(_quantizer: WeightQuantizer, _rows: usize, _cols: usize, _codes: &[i16], _scales: Vec<f32>, _zero_points: Vec<u8>) -> Self {
        todo!()
    }
    /// Codes of one row, unpacked.
    pub fn row_codes(&self, _row: usize, _out: &mut [i16]) {
        todo!()
    }
    /// Values of one row in f32: (code - zero_point) as f32 * scale.
    pub fn decode_row(&self, _row: usize, _out: &mut [f32]) {
        todo!()
    }
    /// All values `[rows, cols]`.
    pub fn decode(&self, _pool: &Pool, _out: &mut [f32]) {
        todo!()
    }
    /// Bytes as stored in a `halfstep` file: codes + scales + zero points.
    pub fn stored_bytes(&self) -> usize {
        todo!()
    }
    pub fn grid(&self) -> IntGrid {
        self.quantizer.grid
    }
    pub fn partition(&self) -> Partition {
        self.quantizer.partition
    }
}

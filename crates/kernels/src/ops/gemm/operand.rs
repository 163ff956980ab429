//! The sides of a product.

use super::{Rows, View};
use crate::{Pool, Real};

/// How an operand lies: whether its stored rows run along k (`[outer, k]`) or across it (`[k,
/// outer]`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lie {
    Along,
    Across,
}

/// An operand of a product, seen as `[outer, k]`.
pub struct Operand<'a, T> {
    pub source: &'a dyn Rows<T>,
    pub lie: Lie,
}

impl<T> Clone for Operand<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Operand<'_, T> {}

impl<T: Real> Operand<'_, T> {
    pub fn outer(&self) -> usize {
        if self.lie == Lie::Along { self.source.rows() } else { self.source.cols() }
    }
    pub fn k(&self) -> usize {
        if self.lie == Lie::Along { self.source.cols() } else { self.source.rows() }
    }
    /// The values, if they do not lie in memory already.
    pub(super) fn held(&self, pool: &Pool) -> Vec<T> {
        let mut values = vec![];
        if self.source.strided().is_none() {
            values.resize(self.outer() * self.k(), T::ZERO);
            pool.chunks_mut(&mut values, self.source.cols(), |row, out| {
                self.source.read(row, 0, out)
            });
        }
        values
    }
    /// As `[outer, k]`, of the values in memory or of those held.
    pub(super) fn view<'a>(&'a self, held: &'a [T]) -> View<'a, T> {
        let (data, stride) = self.source.strided().unwrap_or((held, self.source.cols()));
        match self.lie {
            Lie::Along => View::rows(data, stride),
            Lie::Across => View::transposed(data, stride),
        }
    }
}

//! Row order of q and k. Hugging Face rotates elements (i, i + D/2) of a head, a Llama in GGUF (2i,
//! 2i + 1), so the rows that make them are stored in another order: GGUF's row h D + 2 i + p is
//! Hugging Face's row h D + p D/2 + i (p = 0, 1).

/// For each Hugging Face row, the GGUF row it is stored at. `rows` = heads * head width, the width
/// even.
pub fn gguf_row(rows: usize, heads: usize) -> impl Fn(usize) -> usize {
    let width = rows / heads;
    move |row| {
        let (head, within) = (row / width, row % width);
        head * width + within % (width / 2) * 2 + within / (width / 2)
    }
}

/// Gathers rows of `row_len` elements: row r of the result is row `source(r)` of `data`.
pub fn gather_rows<T: Copy>(data: &[T], row_len: usize, source: impl Fn(usize) -> usize) -> Vec<T> {
    // Rows of nothing, such as the zero points of a grid without, are none.
    let rows = data.len().checked_div(row_len).unwrap_or(0);
    let mut out = Vec::with_capacity(data.len());
    for row in 0..rows {
        out.extend_from_slice(&data[source(row) * row_len..][..row_len]);
    }
    out
}

/// The inverse of a permutation of `rows` rows.
pub fn inverse(rows: usize, forward: impl Fn(usize) -> usize) -> Vec<usize> {
    let mut out = vec![0; rows];
    for row in 0..rows {
        out[forward(row)] = row;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_half_rotation_become_neighbours() {
        let (heads, width) = (3, 8);
        let to_gguf = gguf_row(heads * width, heads);
        for head in 0..heads {
            for i in 0..width / 2 {
                let first = to_gguf(head * width + i);
                assert_eq!(first, head * width + 2 * i);
                assert_eq!(to_gguf(head * width + i + width / 2), first + 1);
            }
        }
    }

    #[test]
    fn gathering_there_and_back_changes_nothing() {
        let (rows, row_len, heads) = (24, 3, 2);
        let data: Vec<u32> = (0..rows * row_len).map(|i| i as u32).collect();
        let there = gather_rows(&data, row_len, gguf_row(rows, heads));
        let back = inverse(rows, gguf_row(rows, heads));
        assert_ne!(there, data);
        assert_eq!(gather_rows(&there, row_len, |r| back[r]), data);
    }
}

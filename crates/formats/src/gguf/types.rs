//! Block sizes of the types that files have and this library does not read, so that such a file can
//! still be described.

use super::GgmlType;

/// A type by its number: its name, values per block and bytes per block.
pub(super) struct StoredType {
    pub name: String,
    pub block_elements: usize,
    pub block_bytes: usize,
}

/// Number, values per block and bytes per block, from ggml's own headers.
const NOT_READ: &[(u32, usize, usize)] = &[
    (9, 32, 36),
    (15, 256, 292),
    (16, 256, 66),
    (17, 256, 74),
    (18, 256, 98),
    (19, 256, 50),
    (20, 32, 18),
    (21, 256, 110),
    (22, 256, 82),
    (23, 256, 136),
    (24, 1, 1),
    (25, 1, 2),
    (26, 1, 4),
    (27, 1, 8),
    (28, 1, 8),
    (29, 256, 56),
    (31, 32, 18),
    (32, 32, 18),
    (33, 32, 18),
    (36, 32, 18),
    (37, 32, 18),
    (38, 32, 18),
    (39, 32, 17),
    (40, 64, 36),
];

impl StoredType {
    /// The type with number `id`, whether its values are read or not; None if its size is unknown.
    pub fn find(id: u32) -> Option<Self> {
        match GgmlType::from_id(id) {
            Ok(kind) => Some(Self {
                name: kind.name().into(),
                block_elements: kind.block_elements(),
                block_bytes: kind.block_bytes(),
            }),
            Err(name) => {
                let (_, block_elements, block_bytes) =
                    *NOT_READ.iter().find(|(other, ..)| *other == id)?;
                Some(Self { name, block_elements, block_bytes })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_whole_blocks_and_a_name_of_its_own() {
        let found: Vec<StoredType> = (0..64).filter_map(StoredType::find).collect();
        assert_eq!(found.len(), GgmlType::ALL.len() + NOT_READ.len());
        for kind in &found {
            assert!(kind.block_elements > 0 && kind.block_bytes > 0, "{}", kind.name);
            assert_eq!(found.iter().filter(|other| other.name == kind.name).count(), 1);
            // Between one bit and 64 bits a value.
            let bits = 8.0 * kind.block_bytes as f64 / kind.block_elements as f64;
            assert!((1.0..=64.0).contains(&bits), "{}: {bits}", kind.name);
        }
        assert!(StoredType::find(1000).is_none());
    }
}

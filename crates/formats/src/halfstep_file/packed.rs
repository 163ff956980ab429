//! The stored parts of a packed weight: planned by name, type and shape, then read, each value
//! checked.

use super::read::{Metadata, Stored};
use super::*;
use crate::error::{Error, Result};
use crate::safetensors::Info;
use crate::source::Source;
use halfstep_kernels::QuantTensor;

/// Where the parts of a packed weight are.
pub(super) struct PackedParts {
    shape: [usize; 2],
    spec: QuantSpec,
    codes: Info,
    scale: Info,
    outer: Option<Info>,
    zero_point: Option<Info>,
    levels: Option<Info>,
}

impl PackedParts {
    /// Takes the parts of the weight `name`, which `key` of the metadata describes.
    pub fn plan(
        metadata: &Metadata,
        key: &str,
        stored: &mut Stored,
        name: &str,
        shape: [usize; 2],
        spec: QuantSpec,
    ) -> Result<Self> {
        check_quantizer(spec).map_err(|reason| metadata.wrong(key, format!("{name}: {reason}")))?;
        let [rows, cols] = shape;
        let mut take = |part: &str, shape: &[usize], dtype: Dtype| {
            stored.take(&format!("{name}.{part}"), shape, &[dtype])
        };
        let scales = scale_shape(spec.granularity, rows, cols);
        Ok(Self {
            shape,
            spec,
            codes: take(part::CODES, &[rows, row_bytes(cols, spec.bits())], Dtype::U8)?,
            scale: take(part::SCALE, &scales, scale_dtype(spec.scale))?,
            outer: outer_scales(spec, rows, cols)
                .map(|(codec, count)| take(part::OUTER_SCALE, &[count], scale_dtype(codec)))
                .transpose()?,
            zero_point: spec
                .zero_point_shape(rows, cols)
                .map(|shape| take(part::ZERO_POINT, &shape, Dtype::U8))
                .transpose()?,
            levels: spec
                .row_table()
                .map(|table| take(part::LEVELS, &[rows, table.levels()], Dtype::I8))
                .transpose()?,
        })
    }

    pub fn spec(&self) -> QuantSpec {
        self.spec
    }

    /// Bytes of all parts in the file.
    pub fn bytes(&self) -> u64 {
        let others = [&self.outer, &self.zero_point, &self.levels];
        let parts = [&self.codes, &self.scale].into_iter().chain(others.into_iter().flatten());
        parts.map(|info| info.end - info.begin).sum()
    }

    pub fn read(&self, source: &mut Source) -> Result<QuantTensor> {
        let Self { shape: [rows, cols], spec, codes, scale, outer, zero_point, levels } = self;
        let (rows, cols, spec) = (*rows, *cols, *spec);
        let file = source.file.clone();
        let wrong = |info: &Info, (at, reason): Fault| Error::Format {
            file: file.clone(),
            offset: info.begin + (at * info.dtype.bytes()) as u64,
            reason: format!("tensor {}: {reason}", info.name),
        };
        let code_info = codes;
        let codes: Vec<u8> = source.values(codes.begin, codes.elements())?;
        check_codes(spec, cols, &codes).map_err(|fault| wrong(code_info, fault))?;
        let codec = spec.scale;
        let per_row = spec.granularity.groups(cols);
        let mut outer_scales = vec![];
        if let (Some(info), Some((outer, _))) = (outer, super::outer_scales(spec, rows, cols)) {
            outer_scales = outer.decode(&bytes_of(source, info)?, &[], 1);
            check_outer_scales(&outer_scales).map_err(|fault| wrong(info, fault))?;
        }
        let bytes = bytes_of(source, scale)?;
        let scales = codec.decode(&bytes, &outer_scales, per_row);
        check_scales(&scales).map_err(|fault| wrong(scale, fault))?;
        if codec.encode(&scales, &outer_scales, per_row).as_ref() != Ok(&bytes) {
            let reason = "has a scale that the codec does not store so".into();
            return Err(wrong(scale, (0, reason)));
        }
        let mut zero_points = vec![];
        if let Some(info) = zero_point {
            let (bits, groups) = (spec.bits(), scales.len() / info.shape[0].max(1));
            let packed: Vec<u8> = source.values(info.begin, info.elements())?;
            // Any bits are a zero point of an affine grid.
            check_padding(bits, groups, &packed).map_err(|fault| wrong(info, fault))?;
            zero_points = vec![0; scales.len()];
            let rows = packed
                .chunks_exact(info.shape[1].max(1))
                .zip(zero_points.chunks_exact_mut(groups.max(1)));
            rows.for_each(|(packed, row)| unpack_row(packed, bits, row));
        }
        let mut tables = vec![];
        if let Some(info) = levels {
            tables = source.values(info.begin, info.elements())?;
            spec.check_tables(&tables).map_err(|fault| wrong(info, fault))?;
        }
        Ok(QuantTensor { rows, cols, spec, codes, scales, outer_scales, zero_points, tables })
    }
}

fn bytes_of(source: &mut Source, info: &Info) -> Result<Vec<u8>> {
    source.values(info.begin, info.elements() * info.dtype.bytes())
}

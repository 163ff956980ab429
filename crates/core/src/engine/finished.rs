//! Finished blocks on disk, as they will be shipped.

use crate::engine::arithmetic::Arithmetic;
use crate::engine::checkpoint;
use crate::engine::checkpoint::Unusable;
use crate::error::io;
use crate::event::Event;
use crate::host::{Host, Store};
use crate::layer::finished::Finished;
use crate::{Error, Result};
use half::f16;
use halfstep_formats::linear_parts::part::{INPUT_VECTOR, ONLINE_MAP};
use halfstep_formats::linear_parts::{OnlineMap, Signs};
use halfstep_formats::safetensors::{self, Dtype, Entry, Info};
use halfstep_formats::{LinearParts, LowRank, Tensor, TensorData};
use halfstep_kernels::QuantSpec;
use halfstep_kernels::quant::tensor::QuantTensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where finished blocks go and come from; nowhere without a folder.
pub(crate) struct FinishedBlocks<'a> {
    folder: Option<PathBuf>,
    run: String,
    arithmetic: Arithmetic,
    resume: bool,
    store: &'a dyn Store,
}

/// The parts of a stored block's tensors; a quantizer is kept as JSON.
const QUANTIZER: &str = "quantizer";
/// How the block learned, as JSON.
const RECORD: &str = "record";

impl<'a> FinishedBlocks<'a> {
    pub(crate) fn new(
        folder: Option<&Path>,
        run: String,
        arithmetic: Arithmetic,
        resume: bool,
        host: &'a Host,
    ) -> Self {
        Self { folder: folder.map(Into::into), run, arithmetic, resume, store: &*host.store }
    }

    /// Makes the folder, and looks at what an earlier run left there before anything long begins.
    ///
    /// Errors: `Io`, no folder can be made; `Checkpoint`, without `resume` it holds some but not
    /// all of the `layers` blocks of this very run, which would be lost.
    pub(crate) fn begin(&self, layers: usize, events: &mut dyn FnMut(Event)) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let name = folder.display().to_string();
        self.store.create_folder(folder).map_err(io(folder))?;
        let there = self.store.exists(&self.path(folder, 0));
        if self.resume && !there {
            events(Event::Warning {
                message: format!("no finished block in {name}; starting anew"),
            });
        } else if there && !self.resume {
            let done = (0..layers)
                .take_while(|&layer| {
                    checkpoint::verify(self.store, &self.path(folder, layer), &self.run).is_ok()
                })
                .count();
            if done > 0 && done < layers {
                let reason = format!(
                    "{done} of {layers} blocks of this very run are finished there; set resume to continue from them, or use another folder (or none) to start again"
                );
                return Err(Error::Checkpoint { path: name, reason });
            }
            events(Event::Warning {
                message: format!(
                    "{name} holds blocks of an earlier run; this one starts anew and replaces them, resume would go on"
                ),
            });
        }
        Ok(())
    }

    fn path(&self, folder: &Path, layer: usize) -> PathBuf {
        folder.join(format!("block-{layer:08}"))
    }

    /// What the first finished block of this run was computed in: a resumed run goes on in it,
    /// whatever the probe says then.
    pub(crate) fn arithmetic(folder: Option<&Path>, run: &str, host: &Host) -> Option<Arithmetic> {
        checkpoint::verify(&*host.store, &folder?.join("block-00000000"), run)
            .ok()
            .map(|manifest| manifest.arithmetic)
    }

    /// The error of a run that ended in block `layer`. Those before it are kept: a cancelled run
    /// names their folder, any other end is reported in addition to its error.
    pub(crate) fn ended(&self, layer: usize, e: Error, events: &mut dyn FnMut(Event)) -> Error {
        let folder = self
            .folder
            .as_deref()
            .filter(|folder| {
                checkpoint::verify(self.store, &self.path(folder, 0), &self.run).is_ok()
            })
            .map(|folder| folder.display().to_string());
        match (e, folder) {
            (Error::Cancelled { .. }, resume) => Error::Cancelled { resume },
            (e, Some(folder)) if layer > 0 => {
                events(Event::Warning {
                    message: format!(
                        "finished blocks, kept in {folder}: {layer}; the same run with resume continues from them"
                    ),
                });
                e
            }
            (e, _) => e,
        }
    }

    /// What a block is on disk, part by part.
    fn entries(block: &Finished) -> Result<Vec<Entry<'static>>> {
        let mut entries = vec![];
        for (name, tensor) in &block.tensors {
            match &tensor.data {
                TensorData::Packed(p) => {
                    let quantizer = serde_json::to_vec(&p.spec)
                        .map_err(|e| Error::Internal { reason: e.to_string() })?;
                    entries.push(entry(
                        name,
                        QUANTIZER,
                        Dtype::U8,
                        vec![quantizer.len()],
                        quantizer,
                    ));
                    entries.push(entry(
                        name,
                        "codes",
                        Dtype::U8,
                        vec![p.rows, p.codes.len() / p.rows.max(1)],
                        p.codes.clone(),
                    ));
                    entries.push(entry(
                        name,
                        "scale",
                        Dtype::F32,
                        vec![p.scales.len()],
                        bytemuck::cast_slice(&p.scales).to_vec(),
                    ));
                    entries.push(entry(
                        name,
                        "zero_point",
                        Dtype::U8,
                        vec![p.zero_points.len()],
                        p.zero_points.clone(),
                    ));
                    entries.push(entry(
                        name,
                        "shape",
                        Dtype::U64,
                        vec![2],
                        [p.rows, p.cols].map(|n| (n as u64).to_le_bytes()).concat(),
                    ));
                }
                TensorData::F32(values) => entries.push(entry(
                    name,
                    "value",
                    Dtype::F32,
                    tensor.shape.clone(),
                    bytemuck::cast_slice(values).to_vec(),
                )),
                _ => {
                    return Err(Error::Internal {
                        reason: format!("{name} of a finished block is neither packed nor f32"),
                    });
                }
            }
        }
        for (name, factors) in &block.low_rank {
            for (part, values) in [("low_rank_a", &factors.a), ("low_rank_b", &factors.b)] {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                entries.push(entry(
                    name,
                    part,
                    Dtype::F16,
                    vec![factors.rank, values.len() / factors.rank],
                    bytes,
                ));
            }
        }
        for (name, parts) in &block.linear_parts {
            entries.extend(part_entries(name, parts));
        }
        let record = serde_json::to_vec(&(&block.record, &block.matrices))
            .map_err(|e| Error::Internal { reason: e.to_string() })?;
        entries.push(entry("block", RECORD, Dtype::U8, vec![record.len()], record));
        Ok(entries)
    }

    /// Bytes on disk of a finished block.
    pub(crate) fn size(block: &Finished) -> Result<u64> {
        checkpoint::size(Self::entries(block)?)
    }

    pub(crate) fn save(
        &self,
        layer: usize,
        block: &Finished,
        events: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = checkpoint::write(
            self.store,
            folder,
            ("block", layer as u64),
            Self::entries(block)?,
            &self.run,
            self.arithmetic,
        )?;
        events(Event::Checkpoint { step: layer as u64, path: path.display().to_string() });
        Ok(())
    }

    /// Saves what layers have learned that go on learning in the window that starts at `first`.
    pub(crate) fn save_open<'v>(
        &self,
        first: usize,
        values: impl Iterator<Item = (&'v str, &'v [f32])>,
    ) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (number, entries) = (("window", first as u64), Self::open_entries(values));
        checkpoint::write(self.store, folder, number, entries, &self.run, self.arithmetic)?;
        Ok(())
    }

    /// Bytes on disk of what [`Self::save_open`] writes.
    pub(crate) fn open_size<'v>(values: impl Iterator<Item = (&'v str, &'v [f32])>) -> Result<u64> {
        checkpoint::size(Self::open_entries(values))
    }

    fn open_entries<'v>(values: impl Iterator<Item = (&'v str, &'v [f32])>) -> Vec<Entry<'v>> {
        let entry = |(name, values): (&str, &'v [f32])| Entry {
            name: name.into(),
            dtype: Dtype::F32,
            shape: vec![values.len()],
            data: bytemuck::cast_slice(values).into(),
        };
        values.map(entry).collect()
    }

    /// What [`Self::save_open`] of this run wrote, by name; None where that is absent or damaged.
    pub(crate) fn read_open(&self, first: usize) -> Option<BTreeMap<String, Vec<f32>>> {
        let folder = self.folder.as_deref().filter(|_| self.resume)?;
        let path = folder.join(format!("window-{first:08}"));
        let manifest = checkpoint::verify(self.store, &path, &self.run).ok()?;
        let bytes = checkpoint::state(self.store, &path, &manifest).ok()?;
        let header = safetensors::read(&path.display().to_string(), &bytes).ok()?;
        let values = |info: &Info| {
            let data = &bytes[info.begin as usize..info.end as usize];
            data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        Some(header.tensors.iter().map(|info| (info.name.clone(), values(info))).collect())
    }

    /// The block, if this run has finished it before. One that is damaged is told of and trained
    /// again; another run's is an error.
    pub(crate) fn read(
        &self,
        layer: usize,
        events: &mut dyn FnMut(Event),
    ) -> Result<Option<Finished>> {
        let Some(path) = self
            .folder
            .as_deref()
            .filter(|_| self.resume)
            .map(|folder| self.path(folder, layer))
            .filter(|path| self.store.exists(path))
        else {
            return Ok(None);
        };
        let manifest = match checkpoint::verify(self.store, &path, &self.run) {
            Ok(manifest) => manifest,
            // Left by an earlier run, behind what this one has finished.
            Err(Unusable::Foreign(e)) => return if layer > 0 { Ok(None) } else { Err(e) },
            Err(Unusable::Damaged(e)) => {
                events(Event::Warning { message: format!("a finished block was ignored: {e}") });
                return Ok(None);
            }
        };
        let bytes = checkpoint::state(self.store, &path, &manifest);
        match bytes.and_then(|bytes| parse(&path, &bytes)) {
            Ok(block) => {
                events(Event::Phase { name: "resume".into(), detail: path.display().to_string() });
                Ok(Some(block))
            }
            Err(e) => {
                events(Event::Warning { message: format!("a finished block was ignored: {e}") });
                Ok(None)
            }
        }
    }
}

fn entry(name: &str, part: &str, dtype: Dtype, shape: Vec<usize>, data: Vec<u8>) -> Entry<'static> {
    Entry { name: format!("{name}/{part}"), dtype, shape, data: data.into() }
}

/// The parts that transforms make: the input vector, and the online map as numbers (the size of a
/// block, whether there are signs, their seed and stream).
fn part_entries(name: &str, parts: &LinearParts) -> Vec<Entry<'static>> {
    let vector = parts.input_vector.as_ref().map(|h| {
        let bytes = h.iter().flat_map(|h| h.to_le_bytes()).collect();
        entry(name, INPUT_VECTOR, Dtype::F16, vec![h.len()], bytes)
    });
    let map = parts.online_map.map(|OnlineMap::BlockHadamard { size, signs }| {
        let Signs { seed, stream } = signs.unwrap_or(Signs { seed: 0, stream: 0 });
        let numbers = [size as u64, signs.is_some().into(), seed, stream];
        let bytes = numbers.map(u64::to_le_bytes).concat();
        entry(name, ONLINE_MAP, Dtype::U64, vec![numbers.len()], bytes)
    });
    vector.into_iter().chain(map).collect()
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Finished> {
    let fault = |what: &str| Error::Checkpoint {
        path: path.display().to_string(),
        reason: format!("{what} is missing or not as it was written"),
    };
    let header = safetensors::read(&path.display().to_string(), bytes)?;
    let tensors = header.by_name();
    let data = |info: &Info| &bytes[info.begin as usize..info.end as usize];
    let floats = |info: &Info| {
        data(info).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>()
    };
    let part = |name: &str, part: &str| {
        tensors
            .get(format!("{name}/{part}").as_str())
            .copied()
            .ok_or_else(|| fault(&format!("{part} of {name}")))
    };
    let mut block = Finished::default();
    for info in &header.tensors {
        let Some((name, kind)) = info.name.split_once('/') else { return Err(fault(&info.name)) };
        let tensor = match kind {
            "value" => Tensor { shape: info.shape.clone(), data: TensorData::F32(floats(info)) },
            QUANTIZER => {
                let spec: QuantSpec =
                    serde_json::from_slice(data(info)).map_err(|_| fault(name))?;
                let shape: Vec<usize> = data(part(name, "shape")?)
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|b| u64::from_le_bytes(*b) as usize)
                    .collect();
                let [rows, cols] = shape[..] else { return Err(fault(name)) };
                let codes = data(part(name, "codes")?).to_vec();
                let zero_points = data(part(name, "zero_point")?).to_vec();
                let packed = QuantTensor {
                    rows,
                    cols,
                    spec,
                    codes,
                    scales: floats(part(name, "scale")?),
                    // Nested scales are not trained.
                    outer_scales: vec![],
                    zero_points,
                    // Nor are tables of rows.
                    tables: vec![],
                };
                Tensor { shape, data: TensorData::Packed(packed) }
            }
            "low_rank_a" => {
                let halves = |info: &Info| {
                    data(info).as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect()
                };
                let rank = info.shape.first().copied().unwrap_or(0);
                block.low_rank.insert(
                    name.into(),
                    LowRank { rank, a: halves(info), b: halves(part(name, "low_rank_b")?) },
                );
                continue;
            }
            INPUT_VECTOR => {
                let halves = data(info).as_chunks::<2>().0.iter();
                let vector = halves.map(|b| f16::from_le_bytes(*b)).collect();
                block.linear_parts.entry(name.into()).or_default().input_vector = Some(vector);
                continue;
            }
            ONLINE_MAP => {
                let numbers: Vec<u64> =
                    data(info).as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
                let [size, signed, seed, stream] = numbers[..] else { return Err(fault(name)) };
                let signs = (signed != 0).then_some(Signs { seed, stream });
                let map = OnlineMap::BlockHadamard { size: size as usize, signs };
                block.linear_parts.entry(name.into()).or_default().online_map = Some(map);
                continue;
            }
            RECORD => {
                (block.record, block.matrices) =
                    serde_json::from_slice(data(info)).map_err(|_| fault(RECORD))?;
                continue;
            }
            _ => continue,
        };
        block.tensors.insert(name.into(), tensor);
    }
    Ok(block)
}

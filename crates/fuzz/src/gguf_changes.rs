//! Changes of a GGUF file by its parts: fields and tensors are replaced, repeated, left out and
//! renamed, and everything is written again with the lengths that belong to it, but for those that
//! are changed too.

use arbitrary::{Arbitrary, Unstructured};

/// A field of the metadata: its key, and the type and bytes of its value.
#[derive(Clone)]
struct Field {
    key: Vec<u8>,
    kind: u32,
    value: Vec<u8>,
}

#[derive(Clone)]
struct Tensor {
    name: Vec<u8>,
    sizes: Vec<u64>,
    kind: u32,
    offset: u64,
}

struct File {
    version: u32,
    fields: Vec<Field>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Version(u32),
    Value { field: u8, value: Value },
    Key { field: u8, other: u8 },
    Repeat { field: u8 },
    LeaveOut { field: u8 },
    Array { field: u8, kind: u8, length: Number, bytes: Vec<u8> },
    Sizes { tensor: u8, sizes: Vec<Number> },
    Kind { tensor: u8, kind: u8 },
    Offset { tensor: u8, offset: Number },
    Name { tensor: u8, other: u8 },
    RepeatTensor { tensor: u8 },
    LeaveOutTensor { tensor: u8 },
    Counts { tensors: Number, fields: Number },
    Cut(u16),
    Byte { at: u16, value: u8 },
}

#[derive(Arbitrary, Debug)]
enum Value {
    U32(Number),
    U64(Number),
    I32(Number),
    F32(f32),
    Bool(u8),
    Text(String),
    LongText { length: Number },
    Kind(u8),
}

/// A number, often one at which a reader turns.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Small(u8),
    Near { power: u8, below: bool },
    Any(u64),
}

impl Number {
    fn get(self) -> u64 {
        match self {
            Number::Small(n) => n.into(),
            Number::Near { power, below } => {
                let power = 1u64 << (power % 64);
                if below { power - 1 } else { power }
            }
            Number::Any(n) => n,
        }
    }
}

/// `valid` with up to six changes.
pub fn changed(valid: &[u8], of: &mut Unstructured) -> Vec<u8> {
    let mut file = File::read(valid).expect("the file that changes begin with is valid");
    let (mut counts, mut after) = (None, vec![]);
    for _ in 0..6 {
        if of.is_empty() {
            break;
        }
        match Change::arbitrary(of) {
            Ok(Change::Counts { tensors, fields }) => counts = Some([tensors.get(), fields.get()]),
            Ok(change @ (Change::Cut(_) | Change::Byte { .. })) => after.push(change),
            Ok(change) => file.apply(change),
            Err(_) => break,
        }
    }
    let mut bytes = file.write(counts);
    for change in after {
        match change {
            Change::Cut(at) => bytes.truncate(usize::from(at)),
            Change::Byte { at, value } => {
                if let Some(byte) = bytes.get_mut(usize::from(at)) {
                    *byte = value;
                }
            }
            _ => {}
        }
    }
    bytes
}

/// Bytes of a value of a type, that of one element of an array among them.
fn size_of_kind(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// The bytes that are read from a file one after the other.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = self.u64()? as usize;
        self.take(length).map(<[u8]>::to_vec)
    }

    /// Skips a value.
    fn value(&mut self, kind: u32) -> Option<()> {
        match kind {
            8 => {
                self.text()?;
            }
            9 => {
                let (kind, length) = (self.u32()?, self.u64()?);
                for _ in 0..length {
                    self.value(kind)?;
                }
            }
            _ => {
                self.take(size_of_kind(kind)?)?;
            }
        }
        Some(())
    }
}

impl File {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        rest.take(4)?;
        let (version, tensors, fields) = (rest.u32()?, rest.u64()?, rest.u64()?);
        let fields = (0..fields).map(|_| {
            let (key, kind) = (rest.text()?, rest.u32()?);
            let before = rest.0;
            rest.value(kind)?;
            let value = before[..before.len() - rest.0.len()].to_vec();
            Some(Field { key, kind, value })
        });
        let fields = fields.collect::<Option<Vec<_>>>()?;
        let tensors = (0..tensors).map(|_| {
            let name = rest.text()?;
            let sizes = (0..rest.u32()?).map(|_| rest.u64()).collect::<Option<_>>()?;
            Some(Tensor { name, sizes, kind: rest.u32()?, offset: rest.u64()? })
        });
        let tensors = tensors.collect::<Option<Vec<_>>>()?;
        let at = (bytes.len() - rest.0.len()).next_multiple_of(32);
        Some(Self { version, fields, tensors, data: bytes.get(at..)?.to_vec() })
    }

    fn apply(&mut self, change: Change) {
        let [fields, tensors] = [self.fields.len(), self.tensors.len()];
        let field = |i: u8| usize::from(i) % fields.max(1);
        let tensor = |i: u8| usize::from(i) % tensors.max(1);
        if fields == 0 || tensors == 0 {
            return;
        }
        match change {
            Change::Version(version) => self.version = version,
            Change::Value { field: at, value } => self.fields[field(at)].set(value),
            Change::Key { field: at, other } => {
                self.fields[field(at)].key = self.fields[field(other)].key.clone();
            }
            Change::Repeat { field: at } => self.fields.push(self.fields[field(at)].clone()),
            Change::LeaveOut { field: at } => {
                self.fields.remove(field(at));
            }
            Change::Array { field: at, kind, length, bytes } => {
                let mut value = u32::from(kind).to_le_bytes().to_vec();
                value.extend(length.get().to_le_bytes());
                value.extend(bytes);
                let field = &mut self.fields[field(at)];
                (field.kind, field.value) = (9, value);
            }
            Change::Sizes { tensor: at, sizes } => {
                self.tensors[tensor(at)].sizes = sizes.into_iter().map(Number::get).collect();
            }
            Change::Kind { tensor: at, kind } => self.tensors[tensor(at)].kind = kind.into(),
            Change::Offset { tensor: at, offset } => self.tensors[tensor(at)].offset = offset.get(),
            Change::Name { tensor: at, other } => {
                self.tensors[tensor(at)].name = self.tensors[tensor(other)].name.clone();
            }
            Change::RepeatTensor { tensor: at } => {
                self.tensors.push(self.tensors[tensor(at)].clone());
            }
            Change::LeaveOutTensor { tensor: at } => {
                self.tensors.remove(tensor(at));
            }
            Change::Counts { .. } | Change::Cut(_) | Change::Byte { .. } => {}
        }
    }

    fn write(&self, counts: Option<[u64; 2]>) -> Vec<u8> {
        let own = [self.tensors.len() as u64, self.fields.len() as u64];
        let [tensors, fields] = counts.unwrap_or(own);
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(tensors.to_le_bytes());
        out.extend(fields.to_le_bytes());
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text);
        };
        for field in &self.fields {
            text(&mut out, &field.key);
            out.extend(field.kind.to_le_bytes());
            out.extend(&field.value);
        }
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.sizes.len() as u32).to_le_bytes());
            tensor.sizes.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

impl Field {
    fn set(&mut self, value: Value) {
        (self.kind, self.value) = match value {
            Value::U32(n) => (4, (n.get() as u32).to_le_bytes().to_vec()),
            Value::U64(n) => (10, n.get().to_le_bytes().to_vec()),
            Value::I32(n) => (5, (n.get() as i32).to_le_bytes().to_vec()),
            Value::F32(x) => (6, x.to_le_bytes().to_vec()),
            Value::Bool(b) => (7, vec![b]),
            Value::Text(text) => {
                let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
                bytes.extend(text.bytes());
                (8, bytes)
            }
            Value::LongText { length } => (8, length.get().to_le_bytes().to_vec()),
            Value::Kind(kind) => (kind.into(), self.value.clone()),
        };
    }
}

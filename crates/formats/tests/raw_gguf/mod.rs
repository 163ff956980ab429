//! A GGUF file as loose parts, so that a test can put any of them wrong. Independent of the reader
//! under test; it trusts its input.
#![allow(dead_code)]

pub const U8: u32 = 0;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;
pub const I64: u32 = 11;
pub const F64: u32 = 12;

#[derive(Clone)]
pub struct Entry {
    pub key: Vec<u8>,
    /// Instead of the key's true length.
    pub key_length: Option<u64>,
    pub kind: u32,
    pub value: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: Vec<u8>,
    pub name_length: Option<u64>,
    /// Instead of the number of dimensions.
    pub rank: Option<u32>,
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

/// The parts of a file. `data` begins at the first multiple of `alignment` after the descriptions.
#[derive(Clone)]
pub struct Raw {
    pub magic: Vec<u8>,
    pub version: u32,
    pub entry_count: Option<u64>,
    pub tensor_count: Option<u64>,
    pub entries: Vec<Entry>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn take(&mut self, n: usize) -> Vec<u8> {
        let (part, rest) = self.0.split_at(n);
        self.0 = rest;
        part.to_vec()
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("4 bytes"))
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("8 bytes"))
    }
    fn string(&mut self) -> Vec<u8> {
        let n = self.u64();
        self.take(n as usize)
    }
    /// The bytes of a value of type `kind`.
    fn value(&mut self, kind: u32) -> Vec<u8> {
        let before = self.0;
        match kind {
            0 | 1 | 7 => drop(self.take(1)),
            2 | 3 => drop(self.take(2)),
            4..=6 => drop(self.take(4)),
            8 => drop(self.string()),
            9 => {
                let (element, count) = (self.u32(), self.u64());
                (0..count).for_each(|_| drop(self.value(element)));
            }
            _ => drop(self.take(8)),
        }
        before[..before.len() - self.0.len()].to_vec()
    }
}

impl Raw {
    /// Takes a valid file with the default alignment apart.
    pub fn parse(file: &[u8]) -> Self {
        let mut p = Parts(file);
        let (magic, version) = (p.take(4), p.u32());
        let (tensor_count, entry_count) = (p.u64(), p.u64());
        let entry = |p: &mut Parts| {
            let (key, kind) = (p.string(), p.u32());
            Entry { key, key_length: None, kind, value: p.value(kind) }
        };
        let entries = (0..entry_count).map(|_| entry(&mut p)).collect();
        let tensor = |p: &mut Parts| {
            let (name, rank) = (p.string(), p.u32());
            let dimensions = (0..rank).map(|_| p.u64()).collect();
            Tensor {
                name,
                name_length: None,
                rank: None,
                dimensions,
                kind: p.u32(),
                offset: p.u64(),
            }
        };
        let tensors = (0..tensor_count).map(|_| tensor(&mut p)).collect();
        let data = file[(file.len() - p.0.len()).next_multiple_of(32)..].to_vec();
        Raw {
            magic,
            version,
            entry_count: None,
            tensor_count: None,
            entries,
            tensors,
            alignment: 32,
            data,
        }
    }

    /// Everything before the data, without padding.
    pub fn header(&self) -> Vec<u8> {
        let mut out = self.magic.clone();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        for e in &self.entries {
            out.extend(e.key_length.unwrap_or(e.key.len() as u64).to_le_bytes());
            out.extend(&e.key);
            out.extend(e.kind.to_le_bytes());
            out.extend(&e.value);
        }
        for t in &self.tensors {
            out.extend(t.name_length.unwrap_or(t.name.len() as u64).to_le_bytes());
            out.extend(&t.name);
            out.extend(t.rank.unwrap_or(t.dimensions.len() as u32).to_le_bytes());
            t.dimensions.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.to_le_bytes());
        }
        out
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }

    pub fn entry(&mut self, key: &str) -> &mut Entry {
        self.entries
            .iter_mut()
            .find(|e| e.key == key.as_bytes())
            .unwrap_or_else(|| panic!("no key {key}"))
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key.as_bytes())
    }

    /// Sets or adds a key.
    pub fn set(&mut self, key: &str, kind: u32, value: impl Into<Vec<u8>>) {
        self.remove(key);
        self.entries.push(Entry { key: key.into(), key_length: None, kind, value: value.into() });
    }

    pub fn set_u32(&mut self, key: &str, value: u32) {
        self.set(key, U32, value.to_le_bytes());
    }

    pub fn set_f32(&mut self, key: &str, value: f32) {
        self.set(key, F32, value.to_le_bytes());
    }

    pub fn set_string(&mut self, key: &str, value: &str) {
        self.set(key, STRING, string(value.as_bytes()));
    }

    pub fn remove(&mut self, key: &str) {
        self.entries.retain(|e| e.key != key.as_bytes());
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|t| t.name == name.as_bytes())
            .unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The data from where tensor `name` begins.
    pub fn data_of(&mut self, name: &str) -> &mut [u8] {
        let offset = self.tensor(name).offset as usize;
        &mut self.data[offset..]
    }
}

/// A string as the file stores it.
pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// An array as the file stores it.
pub fn array(element: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// An array of strings.
pub fn strings(texts: &[&str]) -> Vec<u8> {
    let elements: Vec<u8> = texts.iter().flat_map(|t| string(t.as_bytes())).collect();
    array(STRING, texts.len() as u64, &elements)
}

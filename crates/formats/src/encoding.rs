//! Text from strangers: UTF-8, with or without a byte order mark. Whatever else it is, is said by
//! name.

use crate::json::BYTE_ORDER_MARK;

/// As many bytes as are looked at to tell an encoding without a mark.
const LOOKED_AT: usize = 4096;

/// Encodings by their mark. UTF-32 comes first: its mark begins as that of UTF-16.
const MARKS: [(&[u8], &str); 4] = [
    (&[0xff, 0xfe, 0, 0], "UTF-32 text (little-endian)"),
    (&[0, 0, 0xfe, 0xff], "UTF-32 text (big-endian)"),
    (&[0xff, 0xfe], "UTF-16 text (little-endian)"),
    (&[0xfe, 0xff], "UTF-16 text (big-endian)"),
];

/// Files that are no text, by how they begin.
const BINARY: [(&[u8], &str); 16] = [
    (&[0x1f, 0x8b], "a gzip archive"),
    (&[b'P', b'K', 3, 4], "a zip archive (or an office document)"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "a zstd archive"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"BZh", "a bzip2 archive"),
    (b"PAR1", "a Parquet table"),
    (b"ARROW1", "an Arrow table"),
    (b"Obj\x01", "an Avro table"),
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"GGUF", "a GGUF model"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
];

/// Bytes that are no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotText {
    /// Offset of the first byte that is no UTF-8; 0 if all of them are something else.
    pub offset: usize,
    /// Its line, from 1.
    pub line: usize,
    /// What they are instead, and what would work.
    pub reason: String,
}

/// Returns the text of `bytes` without a byte order mark.
pub fn text(bytes: Vec<u8>) -> Result<String, NotText> {
    if let Some(reason) = named(&bytes) {
        return Err(NotText { offset: 0, line: 1, reason });
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to();
        let (before, rest) = e.as_bytes().split_at(offset);
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        NotText { offset, line, reason: not_utf8(rest) }
    })?;
    if text.as_bytes().starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(text)
}

/// What bytes are that begin as no UTF-8 text does, and what would work; None if they may be one.
pub fn named(bytes: &[u8]) -> Option<String> {
    let of = |list: &[(&[u8], &'static str)]| {
        list.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, name)| *name)
    };
    if let Some(name) = of(&MARKS).or_else(|| unmarked(bytes)) {
        return Some(format!("{name}; save it as UTF-8"));
    }
    of(&BINARY).map(|name| format!("{name}, not a text; extract the text as UTF-8"))
}

/// UTF-16 or UTF-32 without a mark: in most scripts every second byte, or three of four, are zeros.
fn unmarked(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(LOOKED_AT) / 4 * 4];
    let zeros = |places: &[usize]| {
        let all = start.chunks(4).flat_map(|four| places.iter().map(|&place| four[place]));
        let (zeros, count) = all.fold((0, 0), |(z, n), b| (z + usize::from(b == 0), n + 1));
        // Text has other characters now and then.
        count > 0 && zeros * 10 >= count * 9
    };
    let none =
        |places: &[usize]| start.chunks(4).all(|four| places.iter().all(|&place| four[place] != 0));
    match () {
        () if zeros(&[1, 2, 3]) && none(&[0]) => Some(MARKS[0].1),
        () if zeros(&[0, 1, 2]) && none(&[3]) => Some(MARKS[1].1),
        () if zeros(&[1, 3]) && none(&[0, 2]) => Some(MARKS[2].1),
        () if zeros(&[0, 2]) && none(&[1, 3]) => Some(MARKS[3].1),
        () => None,
    }
}

/// About bytes from the first on that is no UTF-8.
fn not_utf8(rest: &[u8]) -> String {
    let controls = |b: &&u8| **b < 32 && !b.is_ascii_whitespace() && **b != 0x1b;
    let start = &rest[..rest.len().min(LOOKED_AT)];
    if start.iter().filter(controls).count() * 50 > start.len() {
        return "not a text: bytes of control characters; give a file of UTF-8 text".into();
    }
    // A letter of these has one byte, and letters without accents stand around it.
    let single = |pair: &[u8]| pair[0] >= 0x80 && pair[1] < 0x80;
    let singles = start.windows(2).filter(|pair| single(pair)).count();
    let high = start.iter().filter(|b| **b >= 0x80).count();
    let name = if singles * 4 >= high * 3 {
        "probably Windows-1252 or Latin-1"
    } else {
        "another encoding, such as GBK, Shift JIS, EUC-KR or KOI8-R"
    };
    format!("not UTF-8 text ({name}); save it as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAYING: &str = "Gr\u{fc}\u{df}e aus K\u{f6}ln: a new day begins, and na\u{ef}ve too.";

    fn sixteen(text: &str, mark: bool, big: bool) -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    }

    fn thirty_two(text: &str, mark: bool, big: bool) -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.chars().map(u32::from));
        units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    }

    #[test]
    fn utf8_is_read_without_its_mark() {
        for mark in ["", "\u{feff}"] {
            let read = text(format!("{mark}{SAYING}").into_bytes());
            assert_eq!(read.as_deref().ok(), Some(SAYING));
        }
        for short in ["", "a", "ab", "abc", "\0", "a\0b and a stray zero"] {
            assert_eq!(text(short.into()).as_deref().ok(), Some(short));
        }
    }

    #[test]
    fn other_encodings_and_formats_are_named() {
        let mut cases: Vec<(Vec<u8>, &str)> = vec![];
        for mark in [true, false] {
            cases.push((sixteen(SAYING, mark, false), "UTF-16 text (little-endian)"));
            cases.push((sixteen(SAYING, mark, true), "UTF-16 text (big-endian)"));
            cases.push((thirty_two(SAYING, mark, false), "UTF-32 text (little-endian)"));
            cases.push((thirty_two(SAYING, mark, true), "UTF-32 text (big-endian)"));
        }
        let latin: Vec<u8> = SAYING.chars().map(|c| u32::from(c) as u8).collect();
        cases.push((latin, "Windows-1252 or Latin-1"));
        // "Nihongo no bun" in Shift JIS.
        let japanese = b"\x93\xfa\x96\x7b\x8c\xea\x82\xcc\x95\xb6\x81\x42".repeat(4);
        cases.push((japanese, "Shift JIS"));
        cases.push((vec![b'a', 1, 2, 0xff, 3, 4, 5, 6, 7], "not a text"));
        cases.extend(BINARY.map(|(start, name)| (start.to_vec(), name)));
        let count = cases.len();
        for (bytes, words) in cases {
            let NotText { reason, .. } = text(bytes).expect_err(words);
            assert!(reason.contains(words), "{words}: {reason}");
        }
        println!("{count} encodings and formats are named");
    }
}

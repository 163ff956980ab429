//! GPT-2's byte alphabet: every byte has one printable character, so that a byte string is a string
//! of characters a vocabulary can hold.
//!
//! The printable bytes of Latin-1 are their own characters; the other 68 get those from U+0100
//! on, in order of their value.

/// One past the last character that represents a byte.
const END: usize = 0x144;

fn printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The alphabet in both directions.
pub struct ByteAlphabet {
    chars: [char; 256],
    bytes: [Option<u8>; END],
}

impl ByteAlphabet {
    pub fn new() -> Self {
        let mut alphabet = Self { chars: ['\0'; 256], bytes: [None; END] };
        let mut next = 0x100;
        for byte in 0..=255u8 {
            let char = if printable(byte) {
                byte as char
            } else {
                next += 1;
                char::from_u32(next - 1).expect("below U+0144")
            };
            alphabet.chars[byte as usize] = char;
            alphabet.bytes[char as usize] = Some(byte);
        }
        alphabet
    }

    pub fn char(&self, byte: u8) -> char {
        self.chars[byte as usize]
    }

    pub fn byte(&self, char: char) -> Option<u8> {
        *self.bytes.get(char as usize)?
    }

    /// Writes `bytes` into `text` in the alphabet, replacing what was there.
    pub fn spell(&self, bytes: &[u8], text: &mut String) {
        text.clear();
        text.extend(bytes.iter().map(|&b| self.char(b)));
    }

    /// Whether every byte has a token of its own.
    pub fn is_whole_in(&self, tokens: &[String]) -> bool {
        let mut missing: std::collections::HashSet<char> = self.chars.into_iter().collect();
        for token in tokens {
            let mut chars = token.chars();
            if let (Some(char), None) = (chars.next(), chars.next()) {
                missing.remove(&char);
            }
        }
        missing.is_empty()
    }

    /// The bytes that `text` spells, None if a character is outside the alphabet.
    pub fn read(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.byte(c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_printable_character() {
        let alphabet = ByteAlphabet::new();
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..=255 {
            let char = alphabet.char(byte);
            assert!(
                seen.insert(char) && !char.is_control() && !char.is_whitespace(),
                "byte {byte}: {char:?}"
            );
            assert_eq!(alphabet.byte(char), Some(byte));
        }
        assert_eq!(
            (alphabet.char(b' '), alphabet.char(b'\n'), alphabet.char(b'a')),
            ('Ġ', 'Ċ', 'a')
        );
        assert_eq!((alphabet.byte(' '), alphabet.byte('😀')), (None, None));
    }
}

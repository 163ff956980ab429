//! Names of the files that one model is split over: `name-00001-of-00003.gguf`.

/// A name of the form `<stem>-<number>-of-<count><ending>`, the numbers of five digits or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbered<'a> {
    /// What stands before the number.
    pub stem: &'a str,
    /// From 1.
    pub number: usize,
    /// Number of files.
    pub count: usize,
    ending: &'a str,
}

impl<'a> Numbered<'a> {
    /// The parts of `name`, if it is of that form with this ending and its number is within the
    /// count.
    pub fn parse(name: &'a str, ending: &'a str) -> Option<Self> {
        let digits = |text: &str| {
            let plain = text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<usize>().ok()).flatten()
        };
        let (rest, count) = name.strip_suffix(ending)?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (number, count) = (digits(number)?, digits(count)?);
        (1..=count).contains(&number).then_some(Self { stem, number, count, ending })
    }

    /// The name of file `number`.
    pub fn name(&self, number: usize) -> String {
        format!("{}-{number:05}-of-{:05}{}", self.stem, self.count, self.ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_taken_apart_and_made() {
        let name = "some-model-00002-of-00012.gguf";
        let parts = Numbered::parse(name, ".gguf").expect("of that form");
        assert_eq!((parts.stem, parts.number, parts.count), ("some-model", 2, 12));
        assert_eq!(parts.name(2), name);
        assert_eq!(parts.name(11), "some-model-00011-of-00012.gguf");
    }

    #[test]
    fn other_names_are_no_parts() {
        for name in [
            "model.gguf",
            "model-00001-of-00002.safetensors",
            "model-1-of-2.gguf",
            "model-00003-of-00002.gguf",
            "model-00000-of-00002.gguf",
            "model-+0001-of-00002.gguf",
            "00001-of-00002.gguf",
            "model-00001-of-99999999999999999999999.gguf",
        ] {
            assert_eq!(Numbered::parse(name, ".gguf"), None, "{name}");
        }
    }
}

//! The search for a pattern in a text, in linear time: the regex crate, which has an engine for every
//! occasion, and in the module that browsers fetch one of these engines alone, a lazy DFA. Both
//! find the same.

#[cfg(target_arch = "wasm32")]
pub use lazy::Search;
#[cfg(not(target_arch = "wasm32"))]
pub use whole::Search;

#[cfg(not(target_arch = "wasm32"))]
mod whole {
    use regex::Regex;

    /// A pattern.
    pub struct Search(Regex);

    impl Search {
        /// A pattern that is right, as ours are.
        pub fn new(pattern: &str) -> Self {
            Self(Regex::new(pattern).expect("our own pattern"))
        }

        /// Start and end of the first match that begins at `from` or later.
        pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
            self.0.find_at(text, from).map(|found| (found.start(), found.end()))
        }
    }
}

#[cfg(any(target_arch = "wasm32", test))]
mod lazy {
    use regex_automata::Input;
    use regex_automata::hybrid::regex::{Cache, Regex};
    use std::sync::{Mutex, PoisonError};

    /// A pattern, and the states that earlier searches met.
    pub struct Search {
        regex: Regex,
        states: Mutex<Cache>,
    }

    impl Search {
        /// A pattern that is right, as ours are.
        pub fn new(pattern: &str) -> Self {
            let regex = Regex::new(pattern).expect("our own pattern");
            let states = Mutex::new(regex.create_cache());
            Self { regex, states }
        }

        /// Start and end of the first match that begins at `from` or later.
        pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
            // What a search leaves half done, the next one does again.
            let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            let found = self.regex.try_search(&mut states, &Input::new(text).range(from..));
            // No pattern of ours asks for what a DFA gives up on.
            found.ok().flatten().map(|found| (found.start(), found.end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pre;
    use super::{lazy, whole};

    #[test]
    fn both_engines_find_the_same() {
        for pattern in pre::searched() {
            let (lazy, whole) = (lazy::Search::new(&pattern), whole::Search::new(&pattern));
            let config = proptest::test_runner::Config::with_cases(64);
            let text = "(?s)([a-z'éß半한\u{301} \\n\\t1-9.,!#]|\\PC){0,60}";
            proptest::proptest!(config, |(text in text)| {
                let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
                for from in starts {
                    let (lazy, whole) = (lazy.find(&text, from), whole.find(&text, from));
                    proptest::prop_assert_eq!(lazy, whole, "{} from {}", pattern, from);
                }
            });
        }
    }
}

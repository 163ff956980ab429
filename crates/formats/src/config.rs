//! config.json of Hugging Face: to and from [`crate::Architecture`].

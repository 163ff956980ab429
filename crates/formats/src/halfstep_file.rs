//! The `halfstep` file: safetensors with packed codes and scales, documented in docs/format.md.

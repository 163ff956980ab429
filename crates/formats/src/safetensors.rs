//! safetensors: a strict reader (no hole, overlap, duplicate or trailing byte) and a writer.

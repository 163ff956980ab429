//! ggml block codecs as byte layouts, one file each.

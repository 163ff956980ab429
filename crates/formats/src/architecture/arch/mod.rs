//! One file per family.

use super::family::Family;

/// The list of families: the file's name and the type in it. To add one is to add a line.
macro_rules! families {
    ($($module:ident $family:ident,)*) => {
        $(mod $module;)*
        pub const ALL: &[&dyn Family] = &[$(&$module::$family),*];
    };
}

families! {
    llama Llama,
    qwen2 Qwen2,
    qwen3 Qwen3,
}

//! The macro that declares a recipe's options.

/// Declares the options of a recipe: those that every recipe has ([`Common`](super::Common)), then
/// its own, each with its default; without one, that of its type. Makes the struct that is read
/// from JSON and declared in TypeScript, where every option may be left out.
#[macro_export]
macro_rules! options {
    (@default $type:ty) => { <$type>::default() };
    (@default $type:ty, $default:expr) => { $default };
    ($(#[$docs:meta])* $config:ident {
        $($(#[$attribute:meta])* $option:ident: $type:ty $(= $default:expr)?),* $(,)?
    }) => {
        $(#[$docs])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::ts_rs::TS)]
        #[serde(default, rename_all = "camelCase")]
        #[ts(optional_fields)]
        pub struct $config {
            /// Options of every recipe: target, bits, group size, activations, cache.
            #[serde(flatten)]
            pub common: $crate::recipe::Common,
            $($(#[$attribute])* pub $option: $type,)*
        }

        impl Default for $config {
            fn default() -> Self {
                Self {
                    common: $crate::recipe::Common::default(),
                    $($option: $crate::options!(@default $type $(, $default)?),)*
                }
            }
        }
    };
}

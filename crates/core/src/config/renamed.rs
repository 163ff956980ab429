//! Names that options, fields and values had in earlier versions. Whoever still uses one gets an
//! error with the name of today. The command line reads the same table
//! (`ts/src/generated/options.ts`).

/// The version that renamed everything below.
pub const SINCE: &str = "0.2.0";

/// Options of recipes and runs, and fields of whole recipes: the old name and the new one.
pub const FIELDS: &[(&str, &str)] = &[
    ("window", "sequenceLength"),
    ("start", "observer"),
    ("learnSteps", "learnScales"),
    ("weightStepMultiplier", "weightScaleMultiplier"),
    ("activationStepMultiplier", "activationScaleMultiplier"),
    ("saliencyPlace", "saliencyDifference"),
    ("partition", "granularity"),
    ("place", "difference"),
];

/// Values of fields: the old name and the new one.
pub(crate) const VALUES: &[(&str, &str)] = &[
    // Of `gradientScale`.
    ("layer", "matrix"),
    ("step", "group"),
    // Of `range`.
    ("step", "scale"),
    ("stepZero", "scaleZero"),
];

/// Returns the new name of `old` if it is one of the `known` names.
pub(super) fn new_name(
    names: &[(&str, &'static str)],
    old: &str,
    known: &[&str],
) -> Option<&'static str> {
    let renamed = names.iter().filter(|(name, _)| *name == old).map(|(_, new)| *new);
    renamed.into_iter().find(|new| known.contains(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_is_renamed_only_where_its_new_name_is_known() {
        assert_eq!(
            new_name(FIELDS, "window", &["samples", "sequenceLength"]),
            Some("sequenceLength")
        );
        assert_eq!(new_name(FIELDS, "window", &["samples"]), None);
        assert_eq!(new_name(VALUES, "step", &["matrix", "group"]), Some("group"));
        assert_eq!(new_name(VALUES, "step", &["frozen", "scale"]), Some("scale"));
    }
}

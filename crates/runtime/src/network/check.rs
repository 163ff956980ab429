//! What is refused of a graph before anything is built.

use crate::Result;
use halfstep_formats::architecture::{Attention, Experts};
use halfstep_formats::{Error as FormatError, Model};

/// Refuses numbers of a graph that would leave nothing to compute with.
pub(super) fn check_graph(model: &Model) -> Result<()> {
    let a = &model.architecture;
    for (i, layer) in a.layers.iter().enumerate() {
        let attention = layer.attention().expect("attention");
        let fits = |source: &Attention| {
            source.kv_from.is_none()
                && (source.kv_heads, source.head_dim) == (attention.kv_heads, attention.head_dim)
        };
        let reason = match (attention.kv_from, layer.feed_forward.experts()) {
            (Some(source), _) if source >= i || !a.layers[source].attention().is_some_and(fits) => {
                format!("it reads keys and values of layer {source}, which has none that fit")
            }
            (_, Some(experts)) if !can_choose(experts) => {
                format!("each token uses {} of {} experts", experts.used, experts.count)
            }
            _ if attention.window == Some(0) => "its window has no positions".into(),
            _ => continue,
        };
        let (file, name) = (model.name.clone(), format!("layer {i}"));
        return Err(FormatError::Unsupported { file, name, reason }.into());
    }
    Ok(())
}

/// Whether as many experts as a token uses are left to choose from.
fn can_choose(experts: &Experts) -> bool {
    let Some([groups, kept]) = experts.routing.groups else {
        return (1..=experts.count).contains(&experts.used);
    };
    groups > 0
        && experts.count.is_multiple_of(groups)
        && kept <= groups
        && (1..=kept * (experts.count / groups)).contains(&experts.used)
}

//! ImageNet (ILSVRC 2012): its classes, and the layouts in which people have it.

mod matlab;
mod truth;

use std::sync::LazyLock;

pub(super) use truth::{Truth, number_of};

/// A synset and a class name a line, in the order of labels (see `embedded/README.md`).
static CLASSES: &str = include_str!("../../../embedded/imagenet_classes.tsv");
static TEMPLATES: &str = include_str!("../../../embedded/imagenet_templates.txt");

static TABLE: LazyLock<(Vec<&str>, Vec<String>)> = LazyLock::new(|| {
    CLASSES.lines().filter_map(|line| line.split_once('\t')).map(|(synset, name)| (synset, name.to_owned())).unzip()
});

/// The 1,000 class names that OpenAI's CLIP was measured with, in the order of the sorted synsets. Two names stand for two
/// classes each (`missile`, `sunglasses`).
pub fn imagenet_classes() -> &'static [String] {
    &TABLE.1
}

/// The 1,000 synsets (`n01440764`), sorted: a class' label is its place here.
pub fn imagenet_synsets() -> &'static [&'static str] {
    &TABLE.0
}

/// The 80 prompt templates that OpenAI's CLIP was measured with, `{}` for the class.
pub fn imagenet_templates() -> Vec<&'static str> {
    TEMPLATES.lines().collect()
}

/// The label of a synset.
pub(super) fn label_of(synset: &str) -> Option<usize> {
    imagenet_synsets().binary_search(&synset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_those_that_others_measure_with() {
        let (classes, synsets) = (imagenet_classes(), imagenet_synsets());
        assert_eq!((classes.len(), synsets.len(), imagenet_templates().len()), (1000, 1000, 80));
        assert!(synsets.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((label_of("n01440764"), classes[0].as_str()), (Some(0), "tench"));
        assert_eq!((label_of("n02124075"), classes[285].as_str()), (Some(285), "Egyptian Mau"));
        assert_eq!(classes[999], "toilet paper");
        assert!(imagenet_templates().iter().all(|template| template.matches("{}").count() == 1));
    }
}

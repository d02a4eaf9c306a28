//! The words: names of classes, attributes, sentences.

use runner_contract::Random;

use super::{Caption, Measures};

/// Class–attribute combinations that no caption names together, so that whether a model puts words together can be
/// measured on combinations that it was never told. The pictures themselves do occur in training.
const HELD_OUT: &[(&str, &str)] = &[
    ("3", "thick"),
    ("7", "thin"),
    ("0", "thin"),
    ("9", "thick"),
    ("5", "right-slanted"),
    ("2", "left-slanted"),
    ("Bag", "bright"),
    ("Sneaker", "bright"),
    ("Sandal", "dark"),
    ("Coat", "dark"),
];

/// Sentences that no caption is made from, to measure how much hangs on the wording. The first ones are for digits, the
/// last ones for things.
pub const HELD_OUT_TEMPLATES: &[&str] = &[
    "this is a {}, written by hand.",
    "an image of the number \"{}\"",
    "{}, a handwritten digit",
    "this is a {}.",
    "a picture of one {}",
    "{}, a piece of clothing",
];

/// Names of digits.
const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Other names of classes, beside their own in lower case.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("T-shirt/top", &["t-shirt", "top"]),
    ("Trouser", &["pair of trousers", "trousers"]),
    ("Pullover", &["sweater"]),
    ("Sandal", &["open shoe"]),
    ("Sneaker", &["sports shoe"]),
    ("Bag", &["handbag"]),
    ("Ankle boot", &["boot"]),
];

/// A digit's own sentence comes most often; it is CLIP's for MNIST.
const DIGIT_TEMPLATES: &[&str] = &[
    "a photo of the number: \"{}\".",
    "a photo of the number: \"{}\".",
    "a photo of the number {}.",
    "the number {}",
    "the digit {}",
    "a handwritten {}",
    "a handwritten digit {}",
    "a drawing of the digit {}.",
    "a scan of a handwritten {}.",
    "a picture of a {}",
    "someone wrote a {}",
    "{}",
];

const DIGIT_TEMPLATES_WITH: &[&str] = &[
    "a photo of the {a} number: \"{}\".",
    "a {a} {}",
    "a {a} handwritten {}",
    "the digit {}, {a}",
    "a {a} number {}",
    "a picture of a {a} {}.",
];

const DIGITS_IN_GENERAL: &[&str] = &["a {a} digit", "a {a} handwritten number", "something {a}, a digit"];

const THING_TEMPLATES: &[&str] = &[
    "a photo of a {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}",
    "an image of a {}",
    "a product photo of a {}.",
    "a {} on a black background",
    "a {}",
    "the {}",
    "{}",
];

const THING_TEMPLATES_WITH: &[&str] =
    &["a photo of a {a} {}.", "a {a} {}", "a product photo of a {a} {}.", "the {}, {a}", "a picture of a {a} {}."];

const THINGS_IN_GENERAL: &[&str] = &["a photo of something {a}.", "a {a} thing", "a {a} piece of clothing"];

/// Two opposite words for a measure, with the bounds from which on they are said, and those up to which they are false.
struct Axis {
    measure: fn(&Measures) -> f64,
    low: Word,
    high: Word,
}

/// An attribute.
struct Word {
    /// What it is called in claims and facts; also a way to say it.
    name: &'static str,
    /// Another way to say it.
    other: &'static str,
    /// Said beyond this.
    clear: f64,
    /// Not false beyond this.
    possible: f64,
}

const fn word(name: &'static str, other: &'static str, clear: f64, possible: f64) -> Word {
    Word { name, other, clear, possible }
}

/// Bounds are about the quartiles of MNIST's training digits; `possible` about the 40th and 60th percentile.
const DIGIT_AXES: &[Axis] = &[
    Axis { measure: |m| m.stroke, low: word("thin", "fine", 2.05, 2.26), high: word("thick", "bold", 2.82, 2.55) },
    Axis {
        measure: |m| m.slant,
        low: word("left-slanted", "leaning left", -0.08, 0.02),
        high: word("right-slanted", "leaning right", 0.27, 0.15),
    },
    Axis { measure: |m| m.size, low: word("small", "little", 0.576, 0.6), high: word("large", "big", 0.678, 0.64) },
];

/// The same of Fashion-MNIST's.
const THING_AXES: &[Axis] = &[
    Axis { measure: |m| m.brightness, low: word("dark", "dim", 0.5, 0.6), high: word("bright", "pale", 0.75, 0.69) },
    Axis { measure: |m| m.size, low: word("small", "little", 0.69, 0.78), high: word("large", "big", 0.886, 0.845) },
    Axis { measure: |m| m.aspect, low: word("wide", "broad", 0.7, 1.1), high: word("tall", "long", 1.6, 1.35) },
];

/// Whether training captions leave out this class together with this attribute.
pub fn is_held_out(class: &str, attribute: &str) -> bool {
    HELD_OUT.contains(&(class, attribute))
}

/// Every attribute there is a word for.
pub(super) fn attributes() -> impl Iterator<Item = &'static str> {
    let mut seen = Vec::new();
    DIGIT_AXES.iter().chain(THING_AXES).flat_map(|axis| [axis.low.name, axis.high.name]).filter(move |name| {
        let new = !seen.contains(name);
        seen.push(name);
        new
    })
}

/// What a class's pictures show, and the words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    name: String,
    digit: bool,
    /// What it is called, the usual name first.
    names: Vec<String>,
}

impl Subject {
    /// The subject of a class: a digit if it is called `0` to `9`, otherwise a thing.
    pub fn new(class: &str) -> Self {
        let digit = class.parse::<usize>().ok().filter(|_| class.len() == 1).and_then(|digit| DIGITS.get(digit));
        let synonyms = SYNONYMS.iter().find(|(name, _)| *name == class).map_or(&[][..], |(_, names)| names);
        let others = digit.into_iter().chain(synonyms).map(|&name| name.to_owned());
        let names = std::iter::once(class.to_lowercase()).chain(others).collect();
        Self { name: class.to_owned(), digit: digit.is_some(), names }
    }

    /// The class's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn axes(&self) -> &'static [Axis] {
        if self.digit { DIGIT_AXES } else { THING_AXES }
    }

    fn sort(&self) -> &'static str {
        if self.digit { "digit" } else { "thing" }
    }

    /// The attributes that hold clearly.
    fn clear(&self, measures: &Measures) -> Vec<&'static Word> {
        let mut words = Vec::new();
        for axis in self.axes() {
            let value = (axis.measure)(measures);
            words.extend((value <= axis.low.clear).then_some(&axis.low));
            words.extend((value >= axis.high.clear).then_some(&axis.high));
        }
        words
    }

    /// Whether an attribute holds clearly.
    pub(super) fn clearly(&self, measures: &Measures, attribute: &str) -> bool {
        self.clear(measures).iter().any(|word| word.name == attribute)
    }

    /// What is not false of the picture.
    pub(super) fn facts(&self, measures: &Measures) -> Vec<String> {
        let mut facts = vec![format!("class:{}", self.name), self.sort().to_owned()];
        for axis in self.axes() {
            let value = (axis.measure)(measures);
            facts.extend((value <= axis.low.possible).then(|| axis.low.name.to_owned()));
            facts.extend((value >= axis.high.possible).then(|| axis.high.name.to_owned()));
        }
        facts
    }

    /// A sentence: of the class alone (half of them), of class and attributes, or (one in ten) of attributes alone.
    pub(super) fn caption(&self, measures: &Measures, random: &mut Random) -> Caption {
        let mut clear = self.clear(measures);
        random.shuffle(&mut clear);
        let kind = random.uniform();
        if kind < 0.1 && !clear.is_empty() {
            let general = if self.digit { DIGITS_IN_GENERAL } else { THINGS_IN_GENERAL };
            return sentence(pick(general, random), "", &clear[..1], vec![self.sort().to_owned()], random);
        }
        let said: Vec<_> = clear.into_iter().filter(|word| !is_held_out(&self.name, word.name)).collect();
        let claims = vec![format!("class:{}", self.name)];
        let name = self.pick_name(random);
        if kind < 0.5 && !said.is_empty() {
            let with = if self.digit { DIGIT_TEMPLATES_WITH } else { THING_TEMPLATES_WITH };
            let words = 1 + random.below(said.len().min(2));
            return sentence(pick(with, random), name, &said[..words], claims, random);
        }
        let plain = if self.digit { DIGIT_TEMPLATES } else { THING_TEMPLATES };
        sentence(pick(plain, random), name, &[], claims, random)
    }

    /// The usual name twice as often as the others together.
    fn pick_name(&self, random: &mut Random) -> &str {
        let others = self.names.len() - 1;
        let usual = others == 0 || random.uniform() < 2.0 / 3.0;
        &self.names[if usual { 0 } else { 1 + random.below(others) }]
    }
}

fn pick<'a>(items: &[&'a str], random: &mut Random) -> &'a str {
    items[random.below(items.len())]
}

/// Fills a template in: `{}` with the name, `{a}` with the attributes.
fn sentence(template: &str, name: &str, words: &[&Word], mut claims: Vec<String>, random: &mut Random) -> Caption {
    let said: Vec<_> = words.iter().map(|word| if random.uniform() < 0.75 { word.name } else { word.other }).collect();
    claims.extend(words.iter().map(|word| word.name.to_owned()));
    Caption { text: template.replace("{a}", &said.join(", ")).replace("{}", name), claims }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THICK: Measures = Measures { stroke: 4.0, slant: 0.4, size: 0.7, brightness: 0.8, aspect: 1.0 };
    const BETWEEN: Measures = Measures { stroke: 2.6, slant: 0.1, size: 0.62, brightness: 0.65, aspect: 1.2 };

    fn captions(class: &str, measures: &Measures) -> Vec<Caption> {
        let subject = Subject::new(class);
        let mut random = Random::new(0, "captions", class);
        (0..500).map(|_| subject.caption(measures, &mut random)).collect()
    }

    #[test]
    fn what_a_caption_claims_is_a_fact_of_its_picture() {
        for class in ["3", "4", "Bag", "Ankle boot", "golden retriever"] {
            let facts = Subject::new(class).facts(&THICK);
            for caption in captions(class, &THICK) {
                assert!(caption.claims.iter().all(|claim| facts.contains(claim)), "{caption:?} {facts:?}");
                assert!(!caption.text.contains('{'), "{caption:?}");
            }
        }
    }

    #[test]
    fn numerals_words_and_attributes_all_occur() {
        let all: Vec<_> = captions("4", &THICK).into_iter().map(|caption| caption.text).collect();
        for part in ["\"4\"", "four", "thick", "right-slanted", "large", "digit"] {
            assert!(all.iter().any(|text| text.contains(part)), "{part}");
        }
        assert!(captions("Trouser", &THICK).iter().any(|caption| caption.text.contains("bright")));
    }

    #[test]
    fn held_out_combinations_are_never_said_but_their_parts_are() {
        let (class, attribute) = ("class:3".to_owned(), "thick".to_owned());
        let all = captions("3", &THICK);
        assert!(!all.iter().any(|caption| caption.claims.contains(&class) && caption.claims.contains(&attribute)));
        assert!(all.iter().any(|caption| caption.claims.contains(&attribute)));
        assert!(all.iter().any(|caption| caption.claims.contains(&class) && caption.claims.len() > 1));
    }

    #[test]
    fn held_out_templates_are_no_training_templates() {
        for template in HELD_OUT_TEMPLATES {
            assert!(!DIGIT_TEMPLATES.contains(template) && !THING_TEMPLATES.contains(template), "{template}");
        }
    }

    #[test]
    fn a_picture_between_the_bounds_has_no_clear_attribute_and_some_possible_ones() {
        let subject = Subject::new("4");
        assert!(subject.clear(&BETWEEN).is_empty());
        assert_eq!(subject.facts(&BETWEEN), ["class:4", "digit", "thick"]);
    }

    #[test]
    fn opposite_attributes_exclude_each_other() {
        for axis in DIGIT_AXES.iter().chain(THING_AXES) {
            assert!(axis.low.clear < axis.low.possible && axis.low.possible < axis.high.possible);
            assert!(axis.high.possible < axis.high.clear);
        }
    }
}

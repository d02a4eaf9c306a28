//! Collects mistakes, and turns their places in the text into diagnostics.

use std::collections::HashSet;

use crate::{
    diagnostic::{Diagnostic, Place, Related},
    source::Sources,
    words,
};

/// Diagnostics returned at most; a note counts the rest.
const MAX_SHOWN: usize = 100;
/// Mistakes after which the search for more ends, so that a hostile text costs little.
const MAX_KEPT: usize = 1_000;

/// A stretch of the text, in characters from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Span {
    /// The first character.
    pub(crate) start: usize,
    /// The first character behind it.
    pub(crate) end: usize,
}

impl Span {
    /// From one character up to another.
    pub(crate) fn of(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }

    /// The same stretch of a text that begins later.
    pub(crate) fn shift(self, by: usize) -> Self {
        Self { start: self.start + by, end: self.end + by }
    }
}

/// Where a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum At {
    /// In the override of that position.
    Set(usize),
    /// In the text.
    Text(Span),
}

/// A diagnostic before its place is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mistake {
    /// Where.
    pub(crate) at: At,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) hint: Option<String>,
    /// The words at the place that are meant, where that is less than all of it.
    pub(crate) focus: Option<String>,
    /// Another place that has to do with it, and what stands there.
    pub(crate) also: Option<Box<(Span, &'static str)>>,
}

impl Mistake {
    /// A mistake in the text.
    pub(crate) fn at(span: Span, message: impl Into<String>) -> Self {
        Self { at: At::Text(span), message: message.into(), hint: None, focus: None, also: None }
    }

    /// Adds a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds another place.
    pub(crate) fn also(mut self, span: Span, what: &'static str) -> Self {
        self.also = Some(Box::new((span, what)));
        self
    }

    /// Moves its places in the text.
    pub(crate) fn shift(&mut self, by: usize) {
        if let At::Text(span) = &mut self.at {
            *span = span.shift(by);
        }
        if let Some(also) = &mut self.also {
            also.0 = also.0.shift(by);
        }
    }

    /// Adds a hint if there is one.
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

/// The mistakes found so far. The same mistake counts once.
#[derive(Default)]
pub(crate) struct Report {
    mistakes: Vec<Mistake>,
    seen: HashSet<Mistake>,
    comparisons: usize,
    /// Where overrides stand, if that is a file.
    sets: Vec<Span>,
    /// Mistakes beyond those kept.
    more: usize,
}

impl Report {
    /// The overrides stand in a file, at these places.
    pub(crate) fn place_sets(&mut self, spans: Vec<Span>) {
        self.sets = spans;
    }

    /// Adds a mistake.
    pub(crate) fn add(&mut self, mistake: Mistake) {
        if self.is_full() {
            self.more += 1;
        } else if self.seen.insert(mistake.clone()) {
            self.mistakes.push(mistake);
        }
    }

    /// Adds several.
    pub(crate) fn extend(&mut self, mistakes: impl IntoIterator<Item = Mistake>) {
        mistakes.into_iter().for_each(|mistake| self.add(mistake));
    }

    /// Enough mistakes were found.
    pub(crate) fn is_full(&self) -> bool {
        self.mistakes.len() >= MAX_KEPT
    }

    /// The mistakes as they came.
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }

    /// How many there are: to see whether a step added any.
    pub(crate) fn len(&self) -> usize {
        self.mistakes.len() + self.more
    }

    /// `did you mean `x`?` for the candidate nearest to a word, if one is near.
    pub(crate) fn suggest<'a>(&mut self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
        self.nearest(word, candidates).map(|name| format!("did you mean `{name}`?"))
    }

    /// The candidate nearest to a word, if one is near.
    pub(crate) fn nearest<'a>(&mut self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        words::nearest(word, candidates, &mut self.comparisons)
    }

    /// The diagnostics in the order of the file, overrides first.
    pub(crate) fn into_diagnostics(mut self, sources: &Sources, set: &[(String, String)]) -> Vec<Diagnostic> {
        for mistake in &mut self.mistakes {
            if let At::Set(index) = mistake.at
                && let Some(span) = self.sets.get(index)
            {
                mistake.at = At::Text(*span);
            }
        }
        self.mistakes.sort_by_key(|mistake| mistake.at);
        let more = self.mistakes.len().saturating_sub(MAX_SHOWN) + self.more;
        let mut places = sources.places();
        let mut all: Vec<_> = self
            .mistakes
            .into_iter()
            .take(MAX_SHOWN)
            .map(|Mistake { at, message, hint, focus, also }| {
                let place = match at {
                    At::Text(span) => places.place(span, focus.as_deref()),
                    At::Set(index) => {
                        let (name, text) = set.get(index).cloned().unwrap_or_default();
                        Place::Set { name, text }
                    }
                };
                let related = also.map(|also| {
                    let (span, what) = *also;
                    Related { place: places.place(span, None), message: what.to_owned() }
                });
                Diagnostic { place, message, hint, related }
            })
            .collect();
        if let (1.., Some(last)) = (more, all.last_mut()) {
            let least = if more + MAX_SHOWN >= MAX_KEPT { "at least " } else { "" };
            let note = format!("{least}{more} more mistakes are not shown");
            last.hint = Some(last.hint.take().map_or(note.clone(), |hint| format!("{hint}; {note}")));
        }
        all
    }
}

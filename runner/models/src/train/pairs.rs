//! Which texts of a batch are true of which images: with few classes, many besides the own one.

use std::collections::BTreeSet;

/// `[n, n]`, images by texts: whether everything that text j claims is a fact of image i. The diagonal is always true.
///
/// `facts` are what holds of each image (`digit:3`, `thick`), `claims` what each text says of its own. A "thick three" is
/// thus a negative for a thin three, and "three" for neither; with equal texts alone, both would count as wrong answers
/// for an image whose own text happens to be the other.
pub fn true_pairs<S: AsRef<str>>(facts: &[Vec<S>], claims: &[Vec<S>]) -> Vec<bool> {
    let facts: Vec<BTreeSet<&str>> = facts.iter().map(|facts| facts.iter().map(AsRef::as_ref).collect()).collect();
    let mut pairs = Vec::with_capacity(facts.len() * claims.len());
    for (i, facts) in facts.iter().enumerate() {
        pairs.extend(
            claims
                .iter()
                .enumerate()
                .map(|(j, claims)| i == j || claims.iter().all(|claim| facts.contains(claim.as_ref()))),
        );
    }
    pairs
}

/// The same where nothing is known but the texts: equal ones are true of each other's images.
pub(crate) fn equal_texts(texts: &[Vec<u32>]) -> Vec<bool> {
    texts.iter().flat_map(|text| texts.iter().map(move |other| text == other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_true_where_all_that_it_claims_holds() {
        let facts = [vec!["3", "thick"], vec!["3", "thin"], vec!["7", "thick"]];
        let claims = [vec!["3"], vec!["3", "thin"], vec!["7", "thick"]];
        #[rustfmt::skip]
        let expected = [
            true, false, false,
            true, true, false,
            false, false, true,
        ];
        assert_eq!(true_pairs(&facts, &claims), expected);
    }

    #[test]
    fn a_text_is_true_of_its_own_image_whatever_it_claims() {
        assert_eq!(true_pairs(&[vec!["3"]], &[vec!["4"]]), [true]);
    }

    #[test]
    fn equal_texts_are_no_negatives_of_each_other() {
        let texts = [vec![1, 2], vec![1], vec![1, 2]];
        assert_eq!(equal_texts(&texts), [true, false, true, false, true, false, true, false, true]);
    }
}

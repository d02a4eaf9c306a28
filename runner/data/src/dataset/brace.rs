//! Brace patterns as shells and webdataset write them: `train-{000000..000049}.tar`, `{a,b}/x.tar`.

/// Most files that a pattern may stand for.
const MOST: usize = 100_000;

/// Most patterns in one text: each is expanded inside the one before.
const MOST_PATTERNS: usize = 16;

/// Whether there is a pattern in it.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains('{') && text.contains('}')
}

/// All texts that a pattern stands for, in order; an error says what is wrong with it.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let patterns = pattern.matches('{').count();
    if patterns > MOST_PATTERNS {
        return Err(format!("{patterns} patterns in braces, expected at most {MOST_PATTERNS}"));
    }
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.to_owned()]) };
    let close = pattern[open..].find('}').map(|at| open + at).ok_or("a `{` without a `}`")?;
    let (before, inside, behind) = (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    let items = match inside.split_once("..") {
        Some((from, to)) => range(from, to)?,
        None if inside.contains(',') => inside.split(',').map(str::to_owned).collect(),
        None => return Err(format!("`{{{inside}}}`: expected {{000..049}} or {{a,b}}")),
    };
    let rest = expand(behind)?;
    if items.len().saturating_mul(rest.len()) > MOST {
        return Err(format!("it stands for more than {MOST} files"));
    }
    Ok(items.iter().flat_map(|item| rest.iter().map(move |rest| format!("{before}{item}{rest}"))).collect())
}

/// The numbers from one to the other, as wide as they are written.
fn range(from: &str, to: &str) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        let fine = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        fine.then(|| text.parse::<u64>().ok()).flatten().ok_or(format!("`{{{from}..{to}}}`: expected two numbers"))
    };
    let (first, last) = (number(from)?, number(to)?);
    if first > last {
        return Err(format!("`{{{from}..{to}}}` counts down"));
    }
    if last - first >= MOST as u64 {
        return Err(format!("it stands for more than {MOST} files"));
    }
    // As bash has it: a zero in front of either end pads all to the wider one.
    let padded = [from, to].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { from.len().max(to.len()) } else { 0 };
    Ok((first..=last).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn patterns_stand_for_what_a_shell_makes_of_them() {
        assert_eq!(expand("a-{008..011}.tar").unwrap(), ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]);
        assert_eq!(expand("{a,b}/{0..1}").unwrap(), ["a/0", "a/1", "b/0", "b/1"]);
        assert_eq!(expand("plain").unwrap(), ["plain"]);
        assert_eq!(expand("{9..10}").unwrap(), ["9", "10"]);
        for wrong in
            ["{1..", "{x}", "{3..1}", "{1..x}", "{0..99999999999999999999}", "{0..999}{0..999}", "{0..9000000000}"]
        {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_without_number_are_refused() {
        assert_eq!(expand(&"{1..1}".repeat(16)).unwrap(), ["1".repeat(16)]);
        let message = "18000 patterns in braces, expected at most 16";
        assert_eq!(expand(&"{1..1}".repeat(18_000)).unwrap_err(), message);
    }
}

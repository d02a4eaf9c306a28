//! Takes passwords out of what is shown or recorded.

use runner_store::redacted;

/// The text with the password of every URL in it hidden.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at);
        let end = url.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        out.push_str(before);
        out.push_str(&redacted(url));
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_stays() {
        let check = |text: &str, expected: &str| assert_eq!(redact(text), expected);
        check("postgres://me:pw@db:5432/runs", "postgres://me:***@db:5432/runs");
        check("--records=postgres://me:p/w@x#y@db/runs, then", "--records=postgres://me:***@db/runs, then");
        check("postgres://me:a?b@db/runs", "postgres://me:***@db/runs");
        check("`postgres://me:pw` is no host", "`postgres://me:pw` is no host");
        check(
            "postgres://db/runs?user=me&password=pw&sslmode=require",
            "postgres://db/runs?user=me&password=***&sslmode=require",
        );
        check("s3://bucket/prefix and http://localhost:9000/x", "s3://bucket/prefix and http://localhost:9000/x");
        check("\"postgres://a:b@c\" 'https://d:e@f'", "\"postgres://a:***@c\" 'https://d:***@f'");
        check("postgres://me@db/runs", "postgres://me@db/runs");
        check("nothing here: a@b", "nothing here: a@b");
    }
}

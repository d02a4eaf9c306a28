//! Takes passwords out of what is shown or recorded.

/// What stands for a password.
const HIDDEN: &str = "***";

/// The text with the password of every URL in it hidden, in front of the host and behind `password=`.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        out.push_str(before);
        let end = behind.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(behind.len());
        let (url, after) = behind.split_at(end);
        out.push_str(&url_without_password(url));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A URL behind its `://`.
fn url_without_password(url: &str) -> String {
    let (front, query) = match url.split_once('?') {
        Some((front, query)) => (front, Some(query)),
        None => (url, None),
    };
    // A password may hold what ends a host elsewhere (`/`, `#`, even `@`): all up to the last `@` is taken for it.
    let mut text = match front.rsplit_once('@').map(|(user, host)| (user.split_once(':'), host)) {
        Some((Some((user, _)), host)) => format!("{user}:{HIDDEN}@{host}"),
        _ => front.to_owned(),
    };
    for (i, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => text.push_str(&format!("{name}={HIDDEN}")),
            _ => text.push_str(pair),
        }
    }
    text
}

/// Whether a key of a URL's query is one of a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "signature", "key"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_stays() {
        let check = |text: &str, expected: &str| assert_eq!(redact(text), expected);
        check("postgres://me:pw@db:5432/runs", "postgres://me:***@db:5432/runs");
        check("--records=postgres://me:p/w@x#y@db/runs, then", "--records=postgres://me:***@db/runs, then");
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

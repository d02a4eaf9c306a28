//! Multipart uploads that nobody finished: their parts are stored, and paid for, until somebody ends them.

use std::time::Duration;

use object_store::{
    path::Path as Location,
    signer::{SignedUrlOptions, Signer},
};

use super::{connect::Connected, explain::chain};
use crate::{StoreError, Time};

/// An upload that was begun.
#[derive(Debug, PartialEq)]
pub(super) struct Unfinished {
    pub(super) location: Location,
    pub(super) id: String,
    pub(super) began: Time,
}

/// All below the prefix; none where the server does not tell.
pub(super) async fn unfinished(at: &Connected) -> Result<Vec<Unfinished>, StoreError> {
    let mut all = Vec::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let mut query = vec![("uploads".to_owned(), String::new())];
        if !at.prefix.as_ref().is_empty() {
            query.push(("prefix".into(), format!("{}/", at.prefix)));
        }
        if let Some((key, id)) = after {
            query.extend([("key-marker".into(), key), ("upload-id-marker".into(), id)]);
        }
        let Some(page) = request(at, query).await? else { return Ok(all) };
        let (found, more) = parse(&page);
        all.extend(found);
        match more {
            Some(more) => after = Some(more),
            None => return Ok(all),
        }
    }
}

/// A page of the listing. `object_store` has no such request, but signs it.
async fn request(at: &Connected, query: Vec<(String, String)>) -> Result<Option<String>, StoreError> {
    let doing = "listing unfinished uploads";
    let options = SignedUrlOptions::default().with_query(query);
    let (bucket, valid) = (Location::default(), Duration::from_secs(300));
    let signed = at.s3.signed_url_opts(reqwest::Method::GET, &bucket, valid, &options);
    let url = signed.await.map_err(|error| at.named.explain(doing, error))?;
    // The URL holds a signature, which is for nobody's eyes.
    let broken = |error: reqwest::Error| at.named.judge(doing, &chain(&error.without_url()));
    let answer = at.http.get(url).send().await.map_err(broken)?;
    let status = answer.status();
    let text = answer.text().await.map_err(broken)?;
    match status.as_u16() {
        200 => Ok(Some(text)),
        405 | 501 => Ok(None),
        code => Err(at.named.judge(doing, &format!("status code: {code} : {text}"))),
    }
}

/// The uploads on a page, and where the next page begins.
fn parse(page: &str) -> (Vec<Unfinished>, Option<(String, String)>) {
    let uploads = page.split("<Upload>").skip(1).filter_map(|upload| {
        // Ours are hexadecimal digits; what is written otherwise is not ours.
        let location = Location::parse(element(upload, "Key")?).ok()?;
        let began = element(upload, "Initiated")?.parse().ok()?;
        Some(Unfinished { location, id: element(upload, "UploadId")?.to_owned(), began })
    });
    let more = element(page, "IsTruncated") == Some("true");
    let next = || Some((element(page, "NextKeyMarker")?.to_owned(), element(page, "NextUploadIdMarker")?.to_owned()));
    (uploads.collect(), if more { next() } else { None })
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_understood() {
        let upload = |key: &str, began: &str| {
            format!("<Upload><Key>{key}</Key><UploadId>i-1</UploadId><Initiated>{began}</Initiated></Upload>")
        };
        let body = upload("a/b", "2026-01-02T03:04:05.000Z") + &upload("c", "yesterday");
        let page = |more: &str| {
            format!(
                "<R><IsTruncated>{more}</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>{body}</R>"
            )
        };
        let (found, next) = parse(&page("true"));
        let expected = Unfinished {
            location: Location::parse("a/b").unwrap(),
            id: "i-1".into(),
            began: "2026-01-02T03:04:05Z".parse().unwrap(),
        };
        assert_eq!((found, next), (vec![expected], Some(("k".into(), "u".into()))));
        assert_eq!(parse(&page("false")).1, None);
    }
}

//! The server's objects, in memory: what S3 promises of them, and nothing more than tests need.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use s3s::{
    S3, S3Request, S3Response, S3Result,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Md5},
    dto::*,
    s3_error,
};

/// The smallest part of a multipart upload but the last, in bytes.
const MIN_PART: usize = 5 << 20;
/// The most that a page of a listing holds.
const PAGE: usize = 1000;

/// One bucket. Every operation is atomic. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    bucket: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whole objects, by key.
    pub(super) objects: BTreeMap<String, Stored>,
    /// Unfinished uploads, by id.
    pub(super) uploads: BTreeMap<String, Upload>,
    /// Ids given so far.
    ids: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) content: Bytes,
    etag: String,
    modified: SystemTime,
}

#[derive(Debug)]
pub(super) struct Upload {
    key: String,
    parts: BTreeMap<PartNumber, Stored>,
    pub(super) began: SystemTime,
}

impl Stored {
    pub(super) fn new(content: Bytes) -> Self {
        let etag = Md5::checksum(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { content, etag, modified: SystemTime::now() }
    }

    fn size(&self) -> i64 {
        i64::try_from(self.content.len()).unwrap_or(i64::MAX)
    }
}

impl Memory {
    pub(super) fn new(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), state: Arc::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bucket's content, if that is the bucket.
    fn bucket(&self, name: &str) -> S3Result<MutexGuard<'_, State>> {
        if name == self.bucket { Ok(self.state()) } else { Err(s3_error!(NoSuchBucket, "no bucket {name}")) }
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        self.bucket(bucket)?.objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }
}

impl State {
    fn create(&mut self, key: String, object: Stored, condition: Option<ETagCondition>) -> S3Result<()> {
        if condition.is_some_and(|condition| condition.is_any()) && self.objects.contains_key(&key) {
            return Err(s3_error!(PreconditionFailed, "the object exists"));
        }
        self.objects.insert(key, object);
        Ok(())
    }

    fn upload(&mut self, id: &str) -> S3Result<&mut Upload> {
        self.uploads.get_mut(id).ok_or_else(|| s3_error!(NoSuchUpload))
    }
}

async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let content: BytesMut = body.try_collect().await.map_err(|_| s3_error!(IncompleteBody))?;
    Ok(content.freeze())
}

/// Refuses content that is not what the client says it sent.
fn verify(content: &[u8], sha256: Option<String>, crc64nvme: Option<String>) -> S3Result<()> {
    let mut hasher = ChecksumHasher {
        sha256: sha256.is_some().then(Default::default),
        crc64nvme: crc64nvme.is_some().then(Default::default),
        ..ChecksumHasher::default()
    };
    hasher.update(content);
    let found = hasher.finalize();
    if (found.checksum_sha256, found.checksum_crc64nvme) == (sha256, crc64nvme) {
        Ok(())
    } else {
        Err(s3_error!(BadDigest))
    }
}

#[async_trait::async_trait]
impl S3 for Memory {
    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        drop(self.bucket(&req.input.bucket)?);
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let content = read(input.body).await?;
        verify(&content, input.checksum_sha256, input.checksum_crc64nvme)?;
        let object = Stored::new(content);
        let output = PutObjectOutput { e_tag: Some(ETag::Strong(object.etag.clone())), ..Default::default() };
        self.bucket(&input.bucket)?.create(input.key, object, input.if_none_match)?;
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.object(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(object.size()),
            last_modified: Some(object.modified.into()),
            e_tag: Some(ETag::Strong(object.etag)),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let object = self.object(&req.input.bucket, &req.input.key)?;
        let size = object.content.len() as u64;
        let (content, range) = match req.input.range {
            None => (object.content.clone(), None),
            Some(range) => {
                let range = range.check(size)?;
                let (start, end) = (range.start as usize, range.end as usize);
                let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (object.content.slice(start..end), Some(text))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(content.len() as i64),
            content_range: range,
            body: Some(s3s::Body::from(content).into()),
            last_modified: Some(object.modified.into()),
            e_tag: Some(ETag::Strong(object.etag)),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.bucket(&req.input.bucket)?.objects.remove(&req.input.key);
        Ok(S3Response::with_status(DeleteObjectOutput::default(), hyper::StatusCode::NO_CONTENT))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut state = self.bucket(&req.input.bucket)?;
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            state.objects.remove(&object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let state = self.bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let most = input.max_keys.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE).min(PAGE);
        let after = input.continuation_token.clone().max(input.start_after.clone()).unwrap_or_default();
        let from = after.max(prefix.clone());
        let mut found = state
            .objects
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
            .skip_while(|(key, _)| **key == from && from != prefix)
            .take_while(|(key, _)| key.starts_with(&prefix));
        let (mut contents, mut folders) = (Vec::new(), Vec::<CommonPrefix>::new());
        let mut last = None;
        for (key, object) in found.by_ref() {
            last = Some(key.clone());
            let folder = input.delimiter.as_deref().and_then(|delimiter| {
                let rest = key.strip_prefix(prefix.as_str())?;
                rest.find(delimiter).map(|at| key[..prefix.len() + at + delimiter.len()].to_owned())
            });
            match folder {
                Some(folder) if folders.last().is_some_and(|last| last.prefix.as_ref() == Some(&folder)) => {}
                Some(folder) => folders.push(CommonPrefix { prefix: Some(folder) }),
                None => contents.push(Object {
                    key: Some(key.clone()),
                    size: Some(object.size()),
                    last_modified: Some(object.modified.into()),
                    e_tag: Some(ETag::Strong(object.etag.clone())),
                    ..Default::default()
                }),
            }
            if contents.len() + folders.len() >= most {
                break;
            }
        }
        let more = found.next().is_some();
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: Some((contents.len() + folders.len()) as i32),
            max_keys: Some(most as i32),
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            contents: Some(contents),
            common_prefixes: Some(folders),
            name: Some(input.bucket),
            prefix: input.prefix,
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let mut state = self.bucket(&input.bucket)?;
        state.ids += 1;
        let id = format!("upload-{}", state.ids);
        let upload = Upload { key: input.key.clone(), parts: BTreeMap::new(), began: SystemTime::now() };
        state.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let content = read(input.body).await?;
        verify(&content, input.checksum_sha256, input.checksum_crc64nvme)?;
        let part = Stored::new(content);
        let output = UploadPartOutput { e_tag: Some(ETag::Strong(part.etag.clone())), ..Default::default() };
        self.bucket(&input.bucket)?.upload(&input.upload_id)?.parts.insert(input.part_number, part);
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let mut state = self.bucket(&input.bucket)?;
        let upload = state.upload(&input.upload_id)?;
        let wanted = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut content = BytesMut::new();
        for (position, part) in wanted.iter().enumerate() {
            let found = part.part_number.and_then(|number| upload.parts.get(&number));
            let found = found.ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().is_none_or(|etag| etag.value() != found.etag) {
                return Err(s3_error!(InvalidPart));
            }
            if position + 1 < wanted.len() && found.content.len() < MIN_PART {
                return Err(s3_error!(EntityTooSmall));
            }
            content.extend_from_slice(&found.content);
        }
        let mut object = Stored::new(content.freeze());
        object.etag = format!("{}-{}", object.etag, wanted.len());
        let output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key.clone()),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            ..Default::default()
        };
        state.create(input.key, object, input.if_none_match)?;
        state.uploads.remove(&input.upload_id);
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let removed = self.bucket(&req.input.bucket)?.uploads.remove(&req.input.upload_id);
        removed.ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), hyper::StatusCode::NO_CONTENT))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        let state = self.bucket(&input.bucket)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let most = input.max_uploads.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE).min(PAGE);
        let after = (input.key_marker.unwrap_or_default(), input.upload_id_marker.unwrap_or_default());
        let mut found: Vec<_> = state
            .uploads
            .iter()
            .filter(|(id, upload)| upload.key.starts_with(prefix) && (&upload.key, *id) > (&after.0, &after.1))
            .map(|(id, upload)| MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.began.into()),
                ..Default::default()
            })
            .collect();
        found.sort_by(|a, b| (&a.key, &a.upload_id).cmp(&(&b.key, &b.upload_id)));
        let more = found.len() > most;
        found.truncate(most);
        let last = found.last().filter(|_| more).cloned();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            is_truncated: Some(more),
            next_key_marker: last.as_ref().and_then(|last| last.key.clone()),
            next_upload_id_marker: last.and_then(|last| last.upload_id),
            uploads: Some(found),
            ..Default::default()
        }))
    }
}

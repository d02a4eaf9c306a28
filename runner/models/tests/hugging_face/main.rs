//! Models by name, from a server that speaks the hub's protocol: fetched, pinned, resumed, refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;

use std::{
    fs,
    path::{Path, PathBuf},
};

use runner_models::{Hub, HuggingFace};
use server::{Fault, Server};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A server with a golden model as `org/name`.
fn serve(model: &str, token: Option<&str>) -> Server {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(golden(model))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    Server::start("org/name", COMMIT, files, token)
}

fn hub(server: &Server, cache: &Path, change: impl FnOnce(&mut HuggingFace)) -> Hub {
    let mut hugging_face =
        HuggingFace { cache: cache.to_owned(), endpoint: server.address(), token: None, offline: false, notes: None };
    change(&mut hugging_face);
    Hub::new(PathBuf::from("/nowhere")).with_hugging_face(hugging_face)
}

/// Why a model is not opened, and what to do.
fn refused(hub: &Hub, reference: &str) -> String {
    let error = hub.open(reference).unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

#[test]
fn a_model_is_fetched_once_and_pinned_to_its_commit() {
    let (server, cache) = (serve("quick_gelu", None), tempfile::tempdir().unwrap());
    let online = hub(&server, cache.path(), |_| ());
    let identity = online.info("hf:org/name").unwrap().identity;
    assert_eq!(identity, Hub::new(golden("")).info("quick_gelu").unwrap().identity, "the same as of the folder");
    let asked = server.requests().len();
    // As Hugging Face's library keeps it.
    let folder = cache.path().join("models--org--name");
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let weights = folder.join("snapshots").join(COMMIT).join("model.safetensors");
    assert!(fs::read_link(&weights).unwrap().starts_with("../../blobs"));
    assert_eq!(fs::read(&weights).unwrap(), fs::read(golden("quick_gelu/model.safetensors")).unwrap());
    // What decides nothing is left where it is.
    assert!(!server.requests().iter().any(|request| request.contains("gradients.safetensors")));
    // Again, without network, by branch and by commit.
    let offline = hub(&server, cache.path(), |it| it.offline = true);
    for reference in ["hf:org/name", "hf:org/name@main", &format!("hf:org/name@{COMMIT}")] {
        assert_eq!(offline.info(reference).unwrap().identity, identity);
    }
    assert_eq!(online.open("hf:org/name").unwrap().dim(), 20);
    let decisions = offline.decisions("hf:org/name").unwrap();
    assert_eq!((decisions[0].about, decisions[0].taken.as_str()), ("commit", COMMIT));
    assert_eq!(server.requests().len(), asked, "nothing was asked again");
}

#[test]
fn an_open_clip_repository_and_parts_of_weights_are_fetched() {
    for (model, dim) in [("open_clip_vit", 20), ("gelu", 16)] {
        let (server, cache) = (serve(model, None), tempfile::tempdir().unwrap());
        let info = hub(&server, cache.path(), |_| ()).info(&format!("hf:org/name@{COMMIT}")).unwrap();
        assert_eq!(info.dim, Some(dim), "{model}");
        assert!(!cache.path().join("models--org--name/refs").exists(), "a commit is no branch");
    }
}

#[test]
fn a_download_that_breaks_goes_on_where_it_broke() {
    let (server, cache) = (serve("quick_gelu", None), tempfile::tempdir().unwrap());
    server.fault("model.safetensors", Fault::CutAfter(100_000));
    hub(&server, cache.path(), |_| ()).info("hf:org/name").unwrap();
    let ranges: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|request| request.starts_with("GET /cdn") && request.contains("range:"))
        .collect();
    assert_eq!(ranges, ["GET /cdn/model.safetensors range: bytes=100000-"]);
}

#[test]
fn a_download_that_never_ends_is_kept_for_the_next_time() {
    let (server, cache) = (serve("quick_gelu", None), tempfile::tempdir().unwrap());
    for _ in 0..4 {
        server.fault("model.safetensors", Fault::CutAfter(50_000));
    }
    let hub = hub(&server, cache.path(), |_| ());
    let message = refused(&hub, "hf:org/name");
    assert!(message.contains("model.safetensors: "), "{message}");
    assert!(message.contains(&format!("bring models--org--name into {}", cache.path().display())), "{message}");
    assert!(!cache.path().join("models--org--name/refs/main").exists());
    hub.info("hf:org/name").unwrap();
    assert!(server.requests().contains(&"GET /cdn/model.safetensors range: bytes=200000-".to_owned()));
}

#[test]
fn what_is_not_what_was_announced_is_refused() {
    let (server, cache) = (serve("quick_gelu", None), tempfile::tempdir().unwrap());
    for _ in 0..4 {
        server.fault("model.safetensors", Fault::Corrupt);
    }
    let message = refused(&hub(&server, cache.path(), |_| ()), "hf:org/name");
    assert!(message.contains("what came is not what the hub announced (SHA-256)"), "{message}");
}

#[test]
fn a_token_goes_to_the_hub_and_to_nobody_else() {
    let (server, cache) = (serve("quick_gelu", Some("hf_secret")), tempfile::tempdir().unwrap());
    let message = refused(&hub(&server, cache.path(), |_| ()), "hf:org/name");
    assert!(message.contains("no such repository, or it is private: then set HF_TOKEN (401 Unauthorized"), "{message}");
    let wrong = hub(&server, cache.path(), |it| it.token = Some("hf_wrong".to_owned()));
    let message = refused(&wrong, "hf:org/name");
    assert!(message.contains("does not let in who has this HF_TOKEN"), "{message}");
    assert!(!message.contains("hf_wrong"), "{message}");
    hub(&server, cache.path(), |it| it.token = Some("hf_secret".to_owned())).info("hf:org/name").unwrap();
    assert!(!server.told_the_token_to_others());
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let (server, cache) = (serve("quick_gelu", None), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path(), |_| ());
    assert!(refused(&hub, "hf:org/other").contains("the hub knows no such repository or revision (404 Not Found"));
    assert!(refused(&hub, "hf:org/name@v9").contains("the repository has no such revision"));
    assert!(refused(&hub, "hf:../x").contains("expected hf:ORG/NAME or hf:ORG/NAME@REVISION"));
}

#[test]
fn without_network_the_cache_and_the_way_out_are_named() {
    let (server, cache) = (serve("quick_gelu", None), tempfile::tempdir().unwrap());
    let offline = hub(&server, cache.path(), |it| it.offline = true);
    assert_eq!(
        refused(&offline, "hf:org/name"),
        format!(
            "model `hf:org/name@main`: it is not in the cache, and HF_HUB_OFFLINE says to stay offline; on a machine with network: \
             hf download org/name --revision main; then bring models--org--name into {}",
            cache.path().display()
        )
    );
    assert!(server.requests().is_empty());
    // Nobody listens there any more.
    let address = server.address();
    drop(server);
    let gone =
        HuggingFace { cache: cache.path().to_owned(), endpoint: address, token: None, offline: false, notes: None };
    let hub = Hub::new(PathBuf::from("/nowhere")).with_hugging_face(gone);
    assert!(refused(&hub, "hf:org/name").contains("hf download org/name"));
}

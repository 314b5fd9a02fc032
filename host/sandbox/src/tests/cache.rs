//! Loading with a cache: what is used again, and what is compiled anew.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::run;
use crate::testing::{guest, small};
use crate::{Ending, Limits, Sandbox, SandboxConfig, Source};

fn sandbox(cache: &Path) -> Sandbox {
    Sandbox::new(SandboxConfig { cache_dir: Some(cache.to_owned()), ..small() }).unwrap()
}

async fn source(cache: &Path, component: &[u8]) -> Source {
    let plugin = sandbox(cache).load(Bytes::copy_from_slice(component)).await.unwrap();
    assert_eq!(run(&plugin, &Limits::default()).await.ending, Ending::Ok);
    plugin.source()
}

fn files(cache: &Path) -> Vec<PathBuf> {
    fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn the_second_start_compiles_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let component = guest("", "", "");
    assert!(matches!(source(cache.path(), &component).await, Source::Compiled { .. }));
    assert!(matches!(source(cache.path(), &component).await, Source::Cached { .. }));
    assert!(matches!(source(cache.path(), &guest("", "(nop)", "")).await, Source::Compiled { .. }));
    assert_eq!(files(cache.path()).len(), 2);
}

#[tokio::test]
async fn a_damaged_file_is_compiled_anew_and_replaced() {
    let cache = tempfile::tempdir().unwrap();
    let component = guest("", "", "");
    source(cache.path(), &component).await;
    let [file] = files(cache.path()).try_into().unwrap();
    let whole = fs::read(&file).unwrap();
    for offset in [0, 20, 60, 100, 200, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[offset] ^= 0x10;
        fs::write(&file, damaged).unwrap();
        assert!(matches!(source(cache.path(), &component).await, Source::Compiled { .. }), "byte {offset}");
        assert!(matches!(source(cache.path(), &component).await, Source::Cached { .. }), "byte {offset}");
    }
}

#[tokio::test]
async fn without_a_cache_nothing_is_kept() {
    let sandbox = Sandbox::new(small()).unwrap();
    for _ in 0..2 {
        let plugin = sandbox.load(Bytes::from(guest("", "", ""))).await.unwrap();
        assert!(matches!(plugin.source(), Source::Compiled { .. }));
    }
}

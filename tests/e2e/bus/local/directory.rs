//! One process at a time, and a directory that is what it seems.

use cofferdam_bus::{Error, local};

use super::super::*;

async fn refused(directory: impl Into<std::path::PathBuf>) -> String {
    match local::open(LocalConfig { directory: directory.into() }).await {
        Err(Error::Unusable(e)) => e,
        Err(e) => panic!("{e:?}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_open_is_refused_with_its_name_and_the_process_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory).await;
    let e = refused(directory.path()).await;
    let shown = directory.path().to_str().unwrap();
    assert!(e.contains(shown) && e.contains(&std::process::id().to_string()), "{e}");
    stream(&bus, "S", &["s"]).await;
    put(&bus, "s", "unharmed").await;
    drop(bus);
    let bus = open(&directory).await;
    assert_eq!(data(&stored(&bus, "S", "s").await), ["unharmed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_free_when_the_last_of_all_handles_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory).await;
    stream(&bus, "S", &["s"]).await;
    put(&bus, "s", "x").await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    let delivery = next(&mut deliveries).await;
    let reader = reader(&bus, "S", "s", Start::End).await;
    let listener = bus.listen("s").await.unwrap();
    let kv = bus.bucket("b").await.unwrap();
    let watch = kv.watch().await.unwrap();
    drop(bus);
    delivery.ack().await.unwrap();
    drop((deliveries, delivery, reader, listener, kv));
    refused(directory.path()).await;
    drop(watch);
    let bus = open(&directory).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("S", "d", "s")).await;
    nothing_for(&mut deliveries, Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_directory_is_made_and_a_file_in_its_place_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("a/b");
    drop(local::open(LocalConfig { directory: deep.clone() }).await.unwrap());
    assert!(deep.is_dir());
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let e = refused(&file).await;
    assert!(e.contains(file.to_str().unwrap()), "{e}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_is_damaged_is_an_error_and_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open(&directory).await;
    stream(&bus, "S", &["s"]).await;
    put(&bus, "s", "x").await;
    drop(bus);
    let files = std::fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().path());
    let largest = files.max_by_key(|f| f.metadata().unwrap().len()).unwrap();
    let damaged = vec![0x5a; 20_000];
    std::fs::write(&largest, &damaged).unwrap();
    let e = refused(directory.path()).await;
    assert!(e.contains(directory.path().to_str().unwrap()), "{e}");
    assert!(std::fs::read(&largest).unwrap() == damaged);
}

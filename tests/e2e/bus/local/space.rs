//! What the bus takes of the disk, and gives back.

use cofferdam_bus::local::{LocalConfig, open};

use super::super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_is_used_again_and_a_burst_is_given_back_at_the_next_start() {
    let folder = tempfile::TempDir::new().unwrap();
    let size = || folder.path().join("bus.redb").metadata().unwrap().len();
    let again = async || open(LocalConfig { directory: folder.path().to_owned() }).await.unwrap();
    let big = "x".repeat(512 * 1024);
    let bus = again().await;
    let few = StreamSpec { max_messages: Some(8), ..stream_spec("FEW", &["few"]) };
    bus.ensure_stream(&few).await.unwrap();
    for _ in 0..16 {
        put(&bus, "few", big.clone()).await;
    }
    let full = size();
    for _ in 0..48 {
        put(&bus, "few", big.clone()).await;
    }
    assert!(size() <= full * 2, "{} after {full}", size());

    stream(&bus, "BURST", &["burst"]).await;
    for _ in 0..160 {
        put(&bus, "burst", big.clone()).await;
    }
    bus.delete_stream("BURST").await.unwrap();
    let burst = size();
    assert!(burst > 64 * 1024 * 1024, "{burst}");
    drop(bus);
    let bus = again().await;
    assert!(size() < burst / 2, "{} after {burst}", size());
    assert_eq!(held(&bus, "FEW", "few").await.len(), 8);
}

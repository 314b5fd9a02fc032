//! What is wrong with what is to be served is told before anything runs, with the remedy.

use std::net::TcpListener;

use harness::{plugin::LEDGER, setup::Setup};

use super::{Ground, ledger};
use crate::both::on_local;

/// With what the ledger is granted to reach.
fn on_a_bus() -> Setup {
    Setup::local().upstream("counting", "127.0.0.1:9").with("executor.backend", "offline")
}

#[tokio::test]
async fn a_grpc_port_in_use_is_named_with_the_remedy() {
    on_local(async |mut ground: Ground| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        ground.setup.set("grpc.listen", vec![address.clone()]);
        let told = ground.setup.refused().await;
        let expected = format!(
            "the gRPC port {address} can't be bound; free it, or set [grpc] listen (or COFFERDAM_GRPC_LISTEN) to another"
        );
        assert!(told.contains(&expected), "{told}");
    })
    .await;
}

#[tokio::test]
async fn two_plugins_that_serve_one_method_are_named() {
    let both = on_a_bus().plugin(ledger()).plugin(ledger().named("other"));
    let told = both.refused().await;
    let expected = format!(
        "are both granted to serve {LEDGER}/Get, {LEDGER}/Add, {LEDGER}/Tell, and a call goes to one"
    );
    assert!(
        told.contains(&expected) && told.contains("plugins.ledger") && told.contains("plugins.other"),
        "{told}"
    );
    // Where each has methods of its own, they share a service.
    let get = [format!("{LEDGER}/Get")];
    let add = [format!("{LEDGER}/Add")];
    let apart = on_a_bus()
        .plugin(ledger().granted("serve", &[&get[0]]))
        .plugin(ledger().named("other").granted("serve", &[&add[0]]).wants_state("ledger"));
    let checked = apart.tell(&["check"]).await;
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains(&format!("read, by ledger: {LEDGER}/Get")), "{text}");
    assert!(text.contains(&format!("write, by other: {LEDGER}/Add")), "{text}");
    assert!(text.contains("nothing listens for calls; add listen"), "{text}");
}

#[tokio::test]
async fn a_component_that_does_not_serve_what_its_manifest_says_is_refused() {
    let echo = harness::guests::fixture("echo");
    let told = on_a_bus().plugin(ledger().component(echo)).refused().await;
    assert!(
        told.contains(&format!("lists {LEDGER} in [[services]], and the component exports no service")),
        "{told}"
    );
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    on_local(async |mut ground: Ground| {
        let bad = ground.setup.folder().join("bad.pem");
        std::fs::write(&bad, "no certificate").unwrap();
        for key in ["certificate", "key"] {
            ground.setup.set(&format!("grpc.{key}"), bad.to_str().unwrap());
        }
        let told = ground.setup.refused().await;
        assert!(told.contains("bad.pem") && told.contains("are no certificate"), "{told}");
    })
    .await;
}

#[tokio::test]
async fn a_method_that_is_asked_for_and_not_granted_is_told_with_the_line_to_write() {
    let checked = on_a_bus().plugin(ledger().granted("serve", &[])).tell(&["check"]).await;
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains(&format!("asks for serve {LEDGER}")), "{text}");
    assert!(text.contains(&format!("serve = [\"{LEDGER}\"]")), "{text}");
}

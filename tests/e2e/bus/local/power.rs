//! Power lost at a random operation: what was not synced is gone, or there in part.

use std::time::Duration;

use cofferdam_bus::local::open_on;
use harness::{churn::Churn, dice::Dice, disk::Disk, ledger::Ledger};
use tokio::sync::mpsc;

use super::super::*;

const DISKS: u64 = 12;
const LOSSES: u64 = 6;

/// A load until the power goes; gives what was confirmed.
async fn until_off(disk: &Disk, name: String, dice: &mut Dice, ledger: &mut Ledger) {
    let most = dice.pick(&[20, 200, 1500]);
    disk.burn_after(dice.below(most));
    let (tell, mut told) = mpsc::unbounded_channel();
    tokio::select! {
        // First, so that what fails because the power is off is not taken for a fault.
        biased;
        () = disk.off() => {}
        () = async {
            // Some losses come while the bus is being opened.
            if let Ok(bus) = open_on(disk.storage()).await {
                let tell = Arc::new(move |t| drop(tell.send(t)));
                let churn = Churn { bus, name, seed: dice.draw(), patient: false, tell };
                let ended = churn.run().await;
                // Nothing fails but by the power.
                let off = tokio::time::timeout(Duration::from_secs(1), disk.off()).await;
                assert!(off.is_ok(), "the load ended: {ended:?}");
            }
            disk.off().await;
        } => {}
    }
    // The load has been dropped, and with it all that holds the other end.
    while let Some(told) = soon("the end of the load", told.recv()).await {
        ledger.hear(told);
    }
    disk.on();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_at_any_operation_loses_nothing_confirmed_and_leaves_no_part_of_a_commit() {
    let mut dice = Dice::new();
    let mut confirmed = 0;
    for n in 0..DISKS {
        let disk = Disk::new(Dice::of(dice.draw()));
        if n % 2 == 1 {
            disk.pretend_large();
        }
        let mut ledger = Ledger::default();
        for round in 0..LOSSES {
            until_off(&disk, format!("round{round}"), &mut dice, &mut ledger).await;
            let shown =
                || format!("COFFERDAM_SEED={} disk {n} round {round}, {:?}", dice.seed(), disk.losses());
            let bus = open_on(disk.storage()).await.unwrap_or_else(|e| panic!("{}: {e}", shown()));
            let checked = match round + 1 == LOSSES && n % 3 == 0 {
                true => ledger.finish(&bus).await,
                false => ledger.check(&bus).await,
            };
            checked.unwrap_or_else(|e| panic!("{}: {e:#}", shown()));
        }
        confirmed += ledger.confirmed();
    }
    assert!(confirmed > 200, "only {confirmed} confirmations: this tested nothing");
}

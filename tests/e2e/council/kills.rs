//! A daemon that dies in the midst of a deliberation: another finishes it, and pays for no answer twice.

use serde_json::json;

use super::{Hall, ONE, THREE, TWO, deliberation, payload, task};
use crate::both::on_both_buses;

on_both_buses! {
    contract_8_9_a_deliberation_that_is_killed_is_told_of_once_and_no_answer_is_paid_for_twice,
    a_call_that_is_killed_in_its_last_step_has_one_answer_that_is_paid_for_once,
}

async fn contract_8_9_a_deliberation_that_is_killed_is_told_of_once_and_no_answer_is_paid_for_twice(
    hall: Hall,
) {
    let mut running = hall.open().await;
    // Two propose at once; the third says nothing until it is let.
    let ready = json!({"task_id": "t", "story_id": "S", "role": "DEV", "attempt": 1,
        "description": task(&[ONE, TWO, &format!("!hold {THREE}")])});
    running.daemon.publish("cofferdam.queue.ready", ready).await;
    hall.endpoint
        .sees("three proposals, one of them open", |seen| seen.requests == 3 && seen.open == 1)
        .await;
    hall.recorded(&running, 2).await;
    running = hall.again(running).await;
    // On the embedded bus it was the daemon who asked: that one question is asked again.
    let again = u64::from(hall.nats.is_none());
    hall.endpoint.sees("the third", |seen| seen.requests == 3 + again && seen.open == 1).await;
    hall.endpoint.release().await;
    let told = running.told_once("t").await;
    assert_eq!((&told["status"], &told["successful_responses"]), (&json!("completed"), &json!(3)));
    assert_eq!(hall.asked().await, 3 * (1 + 2) + again);
    let answers = running.daemon.wait_stored("cofferdam.queue.deliberated", 1).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(payload(&answers[0])["agent_id"], told["winner_id"]);
    // Whatever was not settled comes once more.
    running = hall.again(running).await;
    running.daemon.publish("planning.plan.approved", json!({"plan_id": "P", "story_id": "S"})).await;
    running.daemon.wait_stored("orchestration.plan.approved", 1).await;
    running.told_once("t").await;
    running.no_dead_letters().await;
}

async fn a_call_that_is_killed_in_its_last_step_has_one_answer_that_is_paid_for_once(hall: Hall) {
    let mut running = hall.open().await;
    let mut asked = deliberation("t", &[ONE, TWO, THREE]);
    asked.task_description += &format!("\n!revisions {}", json!([ONE, TWO, format!("!hold {THREE}")]));
    let (client, first) = (running.client.clone(), asked.clone());
    let lost = tokio::spawn(async move { client.deliberate_with("k", first).await });
    hall.endpoint.sees("the last revision", |seen| seen.requests == 9 && seen.open == 1).await;
    hall.recorded(&running, 8).await;
    running = hall.again(running).await;
    assert!(lost.await.expect("a call").is_err(), "whoever called has lost the answer");
    let again = u64::from(hall.nats.is_none());
    hall.endpoint.sees("the last revision", |seen| seen.requests == 9 + again && seen.open == 1).await;
    hall.endpoint.release().await;
    let answer = running.client.deliberate_with("k", asked).await.expect("an answer");
    assert_eq!(answer.results.len(), 3);
    assert_eq!(running.told_once("t").await["winner_id"], answer.winner_id);
    assert_eq!(hall.asked().await, 9 + again);
}

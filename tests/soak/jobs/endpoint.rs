//! The endpoint that the workers ask, a process of its own that outlives them: it takes a while for each answer, and notes who
//! asked what, and whether it was answered.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::answering;
use tokio::net::TcpListener;

use super::journal::{Line, What};
use crate::mark::now;

/// The least that an answer takes, and what comes on top of that for some, in milliseconds.
const LEAST: u64 = 20;
const MORE: u64 = 80;

/// Until it is killed.
pub(crate) async fn serve(journal: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(journal).expect("a journal");
    let file = Arc::new(Mutex::new(file));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    writeln!(std::io::stdout().lock(), "{}", serde_json::json!({ "listening": address }))
        .expect("standard output");
    answering::serve(listener, move |asked| {
        let file = file.clone();
        async move {
            let (job, _) = answering::number(&asked.body).expect("a request of the soak");
            note(&file, &Line { at: now(), job, who: asked.who.clone(), what: What::Asked });
            // Of each job the same, whoever asks: no dice, so that a seed says it all.
            let more = job.wrapping_mul(2_654_435_761) % MORE;
            tokio::time::sleep(Duration::from_millis(LEAST + more)).await;
            note(&file, &Line { at: now(), job, who: asked.who, what: What::Answered });
            answering::completion(job)
        }
    })
    .await;
}

fn note(file: &Mutex<File>, line: &Line) {
    let line = format!("{}\n", serde_json::to_string(line).expect("JSON"));
    file.lock().expect("no poison").write_all(line.as_bytes()).expect("a journal");
}

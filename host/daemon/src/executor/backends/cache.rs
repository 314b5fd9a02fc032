//! Answers that identical requests share, where the operator lets them: on the bus for all workers, and among those of one
//! worker that ask at the same time. An answer that was cut off, and a failure, is nobody else's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Message, Publish};
use cofferdam_inference::{ChatRequest, Format};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Answered;
use crate::observe::trace::hex;

/// Of an answer that is kept, in bytes of JSON: longer ones are seldom asked for twice.
const MAX_KEPT: usize = 256 << 10;

pub(super) struct Cache {
    bus: Arc<dyn Bus>,
    kept: Duration,
    asked: Arc<Asked>,
}

/// What is being asked just now, by key.
#[derive(Default)]
struct Asked(Mutex<HashMap<String, watch::Receiver<Option<Answered>>>>);

pub(super) enum Found {
    Answer(Answered),
    /// It is to be asked for; where the answer goes.
    Nothing(Place),
}

/// A request's place in the cache.
pub(super) struct Place {
    bus: Arc<dyn Bus>,
    kept: Duration,
    key: String,
    lead: Option<Lead>,
}

/// The first of several identical requests; those that wait ask for themselves when it is dropped without an answer.
struct Lead {
    asked: Arc<Asked>,
    key: String,
    tell: watch::Sender<Option<Answered>>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.asked.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Kept {
    text: String,
    reasoning: String,
    model: String,
    finish: Option<String>,
    temperature: f32,
}

impl Cache {
    pub(super) fn new(bus: Arc<dyn Bus>, kept: Duration) -> Self {
        Self { bus, kept, asked: Arc::default() }
    }

    /// The answer of an identical request, also of one that is being asked. `anew`: none will do, but the next one's may.
    pub(super) async fn find(&self, request: &ChatRequest, anew: bool) -> Found {
        let key = key(request);
        let found = if anew { Err(None) } else { self.look(&key).await };
        match found {
            Ok(answered) => Found::Answer(answered),
            Err(lead) => Found::Nothing(Place { bus: self.bus.clone(), kept: self.kept, key, lead }),
        }
    }

    async fn look(&self, key: &str) -> Result<Answered, Option<Lead>> {
        let lead = match self.asked.begin(key) {
            Ok(lead) => lead,
            Err(mut told) => {
                let told = told.wait_for(Option::is_some).await.ok().and_then(|answered| answered.clone());
                return told.ok_or(None);
            }
        };
        let Some(answered) = self.stored(key).await else { return Err(Some(lead)) };
        lead.tell.send_replace(Some(answered.clone()));
        Ok(answered)
    }

    async fn stored(&self, key: &str) -> Option<Answered> {
        let subject = subject(key);
        let stored = match self.bus.last(&subject).await {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::debug!(subject, "the cache can't be read: {error}");
                return None;
            }
        };
        let Kept { text, reasoning, model, finish, temperature } =
            serde_json::from_slice(&stored.message.data).ok()?;
        Some(Answered { text, reasoning, model, finish, temperature, cached: true, ..Answered::default() })
    }
}

impl Asked {
    /// Begins to ask, or gives what tells the answer of who did.
    fn begin(self: &Arc<Self>, key: &str) -> Result<Lead, watch::Receiver<Option<Answered>>> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = asked.get(key) {
            return Err(told.clone());
        }
        let (tell, told) = watch::channel(None);
        asked.insert(key.to_owned(), told);
        Ok(Lead { asked: self.clone(), key: key.to_owned(), tell })
    }
}

impl Place {
    /// Tells it to those who wait, and stores it beside whatever its job does next.
    pub(super) fn keep(self, answered: &Answered) {
        let Self { bus, kept, key, lead } = self;
        let Answered { text, reasoning, model, finish, temperature, .. } = answered.clone();
        if let Some(lead) = &lead {
            let cached = Answered {
                text: text.clone(),
                reasoning: reasoning.clone(),
                model: model.clone(),
                finish: finish.clone(),
                temperature,
                cached: true,
                ..Answered::default()
            };
            lead.tell.send_replace(Some(cached));
        }
        let kept_answer = Kept { text, reasoning, model, finish, temperature };
        let Ok(data) = serde_json::to_vec(&kept_answer) else { return };
        if data.len() > MAX_KEPT {
            return;
        }
        let ttl = format!("{}s", kept.as_secs().max(1));
        let message = Message {
            subject: subject(&key),
            headers: vec![("Nats-TTL".into(), ttl)],
            data: Bytes::from(data),
        };
        tokio::spawn(async move {
            if let Err(error) = bus.publish(message, Publish::default()).await {
                tracing::warn!("an answer was not kept for identical requests: {error}");
            }
            // Until it is stored, whoever asks the same finds it here.
            drop(lead);
        });
    }
}

fn subject(key: &str) -> String {
    format!("cd.h.{key}")
}

/// All that the answer depends on, as far as it is asked for.
fn key(request: &ChatRequest) -> String {
    let format = match &request.format {
        Format::Text => json!(null),
        Format::Json => json!("json"),
        Format::Schema { name, schema, strict } => json!([name, schema, strict]),
    };
    let all = json!([
        request.model,
        request.messages,
        request.temperature,
        request.max_tokens,
        request.stop,
        request.seed,
        format,
        request.extra,
    ]);
    hex(&Sha256::digest(all.to_string()))
}

#[cfg(test)]
mod tests {
    use cofferdam_inference::Message as Said;
    use serde_json::Value;

    use super::*;

    #[test]
    fn whatever_the_answer_depends_on_makes_another_key() {
        let base = || ChatRequest::new("m", "say it");
        let schema = |schema: Value| Format::Schema { name: "s".into(), schema, strict: true };
        let requests = [
            base(),
            ChatRequest::new("n", "say it"),
            ChatRequest::new("m", "say that"),
            ChatRequest { messages: vec![Said::system("say it")], ..base() },
            ChatRequest { temperature: Some(0.5), ..base() },
            ChatRequest { max_tokens: Some(5), ..base() },
            ChatRequest { stop: vec!["5".into()], ..base() },
            ChatRequest { seed: Some(5), ..base() },
            ChatRequest { format: Format::Json, ..base() },
            ChatRequest { format: schema(json!({"type": "array"})), ..base() },
            ChatRequest { format: schema(json!({"type": "object"})), ..base() },
        ];
        let mut keys: Vec<String> = requests.iter().map(key).collect();
        assert_eq!(keys[0], key(&ChatRequest { deadline: Some(tokio::time::Instant::now()), ..base() }));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), requests.len());
    }

    #[tokio::test]
    async fn who_waits_for_an_identical_request_gets_its_answer_or_is_told_that_there_is_none() {
        let asked = Arc::<Asked>::default();
        let lead = asked.begin("k").ok().unwrap();
        let mut waits = asked.begin("k").err().unwrap();
        assert!(asked.begin("other").is_ok());
        drop(lead);
        assert!(waits.wait_for(Option::is_some).await.is_err());

        let lead = asked.begin("k").ok().unwrap();
        let mut waits = asked.begin("k").err().unwrap();
        lead.tell.send_replace(Some(Answered { text: "it".into(), ..Answered::default() }));
        drop(lead);
        assert_eq!(waits.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().text, "it");
        assert!(asked.begin("k").is_ok());
    }
}

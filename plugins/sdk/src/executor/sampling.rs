//! How a model is to answer, and how soon.

/// What comes first among the plugin's own jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// How a model is to answer. What is left out is the endpoint's own default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: Option<f32>,
    /// Of the answer.
    pub max_tokens: Option<u32>,
    /// Texts that end the answer, and are not part of it: at most 4.
    pub stop: Vec<String>,
    /// For endpoints that answer the same to the same seed.
    pub seed: Option<i64>,
    pub format: Format,
}

/// What the answer has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
    /// JSON of this schema, which is JSON itself.
    Schema {
        name: String,
        schema: String,
        strict: bool,
    },
}

/// What jobs and inferences say alike.
macro_rules! how_to_answer {
    ($asked:ty) => {
        impl $asked {
            /// Without it the executor's default model. The grant names the models.
            #[must_use]
            pub fn model(mut self, model: impl Into<String>) -> Self {
                self.model = Some(model.into());
                self
            }

            /// From when it is asked. 0: the executor's default (300).
            #[must_use]
            pub fn timeout_seconds(mut self, seconds: u32) -> Self {
                self.timeout_seconds = seconds;
                self
            }

            #[must_use]
            pub fn priority(mut self, priority: $crate::executor::Priority) -> Self {
                self.priority = priority;
                self
            }

            /// 0 to 2.
            #[must_use]
            pub fn temperature(mut self, temperature: f32) -> Self {
                self.sampling.temperature = Some(temperature);
                self
            }

            /// Of the answer.
            #[must_use]
            pub fn max_tokens(mut self, tokens: u32) -> Self {
                self.sampling.max_tokens = Some(tokens);
                self
            }

            /// Another text that ends the answer.
            #[must_use]
            pub fn stop(mut self, text: impl Into<String>) -> Self {
                self.sampling.stop.push(text.into());
                self
            }

            /// For endpoints that answer the same to the same seed.
            #[must_use]
            pub fn seed(mut self, seed: i64) -> Self {
                self.sampling.seed = Some(seed);
                self
            }

            /// The answer is to be JSON.
            #[must_use]
            pub fn json(mut self) -> Self {
                self.sampling.format = $crate::executor::Format::Json;
                self
            }

            /// The answer is to be JSON of this schema, strictly so where the endpoint can.
            #[must_use]
            pub fn schema(mut self, name: impl Into<String>, schema: &serde_json::Value) -> Self {
                let (name, schema) = (name.into(), schema.to_string());
                self.sampling.format = $crate::executor::Format::Schema { name, schema, strict: true };
                self
            }
        }
    };
}

pub(super) use how_to_answer;

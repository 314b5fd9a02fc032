//! A client of OpenAI-compatible endpoints (vLLM, llama.cpp, Ollama, hosted ones): one call at one [`Endpoint`], or any
//! number of calls over the endpoints of a [`Pool`]. It knows nothing of the bus, the sandbox or the fleet.

mod answer;
mod body;
mod call;
mod connect;
mod endpoint;
mod failure;
mod pool;
mod request;
mod retry_after;
mod stream;
mod wire;

pub use answer::{Answer, Chunk, Finish, Usage};
pub use endpoint::{Endpoint, EndpointConfig, Faults, Limits, Secret, TokenLimit};
pub use failure::{Failure, Kind, Late, Work};
pub use pool::{
    BackOff, Breaker, BreakerState, Counters, EndpointStatistics, FIRST_TOKEN_BUCKETS, Member, ModelConfig,
    ModelStatistics, Pool, PoolConfig, PooledStream, Repeat, Served, Statistics,
};
pub use request::{ChatRequest, Format, Message, Role};
pub use stream::TokenStream;

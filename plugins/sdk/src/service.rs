//! Answering gRPC calls: the host takes them and the plugin serves them, by a second function beside the handler.
//!
//! ```
//! use cofferdam_sdk::{Event, Failure, rpc::Code, service::{self, Call, Status}, state, testing::{self, Host}};
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct GetRequest { #[prost(string, tag = "1")] account: String }
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct GetResponse { #[prost(int64, tag = "1")] sum: i64 }
//!
//! fn handle(_: Event) -> Result<(), Failure> {
//!     Ok(())
//! }
//!
//! fn serve(call: Call) -> Result<Vec<u8>, Status> {
//!     match call.name() {
//!         "Get" => {
//!             let request: GetRequest = call.read()?;
//!             let sum = state::load("sum")?.ok_or_else(|| Status::not_found(format!("no account {}", request.account)))?;
//!             service::answer(&GetResponse { sum })
//!         }
//!         _ => Err(Status::unimplemented(&call)),
//!     }
//! }
//! cofferdam_sdk::export!(handle, serve);
//!
//! let mut host = Host::new();
//! let get = || testing::call("bank.v1.Accounts/Get", &GetRequest { account: "a".into() }).key("a");
//! assert_eq!(host.serve(serve, get()).answer.unwrap_err().code, Code::NotFound);
//! host.set_value("a", "sum", &7);
//! assert_eq!(host.serve(serve, get()).read::<GetResponse>().sum, 7);
//! ```

use prost::Message;

use crate::{
    Failure, Pairs, config::ConfigError, executor::ExecutorError, metrics::MetricError, publish::EmitError,
    rpc, rpc::Code, state::StateError,
};

/// One call of a method that the manifest lists under `[services]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Unique, and the same on every run of this call.
    pub id: String,
    /// `package.Service/Method`.
    pub method: String,
    /// The client's ASCII metadata, sorted by name, without what belongs to the protocol or to the host; a name may repeat.
    pub metadata: Pairs,
    /// An encoded protobuf message; [`Call::read`] decodes it.
    pub request: Vec<u8>,
    /// When the host took the call: nanoseconds since 1970-01-01T00:00:00Z.
    pub timestamp: u64,
}

impl Call {
    /// The method alone, without its service.
    pub fn name(&self) -> &str {
        self.method.rsplit_once('/').map_or(&self.method, |(_, name)| name)
    }

    /// The service alone, with its package: `package.Service`.
    pub fn service(&self) -> &str {
        self.method.rsplit_once('/').map_or("", |(service, _)| service)
    }

    /// The first value of that name in the metadata, upper and lower case being the same.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The request; what is not of that type is the client's mistake.
    pub fn read<M: Message + Default>(&self) -> Result<M, Status> {
        M::decode(self.request.as_slice()).map_err(|error| {
            Status::invalid_argument(format!("the request of {} can't be read: {error}", self.method))
        })
    }
}

/// The answer to a call.
pub fn answer(message: &impl Message) -> Result<Vec<u8>, Status> {
    Ok(message.encode_to_vec())
}

/// What a call is answered with instead of a message. The effects are dropped.
///
/// Every error of the SDK turns into one with `?`, by way of [`Failure`]: what is a retry of an event is
/// [`Code::Unavailable`], which tells the client to try again, and what is a rejection is [`Code::FailedPrecondition`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    /// With [`Code::Ok`] the client gets [`Code::Unknown`]: an error is no answer.
    pub code: Code,
    /// For the client.
    pub message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The request is wrong, whatever the state.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// What the request names is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// What the request would make is there already.
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, message)
    }

    /// The state does not allow it; the same call may do once somebody has changed that.
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// The caller may not do this.
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    /// Not now; the client is to try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The plugin's own mistake.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// The plugin does not serve the method.
    pub fn unimplemented(call: &Call) -> Self {
        Self::new(Code::Unimplemented, format!("{} is not served by this plugin", call.method))
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Retry { reason, .. } => Self::unavailable(reason),
            Failure::Reject(reason) => Self::failed_precondition(reason),
        }
    }
}

macro_rules! by_way_of_failure {
    ($($error:ty),*) => {$(
        impl From<$error> for Status {
            fn from(error: $error) -> Self {
                Failure::from(error).into()
            }
        }
    )*};
}

by_way_of_failure!(EmitError, rpc::Status, ExecutorError, StateError, ConfigError, MetricError);

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, request: &[u8]) -> Call {
        Call {
            id: "c".into(),
            method: method.into(),
            metadata: vec![("x-tenant".into(), "a".into()), ("x-tenant".into(), "b".into())],
            request: request.to_vec(),
            timestamp: 0,
        }
    }

    #[test]
    fn a_call_tells_its_parts() {
        let call = call("bank.v1.Accounts/Get", &[0xff]);
        assert_eq!((call.service(), call.name()), ("bank.v1.Accounts", "Get"));
        assert_eq!((call.header("X-Tenant"), call.header("other")), (Some("a"), None));
        let status = call.read::<String>().unwrap_err();
        assert_eq!(status.code, Code::InvalidArgument);
        assert!(status.message.contains("bank.v1.Accounts/Get"), "{status}");
        assert_eq!(
            Status::unimplemented(&call).to_string(),
            "UNIMPLEMENTED: bank.v1.Accounts/Get is not served by this plugin"
        );
    }

    #[test]
    fn an_error_is_for_the_client_to_repeat_only_where_that_may_help() {
        let code = |status: Status| status.code;
        assert_eq!(code(Failure::retry("later").into()), Code::Unavailable);
        assert_eq!(code(Failure::reject("never").into()), Code::FailedPrecondition);
        assert_eq!(code(EmitError::Unavailable("bus".into()).into()), Code::Unavailable);
        assert_eq!(code(EmitError::Denied("a".into()).into()), Code::FailedPrecondition);
        assert_eq!(code(StateError::NoCell("none".into()).into()), Code::FailedPrecondition);
        assert_eq!(code(rpc::Status::new(Code::Internal, "down").into()), Code::Unavailable);
        assert_eq!(code(rpc::Status::new(Code::NotFound, "none").into()), Code::FailedPrecondition);
        assert_eq!(code(ExecutorError::NotConfigured("none".into()).into()), Code::FailedPrecondition);
    }
}

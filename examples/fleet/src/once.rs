//! A call with an idempotency key does its work once: a repeat gets the stored answer. A call without key works as
//! always.

use prost::Message;
use rusqlite::Transaction;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use crate::store::{Error, Store, answers};

/// The gRPC metadata that carries the key.
const KEY: &str = "cofferdam-idempotency-key";

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match &error {
            Error::Unknown { .. } => Status::not_found(error.to_string()),
            Error::Exists { .. } => Status::already_exists(error.to_string()),
            Error::Invalid(_) => Status::invalid_argument(error.to_string()),
            Error::Sqlite(_) | Error::Damaged(_) => {
                tracing::error!(%error, "the database failed");
                Status::internal(error.to_string())
            }
        }
    }
}

/// Does `work` and stores its answer, in one transaction; or answers what is stored for the key.
pub(crate) async fn once<Q, A>(
    store: &Store,
    method: &'static str,
    request: Request<Q>,
    work: impl FnOnce(&Transaction<'_>, Q) -> Result<A, Error> + Send + 'static,
) -> Result<Response<A>, Status>
where
    Q: Message + Send + 'static,
    A: Message + Default + Send + 'static,
{
    let key = key(&request)?;
    let request = request.into_inner();
    let answer = store
        .change(move |transaction| {
            let Some(key) = key else { return work(transaction, request) };
            let digest = Sha256::digest(request.encode_to_vec());
            if let Some(stored) = answers::find(transaction, &key, method, &digest)? {
                tracing::info!(method, key, "a repeated call gets its first answer");
                return A::decode(stored.as_slice()).map_err(|error| Error::Damaged(error.to_string()));
            }
            let answer = work(transaction, request)?;
            answers::put(transaction, &key, method, &digest, &answer.encode_to_vec())?;
            Ok(answer)
        })
        .await?;
    Ok(Response::new(answer))
}

/// The idempotency key of a call, if it has one.
pub(crate) fn key<Q>(request: &Request<Q>) -> Result<Option<String>, Status> {
    match request.metadata().get(KEY).map(|key| key.to_str()) {
        None => Ok(None),
        Some(Ok(key)) if !key.is_empty() => Ok(Some(key.to_owned())),
        Some(_) => Err(Status::invalid_argument(format!("{KEY} must be non-empty ASCII text"))),
    }
}

//! One message of a stream, by its sequence: reading and deleting it.

use serde_json::{Value, json};

use super::{
    jsapi::code,
    link::Link,
    read,
    streams::{gone, is_name},
};
use crate::{api::Stored, error::Error};

pub(super) async fn get(link: &Link, stream: &str, sequence: u64) -> Result<Option<Stored>, Error> {
    if !is_name(stream) {
        return Err(gone(stream));
    }
    // No message has it, and the server would read the request as another.
    if sequence == 0 {
        return Ok(None);
    }
    match read::at(link, stream, sequence).await {
        Err(e) if e.is(code::STREAM_NOT_FOUND) => Err(gone(stream)),
        other => Ok(other?),
    }
}

pub(super) async fn delete(link: &Link, stream: &str, sequence: u64) -> Result<bool, Error> {
    if !is_name(stream) {
        return Err(gone(stream));
    }
    let body = json!({ "seq": sequence, "no_erase": true });
    match link.call::<Value>(&format!("STREAM.MSG.DELETE.{stream}"), &body).await {
        Ok(_) => Ok(true),
        Err(e) if e.is(code::STREAM_NOT_FOUND) => Err(gone(stream)),
        Err(e) if e.is(code::NO_SUCH_SEQUENCE) => Ok(false),
        // The server's word for everything that went wrong with it, that it is not there among the rest.
        Err(e) if e.is(code::NO_MESSAGE_TO_DELETE) => match get(link, stream, sequence).await? {
            None => Ok(false),
            Some(_) => Err(match e.into() {
                // The stream's `deny_delete`, which has no code of its own.
                Error::Unavailable(why) if why.contains("delete not permitted") => Error::Refused(why),
                error => error,
            }),
        },
        Err(e) => Err(e.into()),
    }
}

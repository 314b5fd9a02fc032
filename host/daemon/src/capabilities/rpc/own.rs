//! Calls of this host's runs to what this daemon serves itself: in memory, through the very router that clients reach, without
//! connections and TLS. Each is worked by a task of its own, which ends with its caller.

use std::{
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use axum::Router;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio_util::task::AbortOnDropHandle;
use tonic::{body::Body, codegen::StdError, transport::Channel};
use tower::{Service, ServiceExt};

/// What this host knows of a call that one of its own runs makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Within {
    /// How many calls of this kind lie around it; an event and a client's call are at 0.
    pub depth: usize,
    pub caller: Caller,
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An event, a call that writes or a job, and space and cell whose turn it has until it is through.
    Event(Option<(String, String)>),
    /// A call that reads: nothing that is done is to come of it.
    Read,
}

impl Default for Caller {
    fn default() -> Self {
        Self::Event(None)
    }
}

impl Within {
    pub fn of_event(turn: Option<(String, String)>) -> Self {
        Self { depth: 0, caller: Caller::Event(turn) }
    }

    /// Of the run that answers the call, which reads.
    pub fn read(&self) -> Self {
        Self { depth: self.depth, caller: Caller::Read }
    }

    /// Of the calls that are made there.
    pub fn deeper(&self) -> Self {
        Self { depth: self.depth + 1, caller: self.caller.clone() }
    }
}

/// Leads to what is served, while that is.
#[derive(Debug, Clone, Default)]
pub struct Door(Arc<RwLock<Option<Router>>>);

impl Door {
    pub fn open(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(router);
    }

    /// Whatever is behind it holds this host's services, and those the door.
    pub fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.router().is_some()
    }

    fn router(&self) -> Option<Router> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How an upstream is reached.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Out(Channel),
    Own(Door),
}

impl Service<Request<Body>> for Way {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Response<Body>, StdError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Self::Out(channel) => channel.poll_ready(cx).map_err(Into::into),
            Self::Own(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Out(channel) => {
                let sent = channel.call(request);
                Box::pin(async move { Ok(sent.await?) })
            }
            Self::Own(door) => {
                let router = door.router();
                Box::pin(async move {
                    let router = router.ok_or("this daemon serves nothing now")?;
                    // Not on the caller's stack, which is a guest's: the run that answers has one of its own.
                    let worked = AbortOnDropHandle::new(tokio::spawn(router.oneshot(request)));
                    let response = match worked.await? {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    Ok(response.map(Body::new))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_ends_with_its_caller_and_is_worked_by_a_task_of_its_own() {
        let (began, wait) = tokio::sync::oneshot::channel();
        let (left, gone) = tokio::sync::oneshot::channel::<()>();
        let told = Arc::new(std::sync::Mutex::new(Some((began, left))));
        let door = Door::default();
        assert!(!door.is_open());
        door.open(Router::new().fallback(move |request: axum::extract::Request| {
            let told = told.lock().unwrap().take();
            async move {
                let within = request.extensions().get::<Within>().cloned();
                let (began, _left) = told.unwrap();
                began.send((tokio::task::id(), within)).unwrap();
                std::future::pending::<()>().await;
            }
        }));
        let mut request = Request::new(Body::empty());
        let within = Within::of_event(Some(("s".into(), "c".into()))).deeper();
        request.extensions_mut().insert(within.clone());
        let mut way = Way::Own(door.clone());
        let call = tokio::spawn(async move { way.call(request).await.map(drop) });
        let (task, seen) = wait.await.unwrap();
        assert_eq!(seen, Some(within));
        assert_ne!(task, call.id());
        call.abort();
        assert!(gone.await.is_err(), "the sender was dropped");
        door.close();
        let refused = Way::Own(door).call(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(refused.to_string(), "this daemon serves nothing now");
    }
}

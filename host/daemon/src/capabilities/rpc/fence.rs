//! The last check of a `once` call: only while the event is this host's alone does it get onto a connection, and from there
//! onto the wire. Connections that outlive a gap with a call on them are closed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tower::ServiceExt;

use crate::dispatch::Held;

/// Lets a request out only while what was seen before it is fresh, and the event is this host's alone: a host that was
/// frozen in between, or that waited for a connection, has to look again.
#[derive(Debug, Clone)]
pub struct Fence {
    seen: Instant,
    held: Held,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    withheld: AtomicBool,
    passed: Mutex<Option<Instant>>,
}

impl Fence {
    /// A look takes a millisecond; a host is frozen, or an event delivered to another, for seconds.
    const FRESH: Duration = Duration::from_secs(1);

    /// From before the look.
    pub(super) fn now(held: &Held) -> Self {
        Self { seen: Instant::now(), held: held.clone(), state: Arc::default() }
    }

    /// Asked when the connection takes the message.
    pub(super) fn pass(&self) -> Result<(), Status> {
        // Noted first, so that the connection knows of it when it writes.
        *locked(&self.state.passed) = Some(Instant::now());
        if self.seen.elapsed() < Self::FRESH && self.held.is_sure() {
            return Ok(());
        }
        self.state.withheld.store(true, Ordering::Relaxed);
        Err(Status::aborted("what was seen before the call is out of date"))
    }

    pub(super) fn has_withheld(&self) -> bool {
        self.state.withheld.load(Ordering::Relaxed)
    }

    /// When it passed, if it would not now.
    fn overtaken(&self) -> Option<Instant> {
        let passed = *locked(&self.state.passed);
        passed.filter(|_| !self.held.is_sure())
    }
}

/// The calls that passed their fences and are perhaps not on the wire yet, on all connections to one upstream.
#[derive(Debug, Default)]
pub(super) struct Passed(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    /// With a number for each.
    out: Vec<(u64, Fence)>,
    entered: u64,
    /// When the last call passed that was overtaken. Connections that are older may have it in their buffers.
    overtaken: Option<Instant>,
}

/// A call until it is answered or given up.
pub(super) struct Out<'a> {
    passed: &'a Passed,
    number: u64,
}

impl Passed {
    /// Connects by and by to an upstream whose every write asks these calls' fences again.
    pub(super) fn connect(self: &Arc<Self>, endpoint: &Endpoint) -> Channel {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let passed = self.clone();
        endpoint.connect_with_connector_lazy(http.map_response(move |stream: TokioIo<TcpStream>| {
            let passed = passed.clone();
            TokioIo::new(Fenced { stream: stream.into_inner(), born: Instant::now(), passed })
        }))
    }

    pub(super) fn enter(&self, fence: Fence) -> Out<'_> {
        let mut calls = locked(&self.0);
        calls.entered += 1;
        let number = calls.entered;
        calls.out.push((number, fence));
        Out { passed: self, number }
    }

    /// Whether a connection made then has no call in its buffers that was overtaken.
    fn check(&self, born: Instant) -> io::Result<()> {
        let mut calls = locked(&self.0);
        let overtaken = calls.out.iter().filter_map(|(_, fence)| fence.overtaken()).max();
        calls.overtaken = calls.overtaken.max(overtaken);
        match calls.overtaken {
            Some(passed) if passed >= born => {
                let why = "the host was away for longer than the ack wait with a call on this connection";
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, why))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        let mut calls = locked(&self.passed.0);
        if let Some(at) = calls.out.iter().position(|(number, _)| *number == self.number) {
            let (_, fence) = calls.out.swap_remove(at);
            // A call that is given up is perhaps still in a buffer.
            calls.overtaken = calls.overtaken.max(fence.overtaken());
        }
    }
}

/// A connection that writes nothing that was overtaken.
struct Fenced {
    stream: TcpStream,
    born: Instant,
    passed: Arc<Passed>,
}

impl AsyncRead for Fenced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Fenced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.passed.check(self.born)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.passed.check(self.born)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::dispatch::Grip;

    async fn connection(passed: &Arc<Passed>) -> (Fenced, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        (Fenced { stream, born: Instant::now(), passed: passed.clone() }, peer)
    }

    #[tokio::test]
    async fn what_was_overtaken_on_its_way_is_not_written() {
        let passed = Arc::new(Passed::default());
        let (mut old, mut peer) = connection(&passed).await;
        let lost = Grip::new(Duration::from_secs(30));
        let kept = Grip::new(Duration::from_secs(3600));
        let fence = Fence::now(&lost.hold(Instant::now()));
        let others = Fence::now(&kept.hold(Instant::now()));
        let (call, other) = (passed.enter(fence.clone()), passed.enter(others.clone()));
        fence.pass().unwrap();
        others.pass().unwrap();
        old.write_all(b"on time").await.unwrap();
        lost.beat_at(Instant::now() + Duration::from_secs(60));
        assert!(fence.pass().is_err() && fence.has_withheld() && !others.has_withheld());
        let refused = old.write_all(b"too late").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionAborted, "{refused}");
        // A new one has nothing of it, whether the call's end has been seen or not.
        let (mut new, mut newer_peer) = connection(&passed).await;
        new.write_all(b"1").await.unwrap();
        drop(call);
        new.write_all(b"2").await.unwrap();
        old.write_all(b"too late").await.unwrap_err();
        drop((old, new, other));
        let (mut first, mut second) = (String::new(), String::new());
        peer.read_to_string(&mut first).await.unwrap();
        newer_peer.read_to_string(&mut second).await.unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("on time", "12"));
    }

    #[tokio::test]
    async fn an_idle_connection_outlives_a_gap() {
        let passed = Arc::new(Passed::default());
        let (mut connection, _peer) = connection(&passed).await;
        let grip = Grip::new(Duration::from_secs(30));
        let fence = Fence::now(&grip.hold(Instant::now()));
        let call = passed.enter(fence.clone());
        fence.pass().unwrap();
        drop(call);
        grip.beat_at(Instant::now() + Duration::from_secs(60));
        // One that has not passed is on no connection.
        let _waiting = passed.enter(Fence::now(&grip.hold(Instant::now())));
        connection.write_all(b"next").await.unwrap();
    }
}

//! Serves HTTP/1.1 over TCP to as many connections as there is room for.
//!
//! All of it happens in one task, which a node gives a thread of its own: what strangers send keeps
//! no worker of consensus.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use futures::{StreamExt, stream::FuturesUnordered};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, sleep_until},
};
use tower::ServiceExt;

use super::{
    shares::{Share, Shares},
    timed::Timed,
};
use crate::metrics::Metrics;

/// How long a request's head may take, and a connection may wait for its next request.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Most header fields.
const MAX_FIELDS: usize = 64;
/// Wait after an error of the operating system, such as too few file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// The log names an address that is refused at most so often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, router: Router, shares: Shares, metrics: Metrics) {
    let mut open = FuturesUnordered::new();
    let (mut resume, mut told) = (Instant::now(), None);
    loop {
        let accepted = async {
            sleep_until(resume).await;
            listener.accept().await
        };
        let (stream, peer) = tokio::select! {
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "connection to the API");
                    resume = Instant::now() + PAUSE;
                    continue;
                }
            },
            Some(()) = open.next(), if !open.is_empty() => continue,
        };
        match shares.connect(peer.ip()) {
            Ok(place) => {
                open.push(connection(stream, peer, place, router.clone(), metrics.clone()));
            }
            Err(no_room) => {
                metrics.connections_refused.inc();
                let now = Instant::now();
                if told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY) {
                    told = Some(now);
                    tracing::warn!(
                        address = %peer.ip(),
                        of_this_address = no_room.address,
                        most = no_room.most,
                        "closes connections to the API: too many are open"
                    );
                }
            }
        }
    }
}

/// Serves one connection.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    (place, close): (Share, Arc<Notify>),
    router: Router,
    metrics: Metrics,
) {
    let _ = stream.set_nodelay(true); // a matter of speed only
    metrics.connections.inc();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(Timed::new(stream)), service);
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "connection to the API");
        },
        () = close.notified() => {
            metrics.connections_refused.inc();
            tracing::debug!(%peer, "connection to the API gives way to another address");
        }
    }
    metrics.connections.dec();
    drop(place);
}

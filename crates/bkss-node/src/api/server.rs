//! Accepts connections, no more than there is memory for.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::ServiceExt;

use super::timed::Timed;
use crate::metrics::Metrics;

/// Connections that are open at the same time; more are closed at once. The store needs file
/// descriptors too, and systems give a process 1024.
pub const MAX_CONNECTIONS: usize = 512;
/// How long a request's head may take, and a connection may wait for its next request.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stand still while an answer is made or read.
const STILL: Duration = Duration::from_secs(45);
/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Most header fields.
const MAX_FIELDS: usize = 64;
/// Wait after an error of the operating system, such as too few file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until the task is dropped, at most `connections` at the same time.
pub async fn serve(listener: TcpListener, router: Router, metrics: Metrics, connections: usize) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection to the API");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            metrics.connections_refused.inc();
            drop(stream);
            continue;
        };
        let _ = stream.set_nodelay(true); // a matter of speed only
        let (router, open) = (router.clone(), metrics.connections.clone());
        open.inc();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                router.clone().oneshot(request)
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_FIELDS)
                .serve_connection(TokioIo::new(Timed::new(stream, STILL)), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "connection to the API");
            }
            open.dec();
            drop(place);
        });
    }
}

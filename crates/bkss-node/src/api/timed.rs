//! A connection that ends when its peer does not read or write for long, or reads too slowly.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long a connection may stand still while an answer is made or read.
const STILL: Duration = Duration::from_secs(45);
/// How long a peer may keep its answer waiting; what it reads earns it more time, up to so much.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that earn a second: who reads no faster is cut off.
pub const LEAST_READ: u64 = 64 << 10;

/// A stream with limits on how long it may stand still and how slowly it may be read.
pub(super) struct Timed<S> {
    stream: S,
    still: Pin<Box<Sleep>>,
    /// How long the peer may still keep an answer waiting.
    patience: Duration,
    /// Since when it does.
    waits: Option<Instant>,
    slow: Pin<Box<Sleep>>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S) -> Self {
        let [still, slow] = [STILL, PATIENCE].map(|limit| Box::pin(sleep(limit)));
        Self { stream, still, patience: PATIENCE, waits: None, slow }
    }

    /// Passes a result on; what has waited too long is an error.
    fn pass<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            let next = self.still.deadline().max(Instant::now() + STILL);
            self.still.as_mut().reset(next);
            return poll;
        }
        match self.still.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// [`Self::pass`] of what is written: the time that the peer lets it wait is counted.
    fn pass_written(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &poll {
            Poll::Ready(Ok(written)) => {
                if let Some(since) = self.waits.take() {
                    self.patience = self.patience.saturating_sub(since.elapsed());
                }
                let earned = *written as f64 / LEAST_READ as f64;
                self.patience = (self.patience + Duration::from_secs_f64(earned)).min(PATIENCE);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if self.waits.is_none() {
                    let since = Instant::now();
                    self.waits = Some(since);
                    self.slow.as_mut().reset(since + self.patience);
                }
                if self.slow.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        self.pass(context, poll)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.pass(context, poll)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.pass_written(context, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.pass(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.pass(context, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Sends a megabyte to a peer that reads `bytes` every `pause`; the seconds that it took, and
    /// whether all of it came.
    async fn send(bytes: usize, pause: Duration) -> (u64, bool) {
        let (own, mut peer) = duplex(16 << 10);
        let mut own = Timed::new(own);
        let reading = tokio::spawn(async move {
            let mut piece = vec![0; bytes];
            while peer.read(&mut piece).await.is_ok_and(|read| read > 0) {
                sleep(pause).await;
            }
        });
        let began = Instant::now();
        let sent = own.write_all(&vec![7; 1 << 20]).await;
        let took = began.elapsed().as_secs();
        drop(own);
        reading.abort();
        (took, sent.is_ok())
    }

    #[test]
    fn whoever_reads_too_slowly_is_cut_off() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            // It never stands still, and takes some 25 bytes a second.
            let (took, all) = send(100, Duration::from_secs(4)).await;
            assert!(!all && (30..=31).contains(&took), "{took} s");
            // Less than the least, for longer than the peer has patience.
            let (took, all) = send(16 << 10, Duration::from_secs(1)).await;
            assert!(!all && (30..60).contains(&took), "{took} s");
            // Slow, but not too slow.
            let (took, all) = send(16 << 10, Duration::from_millis(200)).await;
            assert!(all && took >= 10, "{took} s");
        });
    }
}

//! A stream whose first bytes are looked at before it is known who reads them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A stream, and what was read of it ahead.
#[derive(Debug)]
pub(super) struct Prefixed<S> {
    ahead: BytesMut,
    stream: S,
}

impl<S> Prefixed<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { ahead: BytesMut::new(), stream }
    }

    /// Has these bytes read again, before all others.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.ahead = [bytes, &self.ahead].concat().as_slice().into();
        }
    }

    /// Takes bytes out that were read ahead, at most as many as there are.
    pub(super) fn skip(&mut self, length: usize) {
        self.ahead.advance(length.min(self.ahead.len()));
        if self.ahead.is_empty() {
            // Most connections live much longer than what was read ahead.
            self.ahead = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// Reads ahead, up to `most` bytes, until they say what is asked of them.
    ///
    /// # Errors
    /// Where the stream fails, ends before, or has so many bytes that say nothing.
    pub(super) async fn look<T>(
        &mut self,
        most: usize,
        mut ask: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            if let Some(found) = ask(&self.ahead) {
                return Ok(found);
            }
            let room = most.saturating_sub(self.ahead.len());
            if room == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.ahead.reserve(room);
            if (&mut self.stream).take(room as u64).read_buf(&mut self.ahead).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.skip(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_looked_at_is_read_again_unless_it_is_skipped() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"onetwothree").await.unwrap();
        drop(theirs);
        let mut stream = Prefixed::new(ours);
        let found = stream.look(6, |ahead| (ahead.len() >= 6).then(|| ahead.to_vec())).await.unwrap();
        assert_eq!(found, b"onetwo", "and not a byte more");
        stream.skip(3);
        stream.put_back(b"and");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "andtwothree");
    }

    #[tokio::test]
    async fn no_more_is_looked_at_than_there_may_be_and_there_is() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"onetwo").await.unwrap();
        let mut stream = Prefixed::new(ours);
        let error = stream.look(3, |_| None::<()>).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(theirs);
        let error = stream.look(7, |_| None::<()>).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

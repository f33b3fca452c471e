//! Pacing of streams to clients over the network: what comes quickly goes out together.
//!
//! A hundred watchers of a busy resource would otherwise cost a hundred TLS records, system calls and wake-ups on either
//! side for every single write. A stream that was silent is not held up: its first event leaves at once.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::Instant;

/// From one piece of a stream to the next. At 2,000 events a second it makes one piece of eight, while nobody who waits for
/// an event notices 4 ms: a client's round trip on a real network takes as long.
const PACE: Duration = Duration::from_millis(4);
/// A larger piece is not waited for: the most that goes into a few TLS records.
const PIECE: usize = 64 * 1024;

/// The same bytes in fewer pieces.
pub(crate) fn paced(stream: BoxStream<'static, Bytes>) -> impl Stream<Item = Bytes> + Send {
    futures::stream::unfold((stream.fuse(), None), |(mut stream, last)| async move {
        let first = stream.next().await?;
        if let Some(last) = last {
            tokio::time::sleep_until(last + PACE).await;
        }
        // Dropping the future of `next` loses nothing: what it waits for stays in the stream. An end is found again.
        let mut more: Option<BytesMut> = None;
        while more.as_ref().map_or(first.len(), BytesMut::len) < PIECE
            && let Some(Some(next)) = stream.next().now_or_never()
        {
            more.get_or_insert_with(|| BytesMut::from(first.as_ref())).extend_from_slice(&next);
        }
        Some((more.map_or(first, BytesMut::freeze), (stream, Some(Instant::now()))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_leaves_in_few_pieces_and_whole() {
        let start = Instant::now();
        // An event each millisecond, forty of them.
        let events = futures::stream::unfold(0_u8, move |number| async move {
            tokio::time::sleep_until(start + Duration::from_millis(u64::from(number) + 10)).await;
            (number < 40).then(|| (Bytes::from(vec![number]), number + 1))
        });
        let pieces: Vec<(Duration, Bytes)> =
            paced(events.boxed()).map(|piece| (start.elapsed(), piece)).collect().await;
        assert_eq!(pieces[0], (Duration::from_millis(10), Bytes::from_static(&[0])), "the first is not held up");
        let whole: Vec<u8> = pieces.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
        assert_eq!(whole, (0..40).collect::<Vec<u8>>());
        assert!(pieces.len() <= 12, "{pieces:?}");
        for (at, piece) in &pieces {
            let newest = u64::from(piece[piece.len() - 1]) + 10;
            assert!(*at <= Duration::from_millis(newest) + PACE, "{at:?} {piece:?}");
        }
    }
}

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::StatusCode;
use tokio::sync::Notify;

use super::*;
use crate::net::Net;
use crate::net::memory::MemoryNet;
use crate::testing::{self, MemoryFiles, TinyApi, test_host};
use crate::tls::{Certificate, CertificateFiles};

struct World {
    client: Arc<dyn Net>,
    addr: SocketAddr,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<Drained>,
}

async fn serving(handler: Handler) -> World {
    let net = MemoryNet::new();
    let (server, client) =
        (net.host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))), net.host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))));
    let addr = SocketAddr::new(server.own_ip(), 8443);
    let listener = server.listen(addr).await.unwrap();
    let host = test_host("pod", "ns", &TinyApi::new(), &MemoryFiles::default(), server);
    let tls = Certificate::new(&host, CertificateFiles::in_dir("/x", vec![])).server_config().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, tls, handler, stop.clone()));
    World { client, addr, stop, server }
}

#[tokio::test(start_paused = true)]
async fn answers_and_reads_bodies_up_to_a_bound() {
    let world = serving(handler(|request| async move {
        match read_body(request.into_body()).await {
            Ok(body) => text(StatusCode::OK, format!("{} bytes", body.len())),
            Err(error) => text(error.status(), error.to_string()),
        }
    }))
    .await;
    let (status, body) = testing::post(&*world.client, world.addr, "/x", vec![0; 70_000]).await.unwrap();
    assert_eq!((status, body.as_str()), (StatusCode::OK, "70000 bytes"));
    let (status, _) = testing::post(&*world.client, world.addr, "/x", vec![0; BODY_BYTES + 1]).await.unwrap();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    world.stop.cancel();
    assert_eq!(world.server.await.unwrap(), Drained { cut_off: 0 });
    let refused = testing::get(&*world.client, world.addr, "/").await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_a_request_under_way_finish_and_cuts_off_what_hangs() {
    let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, end) = (Arc::clone(&entered), Arc::clone(&finish));
    let world = serving(handler(move |request| {
        let (enter, end) = (Arc::clone(&enter), Arc::clone(&end));
        async move {
            enter.notify_one();
            if request.uri().path() == "/hang" {
                std::future::pending::<()>().await;
            }
            end.notified().await;
            text(StatusCode::OK, "finished")
        }
    }))
    .await;
    let (client, addr) = (Arc::clone(&world.client), world.addr);
    let slow = tokio::spawn(async move { testing::get(&*client, addr, "/slow").await });
    entered.notified().await;
    let (client, addr) = (Arc::clone(&world.client), world.addr);
    let hang = tokio::spawn(async move { testing::get(&*client, addr, "/hang").await });
    entered.notified().await;
    let begin = Instant::now();
    world.stop.cancel();
    finish.notify_one();
    assert_eq!(slow.await.unwrap().unwrap(), (StatusCode::OK, "finished".to_owned()));
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(world.server.await.unwrap(), Drained { cut_off: 1 });
    assert_eq!(begin.elapsed(), DRAIN);
    assert!(hang.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_let_go_and_an_idle_one_does_not_delay_the_drain() {
    let world = serving(handler(|_| async { text(StatusCode::OK, "") })).await;
    let mut silent = world.client.connect(world.addr).await.unwrap();
    let begin = Instant::now();
    let mut end = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut end).await.unwrap();
    assert!(begin.elapsed() >= HANDSHAKE_TIMEOUT && begin.elapsed() < HANDSHAKE_TIMEOUT * 2, "{:?}", begin.elapsed());

    let idle = testing::connect(&*world.client, world.addr).await.unwrap();
    let begin = Instant::now();
    world.stop.cancel();
    assert_eq!(world.server.await.unwrap(), Drained { cut_off: 0 });
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded_and_an_idle_one_makes_room_in_the_end() {
    let world = serving(handler(|_| async { text(StatusCode::OK, "") })).await;
    let begin = Instant::now();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(testing::connect(&*world.client, world.addr).await.unwrap());
    }
    let more = testing::connect(&*world.client, world.addr);
    assert!(timeout(Duration::from_secs(5), more).await.is_err(), "one too many waits");
    open.pop();
    let more = testing::connect(&*world.client, world.addr).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(6));
    open.push(more);
    testing::get(&*world.client, world.addr, "/").await.unwrap();
    let waited = begin.elapsed();
    assert!(waited >= HEAD_TIMEOUT && waited < HEAD_TIMEOUT + Duration::from_secs(10), "{waited:?}");
}

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_peer_is_known() {
    let net = MemoryNet::new();
    let (server, client) = (net.host(ip(1)), net.host(ip(2)));
    let mut listener = server.listen(any(8443)).await.unwrap();
    let mut near = client.connect(SocketAddr::new(ip(1), 8443)).await.unwrap();
    let (mut far, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip(), ip(2));
    near.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    far.write_all(b"pong").await.unwrap();
    drop(far);
    let mut all = Vec::new();
    near.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"pong");
    drop(near);
    assert!(net.lock().ends.is_empty(), "a closed connection leaves nothing behind");
}

#[tokio::test]
async fn nothing_listens_port_taken_and_closed_on_drop() {
    let net = MemoryNet::new();
    let (server, client) = (net.host(ip(1)), net.host(ip(2)));
    let target = SocketAddr::new(ip(1), 8443);
    assert_eq!(kind(client.connect(target).await), Some(io::ErrorKind::ConnectionRefused));
    let listener = server.listen(any(8443)).await.unwrap();
    assert_eq!(kind(server.listen(any(8443)).await), Some(io::ErrorKind::AddrInUse));
    assert_eq!(net.listening(ip(1)), [8443]);
    client.connect(target).await.unwrap();
    drop(listener);
    assert_eq!(kind(client.connect(target).await), Some(io::ErrorKind::ConnectionRefused));
    server.listen(any(8443)).await.unwrap();
    assert_eq!(
        kind(server.listen(SocketAddr::new(ip(9), 1)).await),
        Some(io::ErrorKind::AddrNotAvailable),
        "a foreign address cannot be bound"
    );
}

#[tokio::test]
async fn loopback_is_for_the_host_itself() {
    let net = MemoryNet::new();
    let (server, client) = (net.host(ip(1)), net.host(ip(2)));
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let listener = server.listen(local).await.unwrap();
    let port = listener.local_addr().port();
    assert_ne!(port, 0);
    server.connect(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).await.unwrap();
    assert_eq!(kind(client.connect(SocketAddr::new(ip(1), port)).await), Some(io::ErrorKind::ConnectionRefused));
}

#[tokio::test(start_paused = true)]
async fn a_rule_refuses_and_swallows_until_it_is_lifted() {
    let net = MemoryNet::new();
    let (server, client) = (net.host(ip(1)), net.host(ip(2)));
    let mut listener = server.listen(any(80)).await.unwrap();
    let target = SocketAddr::new(ip(1), 80);
    net.set_rule(|from, to| if from == ip(2) && to.port() == 80 { Verdict::Refuse } else { Verdict::Pass });
    assert_eq!(kind(client.connect(target).await), Some(io::ErrorKind::ConnectionRefused));
    net.set_rule(|_, _| Verdict::Swallow);
    let mut attempt = client.connect(target);
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut attempt).await.is_err(), "it hangs");
    net.set_rule(|_, _| Verdict::Pass);
    attempt.await.unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_reset_breaks_open_connections_and_wakes_readers() {
    let net = MemoryNet::new();
    let (server, client) = (net.host(ip(1)), net.host(ip(2)));
    let mut listener = server.listen(any(80)).await.unwrap();
    let mut near = client.connect(SocketAddr::new(ip(1), 80)).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    let reader = tokio::spawn(async move { far.read(&mut [0; 1]).await });
    tokio::task::yield_now().await;
    net.reset(|a, b| (a, b) == (ip(2), ip(1)));
    assert_eq!(kind(reader.await.unwrap()), Some(io::ErrorKind::ConnectionReset));
    assert_eq!(kind(near.write_all(b"x").await), Some(io::ErrorKind::ConnectionReset));
}

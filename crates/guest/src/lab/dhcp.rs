//! A DHCP server for one guest: whoever asks gets the one address.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::{GATEWAY, GUEST};

/// What marks the options, and their values, as RFC 2131 and 2132 number them.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
// The kinds of messages, by the same numbers.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
/// Long enough that no test sees a renewal.
const LEASE_SECONDS: u32 = 86_400;

/// Answers until dropped.
///
/// # Errors
/// When the port cannot be had.
pub async fn serve() -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).await?;
    socket.set_broadcast(true)?;
    let mut buffer = [0; 1500];
    loop {
        let (length, _) = socket.recv_from(&mut buffer).await?;
        if let Some(reply) = answer(&buffer[..length]) {
            // A lost answer is asked for again.
            let _ = socket.send_to(&reply, SocketAddr::from((Ipv4Addr::BROADCAST, 68))).await;
        }
    }
}

/// The reply to a client's message. Pure.
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    if message.len() < 240 || message[0] != 1 || message[236..240] != MAGIC {
        return None;
    }
    let kind = match option(&message[240..], 53)? {
        [DISCOVER] => OFFER,
        [REQUEST] => ACK,
        _ => return None,
    };
    let mut reply = vec![0; 240];
    reply[0] = 2;
    // Hardware type and length, transaction, flags, the client's hardware address.
    reply[1..8].copy_from_slice(&message[1..8]);
    reply[10] = 0x80;
    reply[16..20].copy_from_slice(&GUEST.octets());
    reply[20..24].copy_from_slice(&GATEWAY.octets());
    reply[28..44].copy_from_slice(&message[28..44]);
    reply[236..240].copy_from_slice(&MAGIC);
    reply.extend_from_slice(&[53, 1, kind]);
    for (code, value) in [(54, GATEWAY), (1, Ipv4Addr::new(255, 255, 255, 0)), (3, GATEWAY), (6, GATEWAY)] {
        reply.extend_from_slice(&[code, 4]);
        reply.extend_from_slice(&value.octets());
    }
    reply.extend_from_slice(&[51, 4]);
    reply.extend_from_slice(&LEASE_SECONDS.to_be_bytes());
    reply.push(255);
    Some(reply)
}

fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [255, ..] | [] | [_] => return None,
            [code, length, rest @ ..] => {
                let value = rest.get(..usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                options = &rest[usize::from(*length)..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8) -> Vec<u8> {
        let mut message = vec![0; 240];
        message[0] = 1;
        message[4..8].copy_from_slice(&[1, 2, 3, 4]);
        message[236..240].copy_from_slice(&MAGIC);
        message.extend_from_slice(&[0, 12, 1, b'x', 53, 1, kind, 255]);
        message
    }

    #[test]
    fn a_discover_gets_an_offer_and_a_request_an_ack() {
        for (asked, answered) in [(DISCOVER, OFFER), (REQUEST, ACK)] {
            let reply = answer(&message(asked)).unwrap();
            assert_eq!(option(&reply[240..], 53), Some(&[answered][..]));
            assert_eq!(option(&reply[240..], 3), Some(&GATEWAY.octets()[..]));
            assert_eq!((&reply[4..8], &reply[16..20]), (&[1, 2, 3, 4][..], &GUEST.octets()[..]));
        }
    }

    #[test]
    fn other_packets_are_left_alone() {
        assert_eq!(answer(&message(8)), None);
        assert_eq!(answer(&message(DISCOVER)[..239]), None);
        assert_eq!(answer(&[0; 300]), None);
        assert_eq!(
            answer(&{
                let mut cut = message(DISCOVER);
                cut.truncate(246);
                cut
            }),
            None
        );
    }
}

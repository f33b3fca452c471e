//! Addresses of the loopback network for pods that others on this machine reach by sockets.
//!
//! The kernel serves all of 127.0.0.0/8 without being told, so each pod gets an address of its own: 127.B.N.P, where B is
//! a block of this run, N a node and P a pod.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use crate::process::ENDPOINT_PORT;

/// The second number of the addresses; those below are left to whatever else uses loopback addresses.
const BLOCKS: std::ops::RangeInclusive<u8> = 64..=250;
/// Nodes of a block: the third number of 127.B.N.P, from 1.
pub(crate) const NODES: u32 = 254;

/// Other programs hold the addresses.
#[derive(Debug, thiserror::Error)]
#[error("no loopback addresses are free: too many of 127.64.0.1 to 127.250.0.1 are taken at port {ENDPOINT_PORT}")]
pub struct NoAddresses;

/// The addresses of this run's nodes. Held by sockets, so that another run on this machine takes others.
pub(crate) struct Blocks {
    /// The second number of addresses, by how many blocks of nodes come before it.
    seconds: BTreeMap<u32, u8>,
    _claims: Vec<TcpListener>,
}

impl Blocks {
    /// Takes blocks for the nodes of these numbers, which begin at 1.
    pub(crate) fn claim(mut numbers: std::ops::Range<u32>) -> Result<Self, NoAddresses> {
        let mut free = BLOCKS.filter_map(|second| {
            let addr = SocketAddr::from((Ipv4Addr::new(127, second, 0, 1), ENDPOINT_PORT));
            Some((second, TcpListener::bind(addr).ok()?))
        });
        let (mut seconds, mut claims) = (BTreeMap::new(), Vec::new());
        while !numbers.is_empty() {
            let (second, claim) = free.next().ok_or(NoAddresses)?;
            let block = (numbers.start - 1) / NODES;
            seconds.insert(block, second);
            claims.push(claim);
            numbers.start = (block + 1) * NODES + 1;
        }
        Ok(Self { seconds, _claims: claims })
    }

    /// The network of a node's pods, as its first two numbers after 127.
    pub(crate) fn subnet(&self, number: u32) -> Option<Subnet> {
        let (block, node) = ((number - 1) / NODES, (number - 1) % NODES + 1);
        Some(Subnet { second: *self.seconds.get(&block)?, third: u8::try_from(node).ok()? })
    }
}

/// The addresses of one node and its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    second: u8,
    third: u8,
}

impl Subnet {
    pub(crate) fn ip(self, number: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.second, self.third, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_addresses_of_its_own() {
        let blocks = Blocks::claim(250..600).expect("free addresses");
        assert_eq!(blocks.seconds.len(), 3, "254 nodes to a block");
        let subnets: Vec<_> = (250..600).map(|number| blocks.subnet(number).expect("an address").ip(1)).collect();
        assert!(subnets.iter().all(|ip| ip.is_loopback()));
        assert_eq!(std::collections::BTreeSet::from_iter(&subnets).len(), 350);
        assert_eq!(blocks.subnet(1), blocks.subnet(254).map(|last| Subnet { third: 1, ..last }));
        let others = Blocks::claim(1..2).expect("free addresses");
        assert!(blocks.seconds.values().all(|second| others.seconds.values().all(|other| other != second)));
    }
}

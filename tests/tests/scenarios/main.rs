//! The product as its users meet it: every scenario runs a whole cluster in this process, under paused time.

mod beside;
mod customize;
mod differences;
mod drain;
mod edits;
mod fields;
mod gate;
mod hops;
mod images;
mod installation;
mod quiet;
mod refused;
mod registrations;
mod releases;
mod role;
mod rolling;
mod storage;
mod support;
mod unready;
mod upgrades;
mod versions;

//! The operator as a pod of a simulated cluster: installation, upgrade, refusal, repair, removal, under paused time.

mod support;

mod admission;
mod contest;
mod install;
mod keep;
mod versions;

//! What is said to QEMU itself where libvirt has no word for it.

use serde_json::Value;
use virt::domain::Domain as Guest;

/// Stop the guest.
pub(super) const STOP: &str = r#"{"execute": "stop"}"#;
/// Let the guest go on. QEMU takes its disks back before it does so, also for a guest that runs.
pub(super) const GO_ON: &str = r#"{"execute": "cont"}"#;

pub(super) type Told<T> = std::result::Result<T, virt::error::Error>;

/// What QEMU answers.
pub(super) fn tell(domain: &Guest, command: &str) -> Told<String> {
    domain.qemu_monitor_command(command, 0)
}

/// QEMU's own word for what was asked about, empty when there is none.
pub(super) fn status(answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    answer["return"]["status"].as_str().unwrap_or_default().to_owned()
}

/// Why QEMU did not do it; `None` when it did.
pub(super) fn refusal(answer: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let why = || answer["error"]["desc"].as_str().unwrap_or("QEMU's answer makes no sense").to_owned();
    answer["return"].is_null().then(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_says_how_far_it_is() {
        assert_eq!(status(r#"{"return":{"status":"cancelled"},"id":"libvirt-487"}"#), "cancelled");
        for answer in [r#"{"return":{}}"#, r#"{"error":{"class":"GenericError"}}"#, ""] {
            assert_eq!(status(answer), "", "{answer}");
        }
    }

    #[test]
    fn qemu_says_why_not() {
        assert_eq!(refusal(r#"{"return":{},"id":"libvirt-12"}"#), None);
        let refused = r#"{"id":"libvirt-12","error":{"class":"GenericError","desc":"Migration is not finalized yet"}}"#;
        assert_eq!(refusal(refused).as_deref(), Some("Migration is not finalized yet"));
        assert!(refusal("").is_some());
    }
}

//! Events on the own pod. A kubelet does not show the body of a failed probe; an event is where people look.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, PostParams};
use kubevirt_runtime::causes::Causes;
use kubevirt_runtime::host::Host;
use kubevirt_runtime::tls::Invalid;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::certificate;

/// At most one event in this time: a certificate that changes faster is being worked on, and its last state is told.
const PAUSE: Duration = Duration::from_secs(10);

/// Longest pause when events are refused: somebody who mends the rights sees the event while still looking.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// An event is not worth waiting longer for; it is tried again later.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells every change of `problem` as an event. Never ends.
pub(crate) async fn tell(
    host: &Host,
    component: &'static str,
    mut problem: watch::Receiver<Option<Invalid>>,
) -> Infallible {
    let mut told: Option<Invalid> = None;
    let mut pause = PAUSE;
    loop {
        let current = problem.borrow_and_update().clone();
        if certificate::same(told.as_ref(), current.as_ref()) {
            if problem.changed().await.is_err() {
                // Nobody looks any more: the component is being dropped.
                std::future::pending::<()>().await;
            }
            continue;
        }
        match &current {
            Some(problem) => tracing::warn!(component, %problem, "the certificate is not valid"),
            None => tracing::info!(component, "the certificate is valid again"),
        }
        let event = event(host, component, current.as_ref(), own_uid(host).await);
        let events = Api::<Event>::namespaced(host.client.clone(), &host.namespace);
        let failed = match timeout(REQUEST_TIMEOUT, events.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(Causes(&error).to_string()),
            Err(_) => Some(format!("no answer within {REQUEST_TIMEOUT:?}")),
        };
        match failed {
            None => {
                told = current;
                pause = PAUSE;
            }
            Some(error) => {
                tracing::warn!(component, %error, "the event about the certificate could not be written");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// `kubectl describe pod` finds events by the pod's UID. Without the right to read pods the event goes without.
async fn own_uid(host: &Host) -> Option<String> {
    let pods = Api::<Pod>::namespaced(host.client.clone(), &host.namespace);
    timeout(REQUEST_TIMEOUT, pods.get_metadata(&host.hostname)).await.ok()?.ok()?.metadata.uid
}

fn event(host: &Host, component: &'static str, problem: Option<&Invalid>, uid: Option<String>) -> Event {
    let now = host.clock.now();
    let (kind, reason, message) = match problem {
        Some(problem) => ("Warning", "CertificateInvalid", problem.to_string()),
        None => ("Normal", "CertificateValid", "the serving certificate is valid again".to_owned()),
    };
    Event {
        metadata: ObjectMeta {
            // The pod's name and the time, as event names are made: unique as long as this process writes one at a time.
            name: Some(format!("{}.{:x}", host.hostname, now.as_nanosecond())),
            namespace: Some(host.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(host.hostname.clone()),
            namespace: Some(host.namespace.clone()),
            uid,
            ..ObjectReference::default()
        },
        type_: Some(kind.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

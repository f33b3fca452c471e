//! The way of a request through the server, the same for both transports: authentication, impersonation, faults,
//! authorization, the handler, faults again, the audit log.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use tower::Service;

use crate::admission::Notes;
use crate::audit::Record;
use crate::core::Core;
use crate::faults::{After, Before, Call};
use crate::identity::UserInfo;
use crate::pace::paced;
use crate::reply::{Body, Reply, ReplyBody};
use crate::request::RequestInfo;
use crate::status::ApiError;
use crate::{authn, verbs};

/// Larger bodies are refused; the limit of a real API server.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// The connection broke before the reply: an injected fault. The request may have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection reset by peer (injected)")]
pub struct ConnectionLost;

/// Who is at the other end of the connection, as far as the connection itself tells.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub user: Option<UserInfo>,
    pub address: String,
    /// Whether streams to it are paced, see [`crate::pace`].
    pub remote: bool,
}

/// Everything a handler knows about a request.
pub(crate) struct Context {
    pub info: RequestInfo,
    pub user: UserInfo,
    pub user_agent: String,
    pub accept: String,
    pub content_type: String,
    pub body: Bytes,
    /// Path and query as they came.
    pub uri: String,
    /// What admission says beside yes and no.
    pub notes: Notes,
}

impl Context {
    /// The name under which a write without `fieldManager` is recorded.
    pub(crate) fn default_manager(&self) -> String {
        let name = self.user_agent.split('/').next().unwrap_or_default();
        if name.is_empty() { "unknown".to_owned() } else { name.chars().take(128).collect() }
    }
}

/// The server as a tower service on one connection; cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiService {
    pub core: Arc<Core>,
    pub peer: Peer,
}

impl<B> Service<http::Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = ConnectionLost;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectionLost>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), ConnectionLost>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { serve(service.core, service.peer, request).await })
    }
}

async fn serve<B>(
    core: Arc<Core>,
    peer: Peer,
    request: http::Request<B>,
) -> Result<http::Response<Body>, ConnectionLost>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let received = core.clock.now();
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(&name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or("");
    let info = RequestInfo::parse(head.method.as_str(), head.uri.path(), head.uri.query().unwrap_or_default());
    let mut context = Context {
        info,
        user: UserInfo::anonymous(),
        user_agent: header(USER_AGENT).to_owned(),
        // Several headers of one name are one list.
        accept: head
            .headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect::<Vec<_>>()
            .join(","),
        content_type: header(CONTENT_TYPE).to_owned(),
        body: Bytes::new(),
        uri: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        notes: Notes::default(),
    };
    let mut trail = Trail { uri: head.uri.to_string(), source: peer.address.clone(), actor: None, received };

    let identified = authn::authenticate(&core, peer.user.as_ref(), header(AUTHORIZATION));
    let identified = identified.and_then(|user| {
        context.user = user.clone();
        let target = authn::impersonation(&core, &user, &head.headers)?;
        Ok(target.map(|target| (user, target)))
    });
    let mut early = None;
    match identified {
        Ok(Some((actor, target))) => {
            context.user = target;
            trail.actor = Some(actor);
        }
        Ok(None) => {}
        Err(error) => early = Some(error),
    }
    let mut twice = false;
    if early.is_none() {
        early = match core.faults.before(call(&context)) {
            Before::Pass => None,
            Before::Delay(time) => {
                tokio::time::sleep(time).await;
                None
            }
            Before::Refuse { code, retry_after } => Some(refusal(code, retry_after)),
            Before::Drop => return Err(ConnectionLost),
            Before::Twice => {
                twice = true;
                None
            }
        };
    }
    if early.is_none() {
        early = core.authz.check(&core, &context.user, &context.info).err();
    }
    let reply = match early {
        Some(error) => Err(error),
        None => match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => {
                context.body = body.to_bytes();
                if twice {
                    let first = verbs::handle(&core, &context).await.unwrap_or_else(|error| Reply::error(&error));
                    trail.write(&core, &context, &first);
                }
                verbs::handle(&core, &context).await
            }
            Err(_) => Err(ApiError::too_large(MAX_BODY)),
        },
    };
    let reply = reply.unwrap_or_else(|error| Reply::error(&error));
    let mut reply = reply.with_warnings(context.notes.warnings()).in_format_of(&context.accept);
    if head.method == http::Method::HEAD {
        reply.body = ReplyBody::Whole(Bytes::new());
    }
    trail.write(&core, &context, &reply);
    match core.faults.after(call(&context), reply.code) {
        After::Reply => {}
        After::Delay(time) => tokio::time::sleep(time).await,
        After::Lose => return Err(ConnectionLost),
    }
    if let ReplyBody::Stream(stream) = reply.body {
        // A watch ends with the server.
        let stopped = core.stopping.clone();
        let stream = stream.take_until(async move { stopped.cancelled_owned().await });
        reply.body = ReplyBody::Stream(if peer.remote { paced(stream.boxed()).boxed() } else { stream.boxed() });
    }
    Ok(reply.into_response())
}

pub(crate) fn call(context: &Context) -> Call<'_> {
    Call { user: &context.user, request: &context.info, user_agent: &context.user_agent, body: &context.body }
}

fn refusal(code: u16, retry_after: Option<u32>) -> ApiError {
    match code {
        429 => ApiError::too_many_requests("the server has received too many requests (injected)", retry_after),
        410 => ApiError::expired("the provided resource version is too old (injected)"),
        503 => ApiError::unavailable("the server is currently unable to handle the request (injected)"),
        409 => ApiError::conflict(
            crate::status::About { group: "", what: "requests", name: "" },
            "the object has been modified (injected); please apply your changes to the latest version and try again",
        ),
        _ => ApiError { code, ..ApiError::internal("injected") },
    }
}

/// What the audit log needs beside context and reply.
struct Trail {
    uri: String,
    source: String,
    /// Who authenticated, when somebody is impersonated.
    actor: Option<UserInfo>,
    received: Timestamp,
}

impl Trail {
    fn write(&self, core: &Core, context: &Context, reply: &Reply) {
        let Some(audit) = &core.audit else { return };
        let record = Record {
            id: &core.audit_id(),
            request: &context.info,
            uri: &self.uri,
            user: self.actor.as_ref().unwrap_or(&context.user),
            impersonated: self.actor.is_some().then_some(&context.user),
            user_agent: &context.user_agent,
            source: &self.source,
            code: reply.code,
            reason: reply.reason,
            created_name: &reply.name,
            annotations: &context.notes.annotations(),
            received: self.received,
            stage_time: core.clock.now(),
        };
        audit.write(&record.to_line());
    }
}

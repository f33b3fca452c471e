//! Passing requests on to the server behind an `APIService`, in the name of whoever asked.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::HeaderName;
use http_body_util::{BodyExt, BodyStream, Full};

use super::{backend as service_of, trust};
use crate::backend::{self, Place};
use crate::core::Core;
use crate::reply::{JSON, Reply};
use crate::server::Context;
use crate::status::ApiError;

/// Answers a request whose group and version another server serves; nothing when none does.
pub(crate) async fn pass(core: &Arc<Core>, context: &Context) -> Option<Result<Reply, ApiError>> {
    // Without any aggregated API, as mostly, nobody has to look.
    if !core.aggregated.any() {
        return None;
    }
    let mut parts = context.info.path.trim_start_matches('/').split('/');
    let ("apis", group, version) = (parts.next()?, parts.next()?, parts.next()?) else { return None };
    if core.registry.table().serves(group, version) {
        return None;
    }
    let service = service_of(core, group, version)?;
    let conditions = service.value["status"]["conditions"].as_array().into_iter().flatten();
    let available =
        conditions.into_iter().any(|condition| condition["type"] == "Available" && condition["status"] == "True");
    if !available {
        return Some(Err(ApiError { plain: true, ..ApiError::unavailable("service unavailable\n") }));
    }
    let place = Place::service(&service.value["spec"]["service"]);
    let request = match request(context, &place) {
        Ok(request) => request,
        Err(error) => return Some(Err(ApiError::bad_request(error.to_string()))),
    };
    Some(match backend::send(core, &place, &trust(core, &service.value), request).await {
        Ok(response) => Ok(answer(response)),
        Err(error) => Err(ApiError::unavailable(&format!("error trying to reach service: {error}"))),
    })
}

fn request(context: &Context, place: &Place) -> Result<http::Request<Full<Bytes>>, http::Error> {
    let mut builder = http::Request::builder()
        .method(context.info.method.as_str())
        .uri(&context.uri)
        .header(http::header::HOST, place.authority())
        .header("X-Remote-User", &context.user.name);
    for group in &context.user.groups {
        builder = builder.header("X-Remote-Group", group);
    }
    if !context.user.uid.is_empty() {
        builder = builder.header("X-Remote-Uid", &context.user.uid);
    }
    for (key, values) in &context.user.extra {
        let name = HeaderName::try_from(format!("X-Remote-Extra-{}", key.replace('/', "%2f")))?;
        for value in values {
            builder = builder.header(&name, value);
        }
    }
    for (name, value) in [
        (http::header::ACCEPT, &context.accept),
        (http::header::CONTENT_TYPE, &context.content_type),
        (http::header::USER_AGENT, &context.user_agent),
    ] {
        if !value.is_empty() {
            builder = builder.header(name, value);
        }
    }
    builder.body(Full::new(context.body.clone()))
}

/// The answer as it comes, head first: it may be a watch.
fn answer(response: http::Response<hyper::body::Incoming>) -> Reply {
    let code = response.status().as_u16();
    let content_type = response.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or(JSON).to_owned();
    // What breaks off over there breaks off here.
    let stream = BodyStream::new(response.into_body().map_err(drop))
        .take_while(|frame| futures::future::ready(frame.is_ok()))
        .filter_map(|frame| futures::future::ready(frame.ok().and_then(|frame| frame.into_data().ok())));
    Reply { code, ..Reply::stream(&content_type, stream.boxed()) }
}

//! Reading a request's body within bounds.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

/// How long a body may take: the API server gives a webhook 10 s in all.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest body. An AdmissionReview carries an object twice (new and old), and an object is at most 1.5 MiB in etcd.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body has more than {BODY_BYTES} bytes")]
    TooLarge,
    #[error("the body did not arrive within {BODY_TIMEOUT:?}")]
    Timeout,
    #[error("the body broke off: {0}")]
    Broken(String),
}

impl BodyError {
    /// The status that tells a client.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::TooLarge => http::StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => http::StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => http::StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a whole body within [`BODY_BYTES`] and [`BODY_TIMEOUT`].
///
/// # Errors
/// It is too large, too slow or incomplete.
pub async fn read_body(body: Incoming) -> Result<Bytes, BodyError> {
    match timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES).collect()).await {
        Err(_) => Err(BodyError::Timeout),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(error)) => Err(BodyError::Broken(error.to_string())),
    }
}

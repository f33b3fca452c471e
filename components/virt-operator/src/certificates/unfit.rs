//! What can be wrong with a certificate that is stored.

/// Why a stored certificate does not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it is not there")]
    Missing,
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("its key belongs to another certificate")]
    WrongKey,
    #[error("it was not signed by the current authority")]
    WrongAuthority,
    #[error("it is not the certificate of an authority")]
    NoAuthority,
    #[error("it is not yet valid")]
    NotYetValid,
    #[error("it is due for renewal")]
    Due,
    #[error("it was made to live for {found}, not for {wanted}")]
    OtherLifetime { found: String, wanted: String },
    #[error("it is made out to {found}, not to {wanted}")]
    WrongName { found: String, wanted: String },
}

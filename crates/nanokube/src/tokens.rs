//! Service-account tokens: signed JSON Web Tokens. The key comes from the seed, so the same run issues the same tokens.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

/// The issuer in every token.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The audience of a token that names none.
pub(crate) const AUDIENCE: &str = ISSUER;

/// How many genuine tokens are remembered: those of a suite and of what belongs to a small cluster. Whoever has more of them
/// has them read again.
const REMEMBERED: usize = 256;

/// Signs and checks tokens.
pub(crate) struct Tokens {
    key: Ed25519KeyPair,
    /// What genuine tokens say. A client shows its token with each request, and to check a signature takes longer than most
    /// requests do.
    read: Mutex<BTreeMap<String, Claims>>,
}

/// What a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub namespace: String,
    pub account: String,
    pub account_uid: String,
    /// Kind, name and uid of the object the token lives and dies with.
    pub bound: Option<(String, String, String)>,
    pub audiences: Vec<String>,
    /// Seconds since 1970.
    pub issued: i64,
    pub expires: i64,
    pub id: String,
}

/// Why a token is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is not one of this server's")]
    Foreign,
    #[error("the token has expired")]
    Expired,
}

impl Tokens {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed");
        Self { key, read: Mutex::default() }
    }

    /// A signed token.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let mut bound = json!({
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.account, "uid": claims.account_uid},
        });
        if let Some((kind, name, uid)) = &claims.bound {
            bound[kind.to_lowercase()] = json!({"name": name, "uid": uid});
        }
        let body = json!({
            "iss": ISSUER, "aud": claims.audiences, "iat": claims.issued, "nbf": claims.issued,
            "exp": claims.expires, "jti": claims.id,
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.account),
            "kubernetes.io": bound,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "EdDSA", "typ": "JWT"})), encode(&body));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The claims of a genuine token that is valid at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn check(&self, token: &str, now: i64) -> Result<Claims, TokenError> {
        let claims = self.remembered(token).ok_or(TokenError::Foreign)?;
        if now >= claims.expires { Err(TokenError::Expired) } else { Ok(claims) }
    }

    fn remembered(&self, token: &str) -> Option<Claims> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        if known.is_some() {
            return known;
        }
        let claims = self.read(token)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= REMEMBERED {
            read.clear();
        }
        read.insert(token.to_owned(), claims.clone());
        Some(claims)
    }

    fn read(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&ED25519, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        let (_, body) = signed.split_once('.')?;
        let body: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let bound = &body["kubernetes.io"];
        let object = ["pod", "secret", "node"].iter().find_map(|kind| {
            let object = bound.get(*kind)?;
            Some(((*kind).to_owned(), text(&object["name"])?, text(&object["uid"])?))
        });
        Some(Claims {
            namespace: text(&bound["namespace"])?,
            account: text(&bound["serviceaccount"]["name"])?,
            account_uid: text(&bound["serviceaccount"]["uid"])?,
            bound: object,
            audiences: body["aud"].as_array()?.iter().filter_map(text).collect(),
            issued: body["iat"].as_i64()?,
            expires: body["exp"].as_i64()?,
            id: text(&body["jti"])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(number: usize) -> Claims {
        Claims {
            namespace: "kubevirt".into(),
            account: "kubevirt-operator".into(),
            account_uid: "u".into(),
            bound: Some(("pod".into(), "p".into(), "v".into())),
            audiences: vec![AUDIENCE.into()],
            issued: 0,
            expires: 100,
            id: number.to_string(),
        }
    }

    #[test]
    fn a_token_that_is_remembered_expires_all_the_same_and_vouches_for_no_other() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.sign(&claims(0));
        assert_eq!(tokens.check(&token, 99), Ok(claims(0)));
        assert_eq!(tokens.check(&token, 99), Ok(claims(0)), "as the first time");
        assert_eq!(tokens.check(&token, 100), Err(TokenError::Expired));
        let foreign = Tokens::new(&[8; 32]).sign(&claims(0));
        assert_eq!(tokens.check(&foreign, 99), Err(TokenError::Foreign));
        assert_eq!(tokens.check(&format!("{token}x"), 99), Err(TokenError::Foreign));
    }

    #[test]
    fn however_many_tokens_there_are_only_some_are_remembered() {
        let tokens = Tokens::new(&[7; 32]);
        for number in 0..=REMEMBERED {
            assert_eq!(tokens.check(&tokens.sign(&claims(number)), 99), Ok(claims(number)));
            assert!(tokens.read.lock().unwrap().len() <= REMEMBERED);
        }
        assert_eq!(tokens.check(&tokens.sign(&claims(0)), 99), Ok(claims(0)), "read again");
    }
}

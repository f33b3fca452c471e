//! Who asks: the connection's own identity (client certificate, in-process client), a bearer token, or nobody; and on
//! whose behalf (impersonation).

use http::HeaderMap;

use crate::authz::Attributes;
use crate::core::Core;
use crate::identity::UserInfo;
use crate::registry::resource_key;
use crate::status::{About, ApiError};
use crate::store::Name;
use crate::tokens::{AUDIENCE, Claims};

/// The user of a request.
///
/// # Errors
/// 401 for a token that is no good.
pub(crate) fn authenticate(core: &Core, peer: Option<&UserInfo>, authorization: &str) -> Result<UserInfo, ApiError> {
    if let Some(user) = peer {
        return Ok(user.clone());
    }
    let Some(token) = authorization.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty()) else {
        return Ok(UserInfo::anonymous());
    };
    token_user(core, token, &[]).map(|(user, _)| user).map_err(|_| ApiError::unauthorized())
}

/// The user of a token, and which of the wanted audiences it is for.
///
/// # Errors
/// A text for `TokenReview.status.error`.
pub(crate) fn token_user(core: &Core, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), String> {
    let claims =
        core.tokens.check(token, core.clock.now().as_second()).map_err(|_| "invalid bearer token".to_owned())?;
    let wanted: Vec<String> = if audiences.is_empty() { vec![AUDIENCE.to_owned()] } else { audiences.to_vec() };
    let matching: Vec<String> = wanted.into_iter().filter(|wanted| claims.audiences.contains(wanted)).collect();
    if matching.is_empty() {
        return Err("token audiences do not contain a wanted audience".to_owned());
    }
    alive(core, &claims).ok_or_else(|| "the token's service account or object is gone".to_owned())?;
    let mut user = UserInfo::service_account(&claims.namespace, &claims.account);
    user.uid.clone_from(&claims.account_uid);
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    extra("credential-id", &format!("JTI={}", claims.id));
    if let Some((kind, name, uid)) = claims.bound.as_ref().filter(|(kind, ..)| kind == "pod") {
        extra(&format!("{kind}-name"), name);
        extra(&format!("{kind}-uid"), uid);
    }
    Ok((user, matching))
}

/// Whether what the token is bound to still exists: tokens of deleted accounts and pods die with them.
fn alive(core: &Core, claims: &Claims) -> Option<()> {
    let uid_of = |plural: &str, namespace: &str, name: &str| {
        let object = core.store.get(&resource_key("", plural), &Name::new(namespace, name))?;
        object.value["metadata"]["uid"].as_str().map(str::to_owned)
    };
    if uid_of("serviceaccounts", &claims.namespace, &claims.account)? != claims.account_uid {
        return None;
    }
    let Some((kind, name, uid)) = &claims.bound else { return Some(()) };
    let namespace = if kind == "node" { "" } else { claims.namespace.as_str() };
    (uid_of(&format!("{kind}s"), namespace, name)? == *uid).then_some(())
}

/// The user the headers ask to act as, if any, when the actor may.
///
/// # Errors
/// 403 when the actor may not, 400 when groups are given without a user.
pub(crate) fn impersonation(core: &Core, actor: &UserInfo, headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let name = all("impersonate-user").into_iter().next().unwrap_or_default();
    let groups = all("impersonate-group");
    if name.is_empty() {
        if groups.is_empty() && !headers.contains_key("impersonate-uid") {
            return Ok(None);
        }
        let text = "Internal Server Error: requested to impersonate groups without impersonating a user\n".to_owned();
        return Err(ApiError { plain: true, ..ApiError::unexplained(text) });
    }
    let mut target = UserInfo { name, groups, ..UserInfo::default() };
    target.uid = all("impersonate-uid").into_iter().next().unwrap_or_default();
    for (key, value) in headers {
        if let (Some(key), Ok(value)) = (key.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            target.extra.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let asked = Attributes { verb: "impersonate", group, resource, namespace, name, ..Attributes::default() };
        core.authz.allows(core, actor, &asked).map(drop).map_err(|()| {
            let why = format!(
                "User \"{}\" cannot impersonate resource \"{resource}\" in API group \"{group}\" at the cluster scope",
                actor.name
            );
            ApiError::forbidden(About { group, what: resource, name }, &why)
        })
    };
    match target.as_service_account() {
        Some((namespace, account)) => may("", "serviceaccounts", namespace, account)?,
        None => may("", "users", "", &target.name)?,
    }
    for group in &target.groups {
        may("", "groups", "", group)?;
    }
    if !target.uid.is_empty() {
        may("authentication.k8s.io", "uids", "", &target.uid)?;
    }
    for (key, values) in &target.extra {
        for value in values {
            may("authentication.k8s.io", &format!("userextras/{key}"), "", value)?;
        }
    }
    if target.groups.is_empty() {
        // Like a login: a user without stated groups is still an authenticated one.
        let complete = match target.as_service_account() {
            Some((namespace, account)) => UserInfo::service_account(namespace, account),
            None => UserInfo::new(&target.name, &[]),
        };
        target.groups = complete.groups;
    } else if target.name != "system:anonymous" && !target.is_member(crate::identity::AUTHENTICATED) {
        target.groups.push(crate::identity::AUTHENTICATED.to_owned());
    }
    Ok(Some(target))
}

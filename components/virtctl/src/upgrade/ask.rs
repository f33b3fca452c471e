//! What a person asks of a change of version: the one write of this command line that concerns the operator. It is the
//! person's own wish in the person's own object field, so no lease fences it.

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kubevirt_api::upgrade::{Request, UpgradePlan};
use serde_json::json;

/// Asks, or takes back what was asked.
///
/// # Errors
/// The server refused or did not answer.
pub(super) async fn ask(client: &Client, name: &str, request: Option<Request>) -> kube::Result<()> {
    let api: Api<UpgradePlan> = Api::all(client.clone());
    let wish = Patch::Merge(json!({"spec": {"request": request}}));
    let parameters = PatchParams { field_manager: Some("virtctl".to_owned()), ..PatchParams::default() };
    api.patch(name, &parameters, &wish).await.map(drop)
}

//! The built-in controllers and simulated nodes against nanokube, in process and with paused time.

mod probes;
mod protection;
mod world;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use world::{World, available, daemon_set, deployment, is_ready, updated};

/// Serves 200 to everything on the port given as the first argument, until stopped.
fn server(host: kubevirt_runtime::host::Host) -> futures::future::BoxFuture<'static, anyhow::Result<()>> {
    async move {
        let port: u16 = host.args.get(1).and_then(|text| text.parse().ok()).unwrap_or(8080);
        let mut listener = host.net.listen((host.net.own_ip(), port).into()).await?;
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                () = host.stop.cancelled() => return Ok(()),
            };
            tasks.spawn(async move {
                let answer = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(
                        bytes::Bytes::from_static(b"ok"),
                    )))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), answer)
                    .await;
            });
        }
    }
    .boxed()
}

#[tokio::test(start_paused = true)]
async fn three_replicas_are_ready_in_about_two_seconds() {
    let world = World::start(3).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    let began = Instant::now();
    api.create(&PostParams::default(), &deployment("web", 3, "idle:v1")).await.expect("created");
    world.until::<Deployment>("web", |it| available(it) == 3).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_600) && took < Duration::from_millis(2_600), "took {took:?}");

    // Spread over the nodes, named like the set, with addresses of their own.
    let pods = world.pods("app=web").await;
    let nodes: std::collections::BTreeSet<_> =
        pods.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.clone()).collect();
    assert_eq!(nodes.len(), 3, "one pod per node");
    let set = world.only::<ReplicaSet>().await;
    let name = set.metadata.name.unwrap();
    assert!(pods.iter().all(|pod| pod.metadata.name.as_ref().unwrap().starts_with(&format!("{name}-"))));
    let conditions = world.get::<Deployment>("web").await.status.unwrap().conditions.unwrap();
    let text: Vec<_> =
        conditions.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason.as_ref().unwrap())).collect();
    assert_eq!(text, ["Available True MinimumReplicasAvailable", "Progressing True NewReplicaSetAvailable"]);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_keeps_what_is_available_and_ends_with_the_new_template() {
    let world = World::start(2).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    api.create(&PostParams::default(), &deployment("web", 4, "idle:v1")).await.expect("created");
    world.until::<Deployment>("web", |it| available(it) == 4).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "idle:v2"}]}}}});
    api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.expect("patched");
    let mut fewest = i32::MAX;
    world
        .until::<Deployment>("web", |it| {
            fewest = fewest.min(available(it));
            it.status.as_ref().is_some_and(|status| status.observed_generation == it.metadata.generation)
                && updated(it) == 4
                && available(it) == 4
                && it.status.as_ref().unwrap().replicas == Some(4)
        })
        .await;
    assert!(fewest >= 3, "25 % of 4 may be unavailable, {fewest} were available");
    let pods = world.pods("app=web").await;
    let live: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    assert_eq!(live.len(), 4);
    assert!(live.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("idle:v2")));
    let revision =
        world.get::<Deployment>("web").await.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"].clone();
    assert_eq!(revision, "2");
}

#[tokio::test(start_paused = true)]
async fn recreate_never_runs_two_templates_at_once() {
    let world = World::start(2).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    let mut web = deployment("web", 2, "idle:v1");
    web.spec.as_mut().unwrap().strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
    api.create(&PostParams::default(), &web).await.expect("created");
    world.until::<Deployment>("web", |it| available(it) == 2).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "idle:v2"}]}}}});
    api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.expect("patched");
    world
        .until_all::<Pod>(|pods| {
            let images: std::collections::BTreeSet<_> =
                pods.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone()).collect();
            assert!(images.len() <= 1, "both templates run");
            pods.len() == 2 && images.contains(&Some("idle:v2".to_owned())) && pods.iter().all(is_ready)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_covers_every_node_and_rolls_one_by_one() {
    let world = World::start(3).await;
    let api: Api<DaemonSet> = Api::default_namespaced(world.client());
    api.create(&PostParams::default(), &daemon_set("agent", "idle:v1")).await.expect("created");
    let ready = |it: &DaemonSet| it.status.as_ref().map_or(0, |status| status.number_ready);
    world.until::<DaemonSet>("agent", |it| ready(it) == 3).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "idle:v2"}]}}}});
    api.patch("agent", &PatchParams::default(), &Patch::Strategic(patch)).await.expect("patched");
    let mut fewest = i32::MAX;
    world
        .until::<DaemonSet>("agent", |it| {
            let status = it.status.clone().unwrap();
            fewest = fewest.min(status.number_available.unwrap_or(0));
            status.observed_generation == it.metadata.generation
                && status.updated_number_scheduled == Some(3)
                && status.number_available == Some(3)
        })
        .await;
    assert_eq!(fewest, 2, "one node at a time");
    let images: Vec<_> = world
        .pods("app=agent")
        .await
        .iter()
        .map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap())
        .collect();
    assert_eq!(images, ["idle:v2", "idle:v2", "idle:v2"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_pulls_an_image_once() {
    let world = World::start(1).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    let mut took = Vec::new();
    for name in ["first", "second"] {
        let began = Instant::now();
        api.create(&PostParams::default(), &deployment(name, 1, "idle:v1")).await.expect("created");
        world.until::<Deployment>(name, |it| available(it) == 1).await;
        took.push(began.elapsed());
    }
    // A pull takes 650 ms at least.
    assert!(took[1] + Duration::from_millis(500) < took[0], "{took:?}");
    let events: Api<Event> = Api::default_namespaced(world.client());
    let events = events.list(&ListParams::default()).await.expect("events").items;
    let said = |pod: &str| -> Vec<String> {
        let of = |event: &&Event| event.involved_object.name.as_deref().is_some_and(|name| name.starts_with(pod));
        let pulls =
            events.iter().filter(of).filter(|event| event.reason.as_deref().is_some_and(|it| it.starts_with("Pull")));
        pulls.filter_map(|event| event.message.clone()).collect()
    };
    let first = said("first-");
    assert_eq!(first[0], "Pulling image \"idle:v1\"");
    assert!(first[1].starts_with("Successfully pulled image \"idle:v1\" in "), "{first:?}");
    assert_eq!(said("second-"), ["Container image \"idle:v1\" already present on machine"]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_keeps_the_pod_from_starting_and_is_named() {
    let world = World::start(1).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    let mut web = deployment("web", 1, "idle:v1");
    let spec = web.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.volumes = serde_json::from_value(json!([{"name": "certs", "secret": {"secretName": "web-certs"}}])).unwrap();
    api.create(&PostParams::default(), &web).await.expect("created");
    let event = world.event("FailedMount").await;
    assert_eq!(event, "MountVolume.SetUp failed for volume \"certs\" : secret \"web-certs\" not found");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pod = world.pods("app=web").await.remove(0);
    let status = pod.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let state = status.container_statuses.unwrap().remove(0).state.unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("ContainerCreating"));

    let secrets: Api<Secret> = Api::default_namespaced(world.client());
    let secret = serde_json::from_value(json!({"metadata": {"name": "web-certs"}})).unwrap();
    let began = Instant::now();
    secrets.create(&PostParams::default(), &secret).await.expect("created");
    world.until::<Deployment>("web", |it| available(it) == 1).await;
    assert!(began.elapsed() < Duration::from_secs(3), "it starts when the Secret appears");
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_wrong_port_keeps_the_pod_unready_and_names_it() {
    let world = World::with_program(1, "server", server).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    let probed = |name: &str, port: u16| {
        let mut it = deployment(name, 1, "server:v1");
        let container = &mut it.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0];
        container.args = Some(vec!["8080".to_owned()]);
        container.startup_probe =
            serde_json::from_value(json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1})).unwrap();
        container.readiness_probe =
            serde_json::from_value(json!({"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1})).unwrap();
        it
    };
    let began = Instant::now();
    api.create(&PostParams::default(), &probed("good", 8080)).await.expect("created");
    world.until::<Deployment>("good", |it| available(it) == 1).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_600) && took < Duration::from_millis(2_600), "took {took:?}");

    api.create(&PostParams::default(), &probed("bad", 8081)).await.expect("created");
    let event = world.event("Unhealthy").await;
    let ip = world.pods("app=bad").await.remove(0).status.unwrap().pod_ip.unwrap();
    assert_eq!(
        event,
        format!(
            "Readiness probe failed: Get \"http://{ip}:8081/healthz\": dial tcp {ip}:8081: connect: connection refused"
        )
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(available(&world.get::<Deployment>("bad").await), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_image_backs_off() {
    let world = World::start(1).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    api.create(&PostParams::default(), &deployment("web", 1, "nowhere:v1")).await.expect("created");
    let reason = |pod: &Pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        status.state.as_ref()?.waiting.as_ref()?.reason.clone()
    };
    world.until_all::<Pod>(|pods| pods.iter().any(|pod| reason(pod).as_deref() == Some("ErrImagePull"))).await;
    world.until_all::<Pod>(|pods| pods.iter().any(|pod| reason(pod).as_deref() == Some("ImagePullBackOff"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_program_is_restarted_with_growing_pauses() {
    let fails = |_: kubevirt_runtime::host::Host| async { anyhow::bail!("no configuration") }.boxed();
    let world = World::with_program(1, "fails", fails).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    api.create(&PostParams::default(), &deployment("web", 1, "fails:v1")).await.expect("created");
    let status = |pod: &Pod| pod.status.as_ref()?.container_statuses.as_ref()?.first().cloned();
    let restarted =
        |times: i32| move |pods: &[Pod]| pods.iter().filter_map(status).any(|status| status.restart_count == times);
    world.until_all::<Pod>(restarted(1)).await;
    let mut last = Instant::now();
    for (times, pause) in [(2, 10), (3, 20), (4, 40)] {
        world.until_all::<Pod>(restarted(times)).await;
        let took = last.elapsed();
        assert!(took >= Duration::from_secs(pause) && took < Duration::from_secs(pause + 3), "{times}: {took:?}");
        last = Instant::now();
    }
    let pod = world.pods("app=web").await.remove(0);
    let ended = status(&pod).unwrap().last_state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.message.as_deref()), (1, Some("no configuration")));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_asked_first_and_then_dropped() {
    let stubborn = |host: kubevirt_runtime::host::Host| {
        async move {
            let _listener = host.net.listen((host.net.own_ip(), 8080).into()).await?;
            futures::future::pending().await
        }
        .boxed()
    };
    let world = World::with_program(1, "stubborn", stubborn).await;
    let pods: Api<Pod> = Api::default_namespaced(world.client());
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {"terminationGracePeriodSeconds": 7, "containers": [{"name": "main", "image": "stubborn:v1"}]}
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.expect("created");
    world.until::<Pod>("p", is_ready).await;
    let ip: std::net::IpAddr = world.get::<Pod>("p").await.status.unwrap().pod_ip.unwrap().parse().unwrap();
    assert_eq!(world.network.listening(ip), [8080]);
    let began = Instant::now();
    pods.delete("p", &DeleteParams::default()).await.expect("deleted");
    world.until_all::<Pod>(|pods| pods.is_empty()).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(7) && took < Duration::from_secs(8), "took {took:?}");
    assert!(world.network.listening(ip).is_empty(), "its port is free");
}

#[tokio::test(start_paused = true)]
async fn what_fits_nowhere_says_why() {
    let world = World::start(3).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    let mut web = deployment("web", 1, "idle:v1");
    let spec = web.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.node_selector = Some([("node-role.kubernetes.io/control-plane".to_owned(), String::new())].into());
    spec.containers[0].resources = serde_json::from_value(json!({"requests": {"cpu": "100"}})).unwrap();
    api.create(&PostParams::default(), &web).await.expect("created");
    let event = world.event("FailedScheduling").await;
    assert_eq!(
        event,
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector."
    );
    let pod = world.pods("app=web").await.remove(0);
    let conditions = pod.status.unwrap().conditions.unwrap();
    assert_eq!(conditions[0].reason.as_deref(), Some("Unschedulable"));
}

#[tokio::test(start_paused = true)]
async fn nodes_register_and_one_that_falls_silent_is_noticed() {
    let world = World::start(2).await;
    let node = world.get_cluster::<Node>("node01").await;
    assert!(node.metadata.labels.unwrap().contains_key("node-role.kubernetes.io/control-plane"));
    world.stop_nodes();
    world
        .until_nodes(|nodes| {
            nodes.iter().all(|node| {
                let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
                let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
                conditions.iter().any(|it| it.type_ == "Ready" && it.status == "Unknown") && taints.len() == 2
            })
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_times() {
    let mut traces = Vec::new();
    for _ in 0..2 {
        let world = World::start(2).await;
        let began = Instant::now();
        let api: Api<Deployment> = Api::default_namespaced(world.client());
        api.create(&PostParams::default(), &deployment("web", 3, "idle:v1")).await.expect("created");
        world.until::<Deployment>("web", |it| available(it) == 3).await;
        let pods: Vec<_> = world
            .pods("app=web")
            .await
            .into_iter()
            .map(|pod| (pod.metadata.name, pod.spec.unwrap().node_name))
            .collect();
        let events: Api<Event> = Api::default_namespaced(world.client());
        let events = events.list(&Default::default()).await.unwrap().items.len();
        traces.push((began.elapsed(), pods, events));
    }
    assert_eq!(traces[0], traces[1]);
}

#[tokio::test(start_paused = true)]
async fn what_a_deployment_owns_goes_with_it() {
    for policy in [kube::api::PropagationPolicy::Background, kube::api::PropagationPolicy::Foreground] {
        let world = World::start(1).await;
        let api: Api<Deployment> = Api::default_namespaced(world.client());
        api.create(&PostParams::default(), &deployment("web", 2, "idle:v1")).await.expect("created");
        world.until::<Deployment>("web", |it| available(it) == 2).await;
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        api.delete("web", &params).await.expect("deleted");
        world.until_all::<Pod>(|pods| pods.is_empty()).await;
        world.until_all::<ReplicaSet>(|sets| sets.is_empty()).await;
        world.until_all::<Deployment>(|all| all.is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn orphaned_sets_keep_their_pods() {
    let world = World::start(1).await;
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    api.create(&PostParams::default(), &deployment("web", 2, "idle:v1")).await.expect("created");
    world.until::<Deployment>("web", |it| available(it) == 2).await;
    let params =
        DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..DeleteParams::default() };
    api.delete("web", &params).await.expect("deleted");
    world.until_all::<Deployment>(|all| all.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.only::<ReplicaSet>().await.metadata.owner_references, None);
    assert_eq!(world.pods("app=web").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_everything_in_it() {
    use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
    let world = World::start(1).await;
    let namespaces: Api<Namespace> = Api::all(world.client());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.expect("created");
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client(), "shop");
    let exists = kube::runtime::wait::await_condition(accounts, "default", |it: Option<&ServiceAccount>| it.is_some());
    exists.await.expect("the default account appears");
    let api: Api<Deployment> = Api::namespaced(world.client(), "shop");
    api.create(&PostParams::default(), &deployment("web", 1, "idle:v1")).await.expect("created");
    let ready = |it: Option<&Deployment>| it.is_some_and(|it| available(it) == 1);
    kube::runtime::wait::await_condition(api.clone(), "web", ready).await.expect("it becomes available");
    namespaces.delete("shop", &DeleteParams::default()).await.expect("deleted");
    let gone = kube::runtime::wait::await_condition(namespaces, "shop", |it: Option<&Namespace>| it.is_none());
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("within a minute").expect("it goes");
    let pods: Api<Pod> = Api::namespaced(world.client(), "shop");
    assert!(pods.list(&Default::default()).await.expect("a list").items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn endpoints_and_budgets_follow_readiness() {
    use k8s_openapi::api::core::v1::{Endpoints, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;
    let world = World::start(2).await;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 443, "targetPort": 8443}]}
    }))
    .unwrap();
    Api::default_namespaced(world.client()).create(&PostParams::default(), &service).await.expect("created");
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    }))
    .unwrap();
    Api::default_namespaced(world.client()).create(&PostParams::default(), &budget).await.expect("created");
    let api: Api<Deployment> = Api::default_namespaced(world.client());
    api.create(&PostParams::default(), &deployment("web", 2, "idle:v1")).await.expect("created");
    let addresses = |it: &Endpoints| -> usize {
        let subsets = it.subsets.iter().flatten();
        subsets.map(|subset| subset.addresses.as_ref().map_or(0, Vec::len)).sum()
    };
    world.until::<Endpoints>("web", |it| addresses(it) == 2).await;
    let ready = |slices: &[EndpointSlice]| {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints.filter(|it| it.conditions.as_ref().and_then(|it| it.ready) == Some(true)).count()
    };
    world.until_all::<EndpointSlice>(|slices| ready(slices) == 2).await;
    let allowed = |it: &PodDisruptionBudget| it.status.as_ref().and_then(|it| it.disruptions_allowed).unwrap_or(0);
    world.until::<PodDisruptionBudget>("web", |it| allowed(it) == 1).await;
    api.patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await.expect("scaled");
    world.until::<Endpoints>("web", |it| addresses(it) == 1).await;
    world.until::<PodDisruptionBudget>("web", |it| allowed(it) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_when_enough_pods_succeed() {
    use k8s_openapi::api::batch::v1::Job;
    let works = |host: kubevirt_runtime::host::Host| {
        async move {
            let pods: Api<Pod> = Api::namespaced(host.client, &host.namespace);
            // Its own account may not read pods: the identity is the pod's, not the node's.
            let refused = match pods.get(&host.hostname).await {
                Err(kube::Error::Api(status)) if status.is_forbidden() => status.message.clone(),
                other => anyhow::bail!("the pod acts with other rights than its account's: {other:?}"),
            };
            anyhow::ensure!(refused.contains("system:serviceaccount:default:default"), "{refused}");
            Ok(())
        }
        .boxed()
    };
    let world = World::with_program(1, "works", works).await;
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": "once"},
        "spec": {"completions": 3, "parallelism": 2, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "works:v1"}]}}}
    }))
    .unwrap();
    Api::default_namespaced(world.client()).create(&PostParams::default(), &job).await.expect("created");
    let complete = |it: &Job| {
        let conditions = it.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|it| it.type_ == "Complete" && it.status == "True")
    };
    world.until::<Job>("once", complete).await;
    let status = world.get::<Job>("once").await.status.unwrap();
    assert_eq!((status.succeeded, status.failed), (Some(3), None));
}

//! Sessions, views, filters and tasks.

use super::*;
use std::collections::HashMap;
use vim::FaultKind;
use vim::client::WatchEvent;
use vim::method;

type Known = HashMap<ManagedObjectReference, (String, PowerState)>;

#[tokio::test]
async fn a_wrong_password_or_certificate_is_refused() {
    let rig = Rig::new().await;
    let trust = Trust::Thumbprint(rig.serving.thumbprint);
    let wrong = Client::connect(ClientConfig::new(rig.serving.url(), "root", "wrong", trust))
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidLogin {})),
        "{wrong}"
    );
    let wrong = Client::connect(ClientConfig::new(
        rig.serving.url(),
        "root",
        "x",
        Trust::Thumbprint(vim::Thumbprint([7; 32])),
    ))
    .await;
    assert!(wrong.unwrap_err().to_string().contains("connect"));
}

#[tokio::test]
async fn an_expired_session_is_renewed_and_tasks_are_still_seen() {
    let rig = Rig::new().await;
    let vm = rig.create(named("a")).await.unwrap();
    for _ in 0..3 {
        rig.serving.host.sessions.expire_all();
        rig.client.power_on(&vm).await.unwrap();
        rig.serving.host.sessions.expire_all();
        rig.client
            .file_put("ha-datacenter", &path("x"), "x")
            .await
            .unwrap();
        rig.serving.host.sessions.expire_all();
        rig.client
            .file_head("ha-datacenter", &path("x"))
            .await
            .unwrap();
        rig.client.power_off(&vm).await.unwrap();
    }
    rig.client.logout().await.unwrap();
    rig.client.power_on(&vm).await.unwrap();
}

#[tokio::test]
async fn without_a_session_nothing_is_answered() {
    let rig = Rig::new().await;
    rig.client.logout().await.unwrap();
    // No renewal: a client of the same server that never logs in.
    let host = rig.serving.host.clone();
    assert!(host.sessions.find("").is_none());
    let wrong = rig
        .client
        .call(&method::RetrieveProperties {
            this: hostsim::inventory::property_collector(),
            spec_set: vec![],
        })
        .await;
    assert!(wrong.is_ok(), "the client has logged in again: {wrong:?}");
}

#[tokio::test]
async fn a_watch_tells_of_every_vm_that_comes_changes_and_goes() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let view = c
        .container_view(&c.content().root_folder.clone(), &["VirtualMachine"])
        .await
        .unwrap();
    let first = rig.create(named("first")).await.unwrap();
    let spec = PropertyFilterSpec::view(&view, "VirtualMachine", &["name", "runtime.powerState"]);
    let mut watch = c.watch(spec).await.unwrap();
    let mut known = Known::new();
    let mut follow = async |done: &dyn Fn(&Known) -> bool| {
        while !done(&known) {
            let event = tokio::time::timeout(std::time::Duration::from_secs(60), watch.next())
                .await
                .unwrap()
                .unwrap();
            let WatchEvent::Updates(updates) = event else {
                panic!("{event:?}")
            };
            for update in updates {
                match update.kind {
                    ObjectUpdateKind::Leave => drop(known.remove(&update.obj)),
                    _ => {
                        let entry = known.entry(update.obj.clone()).or_default();
                        if let Some(name) = update.get("name").unwrap() {
                            entry.0 = name;
                        }
                        if let Some(state) = update.get("runtime.powerState").unwrap() {
                            entry.1 = state;
                        }
                    }
                }
            }
        }
    };
    follow(&|k| k.get(&first) == Some(&("first".into(), PowerState::PoweredOff))).await;
    c.power_on(&first).await.unwrap();
    follow(&|k| k.get(&first) == Some(&("first".into(), PowerState::PoweredOn))).await;
    let second = rig.create(named("second")).await.unwrap();
    follow(&|k| k.len() == 2).await;
    c.rename(&second, "renamed").await.unwrap();
    follow(&|k| k.get(&second).is_some_and(|(name, _)| name == "renamed")).await;
    c.destroy_vm(&second).await.unwrap();
    follow(&|k| k.len() == 1).await;
}

#[tokio::test]
async fn a_lost_answer_of_a_wait_is_given_again() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let vm = rig.create(named("a")).await.unwrap();
    let this = c
        .call(&method::CreatePropertyCollector {
            this: c.content().property_collector.clone(),
        })
        .await
        .unwrap();
    let spec = PropertyFilterSpec::object(&vm, &["runtime.powerState"]);
    c.call(&method::CreateFilter {
        this: this.clone(),
        spec,
        partial_updates: false,
    })
    .await
    .unwrap();
    let options = Some(WaitOptions {
        max_wait_seconds: Some(0),
        max_object_updates: None,
    });
    let wait = |version: Option<&str>| method::WaitForUpdatesEx {
        this: this.clone(),
        version: version.map(str::to_owned),
        options: options.clone(),
    };
    let first = c.call(&wait(None)).await.unwrap().unwrap();
    assert_eq!(c.call(&wait(Some(&first.version))).await.unwrap(), None);
    c.power_on(&vm).await.unwrap();
    let lost = c.call(&wait(Some(&first.version))).await.unwrap().unwrap();
    assert_eq!(
        c.call(&wait(Some(&first.version))).await.unwrap(),
        Some(lost.clone())
    );
    assert_eq!(c.call(&wait(Some(&lost.version))).await.unwrap(), None);
    let wrong = c.call(&wait(Some("99"))).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidCollectorVersion {})),
        "{wrong}"
    );
    // A wait ends when it is told to.
    let long = method::WaitForUpdatesEx {
        this: this.clone(),
        version: Some(lost.version),
        options: None,
    };
    let waiting = {
        let c = c.clone();
        tokio::spawn(async move { c.call(&long).await })
    };
    while !waiting.is_finished() {
        c.call(&method::CancelWaitForUpdates { this: this.clone() })
            .await
            .unwrap();
    }
    let wrong = waiting.await.unwrap().unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::RequestCanceled {})),
        "{wrong}"
    );
}

#[tokio::test]
async fn many_tasks_at_once_each_come_to_their_own_end() {
    let rig = Rig::new().await;
    let mut work = tokio::task::JoinSet::new();
    for n in 0..40 {
        let client = rig.client.clone();
        work.spawn(async move {
            let folder = hostsim::inventory::vm_folder();
            let pool = hostsim::inventory::resource_pool();
            let vm = client
                .create_vm(&folder, named(&format!("vm-{n}")), &pool)
                .await
                .unwrap();
            client.power_on(&vm).await.unwrap();
            assert!(client.power_on(&vm).await.is_err());
            client.power_off(&vm).await.unwrap();
            client.destroy_vm(&vm).await.unwrap();
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let unknown = ManagedObjectReference::new("Task", "haTask-1-none-999999");
    assert!(
        rig.client
            .wait_task(&unknown)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn large_listings_come_in_pages_and_the_traversal_of_the_tree_finds_everything() {
    let rig = Rig::new().await;
    for n in 0..5 {
        rig.create(named(&format!("vm-{n}"))).await.unwrap();
    }
    let c = &rig.client;
    let this = c.content().property_collector.clone();
    let visit = |kind: &str, path: &str, then: &[&str]| {
        SelectionSpec::Traversal(TraversalSpec {
            name: Some(format!("{kind}.{path}")),
            kind: kind.into(),
            path: path.into(),
            skip: Some(false),
            select_set: then
                .iter()
                .map(|t| SelectionSpec::Named((*t).to_owned()))
                .collect(),
        })
    };
    let spec = PropertyFilterSpec {
        prop_set: vec![PropertySpec::paths("ManagedEntity", &["name"])],
        object_set: vec![ObjectSpec {
            obj: c.content().root_folder.clone(),
            skip: Some(false),
            select_set: vec![
                visit(
                    "Folder",
                    "childEntity",
                    &["Folder.childEntity", "Datacenter.vmFolder"],
                ),
                visit("Datacenter", "vmFolder", &["Folder.childEntity"]),
            ],
        }],
        report_missing: None,
    };
    let options = RetrieveOptions {
        max_objects: Some(3),
    };
    let mut page = c
        .call(&method::RetrievePropertiesEx {
            this: this.clone(),
            spec_set: vec![spec],
            options,
        })
        .await
        .unwrap()
        .unwrap();
    let mut names: Vec<String> = Vec::new();
    loop {
        assert!(page.objects.len() <= 3);
        names.extend(page.objects.iter().map(|o| o.get("name").unwrap().unwrap()));
        let Some(token) = page.token else { break };
        page = c
            .call(&method::ContinueRetrievePropertiesEx {
                this: this.clone(),
                token,
            })
            .await
            .unwrap();
    }
    names.sort();
    assert_eq!(
        names,
        [
            "ha-datacenter",
            "ha-folder-root",
            "vm",
            "vm-0",
            "vm-1",
            "vm-2",
            "vm-3",
            "vm-4"
        ]
    );
    let wrong = c
        .property::<String>(&hostsim::inventory::vm_folder(), "nonsense")
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidProperty { .. })),
        "{wrong}"
    );
}

//! A thousand VMs: made, listed and watched.

use super::*;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_vms_are_listed_whole_and_a_watch_tells_of_the_one_that_changes() {
    const COUNT: usize = 1000;
    let rig = Arc::new(Rig::new().await);
    let mut work = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let rig = rig.clone();
        work.spawn(async move {
            for n in (worker..COUNT).step_by(8) {
                let mut spec = named(&format!("vm-{n:04}"));
                spec.extra_config = vec![OptionValue::text("mooring.id", n.to_string())];
                rig.create(spec).await.unwrap();
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let c = &rig.client;
    let begun = std::time::Instant::now();
    let paths = ["name", "runtime.powerState", "config.extraConfig"];
    let all = c
        .list(&c.content().root_folder.clone(), "VirtualMachine", &paths)
        .await
        .unwrap();
    println!("{COUNT} VMs listed in {:?}", begun.elapsed());
    let mut names: Vec<String> = all
        .iter()
        .map(|o| o.get("name").unwrap().unwrap())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), COUNT);
    let view = c
        .container_view(&c.content().root_folder.clone(), &["VirtualMachine"])
        .await
        .unwrap();
    let mut watch = c
        .watch(PropertyFilterSpec::view(
            &view,
            "VirtualMachine",
            &["runtime.powerState"],
        ))
        .await
        .unwrap();
    let mut next = async || match watch.next().await.unwrap() {
        vim::client::WatchEvent::Updates(updates) => updates,
        other => panic!("{other:?}"),
    };
    assert_eq!(next().await.len(), COUNT);
    let begun = std::time::Instant::now();
    c.power_on(&all[500].obj).await.unwrap();
    let updates = next().await;
    println!("power-on and its update in {:?}", begun.elapsed());
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].obj, all[500].obj);
}

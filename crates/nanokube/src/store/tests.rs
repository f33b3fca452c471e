//! The watch contract against a model: ordered, unique, reliable, resumable, atomic, and told when it cannot be.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn key() -> ResourceKey {
    "things".into()
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        name: u8,
        value: u8,
    },
    Delete {
        name: u8,
    },
    /// Another resource moves the revision on without an event here.
    Elsewhere,
    Read,
    /// Drop the cursor and continue from what it has seen.
    Resume,
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, any::<u8>()).prop_map(|(name, value)| Step::Put { name, value }),
        3 => (0..4u8).prop_map(|name| Step::Delete { name }),
        2 => Just(Step::Elsewhere),
        4 => Just(Step::Read),
        2 => Just(Step::Resume),
        1 => Just(Step::Compact),
    ]
}

/// What the model says a watcher must see: revision, change, name, value (of a deletion: the last).
type Seen = (Revision, Change, String, u64);

fn seen(event: &Event) -> Seen {
    (event.revision, event.change, event.name.name.clone(), event.object.value["v"].as_u64().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_watcher_sees_the_models_history(steps in prop::collection::vec(step(), 1..80), history in 3..40usize) {
        let store = Store::new(history);
        let mut live: BTreeMap<String, (Revision, u64)> = BTreeMap::new();
        let mut model: Vec<Seen> = Vec::new();
        let mut cut = 0;
        let mut cursor = store.watch(&key(), store.revision()).unwrap();
        let mut read: Vec<Seen> = Vec::new();
        for step in steps {
            match step {
                Step::Put { name, value } => {
                    let name = name.to_string();
                    let object = json!({"v": value});
                    let place = Name::new("", &name);
                    let (stored, change) = match live.get(&name) {
                        None => (store.create(&key(), &place, object).unwrap(), Change::Added),
                        Some((revision, _)) => {
                            let stored = store.update(&key(), &place, *revision, object).unwrap();
                            (stored, Change::Modified)
                        }
                    };
                    live.insert(name.clone(), (stored.revision, u64::from(value)));
                    model.push((stored.revision, change, name, u64::from(value)));
                }
                Step::Delete { name } => {
                    let name = name.to_string();
                    let place = Name::new("", &name);
                    match live.remove(&name) {
                        None => prop_assert_eq!(store.delete(&key(), &place, 1, json!({})).unwrap_err(), StoreError::NotFound),
                        Some((revision, value)) => {
                            let gone = store.delete(&key(), &place, revision, json!({"v": value})).unwrap();
                            model.push((gone.revision, Change::Deleted, name, value));
                        }
                    }
                }
                Step::Elsewhere => {
                    let name = Name::new("", &store.revision().to_string());
                    store.create(&"other".into(), &name, json!({})).unwrap();
                }
                Step::Read => match cursor.ready() {
                    Ok(events) => read.extend(events.iter().map(|event| seen(event))),
                    Err(error) => {
                        // Only a history that was really cut may be refused; the watcher lists again.
                        let lost = model.len() > read.len() + history || cursor.seen() < cut;
                        prop_assert!(lost, "refused without need: {error}");
                        let (snapshot, fresh) = store.list_and_watch(&key(), "");
                        let listed: Vec<u64> = snapshot.objects.iter().map(|(_, o)| o.value["v"].as_u64().unwrap()).collect();
                        prop_assert_eq!(listed, live.values().map(|(_, value)| *value).collect::<Vec<_>>());
                        read.clone_from(&model);
                        cursor = fresh;
                    }
                },
                Step::Resume => match store.watch(&key(), cursor.seen()) {
                    Ok(fresh) => cursor = fresh,
                    Err(StoreError::Compacted { .. }) => {}
                    Err(other) => prop_assert!(false, "{other}"),
                },
                Step::Compact => {
                    cut = store.revision();
                    store.compact(cut);
                }
            }
            // Nothing out of order, nothing twice, nothing left out: what was read is a prefix of the model.
            prop_assert_eq!(&read[..], &model[..read.len()]);
        }
    }

    #[test]
    fn a_list_at_a_revision_is_what_was_there(steps in prop::collection::vec(step(), 1..60)) {
        let store = Store::new(1000);
        let mut past: Vec<(Revision, Vec<u64>)> = Vec::new();
        for step in steps {
            match step {
                Step::Put { name, value } => {
                    let place = Name::new("", &name.to_string());
                    let object = json!({"v": value});
                    match store.get(&key(), &place) {
                        Some(live) => drop(store.update(&key(), &place, live.revision, object).unwrap()),
                        None => drop(store.create(&key(), &place, object).unwrap()),
                    }
                }
                Step::Delete { name } => {
                    let place = Name::new("", &name.to_string());
                    if let Some(live) = store.get(&key(), &place) {
                        store.delete(&key(), &place, live.revision, live.value.clone()).unwrap();
                    }
                }
                _ => {}
            }
            past.push((store.revision(), values(&store.list(&key(), ""))));
        }
        for (revision, expected) in past {
            let whole = store.list_at(&key(), "", revision, None).unwrap();
            prop_assert_eq!(values(&whole), &expected[..]);
            // Pages are the whole, cut anywhere.
            for (index, (name, _)) in whole.objects.iter().enumerate() {
                let page = store.list_at(&key(), "", revision, Some(name)).unwrap();
                prop_assert_eq!(values(&page), &expected[index + 1..]);
            }
        }
    }
}

fn values(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.objects.iter().map(|(_, object)| object.value["v"].as_u64().unwrap()).collect()
}

#[test]
fn a_stale_writer_is_refused_and_changes_nothing() {
    let store = Store::new(10);
    let place = Name::new("ns", "a");
    let first = store.create(&key(), &place, json!({"v": 1})).unwrap();
    let second = store.update(&key(), &place, first.revision, json!({"v": 2})).unwrap();
    let refused = store.update(&key(), &place, first.revision, json!({"v": 3})).unwrap_err();
    assert_eq!(refused, StoreError::Conflict { expected: first.revision, found: second.revision });
    assert_eq!(store.create(&key(), &place, json!({})).unwrap_err(), StoreError::Exists);
    assert_eq!(store.revision(), second.revision);
    assert_eq!(store.get(&key(), &place).unwrap().value["v"], 2);
}

#[test]
fn a_future_revision_is_refused() {
    let store = Store::new(10);
    assert!(matches!(store.watch(&key(), 99), Err(StoreError::Future { asked: 99, .. })));
}

#[test]
fn what_nobody_writes_any_more_is_kept_as_text_and_told_as_before() {
    let store = Store::new(100);
    let place = Name::new("ns", "quiet");
    let from = store.revision();
    store.create(&key(), &place, json!({"v": 1})).unwrap();
    let is_text = || store.lock().shelves[&key()].objects[&place].value.text.is_some();
    assert!(!is_text());
    for number in 0..2 * SEEN {
        store.create(&"others".into(), &Name::new("", &number.to_string()), json!({})).unwrap();
    }
    assert!(is_text());
    assert_eq!(store.get(&key(), &place).unwrap().value["v"], 1);
    let told = store.watch(&key(), from).unwrap().ready().unwrap();
    assert_eq!(told.iter().map(|event| event.object.value["v"].clone()).collect::<Vec<_>>(), [json!(1)]);
}

#[test]
fn a_store_that_keeps_trees_reads_no_object_twice() {
    let store = Store::new(100);
    store.keep_trees();
    let place = Name::new("ns", "quiet");
    store.create(&key(), &place, json!({"v": 1})).unwrap();
    for number in 0..2 * SEEN {
        store.create(&"others".into(), &Name::new("", &number.to_string()), json!({})).unwrap();
    }
    let (first, second) = (store.get(&key(), &place).unwrap(), store.list(&key(), "").objects.remove(0).1);
    assert!(first.value.text.is_none() && Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_waiting_cursor_wakes_up() {
    let store = Store::new(10);
    let mut cursor = store.watch(&key(), store.revision()).unwrap();
    let waiting = tokio::spawn(async move { cursor.next().await.unwrap().len() });
    tokio::task::yield_now().await;
    store.create(&key(), &Name::new("", "a"), json!({})).unwrap();
    assert_eq!(waiting.await.unwrap(), 1);
}

#[tokio::test]
async fn cursors_wake_in_the_order_in_which_they_began_to_wait() {
    // More than any batch in which wakers are called.
    const CURSORS: usize = 100;
    let store = Store::new(10);
    let (order, mut woken) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..CURSORS {
        let mut cursor = store.watch(&key(), store.revision()).unwrap();
        let order = order.clone();
        tokio::spawn(async move {
            cursor.next().await.unwrap();
            order.send(number).unwrap();
        });
        tokio::task::yield_now().await;
    }
    drop(order);
    store.create(&key(), &Name::new("", "a"), json!({})).unwrap();
    let mut seen = Vec::new();
    while let Some(number) = woken.recv().await {
        seen.push(number);
    }
    assert_eq!(seen, (0..CURSORS).collect::<Vec<_>>());
}

#[test]
fn the_tail_leaves_out_version_and_kind() {
    let tail = |value: &Value| String::from_utf8(tail_of(value).to_vec()).unwrap();
    assert_eq!(tail(&json!({"apiVersion": "v1", "kind": "X", "a": 1, "b": "c"})), r#""a":1,"b":"c"}"#);
    assert_eq!(tail(&json!({"apiVersion": "v1", "kind": "X"})), "}");
}

#[test]
fn a_list_of_many_objects_can_be_resumed_after_all_of_them_changed() {
    const OBJECTS: usize = 64;
    let text = "x".repeat(1024);
    let put = |store: &Store, number: usize, value: usize| {
        let place = Name::new("", &number.to_string());
        let object = json!({"v": value, "text": text});
        match store.get(&key(), &place) {
            Some(live) => drop(store.update(&key(), &place, live.revision, object).unwrap()),
            None => drop(store.create(&key(), &place, object).unwrap()),
        }
    };
    let store = Store::new(10_000);
    (0..OBJECTS).for_each(|number| put(&store, number, 0));
    let listed = store.revision();
    (0..OBJECTS).for_each(|number| put(&store, number, 1));
    let page = store.list_at(&key(), "", listed, None).unwrap();
    assert_eq!(values(&page), vec![0; OBJECTS]);
    assert_eq!(store.watch(&key(), listed).unwrap().ready().unwrap().len(), OBJECTS);
    // Twice as often, and the first of it is gone: what a resource keeps has an end.
    (0..2 * OBJECTS).for_each(|number| put(&store, number % OBJECTS, 2));
    assert!(matches!(store.watch(&key(), listed), Err(StoreError::Compacted { .. })));
    // One object alone does not keep more than any resource may.
    let store = Store::new(10_000);
    put(&store, 0, 0);
    let created = store.revision();
    (0..OBJECTS).for_each(|value| put(&store, 0, value));
    assert!(matches!(store.watch(&key(), created), Err(StoreError::Compacted { .. })));
}

use crate::backend::FEED_LENGTH;
use crate::samples::{DEADLINE, NOW, instances};
use grey_state::instances::{Cursor, InstancesRead, Loaded, ServiceInstances};
use grey_state::{Error, FencingToken, State};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::time::timeout;

async fn replace(state: &State, token: u64, list: &ServiceInstances) {
    state.instances.replace(FencingToken(token), list).await.unwrap();
}

async fn read(state: &State, after: &Cursor) -> (Vec<ServiceInstances>, Cursor) {
    match state.instances.read(after, NOW).await.unwrap() {
        InstancesRead::Replaced { lists, next, digest } => {
            assert_eq!(digest, state.instances.digest().await.unwrap(), "all of them were read");
            (lists, next)
        }
        other => panic!("no replacement but {other:?}"),
    }
}

/// What is loaded, nothing of which is damaged, and all of which is as it was announced.
async fn load(state: &State) -> (Vec<ServiceInstances>, Cursor) {
    let Loaded { lists, damaged, cursor, digest } = state.instances.load().await.unwrap();
    assert_eq!(damaged, []);
    let sum = lists.iter().fold(0_u64, |sum, list| sum.wrapping_add(list.digest()));
    assert_eq!(digest.unwrap_or(0), sum);
    assert_eq!(digest, state.instances.digest().await.unwrap());
    (lists, cursor)
}

fn is_idle(read: &InstancesRead) -> bool {
    matches!(read, InstancesRead::Idle { .. })
}

pub(crate) async fn check(state: &State) {
    a_reader_of_nothing_waits_for_the_first(state).await;
    lists_are_replaced_whole_and_read_in_order(state).await;
    an_old_writer_is_fenced(state).await;
    no_reader_sees_a_partial_list(state).await;
    who_falls_behind_is_told(state).await;
}

async fn a_reader_of_nothing_waits_for_the_first(state: &State) {
    let (lists, cursor) = load(state).await;
    assert_eq!(lists, []);
    let none = instances("payment", &[], 0);
    assert_eq!(state.instances.list(&none.service).await.unwrap(), none);
    assert_eq!(state.instances.read(&cursor, NOW).await.unwrap(), InstancesRead::Idle { digest: None });
    let reader = {
        let (state, cursor) = (state.clone(), cursor.clone());
        tokio::spawn(async move { timeout(DEADLINE, state.instances.read(&cursor, DEADLINE * 2)).await })
    };
    let list = instances("payment", &["v1"], 2);
    replace(state, 1, &list).await;
    let got = reader.await.unwrap().unwrap().unwrap();
    assert!(matches!(&got, InstancesRead::Replaced { lists, .. } if *lists == [list.clone()]), "{got:?}");
    assert_eq!(read(state, &cursor).await.0, [list]);
}

async fn lists_are_replaced_whole_and_read_in_order(state: &State) {
    let (_, start) = load(state).await;
    let steps = [
        instances("payment", &["v1", "v2"], 3),
        instances("payment", &["v2", "v3.1"], 1),
        instances("search", &["v1"], 1),
        instances("payment", &[], 0),
    ];
    let mut cursor = start.clone();
    for step in &steps {
        let mut shuffled = step.clone();
        shuffled.instances.reverse();
        replace(state, 1, &shuffled).await;
        let (lists, next) = read(state, &cursor).await;
        assert_eq!(lists.as_slice(), std::slice::from_ref(step));
        let (loaded, loaded_at) = load(state).await;
        assert!(loaded.contains(step), "{loaded:?}");
        assert_eq!(state.instances.list(&step.service).await.unwrap(), *step, "one list by itself");
        assert_eq!(loaded_at, next);
        cursor = next;
    }
    let (lists, end) = read(state, &start).await;
    assert_eq!((lists, &end), (steps.to_vec(), &cursor));
    let digest = steps[2].digest();
    let idle = InstancesRead::Idle { digest: Some(digest) };
    assert_eq!(state.instances.read(&end, NOW).await.unwrap(), idle, "an empty list adds nothing");
    let (loaded, _) = load(state).await;
    assert_eq!(loaded, [steps[3].clone(), steps[2].clone()], "an empty list is a fact too");
}

async fn an_old_writer_is_fenced(state: &State) {
    replace(state, 7, &instances("search", &["v2"], 2)).await;
    let before = state.instances.load().await.unwrap();
    for service in ["search", "payment", "unseen"] {
        let refused = state.instances.replace(FencingToken(6), &instances(service, &["v9"], 1)).await;
        assert!(matches!(refused, Err(Error::Fenced { newest: 7, .. })), "{refused:?}");
    }
    assert_eq!(state.instances.load().await.unwrap(), before);
}

async fn no_reader_sees_a_partial_list(state: &State) {
    let lists = [
        instances("busy", &["v1"], 12),
        instances("busy", &["v2", "v3"], 9),
        instances("busy", &["v1", "v3"], 5),
    ];
    replace(state, 7, &lists[0]).await;
    let (done, loads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (state, lists) = (state.clone(), lists.clone());
            let (done, loads) = (Arc::clone(&done), Arc::clone(&loads));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let loaded = state.instances.load().await.unwrap().lists;
                    let busy = loaded.iter().find(|list| list.service.as_str() == "busy").unwrap();
                    assert!(lists.contains(busy), "{} instances", busy.instances.len());
                    loads.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let (_, mut cursor) = load(state).await;
    let write = async {
        let mut step = 0;
        while step < 60 || loads.load(Ordering::Relaxed) < 60 {
            step += 1;
            replace(state, 7, &lists[step % 3]).await;
            let (replaced, next) = read(state, &cursor).await;
            assert_eq!(replaced, [lists[step % 3].clone()]);
            cursor = next;
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, write).await.unwrap();
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

async fn who_falls_behind_is_told(state: &State) {
    let (_, old) = load(state).await;
    let list = instances("search", &["v1"], 1);
    for _ in 0..3 * FEED_LENGTH {
        replace(state, 7, &list).await;
    }
    assert_eq!(state.instances.read(&old, DEADLINE).await.unwrap(), InstancesRead::Lost);
    assert_eq!(state.instances.read(&Cursor::default(), NOW).await.unwrap(), InstancesRead::Lost);
    for foreign in ["x", "x y", "foreign 1", "foreign 1 x", "18446744073709551616", "-1"] {
        let read = state.instances.read(&Cursor(foreign.to_owned()), NOW).await.unwrap();
        assert_eq!(read, InstancesRead::Lost, "{foreign}");
    }
    let (_, fresh) = load(state).await;
    assert!(is_idle(&state.instances.read(&fresh, NOW).await.unwrap()));
}
